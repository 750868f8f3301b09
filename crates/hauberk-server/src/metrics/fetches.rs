//! Outputs on their way into the cache.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::durations;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

/// How a try to fetch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// The outputs are there.
    Done,
    /// It is tried again.
    Again,
    /// The attempt is given up.
    Failed,
}

impl Fetched {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Again => "again",
            Self::Failed => "failed",
        }
    }
}

/// What the fetcher counts.
#[derive(Debug, Clone)]
pub(crate) struct FetchMetrics {
    open: Gauge,
    tries: Family<ByResult, Counter>,
    bytes: Counter,
    duration: Histogram,
}

impl Default for FetchMetrics {
    fn default() -> Self {
        Self {
            open: Gauge::default(),
            tries: Family::default(),
            bytes: Counter::default(),
            duration: Histogram::new(durations()),
        }
    }
}

impl FetchMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Attempts whose outputs are being fetched, or wait for that";
        registry.register("fetches_open", help, self.open.clone());
        let help = "Tries to fetch the outputs of an attempt, by how they ended";
        registry.register("fetches", help, self.tries.clone());
        let help = "Bytes of nars that were downloaded from workers, unpacked";
        registry.register_with_unit("fetched", help, Unit::Bytes, self.bytes.clone());
        let help = "Time that tries took which succeeded, until the outputs were durable";
        registry.register_with_unit("fetch_duration", help, Unit::Seconds, self.duration.clone());
    }

    /// The outputs of one more attempt are to be fetched, until [`Self::closed`].
    pub(crate) fn opened(&self) {
        self.open.inc();
    }

    /// Those of an attempt are there, or given up.
    pub(crate) fn closed(&self) {
        self.open.dec();
    }

    /// A try has ended.
    pub(crate) fn tried(&self, how: Fetched, took: Duration) {
        self.tries.get_or_create(&ByResult { result: how.as_str() }).inc();
        if how == Fetched::Done {
            self.duration.observe(took.as_secs_f64());
        }
    }

    /// A nar was downloaded.
    pub(crate) fn downloaded(&self, bytes: u64) {
        self.bytes.inc_by(bytes);
    }
}
