//! `/download/ID`: build products, from this machine or by way of the server that has them.

use std::io::{Seek, SeekFrom};

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hauberk_database::ProductId;
use hauberk_database::pages::{self, LatestFilter, PlacedProduct};
use hauberk_publish::products::{attachment, media_type, product_url};
use hauberk_publish::server::Range;
use hauberk_store::Sha256;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::{Parameters, parse};
use crate::app::App;
use crate::failure::PageFailure;

/// Bytes of the file sent at a time.
const PIECE: usize = 256 * 1024;

/// What comes from a build is kept as a file, and is no page of ours, whatever is in it.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");

/// Serves `/download/ID`.
pub(crate) async fn download(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, PageFailure> {
    let id: ProductId = parse(&id, "a build product")?;
    let client = app.database.client().await?;
    let found = pages::product(&client, id).await?;
    drop(client);
    // The words are those of Cuirass.
    let missing = || PageFailure::Missing("Could not find the requested build product.".to_owned());
    let found = found.ok_or_else(missing)?;
    let sha256 = Sha256::from_bytes(found.product.sha256);
    match app.products.open(&sha256) {
        Ok(Some((file, length))) => {
            send(&found, file, length, &headers).await.map_err(|error| unreadable(&found, &error))
        }
        Ok(None) => lead(&found),
        Err(error) => Err(unreadable(&found, &error)),
    }
}

/// Serves `/search/latest/TYPE?query=Q`, as Cuirass does: leads to the product of that type that belongs to the newest evaluation. The query
/// has words: `spec:NAME`, `system:NAME`, `job:NAME`, and the beginning of the name of a build or job.
pub(crate) async fn latest(
    State(app): State<App>,
    Path(kind): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<Response, PageFailure> {
    let filter = read_query(parameters.get("query").map_or("", String::as_str));
    let client = app.database.client().await?;
    match pages::latest_product(&client, &kind, &filter).await? {
        Some(id) => Ok(found_at(&format!("/download/{id}"))),
        None => Err(PageFailure::Missing("Could not find the requested build product.".to_owned())),
    }
}

/// Reads the words of a query. Those that mean nothing here are passed over, as `status:success`, which every product has.
fn read_query(query: &str) -> LatestFilter {
    let mut filter = LatestFilter::default();
    for word in query.split_whitespace() {
        match word.split_once(':') {
            Some(("spec", name)) => filter.specification = Some(name.to_owned()),
            Some(("system", name)) => filter.system = Some(name.to_owned()),
            Some(("job", name)) => filter.job = Some(name.to_owned()),
            Some(_) => {}
            None => filter.name = Some(word.to_owned()),
        }
    }
    filter
}

fn unreadable(found: &PlacedProduct, error: &std::io::Error) -> PageFailure {
    tracing::error!(
        error = error as &dyn std::error::Error, product.id = %found.product.id,
        "cannot read build product {}", found.product.id
    );
    let words = "The file cannot be read; the log of the web process says why.";
    PageFailure::Refused(StatusCode::INTERNAL_SERVER_ERROR, words.to_owned())
}

/// Leads to the server that has it.
fn lead(found: &PlacedProduct) -> Result<Response, PageFailure> {
    let url =
        found.publish_url.as_deref().filter(|url| url.starts_with("http://") || url.starts_with("https://"));
    let Some(url) = url else {
        let words = format!("It is on the server {}, which does not say where it publishes.", found.server);
        return Err(PageFailure::Refused(StatusCode::SERVICE_UNAVAILABLE, words));
    };
    let path = product_url(&Sha256::from_bytes(found.product.sha256), &found.product.name);
    Ok(found_at(&format!("{}/{path}", url.trim_end_matches('/'))))
}

fn found_at(place: &str) -> Response {
    match HeaderValue::try_from(place) {
        Ok(place) => (StatusCode::FOUND, [(header::LOCATION, place)]).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Sends what a request wants of a file.
async fn send(
    found: &PlacedProduct,
    mut file: std::fs::File,
    length: u64,
    headers: &HeaderMap,
) -> std::io::Result<Response> {
    let sha256 = Sha256::from_bytes(found.product.sha256);
    let tag = format!("\"{}\"", sha256.to_base32());
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let known = text(header::IF_NONE_MATCH).is_some_and(|tags| {
        tags.split(',').any(|one| {
            matches!(one.trim().trim_start_matches("W/"), "*") || one.trim().trim_start_matches("W/") == tag
        })
    });
    let range = match text(header::IF_RANGE) {
        Some(other) if other.trim() != tag => Range::Whole,
        _ => Range::parse(text(header::RANGE), length),
    };
    let (status, first, count) = match range {
        _ if known => (StatusCode::NOT_MODIFIED, 0, 0),
        Range::Whole => (StatusCode::OK, 0, length),
        Range::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Range::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    let mut response = if count > 0 {
        file.seek(SeekFrom::Start(first))?;
        let file = tokio::fs::File::from_std(file).take(count);
        Body::from_stream(ReaderStream::with_capacity(file, PIECE)).into_response()
    } else {
        Body::empty().into_response()
    };
    *response.status_mut() = status;
    let fields = response.headers_mut();
    let mut set = |name: header::HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            fields.insert(name, value);
        }
    };
    if status != StatusCode::NOT_MODIFIED {
        set(header::CONTENT_LENGTH, count.to_string());
    }
    match range {
        Range::Part { first, last } if !known => {
            set(header::CONTENT_RANGE, format!("bytes {first}-{last}/{length}"));
        }
        Range::Unsatisfiable if !known => set(header::CONTENT_RANGE, format!("bytes */{length}")),
        _ => {}
    }
    set(header::ETAG, tag);
    set(header::ACCEPT_RANGES, "bytes".to_owned());
    set(header::CACHE_CONTROL, "public, max-age=31536000, immutable".to_owned());
    set(header::CONTENT_TYPE, media_type(&found.product.name).to_owned());
    set(header::CONTENT_DISPOSITION, attachment(&found.product.name));
    fields.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    Ok(response)
}
