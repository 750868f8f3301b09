//! The pool of connections, and transactions on them.

use std::fmt;
use std::ops::Deref;
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

    /// Takes a connection and begins a transaction in which plans are pinned, for statements about arrays of keys.
    ///
    /// # Errors
    /// [`DatabaseError::Pool`] or [`DatabaseError::Transaction`].
    pub async fn begin_pinned(&self) -> Result<BatchTransaction, DatabaseError> {
        let transaction = BatchTransaction::on(self.client().await?);
        transaction.begin().await?;
        Ok(transaction)
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

/// A transaction (read committed) whose begin and end travel together with the statements next to them. Dropped without
/// [`commit`](Self::commit), it closes its connection, and changes nothing.
pub struct BatchTransaction {
    /// Until it is committed.
    client: Option<Client>,
}

/// Begins a transaction, and pins the plans of what follows in it: for arrays of any length, and by keys alone. Made while the tables are
/// small or have no statistics, others read whole tables, or all open attempts for each row, and are kept. For the same reason the
/// statements say `id = any (array[x])` where they mean `id = x`: a join by equality could also be a walk through the whole index,
/// which looks cheap on a table that was empty when it was analyzed.
const BEGIN: &str = "begin; \
    set local plan_cache_mode = force_generic_plan; \
    set local jit = off; \
    set local enable_seqscan = off; \
    set local enable_hashjoin = off; \
    set local enable_mergejoin = off";

impl BatchTransaction {
    /// One on this connection, which is not begun yet.
    pub(crate) fn on(client: Client) -> Self {
        Self { client: Some(client) }
    }

    /// Begins it. What is sent after the first poll of this is part of it.
    pub(crate) async fn begin(&self) -> Result<(), DatabaseError> {
        self.batch_execute(BEGIN).await.map_err(failed("begin"))
    }

    /// Commits it; gives the connection.
    ///
    /// # Errors
    /// [`DatabaseError::Transaction`].
    pub async fn commit(self) -> Result<Client, DatabaseError> {
        self.end("commit").await
    }

    /// Commits it before it is on the disk: it is seen at once, and what is committed later is not on the disk before it.
    ///
    /// # Errors
    /// [`DatabaseError::Transaction`].
    pub async fn commit_soon(self) -> Result<Client, DatabaseError> {
        self.end("set local synchronous_commit = off; commit").await
    }

    async fn end(mut self, text: &str) -> Result<Client, DatabaseError> {
        self.batch_execute(text).await.map_err(failed("commit"))?;
        match self.client.take() {
            Some(client) => Ok(client),
            None => unreachable!("whoever ends it has it"),
        }
    }
}

impl Deref for BatchTransaction {
    type Target = Client;

    fn deref(&self) -> &Client {
        match &self.client {
            Some(client) => client,
            None => unreachable!("it is taken only when it is committed"),
        }
    }
}

impl Drop for BatchTransaction {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            // Nobody else may go on with what was begun.
            drop(Client::take(client));
        }
    }
}

impl fmt::Debug for BatchTransaction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BatchTransaction")
    }
}

fn failed(operation: &'static str) -> impl FnOnce(tokio_postgres::Error) -> DatabaseError {
    move |source| {
        metrics::count_transaction();
        DatabaseError::Transaction { operation, source }
    }
}
