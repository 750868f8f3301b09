//! What workers have in their slots, as the servers see it.

use deadpool_postgres::GenericClient;

use crate::statement::statement;
use crate::{AttemptId, DatabaseError, Epoch, WorkerId};

/// Writes down what the workers of a server's start are at, for whoever asks why a build waits. Nothing is written for a start that is over.
///
/// # Errors
/// Any failure of the statement.
pub async fn keep(
    client: &impl GenericClient,
    epoch: Epoch,
    seats: &[(AttemptId, WorkerId)],
) -> Result<(), DatabaseError> {
    let (attempts, workers): (Vec<_>, Vec<_>) = seats.iter().copied().unzip();
    statement!("servers/keep_seats").execute(client, &[&epoch, &attempts, &workers]).await?;
    Ok(())
}
