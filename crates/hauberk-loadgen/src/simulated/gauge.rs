//! What the builders saw, and when.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hauberk_worker::AttemptId;
use tokio::sync::Notify;

/// Counts and times of all builders of a laboratory.
#[derive(Debug, Default)]
pub struct Gauge {
    joined: AtomicUsize,
    seen: Mutex<Seen>,
    /// Releases that somebody waits for.
    wanted: AtomicUsize,
    changed: Notify,
    /// Microseconds that builds take at least from now on.
    pace: AtomicU64,
}

#[derive(Debug, Default)]
struct Seen {
    /// When a worker was first welcomed.
    joined: Option<Instant>,
    /// When each build was first begun.
    begun: HashMap<i64, Instant>,
    /// When each build was ended by its builder.
    ended: HashMap<i64, Instant>,
    released: HashSet<AttemptId>,
    /// When each release came, in order.
    releases: Vec<Instant>,
}

impl Gauge {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets builds that begin from now on take so long at least.
    pub fn slow_down(&self, pace: Duration) {
        self.pace.store(u64::try_from(pace.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long builds take at least.
    pub fn pace(&self) -> Duration {
        Duration::from_micros(self.pace.load(Ordering::Relaxed))
    }

    /// A worker was welcomed.
    pub fn note_joined(&self) {
        self.seen().joined.get_or_insert_with(Instant::now);
        self.joined.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// A builder has begun this build.
    pub fn note_begun(&self, build: i64) {
        let mut seen = self.seen();
        seen.begun.entry(build).or_insert_with(Instant::now);
        drop(seen);
        if self.wanted.load(Ordering::Relaxed) == 0 {
            self.changed.notify_one();
        }
    }

    /// A builder has ended this build.
    pub fn note_ended(&self, build: i64) {
        self.seen().ended.insert(build, Instant::now());
    }

    /// Gives when builds were ended by their builders, in order.
    pub fn ended(&self) -> Vec<Instant> {
        let mut ended: Vec<Instant> = self.seen().ended.values().copied().collect();
        ended.sort_unstable();
        ended
    }

    /// The server needs the outputs of these attempts no more: they are recorded as succeeded, or failed.
    pub fn note_released(&self, attempts: &[AttemptId]) {
        let now = Instant::now();
        let mut seen = self.seen();
        for attempt in attempts {
            if seen.released.insert(*attempt) {
                seen.releases.push(now);
            }
        }
        if seen.releases.len() >= self.wanted.load(Ordering::Relaxed) {
            self.changed.notify_one();
        }
    }

    /// Waits until so many workers have been welcomed.
    pub async fn wait_joined(&self, count: usize) {
        while self.joined.load(Ordering::Relaxed) < count {
            self.changed.notified().await;
        }
    }

    /// Waits until a builder has begun anything.
    pub async fn wait_begun(&self) {
        while self.seen().begun.is_empty() {
            self.changed.notified().await;
        }
    }

    /// Waits until so many attempts have been released.
    pub async fn wait_released(&self, count: usize) {
        self.wanted.store(count, Ordering::Relaxed);
        while self.seen().releases.len() < count {
            self.changed.notified().await;
        }
    }

    /// Gives when the first worker was welcomed.
    pub fn first_joined(&self) -> Option<Instant> {
        self.seen().joined
    }

    /// Counts the attempts released so far.
    pub fn released(&self) -> usize {
        self.seen().releases.len()
    }

    /// Gives when each release came, in order.
    pub fn releases(&self) -> Vec<Instant> {
        self.seen().releases.clone()
    }

    /// Gives when builds were first begun, in order.
    pub fn begun(&self) -> Vec<Instant> {
        let mut begun: Vec<Instant> = self.seen().begun.values().copied().collect();
        begun.sort_unstable();
        begun
    }
}
