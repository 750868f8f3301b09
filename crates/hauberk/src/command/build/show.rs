//! `hauberk build show`.

use anyhow::anyhow;
use clap::Args;
use hauberk_database::audit::Entry;
use hauberk_database::pages::{self, Attempt, Build, EdgeCounts, MissingProduct, Output, Product, Wanted};
use hauberk_database::{AttemptId, BuildId, BuildState, EvaluationId, ProductId, operators};
use hauberk_store::Sha256;
use jiff::Timestamp;
use serde::Serialize;

use crate::command::DatabaseLocation;
use crate::command::audit::{EntryObject, history_text};
use crate::command::named::find_build;
use crate::exit::Failure;
use crate::output::{Form, Table, ago, at, bytes, maybe_at, moment, plain};

/// Attempts, jobs and lines of the audit that are shown.
const MANY: i64 = 100;

/// Show all about a build
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The build
    #[arg(value_name = "BUILD")]
    build: String,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, Serialize)]
struct BuildObject<'a> {
    id: BuildId,
    name: &'a str,
    system: &'a str,
    features: &'a [String],
    store_directory: &'a str,
    state: BuildState,
    priority: i16,
    specification: &'a str,
    derivation: Option<&'a str>,
    generation: i32,
    unmet: i32,
    farm_faults: i16,
    failed_build: Option<BuildId>,
    #[serde(serialize_with = "at")]
    created_at: Timestamp,
    #[serde(serialize_with = "maybe_at")]
    started_at: Option<Timestamp>,
    #[serde(serialize_with = "maybe_at")]
    finished_at: Option<Timestamp>,
    #[serde(serialize_with = "maybe_at")]
    not_before: Option<Timestamp>,
    timeout_seconds: i32,
    max_silent_seconds: i32,
    dependencies: i64,
    dependents: i64,
    outputs: Vec<OutputObject<'a>>,
    products: Vec<ProductObject<'a>>,
    missing_products: Vec<MissingObject<'a>>,
    attempts: Vec<AttemptObject<'a>>,
    wanted_by: Vec<WantedObject<'a>>,
    history: Vec<EntryObject<'a>>,
}

#[derive(Debug, Serialize)]
struct OutputObject<'a> {
    name: &'a str,
    path: &'a str,
    nar_size: Option<i64>,
}

#[derive(Debug, Serialize)]
struct ProductObject<'a> {
    id: ProductId,
    #[serde(rename = "type")]
    kind: &'a str,
    path: &'a str,
    name: &'a str,
    directory: bool,
    size: i64,
    sha256: String,
}

#[derive(Debug, Serialize)]
struct MissingObject<'a> {
    specification: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    output: &'a str,
    path: &'a str,
    awaited: bool,
    message: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct AttemptObject<'a> {
    id: AttemptId,
    number: i32,
    kind: &'a str,
    worker: &'a str,
    machine: &'a str,
    class: Option<&'a str>,
    exit_status: Option<i32>,
    message: Option<&'a str>,
    origin: Option<&'a str>,
    #[serde(serialize_with = "at")]
    assigned_at: Timestamp,
    #[serde(serialize_with = "maybe_at")]
    started_at: Option<Timestamp>,
    #[serde(serialize_with = "maybe_at")]
    built_at: Option<Timestamp>,
    #[serde(serialize_with = "maybe_at")]
    ended_at: Option<Timestamp>,
    build_ms: Option<i64>,
    peak_memory_bytes: Option<i64>,
    log_complete: bool,
}

#[derive(Debug, Serialize)]
struct WantedObject<'a> {
    specification: &'a str,
    evaluation: EvaluationId,
    job: &'a str,
}

/// All that is known of a build.
struct Known {
    build: Build,
    outputs: Vec<Output>,
    products: Vec<Product>,
    missing: Vec<MissingProduct>,
    attempts: Vec<Attempt>,
    wanted: Vec<Wanted>,
    edges: EdgeCounts,
    history: Vec<Entry>,
}

pub(super) async fn run(options: Options, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let client = database.client().await?;
    let id = find_build(&client, &options.build).await?;
    let Some(build) = pages::build(&client, id).await? else {
        return Err(Failure::configuration(anyhow!(
            "there is no build {id}; `hauberk build list` shows what there is"
        )));
    };
    let known = Known {
        build,
        outputs: pages::outputs(&client, &[id]).await?,
        products: pages::products(&client, &[id]).await?,
        missing: pages::missing_products(&client, id, MANY).await?,
        attempts: pages::attempts(&client, id, MANY).await?,
        wanted: pages::wanted_by(&client, id, MANY).await?,
        edges: pages::edge_counts(&client, id).await?,
        history: operators::of_build(&client, id, MANY).await?,
    };
    options.form.show(&known.object(), || known.text())
}

impl Known {
    fn object(&self) -> BuildObject<'_> {
        let (build, line) = (&self.build, &self.build.line);
        BuildObject {
            id: line.id,
            name: &line.name,
            system: &line.system,
            features: &build.features,
            store_directory: &build.store_directory,
            state: line.state,
            priority: line.priority,
            specification: &build.specification,
            derivation: build.derivation.as_deref(),
            generation: build.generation,
            unmet: build.unmet,
            farm_faults: build.farm_faults,
            failed_build: build.failed_build.as_ref().map(|(id, _)| *id),
            created_at: line.created_at,
            started_at: line.started_at,
            finished_at: line.finished_at,
            not_before: build.not_before,
            timeout_seconds: build.timeout,
            max_silent_seconds: build.max_silent,
            dependencies: self.edges.dependencies,
            dependents: self.edges.dependents,
            outputs: self
                .outputs
                .iter()
                .map(|output| OutputObject {
                    name: &output.name,
                    path: &output.path,
                    nar_size: output.nar_size,
                })
                .collect(),
            products: self.products.iter().map(product).collect(),
            missing_products: self
                .missing
                .iter()
                .map(|one| MissingObject {
                    specification: &one.specification,
                    kind: &one.kind,
                    output: &one.output,
                    path: &one.path,
                    awaited: one.awaited,
                    message: one.message.as_deref(),
                })
                .collect(),
            attempts: self.attempts.iter().map(attempt).collect(),
            wanted_by: self
                .wanted
                .iter()
                .map(|one| WantedObject {
                    specification: &one.specification,
                    evaluation: one.evaluation,
                    job: &one.job,
                })
                .collect(),
            history: self.history.iter().map(EntryObject::from).collect(),
        }
    }

    fn text(&self) -> String {
        let (build, line) = (&self.build, &self.build.line);
        let mut text = format!("build {} {}: {}\n", line.id, plain(&line.name), line.state);
        let mut fact = |name: &str, value: String| {
            text.push_str(&format!("  {name:14}{}\n", plain(&value)));
        };
        let features = match build.features.as_slice() {
            [] => String::new(),
            features => format!(", needs {}", features.join(", ")),
        };
        fact("system", format!("{}{features}, {}", line.system, build.store_directory));
        fact("specification", build.specification.clone());
        fact("priority", line.priority.to_string());
        if let Some(derivation) = &build.derivation {
            fact("derivation", derivation.clone());
        }
        for output in &self.outputs {
            fact("output", format!("{} {}", output.name, output.path));
        }
        for one in &self.products {
            let sha256 = Sha256::from_bytes(one.sha256).to_sri();
            fact(
                "product",
                format!(
                    "{} {} ({}, {sha256}) /download/{}",
                    one.kind,
                    one.path,
                    bytes(one.file_size),
                    one.id
                ),
            );
        }
        for one in &self.missing {
            let why = one.message.as_deref().unwrap_or("not here yet");
            let path = if one.path.is_empty() { String::new() } else { format!(" {}", one.path) };
            fact("no product", format!("{} of {}: {}{path}: {why}", one.kind, one.specification, one.output));
        }
        fact("recorded", format!("{} ({})", moment(Some(line.created_at)), ago(Some(line.created_at))));
        fact("began", moment(line.started_at));
        fact("ended", moment(line.finished_at));
        if let Some((id, name)) = &build.failed_build {
            fact("because of", format!("build {id} {name}"));
        }
        if build.unmet > 0 {
            fact("waits for", format!("{} builds that have not succeeded", build.unmet));
        }
        fact("needs", format!("{} builds; needed by {}", self.edges.dependencies, self.edges.dependents));
        for one in &self.wanted {
            fact("wanted by", format!("{} evaluation {} as {}", one.specification, one.evaluation, one.job));
        }
        if !self.attempts.is_empty() {
            let mut table = Table::new(&[
                "#NO",
                "KIND",
                "WORKER",
                "RESULT",
                "ASSIGNED",
                "#BUILT IN",
                "#MEMORY",
                "MESSAGE",
            ]);
            for attempt in &self.attempts {
                let open = if attempt.started_at.is_some() { "running" } else { "assigned" };
                table.row([
                    attempt.number.to_string(),
                    attempt.kind.clone(),
                    attempt.worker.clone(),
                    attempt.class.clone().unwrap_or_else(|| open.to_owned()),
                    ago(Some(attempt.assigned_at)),
                    attempt.build_ms.map_or_else(|| "-".to_owned(), seconds),
                    attempt.peak_memory.map_or_else(|| "-".to_owned(), bytes),
                    attempt.message.clone().unwrap_or_default(),
                ]);
            }
            text.push_str("attempts:\n");
            text.push_str(&table.text());
        }
        text.push_str(&history_text(&self.history));
        text
    }
}

/// Writes milliseconds as seconds.
fn seconds(milliseconds: i64) -> String {
    format!("{:.1} s", milliseconds as f64 / 1000.0)
}

fn product(product: &Product) -> ProductObject<'_> {
    ProductObject {
        id: product.id,
        kind: &product.kind,
        path: &product.path,
        name: &product.name,
        directory: product.directory,
        size: product.file_size,
        sha256: Sha256::from_bytes(product.sha256).to_sri(),
    }
}

fn attempt(attempt: &Attempt) -> AttemptObject<'_> {
    AttemptObject {
        id: attempt.id,
        number: attempt.number,
        kind: &attempt.kind,
        worker: &attempt.worker,
        machine: &attempt.machine,
        class: attempt.class.as_deref(),
        exit_status: attempt.exit_status,
        message: attempt.message.as_deref(),
        origin: attempt.origin.as_deref(),
        assigned_at: attempt.assigned_at,
        started_at: attempt.started_at,
        built_at: attempt.built_at,
        ended_at: attempt.ended_at,
        build_ms: attempt.build_ms,
        peak_memory_bytes: attempt.peak_memory,
        log_complete: attempt.log_complete,
    }
}
