//! Collecting garbage when the store's disk runs low: by the daemon, so many bytes at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hauberk_daemon::{
    BuildDaemon as _, ConnectOptions, Connection, DaemonAddress, DaemonError, GarbageAction, GarbageReport,
    GarbageRequest,
};
use tracing::{info, warn};

use super::reserve::size;
use crate::metrics::CollectionMetrics;

/// The pause after a collection that freed something.
const AGAIN: Duration = Duration::from_secs(5);
/// The pause after one that failed, or found next to nothing: garbage comes into being slowly.
const LATER: Duration = Duration::from_secs(600);
/// Less than this is next to nothing.
const LITTLE: u64 = 1 << 20;

/// Collects garbage. What builds that run need is no garbage: their connections and the roots of the spool hold it.
#[derive(Clone)]
pub(super) struct Collector {
    /// The build daemon.
    pub(super) address: DaemonAddress,
    /// How it is spoken to.
    pub(super) connect: ConnectOptions,
    /// Bytes that one collection frees.
    pub(super) bytes: u64,
    /// What is counted.
    pub(super) metrics: CollectionMetrics,
}

impl Collector {
    /// Collects once. Gives when to do it again at the soonest.
    pub(super) async fn collect(self: Arc<Self>) -> Instant {
        info!("the disk of the store runs low: collecting garbage, {} at most", size(self.bytes));
        let pause = match self.ask().await {
            Ok(report) => {
                self.metrics.collected(report.bytes_freed);
                info!(
                    paths.collected = report.paths.len(),
                    bytes.freed = report.bytes_freed,
                    "collected {} paths, {} are free again",
                    report.paths.len(),
                    size(report.bytes_freed)
                );
                if report.bytes_freed < LITTLE { LATER } else { AGAIN }
            }
            Err(error) => {
                self.metrics.failed();
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the build daemon collected no garbage, it is asked again in {} s",
                    LATER.as_secs()
                );
                LATER
            }
        };
        Instant::now() + pause
    }

    async fn ask(&self) -> Result<GarbageReport, DaemonError> {
        let mut daemon = Connection::connect(&self.address, &self.connect).await?;
        let request = GarbageRequest { action: GarbageAction::DeleteDead, max_freed: Some(self.bytes) };
        daemon.collect_garbage(&request).await
    }
}
