//! `/queue`: what is built, and what will be.

use std::time::Duration;

use askama::Template;
use axum::extract::{Query, State};
use hauberk_database::pages::{self, ActiveBuild, QueuedBuild, ReadyPosition, WaitingPosition};
use hauberk_database::{BuildId, BuildState, DatabaseError, GenericClient};
use jiff::Timestamp;

use super::{Page, Parameters, render};
use crate::app::App;
use crate::failure::PageFailure;
use crate::operators::{Session, Visitor};
use crate::view as v;

/// Builds with a worker that are shown; a farm has fewer slots.
const ACTIVE: i64 = 1000;
/// Waiting builds on a page.
const PAGE: usize = 100;
/// How long the counts of a long queue are kept, and what is long.
const LONG: i64 = 50_000;
const KEEP_SHORT: Duration = Duration::from_secs(1);
const KEEP_LONG: Duration = Duration::from_secs(15);

#[derive(Template)]
#[template(path = "queue.html")]
struct Queue {
    counts: Vec<(BuildState, i64)>,
    total: i64,
    only_ready: bool,
    is_first: bool,
    active: Vec<ActiveBuild>,
    waiting: Vec<QueuedBuild>,
    /// The parameter that names where the next page begins.
    next: Option<String>,
    operator: Option<Session>,
}

/// Serves `/queue`.
pub(crate) async fn show(
    State(app): State<App>,
    Query(parameters): Query<Parameters>,
    Visitor(operator): Visitor,
) -> Page {
    let only_ready = parameters.get("state").is_some_and(|state| state == "ready");
    let after = parameters.get("after").map(String::as_str).filter(|after| !after.is_empty());
    let client = app.database.client().await?;
    let active = if after.is_none() { pages::queue_active(&client, ACTIVE).await? } else { Vec::new() };
    let limit = PAGE as i64 + 1;
    let (waiting, next) = if only_ready {
        let after = after.map(ready_position).transpose()?;
        let mut rows = pages::queue_ready(&client, after, limit).await?;
        let has_more = rows.len() > PAGE;
        rows.truncate(PAGE);
        let next = rows
            .last()
            .filter(|_| has_more)
            .map(|(_, end)| format!("{}.{}.{}", end.urgency, end.path_step, end.id));
        (rows.into_iter().map(|(build, _)| build).collect(), next)
    } else {
        let after = after.map(waiting_position).transpose()?;
        let mut rows = pages::queue_waiting(&client, after, limit).await?;
        let has_more = rows.len() > PAGE;
        rows.truncate(PAGE);
        let next = rows.last().filter(|_| has_more).map(|end| {
            let line = &end.line;
            format!("{}.{}.{}", line.urgency, line.created_at.as_microsecond(), line.id)
        });
        (rows, next)
    };
    let counts = counts(&app, &client).await?;
    let total = counts.iter().map(|(_, count)| count).sum();
    render(&Queue { counts, total, only_ready, is_first: after.is_none(), active, waiting, next, operator })
}

/// Counts the unfinished builds by state, or remembers.
async fn counts(app: &App, client: &impl GenericClient) -> Result<Vec<(BuildState, i64)>, DatabaseError> {
    if let Some(counts) = app.queue.get(&()) {
        return Ok(counts);
    }
    let found = pages::queue_counts(client).await?;
    let total: i64 = found.values().sum();
    let order = [
        BuildState::Running,
        BuildState::Built,
        BuildState::Fetching,
        BuildState::Assigned,
        BuildState::Ready,
        BuildState::Waiting,
        BuildState::Deferred,
        BuildState::Held,
    ];
    let counts: Vec<_> =
        order.into_iter().filter_map(|state| found.get(&state).map(|count| (state, *count))).collect();
    app.queue.put((), counts.clone(), if total > LONG { KEEP_LONG } else { KEEP_SHORT });
    Ok(counts)
}

fn ready_position(text: &str) -> Result<ReadyPosition, PageFailure> {
    let [urgency, step, id] = position(text)?;
    Ok(ReadyPosition { urgency: small(urgency, text)?, path_step: small(step, text)?, id: BuildId::new(id) })
}

fn waiting_position(text: &str) -> Result<WaitingPosition, PageFailure> {
    let [urgency, created_at, id] = position(text)?;
    Ok(WaitingPosition {
        urgency: small(urgency, text)?,
        created_at: Timestamp::from_microsecond(created_at).map_err(|_| no_position(text))?,
        id: BuildId::new(id),
    })
}

fn position(text: &str) -> Result<[i64; 3], PageFailure> {
    let numbers: Result<Vec<i64>, _> = text.split('.').map(str::parse).collect();
    numbers.ok().and_then(|numbers| numbers.try_into().ok()).ok_or_else(|| no_position(text))
}

fn small(number: i64, text: &str) -> Result<i16, PageFailure> {
    i16::try_from(number).map_err(|_| no_position(text))
}

fn no_position(text: &str) -> PageFailure {
    PageFailure::Malformed(format!("`{text}` is not a place in the queue."))
}
