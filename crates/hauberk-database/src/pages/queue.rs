//! Builds that are not finished, in the order they will be.

use std::collections::BTreeMap;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;

use super::BuildLine;
use crate::statement::{Record, statement};
use crate::{AttemptId, BuildId, BuildState, DatabaseError, overview};

/// A build that a worker has.
#[derive(Debug, Clone)]
pub struct ActiveBuild {
    /// The build.
    pub line: BuildLine,
    /// The specification that wanted it first.
    pub specification: String,
    /// The worker and its machine.
    pub worker: Option<(String, String)>,
    /// The attempt, its number, and when it was given to the worker.
    pub attempt: Option<(AttemptId, i32, Timestamp)>,
    /// Whether there is a log.
    pub has_log: bool,
}

/// A build that no worker has.
#[derive(Debug, Clone)]
pub struct QueuedBuild {
    /// The build.
    pub line: BuildLine,
    /// The specification that wanted it first.
    pub specification: String,
    /// Dependencies that have not succeeded.
    pub unmet: i32,
    /// When it may be tried again.
    pub not_before: Option<Timestamp>,
}

/// Where a page of the whole queue begins: after this build.
#[derive(Debug, Clone, Copy)]
pub struct WaitingPosition {
    /// Its urgency: the priority, or -1.
    pub urgency: i16,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// Its key.
    pub id: BuildId,
}

/// Where a page of the ready builds begins: after this build, in the order of dispatch.
#[derive(Debug, Clone, Copy)]
pub struct ReadyPosition {
    /// Its urgency: the priority, or -1.
    pub urgency: i16,
    /// How long the longest chain is that waits for it, in steps ([`hauberk_order::PathStep`]).
    pub path_step: i16,
    /// Its key.
    pub id: BuildId,
}

/// Reads the builds that a worker has, those it works on first.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn queue_active(
    client: &impl GenericClient,
    limit: i64,
) -> Result<Vec<ActiveBuild>, DatabaseError> {
    let rows = statement!("pages/queue_active").all(client, &[&limit]).await?;
    rows.iter()
        .map(|row| {
            let worker: Option<String> = row.get("worker")?;
            let attempt = match row.get("attempt_id")? {
                None => None,
                Some(id) => Some((id, row.get("number")?, row.get("assigned_at")?)),
            };
            Ok(ActiveBuild {
                line: BuildLine::read(row)?,
                specification: row.get("specification")?,
                worker: worker.zip(row.get("machine")?),
                attempt,
                has_log: row.get::<Option<&str>>("log_path")?.is_some(),
            })
        })
        .collect()
}

/// Reads the builds that no worker has, most urgent first.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn queue_waiting(
    client: &impl GenericClient,
    after: Option<WaitingPosition>,
    limit: i64,
) -> Result<Vec<QueuedBuild>, DatabaseError> {
    let after = after.unwrap_or(WaitingPosition {
        urgency: -2,
        created_at: Timestamp::UNIX_EPOCH,
        id: BuildId::new(0),
    });
    let rows = statement!("pages/queue_waiting")
        .all(client, &[&after.urgency, &after.created_at, &after.id, &limit])
        .await?;
    rows.iter().map(queued).collect()
}

/// Reads the builds that only lack a free slot, in the order of dispatch within their lanes, with the place where the next page
/// begins.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn queue_ready(
    client: &impl GenericClient,
    after: Option<ReadyPosition>,
    limit: i64,
) -> Result<Vec<(QueuedBuild, ReadyPosition)>, DatabaseError> {
    let after = after.unwrap_or(ReadyPosition { urgency: -2, path_step: i16::MAX, id: BuildId::new(0) });
    let rows = statement!("pages/queue_ready")
        .all(client, &[&after.urgency, &after.path_step, &after.id, &limit])
        .await?;
    rows.iter()
        .map(|row| {
            let build = queued(row)?;
            let position = ReadyPosition {
                urgency: build.line.urgency,
                path_step: row.get("path_step")?,
                id: build.line.id,
            };
            Ok((build, position))
        })
        .collect()
}

/// Counts the unfinished builds by state; those that wait as [`overview::queue`] does.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn queue_counts(client: &impl GenericClient) -> Result<BTreeMap<BuildState, i64>, DatabaseError> {
    let mut counts = BTreeMap::new();
    for queued in overview::queue(client).await?.builds {
        *counts.entry(queued.state).or_default() += queued.builds;
    }
    for row in statement!("pages/queue_open").all(client, &[]).await? {
        counts.insert(row.get("state")?, row.get("builds")?);
    }
    Ok(counts)
}

fn queued(row: &Record) -> Result<QueuedBuild, DatabaseError> {
    Ok(QueuedBuild {
        line: BuildLine::read(row)?,
        specification: row.get("specification")?,
        unmet: row.get("unmet")?,
        not_before: row.get("not_before")?,
    })
}
