//! Who did what to the farm, and when.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use serde_json::Value;

use crate::DatabaseError;
use crate::statement::{Record, statement};

/// A line of the audit.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When, by the database's clock.
    pub at: Timestamp,
    /// The person or program.
    pub who: String,
    /// What was done, as `worker.add`.
    pub action: String,
    /// What it was done to.
    pub subject: String,
    /// More about it.
    pub detail: Option<Value>,
}

/// Writes a line. Give it the transaction of the deed, so that there is none without the other.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn record(
    client: &impl GenericClient,
    who: &str,
    action: &str,
    subject: &str,
    detail: Option<&Value>,
) -> Result<(), DatabaseError> {
    statement!("audit/record").execute(client, &[&who, &action, &subject, &detail]).await?;
    Ok(())
}

/// Gives the latest lines, newest first.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn latest(client: &impl GenericClient, limit: i64) -> Result<Vec<Entry>, DatabaseError> {
    let records = statement!("audit/latest").all(client, &[&limit]).await?;
    records.iter().map(entry).collect()
}

pub(crate) fn entry(record: &Record) -> Result<Entry, DatabaseError> {
    Ok(Entry {
        at: record.get("at")?,
        who: record.get("who")?,
        action: record.get("action")?,
        subject: record.get("subject")?,
        detail: record.get("detail")?,
    })
}
