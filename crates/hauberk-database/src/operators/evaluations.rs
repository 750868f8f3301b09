//! Evaluations: cancel, restart, retry, and what a newer one has superseded.

use deadpool_postgres::GenericClient;
use serde_json::json;

use super::builds::begin_anew;
use super::{Only, OperatorError, ids, in_transaction, record};
use crate::control::{self, Canceled, Restarted};
use crate::evaluations::{self, EvaluationStatus};
use crate::statement::statement;
use crate::{BuildId, Database, DatabaseError, EvaluationId, SpecificationId};

/// An evaluation whose place a newer one has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superseded {
    /// The older one.
    pub evaluation: EvaluationId,
    /// The specification of both.
    pub specification: String,
}

/// What came of a request to restart what an evaluation wants.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EvaluationRestarted {
    /// Builds that begin anew.
    pub revived: Vec<BuildId>,
    /// Builds that stay as they ended: not asked for, or in need of something that failed.
    pub left: Vec<BuildId>,
}

/// What is known of an evaluation before a deed.
struct Known {
    specification: String,
    status: EvaluationStatus,
    newest: EvaluationId,
    enabled: bool,
}

/// Cancels what an evaluation wants and no other does.
///
/// # Errors
/// [`OperatorError::NoEvaluation`] or [`OperatorError::Database`].
pub async fn cancel_evaluation(
    database: &Database,
    who: &str,
    evaluation: EvaluationId,
) -> Result<Canceled, OperatorError> {
    in_transaction!(database, |transaction| cancel(&transaction, who, evaluation, "evaluation.cancel"))
}

async fn cancel(
    client: &impl GenericClient,
    who: &str,
    evaluation: EvaluationId,
    action: &str,
) -> Result<Canceled, OperatorError> {
    let outcome = control::cancel_evaluation(client, evaluation).await?;
    let outcome = outcome.ok_or(OperatorError::NoEvaluation(evaluation))?;
    let detail = json!({ "canceled": outcome.canceled.len(), "stopping": outcome.stopping.len() });
    let touched = [outcome.canceled.as_slice(), &outcome.stopping].concat();
    record(client, who, action, &evaluation.to_string(), Some(&detail), &touched).await?;
    Ok(outcome)
}

/// Lists the evaluations that something is still built for, or that still run, while a newer one of their specification has
/// succeeded; of one specification or of all.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn superseded(
    client: &impl GenericClient,
    specification: Option<&str>,
) -> Result<Vec<Superseded>, DatabaseError> {
    let records = statement!("operators/superseded").all(client, &[&specification]).await?;
    records
        .iter()
        .map(|record| {
            Ok(Superseded { evaluation: record.get("id")?, specification: record.get("specification")? })
        })
        .collect()
}

/// Cancels what only superseded evaluations want, of one specification or of all. Gives each with what came of it.
///
/// # Errors
/// [`OperatorError::NoSpecification`] or [`OperatorError::Database`].
pub async fn cancel_superseded(
    database: &Database,
    who: &str,
    specification: Option<&str>,
) -> Result<Vec<(Superseded, Canceled)>, OperatorError> {
    in_transaction!(database, |transaction| cancel_all(&transaction, who, specification))
}

async fn cancel_all(
    client: &impl GenericClient,
    who: &str,
    specification: Option<&str>,
) -> Result<Vec<(Superseded, Canceled)>, OperatorError> {
    if let Some(name) = specification {
        find_specification(client, name).await?;
    }
    control::lock_graph(client).await?;
    let mut outcomes = Vec::new();
    // What two of them want is spared by the first, and canceled with the second.
    for one in superseded(client, specification).await? {
        let outcome = cancel(client, who, one.evaluation, "evaluation.cancel_superseded").await?;
        outcomes.push((one, outcome));
    }
    Ok(outcomes)
}

/// Lets what an evaluation wants, and is over without success, begin anew. The evaluation counts as wanting it again.
///
/// # Errors
/// [`OperatorError::NoEvaluation`], [`OperatorError::NoJobs`], [`OperatorError::Running`] or [`OperatorError::Database`].
pub async fn restart_evaluation(
    database: &Database,
    who: &str,
    evaluation: EvaluationId,
    only: Only,
) -> Result<EvaluationRestarted, OperatorError> {
    in_transaction!(database, |transaction| restart(&transaction, who, evaluation, only))
}

async fn restart(
    client: &impl GenericClient,
    who: &str,
    evaluation: EvaluationId,
    only: Only,
) -> Result<EvaluationRestarted, OperatorError> {
    control::lock_graph(client).await?;
    match find(client, evaluation).await?.status {
        EvaluationStatus::Succeeded => {}
        EvaluationStatus::Started => return Err(OperatorError::Running(evaluation)),
        EvaluationStatus::Failed | EvaluationStatus::Aborted => {
            return Err(OperatorError::NoJobs(evaluation));
        }
    }
    statement!("operators/want_again").execute(client, &[&evaluation]).await?;
    let mine = ids(&statement!("operators/evaluation_builds").all(client, &[&evaluation]).await?)?;
    let Restarted { revived, .. } = begin_anew(client, &mine, only).await?;
    let now: std::collections::HashSet<BuildId> = revived.iter().copied().collect();
    let left = mine.into_iter().filter(|id| !now.contains(id)).collect();
    let detail = json!({ "revived": revived.len(), "only": only.as_str() });
    record(client, who, "evaluation.restart", &evaluation.to_string(), Some(&detail), &revived).await?;
    Ok(EvaluationRestarted { revived, left })
}

/// Asks the register to evaluate again what the newest evaluation of a specification saw. Gives the specification.
///
/// # Errors
/// [`OperatorError::NoEvaluation`], [`OperatorError::NotNewest`], [`OperatorError::Running`], [`OperatorError::Disabled`] or
/// [`OperatorError::Database`].
pub async fn retry_evaluation(
    database: &Database,
    who: &str,
    evaluation: EvaluationId,
) -> Result<String, OperatorError> {
    in_transaction!(database, |transaction| retry(&transaction, who, evaluation))
}

async fn retry(
    client: &impl GenericClient,
    who: &str,
    evaluation: EvaluationId,
) -> Result<String, OperatorError> {
    let Known { specification, status, newest, enabled } = find(client, evaluation).await?;
    if newest != evaluation {
        return Err(OperatorError::NotNewest { evaluation, specification, newest });
    }
    if status == EvaluationStatus::Started {
        return Err(OperatorError::Running(evaluation));
    }
    if !enabled {
        return Err(OperatorError::Disabled(specification));
    }
    statement!("operators/retry").execute(client, &[&evaluation]).await?;
    evaluations::request(client, &specification).await?;
    evaluations::notify_changed(client).await?;
    let detail = json!({ "specification": specification });
    record(client, who, "evaluation.retry", &evaluation.to_string(), Some(&detail), &[]).await?;
    Ok(specification)
}

/// Asks the register to look at a specification's repositories now.
///
/// # Errors
/// [`OperatorError::NoSpecification`], [`OperatorError::Disabled`] or [`OperatorError::Database`].
pub async fn evaluate(database: &Database, who: &str, specification: &str) -> Result<(), OperatorError> {
    in_transaction!(database, |transaction| look(&transaction, who, specification))
}

async fn look(client: &impl GenericClient, who: &str, specification: &str) -> Result<(), OperatorError> {
    if !find_specification(client, specification).await?.1 {
        return Err(OperatorError::Disabled(specification.to_owned()));
    }
    evaluations::request(client, specification).await?;
    record(client, who, "specification.evaluate", specification, None, &[]).await?;
    Ok(())
}

async fn find_specification(
    client: &impl GenericClient,
    name: &str,
) -> Result<(SpecificationId, bool), OperatorError> {
    let record = statement!("operators/specification").optional(client, &[&name]).await?;
    let record = record.ok_or_else(|| OperatorError::NoSpecification(name.to_owned()))?;
    Ok((record.get("id")?, record.get("enabled")?))
}

async fn find(client: &impl GenericClient, evaluation: EvaluationId) -> Result<Known, OperatorError> {
    let record = statement!("operators/evaluation").optional(client, &[&evaluation]).await?;
    let record = record.ok_or(OperatorError::NoEvaluation(evaluation))?;
    Ok(Known {
        specification: record.get("specification")?,
        status: record.convert::<i16, _>("status")?,
        newest: record.get("newest")?,
        enabled: record.get("enabled")?,
    })
}
