//! `/`: the specifications.

use askama::Template;
use axum::extract::State;
use hauberk_database::EvaluationId;
use hauberk_database::pages::{self, Checkout, Specification};

use super::{Page, counts, render};
use crate::app::App;
use crate::view::{self as v, Bar};

#[derive(Template)]
#[template(path = "specifications.html")]
struct Specifications {
    rows: Vec<Row>,
}

struct Row {
    specification: Specification,
    /// The evaluation whose jobs are counted.
    counted: Option<EvaluationId>,
    bar: Bar,
    new_failures: u64,
    checkouts: Vec<Checkout>,
}

/// Serves `/`.
pub(crate) async fn show(State(app): State<App>) -> Page {
    let client = app.database.client().await?;
    let specifications = pages::specifications(&client).await?;
    let counted: Vec<EvaluationId> = specifications.iter().filter_map(|one| one.latest_succeeded).collect();
    let counts = counts(&app, &client, &counted).await?;
    let latest: Vec<EvaluationId> =
        specifications.iter().filter_map(|one| one.latest.as_ref().map(|latest| latest.id)).collect();
    let checkouts = pages::checkouts(&client, &latest).await?;
    let rows = specifications
        .into_iter()
        .map(|specification| {
            let counted = specification.latest_succeeded;
            let counts = counted.and_then(|id| counts.get(&id)).copied().unwrap_or_default();
            let latest = specification.latest.as_ref().map(|latest| latest.id);
            Row {
                counted,
                bar: Bar::new(&counts),
                new_failures: counts.new_failures,
                checkouts: checkouts.iter().filter(|one| Some(one.evaluation) == latest).cloned().collect(),
                specification,
            }
        })
        .collect();
    render(&Specifications { rows })
}
