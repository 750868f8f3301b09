//! The table `attempts`, read one at a time.

use std::collections::HashMap;
use std::time::Duration;

use hauberk_store::{DrvPath, StorePath};

use crate::dispatch::{AttemptClass, BuiltOutput, failed_on, store_paths, words};
use crate::statement::{Record, statement};
use crate::{AttemptId, BuildId, DatabaseError, Epoch, GenericClient, ServerId, SpecificationId, WorkerId};

/// An attempt that has not ended, as a server finds it at its start.
#[derive(Debug, Clone)]
pub struct OpenAttempt {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its build.
    pub build: BuildId,
    /// The worker it was given to.
    pub worker: WorkerId,
    /// Whether the worker has said that it succeeded.
    pub built: bool,
    /// Whether it stands beside another open attempt of its build, see [`crate::late`].
    pub late: bool,
    /// How often its outputs were fetched in vain.
    pub fetch_tries: i16,
    /// Attempts of the build that failed by the farm's fault.
    pub farm_faults: i16,
    /// Name and version.
    pub name: String,
    /// The derivation.
    pub derivation: DrvPath,
    /// The specification that pays for it.
    pub specification: SpecificationId,
    /// Milliseconds it should take; 0 = not known.
    pub expected_ms: i64,
    /// Milliseconds since it was given to the worker.
    pub age_ms: i64,
    /// Where attempts of the build failed by the farm's fault before, in this generation.
    pub failed_on: Vec<WorkerId>,
}

/// Lists the open attempts of a start of a server. `farm_faults` are the classes of ends that [`OpenAttempt::failed_on`] is about.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn open(
    client: &impl GenericClient,
    epoch: Epoch,
    farm_faults: &[AttemptClass],
) -> Result<Vec<OpenAttempt>, DatabaseError> {
    let rows = statement!("attempts/open").all(client, &[&epoch, &words(farm_faults)]).await?;
    rows.iter()
        .map(|row| {
            Ok(OpenAttempt {
                attempt: row.get("attempt_id")?,
                build: row.get("build_id")?,
                worker: row.get("worker_id")?,
                built: row.get("built")?,
                late: row.get("late")?,
                fetch_tries: row.get("fetch_tries")?,
                farm_faults: row.get("farm_faults")?,
                name: row.get("name")?,
                derivation: row.parse("derivation")?,
                specification: row.get("specification_id")?,
                expected_ms: row.get("expected_ms")?,
                age_ms: row.get("age_ms")?,
                failed_on: failed_on(row)?,
            })
        })
        .collect()
}

/// Lists what an attempt gave, by its worker's word.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn outputs(
    client: &impl GenericClient,
    attempt: AttemptId,
) -> Result<Vec<BuiltOutput>, DatabaseError> {
    let rows = statement!("attempts/outputs").all(client, &[&attempt]).await?;
    rows.iter()
        .map(|row| {
            Ok(BuiltOutput {
                name: row.get("name")?,
                path: row.parse("path")?,
                nar_hash: row.get("nar_hash")?,
                nar_size: row.get("nar_size")?,
                references: store_paths(row, "refs")?,
            })
        })
        .collect()
}

/// Lists what an attempt is to give: names and paths.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn expected_outputs(
    client: &impl GenericClient,
    attempt: AttemptId,
) -> Result<Vec<(String, StorePath)>, DatabaseError> {
    let rows = statement!("attempts/expected_outputs").all(client, &[&attempt]).await?;
    rows.iter().map(|row| Ok((row.get("name")?, row.parse("path")?))).collect()
}

/// Whose an attempt's log is, and where it goes.
#[derive(Debug, Clone)]
pub struct LogOwner {
    /// The CURVE key, Z85, of the worker that may write it.
    pub public_key: Option<String>,
    /// The file, below the server's log directory.
    pub path: Option<String>,
    /// Whether it is complete.
    pub complete: bool,
    /// Whether another server has received it so far.
    pub elsewhere: bool,
}

/// Finds out whose the logs of attempts are, for `server`. Attempts that do not exist are left out. For a transaction with pinned plans
/// ([`Database::begin_pinned`](crate::Database::begin_pinned)): one made while there were few attempts reads all of them for each.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn log_owners(
    client: &impl GenericClient,
    attempts: &[AttemptId],
    server: ServerId,
) -> Result<HashMap<AttemptId, LogOwner>, DatabaseError> {
    let rows = statement!("attempts/log_owners").all(client, &[&attempts, &server]).await?;
    let owner = |row: &Record| -> Result<_, DatabaseError> {
        let owner = LogOwner {
            public_key: row.get("public_key")?,
            path: row.get("log_path")?,
            complete: row.get("log_complete")?,
            elsewhere: row.get("elsewhere")?,
        };
        Ok((row.get("id")?, owner))
    };
    rows.iter().map(owner).collect()
}

/// Records that `server` receives the logs of attempts now, another having done so before. For a transaction with pinned plans, as [`log_owners`].
///
/// # Errors
/// Any failure of the statement.
pub async fn hold_logs(
    client: &impl GenericClient,
    attempts: &[AttemptId],
    server: ServerId,
) -> Result<(), DatabaseError> {
    statement!("attempts/hold_logs").execute(client, &[&attempts, &server]).await?;
    Ok(())
}

/// Records that logs of attempts are complete at `server`, and how many bytes of text each has. Gives the attempts of which it could: it waits for
/// no other transaction, so that those whose rows another holds at this moment have to be tried again. For a transaction with pinned
/// plans, as [`log_owners`].
///
/// # Errors
/// Any failure of the statement.
pub async fn log_complete(
    client: &impl GenericClient,
    logs: &[(AttemptId, i64)],
    server: ServerId,
) -> Result<Vec<AttemptId>, DatabaseError> {
    let (attempts, text_bytes): (Vec<_>, Vec<_>) = logs.iter().copied().unzip();
    let rows = statement!("attempts/log_complete").all(client, &[&attempts, &text_bytes, &server]).await?;
    rows.iter().map(|row| row.get("attempt_id")).collect()
}

/// Where the results of an attempt are to be had.
#[derive(Debug, Clone)]
pub struct ResultSource {
    /// The worker's name.
    pub worker: String,
    /// The worker's publish server.
    pub publish_url: Option<String>,
    /// The key its narinfos must be signed with.
    pub signing_key: Option<String>,
    /// How often they were fetched in vain.
    pub fetch_tries: i16,
}

/// Finds out where the results of an attempt are; nothing if there is no such attempt.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn result_source(
    client: &impl GenericClient,
    attempt: AttemptId,
) -> Result<Option<ResultSource>, DatabaseError> {
    let row = statement!("attempts/worker").optional(client, &[&attempt]).await?;
    row.map(|row| {
        Ok(ResultSource {
            worker: row.get("name")?,
            publish_url: row.get("publish_url")?,
            signing_key: row.get("signing_key")?,
            fetch_tries: row.get("fetch_tries")?,
        })
    })
    .transpose()
}

/// Where a log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLog {
    /// The file, below a server's log directory.
    pub path: String,
    /// Whether it is complete.
    pub complete: bool,
    /// The server that has it.
    pub server: Option<ServerId>,
    /// Where that server publishes.
    pub publish_url: Option<String>,
}

impl KeptLog {
    fn read(row: &Record) -> Result<Self, DatabaseError> {
        Ok(Self {
            path: row.get("log_path")?,
            complete: row.get("log_complete")?,
            server: row.get("log_server_id")?,
            publish_url: row.get("publish_url")?,
        })
    }
}

/// Finds the log of the newest attempt of the build that a derivation or an output belongs to.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn latest_log(
    client: &impl GenericClient,
    path: &StorePath,
) -> Result<Option<KeptLog>, DatabaseError> {
    let row = statement!("attempts/latest_log").optional(client, &[&path.to_string()]).await?;
    row.map(|row| KeptLog::read(&row)).transpose()
}

/// Gives the log of an attempt, if one is kept.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn log(client: &impl GenericClient, attempt: AttemptId) -> Result<Option<KeptLog>, DatabaseError> {
    let row = statement!("attempts/log").optional(client, &[&attempt]).await?;
    row.map(|row| KeptLog::read(&row)).transpose()
}

/// Where a walk over old attempts stands, and what it found on its last step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldLogs {
    /// Attempts whose logs have been kept long enough, and where those are below the log directory.
    pub expired: Vec<(AttemptId, String)>,
    /// The last attempt that was looked at, if it is old; nothing where the young ones begin.
    pub next: Option<AttemptId>,
}

/// Finds logs of `server` that have been kept for `age`, among the `limit` attempts after `after`. Attempts that have not ended keep
/// theirs.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn old_logs(
    client: &impl GenericClient,
    server: ServerId,
    age: Duration,
    after: Option<AttemptId>,
    limit: i64,
) -> Result<OldLogs, DatabaseError> {
    let after = after.map_or(0, AttemptId::get);
    let rows =
        statement!("attempts/old_logs").all(client, &[&after, &server, &age.as_secs_f64(), &limit]).await?;
    let mut found = OldLogs { expired: Vec::new(), next: None };
    for row in &rows {
        let id = row.get("id")?;
        if row.get("expired")? {
            found.expired.push((id, row.get("log_path")?));
        }
        found.next = Some(id).filter(|_| row.get("old").unwrap_or(false));
    }
    Ok(found)
}

/// Records that the logs of `attempts` were removed.
///
/// # Errors
/// Any failure of the statement.
pub async fn expire_logs(client: &impl GenericClient, attempts: &[AttemptId]) -> Result<(), DatabaseError> {
    statement!("attempts/expire_logs").execute(client, &[&attempts]).await?;
    Ok(())
}
