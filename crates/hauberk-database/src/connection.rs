//! The pool of connections, and transactions on them.

use std::fmt;
use std::time::Duration;

use deadpool_postgres::{
    Client, Manager, ManagerConfig, Pool, QueueMode, RecyclingMethod, Runtime, Transaction,
};
use tokio_postgres::NoTls;

use crate::metrics::{self, PoolUse};
use crate::migrations::{self, SchemaState};
use crate::{ConnectionString, DatabaseError};

/// How long a caller waits for a free connection.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// A bounded pool of connections to the farm's database. Clones share it.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    location: ConnectionString,
}

impl Database {
    /// Opens the database and checks that its schema is of a version this program knows.
    ///
    /// At most `size` connections are open at a time, listeners not counted.
    ///
    /// # Errors
    /// [`DatabaseError::Unreachable`], [`DatabaseError::NoSchema`] or [`DatabaseError::Schema`].
    pub async fn connect(location: &ConnectionString, size: usize) -> Result<Self, DatabaseError> {
        let database = Self::open(location, size).await?;
        let client = database.client().await?;
        match migrations::schema_state(&client).await? {
            SchemaState::Versioned(version) => migrations::check_known(version)?,
            SchemaState::Empty | SchemaState::Foreign => {
                return Err(DatabaseError::NoSchema { server: location.to_string() });
            }
        }
        Ok(database)
    }

    /// Opens the database as [`connect`](Self::connect) does, and makes the schema if there are no tables at all.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and [`DatabaseError::Migration`].
    pub async fn connect_or_create(location: &ConnectionString, size: usize) -> Result<Self, DatabaseError> {
        let database = Self::open(location, size).await?;
        let mut client = database.client().await?;
        match migrations::schema_state(&client).await? {
            SchemaState::Empty => {
                let steps = migrations::migrate(&mut client, None).await?;
                tracing::info!(
                    schema.version = migrations::newest(),
                    steps = steps.len(),
                    "made the schema in the empty database at {location}"
                );
            }
            SchemaState::Versioned(version) => migrations::check_known(version)?,
            SchemaState::Foreign => {
                return Err(DatabaseError::NoSchema { server: location.to_string() });
            }
        }
        Ok(database)
    }

    /// Opens the database, whatever its schema is: for migrations.
    ///
    /// # Errors
    /// [`DatabaseError::Unreachable`].
    pub async fn open(location: &ConnectionString, size: usize) -> Result<Self, DatabaseError> {
        let manager = Manager::from_config(
            location.config().clone(),
            NoTls,
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(size.max(1))
            // The one that was used last knows the statements and the tables: in turn, each would have to learn them.
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(Some(WAIT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|source| DatabaseError::Unreachable {
                server: location.to_string(),
                source: source.into(),
            })?;
        let database = Self { pool, location: location.clone() };
        match database.pool.get().await {
            Ok(_) => Ok(database),
            Err(deadpool_postgres::PoolError::Backend(source)) => {
                Err(DatabaseError::Unreachable { server: location.to_string(), source: source.into() })
            }
            Err(source) => {
                Err(DatabaseError::Unreachable { server: location.to_string(), source: source.into() })
            }
        }
    }

    /// Takes a connection out of the pool, for at most half a minute waiting for one.
    ///
    /// # Errors
    /// [`DatabaseError::Pool`].
    pub async fn client(&self) -> Result<Client, DatabaseError> {
        self.pool.get().await.map_err(|source| {
            metrics::count_connection();
            DatabaseError::Pool { server: self.location.to_string(), source: Box::new(source) }
        })
    }

    /// Tells how the connections of the pool are used now.
    pub fn pool_use(&self) -> PoolUse {
        let status = self.pool.status();
        PoolUse { open: status.size, idle: status.available, waiting: status.waiting }
    }

    /// Tells where the database is.
    pub fn location(&self) -> &ConnectionString {
        &self.location
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Database({})", self.location)
    }
}

/// Begins a transaction (read committed). Dropped without [`commit`], it changes nothing.
///
/// # Errors
/// [`DatabaseError::Transaction`].
pub async fn begin(client: &mut Client) -> Result<Transaction<'_>, DatabaseError> {
    client.transaction().await.map_err(failed("begin"))
}

/// Commits a transaction.
///
/// # Errors
/// [`DatabaseError::Transaction`].
pub async fn commit(transaction: Transaction<'_>) -> Result<(), DatabaseError> {
    transaction.commit().await.map_err(failed("commit"))
}

fn failed(operation: &'static str) -> impl FnOnce(tokio_postgres::Error) -> DatabaseError {
    move |source| {
        metrics::count_transaction();
        DatabaseError::Transaction { operation, source }
    }
}
