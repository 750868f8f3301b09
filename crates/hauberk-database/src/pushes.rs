//! The table `pushes`: what a register brings to servers that do not share its store.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use hauberk_store::{StoreDirectory, StorePath};

use crate::statement::statement;
use crate::{DatabaseError, EvaluationId, ServerId};

/// A server that needs an evaluation's derivations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The server.
    pub server: ServerId,
    /// Its name.
    pub name: String,
    /// Where it publishes the store.
    pub publish_url: String,
    /// A path that is valid in its own store and in no other; none when it has no store.
    pub identity: Option<StorePath>,
    /// Whether it has shown lately that it lives.
    pub alive: bool,
}

/// Gives all servers that publish a store. Those count as alive that have shown it within `lately`, by the database's clock.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn destinations(
    client: &impl GenericClient,
    directory: &StoreDirectory,
    lately: Duration,
) -> Result<Vec<Destination>, DatabaseError> {
    let rows = statement!("pushes/destinations")
        .all(client, &[&directory.to_string(), &lately.as_secs_f64()])
        .await?;
    rows.iter()
        .map(|row| {
            let identity: Option<String> = row.get("identity")?;
            let identity = identity.map(|text| text.parse()).transpose();
            Ok(Destination {
                server: row.get("id")?,
                name: row.get("name")?,
                publish_url: row.get("publish_url")?,
                identity: identity.map_err(|error| row.bad("identity", error))?,
                alive: row.get("alive")?,
            })
        })
        .collect()
}

/// Lets whoever has the token of this digest push for an evaluation to a server, for so long or until the evaluation ends. Tokens of
/// before are good for nothing any more.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn begin(
    client: &impl GenericClient,
    evaluation: EvaluationId,
    server: ServerId,
    token: &[u8; 32],
    lifetime: Duration,
) -> Result<(), DatabaseError> {
    statement!("pushes/begin")
        .execute(client, &[&evaluation, &server, &token.as_slice(), &lifetime.as_secs_f64()])
        .await?;
    Ok(())
}

/// Tells whether things may be pushed to a server for an evaluation by the token of this digest.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn admits(
    client: &impl GenericClient,
    evaluation: EvaluationId,
    server: ServerId,
    token: &[u8; 32],
) -> Result<bool, DatabaseError> {
    statement!("pushes/admits").one(client, &[&evaluation, &server, &token.as_slice()]).await?.get("admits")
}

/// Records that a server has all that an evaluation needs of it, for which so many paths and bytes were sent.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn complete(
    client: &impl GenericClient,
    evaluation: EvaluationId,
    server: ServerId,
    paths: u64,
    bytes: u64,
) -> Result<(), DatabaseError> {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    statement!("pushes/complete")
        .execute(client, &[&evaluation, &server, &number(paths), &number(bytes)])
        .await?;
    Ok(())
}

/// Tells whether something is being pushed to one of some servers for an evaluation that is not published yet.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn under_way(client: &impl GenericClient, servers: &[ServerId]) -> Result<bool, DatabaseError> {
    statement!("pushes/under_way").one(client, &[&servers]).await?.get("under_way")
}
