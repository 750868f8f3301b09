//! Asks the database whose logs are, about as many at a time as have come together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hauberk_database::attempts::{self, LogOwner};
use hauberk_database::{AttemptId, Database, DatabaseError, ServerId};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::sleep;
use tracing::debug;

/// Logs asked about together at most.
const BATCH: usize = 1000;

/// Pause between questions. A question costs the database about as much about one log as about twenty, so those of builds that begin
/// together are asked together; a log that comes alone does not wait.
const PAUSE: Duration = Duration::from_millis(10);

/// Whose an attempt's log is: nobody's if there is no such attempt.
#[derive(Debug)]
pub(crate) struct Found {
    /// The attempt.
    pub(crate) attempt: AttemptId,
    /// What the database says. The same failure is told about all that were asked about together.
    pub(crate) owner: Result<Option<LogOwner>, Arc<DatabaseError>>,
}

/// Finds the owners of what is sent, until nobody sends any more or `answer` gives false.
pub(crate) fn find_in_background(
    database: Database,
    server: ServerId,
    answer: impl Fn(Found) -> bool + Send + 'static,
) -> UnboundedSender<AttemptId> {
    let (sender, mut receiver) = unbounded_channel();
    tokio::spawn(async move {
        let mut batch = Vec::new();
        while receiver.recv_many(&mut batch, BATCH).await > 0 {
            let mut owners = ask(&database, server, &batch).await.map_err(Arc::new);
            if let Ok(owners) = &owners {
                hold(&database, server, owners).await;
            }
            for attempt in batch.drain(..) {
                let owner = match &mut owners {
                    Ok(owners) => Ok(owners.remove(&attempt)),
                    Err(error) => Err(Arc::clone(error)),
                };
                if !answer(Found { attempt, owner }) {
                    return;
                }
            }
            sleep(PAUSE).await;
        }
    });
    sender
}

async fn ask(
    database: &Database,
    server: ServerId,
    batch: &[AttemptId],
) -> Result<HashMap<AttemptId, LogOwner>, DatabaseError> {
    let transaction = database.begin_pinned().await?;
    let owners = attempts::log_owners(&*transaction, batch, server).await?;
    drop(transaction.commit().await?);
    Ok(owners)
}

/// Records that logs come to this server now that another has received so far; those that are complete stay where they are.
async fn hold(database: &Database, server: ServerId, owners: &HashMap<AttemptId, LogOwner>) {
    let moved = owners.iter().filter(|(_, owner)| owner.elsewhere && !owner.complete);
    let moved: Vec<_> = moved.map(|(attempt, _)| *attempt).collect();
    if moved.is_empty() {
        return;
    }
    let held = async {
        let transaction = database.begin_pinned().await?;
        attempts::hold_logs(&*transaction, &moved, server).await?;
        transaction.commit().await
    };
    if let Err(error) = held.await {
        // It is said again when they are complete.
        debug!(error = &error as &dyn std::error::Error, "cannot record where logs go now");
    }
}
