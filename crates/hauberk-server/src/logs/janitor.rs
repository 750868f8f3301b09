//! Removes logs that have been kept long enough.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use hauberk_database::{AttemptId, Database, DatabaseError, ServerId, attempts};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often it looks.
const PAUSE: Duration = Duration::from_secs(3600);
/// Attempts looked at by a statement.
const BATCH: i64 = 10_000;

/// Why logs could not be removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExpiryError {
    /// The database does not tell, or does not take, which they are.
    #[error("cannot learn or record which logs are old")]
    Database(#[from] DatabaseError),
    /// A file stays.
    #[error("cannot remove the log {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Removes the logs of attempts that ended long ago, and says so in their rows.
#[derive(Debug)]
pub(crate) struct LogJanitor {
    database: Database,
    server: ServerId,
    directory: PathBuf,
    age: Duration,
    /// Attempts up to this one have been looked at. Those among them that had not ended are looked at again by the next start.
    done: Option<AttemptId>,
}

impl LogJanitor {
    /// Takes care of the logs of `server` below `directory`, which are kept for `age` after the end of their attempts.
    pub(crate) const fn new(database: Database, server: ServerId, directory: PathBuf, age: Duration) -> Self {
        Self { database, server, directory, age, done: None }
    }

    /// Looks now and then, until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let removed = tokio::select! {
                () = stop.cancelled() => return,
                removed = self.sweep() => removed,
            };
            match removed {
                Ok(0) => {}
                Ok(count) => {
                    info!(logs.removed = count, "removed {count} logs older than {} s", self.age.as_secs());
                }
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot remove old logs below {}: they are tried again in an hour",
                    self.directory.display()
                ),
            }
        }
    }

    /// Removes what is old and gives how many logs that were.
    async fn sweep(&mut self) -> Result<usize, ExpiryError> {
        let mut count = 0;
        loop {
            let client = self.database.client().await?;
            let found = attempts::old_logs(&client, self.server, self.age, self.done, BATCH).await?;
            if !found.expired.is_empty() {
                let (ids, paths): (Vec<_>, Vec<_>) = found.expired.into_iter().unzip();
                count += ids.len();
                let directory = self.directory.clone();
                let removed =
                    spawn_blocking(move || paths.iter().try_for_each(|path| remove(&directory, path)));
                removed.await.map_err(|error| ExpiryError::Remove {
                    path: self.directory.clone(),
                    source: io::Error::other(error),
                })??;
                // The files first: what is recorded as removed is not looked for again.
                attempts::expire_logs(&client, &ids).await?;
            }
            match found.next {
                Some(next) => self.done = Some(next),
                None => return Ok(count),
            }
        }
    }
}

/// Removes a log, if it is there. A path that leads out of the directory is none of ours and stays.
fn remove(directory: &Path, path: &str) -> Result<(), ExpiryError> {
    if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
        warn!("the log path {path:?} leads out of {}", directory.display());
        return Ok(());
    }
    let path = directory.join(path);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ExpiryError::Remove { path, source }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use hauberk_database::testing::TestDatabase;

    use super::*;

    /// Attempts of server 1 and one of server 2; what they belong to does not matter here.
    const ROWS: &str = "
set session_replication_role = replica;
insert into attempts (id, build_id, derivation_id, generation, number, kind, worker_id, session, epoch, assigned_at, ended_at,
                      class, log_server_id, log_path)
overriding system value
select id, id, 1, 1, 1, 'first', 1, 1, 1, now() - age - interval '1 hour', case when ended then now() - age end,
       case when ended then 'succeeded' end, server, path
from (values (1, interval '100 days', true, 1, '00/1.gz'), (2, interval '100 days', false, 1, '00/2.gz'),
             (3, interval '99 days', true, 2, '00/3.gz'), (4, interval '98 days', true, 1, null),
             (5, interval '97 days', true, 1, '../5.gz'), (6, interval '91 days', true, 1, '00/6.gz'),
             (7, interval '90 days', true, 1, '00/gone.gz'), (8, interval '20 days', true, 1, '00/8.gz'))
     as t (id, age, ended, server, path);
";

    #[tokio::test]
    async fn old_logs_go_and_others_stay() {
        let database = TestDatabase::new().await;
        let client = database.client().await;
        client.batch_execute(ROWS).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        std::fs::create_dir_all(logs.join("00")).unwrap();
        for name in ["00/1.gz", "00/2.gz", "00/3.gz", "../5.gz", "00/6.gz", "00/8.gz"] {
            std::fs::write(logs.join(name), "log").unwrap();
        }
        let day = Duration::from_secs(24 * 60 * 60);
        let server = ServerId::new(1);
        let janitor = |days| LogJanitor::new(database.database().clone(), server, logs.clone(), days * day);
        let left = || {
            ["00/1.gz", "00/2.gz", "00/3.gz", "../5.gz", "00/6.gz", "00/8.gz"]
                .map(|name| logs.join(name).exists())
        };
        let mut long = janitor(95);
        assert_eq!(long.sweep().await.unwrap(), 2);
        assert_eq!(left(), [false, true, true, true, true, true]);
        assert_eq!(long.sweep().await.unwrap(), 0);
        assert_eq!(janitor(30).sweep().await.unwrap(), 2);
        assert_eq!(left(), [false, true, true, true, false, true]);
        let rows = "select array_agg(id order by id) from attempts where log_expired_at is not null";
        let expired: Vec<i64> = client.query_one(rows, &[]).await.unwrap().get(0);
        assert_eq!(expired, [1, 5, 6, 7]);
        // The attempt ends long after; a start of the server finds it.
        client
            .batch_execute(
                "update attempts set ended_at = now() - interval '40 days', class = 'succeeded' where id = 2",
            )
            .await
            .unwrap();
        assert_eq!(janitor(30).sweep().await.unwrap(), 1);
        assert_eq!(left(), [false, false, true, true, false, true]);
    }
}
