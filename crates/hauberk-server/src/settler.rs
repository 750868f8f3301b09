//! The settler: makes durable what is decided about attempts that were given up, one at a time.
//!
//! Such steps are rare, and each rests on what the rows say, so they have a transaction each and stay out of the committer's batches.

use std::time::Duration;

use hauberk_database::dispatch::AttemptClass;
use hauberk_database::{Client, Database, DatabaseError, Epoch, ServerId, begin, commit, dispatch, late};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::sleep;
use tracing::{error, warn};

use crate::metrics::DispatchMetrics;
use crate::step::{Committed, Late};

/// Pause before a transaction is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// See the module's description.
pub(crate) struct Settler {
    /// Where the steps go.
    pub(crate) database: Database,
    /// The start of the server that makes them.
    pub(crate) epoch: Epoch,
    /// Counts attempts that end.
    pub(crate) metrics: DispatchMetrics,
    /// The server.
    pub(crate) server: ServerId,
}

impl Settler {
    /// Works until nobody sends steps any more.
    pub(crate) async fn run(
        self,
        mut steps: UnboundedReceiver<Late>,
        results: UnboundedSender<Vec<Committed>>,
    ) {
        while let Some(step) = steps.recv().await {
            let done = self.settle(&step).await;
            if results.send(vec![done]).is_err() {
                break;
            }
        }
    }

    async fn settle(&self, step: &Late) -> Committed {
        loop {
            match self.attempt(step).await {
                Ok(done) => return done,
                Err(error) if error.is_transient() => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        attempt.id = %step.attempt(),
                        "cannot decide about attempt {} now, trying again", step.attempt()
                    );
                    sleep(RETRY_PAUSE).await;
                }
                Err(error) => {
                    error!(
                        error = &error as &dyn std::error::Error,
                        attempt.id = %step.attempt(),
                        "the database refuses to decide about attempt {}", step.attempt()
                    );
                    return match step {
                        Late::TakeBack(returned) => {
                            Committed::TakenBack(returned.attempt, returned.worker, None)
                        }
                        Late::Succeed(fetched) => {
                            Committed::Settled(fetched.attempt, late::Settled::default())
                        }
                    };
                }
            }
        }
    }

    async fn attempt(&self, step: &Late) -> Result<Committed, DatabaseError> {
        let mut client: Client = self.database.client().await?;
        let transaction = begin(&mut client).await?;
        let done = match step {
            Late::TakeBack(returned) => {
                let verdict = late::take_back(&transaction, returned, self.epoch).await?;
                Committed::TakenBack(returned.attempt, returned.worker, Some(verdict))
            }
            Late::Succeed(fetched) => {
                let settled = late::succeed(&transaction, fetched, self.epoch, self.server).await?;
                Committed::Settled(fetched.attempt, settled)
            }
        };
        dispatch::notify_changed(&transaction).await?;
        commit(transaction).await?;
        if let Committed::Settled(_, settled) = &done {
            let class = if settled.counts { AttemptClass::Succeeded } else { AttemptClass::Superseded };
            self.metrics.ended(class, 1);
            self.metrics.ended(AttemptClass::Superseded, usize::from(settled.superseded.is_some()));
        }
        Ok(done)
    }
}
