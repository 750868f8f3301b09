//! What a form of ours asks for.

use std::collections::HashMap;

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::origin::is_ours;
use super::secret::same;
use super::session::Session;
use crate::app::App;
use crate::failure::PageFailure;

/// Bytes of the largest form.
const LARGEST: usize = 16 * 1024;

/// A deed that somebody asks for who may.
#[derive(Debug)]
pub(crate) struct Order {
    /// Who.
    pub(crate) session: Session,
    fields: HashMap<String, String>,
}

/// Why a deed is refused before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nobody may do it by pages.
    Off,
    /// It is not known who asks.
    Stranger,
    /// The request does not come from a page of ours.
    Elsewhere,
    /// The form does not carry the session's secret.
    NoSecret,
    /// What came is no form.
    NoForm,
}

impl Order {
    /// Gives a field of the form; empty if it is not there.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.trim())
    }
}

/// Reads the fields of a form that comes from a page of ours.
pub(crate) async fn read_form(request: Request) -> Result<HashMap<String, String>, Refusal> {
    if !is_ours(request.headers()) {
        return Err(Refusal::Elsewhere);
    }
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")) {
        return Err(Refusal::NoForm);
    }
    let body = to_bytes(request.into_body(), LARGEST).await.map_err(|_| Refusal::NoForm)?;
    Ok(form_urlencoded::parse(&body).into_owned().collect())
}

impl FromRequest<App> for Order {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Result<Self, Refusal> {
        if !app.operators.any() {
            return Err(Refusal::Off);
        }
        let (parts, body) = request.into_parts();
        let session = app.operators.session(&parts);
        let fields = read_form(Request::from_parts(parts, body)).await?;
        let session = session.ok_or(Refusal::Stranger)?;
        let order = Self { session, fields };
        if !same(order.field("csrf"), &order.session.csrf) {
            return Err(Refusal::NoSecret);
        }
        Ok(order)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, words) = match self {
            Self::Off => (
                StatusCode::FORBIDDEN,
                "Nobody may operate this farm by its pages. To allow it, start `hauberk web` with --operator-token-file or \
                 --operators loopback.",
            ),
            Self::Stranger => {
                (StatusCode::FORBIDDEN, "Only operators may do this. Log in first, at /login, and try again.")
            }
            Self::Elsewhere => (
                StatusCode::FORBIDDEN,
                "This request did not come from a page of this farm, by what the browser says, and nothing was done.",
            ),
            Self::NoSecret => (
                StatusCode::FORBIDDEN,
                "The page that this came from is too old, and nothing was done. Load it again and try once more.",
            ),
            Self::NoForm => {
                (StatusCode::BAD_REQUEST, "What came is no form of these pages, and nothing was done.")
            }
        };
        PageFailure::Refused(status, words.to_owned()).into_response()
    }
}
