//! The farm at a glance: servers, what waits and for whom, and how fast it goes.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;

use crate::statement::{Record, statement};
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

/// A queue of more builds is not counted anew for everybody who asks.
pub const LONG: i64 = 20_000;
/// Counts that are younger are told as they are.
const YOUNG: Duration = Duration::from_secs(20);
/// Counts that are younger are told while somebody else counts anew.
const OLD: Duration = Duration::from_secs(120);

/// What waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The builds, by who could build them and by state.
    pub builds: Vec<Queued>,
    /// How many seconds ago they were counted; `None`: just now.
    pub counted: Option<i64>,
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

/// Tells what waits. A queue that is long (more than [`LONG`] builds) is told as somebody who asked has counted it lately: of a million
/// builds that takes a fifth of a second, which nobody pays while nobody asks.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn queue(client: &impl GenericClient) -> Result<Queue, DatabaseError> {
    let mut rows = Vec::new();
    if is_long(client).await? {
        let counted = async |age: Duration| {
            statement!("operators/queue_counted").all(client, &[&age.as_secs_f64()]).await
        };
        rows = counted(YOUNG).await?;
        if rows.is_empty() {
            statement!("operators/count_queue").execute(client, &[&YOUNG.as_secs_f64()]).await?;
            rows = counted(OLD).await?;
        }
    }
    let counted = rows.first().map(|row| row.get("seconds_ago")).transpose()?;
    if rows.is_empty() {
        rows = statement!("operators/queue").all(client, &[]).await?;
    }
    let read = |row: &Record| {
        Ok(Queued {
            store_directory: row.get("store_directory")?,
            system: row.get("system")?,
            features: row.get("features")?,
            state: row.get("state")?,
            builds: row.get("builds")?,
        })
    };
    Ok(Queue { builds: rows.iter().map(read).collect::<Result<_, DatabaseError>>()?, counted })
}

async fn is_long(client: &impl GenericClient) -> Result<bool, DatabaseError> {
    let row = statement!("operators/queue_length").one(client, &[&(LONG + 1)]).await?;
    Ok(row.get::<i64>("builds")? > LONG)
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
