//! Answers and their heads.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Write},
    time::Duration,
};

use bytes::Bytes;

use super::{
    body::Body,
    date,
    log_source::LogBody,
    range::{Range, Rest},
    request::{Field, Method, Request},
    status::Status,
};
use crate::{inbox::Offset, products::attachment};

/// The type of narinfos, as Nix's servers have it.
pub(super) const NARINFO: &str = "text/x-nix-narinfo";
/// The type of nars and nar files.
pub(super) const NAR: &str = "application/x-nix-nar";
/// The type of files of any kind.
pub(super) const FILE: &str = "application/octet-stream";
/// The type of `nix-cache-info`.
pub(super) const CACHE_INFO: &str = "text/x-nix-cache-info";
/// The type of JSON.
pub(super) const JSON: &str = "application/json";
/// The type of metrics.
pub(super) const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The type of texts.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// What never changes under its name.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// A field of an answer's head.
type Header = (&'static str, Cow<'static, str>);

/// An answer.
pub(super) struct Reply {
    /// How it went.
    pub(super) status: Status,
    headers: Vec<Header>,
    /// Its content. For a request by HEAD it is not sent, only its length.
    pub(super) body: Body,
    /// The length that is told where it is not that of the content: a client that asks by HEAD is given none of it.
    length: Option<u64>,
}

impl Reply {
    fn new<const N: usize>(status: Status, body: Body, headers: [Header; N]) -> Self {
        Self { status, headers: headers.into(), body, length: None }
    }

    fn set(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        self.headers.push((name, value.into()));
    }

    /// Writes the head. `last` says that the connection ends with this answer.
    pub(super) fn write_head(&self, request: &Request, last: bool, out: &mut Vec<u8>) {
        let mut line = |parts: &[&str]| {
            parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
            out.extend_from_slice(b"\r\n");
        };
        line(&[self.status.line()]);
        for (name, value) in &self.headers {
            line(&[name, ": ", value]);
        }
        match self.length.or_else(|| self.body.length()) {
            _ if matches!(self.status, Status::NotModified | Status::NoContent) => {}
            // Writing into a vector does not fail.
            Some(length) => drop(write!(out, "content-length: {length}\r\n")),
            None if request.takes_chunks => line(&["transfer-encoding: chunked"]),
            // The end of the connection is the end of the content.
            None => {}
        }
        if last {
            out.extend_from_slice(b"connection: close\r\n");
        } else if request.told_to_stay {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"date: ");
        date::write_now(out);
        out.extend_from_slice(b"\r\n\r\n");
    }

    /// Tells whether its end can only be told by ending the connection.
    pub(super) fn ends_connection(&self, request: &Request) -> bool {
        self.length.or_else(|| self.body.length()).is_none() && !request.takes_chunks
    }
}

/// Answers with bytes at hand.
pub(super) fn bytes(kind: &'static str, bytes: Bytes) -> Reply {
    Reply::new(Status::Ok, bytes.into(), [("content-type", kind.into())])
}

/// Answers with a narinfo; a client may remember it for `ttl`, if one is given.
pub(super) fn narinfo(kind: &'static str, text: Bytes, ttl: Option<Duration>) -> Reply {
    let mut reply = bytes(kind, text);
    if let Some(ttl) = ttl {
        reply.set("cache-control", format!("max-age={}", ttl.as_secs()));
    }
    reply
}

/// Says that an answer is good for this request alone.
pub(super) fn never_kept(mut reply: Reply) -> Reply {
    reply.set("cache-control", "no-store");
    reply
}

/// Has a client keep what it gets as a file of this name, and run nothing of it.
pub(super) fn to_keep(mut reply: Reply, name: &str) -> Reply {
    if !matches!(reply.status, Status::RangeNotSatisfiable) {
        reply.set("content-disposition", attachment(name));
        reply.headers.push(NOSNIFF);
    }
    reply.set("content-security-policy", "default-src 'none'; sandbox");
    reply
}

/// Answers with a text that says why not.
pub(super) fn refusal(status: Status, text: impl Into<String>) -> Reply {
    let mut text = text.into();
    text.push('\n');
    Reply::new(status, Bytes::from(text).into(), [("content-type", TEXT.into()), NOSNIFF])
}

const NOSNIFF: Header = ("x-content-type-options", Cow::Borrowed("nosniff"));

/// Answers that something is not here, for `ttl` at least.
pub(super) fn not_found(ttl: Duration, text: impl Into<String>) -> Reply {
    let mut reply = refusal(Status::NotFound, text);
    // Guix reads max-age and nothing else; without it, it remembers for as long as it likes.
    reply.set("cache-control", format!("max-age={}", ttl.as_secs()));
    reply
}

/// Answers that something is not here yet, and will be after `wait`.
pub(super) fn come_back(wait: Duration, text: impl Into<String>) -> Reply {
    let mut reply = refusal(Status::Unavailable, text);
    reply.set("retry-after", wait.as_secs().max(1).to_string());
    reply
}

/// Answers that something is at `url`, for now. Nothing is told of a place that is no text for a head.
pub(super) fn elsewhere(url: String) -> Reply {
    if url.is_empty() || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return not_found(Duration::ZERO, "this is on a server that has no address");
    }
    let mut reply = refusal(Status::TemporaryRedirect, "another server has this");
    reply.set("location", url);
    reply
}

/// Answers that only GET and HEAD are served.
pub(super) fn method_not_allowed() -> Reply {
    let mut reply = refusal(Status::MethodNotAllowed, "only GET and HEAD are served here");
    reply.set("allow", "GET, HEAD");
    reply
}

/// Content that never changes under its name.
pub(super) struct Immutable {
    /// Tells it from all other content; without quotes.
    pub(super) tag: String,
    /// Its type.
    pub(super) kind: &'static str,
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
    /// Tells what a request wants (RFC 9110, sections 13 and 14).
    pub(super) fn wanted(&self, request: &Request) -> Wanted {
        let whole = Wanted::Bytes { first: 0, count: self.length };
        let etag = self.etag();
        if names(request, Field::IfNoneMatch, &etag, Comparison::Weak) {
            return Wanted::Nothing;
        }
        if request.values(Field::IfRange).next().is_some()
            && !names(request, Field::IfRange, &etag, Comparison::Strong)
        {
            return whole;
        }
        match Range::parse(request.values(Field::Range).next(), self.length) {
            Range::Whole => whole,
            Range::Part { first, last } => Wanted::Bytes { first, count: last - first + 1 },
            Range::Unsatisfiable => Wanted::NotThere,
        }
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.tag)
    }

    /// Answers without its bytes: that they are not needed, that they are not there, or what they would be.
    pub(super) fn without_bytes(&self, wanted: Wanted) -> Reply {
        match wanted {
            Wanted::Nothing => Reply::new(Status::NotModified, Body::Empty, self.headers()),
            Wanted::NotThere => {
                let mut reply = refusal(Status::RangeNotSatisfiable, "no such range");
                reply.set("content-range", format!("bytes */{}", self.length));
                reply
            }
            Wanted::Bytes { first, count } => self.with_body(first, count, Body::Empty),
        }
    }

    fn headers(&self) -> [Header; 4] {
        [
            ("etag", self.etag().into()),
            ("cache-control", IMMUTABLE.into()),
            ("accept-ranges", "bytes".into()),
            ("content-type", self.kind.into()),
        ]
    }

    /// Answers out of the file that holds it.
    pub(super) fn file(&self, request: &Request, file: File) -> Reply {
        match self.wanted(request) {
            Wanted::Bytes { first, count } if request.method != Method::Head => {
                self.with_body(first, count, Body::File { file, first, count })
            }
            wanted => self.without_bytes(wanted),
        }
    }

    /// Answers with `count` bytes from `first`; just these are what `body` has.
    pub(super) fn with_body(&self, first: u64, count: u64, body: Body) -> Reply {
        let mut reply = Reply::new(Status::Ok, body, self.headers());
        reply.length = Some(count);
        if count < self.length {
            reply.status = Status::PartialContent;
            reply.set("content-range", format!("bytes {first}-{}/{}", first + count - 1, self.length));
        }
        reply
    }
}

/// Content that is always the same under its tag, and whose length is known when it has been sent.
pub(super) struct Endless {
    /// Tells it from all other content; without quotes.
    pub(super) tag: String,
    /// Its type.
    pub(super) kind: &'static str,
}

impl Endless {
    /// Tells from where on a request wants it; nothing where the client has it. Only who says what the rest must join gets a rest.
    pub(super) fn wanted(&self, request: &Request) -> Option<Rest> {
        let etag = self.etag();
        if names(request, Field::IfNoneMatch, &etag, Comparison::Weak) {
            return None;
        }
        if !names(request, Field::IfRange, &etag, Comparison::Strong) {
            return Some(Rest::WHOLE);
        }
        Some(Rest::parse(request.values(Field::Range).next()))
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.tag)
    }

    fn headers(&self) -> [Header; 2] {
        [("etag", self.etag().into()), ("content-type", self.kind.into())]
    }

    /// Answers that it is what the client has.
    pub(super) fn not_modified(&self) -> Reply {
        Reply::new(Status::NotModified, Body::Empty, self.headers())
    }

    /// Answers with what is wanted, which `body` has.
    pub(super) fn with_body(&self, wanted: Rest, body: Body) -> Reply {
        let mut reply = Reply::new(Status::Ok, body, self.headers());
        if wanted != Rest::WHOLE {
            reply.status = Status::PartialContent;
            // As RFC 8673 has it: the end is not known.
            reply.set("content-range", format!("bytes {}-{}/*", wanted.first, wanted.last));
        }
        reply
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

/// Tells whether a field lists `etag`, or any tag at all.
fn names(request: &Request, field: Field, etag: &str, comparison: Comparison) -> bool {
    request.values(field).flat_map(|value| value.split(',')).map(str::trim).any(|tag| {
        let tag = match comparison {
            Comparison::Strong => tag,
            Comparison::Weak => tag.strip_prefix("W/").unwrap_or(tag),
        };
        tag == "*" || tag == etag
    })
}

/// Tells how much of an upload is here.
pub(super) fn offset(status: Status, offset: Offset) -> Reply {
    let complete = if offset.complete { "?1" } else { "?0" };
    let mut reply = Reply::new(
        status,
        Body::Empty,
        [("cache-control", "no-store".into()), ("upload-complete", complete.into())],
    );
    reply.set("upload-offset", offset.at.to_string());
    reply
}

/// Answers with what is made while it is sent.
pub(super) fn stream(kind: &'static str, body: Body) -> Reply {
    Reply::new(Status::Ok, body, [("content-type", kind.into())])
}

/// Answers with the part of a growing gzip file that a request names by its bytes; nothing if it names none. Its length is only told when it grows no
/// more.
///
/// # Errors
/// The file cannot be read.
pub(super) fn growing(request: &Request, found: &LogBody) -> io::Result<Option<Reply>> {
    let file = File::open(&found.path)?;
    let length = file.metadata()?.len();
    // There is no validator to compare with: who has one for this speaks of something else.
    let range = match request.values(Field::IfRange).next() {
        Some(_) => Range::Whole,
        None => Range::parse(request.values(Field::Range).next(), length),
    };
    let mut reply = match range {
        Range::Whole => return Ok(None),
        Range::Unsatisfiable => {
            let mut reply = refusal(Status::RangeNotSatisfiable, "nothing is there yet");
            reply.set("content-range", format!("bytes */{length}"));
            reply
        }
        Range::Part { first, last } => {
            let count = last - first + 1;
            let mut reply = log(true, Body::File { file, first, count });
            reply.status = Status::PartialContent;
            reply.length = Some(count);
            let whole = if found.complete { length.to_string() } else { "*".to_owned() };
            reply.set("content-range", format!("bytes {first}-{last}/{whole}"));
            reply
        }
    };
    reply.set("cache-control", "no-store");
    Ok(Some(reply))
}

/// Answers with text that is to be shown and not to be run, packed with gzip or not.
pub(super) fn log(gzip: bool, body: Body) -> Reply {
    let headers = [("content-type", TEXT.into()), NOSNIFF, ("vary", "accept-encoding".into())];
    let mut reply = Reply::new(Status::Ok, body, headers);
    if gzip {
        reply.set("content-encoding", "gzip");
    }
    reply
}
