//! The objects of the JSON API, key by key. Times are Unix seconds; 0 is none.

use std::collections::BTreeMap;

use hauberk_database::BuildStatus;
use hauberk_database::pages::{self, BuildSummary, Checkout, Evaluation, JobStatus, Specification};
use hauberk_store::Sha256;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// A build.
#[derive(Debug, Serialize)]
pub(crate) struct Build {
    id: i64,
    /// None for a build that is only a dependency.
    evaluation: Option<i64>,
    jobset: String,
    job: String,
    /// When it ended, else when it was recorded.
    timestamp: i64,
    starttime: i64,
    stoptime: i64,
    derivation: Option<String>,
    buildoutputs: BTreeMap<String, OutputPath>,
    system: String,
    nixname: String,
    buildstatus: i16,
    weather: i16,
    busy: u8,
    priority: i16,
    finished: u8,
    buildproducts: Vec<Product>,
}

/// Where an output is.
#[derive(Debug, Serialize)]
struct OutputPath {
    path: String,
}

/// A file offered for download.
#[derive(Debug, Serialize)]
struct Product {
    id: i64,
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(rename = "file-size")]
    file_size: i64,
    /// The name it is downloaded under.
    name: String,
    /// SHA-256 of its bytes, as SRI has it.
    checksum: String,
}

/// An evaluation.
#[derive(Debug, Serialize)]
pub(crate) struct EvaluationObject {
    id: i64,
    specification: String,
    status: i16,
    timestamp: i64,
    checkouttime: i64,
    evaltime: i64,
    checkouts: Vec<CheckoutObject>,
}

/// An input of an evaluation.
#[derive(Debug, Serialize)]
pub(crate) struct CheckoutObject {
    commit: String,
    channel: String,
    directory: String,
}

/// A specification.
#[derive(Debug, Serialize)]
pub(crate) struct Jobset {
    name: String,
    build: &'static str,
    channels: Vec<Channel>,
    #[serde(rename = "build-outputs")]
    build_outputs: Vec<BuildOutput>,
    notifications: Vec<Value>,
    period: i64,
    priority: i16,
    systems: Vec<String>,
}

/// Files that a specification offers for download.
#[derive(Debug, Serialize)]
struct BuildOutput {
    job: String,
    #[serde(rename = "type")]
    kind: String,
    output: String,
    path: String,
}

/// An input of a specification.
#[derive(Debug, Serialize)]
struct Channel {
    name: String,
    url: String,
    branch: String,
    /// The one that was last evaluated.
    commit: Option<String>,
}

/// A job of an evaluation.
#[derive(Debug, Serialize)]
pub(crate) struct Job {
    build: i64,
    status: i16,
    name: String,
}

/// An output.
#[derive(Debug, Serialize)]
pub(crate) struct Output {
    pub(super) name: String,
    pub(super) derivation: Option<String>,
    pub(super) build: Option<Build>,
}

impl From<BuildSummary> for Build {
    fn from(build: BuildSummary) -> Self {
        let (evaluation, job, weather) = match build.job {
            Some((evaluation, job, weather)) => (Some(evaluation.get()), job, weather),
            None => (None, build.name.clone(), -1),
        };
        let is_finished = build.status >= BuildStatus::Succeeded;
        let stopped = build.finished_at.filter(|_| is_finished);
        Self {
            id: build.id.get(),
            evaluation,
            jobset: build.specification,
            job,
            timestamp: stopped.unwrap_or(build.created_at).as_second(),
            starttime: seconds(build.started_at),
            stoptime: seconds(stopped),
            derivation: build.derivation,
            buildoutputs: build
                .outputs
                .into_iter()
                .map(|output| (output.name, OutputPath { path: output.path }))
                .collect(),
            system: build.system,
            nixname: build.name,
            buildstatus: build.status.number(),
            weather,
            busy: u8::from(build.status == BuildStatus::Started),
            priority: build.priority,
            finished: u8::from(is_finished),
            buildproducts: build.products.into_iter().map(Product::from).collect(),
        }
    }
}

impl From<pages::Product> for Product {
    fn from(product: pages::Product) -> Self {
        Self {
            id: product.id.get(),
            kind: product.kind,
            path: product.path,
            file_size: product.file_size,
            name: product.name,
            checksum: Sha256::from_bytes(product.sha256).to_sri(),
        }
    }
}

impl From<&Checkout> for CheckoutObject {
    fn from(checkout: &Checkout) -> Self {
        Self {
            commit: checkout.revision.clone(),
            channel: checkout.input.clone(),
            directory: checkout.directory.clone(),
        }
    }
}

impl EvaluationObject {
    pub(super) fn new(evaluation: Evaluation, checkouts: Vec<CheckoutObject>) -> Self {
        Self {
            id: evaluation.id.get(),
            specification: evaluation.specification,
            status: evaluation.status.number(),
            timestamp: evaluation.created_at.as_second(),
            checkouttime: seconds(evaluation.checked_out_at),
            evaltime: seconds(evaluation.finished_at),
            checkouts,
        }
    }
}

impl From<JobStatus> for Job {
    fn from(job: JobStatus) -> Self {
        Self { build: job.build.get(), status: job.status.number(), name: job.name }
    }
}

impl Jobset {
    /// Reads a definition as its file gave it; what is not there is left empty.
    pub(super) fn new(specification: &Specification, checkouts: &[Checkout]) -> Self {
        let definition = &specification.definition;
        let text =
            |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let inputs = definition.get("input").or_else(|| definition.get("inputs")).and_then(Value::as_array);
        let channels = inputs.into_iter().flatten().map(|input| {
            let name = text(input, "name");
            let commit = checkouts
                .iter()
                .find(|one| Some(one.evaluation) == specification.latest_succeeded && one.input == name)
                .map(|one| one.revision.clone());
            Channel { url: text(input, "url"), branch: text(input, "branch"), commit, name }
        });
        let wanted = definition.get("build-output").and_then(Value::as_array);
        let build_outputs = wanted.into_iter().flatten().map(|wanted| BuildOutput {
            job: text(wanted, "job"),
            kind: text(wanted, "type"),
            output: text(wanted, "output"),
            path: text(wanted, "path"),
        });
        let systems = definition.pointer("/evaluator/systems").and_then(Value::as_array);
        Self {
            name: specification.name.clone(),
            build: "custom",
            channels: channels.collect(),
            build_outputs: build_outputs.collect(),
            notifications: Vec::new(),
            period: definition.get("period").and_then(Value::as_i64).unwrap_or(0),
            priority: specification.priority,
            systems: systems.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }
}

fn seconds(at: Option<Timestamp>) -> i64 {
    at.map_or(0, Timestamp::as_second)
}
