//! The aftermath: when builds have taken what needs them along in their fall, decides anew how urgent the rest is that those needed.
//!
//! The path of results leaves a note of it and goes on. The notes are rows, so that a server that is killed in between leaves them to the next.

use std::sync::Arc;
use std::time::Duration;

use hauberk_database::{Database, DatabaseError, priority_control};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Notes gather for so long at least.
const INTERVAL: Duration = Duration::from_secs(1);
/// A pause is so many times as long as what was done before it, so that failures without end do not keep the database busy with this.
const PAUSE: u32 = 9;
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// The way to the aftermath. Clones lead to the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Aftermath {
    wanted: Arc<Notify>,
}

impl Aftermath {
    /// Has the notes looked at, soon.
    pub(crate) fn tell(&self) {
        self.wanted.notify_one();
    }

    /// Works until `stop`. Notes that nobody told of are found within `sweep`.
    pub(crate) async fn run(self, database: Database, sweep: Duration, stop: CancellationToken) {
        loop {
            let began = Instant::now();
            match settle(&database).await {
                Ok(settled) => {
                    if settled.changed > 0 {
                        info!(
                            builds.changed = settled.changed,
                            "{} builds are more or less urgent now, after others failed or began anew",
                            settled.changed
                        );
                    }
                    if settled.again {
                        self.tell();
                    }
                }
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot decide what is urgent after failures now; their notes are kept"
                ),
            }
            let pause = (began.elapsed() * PAUSE).clamp(INTERVAL, LONGEST);
            let next = async {
                // What wants it meanwhile is heard afterwards.
                sleep(pause).await;
                timeout(sweep, self.wanted.notified()).await
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = next => {}
            }
        }
    }
}

async fn settle(database: &Database) -> Result<priority_control::Settled, DatabaseError> {
    priority_control::settle(&mut database.client().await?).await
}
