//! `hauberk status`: the farm on a screen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use hauberk_database::listen::{CHANGED, Listener};
use hauberk_database::overview::{self, Queued, Rate, Server};
use hauberk_database::pages::{self, OpenAttempt, Specification, Worker};
use hauberk_database::{BuildState, Database, DatabaseError, EvaluationId, GenericClient};
use serde::Serialize;
use tokio::time::timeout;

use crate::command::DatabaseLocation;
use crate::exit::Failure;
use crate::lifetime::stop_on_signals;
use crate::output::{Form, Gesture, Screen, Table, print_on};

/// Open attempts that are read; a farm has fewer slots.
const OPEN: i64 = 100_000;
/// A server that gave no sign of life for so many seconds is taken for dead: two leases.
const SILENT: i64 = 120;
/// How soon after a screen the next may follow, and how late it does though nothing is heard.
const CALM: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_secs(5);

/// Show the farm on one screen: servers, workers, slots, what waits and for what, how fast it goes
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Stay, and follow the farm until `q` or Ctrl-C; with --json an object a line
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    location: DatabaseLocation,
}

/// All of it.
#[derive(Debug, Serialize)]
struct Status {
    servers: Vec<ServerObject>,
    workers: Workers,
    systems: Vec<System>,
    queue: Vec<QueueLine>,
    queue_counted_seconds_ago: Option<i64>,
    active: BTreeMap<BuildState, usize>,
    rates: Vec<RateObject>,
    specifications: Vec<SpecificationObject>,
}

#[derive(Debug, Serialize)]
struct ServerObject {
    name: String,
    state: &'static str,
    host: String,
    port: i32,
    version: String,
    publish_url: Option<String>,
    silent_seconds: Option<i64>,
}

#[derive(Debug, Default, Serialize)]
struct Workers {
    enrolled: usize,
    connected: usize,
    paused: usize,
    short: usize,
    draining: usize,
    slots: usize,
    busy: usize,
}

/// What workers of a system can do and do.
#[derive(Debug, Serialize)]
struct System {
    system: String,
    workers: usize,
    slots: usize,
    busy: usize,
}

/// Why builds wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    NoWorker,
    WorkersPaused,
    NoFreeSlot,
    Dependencies,
    Deferred,
    Held,
}

impl Reason {
    const fn words(self) -> &'static str {
        match self {
            Self::NoWorker => "no connected worker can build it",
            Self::WorkersPaused => "every worker that can build it is paused, lacks something, or leaves",
            Self::NoFreeSlot => "a slot",
            Self::Dependencies => "what it needs",
            Self::Deferred => "its next try",
            Self::Held => "an operator",
        }
    }
}

#[derive(Debug, Serialize)]
struct QueueLine {
    system: String,
    features: Vec<String>,
    reason: Reason,
    builds: i64,
}

#[derive(Debug, Serialize)]
struct RateObject {
    state: BuildState,
    last_minute: i64,
    last_ten_minutes: i64,
}

#[derive(Debug, Serialize)]
struct SpecificationObject {
    name: String,
    enabled: bool,
    evaluation: Option<EvaluationId>,
    status: Option<&'static str>,
    check_error: Option<String>,
}

/// Prints the status, once or until a signal comes.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let database = options.location.connect().await?;
    if !options.watch {
        let status = read(&database.client().await?).await?;
        return options.form.show(&status, || status.text());
    }
    watch(&options, &database).await
}

/// Prints the status again and again: on a terminal's screen until somebody wants no more, else as long as somebody reads it.
async fn watch(options: &Options, database: &Database) -> Result<(), Failure> {
    let stop = stop_on_signals()?;
    let mut changes = Listener::connect(&options.location.parse()?, &[CHANGED]).await?;
    let mut screen = if options.form.json { None } else { Screen::take().map_err(Failure::other)? };
    loop {
        let status = async { read(&database.client().await?).await };
        let text = match status.await {
            Ok(status) if options.form.json => serde_json::to_string(&status).map_err(Failure::other)? + "\n",
            Ok(status) => {
                let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC");
                let keys = if screen.is_some() { "   q ends" } else { "" };
                format!("{now}{keys}\n\n{}\n", status.text())
            }
            Err(error) if error.is_transient() && options.form.json => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the database does not answer; waiting"
                );
                String::new()
            }
            Err(error) if error.is_transient() => format!("the database does not answer: {error}\n"),
            Err(error) => return Err(error.into()),
        };
        match &screen {
            Some(screen) => screen.draw(&text).map_err(Failure::other)?,
            None if !print_on(&text)? => return Ok(()),
            None => {}
        }
        let due = async {
            tokio::time::sleep(CALM).await;
            // Whatever was heard, or nothing: the rows tell.
            let _ = timeout(GLANCE, changes.next()).await;
            while changes.try_next().is_some() {}
        };
        tokio::pin!(due);
        loop {
            let gesture = async {
                match &mut screen {
                    Some(screen) => screen.gesture().await,
                    None => std::future::pending().await,
                }
            };
            let gesture = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = &mut due => break,
                gesture = gesture => gesture,
            };
            match (gesture, &screen) {
                (Gesture::Quit, _) => return Ok(()),
                (Gesture::Redraw, Some(screen)) => screen.draw(&text).map_err(Failure::other)?,
                (Gesture::Redraw, None) => {}
            }
        }
    }
}

async fn read(client: &impl GenericClient) -> Result<Status, DatabaseError> {
    let workers = pages::workers(client, None).await?;
    let open = pages::open_attempts(client, OPEN).await?;
    let queue = overview::queue(client).await?;
    Ok(Status {
        servers: overview::servers(client).await?.into_iter().map(server).collect(),
        workers: totals(&workers, &open),
        systems: systems(&workers, &open),
        queue: queue_lines(&queue.builds, &workers),
        queue_counted_seconds_ago: queue.counted,
        active: active(&open),
        rates: overview::rates(client).await?.into_iter().map(rate).collect(),
        specifications: pages::specifications(client).await?.into_iter().map(specification).collect(),
    })
}

fn server(server: Server) -> ServerObject {
    let state = match (server.started_at, server.ended_at, server.silent) {
        (None, ..) => "never started",
        (Some(_), Some(_), _) => "stopped",
        (Some(_), None, Some(silent)) if silent > SILENT => "silent",
        (Some(_), None, _) => "running",
    };
    ServerObject {
        name: server.name,
        state,
        host: server.host,
        port: server.backend_port,
        version: server.version,
        publish_url: server.publish_url,
        silent_seconds: server.silent.filter(|_| state == "silent"),
    }
}

fn rate(rate: Rate) -> RateObject {
    RateObject { state: rate.state, last_minute: rate.minute, last_ten_minutes: rate.ten_minutes }
}

fn specification(one: Specification) -> SpecificationObject {
    SpecificationObject {
        evaluation: one.latest.as_ref().map(|latest| latest.id),
        status: one.latest.as_ref().map(|latest| latest.status.as_str()),
        name: one.name,
        enabled: one.enabled,
        check_error: one.check_error,
    }
}

fn is_connected(worker: &Worker) -> bool {
    worker.connected && worker.server_silent.is_none_or(|seconds| seconds <= SILENT)
}

fn slots(worker: &Worker) -> usize {
    usize::try_from(worker.slots).unwrap_or(0)
}

fn busy(worker: &Worker, open: &[OpenAttempt]) -> usize {
    open.iter().filter(|attempt| attempt.worker == worker.id && attempt.built_at.is_none()).count()
}

fn totals(workers: &[Worker], open: &[OpenAttempt]) -> Workers {
    let mut totals = Workers::default();
    for worker in workers {
        totals.enrolled += 1;
        totals.busy += busy(worker, open);
        if is_connected(worker) {
            totals.connected += 1;
            totals.slots += slots(worker);
            totals.paused += usize::from(worker.paused);
            totals.short += usize::from(worker.shortage.is_some());
            totals.draining += usize::from(worker.draining);
        }
    }
    totals
}

fn systems(workers: &[Worker], open: &[OpenAttempt]) -> Vec<System> {
    let names: BTreeSet<&String> = workers.iter().flat_map(|worker| &worker.systems).collect();
    names
        .into_iter()
        .map(|name| {
            let of: Vec<&Worker> = workers
                .iter()
                .filter(|worker| is_connected(worker) && worker.systems.contains(name))
                .collect();
            System {
                system: name.clone(),
                workers: of.len(),
                slots: of.iter().map(|worker| slots(worker)).sum(),
                busy: open
                    .iter()
                    .filter(|attempt| attempt.system == *name && attempt.built_at.is_none())
                    .count(),
            }
        })
        .collect()
}

fn active(open: &[OpenAttempt]) -> BTreeMap<BuildState, usize> {
    let mut counts = BTreeMap::new();
    for attempt in open {
        *counts.entry(attempt.state).or_default() += 1;
    }
    counts
}

/// Tells for what builds wait that only lack a worker.
fn lack(queued: &Queued, workers: &[Worker]) -> Reason {
    let able = |worker: &&Worker| {
        is_connected(worker)
            && worker.store_directory == queued.store_directory
            && (queued.system == "builtin" || worker.systems.contains(&queued.system))
            && queued.features.iter().all(|feature| worker.features.contains(feature))
    };
    let mut able = workers.iter().filter(able).peekable();
    if able.peek().is_none() {
        Reason::NoWorker
    } else if able.all(|worker| worker.paused || worker.draining || worker.shortage.is_some()) {
        Reason::WorkersPaused
    } else {
        Reason::NoFreeSlot
    }
}

fn queue_lines(queue: &[Queued], workers: &[Worker]) -> Vec<QueueLine> {
    let mut lines: BTreeMap<(String, Vec<String>, Reason), i64> = BTreeMap::new();
    for queued in queue {
        let reason = match queued.state {
            BuildState::Waiting => Reason::Dependencies,
            BuildState::Deferred => Reason::Deferred,
            BuildState::Held => Reason::Held,
            _ => lack(queued, workers),
        };
        // Features matter to those only that lack a worker.
        let features = match reason {
            Reason::NoWorker | Reason::WorkersPaused | Reason::NoFreeSlot => queued.features.clone(),
            Reason::Dependencies | Reason::Deferred | Reason::Held => Vec::new(),
        };
        *lines.entry((queued.system.clone(), features, reason)).or_default() += queued.builds;
    }
    lines
        .into_iter()
        .map(|((system, features, reason), builds)| QueueLine { system, features, reason, builds })
        .collect()
}

impl Status {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut servers = Table::new(&["SERVER", "STATE", "HOST", "#PORT", "VERSION"]);
        for one in &self.servers {
            servers.row([
                one.name.clone(),
                one.silent_seconds
                    .map_or_else(|| one.state.to_owned(), |seconds| format!("{} for {seconds} s", one.state)),
                one.host.clone(),
                one.port.to_string(),
                one.version.clone(),
            ]);
        }
        text.push_str(&if servers.is_empty() {
            "no remote-server has used this database yet\n".to_owned()
        } else {
            servers.text()
        });

        let w = &self.workers;
        text.push_str(&format!("\nworkers: {} of {} connected", w.connected, w.enrolled));
        for (number, what) in [(w.paused, "paused"), (w.short, "short of something"), (w.draining, "leaving")]
        {
            if number > 0 {
                text.push_str(&format!(", {number} {what}"));
            }
        }
        text.push_str(&format!("; slots: {} of {} busy\n", w.busy, w.slots));
        let mut systems = Table::new(&["SYSTEM", "#WORKERS", "#SLOTS", "#BUSY"]);
        for one in &self.systems {
            systems.row([
                one.system.clone(),
                one.workers.to_string(),
                one.slots.to_string(),
                one.busy.to_string(),
            ]);
        }
        if !systems.is_empty() {
            text.push_str(&systems.text());
        }

        let active: Vec<String> =
            self.active.iter().map(|(state, builds)| format!("{builds} {state}")).collect();
        let waiting: i64 = self.queue.iter().map(|line| line.builds).sum();
        let active = if active.is_empty() { "none".to_owned() } else { active.join(", ") };
        text.push_str(&format!("\nbuilds with a worker: {active}\nbuilds that wait: {waiting}"));
        if let Some(seconds) = self.queue_counted_seconds_ago {
            text.push_str(&format!(" (counted {seconds} s ago)"));
        }
        text.push('\n');
        let mut queue = Table::new(&["#BUILDS", "SYSTEM", "WAIT FOR"]);
        for line in &self.queue {
            let features = match line.features.as_slice() {
                [] => String::new(),
                features => format!(" with {}", features.join(", ")),
            };
            queue.row([
                line.builds.to_string(),
                format!("{}{features}", line.system),
                line.reason.words().to_owned(),
            ]);
        }
        if !queue.is_empty() {
            text.push_str(&queue.text());
        }

        let mut rates = Table::new(&["ENDED", "#LAST MINUTE", "#LAST 10 MINUTES"]);
        for rate in &self.rates {
            rates.row([
                rate.state.to_string(),
                rate.last_minute.to_string(),
                rate.last_ten_minutes.to_string(),
            ]);
        }
        if rates.is_empty() {
            text.push_str("\nnothing ended in the last ten minutes\n");
        } else {
            text.push_str(&format!("\n{}", rates.text()));
        }

        let mut specifications = Table::new(&["SPECIFICATION", "#EVALUATION", "STATUS", "LAST LOOK"]);
        for one in self.specifications.iter().filter(|one| one.enabled) {
            specifications.row([
                one.name.clone(),
                one.evaluation.map_or_else(|| "-".to_owned(), |id| id.to_string()),
                one.status.unwrap_or("-").to_owned(),
                one.check_error
                    .as_deref()
                    .and_then(|error| error.lines().next())
                    .unwrap_or("fine")
                    .to_owned(),
            ]);
        }
        if !specifications.is_empty() {
            text.push_str(&format!("\n{}", specifications.text()));
        }
        text
    }
}
