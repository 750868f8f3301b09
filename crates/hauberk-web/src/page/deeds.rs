//! The deeds of operators: each a form's POST, which leads back to the page of what it was done to.

use std::time::Duration;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use hauberk_database::operators::{self as deeds, Extent, Only, OperatorError};
use hauberk_database::tokens::NewToken;
use hauberk_database::workers::{self, Direction, NewWorker};
use hauberk_database::{BuildId, EvaluationId, Priority, TokenId, pages};
use hauberk_protocol::EnrolmentToken;
use hauberk_protocol::keys::CurvePublicKey;
use hauberk_store::signature::PublicKey;

use super::{parse, render};
use crate::app::App;
use crate::failure::PageFailure;
use crate::operators::{Order, Session};
use crate::view as v;

/// Machines that a token admits at most, and hours that it is good.
const MOST_USES: i32 = 10_000;
const MOST_HOURS: i32 = 365 * 24;

/// What a deed leads to.
type Done = Result<Response, PageFailure>;

/// Asks whether a heavy deed is meant.
#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm {
    question: String,
    explanation: String,
    /// The words on the button.
    deed: &'static str,
    /// Where the form goes.
    action: String,
    /// Where a change of mind leads.
    back: String,
    operator: Session,
}

fn to_build(id: BuildId) -> Response {
    Redirect::to(&format!("/build/{id}/details")).into_response()
}

fn to_evaluation(id: EvaluationId) -> Response {
    Redirect::to(&format!("/eval/{id}")).into_response()
}

fn to_jobset(name: &str) -> Response {
    Redirect::to(&format!("/jobset/{}", v::segment(name))).into_response()
}

/// Says that a deed had nothing to do.
fn nothing(words: impl Into<String>) -> PageFailure {
    PageFailure::Refused(StatusCode::CONFLICT, words.into())
}

fn confirmed(order: &Order) -> bool {
    order.field("sure") == "yes"
}

impl Confirm {
    fn ask(self) -> Done {
        Ok(render(&self)?.into_response())
    }
}

/// Serves `POST /build/ID/cancel`.
pub(crate) async fn cancel_build(State(app): State<App>, Path(id): Path<String>, order: Order) -> Done {
    let id: BuildId = parse(&id, "a build")?;
    let outcome = deeds::cancel_builds(&app.database, &order.session.who, &[id]).await?;
    if outcome.canceled.is_empty() && outcome.stopping.is_empty() {
        return Err(nothing(format!("Build {id} is built already or over, and stays as it is.")));
    }
    Ok(to_build(id))
}

/// Serves `POST /build/ID/restart`.
pub(crate) async fn restart_build(State(app): State<App>, Path(id): Path<String>, order: Order) -> Done {
    let id: BuildId = parse(&id, "a build")?;
    let extent = Extent {
        dependencies: order.field("extent") == "dependencies",
        dependents: order.field("extent") == "dependents",
    };
    let only = only(&order)?;
    let outcome = deeds::restart_builds(&app.database, &order.session.who, &[id], extent, only).await?;
    if outcome.revived.is_empty() {
        return Err(nothing(format!(
            "Nothing of that is over without success, so build {id} stays as it is."
        )));
    }
    Ok(to_build(id))
}

/// Serves `POST /build/ID/priority`.
pub(crate) async fn prioritize_build(State(app): State<App>, Path(id): Path<String>, order: Order) -> Done {
    let id: BuildId = parse(&id, "a build")?;
    deeds::set_priority(&app.database, &order.session.who, &[id], priority(&order)?).await?;
    Ok(to_build(id))
}

/// Serves `POST /build/ID/emergency`.
pub(crate) async fn hasten_build(State(app): State<App>, Path(id): Path<String>, order: Order) -> Done {
    let id: BuildId = parse(&id, "a build")?;
    deeds::set_build_emergency(&app.database, &order.session.who, &[id], is_on(&order)).await?;
    Ok(to_build(id))
}

/// Serves `POST /eval/ID/cancel`.
pub(crate) async fn cancel_evaluation(State(app): State<App>, Path(id): Path<String>, order: Order) -> Done {
    let id: EvaluationId = parse(&id, "an evaluation")?;
    if confirmed(&order) {
        deeds::cancel_evaluation(&app.database, &order.session.who, id).await?;
        return Ok(to_evaluation(id));
    }
    let client = app.database.client().await?;
    let Some((evaluation, _)) = pages::evaluation(&client, id).await? else {
        return Err(OperatorError::NoEvaluation(id).into());
    };
    let counts = pages::evaluation_counts(&client, &[id]).await?.remove(&id).unwrap_or_default();
    let unfinished = v::number(counts.unfinished());
    Confirm {
        question: format!("Cancel evaluation {id} of {}?", evaluation.specification),
        explanation: format!(
            "{unfinished} of its jobs are unfinished. Their builds are canceled, with what they need, but for what another evaluation \
             wants; what runs is stopped."
        ),
        deed: "Cancel the evaluation",
        action: format!("/eval/{id}/cancel"),
        back: format!("/eval/{id}"),
        operator: order.session,
    }
    .ask()
}

/// Serves `POST /eval/ID/restart`.
pub(crate) async fn restart_evaluation(State(app): State<App>, Path(id): Path<String>, order: Order) -> Done {
    let id: EvaluationId = parse(&id, "an evaluation")?;
    let outcome = deeds::restart_evaluation(&app.database, &order.session.who, id, only(&order)?).await?;
    if outcome.revived.is_empty() {
        return Err(nothing(match outcome.left.len() {
            0 => format!("Nothing of evaluation {id} is over without success."),
            left => format!("Nothing of evaluation {id} ended so; {left} builds stay as they are."),
        }));
    }
    Ok(to_evaluation(id))
}

/// Serves `POST /eval/ID/retry`.
pub(crate) async fn retry_evaluation(State(app): State<App>, Path(id): Path<String>, order: Order) -> Done {
    let id: EvaluationId = parse(&id, "an evaluation")?;
    let specification = deeds::retry_evaluation(&app.database, &order.session.who, id).await?;
    Ok(to_jobset(&specification))
}

/// Serves `POST /eval/ID/priority`.
pub(crate) async fn prioritize_evaluation(
    State(app): State<App>,
    Path(id): Path<String>,
    order: Order,
) -> Done {
    let id: EvaluationId = parse(&id, "an evaluation")?;
    deeds::set_evaluation_priority(&app.database, &order.session.who, id, priority(&order)?).await?;
    Ok(to_evaluation(id))
}

/// Serves `POST /eval/ID/emergency`.
pub(crate) async fn hasten_evaluation(State(app): State<App>, Path(id): Path<String>, order: Order) -> Done {
    let id: EvaluationId = parse(&id, "an evaluation")?;
    deeds::set_evaluation_emergency(&app.database, &order.session.who, id, is_on(&order)).await?;
    Ok(to_evaluation(id))
}

/// Serves `POST /jobset/NAME/evaluate`.
pub(crate) async fn evaluate(State(app): State<App>, Path(name): Path<String>, order: Order) -> Done {
    deeds::evaluate(&app.database, &order.session.who, &name).await?;
    Ok(to_jobset(&name))
}

/// Serves `POST /jobset/NAME/cancel-superseded`.
pub(crate) async fn cancel_superseded(
    State(app): State<App>,
    Path(name): Path<String>,
    order: Order,
) -> Done {
    if confirmed(&order) {
        deeds::cancel_superseded(&app.database, &order.session.who, Some(&name)).await?;
        return Ok(to_jobset(&name));
    }
    let client = app.database.client().await?;
    if pages::specification(&client, &name).await?.is_none() {
        return Err(OperatorError::NoSpecification(name).into());
    }
    let superseded = deeds::superseded(&client, Some(&name)).await?;
    if superseded.is_empty() {
        return Err(nothing(format!("No evaluation of {name} is superseded and unfinished.")));
    }
    let ids: Vec<String> = superseded.iter().take(20).map(|one| format!("#{}", one.evaluation)).collect();
    let more = if superseded.len() > ids.len() { ", …" } else { "" };
    Confirm {
        question: format!("Cancel the superseded evaluations of {name}?"),
        explanation: format!(
            "These have a newer one that succeeded, and are unfinished: {}{more}. Their builds are canceled, but for what the newest \
             wants; what runs is stopped.",
            ids.join(", ")
        ),
        deed: "Cancel them",
        action: format!("/jobset/{}/cancel-superseded", v::segment(&name)),
        back: format!("/jobset/{}", v::segment(&name)),
        operator: order.session,
    }
    .ask()
}

/// Serves `POST /workers/add`.
pub(crate) async fn enrol(State(app): State<App>, order: Order) -> Done {
    let name = order.field("name");
    if name.is_empty() {
        return Err(PageFailure::Malformed("A worker needs a name.".to_owned()));
    }
    let public_key: CurvePublicKey = order.field("public_key").parse().map_err(|_| {
        PageFailure::Malformed(
            "The first key is none: it is what `hauberk key curve` writes to FILE.pub.".to_owned(),
        )
    })?;
    let signing_key: PublicKey = order.field("signing_key").parse().map_err(|_| {
        PageFailure::Malformed(
            "The second key is none: it is what `hauberk key signing` writes to FILE.pub.".to_owned(),
        )
    })?;
    let (public_key, signing_key) = (public_key.to_string(), signing_key.to_string());
    let new = NewWorker {
        name,
        public_key: &public_key,
        signing_key: &signing_key,
        enrolled_by: &order.session.who,
    };
    deeds::enrol_worker(&app.database, new).await?;
    Ok(Redirect::to("/workers").into_response())
}

/// Shows a token, once.
#[derive(Template)]
#[template(path = "token.html")]
struct NewTokenPage {
    id: TokenId,
    token: String,
    operator: Session,
}

/// Serves `POST /workers/token`. The token is in the answer and nowhere else.
pub(crate) async fn make_token(State(app): State<App>, order: Order) -> Done {
    let number = |field: &str, usual: i32, most: i32| match order.field(field) {
        "" => Ok(usual),
        text => text
            .parse()
            .ok()
            .filter(|number| (1..=most).contains(number))
            .ok_or_else(|| PageFailure::Malformed(format!("`{text}` is not a number from 1 to {most}."))),
    };
    let (uses, hours) = (number("uses", 1, MOST_USES)?, number("hours", 1, MOST_HOURS)?);
    let name = order.field("name");
    if !name.is_empty() && uses != 1 {
        return Err(PageFailure::Malformed("A token with a name admits one machine.".to_owned()));
    }
    let key = deeds::server_key(&app.database.client().await?).await?;
    let key: CurvePublicKey = key
        .parse()
        .map_err(|_| nothing("The server's key cannot be read; make the token by `hauberk worker token`."))?;
    let token = EnrolmentToken::generate(&key);
    let new = NewToken {
        digest: &token.digest(),
        name: (!name.is_empty()).then_some(name),
        systems: None,
        uses,
        lifetime: Duration::from_secs(3600) * hours.unsigned_abs(),
        created_by: &order.session.who,
    };
    let id = deeds::make_token(&app.database, new).await?;
    let page = render(&NewTokenPage { id, token: token.to_string(), operator: order.session })?;
    Ok(([(header::CACHE_CONTROL, "no-store")], page).into_response())
}

/// Serves `POST /token/ID/revoke`.
pub(crate) async fn revoke_token(State(app): State<App>, Path(id): Path<String>, order: Order) -> Done {
    deeds::revoke_token(&app.database, &order.session.who, parse(&id, "a token")?).await?;
    Ok(Redirect::to("/workers").into_response())
}

/// Serves `POST /worker/NAME/pause`.
pub(crate) async fn pause(State(app): State<App>, Path(name): Path<String>, order: Order) -> Done {
    let reason = order.field("reason");
    let direction = Direction::Pause((!reason.is_empty()).then_some(reason));
    deeds::direct_workers(&app.database, &order.session.who, &[&name], direction).await?;
    to_worker(&app, &name).await
}

/// Serves `POST /worker/NAME/resume`.
pub(crate) async fn resume(State(app): State<App>, Path(name): Path<String>, order: Order) -> Done {
    deeds::direct_workers(&app.database, &order.session.who, &[&name], Direction::Resume).await?;
    to_worker(&app, &name).await
}

/// Serves `POST /worker/NAME/drain`.
pub(crate) async fn drain(State(app): State<App>, Path(name): Path<String>, order: Order) -> Done {
    deeds::direct_workers(&app.database, &order.session.who, &[&name], Direction::Drain).await?;
    to_worker(&app, &name).await
}

/// Serves `POST /worker/NAME/remove`.
pub(crate) async fn remove(State(app): State<App>, Path(name): Path<String>, order: Order) -> Done {
    if confirmed(&order) {
        deeds::remove_worker(&app.database, &order.session.who, &name).await?;
        return Ok(Redirect::to("/workers").into_response());
    }
    let client = app.database.client().await?;
    if workers::by_name(&client, &name).await?.is_none_or(|worker| worker.revoked_at.is_some()) {
        return Err(OperatorError::NoWorker(name).into());
    }
    Confirm {
        question: format!("Remove worker {name}?"),
        explanation: "It may not work for the farm any more. Its history stays; to let it in again, it must be enrolled anew.".to_owned(),
        deed: "Remove the worker",
        action: format!("/worker/{}/remove", v::segment(&name)),
        back: "/workers".to_owned(),
        operator: order.session,
    }
    .ask()
}

/// Leads to the page where a worker is shown.
async fn to_worker(app: &App, name: &str) -> Done {
    let worker = workers::by_name(&app.database.client().await?, name).await?;
    let machine = worker.map(|worker| worker.description.machine).filter(|machine| !machine.is_empty());
    let place =
        machine.map_or_else(|| "/workers".to_owned(), |name| format!("/machine/{}", v::segment(&name)));
    Ok(Redirect::to(&place).into_response())
}

fn is_on(order: &Order) -> bool {
    order.field("on") == "yes"
}

fn only(order: &Order) -> Result<Only, PageFailure> {
    match order.field("only") {
        "" => Ok(Only::Any),
        "failed" => Ok(Only::Failed),
        "canceled" => Ok(Only::Canceled),
        other => Err(PageFailure::Malformed(format!("`{other}` is neither `failed` nor `canceled`."))),
    }
}

/// Reads a priority; nothing for that of the jobs.
fn priority(order: &Order) -> Result<Option<Priority>, PageFailure> {
    let text = order.field("priority");
    if text.is_empty() {
        return Ok(None);
    }
    let priority = text.parse::<i64>().ok().and_then(|number| Priority::try_from(number).ok());
    let wrong =
        || PageFailure::Malformed(format!("`{text}` is no priority: give 0, the most urgent, to 99."));
    priority.map(Some).ok_or_else(wrong)
}
