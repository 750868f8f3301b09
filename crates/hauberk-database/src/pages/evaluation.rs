//! Evaluations, their checkouts, and their jobs.

use std::collections::BTreeMap;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;

use super::BuildLine;
use crate::evaluations::JobError;
use crate::statement::{Record, statement};
use crate::{BuildId, BuildStatus, DatabaseError, EvaluationId, SpecificationId};

/// How an evaluation stands (`evaluations.status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum EvaluationStatus {
    /// The evaluator runs.
    Started = -1,
    /// Its jobs are known.
    Succeeded = 0,
    /// The evaluator failed.
    Failed = 1,
    /// Somebody or something stopped it.
    Aborted = 2,
}

impl EvaluationStatus {
    /// Gives the number that the JSON API has.
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// Gives the word for pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// A number is not the status of an evaluation.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not the status of an evaluation")]
pub struct UnknownEvaluationStatus(i16);

impl TryFrom<i16> for EvaluationStatus {
    type Error = UnknownEvaluationStatus;

    fn try_from(number: i16) -> Result<Self, UnknownEvaluationStatus> {
        [Self::Started, Self::Succeeded, Self::Failed, Self::Aborted]
            .into_iter()
            .find(|status| status.number() == number)
            .ok_or(UnknownEvaluationStatus(number))
    }
}

/// One run of the evaluator.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Its key.
    pub id: EvaluationId,
    /// The key of its specification.
    pub specification_id: SpecificationId,
    /// The name of its specification.
    pub specification: String,
    /// How it stands.
    pub status: EvaluationStatus,
    /// When it began.
    pub created_at: Timestamp,
    /// When its inputs were checked out.
    pub checked_out_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Why it failed or was aborted, in a line.
    pub message: Option<String>,
}

/// The evaluations of the same specification beside one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbours {
    /// The one before.
    pub previous: Option<EvaluationId>,
    /// The one after.
    pub next: Option<EvaluationId>,
}

/// An input at the revision an evaluation saw.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// The evaluation.
    pub evaluation: EvaluationId,
    /// The name of the input.
    pub input: String,
    /// Its repository.
    pub url: String,
    /// Its branch.
    pub branch: String,
    /// The commit.
    pub revision: String,
    /// Where it was checked out.
    pub directory: String,
}

/// How many jobs are in which status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatusCounts {
    /// Waiting for something.
    pub scheduled: u64,
    /// Given to a worker, or with one.
    pub active: u64,
    /// Done.
    pub succeeded: u64,
    /// The package's fault.
    pub failed: u64,
    /// Something they need failed.
    pub failed_dependency: u64,
    /// The farm's fault.
    pub failed_other: u64,
    /// Canceled.
    pub canceled: u64,
    /// Failures of jobs that succeeded in the evaluation before.
    pub new_failures: u64,
}

impl StatusCounts {
    /// Counts all jobs.
    pub const fn total(&self) -> u64 {
        self.unfinished() + self.succeeded + self.not_succeeded()
    }

    /// Counts the jobs that may still end in any way.
    pub const fn unfinished(&self) -> u64 {
        self.scheduled + self.active
    }

    /// Counts the jobs that ended without success.
    pub const fn not_succeeded(&self) -> u64 {
        self.failed + self.failed_dependency + self.failed_other + self.canceled
    }

    fn add(&mut self, status: BuildStatus, jobs: u64) {
        let count = match status {
            BuildStatus::Submitted | BuildStatus::Started => &mut self.active,
            BuildStatus::Scheduled => &mut self.scheduled,
            BuildStatus::Succeeded => &mut self.succeeded,
            BuildStatus::Failed => &mut self.failed,
            BuildStatus::FailedDependency => &mut self.failed_dependency,
            BuildStatus::FailedOther => &mut self.failed_other,
            BuildStatus::Canceled => &mut self.canceled,
        };
        *count += jobs;
    }
}

/// Which jobs of an evaluation to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only those in one of these statuses; empty: all.
    pub statuses: Vec<BuildStatus>,
    /// Only those that succeeded in the evaluation before.
    pub new_failures: bool,
    /// Only those with this in their name.
    pub contains: Option<String>,
    /// Only those after this name.
    pub after: String,
}

/// A named result of an evaluation, and its build.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// Unknown -1, new success 0, new failure 1, still succeeding 2, still failing 3.
    pub weather: i16,
    /// Its build.
    pub build: BuildLine,
}

/// A job in the fewest words, for programs.
#[derive(Debug, Clone)]
pub struct JobStatus {
    /// Its name.
    pub name: String,
    /// Its build.
    pub build: BuildId,
    /// The status of that.
    pub status: BuildStatus,
}

/// Reads evaluations of a specification that are older than `before` (or the newest), newest first.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn evaluations(
    client: &impl GenericClient,
    specification: SpecificationId,
    before: Option<EvaluationId>,
    limit: i64,
) -> Result<Vec<Evaluation>, DatabaseError> {
    let before = before.unwrap_or(EvaluationId::new(i64::MAX));
    let rows = statement!("pages/evaluations").all(client, &[&specification, &before, &limit]).await?;
    rows.iter().map(read).collect()
}

/// Reads the newest evaluations of all specifications.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn evaluations_of_all(
    client: &impl GenericClient,
    limit: i64,
) -> Result<Vec<Evaluation>, DatabaseError> {
    let rows = statement!("pages/evaluations_of_all").all(client, &[&limit]).await?;
    rows.iter().map(read).collect()
}

/// Reads one evaluation.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn evaluation(
    client: &impl GenericClient,
    id: EvaluationId,
) -> Result<Option<(Evaluation, Neighbours)>, DatabaseError> {
    let row = statement!("pages/evaluation").optional(client, &[&id]).await?;
    row.map(|row| {
        let neighbours = Neighbours { previous: row.get("previous_id")?, next: row.get("next_id")? };
        Ok((read(&row)?, neighbours))
    })
    .transpose()
}

/// Counts the jobs of some evaluations by status. Evaluations without jobs are not in the answer.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn evaluation_counts(
    client: &impl GenericClient,
    evaluations: &[EvaluationId],
) -> Result<BTreeMap<EvaluationId, StatusCounts>, DatabaseError> {
    let mut counts = BTreeMap::<EvaluationId, StatusCounts>::new();
    for row in statement!("pages/evaluation_counts").all(client, &[&evaluations]).await? {
        let of = counts.entry(row.get("evaluation_id")?).or_default();
        of.add(status(&row)?, row.convert::<i64, _>("jobs")?);
        of.new_failures += row.convert::<i64, u64>("new_failures")?;
    }
    Ok(counts)
}

/// Reads the checkouts of some evaluations, by evaluation and input.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn checkouts(
    client: &impl GenericClient,
    evaluations: &[EvaluationId],
) -> Result<Vec<Checkout>, DatabaseError> {
    let rows = statement!("pages/checkouts").all(client, &[&evaluations]).await?;
    rows.iter()
        .map(|row| {
            Ok(Checkout {
                evaluation: row.get("evaluation_id")?,
                input: row.get("input")?,
                url: row.get("url")?,
                branch: row.get("branch")?,
                revision: row.get("revision")?,
                directory: row.get("directory")?,
            })
        })
        .collect()
}

/// Reads jobs of an evaluation, by name.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn evaluation_jobs(
    client: &impl GenericClient,
    id: EvaluationId,
    filter: &JobFilter,
    limit: i64,
) -> Result<Vec<Job>, DatabaseError> {
    let statuses: Vec<i16> = filter.statuses.iter().map(|status| status.number()).collect();
    let statuses = (!statuses.is_empty()).then_some(statuses);
    let weather = filter.new_failures.then_some(1_i16);
    let rows = statement!("pages/evaluation_jobs")
        .all(client, &[&id, &filter.after, &statuses, &weather, &filter.contains, &limit])
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Job { name: row.get("job")?, weather: row.get("weather")?, build: BuildLine::read(row)? })
        })
        .collect()
}

/// Reads the jobs of an evaluation that gave no build, by name, at most `limit` of them, and how many they are in all.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn job_errors(
    client: &impl GenericClient,
    id: EvaluationId,
    limit: i64,
) -> Result<(Vec<JobError>, i64), DatabaseError> {
    let rows = statement!("pages/job_errors").all(client, &[&id, &limit]).await?;
    let total = rows.first().map_or(Ok(0), |row| row.get("total"))?;
    let read = |row: &Record| Ok(JobError { name: row.get("name")?, message: row.get("message")? });
    Ok((rows.iter().map(read).collect::<Result<_, DatabaseError>>()?, total))
}

/// Reads all jobs of an evaluation, by name; of a system or with one of some names, if these are given.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn job_statuses(
    client: &impl GenericClient,
    id: EvaluationId,
    system: Option<&str>,
    names: Option<&[String]>,
) -> Result<Vec<JobStatus>, DatabaseError> {
    let rows = statement!("pages/api_jobs").all(client, &[&id, &system, &names]).await?;
    rows.iter()
        .map(|row| {
            Ok(JobStatus { name: row.get("name")?, build: row.get("build_id")?, status: status(row)? })
        })
        .collect()
}

fn read(row: &Record) -> Result<Evaluation, DatabaseError> {
    Ok(Evaluation {
        id: row.get("id")?,
        specification_id: row.get("specification_id")?,
        specification: row.get("specification")?,
        status: row.convert::<i16, _>("status")?,
        created_at: row.get("created_at")?,
        checked_out_at: row.get("checked_out_at")?,
        finished_at: row.get("finished_at")?,
        message: row.get("message")?,
    })
}

/// Reads the column `status` of a build.
pub(super) fn status(row: &Record) -> Result<BuildStatus, DatabaseError> {
    let number = row.get("status")?;
    BuildStatus::from_number(number)
        .ok_or_else(|| row.bad("status", format!("{number} is not the status of a build")))
}
