//! The tables `servers` and `server_epochs`: remote-servers, and each of their starts.

use std::time::Duration;

use hauberk_store::StorePath;
use serde_json::{Value, json};

use crate::statement::{Record, statement};
use crate::{AttemptId, DatabaseError, Epoch, GenericClient, ServerId};

/// What a server says of itself at its start.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// Its stable name.
    pub name: String,
    /// The host it runs on.
    pub host: String,
    /// The ports workers speak to.
    pub backend_port: u16,
    /// The port logs go to.
    pub log_port: u16,
    /// Where it publishes, if it does.
    pub publish_url: Option<String>,
    /// CURVE public key, Z85.
    pub public_key: Option<String>,
    /// Version of the program.
    pub version: String,
    /// Where workers reach its backend port, `HOST:PORT`.
    pub address: Option<String>,
    /// What it publishes of each store.
    pub stores: Vec<PublishedStore>,
}

/// What a server publishes of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedStore {
    /// The store directory.
    pub directory: String,
    /// The base URL.
    pub url: String,
    /// The public keys that sign it there.
    pub keys: Vec<String>,
    /// A path that is in the store of the server's machine and in no other: whoever has it, too, shares that store. None without a store.
    pub identity: Option<StorePath>,
}

/// Records a server, or what has changed about it.
///
/// # Errors
/// Any failure of the statement.
pub async fn enrol(client: &impl GenericClient, facts: &ServerFacts) -> Result<ServerId, DatabaseError> {
    let store = |store: &PublishedStore| {
        let identity = store.identity.as_ref().map(ToString::to_string);
        json!({ "directory": store.directory, "url": store.url, "keys": store.keys, "identity": identity })
    };
    let stores = Value::Array(facts.stores.iter().map(store).collect());
    let row = statement!("servers/enrol")
        .one(
            client,
            &[
                &facts.name,
                &facts.host,
                &i32::from(facts.backend_port),
                &i32::from(facts.log_port),
                &facts.publish_url,
                &facts.public_key,
                &facts.version,
                &facts.address,
                &stores,
            ],
        )
        .await?;
    row.get("id")
}

/// Begins a start of a server, which counts on several times in each `lease`: older starts of it are over, and their open attempts become
/// this one's.
///
/// # Errors
/// Any failure of the statements.
pub async fn begin_epoch(
    client: &impl GenericClient,
    server: ServerId,
    lease: Duration,
) -> Result<Epoch, DatabaseError> {
    let lease_ms = i32::try_from(lease.as_millis()).unwrap_or(i32::MAX);
    let epoch: Epoch =
        statement!("servers/begin_epoch").one(client, &[&server, &lease_ms]).await?.get("epoch")?;
    adopt(client, server, epoch).await?;
    statement!("servers/disconnect_workers").execute(client, &[&server, &epoch]).await?;
    Ok(epoch)
}

/// Takes over open attempts of older starts of a server; gives them. An older start that did not know yet that it was over may
/// have made some after the newer one began.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn adopt(
    client: &impl GenericClient,
    server: ServerId,
    epoch: Epoch,
) -> Result<Vec<AttemptId>, DatabaseError> {
    let rows = statement!("servers/adopt").all(client, &[&server, &epoch]).await?;
    rows.iter().map(|row| row.get("attempt_id")).collect()
}

/// Shows that a start of a server lives. False when it is over: a newer start of the same server has begun, or another server has found
/// this one to stand still.
///
/// # Errors
/// Any failure of the statement.
pub async fn beat(client: &impl GenericClient, epoch: Epoch) -> Result<bool, DatabaseError> {
    Ok(statement!("servers/beat").execute(client, &[&epoch]).await? > 0)
}

/// Ends a start of a server.
///
/// # Errors
/// Any failure of the statement.
pub async fn end_epoch(client: &impl GenericClient, epoch: Epoch) -> Result<(), DatabaseError> {
    statement!("servers/end_epoch").execute(client, &[&epoch]).await?;
    Ok(())
}

/// A start of another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The start.
    pub epoch: Epoch,
    /// How far it has counted.
    pub beat: i64,
    /// Its lease: it counts on several times in one.
    pub lease: Duration,
    /// The server's name.
    pub name: String,
}

/// Gives the starts of other servers that are not over.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn watch(client: &impl GenericClient, server: ServerId) -> Result<Vec<Peer>, DatabaseError> {
    let rows = statement!("servers/watch").all(client, &[&server]).await?;
    let peer = |row: &Record| {
        let lease_ms: i32 = row.get("lease_ms")?;
        Ok(Peer {
            epoch: row.get("epoch")?,
            beat: row.get("beat")?,
            lease: Duration::from_millis(lease_ms.unsigned_abs().into()),
            name: row.get("name")?,
        })
    };
    rows.iter().map(peer).collect()
}

/// Ends a start of another server that stands still, unless it has counted on. False when it has, or was over before.
///
/// # Errors
/// Any failure of the statement.
pub async fn close(client: &impl GenericClient, peer: &Peer) -> Result<bool, DatabaseError> {
    Ok(statement!("servers/close").optional(client, &[&peer.epoch, &peer.beat]).await?.is_some())
}

/// Takes over the open attempts of all starts that are over, of whatever server; gives them. Nothing, when this start is over itself.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn take_over(client: &impl GenericClient, epoch: Epoch) -> Result<Vec<AttemptId>, DatabaseError> {
    let rows = statement!("servers/take_over").all(client, &[&epoch]).await?;
    rows.iter().map(|row| row.get("attempt_id")).collect()
}

/// Tells whether a newer start of the same server has begun.
///
/// # Errors
/// Any failure of the statement.
pub async fn is_superseded(
    client: &impl GenericClient,
    server: ServerId,
    epoch: Epoch,
) -> Result<bool, DatabaseError> {
    statement!("servers/newer").one(client, &[&server, &epoch]).await?.get("newer")
}

/// Another server of the farm, for workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its name.
    pub name: String,
    /// Where its backend port is, `HOST:PORT`.
    pub address: String,
    /// CURVE public key, Z85; none of one without encryption.
    pub public_key: Option<String>,
}

/// Gives the other servers that workers may go to: those that were heard of lately.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn neighbours(
    client: &impl GenericClient,
    server: ServerId,
) -> Result<Vec<Neighbour>, DatabaseError> {
    let rows = statement!("servers/peers").all(client, &[&server]).await?;
    let neighbour = |row: &Record| {
        Ok(Neighbour {
            name: row.get("name")?,
            address: row.get("address")?,
            public_key: row.get("public_key")?,
        })
    };
    rows.iter().map(neighbour).collect()
}

/// Where another server publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// Its name.
    pub name: String,
    /// The base URL.
    pub url: String,
    /// The public keys that sign what is there.
    pub keys: Vec<String>,
}

/// Gives where the other servers that live publish items of a store.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn publishers(
    client: &impl GenericClient,
    server: ServerId,
    directory: &str,
) -> Result<Vec<Publisher>, DatabaseError> {
    let rows = statement!("servers/publishers").all(client, &[&server, &directory]).await?;
    let publisher =
        |row: &Record| Ok(Publisher { name: row.get("name")?, url: row.get("url")?, keys: row.get("keys")? });
    rows.iter().map(publisher).collect()
}

/// Gives the names of the farm's servers with the CURVE public key of each, Z85; those without one are left out.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn public_keys(client: &impl GenericClient) -> Result<Vec<(String, String)>, DatabaseError> {
    let rows = statement!("servers/public_keys").all(client, &[]).await?;
    rows.iter().map(|row| Ok((row.get("name")?, row.get("public_key")?))).collect()
}
