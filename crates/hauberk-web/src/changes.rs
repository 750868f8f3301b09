//! Word from the farm that something changed.

use hauberk_database::listen::{CHANGED, Listener};
use hauberk_database::{ConnectionString, DatabaseError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Hears of changes. Clones hear each by themselves.
#[derive(Debug, Clone)]
pub(crate) struct Changes(watch::Receiver<u64>);

impl Changes {
    /// Listens to the database until `stop`.
    pub(crate) async fn start(
        location: &ConnectionString,
        stop: CancellationToken,
    ) -> Result<Self, DatabaseError> {
        let mut listener = Listener::connect(location, &[CHANGED]).await?;
        let (sender, receiver) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // A reconnection counts as a change: some may have been missed.
                    _ = listener.next() => sender.send_modify(|count| *count += 1),
                    () = stop.cancelled() => return,
                }
            }
        });
        Ok(Self(receiver))
    }

    /// Waits for a change since the last one that was heard; false: there will be none any more.
    pub(crate) async fn next(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}
