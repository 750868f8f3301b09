//! What can go wrong between a program and its database.

use tokio_postgres::error::SqlState;

/// Why an operation on the database failed.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// No connection could be made.
    #[error("cannot reach the database at {server}; is PostgreSQL running there, and may this user connect?")]
    Unreachable {
        /// Host, port, database and user, without the password.
        server: String,
        /// What the driver said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No connection of the pool became free in time, or a new one could not be made.
    #[error("no connection to the database at {server} could be had")]
    Pool {
        /// Host, port, database and user, without the password.
        server: String,
        /// What the pool said.
        #[source]
        source: Box<deadpool_postgres::PoolError>,
    },
    /// The database has no tables of ours.
    #[error("the database at {server} has no schema of hauberk; make it with `hauberk database migrate`")]
    NoSchema {
        /// Host, port, database and user, without the password.
        server: String,
    },
    /// The schema is of a version that this program does not know.
    #[error(
        "the database's schema is of version {found}, and this program knows versions {oldest} to {newest}; {}",
        way_out(*found, *newest)
    )]
    Schema {
        /// The version in the database.
        found: i32,
        /// The oldest version this program works with.
        oldest: i32,
        /// The newest version this program works with.
        newest: i32,
    },
    /// A migration to a version that does not exist was asked for.
    #[error("there is no schema version {wanted}; this program knows versions 0 to {newest}")]
    NoSuchVersion {
        /// The version that was asked for.
        wanted: i32,
        /// The newest version this program has.
        newest: i32,
    },
    /// A step of a migration failed; nothing of that step remains.
    #[error("migration {version} ({name}) failed on its way {direction}")]
    Migration {
        /// The version the step leads to, or away from.
        version: i32,
        /// Its name.
        name: &'static str,
        /// `up` or `down`.
        direction: &'static str,
        /// What the database said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A statement failed.
    #[error("statement {statement} failed")]
    Statement {
        /// The file under `sql/`, without its ending.
        statement: &'static str,
        /// What the database said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A transaction could not begin or be committed.
    #[error("cannot {operation} a transaction")]
    Transaction {
        /// `begin` or `commit`.
        operation: &'static str,
        /// What the database said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A row held a value that this program cannot read.
    #[error("statement {statement} gave an unreadable value in column `{column}`")]
    BadRow {
        /// The file under `sql/`, without its ending.
        statement: &'static str,
        /// The column.
        column: &'static str,
        /// What was wrong with the value.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn way_out(found: i32, newest: i32) -> &'static str {
    if found > newest {
        "install the newer hauberk that made it"
    } else {
        "bring it up to date with `hauberk database migrate`"
    }
}

impl DatabaseError {
    /// Gives PostgreSQL's code for the error, if PostgreSQL raised it.
    pub fn sql_state(&self) -> Option<&SqlState> {
        match self {
            Self::Statement { source, .. }
            | Self::Transaction { source, .. }
            | Self::Migration { source, .. } => source.code(),
            Self::Unreachable { .. }
            | Self::Pool { .. }
            | Self::NoSchema { .. }
            | Self::Schema { .. }
            | Self::NoSuchVersion { .. }
            | Self::BadRow { .. } => None,
        }
    }

    /// Tells whether PostgreSQL ended the transaction in favour of another: the same one may succeed at once.
    pub fn is_conflict(&self) -> bool {
        self.sql_state().is_some_and(|state| {
            [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(state)
        })
    }

    /// Tells whether the same operation may succeed later, on another connection: the server was away, or it
    /// ended the transaction in favour of another.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Pool { .. } => true,
            Self::Statement { source, .. }
            | Self::Transaction { source, .. }
            | Self::Migration { source, .. } => {
                source.is_closed()
                    || source.code().is_none_or(|code| {
                        matches!(code.code().get(..2), Some("08" | "40" | "53" | "57" | "58"))
                            || *code == SqlState::LOCK_NOT_AVAILABLE
                    })
            }
            Self::NoSchema { .. }
            | Self::Schema { .. }
            | Self::NoSuchVersion { .. }
            | Self::BadRow { .. } => false,
        }
    }
}
