//! Workers: pause, resume, drain, remove.

use deadpool_postgres::GenericClient;
use serde_json::json;

use super::{OperatorError, in_transaction, record};
use crate::Database;
use crate::workers::{self, Direction};

/// Directs a worker; the server that has it is told.
///
/// # Errors
/// [`OperatorError::NoWorker`] or [`OperatorError::Database`].
pub async fn direct_worker(
    database: &Database,
    who: &str,
    name: &str,
    direction: Direction<'_>,
) -> Result<(), OperatorError> {
    in_transaction!(database, |transaction| direct(&transaction, who, name, direction))
}

async fn direct(
    client: &impl GenericClient,
    who: &str,
    name: &str,
    direction: Direction<'_>,
) -> Result<(), OperatorError> {
    if workers::direct(client, name, direction).await?.is_none() {
        return Err(OperatorError::NoWorker(name.to_owned()));
    }
    let (action, detail) = match direction {
        Direction::Pause(reason) => ("worker.pause", reason.map(|reason| json!({ "reason": reason }))),
        Direction::Drain => ("worker.drain", None),
        Direction::Resume => ("worker.resume", None),
    };
    record(client, who, action, name, detail.as_ref(), &[]).await?;
    Ok(())
}

/// Takes a worker's enrolment back; its history stays.
///
/// # Errors
/// [`OperatorError::NoWorker`] or [`OperatorError::Database`].
pub async fn remove_worker(database: &Database, who: &str, name: &str) -> Result<(), OperatorError> {
    in_transaction!(database, |transaction| remove(&transaction, who, name))
}

async fn remove(client: &impl GenericClient, who: &str, name: &str) -> Result<(), OperatorError> {
    if workers::remove(client, name).await?.is_none() {
        return Err(OperatorError::NoWorker(name.to_owned()));
    }
    record(client, who, "worker.remove", name, None, &[]).await?;
    Ok(())
}
