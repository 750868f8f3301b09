//! Attempts, and where their logs are.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;

use crate::statement::{Record, statement};
use crate::{AttemptId, BuildId, DatabaseError};

/// One try of a build on one worker.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Its key.
    pub id: AttemptId,
    /// The build.
    pub build: BuildId,
    /// 1, 2, 3 ... of its build.
    pub number: i32,
    /// `first`, `retry` or `check`.
    pub kind: String,
    /// The generation of the build it was for.
    pub generation: i32,
    /// The worker.
    pub worker: String,
    /// The machine of that.
    pub machine: String,
    /// When the worker was given it.
    pub assigned_at: Timestamp,
    /// When the build itself began.
    pub started_at: Option<Timestamp>,
    /// When the worker said that it succeeded.
    pub built_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended (`attempts.class`).
    pub class: Option<String>,
    /// The builder's exit status.
    pub exit_status: Option<i32>,
    /// Why it ended so, in a line.
    pub message: Option<String>,
    /// `built` or `already_valid`.
    pub origin: Option<String>,
    /// Milliseconds it took to get the inputs.
    pub inputs_ms: Option<i64>,
    /// Milliseconds it took to build.
    pub build_ms: Option<i64>,
    /// Bytes of memory at most.
    pub peak_memory: Option<i64>,
    /// The log file, below the log folder of the server that has it.
    pub log_path: Option<String>,
    /// Bytes of the log's text, once it is complete.
    pub log_bytes: Option<i64>,
    /// Whether the log is all there.
    pub log_complete: bool,
    /// When the log was removed because it had been kept long enough.
    pub log_expired_at: Option<Timestamp>,
    /// Tries to fetch the outputs.
    pub fetch_tries: i16,
    /// Why the last of them failed.
    pub fetch_error: Option<String>,
}

/// What an attempt's log is the log of.
#[derive(Debug, Clone)]
pub struct LogOwner {
    /// The attempt.
    pub attempt: Attempt,
    /// The name of its build.
    pub build_name: String,
    /// Its derivation.
    pub derivation: Option<String>,
    /// Where the server that has the log serves it.
    pub publish_url: Option<String>,
}

/// Reads the attempts of a build, newest first.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn attempts(
    client: &impl GenericClient,
    build: BuildId,
    limit: i64,
) -> Result<Vec<Attempt>, DatabaseError> {
    statement!("pages/attempts").all(client, &[&build, &limit]).await?.iter().map(read).collect()
}

/// Reads one attempt.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn attempt(client: &impl GenericClient, id: AttemptId) -> Result<Option<LogOwner>, DatabaseError> {
    let row = statement!("pages/attempt").optional(client, &[&id]).await?;
    row.map(|row| {
        Ok(LogOwner {
            attempt: read(&row)?,
            build_name: row.get("build_name")?,
            derivation: row.get("derivation")?,
            publish_url: row.get("publish_url")?,
        })
    })
    .transpose()
}

/// Finds the attempt whose log stands for a build, and the build's name: `None` for an unknown build.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn log_attempt(
    client: &impl GenericClient,
    build: BuildId,
) -> Result<Option<(String, Option<AttemptId>)>, DatabaseError> {
    let row = statement!("pages/log_attempt").optional(client, &[&build]).await?;
    row.map(|row| Ok((row.get("name")?, row.get("attempt_id")?))).transpose()
}

fn read(row: &Record) -> Result<Attempt, DatabaseError> {
    Ok(Attempt {
        id: row.get("id")?,
        build: row.get("build_id")?,
        number: row.get("number")?,
        kind: row.get("kind")?,
        generation: row.get("generation")?,
        worker: row.get("worker")?,
        machine: row.get("machine")?,
        assigned_at: row.get("assigned_at")?,
        started_at: row.get("started_at")?,
        built_at: row.get("built_at")?,
        ended_at: row.get("ended_at")?,
        class: row.get("class")?,
        exit_status: row.get("exit_status")?,
        message: row.get("message")?,
        origin: row.get("origin")?,
        inputs_ms: row.get("inputs_ms")?,
        build_ms: row.get("build_ms")?,
        peak_memory: row.get("peak_memory")?,
        log_path: row.get("log_path")?,
        log_bytes: row.get("log_bytes")?,
        log_complete: row.get("log_complete")?,
        log_expired_at: row.get("log_expired_at")?,
        fetch_tries: row.get("fetch_tries")?,
        fetch_error: row.get("fetch_error")?,
    })
}
