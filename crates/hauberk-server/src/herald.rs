//! The herald: tells other servers that builds have become ready by what this one did, as its own workers may not be able to build them.

use std::sync::Arc;
use std::time::Duration;

use hauberk_database::{Database, DatabaseError, Epoch, dispatch};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::heart::Company;

/// Others are told so often at most.
const INTERVAL: Duration = Duration::from_millis(100);

/// The way to the herald. Clones lead to the same.
#[derive(Debug, Clone)]
pub(crate) struct Herald {
    company: Company,
    wanted: Arc<Notify>,
}

impl Herald {
    /// Of a server that may have this company.
    pub(crate) fn new(company: Company) -> Self {
        Self { company, wanted: Arc::default() }
    }

    /// Has the others told, if there are any.
    pub(crate) fn tell(&self) {
        if self.company.is_there() {
            self.wanted.notify_one();
        }
    }

    /// Tells them until `stop`. What cannot be told they find by their sweep.
    pub(crate) async fn run(self, database: Database, epoch: Epoch, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wanted.notified() => {}
            }
            if let Err(error) = say(&database, epoch).await {
                warn!(error = &error as &dyn std::error::Error, "cannot tell other servers what is ready");
            }
            sleep(INTERVAL).await;
        }
    }
}

async fn say(database: &Database, epoch: Epoch) -> Result<(), DatabaseError> {
    dispatch::notify_ready(&database.client().await?, epoch).await
}
