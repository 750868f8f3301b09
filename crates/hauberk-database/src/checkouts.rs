//! Checkouts: an input at a revision, as one evaluation saw it.

use deadpool_postgres::GenericClient;

use crate::statement::statement;
use crate::{DatabaseError, EvaluationId, SpecificationId};

/// An input at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// The input's name in its specification.
    pub input: String,
    /// Where the repository is.
    pub url: String,
    /// The branch that was followed.
    pub branch: String,
    /// The commit it had.
    pub revision: String,
    /// Where the register put the tree.
    pub directory: String,
}

/// Records what an evaluation sees.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn add(
    client: &impl GenericClient,
    evaluation: EvaluationId,
    specification: SpecificationId,
    checkouts: &[Checkout],
) -> Result<(), DatabaseError> {
    let column =
        |field: fn(&Checkout) -> &String| checkouts.iter().map(|row| field(row).as_str()).collect::<Vec<_>>();
    statement!("checkouts/add")
        .execute(
            client,
            &[
                &evaluation,
                &specification,
                &column(|row| &row.input),
                &column(|row| &row.url),
                &column(|row| &row.branch),
                &column(|row| &row.revision),
                &column(|row| &row.directory),
            ],
        )
        .await?;
    Ok(())
}

/// Gives what an evaluation saw, by input.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn of_evaluation(
    client: &impl GenericClient,
    evaluation: EvaluationId,
) -> Result<Vec<Checkout>, DatabaseError> {
    let records = statement!("checkouts/of_evaluation").all(client, &[&evaluation]).await?;
    records
        .iter()
        .map(|record| {
            Ok(Checkout {
                input: record.get("input")?,
                url: record.get("url")?,
                branch: record.get("branch")?,
                revision: record.get("revision")?,
                directory: record.get("directory")?,
            })
        })
        .collect()
}
