//! Messages of workers and to them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    port: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    port: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByQueue {
    queue: &'static str,
}

/// What the owners of the sockets count.
#[derive(Debug, Clone, Default)]
pub(crate) struct WireMetrics {
    received: Family<ByKind, Counter>,
    sent: Family<ByKind, Counter>,
    ignored: Family<ByReason, Counter>,
    undelivered: Counter,
    queues: Family<ByQueue, Gauge>,
}

impl WireMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Messages that came from workers, by port and kind";
        registry.register("messages_received", help, self.received.clone());
        registry.register("messages_sent", "Messages sent to workers, by port and kind", self.sent.clone());
        let help =
            "What came from peers and was ignored: no single frame, not decodable, or of an unknown kind";
        registry.register("messages_ignored", help, self.ignored.clone());
        let help = "Messages whose connection was gone or took nothing any more";
        registry.register("messages_undelivered", help, self.undelivered.clone());
        let help = "Messages that wait for another part of the server";
        registry.register("queue_messages", help, self.queues.clone());
    }

    /// Counts messages that come in at `port`.
    pub(crate) fn received(&self, port: &'static str) -> Kinds {
        Kinds { port, family: self.received.clone(), known: Vec::new() }
    }

    /// Counts messages that leave at `port`.
    pub(crate) fn sent(&self, port: &'static str) -> Kinds {
        Kinds { port, family: self.sent.clone(), known: Vec::new() }
    }

    /// Gives the counter of what is ignored at `port` for this reason.
    pub(crate) fn ignored(&self, port: &'static str, reason: &'static str) -> Counter {
        self.ignored.get_or_create_owned(&ByReason { port, reason })
    }

    /// Counts a message that could not be delivered.
    pub(crate) fn undelivered(&self) {
        self.undelivered.inc();
    }

    /// So many messages wait in `queue`.
    pub(crate) fn waiting(&self, queue: &'static str, count: usize) {
        self.queues.get_or_create(&ByQueue { queue }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Counts messages by kind, for one part of the server: the counters are looked up once.
#[derive(Debug)]
pub(crate) struct Kinds {
    port: &'static str,
    family: Family<ByKind, Counter>,
    known: Vec<(&'static str, Counter)>,
}

impl Kinds {
    /// Counts a message of this kind.
    pub(crate) fn count(&mut self, kind: &'static str) {
        if let Some((_, counter)) = self.known.iter().find(|(known, _)| *known == kind) {
            counter.inc();
            return;
        }
        let counter = self.family.get_or_create_owned(&ByKind { port: self.port, kind });
        counter.inc();
        self.known.push((kind, counter));
    }
}
