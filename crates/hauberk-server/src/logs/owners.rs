//! Asks the database whose logs are, about as many at a time as have come together.

use std::sync::Arc;

use hauberk_database::attempts::{self, LogOwner};
use hauberk_database::{AttemptId, Database, DatabaseError};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Logs asked about together at most.
const BATCH: usize = 1000;

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
    answer: impl Fn(Found) -> bool + Send + 'static,
) -> UnboundedSender<AttemptId> {
    let (sender, mut receiver) = unbounded_channel();
    tokio::spawn(async move {
        let mut batch = Vec::new();
        while receiver.recv_many(&mut batch, BATCH).await > 0 {
            let owners = async { attempts::log_owners(&database.client().await?, &batch).await };
            let mut owners = owners.await.map_err(Arc::new);
            for attempt in batch.drain(..) {
                let owner = match &mut owners {
                    Ok(owners) => Ok(owners.remove(&attempt)),
                    Err(error) => Err(Arc::clone(error)),
                };
                if !answer(Found { attempt, owner }) {
                    return;
                }
            }
        }
    });
    sender
}
