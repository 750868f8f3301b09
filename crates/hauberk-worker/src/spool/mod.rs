//! What a worker must not lose: results until they are acknowledged, the names of attempts whose outputs it serves until they
//! are released, and logs until the server has them.
//!
//! ```text
//! SPOOL/lock               held while a worker runs; tells which
//! SPOOL/results/ATTEMPT    a result that is not acknowledged
//! SPOOL/kept/ATTEMPT       an attempt whose outputs are not released
//! SPOOL/logs/ATTEMPT.stream, ATTEMPT.index
//! SPOOL/servers           the farm's servers, see `neighbours`
//! ```

mod disk;
mod lock;
mod record;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hauberk_protocol::proto::Finished;

pub use disk::SpoolError;

use crate::AttemptId;
use crate::log::{AttemptLog, ChunkStore, MemoryStore, Wake};
use disk::DiskSpool;

/// How much log text a spool takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Compressed bytes of one log.
    pub each: u64,
    /// Compressed bytes of all logs together.
    pub all: u64,
}

impl Default for LogLimits {
    /// 256 MiB for one log, which is some gigabytes of text, and 4 GiB for all.
    fn default() -> Self {
        Self { each: 256 << 20, all: 4 << 30 }
    }
}

/// Keeps results and logs until the server has them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    place: Place,
    limits: LogLimits,
}

#[derive(Clone, Debug)]
enum Place {
    Disk(Arc<DiskSpool>),
    Memory,
}

/// What an earlier process left in a spool.
#[derive(Debug, Default)]
pub(crate) struct Leftover {
    /// Results without an Ack.
    pub(crate) results: BTreeMap<AttemptId, Finished>,
    /// Attempts without a Release.
    pub(crate) kept: Vec<AttemptId>,
    /// Logs that the server may not have in full; all of them are ended.
    pub(crate) logs: Vec<AttemptLog>,
}

impl Spool {
    /// Opens the spool in `directory`, which is made if needed, for the worker `worker`.
    ///
    /// Logs that were cut short by the death of an earlier process get a last line that says so.
    ///
    /// # Errors
    /// [`SpoolError::Taken`] when another process has the spool, and others when files cannot be made or read.
    pub(crate) fn open(
        directory: &Path,
        worker: &str,
        limits: LogLimits,
        wake: &Wake,
    ) -> Result<(Self, Leftover), SpoolError> {
        let (disk, leftover) = DiskSpool::open(directory, worker, limits, wake)?;
        Ok((Self { place: Place::Disk(Arc::new(disk)), limits }, leftover))
    }

    /// A spool that writes nothing and forgets all with the process: for simulated workers, whose results need not outlive
    /// them.
    pub(crate) fn in_memory(limits: LogLimits) -> Self {
        Self { place: Place::Memory, limits }
    }

    /// Records a result durably.
    pub(crate) async fn record(&self, attempt: AttemptId, finished: &Finished) -> Result<(), SpoolError> {
        let Place::Disk(disk) = &self.place else { return Ok(()) };
        let (disk, finished) = (Arc::clone(disk), finished.clone());
        blocking(move || disk.record(attempt, &finished)).await
    }

    /// Forgets the results of `attempts`; those in `kept` are remembered as serving outputs.
    pub(crate) async fn acknowledge(
        &self,
        attempts: Vec<AttemptId>,
        kept: Vec<AttemptId>,
    ) -> Result<(), SpoolError> {
        let Place::Disk(disk) = &self.place else { return Ok(()) };
        let disk = Arc::clone(disk);
        blocking(move || disk.acknowledge(&attempts, &kept)).await
    }

    /// Forgets everything but the logs of `attempts`.
    pub(crate) async fn release(&self, attempts: Vec<AttemptId>) -> Result<(), SpoolError> {
        let Place::Disk(disk) = &self.place else { return Ok(()) };
        let disk = Arc::clone(disk);
        blocking(move || disk.release(&attempts)).await
    }

    /// Begins the log of an attempt, while the other logs have `others` compressed bytes. A log that cannot be spooled is kept in memory: it never stands in the way of a build.
    pub(crate) fn begin_log(&self, attempt: AttemptId, others: u64, wake: Wake) -> AttemptLog {
        let limit = self.limits.each.min(self.limits.all.saturating_sub(others));
        let store = match &self.place {
            Place::Disk(disk) => match disk.create_log(attempt) {
                Ok(store) => ChunkStore::Disk(store),
                Err(error) => {
                    tracing::warn!(
                        attempt.id = %attempt,
                        error = &error as &dyn std::error::Error,
                        "cannot spool the log of attempt {attempt}, it is kept in memory"
                    );
                    ChunkStore::Memory(MemoryStore::default())
                }
            },
            Place::Memory => ChunkStore::Memory(MemoryStore::default()),
        };
        AttemptLog::new(attempt, store, limit, wake)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(SpoolError::Ending),
    }
}
