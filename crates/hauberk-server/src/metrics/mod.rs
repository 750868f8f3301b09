//! What a server counts, and how it is told to Prometheus: on `/metrics` of the publish port.
//!
//! Parts of the server hold what they count, as cheap clones of these; nothing here waits for anything. What is only known when
//! asked for (the queue in the database, the pool) is looked up by the [`Exporter`].

mod dispatch;
mod exporter;
mod fetches;
mod logs;
mod records;
mod wire;

use prometheus_client::registry::Registry;

pub(crate) use dispatch::{Census, DispatchMetrics, ReadyClock};
pub(crate) use exporter::Exporter;
pub(crate) use fetches::{FetchMetrics, Fetched};
pub(crate) use logs::LogMetrics;
pub(crate) use records::RecordMetrics;
pub(crate) use wire::{Kinds, WireMetrics};

/// Everything that is counted. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// Sessions, slots and attempts.
    pub(crate) dispatch: DispatchMetrics,
    /// What is made durable.
    pub(crate) records: RecordMetrics,
    /// Outputs on their way into the cache.
    pub(crate) fetches: FetchMetrics,
    /// Logs on their way into files.
    pub(crate) logs: LogMetrics,
    /// Messages.
    pub(crate) wire: WireMetrics,
}

impl Metrics {
    /// Makes a registry that shows all of it.
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("hauberk");
        self.dispatch.register(&mut registry);
        self.records.register(&mut registry);
        self.fetches.register(&mut registry);
        self.logs.register(&mut registry);
        self.wire.register(&mut registry);
        registry
    }
}

/// Bounds of the histograms of durations, in seconds: from a millisecond to a minute and a half.
fn durations() -> impl Iterator<Item = f64> {
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 90.0].into_iter()
}
