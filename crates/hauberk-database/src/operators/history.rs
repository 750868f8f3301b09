//! What operators did to a thing.

use deadpool_postgres::GenericClient;

use crate::audit::{self, Entry};
use crate::statement::statement;
use crate::{BuildId, DatabaseError};

/// A kind of thing that deeds are done to, builds excepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// An evaluation, by its number.
    Evaluation,
    /// A worker, by its name.
    Worker,
    /// A specification, by its name.
    Specification,
}

impl Subject {
    /// Gives how the actions on it begin.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Evaluation => "evaluation.",
            Self::Worker => "worker.",
            Self::Specification => "specification.",
        }
    }
}

/// Reads what was done to a build, by whatever name, newest first.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn of_build(
    client: &impl GenericClient,
    build: BuildId,
    limit: i64,
) -> Result<Vec<Entry>, DatabaseError> {
    let records = statement!("operators/of_build").all(client, &[&build, &limit]).await?;
    records.iter().map(audit::entry).collect()
}

/// Reads what was done to a thing, newest first.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn of_subject(
    client: &impl GenericClient,
    kind: Subject,
    subject: &str,
    limit: i64,
) -> Result<Vec<Entry>, DatabaseError> {
    let records = statement!("operators/of_subject").all(client, &[&subject, &kind.prefix(), &limit]).await?;
    records.iter().map(audit::entry).collect()
}
