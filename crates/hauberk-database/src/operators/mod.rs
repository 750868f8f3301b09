//! Whole deeds of operators: each in a transaction of its own, with its line in the audit, or not at all.
//!
//! The command line and the pages do the same by the same functions. `who` is what stands in the audit.

mod builds;
mod error;
mod evaluations;
mod history;
mod urgency;
mod workers;

pub use builds::{Extent, Only, cancel_builds, restart_builds};
pub use error::OperatorError;
pub use evaluations::{
    EvaluationRestarted, Superseded, cancel_evaluation, cancel_superseded, evaluate, restart_evaluation,
    retry_evaluation, superseded,
};
pub use history::{Subject, of_build, of_subject};
pub use urgency::{set_build_emergency, set_evaluation_emergency, set_evaluation_priority, set_priority};
pub use workers::{direct_workers, enrol_worker, make_token, remove_worker, revoke_token, server_key};

use deadpool_postgres::GenericClient;
use serde_json::Value;

use crate::statement::statement;
use crate::{BuildId, DatabaseError};

/// How often a deed is begun anew after PostgreSQL ended it in favour of the farm's own writes.
const TRIES: u32 = 5;

/// Does a deed in a transaction, again when the farm's own writes came in its way.
macro_rules! in_transaction {
    ($database:expr, |$transaction:ident| $deed:expr) => {{
        let mut tries = 1;
        loop {
            let mut client = $database.client().await?;
            let $transaction = $crate::begin(&mut client).await?;
            let outcome = match $deed.await {
                Ok(outcome) => $crate::commit($transaction)
                    .await
                    .map(|()| outcome)
                    .map_err($crate::operators::OperatorError::from),
                Err(error) => Err($crate::operators::OperatorError::from(error)),
            };
            match outcome {
                Err(error) if error.is_conflict() && tries < $crate::operators::TRIES => tries += 1,
                outcome => break outcome,
            }
        }
    }};
}
use in_transaction;

/// Writes a line of the audit about some builds.
async fn record(
    client: &impl GenericClient,
    who: &str,
    action: &str,
    subject: &str,
    detail: Option<&Value>,
    builds: &[BuildId],
) -> Result<(), DatabaseError> {
    let line = statement!("operators/record").one(client, &[&who, &action, &subject, &detail]).await?;
    if !builds.is_empty() {
        let line: i64 = line.get("id")?;
        statement!("operators/record_builds").execute(client, &[&builds, &line]).await?;
    }
    Ok(())
}

fn ids(records: &[crate::statement::Record]) -> Result<Vec<BuildId>, DatabaseError> {
    records.iter().map(|record| record.get("build_id")).collect()
}
