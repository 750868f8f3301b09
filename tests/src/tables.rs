//! Asking a farm's database from outside.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio_postgres::{Client, NoTls, Row, types::ToSql};

use crate::wait::Deadline;

/// How often the database is asked whether a condition holds.
const LOOK: Duration = Duration::from_millis(50);

/// The tables of a farm, read through one connection that is made again when it is lost.
#[derive(Debug)]
pub struct Tables {
    connection_string: String,
    client: tokio::sync::Mutex<Option<Client>>,
}

impl Tables {
    /// Names the database; nothing is connected yet.
    pub fn new(connection_string: String) -> Self {
        Self { connection_string, client: tokio::sync::Mutex::new(None) }
    }

    /// Makes a connection of its own.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub async fn connect(&self) -> Result<Client> {
        let (client, connection) =
            tokio_postgres::connect(&self.connection_string, NoTls).await.context("connecting")?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Asks; a lost connection is made again once.
    ///
    /// # Errors
    /// The database cannot be reached or refuses the statement.
    pub async fn query(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let mut client = self.client.lock().await;
        if client.as_ref().is_none_or(Client::is_closed) {
            *client = Some(self.connect().await?);
        }
        let connected = client.as_ref().context("connected just now")?;
        connected.query(statement, parameters).await.with_context(|| format!("asking {statement}"))
    }

    /// Ends the connections of everybody else.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn end_other_connections(&self) -> Result<()> {
        let statement = "select pg_terminate_backend(pid) from pg_stat_activity \
                         where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'";
        self.query(statement, &[]).await.map(drop)
    }

    /// Waits until `statement` gives a row whose first column is true. `look_after` is called before each look, and ends the wait
    /// when it fails.
    ///
    /// # Errors
    /// What `look_after` failed with, or that the condition did not come to hold in time. While the database is down the answer
    /// is "not yet".
    pub async fn wait_until(
        &self,
        what: &str,
        deadline: Deadline,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
        mut look_after: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        loop {
            look_after().with_context(|| format!("while waiting until {what}"))?;
            let answer = self.query(statement, parameters).await;
            if let Ok(rows) = &answer
                && rows.first().is_some_and(|row| row.get::<_, bool>(0))
            {
                return Ok(());
            }
            if deadline.is_over() {
                match answer {
                    Ok(_) => bail!("{what}: not within {:?}", deadline.patience()),
                    Err(error) => {
                        return Err(error.context(format!("{what}: not within {:?}", deadline.patience())));
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
