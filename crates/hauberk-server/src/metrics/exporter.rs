//! Answers Prometheus.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use hauberk_database::metrics::{PoolUse, QueuedBuilds, failures, queue};
use hauberk_database::{Database, DatabaseError};
use hauberk_publish::server::MetricsSource;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::warn;

use super::Metrics;

/// How long a count of the queue is good for.
const FRESH: Duration = Duration::from_secs(15);
/// A count that takes long is good for so many times as long: it costs two hundredths of a processor at most.
const REST: u32 = 50;
/// How long a count may take; without one, the answer has everything else.
const PATIENCE: Duration = Duration::from_secs(5);
/// Systems of the queue that are told; their builds beyond are left out.
const ROWS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queued {
    system: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOperation {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: &'static str,
}

/// A count of the queue.
#[derive(Debug)]
struct Sample {
    queue: Vec<QueuedBuilds>,
    stale_at: Instant,
}

/// Gives all figures of a server.
#[derive(Debug)]
pub(crate) struct Exporter {
    registry: Registry,
    database: Database,
    sample: Mutex<Option<Sample>>,
}

impl Exporter {
    /// Shows these metrics, and what the database tells.
    pub(crate) fn new(metrics: &Metrics, database: Database) -> Self {
        let mut registry = metrics.registry();
        let version = Version { version: env!("CARGO_PKG_VERSION") };
        registry.register("build", "The version of the program", Info::new(version));
        Self { registry, database, sample: Mutex::new(None) }
    }

    /// Counts the queue, unless that was done a moment ago. Nothing when the database does not tell.
    async fn queue(&self) -> Option<Vec<QueuedBuilds>> {
        // Whoever asks meanwhile waits for the same count.
        let mut sample = self.sample.lock().await;
        let now = Instant::now();
        if let Some(sample) = sample.as_ref().filter(|sample| now < sample.stale_at) {
            return Some(sample.queue.clone());
        }
        let counting = async { queue(&self.database.client().await?).await };
        let counted: Result<Vec<QueuedBuilds>, DatabaseError> = match timeout(PATIENCE, counting).await {
            Ok(counted) => counted,
            Err(_) => {
                warn!("counting the queue for /metrics takes longer than {} s", PATIENCE.as_secs());
                return None;
            }
        };
        match counted {
            Ok(mut queue) => {
                queue.truncate(ROWS);
                let stale_at = Instant::now() + FRESH.max(now.elapsed() * REST);
                *sample = Some(Sample { queue: queue.clone(), stale_at });
                Some(queue)
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "cannot count the queue for /metrics");
                None
            }
        }
    }
}

#[async_trait]
impl MetricsSource for Exporter {
    async fn render(&self) -> String {
        let found = registry_of(self.queue().await, self.database.pool_use());
        let mut text = String::with_capacity(16 << 10);
        // Writing into a string does not fail.
        let _ = text::encode_registry(&mut text, &self.registry);
        let _ = text::encode_registry(&mut text, &found);
        text
    }
}

/// Shows what was looked up for one answer.
fn registry_of(queue: Option<Vec<QueuedBuilds>>, pool: PoolUse) -> Registry {
    let mut registry = Registry::with_prefix("hauberk");
    if let Some(queue) = queue {
        let queued: Family<Queued, Gauge> = Family::default();
        for QueuedBuilds { system, reason, builds } in queue {
            queued.get_or_create(&Queued { system, reason }).set(builds);
        }
        let help = "Builds that no worker has, by what they wait for: inputs, a worker that can run them, a slot of one, or \
                    the time of another try";
        registry.register("queue_builds", help, queued);
    }
    let connections: Family<ByState, Gauge> = Family::default();
    for (state, count) in
        [("idle", pool.idle), ("busy", pool.open.saturating_sub(pool.idle)), ("awaited", pool.waiting)]
    {
        let gauge = connections.get_or_create_owned(&ByState { state });
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    registry.register(
        "database_connections",
        "Connections to PostgreSQL, and who waits for one",
        connections,
    );
    let failures = failures();
    let errors: Family<ByOperation, Counter> = Family::default();
    for (operation, count) in [
        ("connect", failures.connections),
        ("statement", failures.statements),
        ("transaction", failures.transactions),
    ] {
        errors.get_or_create_owned(&ByOperation { operation }).inc_by(count);
    }
    registry.register("database_errors", "What failed with PostgreSQL, by what was tried", errors);
    registry
}
