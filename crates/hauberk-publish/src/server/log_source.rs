//! Where build logs come from.

use std::{
    io::{self, Read},
    path::PathBuf,
};

use async_trait::async_trait;
use hauberk_store::StorePath;

/// A build log to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBody {
    /// A gzip file.
    pub path: PathBuf,
    /// Whether it has its end. One that still grows is sent as far as it goes, with an end of its own.
    pub complete: bool,
}

/// Finds build logs.
#[async_trait]
pub trait LogSource: Send + Sync {
    /// Gives the log of the build that `item` names: a derivation, or an output of one.
    ///
    /// # Errors
    /// What keeps the source from looking; the client gets a 503.
    async fn open(&self, item: &StorePath) -> io::Result<Option<LogBody>>;

    /// Gives the log of one attempt at a build. While it grows, nothing that is there of it changes.
    ///
    /// # Errors
    /// As for [`LogSource::open`].
    async fn attempt(&self, attempt: u64) -> io::Result<Option<LogBody>>;
}

/// Unpacks a gzip file that may have no end yet: where it breaks off, so does the text.
pub(super) struct Growing<R>(pub(super) R);

impl<R: Read> Read for Growing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            other => other,
        }
    }
}
