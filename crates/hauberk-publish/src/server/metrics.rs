//! What a publish server counts.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::{Registry, Unit};

use super::status::Status;

/// What a request was about, as far as its path tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A narinfo.
    NarInfo,
    /// A nar.
    Nar,
    /// A log.
    Log,
    /// A build product.
    Product,
    /// Anything else.
    Other,
}

impl Kind {
    const ALL: [Self; 5] = [Self::NarInfo, Self::Nar, Self::Log, Self::Product, Self::Other];

    /// Tells what a request path is about.
    pub(super) fn of(path: &str) -> Self {
        if path.ends_with(".narinfo") {
            Self::NarInfo
        } else if path.starts_with("/nar/") {
            Self::Nar
        } else if path.starts_with("/log/") {
            Self::Log
        } else if path.starts_with("/product/") {
            Self::Product
        } else {
            Self::Other
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::NarInfo => "narinfo",
            Self::Nar => "nar",
            Self::Log => "log",
            Self::Product => "product",
            Self::Other => "other",
        }
    }
}

/// Kinds of statuses that are counted apart.
const OUTCOMES: [&str; 4] = ["ok", "not_found", "refused", "failed"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    kind: &'static str,
    outcome: &'static str,
}

/// Counts requests, connections and bytes.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: [[Counter; 4]; 5],
    connections: Gauge,
    accepted: Counter,
    sent: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hauberk_publish");
        let requests: Family<Answered, Counter> = Family::default();
        let metrics = Self {
            requests: Kind::ALL.map(|kind| {
                OUTCOMES
                    .map(|outcome| requests.get_or_create_owned(&Answered { kind: kind.as_str(), outcome }))
            }),
            connections: Gauge::default(),
            accepted: Counter::default(),
            sent: Counter::default(),
            registry: Registry::default(),
        };
        registry.register(
            "requests",
            "Requests answered, by what they were about and how it ended",
            requests,
        );
        registry.register("accepted", "Connections accepted", metrics.accepted.clone());
        registry.register("connections", "Connections open", metrics.connections.clone());
        let sent = metrics.sent.clone();
        registry.register_with_unit("sent", "Bytes sent, heads included", Unit::Bytes, sent);
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts an answer.
    pub(super) fn answered(&self, kind: Kind, status: Status) {
        let outcome = match status.number() {
            // Nothing new of a log that is followed is an answer like others.
            0..400 | 416 => 0,
            404 => 1,
            400..500 => 2,
            _ => 3,
        };
        self.requests[kind as usize][outcome].inc();
    }

    /// Counts a connection that begins.
    pub(super) fn opened(&self) {
        self.accepted.inc();
        self.connections.inc();
    }

    /// Counts a connection that ends.
    pub(super) fn closed(&self) {
        self.connections.dec();
    }

    /// Counts bytes given to the kernel.
    pub(super) fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }

    /// Writes all counts in the OpenMetrics text format, and its end.
    ///
    /// `more` are figures of this moment.
    pub(super) fn render(&self, text: &mut String, more: &Registry) {
        // Writing into a string does not fail.
        let _ = text::encode_registry(text, &self.registry);
        let _ = text::encode_registry(text, more);
        let _ = text::encode_eof(text);
    }
}
