//! Finds the logs of builds, for the publish server.

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use hauberk_database::{Database, DatabaseError, attempts};
use hauberk_publish::server::{LogBody, LogSource};
use hauberk_store::StorePath;

/// The logs of attempts below a log directory, by derivation or output: the newest attempt's.
#[derive(Debug, Clone)]
pub(crate) struct AttemptLogs {
    /// Knows which attempt is the newest.
    pub(crate) database: Database,
    /// The log directory.
    pub(crate) directory: PathBuf,
}

#[async_trait]
impl LogSource for AttemptLogs {
    async fn open(&self, item: &StorePath) -> io::Result<Option<LogBody>> {
        let found = async { attempts::latest_log(&self.database.client().await?, item).await };
        let found = found.await.map_err(|error: DatabaseError| io::Error::other(error))?;
        let Some((path, complete)) = found else { return Ok(None) };
        let path = self.directory.join(path);
        Ok(path.is_file().then_some(LogBody { path, complete }))
    }
}
