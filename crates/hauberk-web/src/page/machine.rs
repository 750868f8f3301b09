//! `/machine/NAME`: the workers of a machine, and what they did.

use askama::Template;
use axum::extract::{Path, State};
use hauberk_database::WorkerId;
use hauberk_database::operators::{self, Subject};
use hauberk_database::pages::{self, WorkerAttempt};

use super::history::{self, Line};
use super::slots::{Presence, Row};
use super::{Page, render};
use crate::app::App;
use crate::failure::PageFailure;
use crate::operators::{Session, Visitor};
use crate::view as v;

const ATTEMPTS: i64 = 10_000;
/// Attempts of the history that are shown.
const HISTORY: i64 = 50;

#[derive(Template)]
#[template(path = "machine.html")]
struct Machine {
    name: String,
    rows: Vec<Row>,
    attempts: Vec<WorkerAttempt>,
    history: Vec<Line>,
    operator: Option<Session>,
}

/// Workers whose deeds are told: one machine has few.
const DEEDS_OF: usize = 16;

/// Serves `/machine/NAME`.
pub(crate) async fn show(
    State(app): State<App>,
    Path(name): Path<String>,
    Visitor(operator): Visitor,
) -> Page {
    let client = app.database.client().await?;
    let workers = pages::workers(&client, Some(&name)).await?;
    if workers.is_empty() {
        return Err(PageFailure::Missing(format!("No worker runs on a machine `{name}`.")));
    }
    let ids: Vec<WorkerId> = workers.iter().map(|worker| worker.id).collect();
    let attempts = pages::open_attempts(&client, ATTEMPTS).await?;
    let past = pages::worker_attempts(&client, &ids, HISTORY).await?;
    let mut deeds = Vec::new();
    for worker in workers.iter().take(DEEDS_OF) {
        deeds.extend(operators::of_subject(&client, Subject::Worker, &worker.name, history::LINES).await?);
    }
    deeds.sort_by_key(|line| std::cmp::Reverse(line.at));
    let history = history::of_several(deeds);
    render(&Machine { name, rows: Row::gather(workers, &attempts), attempts: past, history, operator })
}
