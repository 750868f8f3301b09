//! `/build/ID/details`: all about a build.

use askama::Template;
use axum::extract::{Path, Query, State};
use hauberk_database::pages::{
    self, Attempt, Build, BuildLine, EdgeCounts, MissingProduct, Output, Product, Wanted,
};
use hauberk_database::why::{self, Foretold, Reason, Seconds, Why};
use hauberk_database::{BuildId, operators};

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
/// Products that are not here, of which it is said why.
const MISSING: i64 = 20;

#[derive(Template)]
#[template(path = "build.html")]
struct BuildPage {
    build: Build,
    why: Vec<String>,
    foretold: Option<String>,
    outputs: Vec<Output>,
    products: Vec<Product>,
    missing_products: Vec<MissingProduct>,
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
        why: reasons(why::why(&client, id).await?),
        foretold: why::forecast(&client, id)
            .await?
            .and_then(|Foretold { start, end }| Some(foretold(start?, end))),
        outputs: pages::outputs(&client, &[id]).await?,
        products: pages::products(&client, &[id]).await?,
        missing_products: pages::missing_products(&client, id, MISSING).await?,
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

/// The reasons that the page does not tell otherwise.
fn reasons(why: Option<Why>) -> Vec<String> {
    let reasons = why.map(|why| why.reasons).unwrap_or_default();
    let told = |reason: &Reason| {
        matches!(reason, Reason::FailedDependency { .. } | Reason::Canceled | Reason::WithWorker { .. })
    };
    reasons.iter().filter(|reason| !told(reason)).map(ToString::to_string).collect()
}

/// Says in a line when a build should begin and end.
fn foretold(start: Seconds, end: Seconds) -> String {
    let rough = |seconds: f64| {
        // A build takes no thousands of years.
        v::milliseconds(&((seconds.max(0.0) * 1000.0) as i64))
    };
    let span = |span: &Seconds| {
        format!("in about {} ({} to {})", rough(span.likely), rough(span.earliest), rough(span.latest))
    };
    format!("It should begin {}, and end {}.", span(&start), span(&end))
}
