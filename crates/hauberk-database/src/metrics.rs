//! What is counted for monitoring.

use std::sync::atomic::{AtomicU64, Ordering};

use deadpool_postgres::GenericClient;

use crate::DatabaseError;
use crate::statement::statement;

/// Builds of one system that wait for the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedBuilds {
    /// The system they are for.
    pub system: String,
    /// What they wait for: `inputs`, a `worker` that can run them, a `slot` of one, or the time of a `retry`.
    pub reason: String,
    /// How many there are.
    pub builds: i64,
}

/// Counts the builds that no worker has. Reads the rows of those that wait for inputs: for a very long queue, keep the answer a while.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn queue(client: &impl GenericClient) -> Result<Vec<QueuedBuilds>, DatabaseError> {
    let rows = statement!("metrics/queue").all(client, &[]).await?;
    let queued = |row: &crate::statement::Record| -> Result<_, DatabaseError> {
        Ok(QueuedBuilds {
            system: row.get("system")?,
            reason: row.get("reason")?,
            builds: row.get("builds")?,
        })
    };
    rows.iter().map(queued).collect()
}

/// The connections of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    /// Connections that are open.
    pub open: usize,
    /// Those of them that nobody uses.
    pub idle: usize,
    /// Callers that wait for one.
    pub waiting: usize,
}

/// What failed with a database since the start of this process, all its pools together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    /// No connection could be had.
    pub connections: u64,
    /// A statement failed.
    pub statements: u64,
    /// A transaction could not begin or end.
    pub transactions: u64,
}

static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
static STATEMENTS: AtomicU64 = AtomicU64::new(0);
static TRANSACTIONS: AtomicU64 = AtomicU64::new(0);

/// Tells what has failed so far.
pub fn failures() -> Failures {
    Failures {
        connections: CONNECTIONS.load(Ordering::Relaxed),
        statements: STATEMENTS.load(Ordering::Relaxed),
        transactions: TRANSACTIONS.load(Ordering::Relaxed),
    }
}

pub(crate) fn count_connection() {
    CONNECTIONS.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn count_statement() {
    STATEMENTS.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn count_transaction() {
    TRANSACTIONS.fetch_add(1, Ordering::Relaxed);
}
