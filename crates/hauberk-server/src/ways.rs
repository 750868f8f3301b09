//! How the results of workers come, told to operators.

use std::collections::HashMap;
use std::time::Duration;

use hauberk_database::{Database, DatabaseError, Epoch, WorkerId, workers};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::sources::Sources;

/// The pause after each time that something was recorded, so that workers that join together are recorded together, and after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// Notes in the database which workers upload their results, whenever that changes, until `stop`.
pub(crate) async fn record(sources: Sources, database: Database, epoch: Epoch, stop: CancellationToken) {
    let mut changes = sources.changes();
    let mut recorded: HashMap<WorkerId, (u64, bool)> = HashMap::new();
    loop {
        changes.borrow_and_update();
        let found = sources.found();
        let news: Vec<(WorkerId, bool)> = found
            .iter()
            .filter(|(worker, found)| recorded.get(worker) != Some(found))
            .map(|(worker, (_, uploads))| (*worker, *uploads))
            .collect();
        let mut again = false;
        if !news.is_empty() {
            match write(&database, epoch, &news).await {
                Ok(()) => recorded = found,
                Err(error) => {
                    debug!(error = &error as &dyn std::error::Error, "cannot record which workers upload");
                    again = true;
                }
            }
        }
        let waiting = async {
            sleep(PAUSE).await;
            if !again {
                // Whoever sends lives as long as `sources`.
                let _ = changes.changed().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = waiting => {}
        }
    }
}

async fn write(database: &Database, epoch: Epoch, news: &[(WorkerId, bool)]) -> Result<(), DatabaseError> {
    workers::uploads(&database.client().await?, epoch, news).await
}
