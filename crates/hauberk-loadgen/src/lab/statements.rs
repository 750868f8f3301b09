//! What each statement of the database costs.

use anyhow::{Context, Result};
use hauberk_database::Database;
use serde_json::{Value, json};

use crate::figure::rounded;

/// What PostgreSQL is started with to count.
pub(crate) const SETTINGS: &str =
    "-c shared_preload_libraries=pg_stat_statements -c pg_stat_statements.track_planning=on";
/// Statements that are told, the dearest first.
const TOLD: i64 = 16;
/// Characters of a statement that are told.
const LENGTH: usize = 90;

/// Makes the counters known to the database.
pub(crate) async fn install(database: &Database) -> Result<()> {
    let client = database.client().await?;
    client
        .batch_execute("create extension if not exists pg_stat_statements")
        .await
        .context("counting statements; is Debian's package postgresql-contrib installed?")
}

/// Begins to count anew.
pub(crate) async fn forget(database: &Database) -> Result<()> {
    let client = database.client().await?;
    client.batch_execute("select pg_stat_statements_reset()").await.context("forgetting statements")
}

/// Reads what the dearest statements have cost, in milliseconds.
pub(crate) async fn read(database: &Database) -> Result<Value> {
    let rows = database
        .client()
        .await?
        .query(
            "select query, calls, rows, plans, total_plan_time, total_exec_time, wal_records
             from pg_stat_statements order by total_plan_time + total_exec_time desc limit $1",
            &[&TOLD],
        )
        .await
        .context("asking what statements cost")?;
    let told = rows.iter().map(|row| {
        json!({
            "statement": first_words(row.get(0)),
            "calls": row.get::<_, i64>(1),
            "rows": row.get::<_, i64>(2),
            "plans": row.get::<_, i64>(3),
            "plan_ms": rounded(row.get(4), 1),
            "ms": rounded(row.get(5), 1),
            "wal_records": row.get::<_, i64>(6),
        })
    });
    Ok(told.collect())
}

/// The beginning of a statement, or of the comment before it.
fn first_words(statement: &str) -> String {
    let line = statement.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().chars().take(LENGTH).collect()
}
