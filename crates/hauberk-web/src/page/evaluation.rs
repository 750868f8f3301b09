//! `/eval/ID`: the jobs of an evaluation.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use hauberk_database::evaluations::JobError;
use hauberk_database::operators::{self, Subject};
use hauberk_database::pages::{self, Checkout, Evaluation, Job, JobFilter, Neighbours, StatusCounts};
use hauberk_database::{BuildStatus, EvaluationId};

use super::history::{self, Line};
use super::{Page, Parameters, counts, parse, render};
use crate::app::App;
use crate::failure::PageFailure;
use crate::operators::{Session, Visitor};
use crate::view::{self as v, Bar};

/// Jobs on a page.
const PAGE: usize = 200;
/// Jobs without a build on a page.
const ERRORS: i64 = 200;

#[derive(Template)]
#[template(path = "evaluation.html")]
struct EvaluationPage {
    evaluation: Evaluation,
    neighbours: Neighbours,
    checkouts: Vec<Checkout>,
    counts: StatusCounts,
    bar: Bar,
    /// Jobs that gave no build, and how many they are in all.
    errors: Vec<JobError>,
    error_count: i64,
    tabs: Vec<Tab>,
    status: &'static str,
    query: String,
    jobs: Vec<Job>,
    after: String,
    /// The name that the next page begins after.
    next: Option<String>,
    history: Vec<Line>,
    operator: Option<Session>,
}

struct Tab {
    status: &'static str,
    words: &'static str,
    count: u64,
}

/// Serves `/eval/ID`, and `/eval/latest?spec=NAME`.
pub(crate) async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(parameters): Query<Parameters>,
    Visitor(operator): Visitor,
) -> Response {
    if id == "latest" {
        latest(&app, &parameters).await.into_response()
    } else {
        page(&app, &id, &parameters, operator).await.into_response()
    }
}

async fn latest(app: &App, parameters: &Parameters) -> Result<Redirect, PageFailure> {
    let name = parameters.get("spec").map_or("", String::as_str);
    let client = app.database.client().await?;
    let latest = pages::specification(&client, name).await?.and_then(|one| one.latest_succeeded);
    match latest {
        Some(id) => Ok(Redirect::to(&format!("/eval/{id}"))),
        None => {
            Err(PageFailure::Missing(format!("No evaluation of a specification `{name}` has succeeded yet.")))
        }
    }
}

async fn page(app: &App, id: &str, parameters: &Parameters, operator: Option<Session>) -> Page {
    let id: EvaluationId = parse(id, "an evaluation")?;
    let client = app.database.client().await?;
    let Some((evaluation, neighbours)) = pages::evaluation(&client, id).await? else {
        return Err(PageFailure::Missing(format!("Evaluation with ID {id} doesn't exist.")));
    };
    let checkouts = pages::checkouts(&client, &[id]).await?;
    let (errors, error_count) = pages::job_errors(&client, id, ERRORS).await?;
    let counts = counts(app, &client, &[id]).await?.remove(&id).unwrap_or_default();
    let status = parameters.get("status").map_or("", String::as_str);
    let tabs = tabs(&counts);
    let status = tabs.iter().map(|tab| tab.status).find(|known| *known == status).unwrap_or("");
    let query = parameters.get("query").cloned().unwrap_or_default();
    let after = parameters.get("after").cloned().unwrap_or_default();
    let filter = JobFilter {
        statuses: statuses(status),
        new_failures: status == "newly-failed",
        contains: (!query.is_empty()).then(|| query.clone()),
        after: after.clone(),
    };
    let mut jobs = pages::evaluation_jobs(&client, id, &filter, PAGE as i64 + 1).await?;
    let has_more = jobs.len() > PAGE;
    jobs.truncate(PAGE);
    let next = jobs.last().filter(|_| has_more).map(|job| job.name.clone());
    let history =
        operators::of_subject(&client, Subject::Evaluation, &id.to_string(), history::LINES).await?;
    render(&EvaluationPage {
        evaluation,
        neighbours,
        checkouts,
        counts,
        bar: Bar::new(&counts),
        errors,
        error_count,
        tabs,
        status,
        query,
        jobs,
        after,
        next,
        history: history::of_subject(history),
        operator,
    })
}

fn tabs(counts: &StatusCounts) -> Vec<Tab> {
    let tab = |status, words, count| Tab { status, words, count };
    let mut tabs = vec![
        tab("", "All", counts.total()),
        tab("pending", "Unfinished", counts.unfinished()),
        tab("succeeded", "Succeeded", counts.succeeded),
        tab("failed", "Failed", counts.not_succeeded()),
    ];
    if counts.new_failures > 0 {
        tabs.push(tab("newly-failed", "Newly failed", counts.new_failures));
    }
    tabs
}

fn statuses(filter: &str) -> Vec<BuildStatus> {
    match filter {
        "pending" => vec![BuildStatus::Submitted, BuildStatus::Scheduled, BuildStatus::Started],
        "succeeded" => vec![BuildStatus::Succeeded],
        "failed" => vec![
            BuildStatus::Failed,
            BuildStatus::FailedDependency,
            BuildStatus::FailedOther,
            BuildStatus::Canceled,
        ],
        _ => Vec::new(),
    }
}
