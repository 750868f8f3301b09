//! Evaluations: runs of an evaluator on a set of checkouts.

use deadpool_postgres::GenericClient;

use crate::checkouts::{self, Checkout};
use crate::statement::statement;
use crate::{DatabaseError, EvaluationId, SpecificationId};

/// How an evaluation stands, with the numbers of the JSON API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum EvaluationStatus {
    /// It runs.
    Started = -1,
    /// Its jobs are recorded.
    Succeeded = 0,
    /// The expression, or what it needs, is at fault.
    Failed = 1,
    /// It was stopped, or the machine was at fault; the same checkouts are evaluated again.
    Aborted = 2,
}

impl EvaluationStatus {
    /// Gives the number.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not the status of an evaluation")]
pub struct UnknownStatus(pub i16);

impl TryFrom<i16> for EvaluationStatus {
    type Error = UnknownStatus;

    fn try_from(number: i16) -> Result<Self, UnknownStatus> {
        [Self::Started, Self::Succeeded, Self::Failed, Self::Aborted]
            .into_iter()
            .find(|status| status.number() == number)
            .ok_or(UnknownStatus(number))
    }
}

/// The last evaluation of a specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// Its id.
    pub id: EvaluationId,
    /// How it stands.
    pub status: EvaluationStatus,
    /// Whether the specification's definition changed since it began, or an operator wants it repeated.
    pub outdated: bool,
    /// Whether an operator has canceled it.
    pub canceled: bool,
    /// What it saw, by input.
    pub checkouts: Vec<Checkout>,
}

/// A job that gave no build, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobError {
    /// The job's name.
    pub name: String,
    /// What is wrong with it.
    pub message: String,
}

/// Records the beginning of an evaluation and what it sees.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn start(
    client: &impl GenericClient,
    specification: SpecificationId,
    checkouts: &[Checkout],
) -> Result<EvaluationId, DatabaseError> {
    let evaluation = statement!("evaluations/start").one(client, &[&specification]).await?.get("id")?;
    checkouts::add(client, evaluation, specification, checkouts).await?;
    notify_changed(client).await?;
    Ok(evaluation)
}

/// Records where the evaluator's log is, below the register's state directory.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn set_log_path(
    client: &impl GenericClient,
    evaluation: EvaluationId,
    path: &str,
) -> Result<(), DatabaseError> {
    statement!("evaluations/set_log_path").execute(client, &[&evaluation, &path]).await?;
    Ok(())
}

/// Records the end of an evaluation that published nothing: failed or aborted, and why, in a line.
///
/// Gives false when it had ended before.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn end(
    client: &impl GenericClient,
    evaluation: EvaluationId,
    status: EvaluationStatus,
    message: &str,
) -> Result<bool, DatabaseError> {
    let rows =
        statement!("evaluations/end").execute(client, &[&evaluation, &status.number(), &message]).await?;
    notify_changed(client).await?;
    Ok(rows > 0)
}

/// Ends the evaluations that a killed register left behind, as aborted.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn abort_started(
    client: &impl GenericClient,
    message: &str,
) -> Result<Vec<EvaluationId>, DatabaseError> {
    let records = statement!("evaluations/abort_started").all(client, &[&message]).await?;
    records.iter().map(|record| record.get("id")).collect()
}

/// Gives the last evaluation of a specification.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn latest(
    client: &impl GenericClient,
    specification: SpecificationId,
) -> Result<Option<Latest>, DatabaseError> {
    let Some(record) = statement!("evaluations/latest").optional(client, &[&specification]).await? else {
        return Ok(None);
    };
    let id = record.get("id")?;
    Ok(Some(Latest {
        id,
        status: record.convert::<i16, _>("status")?,
        outdated: record.get("outdated")?,
        canceled: record.get("canceled")?,
        checkouts: checkouts::of_evaluation(client, id).await?,
    }))
}

/// Tells which of these evaluations operators have canceled.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn canceled(
    client: &impl GenericClient,
    evaluations: &[EvaluationId],
) -> Result<Vec<EvaluationId>, DatabaseError> {
    let records = statement!("evaluations/canceled").all(client, &[&evaluations]).await?;
    records.iter().map(|record| record.get("id")).collect()
}

/// Tells of which of these evaluations something may still be built, or which are the last of their specification.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn in_use(
    client: &impl GenericClient,
    evaluations: &[EvaluationId],
) -> Result<Vec<EvaluationId>, DatabaseError> {
    let records = statement!("evaluations/in_use").all(client, &[&evaluations]).await?;
    records.iter().map(|record| record.get("id")).collect()
}

/// Asks the register to look at the specification of this name now.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn request(client: &impl GenericClient, specification: &str) -> Result<(), DatabaseError> {
    statement!("evaluations/request").execute(client, &[&specification]).await?;
    Ok(())
}

/// Records jobs that gave no build.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn add_errors(
    client: &impl GenericClient,
    evaluation: EvaluationId,
    errors: &[JobError],
) -> Result<(), DatabaseError> {
    let (names, messages): (Vec<&str>, Vec<&str>) =
        errors.iter().map(|error| (error.name.as_str(), error.message.as_str())).unzip();
    statement!("evaluations/add_errors").execute(client, &[&evaluation, &names, &messages]).await?;
    Ok(())
}

/// Gives the jobs of an evaluation that gave no build, by name.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn errors(
    client: &impl GenericClient,
    evaluation: EvaluationId,
) -> Result<Vec<JobError>, DatabaseError> {
    let records = statement!("evaluations/errors").all(client, &[&evaluation]).await?;
    records
        .iter()
        .map(|record| Ok(JobError { name: record.get("name")?, message: record.get("message")? }))
        .collect()
}

pub(crate) async fn notify_changed(client: &impl GenericClient) -> Result<(), DatabaseError> {
    statement!("evaluations/notify_changed").execute(client, &[]).await?;
    Ok(())
}
