//! What a request gets when it cannot get what it asked for.

use askama::Template;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use hauberk_database::DatabaseError;
use hauberk_database::operators::OperatorError;
use serde::Serialize;

/// Why a page cannot be shown.
#[derive(Debug)]
pub(crate) enum PageFailure {
    /// There is no such thing; the words name it.
    Missing(String),
    /// The address cannot be read.
    Malformed(String),
    /// The database failed.
    Database(DatabaseError),
    /// A template failed.
    Template(askama::Error),
    /// It took too long.
    TimedOut,
    /// It is not done, for a reason that is nobody's fault but perhaps the visitor's.
    Refused(StatusCode, String),
    /// The system gives no random numbers.
    Random(std::io::Error),
}

impl From<DatabaseError> for PageFailure {
    fn from(source: DatabaseError) -> Self {
        Self::Database(source)
    }
}

impl From<OperatorError> for PageFailure {
    fn from(error: OperatorError) -> Self {
        // The words for the command line name commands; here pages lead on.
        match error {
            OperatorError::Database(source) => Self::Database(source),
            OperatorError::NoBuilds(_) => Self::Missing("There is no such build.".to_owned()),
            OperatorError::NoEvaluation(id) => {
                Self::Missing(format!("Evaluation with ID {id} doesn't exist."))
            }
            OperatorError::NoSpecification(name) => {
                Self::Missing(format!("There is no specification `{name}`."))
            }
            OperatorError::NoWorker(name) => Self::Missing(format!("No worker named `{name}` is enrolled.")),
            OperatorError::NoToken(id) => {
                Self::Missing(format!("There is no token {id}, or it was revoked already."))
            }
            OperatorError::NameTaken(name) => Self::Refused(
                StatusCode::CONFLICT,
                format!("A worker named `{name}` is enrolled with another key; remove it first."),
            ),
            OperatorError::KeyTaken(_) => {
                Self::Refused(StatusCode::CONFLICT, "Another worker is enrolled with that key.".to_owned())
            }
            OperatorError::NoServerKey => Self::Refused(
                StatusCode::CONFLICT,
                "No server with a key has started yet, so no token can name it.".to_owned(),
            ),
            OperatorError::DifferentServerKeys(servers) => Self::Refused(
                StatusCode::CONFLICT,
                format!(
                    "The servers {} have different keys: make a token for one of them by `hauberk worker token --server-key`.",
                    servers.join(", ")
                ),
            ),
            OperatorError::NotUnfinished(id) => Self::Refused(
                StatusCode::CONFLICT,
                format!("Build {id} does not exist or has succeeded, so its urgency means nothing."),
            ),
            OperatorError::Disabled(name) => Self::Refused(
                StatusCode::CONFLICT,
                format!("Specification {name} is disabled: it is not in the register's file any more."),
            ),
            OperatorError::NotNewest { evaluation, specification, newest } => Self::Refused(
                StatusCode::CONFLICT,
                format!(
                    "Evaluation {evaluation} is not the newest of {specification}, and only that is evaluated again: it is {newest}."
                ),
            ),
            OperatorError::Running(id) => {
                Self::Refused(StatusCode::CONFLICT, format!("Evaluation {id} still runs; cancel it first."))
            }
            OperatorError::NoJobs(id) => Self::Refused(
                StatusCode::CONFLICT,
                format!("Evaluation {id} gave no jobs, so nothing can be restarted; retry it."),
            ),
        }
    }
}

impl From<askama::Error> for PageFailure {
    fn from(source: askama::Error) -> Self {
        Self::Template(source)
    }
}

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage<'a> {
    title: &'a str,
    message: &'a str,
}

impl IntoResponse for PageFailure {
    fn into_response(self) -> Response {
        let (status, title, message) = match &self {
            Self::Missing(message) => (StatusCode::NOT_FOUND, "Not found", message.as_str()),
            Self::Malformed(message) => (StatusCode::BAD_REQUEST, "Bad address", message.as_str()),
            Self::Database(error) if error.is_transient() => {
                tell_database(error);
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "The database does not answer",
                    "The farm goes on without it for a while, and this page is back as soon as it answers.",
                )
            }
            Self::Database(error) => {
                tell_database(error);
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Something went wrong",
                    "The log of the web process says what.",
                )
            }
            Self::Template(error) => {
                tracing::error!(error = error as &dyn std::error::Error, "cannot render a page");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Something went wrong",
                    "The log of the web process says what.",
                )
            }
            Self::Refused(status, message) => (*status, "Nothing was done", message.as_str()),
            Self::Random(error) => {
                tracing::error!(
                    error = error as &dyn std::error::Error,
                    "the system gives no random numbers"
                );
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Something went wrong",
                    "The log of the web process says what.",
                )
            }
            Self::TimedOut => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The page took too long",
                "The database is busy, or does not answer. Try again in a while.",
            ),
        };
        let body = FailurePage { title, message }.render().unwrap_or_else(|_| format!("{title}\n"));
        let mut response = (status, Html(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

/// Why the JSON API cannot answer. The words are those of Cuirass, for its clients' sake.
#[derive(Debug)]
pub(crate) enum ApiFailure {
    /// There is no such thing: 404.
    Missing(String),
    /// A parameter is missing or too large: 500, as Cuirass has it.
    Parameter(&'static str),
    /// The database failed: 503 if it may work later, else 500.
    Database(DatabaseError),
}

impl From<DatabaseError> for ApiFailure {
    fn from(source: DatabaseError) -> Self {
        Self::Database(source)
    }
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    error: &'a str,
}

impl IntoResponse for ApiFailure {
    fn into_response(self) -> Response {
        let (status, error) = match &self {
            Self::Missing(message) => (StatusCode::NOT_FOUND, message.as_str()),
            Self::Parameter(message) => (StatusCode::INTERNAL_SERVER_ERROR, *message),
            Self::Database(error) => {
                tell_database(error);
                if error.is_transient() {
                    (StatusCode::SERVICE_UNAVAILABLE, "The database does not answer.")
                } else {
                    (StatusCode::INTERNAL_SERVER_ERROR, "The database failed.")
                }
            }
        };
        (status, Json(ErrorObject { error })).into_response()
    }
}

fn tell_database(error: &DatabaseError) {
    if error.is_transient() {
        tracing::warn!(error = error as &dyn std::error::Error, "cannot read the database for a request");
    } else {
        tracing::error!(error = error as &dyn std::error::Error, "cannot read the database for a request");
    }
}
