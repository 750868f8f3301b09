//! Makes whole logs durable and records that they are complete, as many at a time as have come together.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::time::Duration;

use hauberk_database::{AttemptId, Database, DatabaseError, ServerId, attempts};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

/// Logs sealed together at most.
const BATCH: usize = 256;
/// Times that the database is asked to record logs of attempts that others are writing about.
const TRIES: u32 = 100;
/// Pause between them.
const PAUSE: Duration = Duration::from_millis(20);

/// A log that is whole, but not durable yet.
#[derive(Debug)]
pub(crate) struct Whole {
    /// Its attempt.
    pub(crate) attempt: AttemptId,
    /// The file.
    pub(crate) file: File,
    /// Bytes of the stream.
    pub(crate) offset: u64,
    /// Bytes of the text.
    pub(crate) text_bytes: u64,
}

/// What became of a whole log.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// Its attempt.
    pub(crate) attempt: AttemptId,
    /// Bytes of the stream.
    pub(crate) offset: u64,
    /// Bytes of the text.
    pub(crate) text_bytes: u64,
    /// It is on disk, and recorded.
    pub(crate) durable: bool,
}

/// Seals what is sent, until nobody sends any more or `answer` gives false.
pub(crate) fn seal_in_background(
    database: Database,
    server: ServerId,
    answer: impl Fn(Sealed) -> bool + Send + 'static,
) -> UnboundedSender<Whole> {
    let (sender, mut receiver) = unbounded_channel();
    tokio::spawn(async move {
        let mut batch = Vec::new();
        while receiver.recv_many(&mut batch, BATCH).await > 0 {
            for sealed in seal(&database, server, std::mem::take(&mut batch)).await {
                if !answer(sealed) {
                    return;
                }
            }
        }
    });
    sender
}

async fn seal(database: &Database, server: ServerId, batch: Vec<Whole>) -> Vec<Sealed> {
    let (files, logs): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|Whole { attempt, file, offset, text_bytes }| (file, (attempt, offset, text_bytes)))
        .unzip();
    let recorded = match sync(files).await {
        Ok(()) => record(database, server, &logs).await,
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "cannot make logs durable now");
            HashSet::new()
        }
    };
    logs.into_iter()
        .map(|(attempt, offset, text_bytes)| {
            let durable = recorded.contains(&attempt);
            Sealed { attempt, offset, text_bytes, durable }
        })
        .collect()
}

async fn sync(files: Vec<File>) -> io::Result<()> {
    spawn_blocking(move || files.iter().try_for_each(File::sync_data)).await.map_err(io::Error::other)?
}

/// Records what it can, and gives the attempts whose logs are recorded.
async fn record(database: &Database, server: ServerId, logs: &[(AttemptId, u64, u64)]) -> HashSet<AttemptId> {
    let mut rows: Vec<_> = logs
        .iter()
        .map(|(attempt, _, text_bytes)| (*attempt, i64::try_from(*text_bytes).unwrap_or(i64::MAX)))
        .collect();
    let mut recorded = HashSet::new();
    for _ in 0..TRIES {
        match record_free(database, server, &rows).await {
            Ok(done) => recorded.extend(done),
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "cannot record complete logs now");
                break;
            }
        }
        rows.retain(|(attempt, _)| !recorded.contains(attempt));
        if rows.is_empty() {
            break;
        }
        // Their rows are in somebody's transaction.
        sleep(PAUSE).await;
    }
    recorded
}

/// Records those whose rows nobody holds now.
async fn record_free(
    database: &Database,
    server: ServerId,
    rows: &[(AttemptId, i64)],
) -> Result<Vec<AttemptId>, DatabaseError> {
    let transaction = database.begin_pinned().await?;
    let recorded = attempts::log_complete(&*transaction, rows, server).await?;
    drop(transaction.commit().await?);
    Ok(recorded)
}
