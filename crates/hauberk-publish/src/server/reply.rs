//! Responses and their headers.

use std::{io::Read, time::Duration};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{
        ACCEPT_ENCODING, ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH,
        CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
};

use super::{body::Body, range::Range};
use crate::stream::{BufferPool, ReadBody};

/// The type of narinfos, as Nix's servers have it.
pub(super) const NARINFO: HeaderValue = HeaderValue::from_static("text/x-nix-narinfo");
/// The type of nars and nar files.
pub(super) const NAR: HeaderValue = HeaderValue::from_static("application/x-nix-nar");
/// The type of `nix-cache-info`.
pub(super) const CACHE_INFO: HeaderValue = HeaderValue::from_static("text/x-nix-cache-info");
/// The type of JSON.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The type of metrics.
pub(super) const METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
/// The type of texts.
pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What never changes under its name.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

fn reply(
    status: StatusCode,
    body: Body,
    headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().extend(headers);
    response
}

/// Answers with bytes at hand.
pub(super) fn bytes(kind: HeaderValue, bytes: Bytes) -> Response<Body> {
    reply(StatusCode::OK, bytes.into(), [(CONTENT_TYPE, kind)])
}

/// Says that an answer is good for this request alone.
pub(super) fn never_kept(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Answers with a text that says why not.
pub(super) fn refusal(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut text = text.into();
    text.push('\n');
    reply(status, Bytes::from(text).into(), [(CONTENT_TYPE, TEXT), (X_CONTENT_TYPE_OPTIONS, NOSNIFF)])
}

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Answers that something is not here, for `ttl` at least.
pub(super) fn not_found(ttl: Duration, text: impl Into<String>) -> Response<Body> {
    let mut response = refusal(StatusCode::NOT_FOUND, text);
    // Guix reads max-age and nothing else; without it, it remembers for as long as it likes.
    let value = HeaderValue::from_str(&format!("max-age={}", ttl.as_secs())).expect("digits are header text");
    response.headers_mut().insert(CACHE_CONTROL, value);
    response
}

/// Answers that only GET and HEAD are served.
pub(super) fn method_not_allowed() -> Response<Body> {
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// Content that never changes under its name.
pub(super) struct Immutable {
    /// Tells it from all other content; without quotes.
    pub(super) tag: String,
    /// Its type.
    pub(super) kind: HeaderValue,
    /// Bytes it has.
    pub(super) length: u64,
}

/// What of an immutable content a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// These bytes.
    Bytes {
        /// The first one.
        first: u64,
        /// Their number.
        count: u64,
    },
    /// Nothing: the client has it.
    Nothing,
    /// Bytes that are not there.
    NotThere,
}

impl Immutable {
    /// Tells what a request with these headers wants (RFC 9110, sections 13 and 14).
    pub(super) fn wanted(&self, headers: &HeaderMap) -> Wanted {
        let whole = Wanted::Bytes { first: 0, count: self.length };
        let etag = self.etag();
        if names(headers, IF_NONE_MATCH, &etag, Comparison::Weak) {
            return Wanted::Nothing;
        }
        if headers.contains_key(IF_RANGE) && !names(headers, IF_RANGE, &etag, Comparison::Strong) {
            return whole;
        }
        match Range::parse(headers.get(RANGE).and_then(|value| value.to_str().ok()), self.length) {
            Range::Whole => whole,
            Range::Part { first, last } => Wanted::Bytes { first, count: last - first + 1 },
            Range::Unsatisfiable => Wanted::NotThere,
        }
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.tag)
    }

    /// Answers where no bytes are needed for it.
    pub(super) fn without_bytes(&self, method: &Method, wanted: Wanted) -> Option<Response<Body>> {
        match wanted {
            Wanted::Nothing => Some(reply(StatusCode::NOT_MODIFIED, Body::empty(), self.headers())),
            Wanted::NotThere => {
                let mut response = refusal(StatusCode::RANGE_NOT_SATISFIABLE, "no such range");
                response.headers_mut().insert(CONTENT_RANGE, ascii(&format!("bytes */{}", self.length)));
                Some(response)
            }
            Wanted::Bytes { first, count } => {
                (*method == Method::HEAD).then(|| self.with_body(first, count, Body::empty()))
            }
        }
    }

    /// Answers with `count` bytes from `first`; just these are what `source` gives.
    pub(super) fn send(
        &self,
        first: u64,
        count: u64,
        source: Box<dyn Read + Send>,
        pool: &BufferPool,
    ) -> Response<Body> {
        self.with_body(first, count, Body::Read(ReadBody::new(source, Some(count), pool.clone())))
    }

    fn headers(&self) -> [(HeaderName, HeaderValue); 4] {
        [
            (ETAG, ascii(&self.etag())),
            (CACHE_CONTROL, IMMUTABLE),
            (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
            (CONTENT_TYPE, self.kind.clone()),
        ]
    }

    fn with_body(&self, first: u64, count: u64, body: Body) -> Response<Body> {
        let mut response = reply(StatusCode::OK, body, self.headers());
        response.headers_mut().insert(CONTENT_LENGTH, count.into());
        if count < self.length {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let part = format!("bytes {first}-{}/{}", first + count - 1, self.length);
            response.headers_mut().insert(CONTENT_RANGE, ascii(&part));
        }
        response
    }
}

/// How tags are compared (RFC 9110, section 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// Weak tags match none.
    Strong,
    /// A tag's weakness is passed over.
    Weak,
}

/// Tells whether a header lists `etag`, or any tag at all.
fn names(headers: &HeaderMap, name: HeaderName, etag: &str, comparison: Comparison) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).any(|tag| {
        let tag = match comparison {
            Comparison::Strong => tag,
            Comparison::Weak => tag.strip_prefix("W/").unwrap_or(tag),
        };
        tag == "*" || tag == etag
    })
}

fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("tags and numbers are header text")
}

/// Answers with what `source` gives, whose length is known only at its end; nothing of it for a HEAD request.
pub(super) fn stream(
    kind: HeaderValue,
    method: &Method,
    source: Box<dyn Read + Send>,
    pool: &BufferPool,
) -> Response<Body> {
    reply(StatusCode::OK, read_unless_head(method, source, None, pool), [(CONTENT_TYPE, kind)])
}

/// Answers with text that is to be shown and not to be run, packed with gzip or not, and its length where it is known.
pub(super) fn log(
    method: &Method,
    gzip: bool,
    length: Option<u64>,
    source: Box<dyn Read + Send>,
    pool: &BufferPool,
) -> Response<Body> {
    let headers = [
        (CONTENT_TYPE, TEXT),
        (X_CONTENT_TYPE_OPTIONS, NOSNIFF),
        (VARY, HeaderValue::from_static("accept-encoding")),
    ];
    let mut response = reply(StatusCode::OK, read_unless_head(method, source, length, pool), headers);
    if gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

/// Tells whether a client says that it takes gzip.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        let refused =
            quality.trim().strip_prefix("q=").is_some_and(|value| value.trim_matches(['0', '.']).is_empty());
        matches!(name.trim(), "gzip" | "*") && !refused
    })
}

fn read_unless_head(
    method: &Method,
    source: Box<dyn Read + Send>,
    length: Option<u64>,
    pool: &BufferPool,
) -> Body {
    match *method {
        Method::HEAD => Body::empty(),
        _ => Body::Read(ReadBody::new(source, length, pool.clone())),
    }
}

/// Takes the body away for a HEAD request, keeping its length.
pub(super) fn head_only(method: &Method, mut response: Response<Body>) -> Response<Body> {
    if *method == Method::HEAD {
        if let Body::Bytes(Some(bytes)) = response.body() {
            let length = bytes.len().into();
            response.headers_mut().insert(CONTENT_LENGTH, length);
        }
        *response.body_mut() = Body::empty();
    }
    response
}
