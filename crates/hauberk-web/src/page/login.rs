//! `/login` and `/logout`: how a browser comes to a session.

use std::time::Duration;

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};

use super::{Page, render};
use crate::app::App;
use crate::failure::PageFailure;
use crate::operators::{Order, Refusal, Session, Visitor, read_form, set_cookie};

/// How long an answer to a wrong token takes, one after the other: guessing gets nowhere.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Template)]
#[template(path = "login.html")]
struct Login {
    operator: Option<Session>,
    /// Whether anybody may operate the farm by pages.
    is_on: bool,
    take_tokens: bool,
    was_wrong: bool,
}

/// Serves `GET /login`.
pub(crate) async fn show(State(app): State<App>, Visitor(operator): Visitor) -> Page {
    page(&app, operator, false)
}

fn page(app: &App, operator: Option<Session>, was_wrong: bool) -> Page {
    let (is_on, take_tokens) = (app.operators.any(), app.operators.take_tokens());
    render(&Login { operator, is_on, take_tokens, was_wrong })
}

/// Serves `POST /login`.
pub(crate) async fn log_in(State(app): State<App>, request: Request) -> Result<Response, PageFailure> {
    if !app.operators.take_tokens() {
        return Ok(Refusal::Off.into_response());
    }
    let is_secure = is_secure(request.headers());
    let form = match read_form(request).await {
        Ok(form) => form,
        Err(refusal) => return Ok(refusal.into_response()),
    };
    let token = form.get("token").map_or("", |token| token.trim());
    // One at a time, right or wrong.
    let _turn = app.logins.acquire().await;
    let cookie = app.operators.log_in(token).map_err(PageFailure::Random)?;
    let Some(cookie) = cookie else {
        tracing::warn!("somebody tried to log in with a token that is none");
        tokio::time::sleep(PAUSE).await;
        return Ok((StatusCode::FORBIDDEN, page(&app, None, true)?).into_response());
    };
    Ok(([(header::SET_COOKIE, set_cookie(Some(&cookie), is_secure))], Redirect::to("/login")).into_response())
}

/// Serves `POST /logout`.
pub(crate) async fn log_out(headers: HeaderMap, _order: Order) -> Response {
    let cookie = set_cookie(None, is_secure(&headers));
    ([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response()
}

/// Tells whether the browser's connection is encrypted, by what the page that it sent from has for an address.
fn is_secure(headers: &HeaderMap) -> bool {
    headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}
