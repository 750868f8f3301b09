//! `hauberk worker list` and `show`.

use std::collections::BTreeSet;

use clap::Args;
use hauberk_database::audit::Entry;
use hauberk_database::operators::{self, OperatorError, Subject};
use hauberk_database::pages::{self, OpenAttempt, WorkerAttempt};
use hauberk_database::workers::{self, Worker};
use hauberk_database::{AttemptId, BuildId};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::command::DatabaseLocation;
use crate::command::audit::{EntryObject, history_text};
use crate::exit::Failure;
use crate::output::{Form, Table, ago, at, maybe_at, moment, plain};

/// Open attempts that are read; a farm has fewer slots.
const OPEN: i64 = 100_000;
/// Attempts of the past, and lines of the audit, that are shown.
const PAST: i64 = 20;
/// The column of the list that names servers.
const SERVER: usize = 2;

/// Print all workers
#[derive(Debug, Args)]
pub(super) struct List {
    /// Those too whose enrolment was taken back
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    location: DatabaseLocation,
}

/// Show all about a worker, and what it builds
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The worker's name
    name: String,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    location: DatabaseLocation,
}

#[derive(Debug, Serialize)]
struct WorkerObject<'a> {
    name: &'a str,
    state: &'static str,
    pause_reason: Option<&'a str>,
    #[serde(serialize_with = "maybe_at")]
    set_aside_at: Option<Timestamp>,
    shortage: Option<&'a str>,
    machine: &'a str,
    address: &'a str,
    version: &'a str,
    daemon: &'a str,
    store_directory: &'a str,
    systems: &'a [String],
    features: &'a [String],
    slots: i32,
    busy: usize,
    publish_url: Option<&'a str>,
    /// Whether it uploads its results, as it cannot be reached.
    uploads: Option<bool>,
    public_key: Option<&'a str>,
    signing_key: Option<&'a str>,
    #[serde(serialize_with = "at")]
    enrolled_at: Timestamp,
    enrolled_by: &'a str,
    #[serde(serialize_with = "maybe_at")]
    revoked_at: Option<Timestamp>,
    /// The server that has its session.
    server: Option<&'a str>,
    #[serde(serialize_with = "maybe_at")]
    connected_at: Option<Timestamp>,
    #[serde(serialize_with = "maybe_at")]
    last_seen_at: Option<Timestamp>,
    load: Option<&'a Value>,
}

#[derive(Debug, Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    worker: WorkerObject<'a>,
    builds: Vec<OpenObject<'a>>,
    past: Vec<PastObject<'a>>,
    history: Vec<EntryObject<'a>>,
}

#[derive(Debug, Serialize)]
struct OpenObject<'a> {
    build: BuildId,
    name: &'a str,
    attempt: AttemptId,
    state: &'static str,
    #[serde(serialize_with = "at")]
    assigned_at: Timestamp,
    #[serde(serialize_with = "maybe_at")]
    started_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct PastObject<'a> {
    build: BuildId,
    name: &'a str,
    attempt: AttemptId,
    class: Option<&'a str>,
    message: Option<&'a str>,
    #[serde(serialize_with = "at")]
    assigned_at: Timestamp,
    #[serde(serialize_with = "maybe_at")]
    ended_at: Option<Timestamp>,
}

/// Says in a word how a worker stands.
fn state(worker: &Worker) -> &'static str {
    match (&worker.revoked_at, &worker.connected, worker.paused, worker.draining) {
        (Some(_), ..) => "removed",
        (None, None, _, false) => "not connected",
        (None, None, _, true) => "drained",
        (None, Some(_), _, true) => "draining",
        (None, Some(_), true, false) if worker.set_aside_at.is_some() => "set aside",
        (None, Some(_), true, false) => "paused",
        (None, Some(_), false, false) if worker.shortage.is_some() => "short",
        (None, Some(_), false, false) => "connected",
    }
}

fn object(worker: &Worker, busy: usize) -> WorkerObject<'_> {
    let said = &worker.description;
    WorkerObject {
        name: &worker.name,
        state: state(worker),
        pause_reason: worker.pause_reason.as_deref(),
        set_aside_at: worker.set_aside_at,
        shortage: worker.shortage.as_deref(),
        machine: &said.machine,
        address: &said.address,
        version: &said.version,
        daemon: &said.daemon,
        store_directory: &said.store_directory,
        systems: &said.systems,
        features: &said.features,
        slots: said.slots,
        busy,
        publish_url: said.publish_url.as_deref(),
        uploads: worker.uploads,
        public_key: worker.public_key.as_deref(),
        signing_key: worker.signing_key.as_deref(),
        enrolled_at: worker.enrolled_at,
        enrolled_by: &worker.enrolled_by,
        revoked_at: worker.revoked_at,
        server: worker.connected.as_ref().and_then(|connected| connected.server.as_deref()),
        connected_at: worker.connected.as_ref().map(|connected| connected.since),
        last_seen_at: worker.last_seen_at,
        load: worker.load.as_ref(),
    }
}

/// Tells how many slots of a worker are used: what is only being fetched from it uses none.
fn busy(worker: &Worker, open: &[OpenAttempt]) -> usize {
    open.iter().filter(|attempt| attempt.worker == worker.id && attempt.built_at.is_none()).count()
}

pub(super) async fn list(options: List) -> Result<(), Failure> {
    let database = options.location.connect().await?;
    let client = database.client().await?;
    let mut all = workers::list(&client).await?;
    all.retain(|worker| options.all || worker.revoked_at.is_none());
    let open = pages::open_attempts(&client, OPEN).await?;
    let objects: Vec<WorkerObject<'_>> =
        all.iter().map(|worker| object(worker, busy(worker, &open))).collect();
    options.form.show(&objects, || {
        // Where it is one for all, it is not worth the room.
        let servers: BTreeSet<&str> = objects.iter().filter_map(|one| one.server).collect();
        let mut heads = vec!["NAME", "STATE", "#BUSY", "#SLOTS", "MACHINE", "SYSTEMS", "SEEN", "WHY NO WORK"];
        if servers.len() > 1 {
            heads.insert(SERVER, "SERVER");
        }
        let results = objects.iter().any(|one| one.uploads == Some(true));
        if results {
            heads.insert(heads.len() - 1, "RESULTS");
        }
        let mut table = Table::new(&heads);
        for one in &objects {
            let mut row = vec![
                one.name.to_owned(),
                one.state.to_owned(),
                one.busy.to_string(),
                one.slots.to_string(),
                one.machine.to_owned(),
                one.systems.join(","),
                ago(one.last_seen_at),
                one.pause_reason.or(one.shortage).unwrap_or_default().to_owned(),
            ];
            if results {
                let way = match one.uploads {
                    Some(true) => "uploaded",
                    Some(false) => "fetched",
                    None => "",
                };
                row.insert(row.len() - 1, way.to_owned());
            }
            if servers.len() > 1 {
                row.insert(SERVER, one.server.unwrap_or_default().to_owned());
            }
            table.row(row);
        }
        if table.is_empty() {
            return "no worker is enrolled; `hauberk worker add NAME --public-key KEY --signing-key KEY` enrols one\n"
                .to_owned();
        }
        table.text()
    })
}

pub(super) async fn show(options: Show) -> Result<(), Failure> {
    let database = options.location.connect().await?;
    let client = database.client().await?;
    let Some(worker) = workers::by_name(&client, &options.name).await? else {
        return Err(OperatorError::NoWorker(options.name).into());
    };
    let mut open = pages::open_attempts(&client, OPEN).await?;
    open.retain(|attempt| attempt.worker == worker.id);
    let past = pages::worker_attempts(&client, &[worker.id], PAST).await?;
    let history = operators::of_subject(&client, Subject::Worker, &worker.name, PAST).await?;
    let whole = Whole {
        worker: object(&worker, busy(&worker, &open)),
        builds: open
            .iter()
            .map(|attempt| OpenObject {
                build: attempt.build,
                name: &attempt.build_name,
                attempt: attempt.id,
                state: attempt.state.as_str(),
                assigned_at: attempt.assigned_at,
                started_at: attempt.started_at,
            })
            .collect(),
        past: past
            .iter()
            .map(|attempt| PastObject {
                build: attempt.build,
                name: &attempt.build_name,
                attempt: attempt.id,
                class: attempt.class.as_deref(),
                message: attempt.message.as_deref(),
                assigned_at: attempt.assigned_at,
                ended_at: attempt.ended_at,
            })
            .collect(),
        history: history.iter().map(EntryObject::from).collect(),
    };
    options.form.show(&whole, || text(&whole, &past, &history))
}

fn text(whole: &Whole<'_>, past: &[WorkerAttempt], history: &[Entry]) -> String {
    let one = &whole.worker;
    let mut text = format!("worker {}: {}\n", plain(one.name), one.state);
    let mut fact = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:14}{}\n", plain(value)));
        }
    };
    fact("paused because", one.pause_reason.unwrap_or_default());
    fact("set aside", &moment(one.set_aside_at));
    fact("takes no work", one.shortage.unwrap_or_default());
    fact("machine", one.machine);
    fact("address", one.address);
    fact("version", one.version);
    fact("daemon", one.daemon);
    fact("store", one.store_directory);
    fact("systems", &one.systems.join(", "));
    fact("features", &one.features.join(", "));
    fact("slots", &format!("{} of {} busy", one.busy, one.slots));
    match (one.uploads, one.publish_url) {
        (Some(true), Some(url)) => {
            fact("results", &format!("uploaded: the server does not reach it at {url}"));
        }
        (Some(true), None) => fact("results", "uploaded"),
        (Some(false) | None, url) => fact("results from", url.unwrap_or_default()),
    }
    fact("enrolled", &format!("{} by {}", moment(Some(one.enrolled_at)), one.enrolled_by));
    fact("connected", &moment(one.connected_at));
    fact("server", one.server.unwrap_or_default());
    fact("seen", &format!("{} ({})", moment(one.last_seen_at), ago(one.last_seen_at)));
    fact("public key", one.public_key.unwrap_or_default());
    fact("signing key", one.signing_key.unwrap_or_default());
    for (name, value) in one.load.and_then(Value::as_object).into_iter().flatten() {
        if !value.is_null() && name != "shortage" {
            fact("load", &format!("{name} {value}"));
        }
    }
    let mut table = Table::new(&["#BUILD", "NAME", "STATE", "SINCE"]);
    for build in &whole.builds {
        table.row([
            build.build.to_string(),
            build.name.to_owned(),
            build.state.to_owned(),
            ago(Some(build.started_at.unwrap_or(build.assigned_at))),
        ]);
    }
    if !table.is_empty() {
        text.push_str(&format!("builds now:\n{}", table.text()));
    }
    let mut table = Table::new(&["#BUILD", "NAME", "RESULT", "ASSIGNED", "MESSAGE"]);
    for attempt in past.iter().filter(|attempt| attempt.ended_at.is_some()) {
        table.row([
            attempt.build.to_string(),
            attempt.build_name.clone(),
            attempt.class.clone().unwrap_or_default(),
            ago(Some(attempt.assigned_at)),
            attempt.message.clone().unwrap_or_default(),
        ]);
    }
    if !table.is_empty() {
        text.push_str(&format!("built last:\n{}", table.text()));
    }
    text.push_str(&history_text(history));
    text
}
