//! One build, and the builds around it.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;

use crate::statement::{Record, statement};
use crate::{AttemptId, BuildId, BuildState, DatabaseError, EvaluationId};

/// A build in one line of a table.
#[derive(Debug, Clone)]
pub struct BuildLine {
    /// Its key.
    pub id: BuildId,
    /// Name and version.
    pub name: String,
    /// What it is built for.
    pub system: String,
    /// How it stands.
    pub state: BuildState,
    /// 0 is the most urgent, 99 the least.
    pub priority: i16,
    /// What the order goes by: the priority, or -1 where an operator put it before everything.
    pub urgency: i16,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When its last attempt began.
    pub started_at: Option<Timestamp>,
    /// When its state became final.
    pub finished_at: Option<Timestamp>,
}

impl BuildLine {
    pub(crate) fn read(row: &Record) -> Result<Self, DatabaseError> {
        Ok(Self {
            id: row.get("id")?,
            name: row.get("name")?,
            system: row.get("system")?,
            state: row.get("state")?,
            priority: row.get("priority")?,
            urgency: row.get("urgency")?,
            created_at: row.get("created_at")?,
            started_at: row.get("started_at")?,
            finished_at: row.get("finished_at")?,
        })
    }
}

/// A build with all that its own page tells.
#[derive(Debug, Clone)]
pub struct Build {
    /// What a table tells of it.
    pub line: BuildLine,
    /// The specification that wanted it first.
    pub specification: String,
    /// The store's folder.
    pub store_directory: String,
    /// Features that its worker must have.
    pub features: Vec<String>,
    /// The derivation that attempts use.
    pub derivation: Option<String>,
    /// How often it was revived, and one.
    pub generation: i32,
    /// Dependencies that have not succeeded.
    pub unmet: i32,
    /// Tries that failed by the farm's fault.
    pub farm_faults: i16,
    /// When it may be tried again.
    pub not_before: Option<Timestamp>,
    /// Seconds; 0 = no limit.
    pub timeout: i32,
    /// Seconds; 0 = no limit.
    pub max_silent: i32,
    /// The attempt that runs or that decided the state.
    pub attempt: Option<AttemptId>,
    /// For a failed dependency: the build that failed in the first place, and its name.
    pub failed_build: Option<(BuildId, String)>,
}

/// A path that a build gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The build.
    pub build: BuildId,
    /// `out`, `dev` and so on.
    pub name: String,
    /// The full path.
    pub path: String,
    /// SHA-256 of the nar, once the farm has it.
    pub nar_hash: Option<[u8; 32]>,
    /// Bytes of the nar, once the farm has it.
    pub nar_size: Option<i64>,
}

/// How many builds are around one, each counted up to 10000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeCounts {
    /// What it needs.
    pub dependencies: i64,
    /// What needs it.
    pub dependents: i64,
}

/// A job that wants a build.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The specification.
    pub specification: String,
    /// The evaluation.
    pub evaluation: EvaluationId,
    /// The job.
    pub job: String,
    /// As in [`Job`](super::Job).
    pub weather: i16,
}

/// Reads one build.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn build(client: &impl GenericClient, id: BuildId) -> Result<Option<Build>, DatabaseError> {
    let Some(row) = statement!("pages/build").optional(client, &[&id]).await? else { return Ok(None) };
    let failed: Option<BuildId> = row.get("failed_build_id")?;
    let failed_name: Option<String> = row.get("failed_build_name")?;
    Ok(Some(Build {
        line: BuildLine::read(&row)?,
        specification: row.get("specification")?,
        store_directory: row.get("store_directory")?,
        features: row.get("features")?,
        derivation: row.get("derivation")?,
        generation: row.get("generation")?,
        unmet: row.get("unmet")?,
        farm_faults: row.get("farm_faults")?,
        not_before: row.get("not_before")?,
        timeout: row.get("timeout")?,
        max_silent: row.get("max_silent")?,
        attempt: row.get("attempt_id")?,
        failed_build: failed.zip(failed_name),
    }))
}

/// Finds the build of a derivation by the last part of its path (`HASH-NAME.drv`).
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn build_of_derivation(
    client: &impl GenericClient,
    base_name: &str,
) -> Result<Option<BuildId>, DatabaseError> {
    let row = statement!("pages/build_of_derivation").optional(client, &[&base_name]).await?;
    row.map(|row| row.get("build_id")).transpose()
}

/// Reads the outputs of some builds, by build and name.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn outputs(client: &impl GenericClient, builds: &[BuildId]) -> Result<Vec<Output>, DatabaseError> {
    let rows = statement!("pages/outputs").all(client, &[&builds]).await?;
    rows.iter()
        .map(|row| {
            let hash: Option<&[u8]> = row.get("nar_hash")?;
            Ok(Output {
                build: row.get("build_id")?,
                name: row.get("name")?,
                path: row.get("path")?,
                nar_hash: hash
                    .map(<[u8; 32]>::try_from)
                    .transpose()
                    .map_err(|source| row.bad("nar_hash", source))?,
                nar_size: row.get("nar_size")?,
            })
        })
        .collect()
}

/// Reads what a build needs, what has not succeeded first.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn dependencies(
    client: &impl GenericClient,
    id: BuildId,
    limit: i64,
) -> Result<Vec<BuildLine>, DatabaseError> {
    statement!("pages/dependencies").all(client, &[&id, &limit]).await?.iter().map(BuildLine::read).collect()
}

/// Reads what needs a build, oldest first.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn dependents(
    client: &impl GenericClient,
    id: BuildId,
    limit: i64,
) -> Result<Vec<BuildLine>, DatabaseError> {
    statement!("pages/dependents").all(client, &[&id, &limit]).await?.iter().map(BuildLine::read).collect()
}

/// Counts the builds around one.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn edge_counts(client: &impl GenericClient, id: BuildId) -> Result<EdgeCounts, DatabaseError> {
    let row = statement!("pages/edge_counts").one(client, &[&id]).await?;
    Ok(EdgeCounts { dependencies: row.get("dependencies")?, dependents: row.get("dependents")? })
}

/// Reads the jobs that want a build, newest evaluation first.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn wanted_by(
    client: &impl GenericClient,
    id: BuildId,
    limit: i64,
) -> Result<Vec<Wanted>, DatabaseError> {
    let rows = statement!("pages/wanted_by").all(client, &[&id, &limit]).await?;
    rows.iter()
        .map(|row| {
            Ok(Wanted {
                specification: row.get("specification")?,
                evaluation: row.get("evaluation_id")?,
                job: row.get("job")?,
                weather: row.get("weather")?,
            })
        })
        .collect()
}
