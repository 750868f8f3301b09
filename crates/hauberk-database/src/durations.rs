//! How long builds took, kept by what they have in common (`durations`).

use std::collections::BTreeSet;
use std::time::Duration;

use deadpool_postgres::{Client, GenericClient};
use hauberk_order::{DurationHistory, Likeness, Scope};
use jiff::Timestamp;

use crate::statement::statement;
use crate::{BuildId, DatabaseError, begin, commit};

/// Builds that are learned of in one transaction.
const BATCH: i64 = 5000;
/// Batches in one go: what has piled up beyond them is learned the next time.
const BATCHES: usize = 10;

/// Learns how long the builds took that have ended since the last time; gives how many were looked at.
///
/// Two at once do it once.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn learn(client: &mut Client) -> Result<usize, DatabaseError> {
    let mut looked_at = 0;
    for _ in 0..BATCHES {
        let batch = learn_batch(client).await?;
        looked_at += batch;
        if i64::try_from(batch).unwrap_or(i64::MAX) < BATCH {
            break;
        }
    }
    Ok(looked_at)
}

async fn learn_batch(client: &mut Client) -> Result<usize, DatabaseError> {
    let transaction = begin(client).await?;
    if statement!("durations/lock").optional(&transaction, &[]).await?.is_none() {
        return Ok(0);
    }
    let rows = statement!("durations/finished").all(&transaction, &[&BATCH]).await?;
    let Some(last) = rows.last() else { return Ok(0) };
    let (until, id): (Timestamp, BuildId) = (last.get("finished_at")?, last.get("build_id")?);

    let mut ended: Vec<(&str, &str, Duration)> = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(millis) = row.get::<Option<i64>>("build_ms")? {
            let took = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
            ended.push((row.get("system")?, row.get("name")?, took));
        }
    }
    let mut history = history(&transaction, ended.iter().map(|(system, name, _)| (*system, *name))).await?;
    for (system, name, took) in ended {
        history.record(system, name, took);
    }
    keep(&transaction, &history).await?;
    statement!("durations/advance").execute(&transaction, &[&until, &id]).await?;
    commit(transaction).await?;
    Ok(rows.len())
}

/// Reads what is known of builds of these systems and names, and of what is like them.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn history(
    client: &impl GenericClient,
    builds: impl Iterator<Item = (&str, &str)>,
) -> Result<DurationHistory, DatabaseError> {
    let likenesses: BTreeSet<Likeness> =
        builds.flat_map(|(system, name)| DurationHistory::likenesses(system, name)).collect();
    let systems: Vec<&str> = likenesses.iter().map(|likeness| likeness.system.as_str()).collect();
    let scopes: Vec<&str> = likenesses.iter().map(|likeness| word(likeness.scope)).collect();
    let texts: Vec<&str> = likenesses.iter().map(|likeness| likeness.text.as_str()).collect();
    let mut history = DurationHistory::default();
    for row in statement!("durations/find").all(client, &[&systems, &scopes, &texts]).await? {
        let scope = match row.get("scope")? {
            "name" => Scope::Name,
            "kind" => Scope::Kind,
            _ => Scope::System,
        };
        let likeness = Likeness { system: row.get("system")?, scope, text: row.get("likeness")? };
        let recent: Vec<i64> = row.get("recent")?;
        let durations =
            recent.into_iter().map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0)));
        history.restore(likeness, durations);
    }
    Ok(history)
}

async fn keep(client: &impl GenericClient, history: &DurationHistory) -> Result<(), DatabaseError> {
    let mut rows: Vec<(&Likeness, String)> = history
        .entries()
        .map(|(likeness, durations)| {
            let millis: Vec<String> = durations.map(|duration| duration.as_millis().to_string()).collect();
            (likeness, format!("{{{}}}", millis.join(",")))
        })
        .collect();
    rows.sort_unstable();
    let systems: Vec<&str> = rows.iter().map(|(likeness, _)| likeness.system.as_str()).collect();
    let scopes: Vec<&str> = rows.iter().map(|(likeness, _)| word(likeness.scope)).collect();
    let texts: Vec<&str> = rows.iter().map(|(likeness, _)| likeness.text.as_str()).collect();
    let recent: Vec<&str> = rows.iter().map(|(_, recent)| recent.as_str()).collect();
    statement!("durations/keep").execute(client, &[&systems, &scopes, &texts, &recent]).await?;
    Ok(())
}

const fn word(scope: Scope) -> &'static str {
    match scope {
        Scope::Name => "name",
        Scope::Kind => "kind",
        Scope::System => "system",
    }
}
