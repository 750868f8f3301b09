//! Workers and their slots, as two pages show them.

use hauberk_database::WorkerId;
use hauberk_database::pages::{OpenAttempt, Worker};

use crate::view as v;

/// A server that gave no sign of life for so many seconds is taken for dead: two leases.
const SILENT: i64 = 120;

/// A worker and what it has in hand.
pub(super) struct Row {
    pub(super) worker: Worker,
    pub(super) presence: Presence,
    /// What each slot builds, from 1; none: idle.
    pub(super) slots: Vec<Option<OpenAttempt>>,
    /// What was built and is fetched from it now: no slot is used by that.
    pub(super) handing_over: Vec<OpenAttempt>,
    pub(super) load: Vec<Measure>,
}

/// Whether a worker is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// A server has its session.
    Connected,
    /// The server that had its session gives no sign of life.
    ServerSilent,
    /// No server has a session of it.
    Away,
}

/// Something a worker said of its machine.
pub(super) struct Measure {
    pub(super) name: &'static str,
    pub(super) value: String,
}

/// What several workers can do and what they do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) workers: usize,
    pub(super) connected: usize,
    pub(super) slots: usize,
    pub(super) busy: usize,
}

impl Row {
    /// Shares the open attempts out to their workers.
    pub(super) fn gather(workers: Vec<Worker>, attempts: &[OpenAttempt]) -> Vec<Self> {
        workers.into_iter().map(|worker| Self::new(worker, attempts)).collect()
    }

    fn new(worker: Worker, attempts: &[OpenAttempt]) -> Self {
        let of_worker = |id: WorkerId| attempts.iter().filter(move |attempt| attempt.worker == id);
        let (handing_over, building): (Vec<_>, Vec<_>) =
            of_worker(worker.id).cloned().partition(|attempt| attempt.built_at.is_some());
        let mut slots: Vec<_> = building.into_iter().map(Some).collect();
        let offered = usize::try_from(worker.slots).unwrap_or(0).min(1024);
        if slots.len() < offered {
            slots.resize(offered, None);
        }
        let presence = match (worker.connected, worker.server_silent) {
            (false, _) => Presence::Away,
            (true, Some(seconds)) if seconds > SILENT => Presence::ServerSilent,
            (true, _) => Presence::Connected,
        };
        let load = measures(&worker);
        Self { worker, presence, slots, handing_over, load }
    }

    /// Tells the word for a slot that builds nothing.
    pub(super) fn idle(&self) -> &'static str {
        match self.presence {
            Presence::Connected => self.held().unwrap_or("idle"),
            Presence::ServerSilent | Presence::Away => "away",
        }
    }

    /// Tells the word for a worker that gets no work for now.
    pub(super) fn held(&self) -> Option<&'static str> {
        match (self.worker.paused, self.worker.set_aside_at, &self.worker.shortage) {
            (false, _, None) => None,
            (false, _, Some(_)) => Some("short"),
            (true, None, _) => Some("paused"),
            (true, Some(_), _) => Some("set aside"),
        }
    }
}

impl Totals {
    pub(super) fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut totals = Self::default();
        for row in rows {
            totals.workers += 1;
            totals.connected += usize::from(row.presence == Presence::Connected);
            let busy = row.slots.iter().flatten().count();
            totals.busy += busy;
            // A worker that is away may go on building; its other slots are of no use.
            totals.slots += if row.presence == Presence::Connected { row.slots.len() } else { busy };
        }
        totals
    }
}

/// Reads what a worker last said of its machine; what is not there is left out.
fn measures(worker: &Worker) -> Vec<Measure> {
    let Some(load) = &worker.load else { return Vec::new() };
    let number = |key: &str| load.get(key).and_then(serde_json::Value::as_f64);
    let bytes = |key: &str| load.get(key).and_then(serde_json::Value::as_i64).map(|bytes| v::bytes(&bytes));
    let percent = |key: &str| number(key).map(|value| format!("{value:.1} %"));
    let mut measures = Vec::new();
    let mut add = |name, value: Option<String>| {
        if let Some(value) = value {
            measures.push(Measure { name, value });
        }
    };
    add("load", number("load1").map(|value| format!("{value:.2}")));
    add("memory free", bytes("memory_available_bytes"));
    add("store free", bytes("store_free_bytes"));
    add("build directory free", bytes("build_free_bytes"));
    add("CPU pressure", percent("cpu_pressure"));
    add("memory pressure", percent("memory_pressure"));
    add("I/O pressure", percent("io_pressure"));
    measures
}
