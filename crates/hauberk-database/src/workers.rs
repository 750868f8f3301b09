//! Remote-workers: who is enrolled, and what each last said of itself.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

use crate::statement::{Record, statement};
use crate::{Client, DatabaseError, Epoch, WorkerId, begin, commit};

/// An enrolled worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// Its name, unique in the farm.
    pub name: String,
    /// Its CURVE public key, Z85; `None` for one that joined without encryption.
    pub public_key: Option<String>,
    /// The public key its results must be signed with, `NAME:BASE64` or an S-expression; `None` until first sight
    /// for a worker that joined without encryption.
    pub signing_key: Option<String>,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
    /// By whom.
    pub enrolled_by: String,
    /// When its enrolment was taken back.
    pub revoked_at: Option<Timestamp>,
    /// Whether it gets no work.
    pub paused: bool,
    /// Why it gets no work.
    pub pause_reason: Option<String>,
    /// Since when it is the farm itself that has paused it, because it is sick.
    pub set_aside_at: Option<Timestamp>,
    /// What the worker itself says it lacks to take work now.
    pub shortage: Option<String>,
    /// Whether it is to finish what it runs and to leave.
    pub draining: bool,
    /// The session it has, if any: the server start that holds it, and since when.
    pub connected: Option<Connected>,
    /// When it was last heard of.
    pub last_seen_at: Option<Timestamp>,
    /// Whether it uploads its results, as its server cannot reach it; `None`: nobody has looked yet.
    pub uploads: Option<bool>,
    /// What it last said of itself; empty before its first Hello.
    pub description: Description,
    /// What it last said about load, memory and disk.
    pub load: Option<Value>,
    /// The systems it may build for, whatever it says; `None`: all it says.
    pub allowed_systems: Option<Vec<String>>,
}

/// Where and since when a worker has its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// The server start that holds the session.
    pub epoch: Epoch,
    /// The server's name, if that is still known.
    pub server: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

/// What a worker says of itself in its Hello.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Host name of its machine.
    pub machine: String,
    /// The address it came from.
    pub address: String,
    /// Version of its program.
    pub version: String,
    /// Kind and version of its build daemon.
    pub daemon: String,
    /// `/gnu/store` or `/nix/store`.
    pub store_directory: String,
    /// Systems it builds for.
    pub systems: Vec<String>,
    /// Features it has, as `kvm`.
    pub features: Vec<String>,
    /// Those of them that a build must require to be given to it.
    pub mandatory_features: Vec<String>,
    /// Builds it runs at a time.
    pub slots: i32,
    /// Where its results are fetched from.
    pub publish_url: Option<String>,
}

/// A worker to enrol.
#[derive(Debug, Clone, Copy)]
pub struct NewWorker<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its CURVE public key, Z85.
    pub public_key: &'a str,
    /// The public key its results must be signed with.
    pub signing_key: &'a str,
    /// Who enrols it.
    pub enrolled_by: &'a str,
}

/// What came of an enrolment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolment {
    /// The worker is enrolled.
    Done(WorkerId),
    /// An enrolled worker of that name has another key; remove it first.
    NameTaken,
    /// Another worker has that key.
    KeyTaken,
}

/// Enrols a worker, or enrols a removed one anew.
///
/// After [`Enrolment::KeyTaken`] a transaction that this ran in can only be rolled back.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn add(client: &impl GenericClient, worker: NewWorker<'_>) -> Result<Enrolment, DatabaseError> {
    let NewWorker { name, public_key, signing_key, enrolled_by } = worker;
    let added =
        statement!("workers/add").optional(client, &[&name, &public_key, &signing_key, &enrolled_by]).await;
    match added {
        Ok(Some(record)) => {
            let id = record.get("id")?;
            notify_changed(client, &[id]).await?;
            Ok(Enrolment::Done(id))
        }
        Ok(None) => Ok(Enrolment::NameTaken),
        Err(error) if error.sql_state() == Some(&SqlState::UNIQUE_VIOLATION) => Ok(Enrolment::KeyTaken),
        Err(error) => Err(error),
    }
}

/// Takes a worker's enrolment back; its history stays. The server that has it, or its attempts, is told. Gives `None` when no worker of that name is enrolled.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn remove(client: &impl GenericClient, name: &str) -> Result<Option<WorkerId>, DatabaseError> {
    let Some(record) = statement!("workers/remove").optional(client, &[&name]).await? else {
        return Ok(None);
    };
    let id = record.get("id")?;
    statement!("control/notify").execute(client, &[]).await?;
    notify_changed(client, &[id]).await?;
    Ok(Some(id))
}

/// Enters the workers of these names that are not known yet: on a trusted network, workers join by their names alone.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn enter(client: &impl GenericClient, names: &[&str]) -> Result<(), DatabaseError> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    statement!("workers/enter").execute(client, &[&names]).await?;
    Ok(())
}

/// Finds the workers, removed ones too, of these CURVE public keys (Z85) and of these names. They are locked until the transaction ends.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn candidates(
    client: &impl GenericClient,
    public_keys: &[String],
    names: &[&str],
) -> Result<Vec<Worker>, DatabaseError> {
    statement!("workers/candidates").all(client, &[&public_keys, &names]).await?.iter().map(worker).collect()
}

/// Fixes the signing keys of workers that have none yet.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn pin_signing_keys(
    client: &impl GenericClient,
    keys: &[(WorkerId, &str)],
) -> Result<(), DatabaseError> {
    let (ids, keys): (Vec<WorkerId>, Vec<&str>) = keys.iter().copied().unzip();
    statement!("workers/pin_signing_keys").execute(client, &[&ids, &keys]).await?;
    Ok(())
}

/// Gives all workers, removed ones too, by name.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn list(client: &impl GenericClient) -> Result<Vec<Worker>, DatabaseError> {
    statement!("workers/list").all(client, &[]).await?.iter().map(worker).collect()
}

/// Finds a worker by its name.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn by_name(client: &impl GenericClient, name: &str) -> Result<Option<Worker>, DatabaseError> {
    statement!("workers/by_name").optional(client, &[&name]).await?.as_ref().map(worker).transpose()
}

/// Records that workers joined the server start `epoch`, and what each said of itself; no worker may be named twice.
///
/// Gives those that have not been removed: the others did not join.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn hello(
    client: &impl GenericClient,
    epoch: Epoch,
    joining: &[(WorkerId, &Description)],
) -> Result<Vec<WorkerId>, DatabaseError> {
    // Lists within rows cannot be passed as arrays.
    let said: Vec<Value> = joining
        .iter()
        .map(|(id, said)| {
            json!({
                "id": id.get(),
                "machine": said.machine,
                "address": said.address,
                "version": said.version,
                "daemon": said.daemon,
                "store_directory": said.store_directory,
                "systems": said.systems,
                "features": said.features,
                "mandatory_features": said.mandatory_features,
                "slots": said.slots,
                "publish_url": said.publish_url,
            })
        })
        .collect();
    let records = statement!("workers/hello").all(client, &[&epoch, &Value::Array(said)]).await?;
    let joined = records.iter().map(|record| record.get("id")).collect::<Result<Vec<_>, _>>()?;
    notify_changed(client, &joined).await?;
    Ok(joined)
}

/// Records heartbeats of workers that the server start `epoch` has, with the load each told, if it did.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn seen(
    client: &impl GenericClient,
    epoch: Epoch,
    workers: &[(WorkerId, Option<Value>)],
) -> Result<(), DatabaseError> {
    let (ids, loads): (Vec<WorkerId>, Vec<&Option<Value>>) =
        workers.iter().map(|(id, load)| (*id, load)).unzip();
    statement!("workers/seen").execute(client, &[&ids, &loads, &epoch]).await?;
    Ok(())
}

/// Records of workers that the server start `epoch` has whether each uploads its results.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn uploads(
    client: &impl GenericClient,
    epoch: Epoch,
    workers: &[(WorkerId, bool)],
) -> Result<(), DatabaseError> {
    let (ids, uploads): (Vec<WorkerId>, Vec<bool>) = workers.iter().copied().unzip();
    statement!("workers/uploads").execute(client, &[&epoch, &ids, &uploads]).await?;
    Ok(())
}

/// Records that workers left the server start `epoch`. Gives how many it had: others are with another start meanwhile.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn disconnected(
    client: &impl GenericClient,
    ids: &[WorkerId],
    epoch: Epoch,
) -> Result<u64, DatabaseError> {
    let rows = statement!("workers/disconnected").execute(client, &[&ids, &epoch]).await?;
    notify_changed(client, ids).await?;
    Ok(rows)
}

/// What an operator wants of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction<'a> {
    /// It gets no work, for this reason; what runs goes on.
    Pause(Option<&'a str>),
    /// It is to finish what it runs, and to leave. Told again whenever it comes back.
    Drain,
    /// It gets work.
    Resume,
}

/// Directs a worker; the server that has it is told. Gives `None` when no worker of that name is enrolled.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn direct(
    client: &impl GenericClient,
    name: &str,
    direction: Direction<'_>,
) -> Result<Option<WorkerId>, DatabaseError> {
    let (paused, reason, draining) = match direction {
        Direction::Pause(reason) => (Some(true), reason, None),
        Direction::Drain => (None, None, Some(true)),
        Direction::Resume => (Some(false), None, Some(false)),
    };
    let Some(record) =
        statement!("workers/direct").optional(client, &[&name, &paused, &reason, &draining]).await?
    else {
        return Ok(None);
    };
    let id = record.get("id")?;
    statement!("control/notify").execute(client, &[]).await?;
    notify_changed(client, &[id]).await?;
    Ok(Some(id))
}

/// What operators want of a worker that is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The worker.
    pub worker: WorkerId,
    /// It gets no work.
    pub paused: bool,
    /// Why.
    pub reason: Option<String>,
    /// It is to finish what it runs, and to leave.
    pub draining: bool,
    /// It was removed: it has no session any more, and its attempts are given back.
    pub revoked: bool,
    /// The farm itself has paused it, because it is sick.
    pub set_aside: bool,
}

/// Lists what operators want of the workers that a server start has, or whose attempts it has.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn orders(client: &impl GenericClient, epoch: Epoch) -> Result<Vec<Order>, DatabaseError> {
    let records = statement!("workers/orders").all(client, &[&epoch]).await?;
    records
        .iter()
        .map(|record| {
            Ok(Order {
                worker: record.get("id")?,
                paused: record.get("paused")?,
                reason: record.get("pause_reason")?,
                draining: record.get("draining")?,
                revoked: record.get("revoked")?,
                set_aside: record.get("set_aside")?,
            })
        })
        .collect()
}

/// Sets a sick worker aside, for this reason; the servers are told. Changes nothing if it is paused, not this server start's, or needed: no
/// other worker of the farm that takes work has one of its systems with its features.
///
/// # Errors
/// Any failure of the transaction.
pub async fn set_aside(
    client: &mut Client,
    worker: WorkerId,
    epoch: Epoch,
    reason: &str,
) -> Result<(), DatabaseError> {
    let transaction = begin(client).await?;
    statement!("workers/set_aside_lock").execute(&transaction, &[]).await?;
    statement!("workers/set_aside").execute(&transaction, &[&worker, &epoch, &reason]).await?;
    statement!("control/notify").execute(&transaction, &[]).await?;
    notify_changed(&transaction, &[worker]).await?;
    commit(transaction).await
}

/// What a worker can build, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// The directory of its store.
    pub store_directory: String,
    /// Systems it builds for.
    pub systems: Vec<String>,
    /// Features it offers.
    pub features: Vec<String>,
    /// Features a build must require to be given to it.
    pub mandatory_features: Vec<String>,
}

/// Gives what the workers at other servers than that of `epoch` can build, of those that take work; what is alike once.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn elsewhere(client: &impl GenericClient, epoch: Epoch) -> Result<Vec<Kind>, DatabaseError> {
    let records = statement!("workers/elsewhere").all(client, &[&epoch]).await?;
    let kind = |record: &Record| {
        Ok(Kind {
            store_directory: record.get("store_directory")?,
            systems: record.get("systems")?,
            features: record.get("features")?,
            mandatory_features: record.get("mandatory_features")?,
        })
    };
    records.iter().map(kind).collect()
}

/// Gives work again to a worker that was set aside; the servers are told.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn recover(
    client: &impl GenericClient,
    worker: WorkerId,
    epoch: Epoch,
) -> Result<(), DatabaseError> {
    statement!("workers/recover").execute(client, &[&worker, &epoch]).await?;
    statement!("control/notify").execute(client, &[]).await?;
    notify_changed(client, &[worker]).await
}

async fn notify_changed(client: &impl GenericClient, ids: &[WorkerId]) -> Result<(), DatabaseError> {
    statement!("workers/notify_changed").execute(client, &[&ids]).await?;
    Ok(())
}

fn worker(record: &Record) -> Result<Worker, DatabaseError> {
    let connected = match (record.get("epoch")?, record.get("connected_at")?) {
        (Some(epoch), Some(since)) => Some(Connected { epoch, server: record.get("server")?, since }),
        _ => None,
    };
    Ok(Worker {
        id: record.get("id")?,
        name: record.get("name")?,
        public_key: record.get("public_key")?,
        signing_key: record.get("signing_key")?,
        enrolled_at: record.get("enrolled_at")?,
        enrolled_by: record.get("enrolled_by")?,
        revoked_at: record.get("revoked_at")?,
        paused: record.get("paused")?,
        pause_reason: record.get("pause_reason")?,
        set_aside_at: record.get("set_aside_at")?,
        shortage: record.get("shortage")?,
        draining: record.get("draining")?,
        connected,
        uploads: record.get("uploads")?,
        last_seen_at: record.get("last_seen_at")?,
        description: Description {
            machine: record.get("machine")?,
            address: record.get("address")?,
            version: record.get("version")?,
            daemon: record.get("daemon")?,
            store_directory: record.get("store_directory")?,
            systems: record.get("systems")?,
            features: record.get("features")?,
            mandatory_features: record.get("mandatory_features")?,
            slots: record.get("slots")?,
            publish_url: record.get("publish_url")?,
        },
        load: record.get("load")?,
        allowed_systems: record.get("allowed_systems")?,
    })
}
