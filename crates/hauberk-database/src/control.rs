//! What operators do to builds and evaluations: cancel and restart.
//!
//! A build that waits is canceled at once, with all that needs it. One that runs is only asked for
//! (`builds.cancel_requested_at`): the server that has the attempt tells the worker, and whatever ends the attempt then, short of a
//! result that counts, cancels the build. An evaluation that wants the build meanwhile takes the request back.

use crate::statement::statement;
use crate::{
    AttemptId, BuildId, BuildState, DatabaseError, Epoch, EvaluationId, GenericClient, evaluations,
    priority_control, revival,
};

/// What came of a request to cancel.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Canceled {
    /// Builds that are canceled, those that needed one of them included.
    pub canceled: Vec<BuildId>,
    /// Builds whose attempts are being stopped.
    pub stopping: Vec<BuildId>,
    /// Builds that are built already, or have come to their end.
    pub over: Vec<BuildId>,
    /// Builds that do not exist.
    pub unknown: Vec<BuildId>,
}

/// Keeps evaluations from being published until the transaction ends, so that what they want is known.
///
/// # Errors
/// Any failure of the statement.
pub async fn lock_graph(client: &impl GenericClient) -> Result<(), DatabaseError> {
    statement!("registration/lock").execute(client, &[]).await?;
    Ok(())
}

/// Cancels builds, whoever wants them, and what needs them. Needs a transaction.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn cancel_builds(
    client: &impl GenericClient,
    builds: &[BuildId],
) -> Result<Canceled, DatabaseError> {
    lock_graph(client).await?;
    let mut found = Vec::new();
    for row in statement!("control/states").all(client, &[&builds]).await? {
        found.push(row.get("build_id")?);
    }
    let mut outcome = cancel(client, builds).await?;
    let missing = |known: &[BuildId]| builds.iter().filter(|id| !known.contains(id)).copied().collect();
    outcome.unknown = missing(&found);
    let touched: Vec<BuildId> = [&outcome.canceled, &outcome.stopping, &outcome.over, &outcome.unknown]
        .into_iter()
        .flatten()
        .copied()
        .collect();
    outcome.over.extend::<Vec<_>>(missing(&touched));
    let dependents = cancel_dependents(client, &outcome.canceled).await?;
    outcome.canceled.extend(dependents);
    priority_control::without(client, &outcome.canceled).await?;
    finish(client, &outcome).await?;
    Ok(outcome)
}

/// Cancels what an evaluation wants and no other does. Gives `None` when there is no such evaluation. Needs a transaction.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn cancel_evaluation(
    client: &impl GenericClient,
    evaluation: EvaluationId,
) -> Result<Option<Canceled>, DatabaseError> {
    lock_graph(client).await?;
    if statement!("control/cancel_evaluation").optional(client, &[&evaluation]).await?.is_none() {
        return Ok(None);
    }
    let rows = statement!("control/unwanted").all(client, &[&evaluation]).await?;
    let unwanted: Vec<BuildId> = rows.iter().map(|row| row.get("build_id")).collect::<Result<_, _>>()?;
    let outcome = cancel(client, &unwanted).await?;
    priority_control::without_evaluation(client, evaluation).await?;
    priority_control::without(client, &outcome.canceled).await?;
    finish(client, &outcome).await?;
    Ok(Some(outcome))
}

/// Reads how builds stand; unknown ones are left out.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn states(
    client: &impl GenericClient,
    builds: &[BuildId],
) -> Result<Vec<(BuildId, BuildState)>, DatabaseError> {
    let rows = statement!("control/states").all(client, &[&builds]).await?;
    rows.iter().map(|row| Ok((row.get("build_id")?, row.parse("state")?))).collect()
}

/// What came of a request to restart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Restarted {
    /// Builds that begin anew: those that were named, what they had failed by, and what had failed by them.
    pub revived: Vec<BuildId>,
    /// Builds that have succeeded.
    pub succeeded: Vec<BuildId>,
    /// Builds that are under way anyhow.
    pub unfinished: Vec<BuildId>,
    /// Builds that do not exist.
    pub unknown: Vec<BuildId>,
}

/// Lets builds that are final and have not succeeded begin anew. Needs a transaction.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn restart_builds(
    client: &impl GenericClient,
    builds: &[BuildId],
) -> Result<Restarted, DatabaseError> {
    lock_graph(client).await?;
    let mut outcome = Restarted { unknown: builds.to_vec(), ..Restarted::default() };
    let mut final_ones = Vec::new();
    for row in statement!("control/states").all(client, &[&builds]).await? {
        let id = row.get("build_id")?;
        outcome.unknown.retain(|unknown| *unknown != id);
        match row.parse::<BuildState>("state")? {
            BuildState::Succeeded => outcome.succeeded.push(id),
            state if state.is_final() => final_ones.push(id),
            _ => outcome.unfinished.push(id),
        }
    }
    let revived = revival::restart(client, &final_ones).await?;
    priority_control::with(client, &revived.revived).await?;
    if !revived.ready.is_empty() {
        statement!("evaluations/notify_ready").execute(client, &[]).await?;
    }
    evaluations::notify_changed(client).await?;
    outcome.revived = revived.revived;
    Ok(outcome)
}

/// Lists the open attempts of a server start whose builds operators have canceled.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn to_stop(client: &impl GenericClient, epoch: Epoch) -> Result<Vec<AttemptId>, DatabaseError> {
    let rows = statement!("control/to_stop").all(client, &[&epoch]).await?;
    rows.iter().map(|row| row.get("attempt_id")).collect()
}

/// Cancels what needs builds that are canceled now, through all levels; gives it.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn cancel_dependents(
    client: &impl GenericClient,
    builds: &[BuildId],
) -> Result<Vec<BuildId>, DatabaseError> {
    let mut canceled = Vec::new();
    if builds.is_empty() {
        return Ok(canceled);
    }
    // Again until nothing is left, as for failures.
    loop {
        let rows = statement!("control/cancel_dependents").all(client, &[&builds]).await?;
        if rows.is_empty() {
            return Ok(canceled);
        }
        for row in &rows {
            canceled.push(row.get("build_id")?);
        }
    }
}

async fn cancel(client: &impl GenericClient, builds: &[BuildId]) -> Result<Canceled, DatabaseError> {
    let mut outcome = Canceled::default();
    for row in statement!("control/cancel").all(client, &[&builds]).await? {
        let id = row.get("build_id")?;
        match row.parse::<BuildState>("state")? {
            BuildState::Canceled => outcome.canceled.push(id),
            BuildState::Assigned | BuildState::Running => outcome.stopping.push(id),
            _ => outcome.over.push(id),
        }
    }
    Ok(outcome)
}

async fn finish(client: &impl GenericClient, outcome: &Canceled) -> Result<(), DatabaseError> {
    if !outcome.canceled.is_empty() {
        statement!("dispatch/weather").execute(client, &[&outcome.canceled]).await?;
    }
    if !outcome.stopping.is_empty() {
        statement!("control/notify").execute(client, &[]).await?;
    }
    evaluations::notify_changed(client).await
}
