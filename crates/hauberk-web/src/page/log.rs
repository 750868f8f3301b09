//! Logs: the page that follows one, and the file itself.

use std::convert::Infallible;
use std::fs::File;
use std::time::Duration;

use askama::Template;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use hauberk_database::pages::{self, Attempt, LogOwner};
use hauberk_database::{AttemptId, BuildId};
use jiff::Timestamp;
use tokio_util::io::ReaderStream;

use super::{Page, Parameters, parse, render};
use crate::app::App;
use crate::failure::PageFailure;
use crate::log::follow::{blocking, follow};
use crate::log::tail::{Tail, TailEnd, read_tail};
use crate::log::text::stream_text;
use crate::log::{LogDirectory, LogError};
use crate::view as v;

/// Bytes of text that a page shows of a longer log.
const SHOWN: usize = 512 * 1024;
const ATTEMPTS: i64 = 100;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Bytes of the file sent at a time.
const PIECE: usize = 256 * 1024;

/// No page of ours can be made of a log, whatever is in it.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");

#[derive(Template)]
#[template(path = "log.html")]
struct LogPage {
    build: BuildId,
    name: String,
    attempt: Option<Attempt>,
    others: Vec<Attempt>,
    /// Where else the log is.
    elsewhere: Option<String>,
    html: String,
    omitted: i64,
    /// Where the script goes on; none: the log is complete.
    follow_from: Option<u64>,
    notice: Option<String>,
}

/// Serves `/build/ID/log`.
pub(crate) async fn of_build(State(app): State<App>, Path(id): Path<String>) -> Page {
    let id: BuildId = parse(&id, "a build")?;
    let (name, attempt) = log_attempt(&app, id).await?;
    match attempt {
        Some(attempt) => page(&app, attempt).await,
        None => render(&LogPage {
            build: id,
            name,
            attempt: None,
            others: Vec::new(),
            elsewhere: None,
            html: String::new(),
            omitted: 0,
            follow_from: None,
            notice: Some("No worker has tried this build yet, so there is no log.".to_owned()),
        }),
    }
}

/// Serves `/attempt/ID/log`.
pub(crate) async fn of_attempt(State(app): State<App>, Path(id): Path<String>) -> Page {
    page(&app, parse(&id, "an attempt")?).await
}

/// Serves `/build/ID/log/raw`.
pub(crate) async fn raw_of_build(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, PageFailure> {
    let id: BuildId = parse(&id, "a build")?;
    match log_attempt(&app, id).await? {
        (_, Some(attempt)) => raw(&app, attempt, &headers).await,
        (_, None) => Err(PageFailure::Missing("No worker has tried this build yet.".to_owned())),
    }
}

/// Serves `/attempt/ID/log/raw`.
pub(crate) async fn raw_of_attempt(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, PageFailure> {
    raw(&app, parse(&id, "an attempt")?, &headers).await
}

/// Serves `/attempt/ID/log/events?offset=N`. A browser that comes back says itself how far it had come.
pub(crate) async fn events(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + Send>, PageFailure> {
    let id: AttemptId = parse(&id, "an attempt")?;
    owner(&app, id).await?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let offset = last.or(parameters.get("offset").map(String::as_str)).unwrap_or("0");
    let offset = parse(offset, "a byte of a log")?;
    let stream = follow(app, id, offset).map(Ok);
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

async fn log_attempt(app: &App, id: BuildId) -> Result<(String, Option<AttemptId>), PageFailure> {
    let client = app.database.client().await?;
    let found = pages::log_attempt(&client, id).await?;
    found.ok_or_else(|| PageFailure::Missing(format!("Build with ID {id} doesn't exist.")))
}

async fn owner(app: &App, id: AttemptId) -> Result<LogOwner, PageFailure> {
    let client = app.database.client().await?;
    let found = pages::attempt(&client, id).await?;
    found.ok_or_else(|| PageFailure::Missing(format!("Attempt with ID {id} doesn't exist.")))
}

async fn page(app: &App, id: AttemptId) -> Page {
    let LogOwner { attempt, build_name, derivation, publish_url } = owner(app, id).await?;
    let client = app.database.client().await?;
    let others = pages::attempts(&client, attempt.build, ATTEMPTS).await?;
    drop(client);
    if let Some(removed) = attempt.log_expired_at {
        let notice = expired(removed);
        return render(&LogPage {
            build: attempt.build,
            name: build_name,
            others,
            elsewhere: None,
            html: String::new(),
            omitted: 0,
            follow_from: None,
            notice: Some(notice),
            attempt: Some(attempt),
        });
    }
    let tail = match &attempt.log_path {
        Some(path) => tail(app, path.clone()).await,
        None => Err(LogError::Missing),
    };
    let is_over = attempt.ended_at.is_some() || attempt.log_complete;
    let mut page = LogPage {
        build: attempt.build,
        name: build_name,
        others,
        elsewhere: None,
        html: String::new(),
        omitted: 0,
        follow_from: None,
        notice: None,
        attempt: Some(attempt),
    };
    match tail {
        Ok(Tail { html, omitted, offset, end }) => {
            page.html = html;
            page.omitted = i64::try_from(omitted).unwrap_or(i64::MAX);
            match end {
                TailEnd::Complete => {}
                TailEnd::Open => page.follow_from = Some(offset),
                TailEnd::Broken(error) => page.notice = Some(told(&error, id)),
            }
        }
        Err(LogError::Missing) if !is_over => page.follow_from = Some(0),
        Err(LogError::Missing) => page.notice = Some("This attempt left no log.".to_owned()),
        Err(error) => {
            if let (LogError::NoDirectory, Some(url), Some(path)) = (&error, publish_url, derivation) {
                let base = path.rsplit('/').next().unwrap_or_default();
                page.elsewhere = Some(format!("{}/log/{}", url.trim_end_matches('/'), v::segment(base)))
                    .filter(|address| address.starts_with("http://") || address.starts_with("https://"));
            }
            page.notice = Some(told(&error, id));
        }
    }
    render(&page)
}

/// Says that a log is no longer there.
fn expired(removed: Timestamp) -> String {
    format!("The log was removed on {}: logs are kept for a limited time.", removed.strftime("%F"))
}

/// Words a failure for a page, and logs what only the operator can mend.
fn told(error: &LogError, attempt: AttemptId) -> String {
    match error {
        LogError::NoDirectory | LogError::Missing | LogError::TooLong => {}
        LogError::Outside | LogError::Damaged(_) | LogError::Read(_) => tracing::warn!(
            error = error as &dyn std::error::Error,
            attempt.id = %attempt,
            "cannot show the log of attempt {attempt}"
        ),
    }
    format!("Cannot show the log: {error}.")
}

async fn tail(app: &App, path: String) -> Result<Tail, LogError> {
    let logs = app.logs.clone();
    let permit = app.decoders.clone().acquire_owned().await;
    blocking(move || {
        let tail = logs.open(&path).map(|file| read_tail(file, SHOWN));
        drop(permit);
        tail
    })
    .await
}

async fn raw(app: &App, id: AttemptId, headers: &HeaderMap) -> Result<Response, PageFailure> {
    let LogOwner { attempt, .. } = owner(app, id).await?;
    if let Some(removed) = attempt.log_expired_at {
        return Ok((StatusCode::GONE, format!("{}\n", expired(removed))).into_response());
    }
    let Some(path) = attempt.log_path else { return Ok(no_log(&LogError::Missing, id)) };
    let file = match open(app.logs.clone(), path).await {
        Ok(file) => file,
        Err(error) => return Ok(no_log(&error, id)),
    };
    let mut response = if attempt.log_complete && takes_gzip(headers) {
        let length = file.metadata().map(|metadata| metadata.len()).ok();
        let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE);
        let mut response = Body::from_stream(stream).into_response();
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        if let Some(length) = length {
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
        response
    } else {
        // A file without its end is refused by browsers as gzip; as text it is what it is.
        Body::from_stream(stream_text(file)).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("inline"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    Ok(response)
}

async fn open(logs: LogDirectory, path: String) -> Result<File, LogError> {
    blocking(move || logs.open(&path)).await
}

fn no_log(error: &LogError, id: AttemptId) -> Response {
    (StatusCode::NOT_FOUND, format!("{}\n", told(error, id))).into_response()
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let refused = |parameter: &str| {
                parameter.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q == 0.0))
            };
            matches!(parts.next(), Some("gzip" | "x-gzip" | "*")) && !parts.any(refused)
        })
    })
}
