//! Logs on their way into files.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// What the log receiver counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogMetrics {
    open: Gauge,
    complete: Counter,
    received: Counter,
    text: Counter,
}

impl LogMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Logs whose files are open, as something came of them in the last minutes";
        registry.register("log_streams", help, self.open.clone());
        registry.register("logs_complete", "Logs that are complete and durable", self.complete.clone());
        let help = "Bytes of logs that came from workers, compressed";
        registry.register_with_unit("log_received", help, Unit::Bytes, self.received.clone());
        let help = "Bytes of the text of logs that are complete";
        registry.register_with_unit("log_text", help, Unit::Bytes, self.text.clone());
    }

    /// So many files are open.
    pub(crate) fn open(&self, count: usize) {
        self.open.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A part of a log came.
    pub(crate) fn received(&self, bytes: usize) {
        self.received.inc_by(bytes as u64);
    }

    /// A log is complete and durable.
    pub(crate) fn complete(&self, text_bytes: u64) {
        self.complete.inc();
        self.text.inc_by(text_bytes);
    }
}
