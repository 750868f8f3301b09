//! Finds the logs of builds, for the publish server.

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use hauberk_database::attempts::{self, KeptLog};
use hauberk_database::{AttemptId, Database, DatabaseError, ServerId};
use hauberk_publish::server::{LogBody, LogName, LogSource};
use hauberk_store::StorePath;

/// The logs of attempts below a log directory, by derivation or output (the newest attempt's) or by attempt.
#[derive(Debug, Clone)]
pub(crate) struct AttemptLogs {
    /// Knows where logs are, and which attempt is the newest.
    pub(crate) database: Database,
    /// This server.
    pub(crate) server: ServerId,
    /// The log directory.
    pub(crate) directory: PathBuf,
}

#[async_trait]
impl LogSource for AttemptLogs {
    async fn open(&self, item: &StorePath) -> io::Result<Option<LogBody>> {
        Ok(self.find(LogName::Item(item)).await?.and_then(|found| self.body(found)))
    }

    async fn attempt(&self, attempt: u64) -> io::Result<Option<LogBody>> {
        Ok(self.find(LogName::Attempt(attempt)).await?.and_then(|found| self.body(found)))
    }

    async fn elsewhere(&self, name: LogName<'_>) -> io::Result<Option<String>> {
        let Some(KeptLog { server, publish_url, .. }) = self.find(name).await? else { return Ok(None) };
        Ok(publish_url.filter(|_| server.is_some_and(|server| server != self.server)))
    }
}

impl AttemptLogs {
    async fn find(&self, name: LogName<'_>) -> io::Result<Option<KeptLog>> {
        let found = async {
            let client = self.database.client().await?;
            match name {
                LogName::Item(item) => attempts::latest_log(&client, item).await,
                LogName::Attempt(number) => match i64::try_from(number) {
                    Ok(number) => attempts::log(&client, AttemptId::new(number)).await,
                    Err(_) => Ok(None),
                },
            }
        };
        found.await.map_err(|error: DatabaseError| io::Error::other(error))
    }

    /// The file of a log, if it is here. What this server has of a log that another receives now is not all; but servers may share a directory.
    fn body(&self, found: KeptLog) -> Option<LogBody> {
        let KeptLog { path, complete, server, .. } = found;
        let is_all = complete || server.is_none_or(|server| server == self.server);
        let path = self.directory.join(path);
        (is_all && path.is_file()).then_some(LogBody { path, complete })
    }
}
