//! Builds as the JSON API tells of them.

use std::collections::HashMap;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;

use super::evaluation::status;
use super::{Output, Product, outputs, products};
use crate::statement::{Record, statement};
use crate::{BuildId, BuildStatus, DatabaseError, EvaluationId};

/// A build with its outputs and the job that stands for it.
#[derive(Debug, Clone)]
pub struct BuildSummary {
    /// Its key.
    pub id: BuildId,
    /// Name and version.
    pub name: String,
    /// What it is built for.
    pub system: String,
    /// How it stands.
    pub status: BuildStatus,
    /// 0 is the most urgent, 99 the least.
    pub priority: i16,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When its last attempt began.
    pub started_at: Option<Timestamp>,
    /// When its state became final.
    pub finished_at: Option<Timestamp>,
    /// The derivation that attempts use.
    pub derivation: Option<String>,
    /// The specification of the job, or the one that wanted the build first.
    pub specification: String,
    /// The evaluation, name and weather of the job; none for a build that is only a dependency.
    pub job: Option<(EvaluationId, String, i16)>,
    /// Its outputs, by name.
    pub outputs: Vec<Output>,
    /// Its products, by type and path.
    pub products: Vec<Product>,
}

/// An output, found by its path.
#[derive(Debug, Clone)]
pub struct OutputSummary {
    /// `out`, `dev` and so on.
    pub name: String,
    /// The full path.
    pub path: String,
    /// The derivation its build uses.
    pub derivation: Option<String>,
    /// The build.
    pub build: BuildId,
}

/// Which finished builds to list.
#[derive(Debug, Clone, Default)]
pub struct FinishedFilter {
    /// Only those of this evaluation.
    pub evaluation: Option<EvaluationId>,
    /// Only those of this specification.
    pub specification: Option<String>,
    /// Only those of jobs of this name.
    pub job: Option<String>,
    /// Only those for this system.
    pub system: Option<String>,
}

/// Finds the builds that ended last.
///
/// Of a specification, only its last ten evaluations are looked through; of a job, its last ten thousand; of a system alone, the
/// last hundred thousand builds.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn finished_builds(
    client: &impl GenericClient,
    filter: &FinishedFilter,
    limit: i64,
) -> Result<Vec<BuildId>, DatabaseError> {
    let system = &filter.system;
    let rows = match filter {
        FinishedFilter { evaluation: Some(evaluation), .. } => {
            statement!("pages/finished_ids_of_evaluation").all(client, &[&limit, evaluation, system]).await?
        }
        FinishedFilter { job: Some(job), specification, .. } => {
            statement!("pages/finished_ids_of_job").all(client, &[&limit, job, specification, system]).await?
        }
        FinishedFilter { specification: Some(name), .. } => {
            statement!("pages/finished_ids_of_specification").all(client, &[&limit, name, system]).await?
        }
        FinishedFilter { .. } => statement!("pages/finished_ids").all(client, &[&limit, system]).await?,
    };
    rows.iter().map(|row| row.get("id")).collect()
}

/// Finds the builds of the queue: what runs, what is given to a worker, then what waits, most urgent first.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn queued_builds(client: &impl GenericClient, limit: i64) -> Result<Vec<BuildId>, DatabaseError> {
    let rows = statement!("pages/queue_ids").all(client, &[&limit]).await?;
    rows.iter().map(|row| row.get("id")).collect()
}

/// Reads some builds in the order given; unknown ones are left out. The job is that of `evaluation`, else the first that wanted
/// the build.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn build_summaries(
    client: &impl GenericClient,
    builds: &[BuildId],
    evaluation: Option<EvaluationId>,
) -> Result<Vec<BuildSummary>, DatabaseError> {
    let mut found = HashMap::with_capacity(builds.len());
    for row in statement!("pages/api_builds").all(client, &[&builds, &evaluation]).await? {
        let summary = read(&row)?;
        found.insert(summary.id, summary);
    }
    for output in outputs(client, builds).await? {
        if let Some(summary) = found.get_mut(&output.build) {
            summary.outputs.push(output);
        }
    }
    for product in products(client, builds).await? {
        if let Some(summary) = found.get_mut(&product.build) {
            summary.products.push(product);
        }
    }
    Ok(builds.iter().filter_map(|id| found.remove(id)).collect())
}

/// Finds an output by the last part of its path (`HASH-NAME`).
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn output(
    client: &impl GenericClient,
    base_name: &str,
) -> Result<Option<OutputSummary>, DatabaseError> {
    let row = statement!("pages/output_of_base_name").optional(client, &[&base_name]).await?;
    row.map(|row| {
        Ok(OutputSummary {
            name: row.get("name")?,
            path: row.get("path")?,
            derivation: row.get("derivation")?,
            build: row.get("build_id")?,
        })
    })
    .transpose()
}

fn read(row: &Record) -> Result<BuildSummary, DatabaseError> {
    let job = match row.get("evaluation_id")? {
        None => None,
        Some(evaluation) => Some((evaluation, row.get("job")?, row.get("weather")?)),
    };
    Ok(BuildSummary {
        id: row.get("id")?,
        name: row.get("name")?,
        system: row.get("system")?,
        status: status(row)?,
        priority: row.get("priority")?,
        created_at: row.get("created_at")?,
        started_at: row.get("started_at")?,
        finished_at: row.get("finished_at")?,
        derivation: row.get("derivation")?,
        specification: row.get("specification")?,
        job,
        outputs: Vec::new(),
        products: Vec::new(),
    })
}
