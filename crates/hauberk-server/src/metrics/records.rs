//! What is made durable, and how long that takes.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::durations;

/// What the committers count.
#[derive(Debug, Clone)]
pub(crate) struct RecordMetrics {
    steps: Histogram,
    duration: Histogram,
    again: Counter,
}

impl Default for RecordMetrics {
    fn default() -> Self {
        Self {
            // From a step to 2,048, which is more than there are in a transaction.
            steps: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            duration: Histogram::new(durations()),
            again: Counter::default(),
        }
    }
}

impl RecordMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("commit_steps", "Steps that a transaction recorded together", self.steps.clone());
        let help = "Time that a transaction took which recorded steps";
        registry.register_with_unit("commit_duration", help, Unit::Seconds, self.duration.clone());
        let help = "Transactions that failed because the database was away, and are tried again";
        registry.register("commit_retries", help, self.again.clone());
    }

    /// A transaction has recorded so many steps.
    pub(crate) fn recorded(&self, steps: usize, took: Duration) {
        self.steps.observe(steps as f64);
        self.duration.observe(took.as_secs_f64());
    }

    /// A transaction is tried again.
    pub(crate) fn again(&self) {
        self.again.inc();
    }
}
