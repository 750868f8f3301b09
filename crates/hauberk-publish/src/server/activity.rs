//! When a connection was last of use.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// Knows whether a connection moves. Shared by those who move it and those who look.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    /// Milliseconds after the beginning at which bytes went last, either way.
    moved: AtomicU64,
    /// Requests whose answer is not made yet.
    answering: AtomicUsize,
}

impl Activity {
    /// Begins now.
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), moved: AtomicU64::new(0), answering: AtomicUsize::new(0) }
    }

    /// Notes that bytes went.
    pub(super) fn note(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Relaxed);
    }

    /// Notes that an answer is being made, until the guard is dropped.
    pub(super) fn answering(&self) -> impl Drop {
        struct Answering<'a>(&'a Activity);
        impl Drop for Answering<'_> {
            fn drop(&mut self) {
                self.0.answering.fetch_sub(1, Ordering::Relaxed);
                self.0.note();
            }
        }
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(self)
    }

    /// Tells whether the client let nothing happen for so long: no answer is being made, and no bytes went.
    pub(super) fn is_quiet_for(&self, time: Duration) -> bool {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        self.answering.load(Ordering::Relaxed) == 0 && self.began.elapsed().saturating_sub(moved) >= time
    }
}
