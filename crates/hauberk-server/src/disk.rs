//! What of the committed transactions is on the database's disk.
//!
//! Transactions reach the disk in the order in which they were committed, so whoever has waited for one knows of all before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// Numbers the transactions that were committed without waiting for the disk. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    committed: Arc<AtomicU64>,
    there: Arc<watch::Sender<u64>>,
}

impl Default for Disk {
    fn default() -> Self {
        Self { committed: Arc::default(), there: Arc::new(watch::Sender::new(0)) }
    }
}

impl Disk {
    /// A transaction has been committed without waiting; gives its number.
    pub(crate) fn commit(&self) -> u64 {
        self.committed.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The number of the last of them. A transaction that is begun to be committed after this, and that waits, takes it along.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }

    /// All up to this number are there.
    pub(crate) fn reached(&self, number: u64) {
        self.there.send_if_modified(|there| {
            let is_more = number > *there;
            *there = number.max(*there);
            is_more
        });
    }

    /// Waits until a transaction is there, if that is known within `patience`.
    pub(crate) async fn wait(&self, number: u64, patience: Duration) -> bool {
        let mut there = self.there.subscribe();
        timeout(patience, there.wait_for(|there| *there >= number)).await.is_ok_and(|there| there.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waited_for_one_knows_of_those_before() {
        let disk = Disk::default();
        let (first, before) = (disk.commit(), disk.committed());
        let second = disk.commit();
        assert!(!disk.wait(first, Duration::from_millis(10)).await);
        disk.reached(before);
        assert!(disk.wait(first, Duration::from_millis(10)).await);
        assert!(!disk.wait(second, Duration::from_millis(10)).await);
        let waiting = disk.clone();
        let waits = tokio::spawn(async move { waiting.wait(second, Duration::from_secs(60)).await });
        tokio::task::yield_now().await;
        disk.reached(disk.committed());
        disk.reached(before);
        assert!(waits.await.unwrap());
    }
}
