//! What a worker counts, and how it is told to Prometheus: on `/metrics` of its publish port.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use hauberk_protocol::proto::{DeclineReason, Load};
use hauberk_publish::server::MetricsSource;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::builder::Builder;
use crate::machine::{Lack, Shortage};
use crate::session::Ending;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLack {
    of: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDisk {
    disk: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Identity {
    version: String,
    worker: String,
}

/// What is counted of collections of garbage. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct CollectionMetrics {
    done: Counter,
    failed: Counter,
    freed: Counter,
}

impl CollectionMetrics {
    /// The daemon has freed so many bytes.
    pub(crate) fn collected(&self, bytes: u64) {
        self.done.inc();
        self.freed.inc_by(bytes);
    }

    /// The daemon could not.
    pub(crate) fn failed(&self) {
        self.failed.inc();
    }
}

/// What the session's task counts. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct WorkerMetrics {
    connected: Gauge,
    joined: Counter,
    lost: Counter,
    slots: Gauge,
    busy: Gauge,
    ended: Family<ByOutcome, Counter>,
    collections: CollectionMetrics,
    peak_memory: Histogram,
    spooled: Arc<OnceLock<Arc<AtomicU64>>>,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self {
            connected: Gauge::default(),
            joined: Counter::default(),
            lost: Counter::default(),
            slots: Gauge::default(),
            busy: Gauge::default(),
            ended: Family::default(),
            collections: CollectionMetrics::default(),
            // From 16 MiB to 64 GiB.
            peak_memory: Histogram::new(exponential_buckets(f64::from(1 << 24), 2.0, 13)),
            spooled: Arc::default(),
        }
    }
}

impl WorkerMetrics {
    /// So many builds may run at once, and these are the compressed bytes of logs that the server does not have.
    pub(crate) fn begin(&self, slots: u32, spooled: Arc<AtomicU64>) {
        self.slots.set(slots.into());
        // A second worker in the process would count with the first, whose spool is shown.
        let _ = self.spooled.set(spooled);
    }

    /// A server has welcomed the worker.
    pub(crate) fn joined(&self) {
        self.joined.inc();
        self.connected.set(1);
    }

    /// The connection is lost, or was given up.
    pub(crate) fn lost(&self) {
        if self.connected.set(0) == 1 {
            self.lost.inc();
        }
    }

    /// What is counted of collections of garbage.
    pub(crate) fn collections(&self) -> CollectionMetrics {
        self.collections.clone()
    }

    /// So many attempts are in slots.
    pub(crate) fn busy(&self, count: usize) {
        self.busy.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// An attempt has ended.
    pub(crate) fn ended(&self, ending: &Ending) {
        if let Ending::Finished(finished) = ending
            && finished.peak_memory_bytes > 0
        {
            self.peak_memory.observe(finished.peak_memory_bytes as f64);
        }
        let outcome = match ending {
            Ending::Finished(finished) => word(finished.outcome().as_str_name(), "OUTCOME_"),
            Ending::Declined(declined) => {
                let reason: DeclineReason = declined.reason();
                format!("declined_{}", word(reason.as_str_name(), "DECLINE_REASON_"))
            }
        };
        self.ended.get_or_create(&ByOutcome { outcome }).inc();
    }

    fn registry(&self, worker: &str, version: &str) -> Registry {
        let mut registry = Registry::with_prefix("hauberk_worker");
        let identity = Identity { version: version.to_owned(), worker: worker.to_owned() };
        registry.register("build", "The version of the program, and the worker's name", Info::new(identity));
        let help = "Whether a server has welcomed this worker and its connection stands";
        registry.register("connected", help, self.connected.clone());
        registry.register("joins", "How often a server has welcomed this worker", self.joined.clone());
        registry.register("connections_lost", "How often a connection to it was lost", self.lost.clone());
        registry.register("slots", "Builds that may run at once", self.slots.clone());
        registry.register("slots_busy", "Slots in which an attempt is", self.busy.clone());
        registry.register("attempts_ended", "Attempts that ended here, by how they did", self.ended.clone());
        let collections = &self.collections;
        let help = "Collections of garbage that the build daemon did for this worker";
        registry.register("collections", help, collections.done.clone());
        registry.register("collections_failed", "Collections it could not do", collections.failed.clone());
        let help = "What they freed";
        registry.register_with_unit("collected", help, Unit::Bytes, collections.freed.clone());
        let help = "Most memory that a build's processes had together, of builds that could be measured";
        registry.register_with_unit("build_peak_memory", help, Unit::Bytes, self.peak_memory.clone());
        registry
    }
}

/// Makes a label of the name of a value in the protocol: `OUTCOME_DISK_FULL` is `disk_full`.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// Gives all figures of a worker.
pub(crate) struct WorkerExporter {
    registry: Registry,
    metrics: WorkerMetrics,
    builder: Arc<dyn Builder>,
}

impl WorkerExporter {
    /// Shows these metrics, and what `builder` tells of the machine.
    pub(crate) fn new(
        metrics: WorkerMetrics,
        builder: Arc<dyn Builder>,
        worker: &str,
        version: &str,
    ) -> Self {
        Self { registry: metrics.registry(worker, version), metrics, builder }
    }
}

#[async_trait]
impl MetricsSource for WorkerExporter {
    async fn render(&self) -> String {
        let spooled = self.metrics.spooled.get().map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        let shortage = self.builder.shortage().map(|told| told.borrow().clone()).unwrap_or_default();
        let machine = machine(&self.builder.load(), &shortage, spooled);
        let mut text = String::with_capacity(4 << 10);
        // Writing into a string does not fail.
        let _ = text::encode_registry(&mut text, &self.registry);
        let _ = text::encode_registry(&mut text, &machine);
        text
    }
}

/// Shows what is measured for one answer.
fn machine(load: &Load, shortage: &Shortage, spooled: u64) -> Registry {
    let mut registry = Registry::with_prefix("hauberk_worker");
    let gauge = |value: u64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge
    };
    let help = "Compressed bytes of logs that the server does not have in full";
    registry.register_with_unit("log_spooled", help, Unit::Bytes, gauge(spooled));
    let memory = gauge(load.memory_available_bytes);
    registry.register_with_unit("memory_available", "Memory that builds can have", Unit::Bytes, memory);
    let free: Family<ByDisk, Gauge> = Family::default();
    for (disk, bytes) in [("store", load.store_free_bytes), ("build", load.build_free_bytes)] {
        free.get_or_create_owned(&ByDisk { disk }).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
    let help = "Space left where the store is, and where builders run";
    registry.register_with_unit("disk_free", help, Unit::Bytes, free);
    let short: Family<ByLack, Gauge> = Family::default();
    for lack in Lack::ALL {
        let of = ByLack { of: lack.as_str() };
        short.get_or_create_owned(&of).set(shortage.contains_key(&lack).into());
    }
    registry.register("short", "Whether no work is asked for, for want of this", short);
    registry
}

#[cfg(test)]
mod tests {
    use hauberk_protocol::proto::{Finished, Outcome};

    use super::*;

    #[test]
    fn what_happened_is_told() {
        let metrics = WorkerMetrics::default();
        metrics.begin(4, Arc::new(AtomicU64::new(7)));
        metrics.joined();
        metrics.lost();
        metrics.lost();
        metrics.busy(3);
        metrics.collections().collected(5);
        let finished =
            Finished { outcome: Outcome::DiskFull.into(), peak_memory_bytes: 1 << 25, ..Finished::default() };
        metrics.ended(&Ending::Finished(finished));
        let mut text = String::new();
        text::encode_registry(&mut text, &metrics.registry("w", "1.0")).unwrap();
        let load = Load { store_free_bytes: 9, ..Load::default() };
        text::encode_registry(
            &mut text,
            &machine(&load, &Shortage::from([(Lack::Memory, String::new())]), 7),
        )
        .unwrap();
        for line in [
            "hauberk_worker_build_info{version=\"1.0\",worker=\"w\"} 1",
            "hauberk_worker_connected 0",
            "hauberk_worker_joins_total 1",
            "hauberk_worker_connections_lost_total 1",
            "hauberk_worker_slots 4",
            "hauberk_worker_slots_busy 3",
            "hauberk_worker_attempts_ended_total{outcome=\"disk_full\"} 1",
            "hauberk_worker_build_peak_memory_bytes_bucket{le=\"16777216.0\"} 0",
            "hauberk_worker_build_peak_memory_bytes_bucket{le=\"33554432.0\"} 1",
            "hauberk_worker_log_spooled_bytes 7",
            "hauberk_worker_disk_free_bytes{disk=\"store\"} 9",
            "hauberk_worker_short{of=\"memory\"} 1",
            "hauberk_worker_short{of=\"store_disk\"} 0",
            "hauberk_worker_collections_total 1",
            "hauberk_worker_collected_bytes_total 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
