//! Specifications, as the front page lists them.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;

use super::EvaluationStatus;
use crate::statement::{Record, statement};
use crate::{DatabaseError, EvaluationId, SpecificationId};

/// A specification and how it stands.
#[derive(Debug, Clone)]
pub struct Specification {
    /// Its key.
    pub id: SpecificationId,
    /// Its name.
    pub name: String,
    /// What its file said, normalised.
    pub definition: serde_json::Value,
    /// 0 is the most urgent, 9 the least.
    pub priority: i16,
    /// Whether it is looked at.
    pub enabled: bool,
    /// The last look at its repositories.
    pub checked_at: Option<Timestamp>,
    /// What went wrong with that look.
    pub check_error: Option<String>,
    /// Its newest evaluation.
    pub latest: Option<LatestEvaluation>,
    /// Its newest evaluation that succeeded.
    pub latest_succeeded: Option<EvaluationId>,
}

/// The newest evaluation of a specification.
#[derive(Debug, Clone)]
pub struct LatestEvaluation {
    /// Its key.
    pub id: EvaluationId,
    /// How it stands.
    pub status: EvaluationStatus,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Why it failed, in a line.
    pub message: Option<String>,
}

/// Reads all specifications, by name.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn specifications(client: &impl GenericClient) -> Result<Vec<Specification>, DatabaseError> {
    let rows = statement!("pages/specifications").all(client, &[&None::<&str>]).await?;
    rows.iter().map(read).collect()
}

/// Reads one specification.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn specification(
    client: &impl GenericClient,
    name: &str,
) -> Result<Option<Specification>, DatabaseError> {
    let row = statement!("pages/specifications").optional(client, &[&Some(name)]).await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &Record) -> Result<Specification, DatabaseError> {
    let latest = match row.get::<Option<EvaluationId>>("latest_id")? {
        None => None,
        Some(id) => Some(LatestEvaluation {
            id,
            status: row.convert::<i16, _>("latest_status")?,
            created_at: row.get("latest_created_at")?,
            finished_at: row.get("latest_finished_at")?,
            message: row.get("latest_message")?,
        }),
    };
    Ok(Specification {
        id: row.get("id")?,
        name: row.get("name")?,
        definition: row.get("definition")?,
        priority: row.get("priority")?,
        enabled: row.get("enabled")?,
        checked_at: row.get("checked_at")?,
        check_error: row.get("check_error")?,
        latest,
        latest_succeeded: row.get("good_id")?,
    })
}
