//! Finds the logs of builds, for the publish server.

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use hauberk_database::{AttemptId, Database, DatabaseError, attempts};
use hauberk_publish::server::{LogBody, LogSource};
use hauberk_store::StorePath;

/// The logs of attempts below a log directory: of each, and by derivation or output the newest attempt's.
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
        Ok(found.and_then(|found| self.body(found)))
    }

    async fn attempt(&self, attempt: u64) -> io::Result<Option<LogBody>> {
        let Ok(id) = i64::try_from(attempt) else { return Ok(None) };
        let found = async { attempts::log(&self.database.client().await?, AttemptId::new(id)).await };
        let found = found.await.map_err(|error: DatabaseError| io::Error::other(error))?;
        Ok(found.and_then(|found| self.body(found)))
    }
}

impl AttemptLogs {
    /// Finds a log here by its path below the directory, and whether it is complete.
    fn body(&self, (path, complete): (String, bool)) -> Option<LogBody> {
        let path = self.directory.join(path);
        path.is_file().then_some(LogBody { path, complete })
    }
}
