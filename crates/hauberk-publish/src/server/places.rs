//! Places for connections.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How often those who stand still are asked to go while others wait.
const ASK: Duration = Duration::from_millis(250);

/// A bounded number of places. When all are taken and somebody waits, those who hold one without using it are asked to
/// leave, so that idle connections, however many, keep nobody out.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    crowded: Notify,
}

impl Places {
    pub(super) fn new(number: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(number.max(1))), crowded: Notify::new() }
    }

    /// Waits for a place, and takes it until the permit is dropped.
    pub(super) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(permit);
        }
        loop {
            self.crowded.notify_waiters();
            if let Ok(taken) = tokio::time::timeout(ASK, Arc::clone(&self.free).acquire_owned()).await {
                return taken.ok();
            }
        }
    }

    /// Waits until somebody waits for a place.
    pub(super) async fn crowded(&self) {
        self.crowded.notified().await;
    }
}
