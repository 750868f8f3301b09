//! `/build/ID/details`: all about a build.

use askama::Template;
use axum::extract::{Path, Query, State};
use hauberk_database::operators;
use hauberk_database::pages::{self, Attempt, Build, BuildLine, EdgeCounts, Output, Wanted};
use hauberk_database::{BuildId, BuildState, DatabaseError, GenericClient};

use super::history::{self, Line};
use super::{Page, Parameters, parse, render};
use crate::app::App;
use crate::failure::PageFailure;
use crate::operators::{Session, Visitor};
use crate::view as v;

/// Neighbours shown at first, and on demand.
const FEW: i64 = 10;
const MANY: i64 = 1000;
const ATTEMPTS: i64 = 100;
const WANTED: i64 = 20;

#[derive(Template)]
#[template(path = "build.html")]
struct BuildPage {
    build: Build,
    why: Option<String>,
    outputs: Vec<Output>,
    attempts: Vec<Attempt>,
    /// The attempt that runs or that decided.
    deciding: Option<Attempt>,
    wanted: Vec<Wanted>,
    edges: EdgeCounts,
    dependencies: Vec<BuildLine>,
    dependents: Vec<BuildLine>,
    history: Vec<Line>,
    operator: Option<Session>,
}

impl BuildPage {
    fn is_live(&self) -> bool {
        !self.build.line.state.is_final()
    }
}

/// Serves `/build/ID/details`.
pub(crate) async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(parameters): Query<Parameters>,
    Visitor(operator): Visitor,
) -> Page {
    let id: BuildId = parse(&id, "a build")?;
    let shows_all = |list: &str| parameters.get("all").is_some_and(|all| all == list);
    let client = app.database.client().await?;
    let Some(build) = pages::build(&client, id).await? else {
        return Err(PageFailure::Missing(format!("Build with ID {id} doesn't exist.")));
    };
    let limit = |list| if shows_all(list) { MANY } else { FEW };
    let attempts = pages::attempts(&client, id, ATTEMPTS).await?;
    render(&BuildPage {
        why: why(&client, &build).await?,
        outputs: pages::outputs(&client, &[id]).await?,
        deciding: attempts.iter().find(|attempt| Some(attempt.id) == build.attempt).cloned(),
        attempts,
        wanted: pages::wanted_by(&client, id, WANTED).await?,
        edges: pages::edge_counts(&client, id).await?,
        dependencies: pages::dependencies(&client, id, limit("dependencies")).await?,
        dependents: pages::dependents(&client, id, limit("dependents")).await?,
        history: history::of_build(operators::of_build(&client, id, history::LINES).await?, id),
        operator,
        build,
    })
}

/// Says why a build is not under way.
async fn why(client: &impl GenericClient, build: &Build) -> Result<Option<String>, DatabaseError> {
    Ok(match build.line.state {
        BuildState::Staged => Some("Its evaluation is not published yet.".to_owned()),
        BuildState::Held => Some("An operator keeps it back.".to_owned()),
        BuildState::Waiting => Some(match build.unmet {
            1 => "It waits for one build that has not succeeded yet.".to_owned(),
            unmet => format!("It waits for {unmet} builds that have not succeeded yet."),
        }),
        BuildState::Deferred => Some(match build.not_before {
            Some(at) => format!("It will be tried again after {} UTC.", v::exact(&at)),
            None => "It will be tried again later.".to_owned(),
        }),
        BuildState::Ready => pages::ahead(client, build.line.id).await?.map(|ahead| {
            let system = &build.line.system;
            match (ahead.workers, ahead.builds) {
                (0, _) if build.features.is_empty() => {
                    format!("No connected worker builds for {system}.")
                }
                (0, _) => {
                    format!("No connected worker builds for {system} and has {}.", build.features.join(", "))
                }
                (_, 0) => "It is the next of its kind: a free slot takes it.".to_owned(),
                (_, 1) => "One more urgent build of its kind waits for a free slot before it.".to_owned(),
                (_, 1000..) => "A thousand or more urgent builds of its kind wait before it.".to_owned(),
                (_, ahead) => format!("{ahead} more urgent builds of its kind wait before it."),
            }
        }),
        BuildState::Assigned
        | BuildState::Running
        | BuildState::Built
        | BuildState::Fetching
        | BuildState::Succeeded
        | BuildState::Failed
        | BuildState::FailedDependency
        | BuildState::FailedOther
        | BuildState::Canceled => None,
    })
}
