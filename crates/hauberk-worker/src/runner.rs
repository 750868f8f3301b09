//! Runs one attempt: the builder, its cancellation, the end of its log, and the durable record of its result.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use hauberk_protocol::proto::{Declined, Outcome};
use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::builder::{AttemptContext, BuildReport, Builder, Report};
use crate::log::Courier;
use crate::session::Ending;
use crate::spool::Spool;
use crate::{Assignment, AttemptId};

/// What a runner needs besides the attempt itself.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) builder: Arc<dyn Builder>,
    pub(crate) spool: Spool,
    pub(crate) courier: Courier,
}

/// Why an attempt is stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The server takes it back, for this reason; it hears the result.
    Canceled(String),
    /// The worker leaves, and gives the attempt back by its goodbye.
    Leaving,
}

/// Runs an attempt to its end. Nothing is told when the worker leaves meanwhile.
pub(crate) async fn run(
    workshop: Workshop,
    assignment: Arc<Assignment>,
    context: AttemptContext,
    stop: oneshot::Receiver<Stop>,
) -> Option<(AttemptId, Ending)> {
    let attempt = assignment.attempt;
    // A builder that panics ends its attempt, not the worker.
    let build = AssertUnwindSafe(workshop.builder.build(&assignment, &context)).catch_unwind();
    let report = tokio::select! {
        biased;
        Ok(stop) = stop => match stop {
            Stop::Canceled(reason) => {
                let message = if reason.is_empty() { "canceled".to_owned() } else { format!("canceled: {reason}") };
                context.log.note(&message);
                Report::Finished(BuildReport::failure(Outcome::Canceled, message))
            }
            Stop::Leaving => {
                context.log.note("the worker leaves, and gives the attempt back");
                end_log(&workshop, &context);
                return None;
            }
        },
        report = build => report.unwrap_or_else(|_| {
            error!(attempt.id = %attempt, "the builder of attempt {attempt} panicked");
            Report::Finished(BuildReport::failure(Outcome::Daemon, "internal error of the worker"))
        }),
    };
    let totals = end_log(&workshop, &context);
    let ending = match report {
        Report::Declined(declined) => Ending::Declined(Declined {
            attempt: attempt.get(),
            reason: declined.reason.into(),
            message: crate::builder::one_line(&declined.message),
            paths: declined.paths,
        }),
        Report::Finished(report) => {
            let finished = report.into_finished(attempt, totals);
            if let Err(error) = workshop.spool.record(attempt, &finished).await {
                warn!(
                    attempt.id = %attempt,
                    error = &error as &dyn std::error::Error,
                    "cannot keep the result of attempt {attempt} on disk: it is lost if this worker dies before the server has it"
                );
            }
            Ending::Finished(finished)
        }
    };
    Some((attempt, ending))
}

/// Ends the log; an empty one is not sent.
fn end_log(workshop: &Workshop, context: &AttemptContext) -> hauberk_protocol::proto::LogTotals {
    let totals = context.log.finish();
    if totals.text_bytes == 0 {
        workshop.courier.forget(context.attempt);
    }
    totals
}
