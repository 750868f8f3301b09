//! Urgency: priorities, and what goes before everything.

use deadpool_postgres::GenericClient;

use super::{OperatorError, in_transaction};
use crate::priority_control::{self, Changed, Subject};
use crate::statement::statement;
use crate::{BuildId, Database, DatabaseError, EvaluationId, Priority};

/// Gives builds a priority, or (`None`) that of the jobs that want them. What they need inherits it.
///
/// # Errors
/// [`OperatorError::NotUnfinished`] or [`OperatorError::Database`].
pub async fn set_priority(
    database: &Database,
    who: &str,
    builds: &[BuildId],
    priority: Option<Priority>,
) -> Result<Vec<(BuildId, Changed)>, OperatorError> {
    in_transaction!(database, |transaction| prioritize(&transaction, who, builds, priority))
}

async fn prioritize(
    client: &impl GenericClient,
    who: &str,
    builds: &[BuildId],
    priority: Option<Priority>,
) -> Result<Vec<(BuildId, Changed)>, OperatorError> {
    let mut all = Vec::with_capacity(builds.len());
    for build in builds {
        let changed = priority_control::set_priority(client, *build, priority, who).await?;
        let changed = changed.ok_or(OperatorError::NotUnfinished(*build))?;
        attach(client, &build.to_string(), "build.priority", Some(*build), &changed.builds).await?;
        all.push((*build, changed));
    }
    Ok(all)
}

/// Puts builds before everything, with what they need, or (`on` false) does not any more.
///
/// # Errors
/// [`OperatorError::NotUnfinished`] or [`OperatorError::Database`].
pub async fn set_build_emergency(
    database: &Database,
    who: &str,
    builds: &[BuildId],
    on: bool,
) -> Result<Vec<(BuildId, Changed)>, OperatorError> {
    in_transaction!(database, |transaction| hasten(&transaction, who, builds, on))
}

async fn hasten(
    client: &impl GenericClient,
    who: &str,
    builds: &[BuildId],
    on: bool,
) -> Result<Vec<(BuildId, Changed)>, OperatorError> {
    let mut all = Vec::with_capacity(builds.len());
    for build in builds {
        let changed = priority_control::set_emergency(client, Subject::Build(*build), on, who).await?;
        let changed = changed.ok_or(OperatorError::NotUnfinished(*build))?;
        attach(client, &build.to_string(), "build.emergency", Some(*build), &changed.builds).await?;
        all.push((*build, changed));
    }
    Ok(all)
}

/// Puts all that an evaluation wants before everything, or (`on` false) does not any more.
///
/// # Errors
/// [`OperatorError::NoEvaluation`] or [`OperatorError::Database`].
pub async fn set_evaluation_emergency(
    database: &Database,
    who: &str,
    evaluation: EvaluationId,
    on: bool,
) -> Result<Changed, OperatorError> {
    in_transaction!(database, |transaction| hasten_evaluation(&transaction, who, evaluation, on))
}

async fn hasten_evaluation(
    client: &impl GenericClient,
    who: &str,
    evaluation: EvaluationId,
    on: bool,
) -> Result<Changed, OperatorError> {
    let changed = priority_control::set_emergency(client, Subject::Evaluation(evaluation), on, who).await?;
    let changed = changed.ok_or(OperatorError::NoEvaluation(evaluation))?;
    attach(client, &evaluation.to_string(), "evaluation.emergency", None, &changed.builds).await?;
    Ok(changed)
}

/// Gives the unfinished builds of an evaluation's jobs a priority, or that of their jobs.
///
/// # Errors
/// [`OperatorError::NoEvaluation`] or [`OperatorError::Database`].
pub async fn set_evaluation_priority(
    database: &Database,
    who: &str,
    evaluation: EvaluationId,
    priority: Option<Priority>,
) -> Result<Vec<(BuildId, Changed)>, OperatorError> {
    in_transaction!(database, |transaction| prioritize_all(&transaction, who, evaluation, priority))
}

async fn prioritize_all(
    client: &impl GenericClient,
    who: &str,
    evaluation: EvaluationId,
    priority: Option<Priority>,
) -> Result<Vec<(BuildId, Changed)>, OperatorError> {
    let known = statement!("operators/evaluation").optional(client, &[&evaluation]).await?;
    known.ok_or(OperatorError::NoEvaluation(evaluation))?;
    let jobs = super::ids(&statement!("operators/unfinished_jobs").all(client, &[&evaluation]).await?)?;
    let all = prioritize(client, who, &jobs, priority).await?;
    let detail = serde_json::json!({ "priority": priority, "builds": jobs.len() });
    super::record(client, who, "evaluation.priority", &evaluation.to_string(), Some(&detail), &jobs).await?;
    Ok(all)
}

/// Notes which builds the line was about that was just written.
async fn attach(
    client: &impl GenericClient,
    subject: &str,
    action: &str,
    named: Option<BuildId>,
    changed: &[BuildId],
) -> Result<(), DatabaseError> {
    let mut builds = changed.to_vec();
    builds.extend(named);
    statement!("operators/attach").execute(client, &[&builds, &subject, &action]).await?;
    Ok(())
}
