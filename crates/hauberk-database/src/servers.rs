//! The tables `servers` and `server_epochs`: remote-servers, and each of their starts.

use crate::statement::statement;
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
}

/// Records a server, or what has changed about it.
///
/// # Errors
/// Any failure of the statement.
pub async fn enrol(client: &impl GenericClient, facts: &ServerFacts) -> Result<ServerId, DatabaseError> {
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
            ],
        )
        .await?;
    row.get("id")
}

/// Begins a start of a server: older starts of it are over, and their open attempts become this one's.
///
/// # Errors
/// Any failure of the statements.
pub async fn begin_epoch(client: &impl GenericClient, server: ServerId) -> Result<Epoch, DatabaseError> {
    let epoch: Epoch = statement!("servers/begin_epoch").one(client, &[&server]).await?.get("epoch")?;
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

/// Shows that a start of a server lives. False when a newer start of the same server has taken over.
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

/// Gives the names of the farm's servers with the CURVE public key of each, Z85; those without one are left out.
///
/// # Errors
/// Any failure of the statement, or a row that cannot be read.
pub async fn public_keys(client: &impl GenericClient) -> Result<Vec<(String, String)>, DatabaseError> {
    let rows = statement!("servers/public_keys").all(client, &[]).await?;
    rows.iter().map(|row| Ok((row.get("name")?, row.get("public_key")?))).collect()
}
