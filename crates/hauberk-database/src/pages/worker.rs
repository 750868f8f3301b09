//! Workers, and what each has in hand.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;

use crate::statement::statement;
use crate::{AttemptId, BuildId, BuildState, DatabaseError, WorkerId};

/// A worker, as it last said of itself.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its key.
    pub id: WorkerId,
    /// Its name.
    pub name: String,
    /// Its host.
    pub machine: String,
    /// Where it is reached from.
    pub address: String,
    /// The version of hauberk there.
    pub version: String,
    /// The build daemon there.
    pub daemon: String,
    /// The store's folder there.
    pub store_directory: String,
    /// What it builds for.
    pub systems: Vec<String>,
    /// What else it can.
    pub features: Vec<String>,
    /// How many builds at a time.
    pub slots: i32,
    /// Whether it gets no work for now.
    pub paused: bool,
    /// Why.
    pub pause_reason: Option<String>,
    /// Since when it is the farm itself that has paused it, because it is sick.
    pub set_aside_at: Option<Timestamp>,
    /// What the worker itself says it lacks to take work now.
    pub shortage: Option<String>,
    /// Whether it uploads its results, as its server cannot reach it; `None`: nobody has looked yet.
    pub uploads: Option<bool>,
    /// Whether it is to finish what it runs and to leave.
    pub draining: bool,
    /// When its session began.
    pub connected_at: Option<Timestamp>,
    /// When it was last heard of.
    pub last_seen_at: Option<Timestamp>,
    /// What it last said of its machine.
    pub load: Option<serde_json::Value>,
    /// Whether a server that has not ended holds its session.
    pub connected: bool,
    /// The name of that server.
    pub server: Option<String>,
    /// How many seconds ago that server last gave a sign of life, by the database's clock.
    pub server_silent: Option<i64>,
}

/// An attempt that has not ended.
#[derive(Debug, Clone)]
pub struct OpenAttempt {
    /// The attempt.
    pub id: AttemptId,
    /// Its worker.
    pub worker: WorkerId,
    /// 1, 2, 3 ... of its build.
    pub number: i32,
    /// `first`, `retry` or `check`.
    pub kind: String,
    /// When the worker was given it.
    pub assigned_at: Timestamp,
    /// When the build itself began.
    pub started_at: Option<Timestamp>,
    /// When the worker said that it succeeded: the slot is free again.
    pub built_at: Option<Timestamp>,
    /// Whether there is a log.
    pub has_log: bool,
    /// The build.
    pub build: BuildId,
    /// Name and version.
    pub build_name: String,
    /// What it is built for.
    pub system: String,
    /// How the build stands.
    pub state: BuildState,
}

/// An attempt in the history of a worker.
#[derive(Debug, Clone)]
pub struct WorkerAttempt {
    /// The attempt.
    pub id: AttemptId,
    /// The name of the worker.
    pub worker: String,
    /// 1, 2, 3 ... of its build.
    pub number: i32,
    /// When the worker was given it.
    pub assigned_at: Timestamp,
    /// When the build itself began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended (`attempts.class`).
    pub class: Option<String>,
    /// Why it ended so.
    pub message: Option<String>,
    /// Milliseconds it took to build.
    pub build_ms: Option<i64>,
    /// Whether there is a log.
    pub has_log: bool,
    /// The build.
    pub build: BuildId,
    /// Name and version.
    pub build_name: String,
    /// What it is built for.
    pub system: String,
}

/// Reads the workers that may work for the farm, or those of a machine, by machine and name.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn workers(
    client: &impl GenericClient,
    machine: Option<&str>,
) -> Result<Vec<Worker>, DatabaseError> {
    let rows = statement!("pages/workers").all(client, &[&machine]).await?;
    rows.iter()
        .map(|row| {
            Ok(Worker {
                id: row.get("id")?,
                name: row.get("name")?,
                machine: row.get("machine")?,
                address: row.get("address")?,
                version: row.get("version")?,
                daemon: row.get("daemon")?,
                store_directory: row.get("store_directory")?,
                systems: row.get("systems")?,
                features: row.get("features")?,
                slots: row.get("slots")?,
                paused: row.get("paused")?,
                pause_reason: row.get("pause_reason")?,
                set_aside_at: row.get("set_aside_at")?,
                shortage: row.get("shortage")?,
                uploads: row.get("uploads")?,
                draining: row.get("draining")?,
                connected_at: row.get("connected_at")?,
                last_seen_at: row.get("last_seen_at")?,
                load: row.get("load")?,
                connected: row.get("connected")?,
                server: row.get("server")?,
                server_silent: row.get("server_silent")?,
            })
        })
        .collect()
}

/// Reads what all workers have in hand, oldest first.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn open_attempts(
    client: &impl GenericClient,
    limit: i64,
) -> Result<Vec<OpenAttempt>, DatabaseError> {
    let rows = statement!("pages/open_attempts").all(client, &[&limit]).await?;
    rows.iter()
        .map(|row| {
            Ok(OpenAttempt {
                id: row.get("attempt_id")?,
                worker: row.get("worker_id")?,
                number: row.get("number")?,
                kind: row.get("kind")?,
                assigned_at: row.get("assigned_at")?,
                started_at: row.get("started_at")?,
                built_at: row.get("built_at")?,
                has_log: row.get::<Option<&str>>("log_path")?.is_some(),
                build: row.get("id")?,
                build_name: row.get("name")?,
                system: row.get("system")?,
                state: row.get("state")?,
            })
        })
        .collect()
}

/// Reads the last attempts of some workers, newest first.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn worker_attempts(
    client: &impl GenericClient,
    workers: &[WorkerId],
    limit: i64,
) -> Result<Vec<WorkerAttempt>, DatabaseError> {
    let rows = statement!("pages/worker_attempts").all(client, &[&workers, &limit]).await?;
    rows.iter()
        .map(|row| {
            Ok(WorkerAttempt {
                id: row.get("attempt_id")?,
                worker: row.get("worker")?,
                number: row.get("number")?,
                assigned_at: row.get("assigned_at")?,
                started_at: row.get("started_at")?,
                ended_at: row.get("ended_at")?,
                class: row.get("class")?,
                message: row.get("message")?,
                build_ms: row.get("build_ms")?,
                has_log: row.get::<Option<&str>>("log_path")?.is_some(),
                build: row.get("id")?,
                build_name: row.get("name")?,
                system: row.get("system")?,
            })
        })
        .collect()
}
