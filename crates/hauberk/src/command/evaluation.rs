//! `hauberk evaluation`: what operators do to evaluations.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use hauberk_database::{Database, EvaluationId, audit, begin, commit, control};
use serde_json::json;

use crate::command::{DatabaseLocation, builds, persist, print, user};
use crate::exit::Failure;

/// Cancel what an evaluation wants
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Cancel the builds of an evaluation that no other evaluation wants
    Cancel {
        /// The evaluation's number
        #[arg(value_name = "ID")]
        evaluation: i64,
        #[command(flatten)]
        location: DatabaseLocation,
    },
}

/// Does what the command says.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let Action::Cancel { evaluation, location } = options.action;
    let database = Database::connect(&location.parse()?, 1).await?;
    let id = EvaluationId::new(evaluation);
    let outcome = persist(|| async {
        let mut client = database.client().await?;
        let transaction = begin(&mut client).await?;
        let outcome = control::cancel_evaluation(&transaction, id).await?;
        if let Some(outcome) = &outcome {
            let detail = json!({ "canceled": outcome.canceled.len(), "stopping": outcome.stopping.len() });
            audit::record(&transaction, &user(), "evaluation.cancel", &id.to_string(), Some(&detail)).await?;
        }
        commit(transaction).await?;
        Ok(outcome)
    })
    .await?;
    let Some(outcome) = outcome else {
        return Err(Failure::configuration(anyhow!("there is no evaluation {id}")));
    };
    print(format_args!("canceled {}", builds(&outcome.canceled)))?;
    if !outcome.stopping.is_empty() {
        print(format_args!("{} are being stopped, and canceled then", builds(&outcome.stopping)))?;
    }
    Ok(())
}
