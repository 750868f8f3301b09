//! What a publish server counts.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

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
    /// Anything else.
    Other,
}

impl Kind {
    const ALL: [Self; 4] = [Self::NarInfo, Self::Nar, Self::Log, Self::Other];

    /// Tells what a request path is about.
    pub(super) fn of(path: &str) -> Self {
        if path.ends_with(".narinfo") {
            Self::NarInfo
        } else if path.starts_with("/nar/") {
            Self::Nar
        } else if path.starts_with("/log/") {
            Self::Log
        } else {
            Self::Other
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::NarInfo => "narinfo",
            Self::Nar => "nar",
            Self::Log => "log",
            Self::Other => "other",
        }
    }
}

/// Kinds of statuses that are counted apart.
const OUTCOMES: [&str; 4] = ["ok", "not_found", "refused", "failed"];

/// Counts requests, connections and bytes.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: [[AtomicU64; 4]; 4],
    connections: AtomicU64,
    accepted: AtomicU64,
    sent: AtomicU64,
}

impl Metrics {
    /// Counts an answer.
    pub(super) fn answered(&self, kind: Kind, status: Status) {
        let outcome = match status.number() {
            0..400 => 0,
            404 => 1,
            400..500 => 2,
            _ => 3,
        };
        self.requests[kind as usize][outcome].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that begins.
    pub(super) fn opened(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that ends.
    pub(super) fn closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts bytes given to the kernel.
    pub(super) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Writes all counts in the OpenMetrics text format.
    pub(super) fn render(&self) -> String {
        let mut text = String::with_capacity(2048);
        text.push_str(
            "# HELP hauberk_publish_requests Requests answered, by what they were about and how it ended.\n\
             # TYPE hauberk_publish_requests counter\n",
        );
        for (kind, counts) in Kind::ALL.into_iter().zip(&self.requests) {
            for (outcome, count) in OUTCOMES.into_iter().zip(counts) {
                let (kind, count) = (kind.as_str(), count.load(Ordering::Relaxed));
                // Writing into a string does not fail.
                let _ = writeln!(
                    text,
                    "hauberk_publish_requests_total{{kind=\"{kind}\",outcome=\"{outcome}\"}} {count}"
                );
            }
        }
        let _ = write!(
            text,
            "# HELP hauberk_publish_accepted Connections accepted.\n\
             # TYPE hauberk_publish_accepted counter\n\
             hauberk_publish_accepted_total {}\n\
             # HELP hauberk_publish_connections Connections open.\n\
             # TYPE hauberk_publish_connections gauge\n\
             hauberk_publish_connections {}\n\
             # HELP hauberk_publish_sent_bytes Bytes sent, heads included.\n\
             # TYPE hauberk_publish_sent_bytes counter\n\
             # UNIT hauberk_publish_sent_bytes bytes\n\
             hauberk_publish_sent_bytes_total {}\n\
             # EOF\n",
            self.accepted.load(Ordering::Relaxed),
            self.connections.load(Ordering::Relaxed),
            self.sent.load(Ordering::Relaxed),
        );
        text
    }
}
