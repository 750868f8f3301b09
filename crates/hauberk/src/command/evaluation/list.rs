//! `hauberk evaluation list` and `show`.

use std::collections::BTreeMap;

use anyhow::anyhow;
use clap::Args;
use hauberk_database::EvaluationId;
use hauberk_database::audit::Entry;
use hauberk_database::evaluations::JobError;
use hauberk_database::operators::{self, Subject};
use hauberk_database::pages::{self, Checkout, Evaluation, StatusCounts};
use jiff::Timestamp;
use serde::Serialize;

use crate::command::DatabaseLocation;
use crate::command::audit::{EntryObject, history_text};
use crate::exit::Failure;
use crate::output::{Form, Table, ago, at, maybe_at, moment, plain};

/// Jobs without a build, and lines of the audit, that are shown.
const MANY: i64 = 100;

/// List evaluations, newest first
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only of this specification
    #[arg(long, value_name = "NAME")]
    specification: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    #[command(flatten)]
    form: Form,
}

/// Show all about an evaluation
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The evaluation's number
    #[arg(value_name = "ID")]
    evaluation: i64,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, Serialize)]
struct EvaluationObject<'a> {
    id: EvaluationId,
    specification: &'a str,
    status: &'static str,
    message: Option<&'a str>,
    #[serde(serialize_with = "at")]
    created_at: Timestamp,
    #[serde(serialize_with = "maybe_at")]
    finished_at: Option<Timestamp>,
    jobs: Jobs,
    checkouts: Vec<CheckoutObject<'a>>,
}

/// The jobs of an evaluation, by how their builds stand.
#[derive(Debug, Clone, Copy, Serialize)]
struct Jobs {
    total: u64,
    unfinished: u64,
    succeeded: u64,
    failed: u64,
    newly_failed: u64,
}

#[derive(Debug, Serialize)]
struct CheckoutObject<'a> {
    input: &'a str,
    url: &'a str,
    branch: &'a str,
    revision: &'a str,
}

#[derive(Debug, Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    evaluation: EvaluationObject<'a>,
    errors: Vec<ErrorObject<'a>>,
    history: Vec<EntryObject<'a>>,
}

#[derive(Debug, Serialize)]
struct ErrorObject<'a> {
    job: &'a str,
    message: &'a str,
}

fn jobs(counts: &StatusCounts) -> Jobs {
    Jobs {
        total: counts.total(),
        unfinished: counts.unfinished(),
        succeeded: counts.succeeded,
        failed: counts.not_succeeded(),
        newly_failed: counts.new_failures,
    }
}

fn object<'a>(
    evaluation: &'a Evaluation,
    counts: &BTreeMap<EvaluationId, StatusCounts>,
    checkouts: &'a [Checkout],
) -> EvaluationObject<'a> {
    EvaluationObject {
        id: evaluation.id,
        specification: &evaluation.specification,
        status: evaluation.status.as_str(),
        message: evaluation.message.as_deref(),
        created_at: evaluation.created_at,
        finished_at: evaluation.finished_at,
        jobs: jobs(&counts.get(&evaluation.id).copied().unwrap_or_default()),
        checkouts: checkouts
            .iter()
            .filter(|checkout| checkout.evaluation == evaluation.id)
            .map(|checkout| CheckoutObject {
                input: &checkout.input,
                url: &checkout.url,
                branch: &checkout.branch,
                revision: &checkout.revision,
            })
            .collect(),
    }
}

pub(super) async fn list(options: List, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let client = database.client().await?;
    let evaluations = match &options.specification {
        None => pages::evaluations_of_all(&client, options.limit).await?,
        Some(name) => {
            let Some(specification) = pages::specification(&client, name).await? else {
                return Err(operators::OperatorError::NoSpecification(name.clone()).into());
            };
            pages::evaluations(&client, specification.id, None, options.limit).await?
        }
    };
    let ids: Vec<EvaluationId> = evaluations.iter().map(|evaluation| evaluation.id).collect();
    let counts = pages::evaluation_counts(&client, &ids).await?;
    let checkouts = pages::checkouts(&client, &ids).await?;
    let objects: Vec<EvaluationObject<'_>> =
        evaluations.iter().map(|evaluation| object(evaluation, &counts, &checkouts)).collect();
    options.form.show(&objects, || {
        let mut table = Table::new(&[
            "#EVALUATION",
            "SPECIFICATION",
            "STATUS",
            "BEGAN",
            "#JOBS",
            "#UNFINISHED",
            "#SUCCEEDED",
            "#FAILED",
            "MESSAGE",
        ]);
        for one in &objects {
            table.row([
                one.id.to_string(),
                one.specification.to_owned(),
                one.status.to_owned(),
                ago(Some(one.created_at)),
                one.jobs.total.to_string(),
                one.jobs.unfinished.to_string(),
                one.jobs.succeeded.to_string(),
                one.jobs.failed.to_string(),
                one.message.and_then(|message| message.lines().next()).unwrap_or_default().to_owned(),
            ]);
        }
        if table.is_empty() { "there is no evaluation yet\n".to_owned() } else { table.text() }
    })
}

pub(super) async fn show(options: Show, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let client = database.client().await?;
    let id = EvaluationId::new(options.evaluation);
    let Some((evaluation, _)) = pages::evaluation(&client, id).await? else {
        return Err(Failure::configuration(anyhow!(
            "there is no evaluation {id}; `hauberk evaluation list` shows what there is"
        )));
    };
    let counts = pages::evaluation_counts(&client, &[id]).await?;
    let checkouts = pages::checkouts(&client, &[id]).await?;
    let (errors, error_count) = pages::job_errors(&client, id, MANY).await?;
    let history = operators::of_subject(&client, Subject::Evaluation, &id.to_string(), MANY).await?;
    let whole = Whole {
        evaluation: object(&evaluation, &counts, &checkouts),
        errors: errors
            .iter()
            .map(|error| ErrorObject { job: &error.name, message: &error.message })
            .collect(),
        history: history.iter().map(EntryObject::from).collect(),
    };
    options.form.show(&whole, || text(&whole, &errors, error_count, &history))
}

fn text(whole: &Whole<'_>, errors: &[JobError], error_count: i64, history: &[Entry]) -> String {
    let one = &whole.evaluation;
    let mut text = format!("evaluation {} of {}: {}\n", one.id, plain(one.specification), one.status);
    let mut fact = |name: &str, value: String| text.push_str(&format!("  {name:14}{}\n", plain(&value)));
    fact("began", format!("{} ({})", moment(Some(one.created_at)), ago(Some(one.created_at))));
    fact("ended", moment(one.finished_at));
    for line in one.message.unwrap_or_default().lines() {
        fact("message", line.to_owned());
    }
    for checkout in &one.checkouts {
        fact(
            "input",
            format!("{} {} ({}) at {}", checkout.input, checkout.url, checkout.branch, checkout.revision),
        );
    }
    let jobs = one.jobs;
    fact(
        "jobs",
        format!(
            "{}: {} succeeded, {} unfinished, {} failed, {} of them newly",
            jobs.total, jobs.succeeded, jobs.unfinished, jobs.failed, jobs.newly_failed
        ),
    );
    if !errors.is_empty() {
        text.push_str(&format!("{error_count} jobs gave no build:\n"));
        for error in errors {
            text.push_str(&format!("  {}: {}\n", plain(&error.name), plain(&error.message)));
        }
    }
    text.push_str(&history_text(history));
    text
}
