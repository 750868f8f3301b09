//! What must hold between the rows of the farm, and how it is mended.
//!
//! Every statement of the farm keeps these rules; this module is for what was not foreseen. A check is one statement, so it sees
//! what was committed together together, and what it finds is wrong for certain.

use std::collections::HashSet;
use std::fmt;

use deadpool_postgres::Client;

use crate::dispatch::{self, ReadyBuild, ready_build};
use crate::statement::statement;
use crate::{
    AttemptId, BuildId, BuildState, DatabaseError, GenericClient, begin, commit, control, evaluations,
    priority_control, revival,
};

/// A rule between the rows of the farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A build counts the dependencies that have not succeeded, and waits exactly for them.
    Counts,
    /// A build that failed by a dependency has one that failed.
    Reasons,
    /// A build that is being tried has its attempt open.
    Tried,
    /// An open attempt is its build's.
    Attempts,
    /// One result of a build counts in a generation.
    Once,
}

impl Rule {
    /// Every rule, in the order in which they are mended.
    pub const ALL: &'static [Self] = &[Self::Tried, Self::Attempts, Self::Reasons, Self::Counts, Self::Once];
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Counts => "builds that do not wait for exactly what they need",
            Self::Reasons => "builds that failed by dependencies of which none has failed",
            Self::Tried => "builds that are being tried without an open attempt",
            Self::Attempts => "open attempts that are not their builds'",
            Self::Once => "builds of which two results counted",
        })
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// The rows that break it: builds, or for [`Rule::Attempts`] attempts.
    pub rows: Vec<i64>,
}

/// Checks all rules, and changes nothing. Reads every unfinished build.
///
/// # Errors
/// Any failure of the statements.
pub async fn verify(client: &impl GenericClient) -> Result<Vec<Finding>, DatabaseError> {
    let mut findings = Vec::new();
    for rule in Rule::ALL {
        let rows = check(client, *rule).await?;
        if !rows.is_empty() {
            findings.push(Finding { rule: *rule, rows });
        }
    }
    Ok(findings)
}

/// Mends what breaks a rule; gives what became ready. What [`Rule::Once`] finds is past mending.
///
/// # Errors
/// Any failure of the statements.
pub async fn repair(client: &mut Client, finding: &Finding) -> Result<Vec<ReadyBuild>, DatabaseError> {
    let transaction = begin(client).await?;
    control::lock_graph(&transaction).await?;
    let builds: Vec<BuildId> = finding.rows.iter().copied().map(BuildId::new).collect();
    let ready = match finding.rule {
        Rule::Counts => recount(&transaction, &builds).await?,
        Rule::Reasons => revive(&transaction, &builds).await?,
        Rule::Tried => {
            let rows = statement!("upkeep/free").all(&transaction, &[&builds]).await?;
            rows.iter().map(ready_build).collect::<Result<_, _>>()?
        }
        Rule::Attempts => {
            let attempts: Vec<AttemptId> = finding.rows.iter().copied().map(AttemptId::new).collect();
            statement!("upkeep/end_strays").execute(&transaction, &[&attempts]).await?;
            Vec::new()
        }
        Rule::Once => Vec::new(),
    };
    if !ready.is_empty() {
        statement!("evaluations/notify_ready").execute(&transaction, &[]).await?;
    }
    evaluations::notify_changed(&transaction).await?;
    commit(transaction).await?;
    Ok(ready)
}

/// What a look at some of the waiting builds brought.
#[derive(Debug, Default)]
pub struct Swept {
    /// Where the next look begins: after this build.
    pub last: i64,
    /// Builds that did not wait for exactly what they need, and were mended.
    pub mended: usize,
    /// Those that are ready now.
    pub ready: Vec<ReadyBuild>,
}

/// Looks at the next `limit` waiting builds after the id `after`, and mends those that wait in vain.
///
/// # Errors
/// Any failure of the statements.
pub async fn sweep(client: &mut Client, after: i64, limit: i64) -> Result<Swept, DatabaseError> {
    let row = statement!("upkeep/slice").one(client, &[&after, &limit]).await?;
    let wrong: Vec<BuildId> = row.get("wrong")?;
    // From the beginning again when the end was reached.
    let mut swept =
        Swept { last: row.get::<Option<i64>>("last")?.unwrap_or(0), mended: wrong.len(), ready: Vec::new() };
    if !wrong.is_empty() {
        let transaction = begin(client).await?;
        swept.ready = recount(&transaction, &wrong).await?;
        commit(transaction).await?;
    }
    Ok(swept)
}

async fn check(client: &impl GenericClient, rule: Rule) -> Result<Vec<i64>, DatabaseError> {
    let (statement, column) = match rule {
        Rule::Counts => (statement!("upkeep/wrong_counts"), "build_id"),
        Rule::Reasons => (statement!("upkeep/failed_by_nothing"), "build_id"),
        Rule::Tried => (statement!("upkeep/without_attempt"), "build_id"),
        Rule::Attempts => (statement!("upkeep/stray_attempts"), "attempt_id"),
        Rule::Once => (statement!("upkeep/twice"), "build_id"),
    };
    statement.all(client, &[]).await?.iter().map(|row| row.get(column)).collect()
}

/// Counts what builds wait for, while what they need holds still. Dependencies are locked before dependents, as everywhere.
async fn recount(client: &impl GenericClient, builds: &[BuildId]) -> Result<Vec<ReadyBuild>, DatabaseError> {
    statement!("revival/hold_dependencies").execute(client, &[&builds]).await?;
    let rows = statement!("upkeep/recount").all(client, &[&builds]).await?;
    let (mut ready, mut failed, mut canceled) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        match row.parse::<BuildState>("state")? {
            BuildState::Ready => ready.push(ready_build(row)?),
            BuildState::FailedDependency => failed.push(row.get("build_id")?),
            BuildState::Canceled => canceled.push(row.get("build_id")?),
            _ => {}
        }
    }
    let mut over = dispatch::fail_dependents(client, &failed).await?;
    over.extend(control::cancel_dependents(client, &canceled).await?);
    failed.extend(canceled);
    if !failed.is_empty() {
        priority_control::note(client, &failed).await?;
        over.extend(failed);
        statement!("dispatch/weather").execute(client, &[&over]).await?;
    }
    Ok(ready)
}

/// Revives builds that failed by nothing, and what failed by them.
async fn revive(client: &impl GenericClient, builds: &[BuildId]) -> Result<Vec<ReadyBuild>, DatabaseError> {
    statement!("revival/hold_dependencies").execute(client, &[&builds]).await?;
    // Again: a dependency may have failed before it was held.
    let still: HashSet<i64> = check(client, Rule::Reasons).await?.into_iter().collect();
    let builds: Vec<BuildId> = builds.iter().filter(|id| still.contains(&id.get())).copied().collect();
    let mut ready = revival::revive(client, &builds).await?.ready;
    ready.extend(revival::dependents(client, &builds).await?.ready);
    if !builds.is_empty() {
        priority_control::note(client, &builds).await?;
    }
    Ok(ready)
}
