//! `hauberk build`: what operators do to builds.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use hauberk_database::control::{self, Canceled, Restarted};
use hauberk_database::{BuildId, Database, audit, begin, commit};
use serde_json::json;

use crate::command::{DatabaseLocation, builds, persist, print, user};
use crate::exit::Failure;

/// Cancel builds, or let them begin anew
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Cancel builds, and what needs them, whoever wants them; what runs is stopped
    Cancel {
        /// The builds' numbers
        #[arg(required = true, value_name = "ID")]
        builds: Vec<i64>,
        #[command(flatten)]
        location: DatabaseLocation,
    },
    /// Let builds begin anew that failed or were canceled, with what failed because of them
    Restart {
        /// The builds' numbers
        #[arg(required = true, value_name = "ID")]
        builds: Vec<i64>,
        #[command(flatten)]
        location: DatabaseLocation,
    },
}

/// Does what the command says.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    match options.action {
        Action::Cancel { builds, location } => cancel(ids(builds), &location).await,
        Action::Restart { builds, location } => restart(ids(builds), &location).await,
    }
}

fn ids(numbers: Vec<i64>) -> Vec<BuildId> {
    let mut ids: Vec<_> = numbers.into_iter().map(BuildId::new).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

async fn cancel(ids: Vec<BuildId>, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = Database::connect(&location.parse()?, 1).await?;
    let Canceled { canceled, stopping, over, unknown } = persist(|| async {
        let mut client = database.client().await?;
        let transaction = begin(&mut client).await?;
        let outcome = control::cancel_builds(&transaction, &ids).await?;
        // A number that is mistaken for another's: nothing is done.
        if outcome.unknown.is_empty() {
            for id in &ids {
                audit::record(&transaction, &user(), "build.cancel", &id.to_string(), None).await?;
            }
            commit(transaction).await?;
        }
        Ok(outcome)
    })
    .await?;
    told(&unknown)?;
    print(format_args!("canceled {}", builds(&canceled)))?;
    if !stopping.is_empty() {
        print(format_args!("{} are being stopped, and canceled then", builds(&stopping)))?;
    }
    if !over.is_empty() {
        print(format_args!("{} are built already or over, and stay as they are", builds(&over)))?;
    }
    Ok(())
}

async fn restart(ids: Vec<BuildId>, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = Database::connect(&location.parse()?, 1).await?;
    let Restarted { revived, succeeded, unfinished, unknown } = persist(|| async {
        let mut client = database.client().await?;
        let transaction = begin(&mut client).await?;
        let outcome = control::restart_builds(&transaction, &ids).await?;
        if outcome.unknown.is_empty() {
            let detail = json!({ "revived": outcome.revived.len() });
            for id in ids.iter().filter(|id| outcome.revived.contains(id)) {
                audit::record(&transaction, &user(), "build.restart", &id.to_string(), Some(&detail)).await?;
            }
            commit(transaction).await?;
        }
        Ok(outcome)
    })
    .await?;
    told(&unknown)?;
    print(format_args!("{} begin anew", builds(&revived)))?;
    if !succeeded.is_empty() {
        print(format_args!("{} have succeeded, and stay as they are", builds(&succeeded)))?;
    }
    if !unfinished.is_empty() {
        print(format_args!("{} are under way", builds(&unfinished)))?;
    }
    Ok(())
}

fn told(unknown: &[BuildId]) -> Result<(), Failure> {
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Failure::configuration(anyhow!("there is no such build: {}", builds(unknown))))
}
