//! `hauberk build wait`.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use hauberk_database::listen::{CHANGED, Listener};
use hauberk_database::{BuildId, BuildState, Database, DatabaseError, control};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use crate::command::DatabaseLocation;
use crate::command::named::find_builds;
use crate::exit::{Exit, Failure};
use crate::output::Form;

/// How often the builds are looked at when nothing is heard of them.
const GLANCE: Duration = Duration::from_secs(15);
/// How soon after a look another one may follow.
const CALM: Duration = Duration::from_millis(300);
/// How long a wait without a limit lasts: for ever.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Wait until builds are over
///
/// Prints how each ended, when it does. The exit status is 0 if all succeeded, 9 if one failed, 10 if none failed and one was canceled,
/// and 11 if the time was over first.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The builds
    #[arg(required = true, value_name = "BUILD")]
    builds: Vec<String>,
    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, Serialize)]
struct Ended {
    id: BuildId,
    state: BuildState,
}

pub(super) async fn run(options: Options, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let builds = find_builds(&database.client().await?, &options.builds).await?;
    let deadline = Instant::now() + options.timeout.map_or(FOR_EVER, Duration::from_secs);
    // Listening begins before the first look, so that no end is missed.
    let mut changes = Listener::connect(&location.parse()?, &[CHANGED]).await?;
    let mut ended: Vec<Ended> = Vec::new();
    loop {
        match states(&database, &builds).await {
            Ok(states) => {
                if let Some(unknown) = builds.iter().find(|id| !states.iter().any(|(known, _)| known == *id))
                {
                    return Err(Failure::configuration(anyhow!(
                        "there is no build {unknown}; `hauberk build list` shows what there is"
                    )));
                }
                for (id, state) in states {
                    if state.is_final() && !ended.iter().any(|known| known.id == id) {
                        if !options.form.json {
                            crate::output::print(&format!("{id} {state}\n"))?;
                        }
                        ended.push(Ended { id, state });
                    }
                }
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the database does not answer; waiting on"
                );
            }
            Err(error) => return Err(error.into()),
        }
        if ended.len() == builds.len() {
            break;
        }
        if Instant::now() >= deadline {
            break;
        }
        let look_again = (Instant::now() + GLANCE).min(deadline);
        // Whatever was heard, or nothing: the rows tell.
        let _ = timeout_at(look_again, changes.next()).await;
        tokio::time::sleep_until((Instant::now() + CALM).min(deadline)).await;
        while changes.try_next().is_some() {}
    }
    if options.form.json {
        options.form.show(&ended, String::new)?;
    }
    verdict(&builds, &ended)
}

async fn states(
    database: &Database,
    builds: &[BuildId],
) -> Result<Vec<(BuildId, BuildState)>, DatabaseError> {
    control::states(&database.client().await?, builds).await
}

/// Says how the wait ended, by the exit status.
fn verdict(builds: &[BuildId], ended: &[Ended]) -> Result<(), Failure> {
    let bad = |one: &&Ended| !matches!(one.state, BuildState::Succeeded | BuildState::Canceled);
    if let Some(one) = ended.iter().find(bad) {
        return Err(Failure::new(
            Exit::BuildFailed,
            anyhow!("build {} ended as {}; `hauberk build show {}` tells more", one.id, one.state, one.id),
        ));
    }
    if let Some(one) = ended.iter().find(|one| one.state == BuildState::Canceled) {
        return Err(Failure::new(Exit::BuildCanceled, anyhow!("build {} was canceled", one.id)));
    }
    match builds.len() - ended.len() {
        0 => Ok(()),
        left => {
            Err(Failure::new(Exit::TimedOut, anyhow!("the time is over, and {left} builds are under way")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_weighs_more_than_a_cancellation_and_that_more_than_the_time() {
        let builds: Vec<BuildId> = (1..=3).map(BuildId::new).collect();
        let check = |states: &[BuildState], expected: Option<Exit>| {
            let ended: Vec<Ended> =
                states.iter().zip(&builds).map(|(state, id)| Ended { id: *id, state: *state }).collect();
            assert_eq!(verdict(&builds, &ended).err().map(|failure| failure.code), expected);
        };
        use BuildState::{Canceled, FailedDependency, Succeeded};
        check(&[Succeeded, Succeeded, Succeeded], None);
        check(&[Succeeded, Succeeded], Some(Exit::TimedOut));
        check(&[Canceled, Succeeded], Some(Exit::BuildCanceled));
        check(&[Canceled, FailedDependency], Some(Exit::BuildFailed));
    }
}
