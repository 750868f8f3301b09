//! The farm at a glance: servers, what waits and for whom, and how fast it goes.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;

use crate::statement::statement;
use crate::{BuildState, DatabaseError};

/// Builds that wait in the same state for the same workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// The store's directory.
    pub store_directory: String,
    /// The system.
    pub system: String,
    /// Features that their workers must have.
    pub features: Vec<String>,
    /// How they stand.
    pub state: BuildState,
    /// How many.
    pub builds: i64,
}

/// How many builds ended lately in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The state.
    pub state: BuildState,
    /// In the last minute.
    pub minute: i64,
    /// In the last ten.
    pub ten_minutes: i64,
}

/// A remote-server, and how its last start does.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Its host.
    pub host: String,
    /// The port for workers.
    pub backend_port: i32,
    /// Its version.
    pub version: String,
    /// Where it publishes.
    pub publish_url: Option<String>,
    /// When it started last.
    pub started_at: Option<Timestamp>,
    /// When it ended in order.
    pub ended_at: Option<Timestamp>,
    /// Seconds since its last sign of life.
    pub silent: Option<i64>,
}

/// Counts what waits. Reads all of the queue: of a million builds that takes about a second.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn queue(client: &impl GenericClient) -> Result<Vec<Queued>, DatabaseError> {
    let rows = statement!("operators/queue").all(client, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Queued {
                store_directory: row.get("store_directory")?,
                system: row.get("system")?,
                features: row.get("features")?,
                state: row.get("state")?,
                builds: row.get("builds")?,
            })
        })
        .collect()
}

/// Counts what ended in the last ten minutes.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn rates(client: &impl GenericClient) -> Result<Vec<Rate>, DatabaseError> {
    let rows = statement!("operators/rates").all(client, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Rate {
                state: row.get("state")?,
                minute: row.get("minute")?,
                ten_minutes: row.get("ten_minutes")?,
            })
        })
        .collect()
}

/// Lists the servers by name.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn servers(client: &impl GenericClient) -> Result<Vec<Server>, DatabaseError> {
    let rows = statement!("operators/servers").all(client, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Server {
                name: row.get("name")?,
                host: row.get("host")?,
                backend_port: row.get("backend_port")?,
                version: row.get("version")?,
                publish_url: row.get("publish_url")?,
                started_at: row.get("started_at")?,
                ended_at: row.get("ended_at")?,
                silent: row.get("silent")?,
            })
        })
        .collect()
}
