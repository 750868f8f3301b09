//! What specifications have used of the farm, for their shares of it.

use std::time::Duration;

use crate::statement::{Record, statement};
use crate::{DatabaseError, GenericClient, ServerId, SpecificationId};

/// Sums what specifications have used lately by the attempts of a server that have ended, in slot-seconds that count half after each
/// `half_life`.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn used(
    client: &impl GenericClient,
    half_life: Duration,
    server: ServerId,
) -> Result<Vec<(SpecificationId, f64)>, DatabaseError> {
    let rows = statement!("order/used").all(client, &[&half_life.as_secs_f64(), &server]).await?;
    slot_seconds(&rows)
}

/// Sums what specifications have used by the word of all other servers, in slot-seconds that count half after each `half_life`.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn used_elsewhere(
    client: &impl GenericClient,
    half_life: Duration,
    server: ServerId,
) -> Result<Vec<(SpecificationId, f64)>, DatabaseError> {
    let statement = statement!("order/used_elsewhere");
    slot_seconds(&statement.all(client, &[&half_life.as_secs_f64(), &server]).await?)
}

fn slot_seconds(rows: &[Record]) -> Result<Vec<(SpecificationId, f64)>, DatabaseError> {
    rows.iter().map(|row| Ok((row.get("specification_id")?, row.get("slot_seconds")?))).collect()
}

/// Tells how many slots the workers have that were there lately.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn slots(client: &impl GenericClient) -> Result<u64, DatabaseError> {
    statement!("order/slots").one(client, &[]).await?.convert::<i64, _>("slots")
}

/// Keeps what a server counts, for whoever asks why a build waits.
///
/// # Errors
/// Any failure of the statement.
pub async fn keep(
    client: &impl GenericClient,
    server: ServerId,
    used: &[(SpecificationId, f64)],
) -> Result<(), DatabaseError> {
    let (specifications, slot_seconds): (Vec<_>, Vec<_>) = used.iter().copied().unzip();
    statement!("order/keep_usage").execute(client, &[&server, &specifications, &slot_seconds]).await?;
    Ok(())
}
