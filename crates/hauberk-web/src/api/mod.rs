//! The JSON API, in the shapes of Cuirass, which are those of Hydra.

mod shape;

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use hauberk_database::pages::{self, Checkout, Evaluation, FinishedFilter};
use hauberk_database::why::{self, Foretold, Why};
use hauberk_database::{BuildId, EvaluationId, GenericClient};

use crate::app::App;
use crate::failure::ApiFailure;
use serde::Serialize;
use shape::{Build, EvaluationObject, Job, Jobset, Output};

/// Most objects in an answer.
const MOST: i64 = 1000;

type Parameters = HashMap<String, String>;
type Answer<T> = Result<Json<T>, ApiFailure>;

/// Serves `/build/ID` and `/build/HASH-NAME.drv`.
pub(crate) async fn build(State(app): State<App>, Path(id): Path<String>) -> Answer<Build> {
    let client = app.database.client().await?;
    let known = match id.parse::<BuildId>() {
        Ok(known) => Some(known),
        Err(_) => pages::build_of_derivation(&client, &id).await?,
    };
    let found = match known {
        Some(known) => pages::build_summaries(&client, &[known], None).await?.pop(),
        None => None,
    };
    match found {
        Some(summary) => Ok(Json(summary.into())),
        None => Err(ApiFailure::Missing(format!("Build with ID {id} doesn't exist."))),
    }
}

/// Why a build is not running, in words too, and when it should begin and end.
#[derive(Debug, Serialize)]
pub(crate) struct Explained {
    #[serde(flatten)]
    why: Why,
    text: String,
    forecast: Option<Foretold>,
}

/// Serves `/api/build/ID/why`.
pub(crate) async fn why(State(app): State<App>, Path(id): Path<String>) -> Answer<Explained> {
    let missing = || ApiFailure::Missing(format!("Build with ID {id} doesn't exist."));
    let build: BuildId = id.parse().map_err(|_| missing())?;
    let client = app.database.client().await?;
    let why = why::why(&client, build).await?.ok_or_else(missing)?;
    let forecast = why::forecast(&client, build).await?;
    Ok(Json(Explained { text: why.to_string(), why, forecast }))
}

/// Serves `/output/HASH-NAME`.
pub(crate) async fn output(State(app): State<App>, Path(name): Path<String>) -> Answer<Output> {
    let client = app.database.client().await?;
    let Some(output) = pages::output(&client, &name).await? else {
        return Err(ApiFailure::Missing(format!("Output with ID {name} doesn't exist.")));
    };
    let build = pages::build_summaries(&client, &[output.build], None).await?.pop();
    Ok(Json(Output { name: output.name, derivation: output.derivation, build: build.map(Build::from) }))
}

/// Serves `/jobsets` and `/specifications`: those that are looked at.
pub(crate) async fn jobsets(State(app): State<App>) -> Answer<Vec<Jobset>> {
    let client = app.database.client().await?;
    let mut specifications = pages::specifications(&client).await?;
    specifications.retain(|specification| specification.enabled);
    let latest: Vec<EvaluationId> = specifications.iter().filter_map(|one| one.latest_succeeded).collect();
    let checkouts = pages::checkouts(&client, &latest).await?;
    Ok(Json(specifications.iter().map(|one| Jobset::new(one, &checkouts)).collect()))
}

/// Serves `/api/queue?nr=N`.
pub(crate) async fn queue(
    State(app): State<App>,
    Query(parameters): Query<Parameters>,
) -> Answer<Vec<Build>> {
    let number = number(&parameters)?;
    let client = app.database.client().await?;
    let ids = pages::queued_builds(&client, number).await?;
    Ok(Json(summaries(&client, &ids, None).await?))
}

/// Serves `/api/latestbuilds?nr=N`, with `jobset`, `job`, `system` and `evaluation`. A `status` is ignored: clients of Cuirass send
/// one that they do not mean.
pub(crate) async fn latest_builds(
    State(app): State<App>,
    Query(parameters): Query<Parameters>,
) -> Answer<Vec<Build>> {
    let number = number(&parameters)?;
    let text = |name: &str| parameters.get(name).filter(|text| !text.is_empty()).cloned();
    let evaluation = parameters.get("evaluation").and_then(|id| id.parse().ok());
    let filter = FinishedFilter {
        evaluation,
        specification: text("jobset"),
        job: text("job").filter(|_| evaluation.is_none()),
        system: text("system"),
    };
    let client = app.database.client().await?;
    // Of an evaluation, the job is looked for in what it gave.
    let job = text("job").filter(|_| evaluation.is_some());
    let limit = if job.is_some() { i64::from(i32::MAX) } else { number };
    let mut ids = pages::finished_builds(&client, &filter, limit).await?;
    if let (Some(job), Some(evaluation)) = (job, evaluation) {
        let named = pages::job_statuses(&client, evaluation, None, Some(&[job])).await?;
        ids.retain(|id| named.iter().any(|one| one.build == *id));
    }
    Ok(Json(summaries(&client, &ids, evaluation).await?))
}

/// Serves `/api/evaluations?nr=N`, with `spec`.
pub(crate) async fn evaluations(
    State(app): State<App>,
    Query(parameters): Query<Parameters>,
) -> Answer<Vec<EvaluationObject>> {
    let number = number(&parameters)?;
    let client = app.database.client().await?;
    let evaluations = match parameters.get("spec") {
        None => pages::evaluations_of_all(&client, number).await?,
        Some(name) => match pages::specification(&client, name).await? {
            Some(specification) => pages::evaluations(&client, specification.id, None, number).await?,
            None => Vec::new(),
        },
    };
    let ids: Vec<EvaluationId> = evaluations.iter().map(|evaluation| evaluation.id).collect();
    let checkouts = pages::checkouts(&client, &ids).await?;
    Ok(Json(evaluations.into_iter().map(|one| object(one, &checkouts)).collect()))
}

/// Serves `/api/evaluation?id=N`.
pub(crate) async fn evaluation(
    State(app): State<App>,
    Query(parameters): Query<Parameters>,
) -> Answer<EvaluationObject> {
    let id = evaluation_id(&parameters, "id")?;
    let client = app.database.client().await?;
    let Some((evaluation, _)) = pages::evaluation(&client, id).await? else {
        return Err(ApiFailure::Missing(format!("Evaluation with ID {id} doesn't exist.")));
    };
    let checkouts = pages::checkouts(&client, &[id]).await?;
    Ok(Json(object(evaluation, &checkouts)))
}

/// Serves `/api/jobs?evaluation=N`, with `system` and `names=A,B`.
pub(crate) async fn jobs(State(app): State<App>, Query(parameters): Query<Parameters>) -> Answer<Vec<Job>> {
    let id = evaluation_id(&parameters, "evaluation")?;
    let system = parameters.get("system").map(String::as_str).filter(|system| !system.is_empty());
    let names: Option<Vec<String>> = parameters
        .get("names")
        .filter(|names| !names.is_empty())
        .map(|names| names.split(',').map(str::to_owned).collect());
    let client = app.database.client().await?;
    let jobs = pages::job_statuses(&client, id, system, names.as_deref()).await?;
    Ok(Json(jobs.into_iter().map(Job::from).collect()))
}

async fn summaries(
    client: &impl GenericClient,
    ids: &[BuildId],
    evaluation: Option<EvaluationId>,
) -> Result<Vec<Build>, ApiFailure> {
    let ids = &ids[..ids.len().min(MOST as usize)];
    let summaries = pages::build_summaries(client, ids, evaluation).await?;
    Ok(summaries.into_iter().map(Build::from).collect())
}

fn object(evaluation: Evaluation, checkouts: &[Checkout]) -> EvaluationObject {
    let own =
        checkouts.iter().filter(|checkout| checkout.evaluation == evaluation.id).map(Into::into).collect();
    EvaluationObject::new(evaluation, own)
}

/// Reads `nr`, of which Cuirass's clients rely on the bound.
fn number(parameters: &Parameters) -> Result<i64, ApiFailure> {
    let number = parameters.get("nr").and_then(|text| text.parse::<u64>().ok());
    match number.map(i64::try_from) {
        None => Err(ApiFailure::Parameter("Parameter not defined!")),
        Some(Ok(number)) if number <= MOST => Ok(number),
        Some(_) => Err(ApiFailure::Parameter("Maximum limit exceeded")),
    }
}

fn evaluation_id(parameters: &Parameters, name: &str) -> Result<EvaluationId, ApiFailure> {
    parameters
        .get(name)
        .and_then(|text| text.parse().ok())
        .ok_or(ApiFailure::Parameter("Parameter not defined"))
}
