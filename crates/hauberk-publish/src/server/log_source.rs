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

/// How a log is called.
#[derive(Debug, Clone, Copy)]
pub enum LogName<'a> {
    /// The newest of the build that this derivation or output belongs to.
    Item(&'a StorePath),
    /// That of an attempt.
    Attempt(u64),
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

    /// Gives the base URL of the other server of the farm that has a log, where one has it.
    ///
    /// # Errors
    /// As for [`LogSource::open`].
    async fn elsewhere(&self, _name: LogName<'_>) -> io::Result<Option<String>> {
        Ok(None)
    }
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
