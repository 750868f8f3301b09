//! Specifications: what to watch and build.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use serde_json::Value;

use crate::statement::statement;
use crate::{DatabaseError, Level, SpecificationId};

/// A specification as the database has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Specification {
    /// Its id.
    pub id: SpecificationId,
    /// Its name, unique in the farm.
    pub name: String,
    /// As its file gave it, parsed and normalised.
    pub definition: Value,
    /// How urgent its builds are.
    pub priority: Level,
    /// Weight in the fair share between specifications.
    pub shares: i32,
    /// Whether it is watched.
    pub enabled: bool,
    /// Whether everybody may see it.
    pub public: bool,
    /// When it was recorded first.
    pub created_at: Timestamp,
    /// When its definition changed last.
    pub updated_at: Timestamp,
    /// When its repositories were looked at last.
    pub checked_at: Option<Timestamp>,
    /// What went wrong then.
    pub check_error: Option<String>,
}

/// A specification to record.
#[derive(Debug, Clone, Copy)]
pub struct NewSpecification<'a> {
    /// Its name.
    pub name: &'a str,
    /// All of it.
    pub definition: &'a Value,
    /// How urgent its builds are.
    pub priority: Level,
    /// Weight in the fair share between specifications, above 0.
    pub shares: i32,
    /// Whether it is watched.
    pub enabled: bool,
    /// Whether everybody may see it.
    pub public: bool,
}

/// Records a specification, or what became of it.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn upsert(
    client: &impl GenericClient,
    specification: NewSpecification<'_>,
) -> Result<SpecificationId, DatabaseError> {
    let NewSpecification { name, definition, priority, shares, enabled, public } = specification;
    statement!("specifications/upsert")
        .one(client, &[&name, definition as _, &priority, &shares, &enabled, &public])
        .await?
        .get("id")
}

/// Stops watching all specifications but those of the given names; gives the names of those it stopped.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn disable_others(
    client: &impl GenericClient,
    names: &[&str],
) -> Result<Vec<String>, DatabaseError> {
    let records = statement!("specifications/disable_others").all(client, &[&names]).await?;
    records.iter().map(|record| record.get("name")).collect()
}

/// Gives all specifications, by name.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn list(client: &impl GenericClient) -> Result<Vec<Specification>, DatabaseError> {
    let records = statement!("specifications/list").all(client, &[]).await?;
    records
        .iter()
        .map(|record| {
            Ok(Specification {
                id: record.get("id")?,
                name: record.get("name")?,
                definition: record.get("definition")?,
                priority: record.get("priority")?,
                shares: record.get("shares")?,
                enabled: record.get("enabled")?,
                public: record.get("public")?,
                created_at: record.get("created_at")?,
                updated_at: record.get("updated_at")?,
                checked_at: record.get("checked_at")?,
                check_error: record.get("check_error")?,
            })
        })
        .collect()
}

/// Records a look at a specification's repositories and what went wrong with it, if anything.
///
/// Gives what was wrong the time before, so that a fault that stays is told once.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn checked(
    client: &impl GenericClient,
    id: SpecificationId,
    error: Option<&str>,
) -> Result<Option<String>, DatabaseError> {
    let record = statement!("specifications/checked").optional(client, &[&id, &error]).await?;
    record.map_or(Ok(None), |record| record.get("earlier_error"))
}
