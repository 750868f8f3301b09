//! Statements: text from a file under `sql/`, and the rows they give.

use std::error::Error;
use std::str::FromStr;

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

use crate::DatabaseError;

/// Values for `$1`, `$2` and so on.
pub(crate) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A statement of a file under `sql/`. It is prepared once for each connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Statement {
    name: &'static str,
    text: &'static str,
}

/// Gives the [`Statement`] of the file `sql/NAME.sql`.
macro_rules! statement {
    ($name:literal) => {
        $crate::statement::Statement::new(
            $name,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../sql/", $name, ".sql")),
        )
    };
}
pub(crate) use statement;

impl Statement {
    /// Use `statement!` instead.
    pub(crate) const fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text }
    }

    /// Prepares the statement, so that its next run is sent at once.
    pub(crate) async fn prepare(self, client: &impl GenericClient) -> Result<(), DatabaseError> {
        client.prepare_cached(self.text).await.map(drop).map_err(|source| self.failed(source))
    }

    /// Runs the statement and gives all its rows.
    pub(crate) async fn all(
        self,
        client: &impl GenericClient,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Record>, DatabaseError> {
        let rows = async {
            let prepared = client.prepare_cached(self.text).await?;
            client.query(&prepared, parameters).await
        };
        let rows = rows.await.map_err(|source| self.failed(source))?;
        Ok(rows.into_iter().map(|row| Record { statement: self.name, row }).collect())
    }

    /// Runs the statement and gives its row, if it has one.
    pub(crate) async fn optional(
        self,
        client: &impl GenericClient,
        parameters: Parameters<'_>,
    ) -> Result<Option<Record>, DatabaseError> {
        let row = async {
            let prepared = client.prepare_cached(self.text).await?;
            client.query_opt(&prepared, parameters).await
        };
        let row = row.await.map_err(|source| self.failed(source))?;
        Ok(row.map(|row| Record { statement: self.name, row }))
    }

    /// Runs the statement and gives its one row.
    pub(crate) async fn one(
        self,
        client: &impl GenericClient,
        parameters: Parameters<'_>,
    ) -> Result<Record, DatabaseError> {
        let row = async {
            let prepared = client.prepare_cached(self.text).await?;
            client.query_one(&prepared, parameters).await
        };
        let row = row.await.map_err(|source| self.failed(source))?;
        Ok(Record { statement: self.name, row })
    }

    /// Runs the statement and gives the number of rows it touched.
    pub(crate) async fn execute(
        self,
        client: &impl GenericClient,
        parameters: Parameters<'_>,
    ) -> Result<u64, DatabaseError> {
        let count = async {
            let prepared = client.prepare_cached(self.text).await?;
            client.execute(&prepared, parameters).await
        };
        count.await.map_err(|source| self.failed(source))
    }

    fn failed(self, source: tokio_postgres::Error) -> DatabaseError {
        crate::metrics::count_statement();
        DatabaseError::Statement { statement: self.name, source }
    }
}

/// A row, which knows what statement gave it.
#[derive(Debug)]
pub(crate) struct Record {
    statement: &'static str,
    row: Row,
}

impl Record {
    /// Reads a column.
    pub(crate) fn get<'a, T: FromSql<'a>>(&'a self, column: &'static str) -> Result<T, DatabaseError> {
        self.row.try_get(column).map_err(|source| self.bad(column, source))
    }

    /// Reads a text column as something that has a text form.
    pub(crate) fn parse<T>(&self, column: &'static str) -> Result<T, DatabaseError>
    where
        T: FromStr<Err: Error + Send + Sync + 'static>,
    {
        self.get::<&str>(column)?.parse().map_err(|source: T::Err| self.bad(column, source))
    }

    /// Converts a column into something that not every value of the column is.
    pub(crate) fn convert<'a, T, U>(&'a self, column: &'static str) -> Result<U, DatabaseError>
    where
        T: FromSql<'a>,
        U: TryFrom<T, Error: Error + Send + Sync + 'static>,
    {
        U::try_from(self.get::<T>(column)?).map_err(|source| self.bad(column, source))
    }

    /// Makes the error for a value of `column` that cannot be read.
    pub(crate) fn bad(
        &self,
        column: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> DatabaseError {
        DatabaseError::BadRow { statement: self.statement, column, source: source.into() }
    }
}
