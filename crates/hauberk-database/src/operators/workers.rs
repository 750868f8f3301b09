//! Workers: enrolment and tokens for it, pause, resume, drain, remove.

use deadpool_postgres::GenericClient;
use serde_json::json;

use super::{OperatorError, in_transaction, record};
use crate::tokens::{self, NewToken};
use crate::workers::{self, Direction, Enrolment, NewWorker};
use crate::{Database, TokenId, servers};

/// Enrols a worker with its keys.
///
/// # Errors
/// [`OperatorError::NameTaken`], [`OperatorError::KeyTaken`] or [`OperatorError::Database`].
pub async fn enrol_worker(database: &Database, new: NewWorker<'_>) -> Result<(), OperatorError> {
    in_transaction!(database, |transaction| enrol(&transaction, new))
}

async fn enrol(client: &impl GenericClient, new: NewWorker<'_>) -> Result<(), OperatorError> {
    match workers::add(client, new).await? {
        Enrolment::Done(_) => {}
        Enrolment::NameTaken => return Err(OperatorError::NameTaken(new.name.to_owned())),
        Enrolment::KeyTaken => return Err(OperatorError::KeyTaken(new.public_key.to_owned())),
    }
    record(client, new.enrolled_by, "worker.add", new.name, None, &[]).await?;
    Ok(())
}

/// Gives the key that tokens are for: the one that all servers of the farm have.
///
/// # Errors
/// [`OperatorError::NoServerKey`], [`OperatorError::DifferentServerKeys`] or [`OperatorError::Database`].
pub async fn server_key(client: &impl GenericClient) -> Result<String, OperatorError> {
    only_key(servers::public_keys(client).await?)
}

/// Gives the key that all of these servers have, each with its name.
fn only_key(servers: Vec<(String, String)>) -> Result<String, OperatorError> {
    let Some((_, first)) = servers.first() else { return Err(OperatorError::NoServerKey) };
    if servers.iter().all(|(_, key)| key == first) {
        return Ok(first.clone());
    }
    Err(OperatorError::DifferentServerKeys(servers.into_iter().map(|(name, _)| name).collect()))
}

/// Makes a token by which new machines join; gives its number.
///
/// # Errors
/// [`OperatorError::Database`].
pub async fn make_token(database: &Database, new: NewToken<'_>) -> Result<TokenId, OperatorError> {
    in_transaction!(database, |transaction| make(&transaction, new))
}

async fn make(client: &impl GenericClient, new: NewToken<'_>) -> Result<TokenId, OperatorError> {
    let id = tokens::make(client, new).await?;
    let seconds = new.lifetime.as_secs();
    let systems = new.systems.unwrap_or_default();
    let detail = json!({ "name": new.name, "uses": new.uses, "seconds": seconds, "systems": systems });
    record(client, new.created_by, "token.make", &id.to_string(), Some(&detail), &[]).await?;
    Ok(id)
}

/// Takes a token back. Workers that have joined by it stay.
///
/// # Errors
/// [`OperatorError::NoToken`] or [`OperatorError::Database`].
pub async fn revoke_token(database: &Database, who: &str, id: TokenId) -> Result<(), OperatorError> {
    in_transaction!(database, |transaction| revoke(&transaction, who, id))
}

async fn revoke(client: &impl GenericClient, who: &str, id: TokenId) -> Result<(), OperatorError> {
    if !tokens::revoke(client, id).await? {
        return Err(OperatorError::NoToken(id));
    }
    record(client, who, "token.revoke", &id.to_string(), None, &[]).await?;
    Ok(())
}

/// Directs workers, all or none of them; the servers that have them are told.
///
/// # Errors
/// [`OperatorError::NoWorker`] or [`OperatorError::Database`].
pub async fn direct_workers(
    database: &Database,
    who: &str,
    names: &[&str],
    direction: Direction<'_>,
) -> Result<(), OperatorError> {
    let mut names = names.to_vec();
    // In one order, so that two who direct the same workers wait for each other in turn.
    names.sort_unstable();
    names.dedup();
    in_transaction!(database, |transaction| direct_all(&transaction, who, &names, direction))
}

async fn direct_all(
    client: &impl GenericClient,
    who: &str,
    names: &[&str],
    direction: Direction<'_>,
) -> Result<(), OperatorError> {
    for name in names {
        direct(client, who, name, direction).await?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_with_one_key_need_not_be_named() {
        let servers = |keys: &[(&str, &str)]| {
            only_key(keys.iter().map(|(name, key)| ((*name).to_owned(), (*key).to_owned())).collect())
        };
        assert!(matches!(servers(&[]), Err(OperatorError::NoServerKey)));
        assert_eq!(servers(&[("x", "a"), ("y", "a")]).unwrap(), "a");
        let different = servers(&[("x", "a"), ("y", "b")]).unwrap_err();
        assert!(different.to_string().contains("x, y"), "{different}");
    }
}
