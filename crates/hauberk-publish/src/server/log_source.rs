//! Where build logs come from.

use std::{io, path::PathBuf};

use async_trait::async_trait;
use hauberk_store::StorePath;

/// A build log to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBody {
    /// A gzip file, sent as it is. It may still grow: what it has at the time of the request is sent.
    pub path: PathBuf,
}

/// Finds build logs.
#[async_trait]
pub trait LogSource: Send + Sync {
    /// Gives the log of the build that `item` names: a derivation, or an output of one.
    ///
    /// # Errors
    /// What keeps the source from looking; the client gets a 503.
    async fn open(&self, item: &StorePath) -> io::Result<Option<LogBody>>;
}
