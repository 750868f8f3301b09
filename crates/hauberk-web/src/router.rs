//! Which address is answered by what.

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use crate::app::App;
use crate::failure::{ApiFailure, PageFailure};
use crate::page::deeds;
use crate::{api, assets, page};

/// How long an answer that is not a stream may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Our pages: own style sheet, own script, nothing inline, nothing from elsewhere.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// Gives everything this process answers.
pub(crate) fn router(app: App) -> Router {
    let bounded = Router::new()
        .route("/", get(page::specifications::show))
        .route("/jobset/{name}", get(page::jobset::show))
        .route("/eval/{id}", get(page::evaluation::show))
        .route("/build/{id}/details", get(page::build::show))
        .route("/build/{id}/log", get(page::log::of_build))
        .route("/attempt/{id}/log", get(page::log::of_attempt))
        .route("/queue", get(page::queue::show))
        .route("/workers", get(page::workers::show))
        .route("/machine/{name}", get(page::machine::show))
        .route("/build/{id}", get(api::build))
        .route("/api/build/{id}/why", get(api::why))
        .route("/output/{name}", get(api::output))
        .route("/jobsets", get(api::jobsets))
        .route("/specifications", get(api::jobsets))
        .route("/api/queue", get(api::queue))
        .route("/api/latestbuilds", get(api::latest_builds))
        .route("/api/evaluations", get(api::evaluations))
        .route("/api/evaluation", get(api::evaluation))
        .route("/api/jobs", get(api::jobs))
        .route("/login", get(page::login::show).post(page::login::log_in))
        .route("/search/latest/{kind}", get(page::product::latest))
        .route("/static/{name}", get(assets::serve))
        .route("/health", get(health))
        .merge(operator_routes())
        .fallback(unknown)
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn(limit_time));
    // Streams last as long as they last, and are not to be held back by a compressor.
    let streams = Router::new()
        .route("/download/{id}", get(page::product::download))
        .route("/events", get(page::live::events))
        .route("/build/{id}/log/raw", get(page::log::raw_of_build))
        .route("/attempt/{id}/log/raw", get(page::log::raw_of_attempt))
        .route("/attempt/{id}/log/events", get(page::log::events));
    bounded
        .merge(streams)
        .layer(CatchPanicLayer::new())
        .layer(middleware::map_response(protect))
        .layer(middleware::from_fn(tell))
        .with_state(app)
}

/// Gives the deeds of operators. Nothing of it is done by a GET, and by a HEAD even less.
fn operator_routes() -> Router<App> {
    Router::new()
        .route("/logout", post(page::login::log_out))
        .route("/build/{id}/cancel", post(deeds::cancel_build))
        .route("/build/{id}/restart", post(deeds::restart_build))
        .route("/build/{id}/priority", post(deeds::prioritize_build))
        .route("/build/{id}/emergency", post(deeds::hasten_build))
        .route("/eval/{id}/cancel", post(deeds::cancel_evaluation))
        .route("/eval/{id}/restart", post(deeds::restart_evaluation))
        .route("/eval/{id}/retry", post(deeds::retry_evaluation))
        .route("/eval/{id}/priority", post(deeds::prioritize_evaluation))
        .route("/eval/{id}/emergency", post(deeds::hasten_evaluation))
        .route("/jobset/{name}/evaluate", post(deeds::evaluate))
        .route("/jobset/{name}/cancel-superseded", post(deeds::cancel_superseded))
        .route("/workers/add", post(deeds::enrol))
        .route("/workers/token", post(deeds::make_token))
        .route("/token/{id}/revoke", post(deeds::revoke_token))
        .route("/worker/{name}/pause", post(deeds::pause))
        .route("/worker/{name}/resume", post(deeds::resume))
        .route("/worker/{name}/drain", post(deeds::drain))
        .route("/worker/{name}/remove", post(deeds::remove))
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => PageFailure::TimedOut.into_response(),
    }
}

async fn protect(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    response
}

async fn tell(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let (status, duration_ms) = (response.status().as_u16(), started.elapsed().as_millis());
    tracing::debug!(http.method = %method, http.path = %path, http.status = status, duration_ms, "{method} {path}");
    response
}

async fn health(State(app): State<App>) -> Response {
    let answers = match app.database.client().await {
        Ok(client) => client.simple_query("select 1").await.is_ok(),
        Err(_) => false,
    };
    if answers {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n").into_response()
    }
}

async fn unknown(request: Request) -> Response {
    let path = request.uri().path();
    if path.starts_with("/api/") {
        ApiFailure::Missing(format!("Resource not found: {path}")).into_response()
    } else {
        PageFailure::Missing(format!("There is nothing at {path}.")).into_response()
    }
}
