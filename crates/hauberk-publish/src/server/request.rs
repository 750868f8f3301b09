//! A request, as far as a server of files needs it.

use super::{elsewhere::PEER_FIELD, status::Status};

/// Largest head of a request, in bytes. Substitute clients send a few hundred.
pub(super) const MAX_HEAD: usize = 16 * 1024;

/// Most fields of a head.
const MAX_FIELDS: usize = 64;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Send it.
    Get,
    /// Send all but the content.
    Head,
    /// Add the content that comes with it.
    Patch,
    /// Answer what the content asks.
    Post,
    /// Something that is not done here.
    Other,
}

/// The fields of a head that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// `Accept`.
    Accept,
    /// `Accept-Encoding`.
    AcceptEncoding,
    /// `Authorization`.
    Authorization,
    /// `If-None-Match`.
    IfNoneMatch,
    /// `If-Range`.
    IfRange,
    /// `Range`.
    Range,
    /// `Upload-Complete`.
    UploadComplete,
    /// `Upload-Offset`.
    UploadOffset,
    /// [`PEER_FIELD`].
    Peer,
}

impl Field {
    const ALL: [(&'static str, Self); 9] = [
        ("accept", Self::Accept),
        ("accept-encoding", Self::AcceptEncoding),
        ("authorization", Self::Authorization),
        ("if-none-match", Self::IfNoneMatch),
        ("if-range", Self::IfRange),
        ("range", Self::Range),
        ("upload-complete", Self::UploadComplete),
        ("upload-offset", Self::UploadOffset),
        (PEER_FIELD, Self::Peer),
    ];
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// What is to be done.
    pub(super) method: Method,
    /// With what: the path as it was sent, without a query.
    pub(super) path: String,
    /// Whether the client wants to ask again on the same connection.
    pub(super) stays: bool,
    /// Whether it speaks HTTP/1.1, and so takes an answer in chunks.
    pub(super) takes_chunks: bool,
    /// Whether the head of the answer must say that the connection stays, as clients of HTTP/1.0 expect.
    pub(super) told_to_stay: bool,
    /// Bytes of content that come with it, where they are told beforehand.
    pub(super) content: Option<u64>,
    /// Whether the connection can go on once the content is read.
    pub(super) stays_after_content: bool,
    fields: Vec<(Field, String)>,
}

impl Request {
    /// Reads the head at the beginning of `bytes`, and gives its length too. Nothing while it is not whole.
    ///
    /// What follows the head belongs to the next request: one that brings content of its own is the last that is read
    /// of its connection.
    ///
    /// # Errors
    /// The status that the client deserves.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Status> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Request::new(&mut fields);
        let length = match head.parse(bytes) {
            Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
            Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Status::HeadTooLarge),
            Err(httparse::Error::Version) => return Err(Status::VersionNotSupported),
            Err(_) => return Err(Status::BadRequest),
        };
        let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
            return Err(Status::BadRequest);
        };
        let mut request = Self {
            method: match method {
                "GET" => Method::Get,
                "HEAD" => Method::Head,
                "PATCH" => Method::Patch,
                "POST" => Method::Post,
                _ => Method::Other,
            },
            path: path_of(target).to_owned(),
            stays: minor > 0,
            takes_chunks: minor > 0,
            told_to_stay: false,
            content: None,
            stays_after_content: false,
            fields: Vec::new(),
        };
        let (mut has_content, mut lengths) = (false, Vec::new());
        for field in head.headers.iter() {
            let name = field.name;
            if let Some((_, known)) = Field::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                // What is no text asks for nothing that is here.
                let Ok(value) = std::str::from_utf8(field.value) else { continue };
                request.fields.push((*known, value.to_owned()));
            } else if name.eq_ignore_ascii_case("connection") {
                let options = field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
                for option in options {
                    if option.eq_ignore_ascii_case(b"close") {
                        request.stays = false;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") && minor == 0 {
                        request.stays = true;
                        request.told_to_stay = true;
                    }
                }
            } else if name.eq_ignore_ascii_case("content-length") {
                has_content |= field.value.trim_ascii() != b"0";
                lengths.push(field.value);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                has_content = true;
                lengths.push(b"");
            }
        }
        // One that is told once, and nothing that says otherwise.
        request.content = match lengths.as_slice() {
            [] => Some(0),
            [length] => length_of(length.trim_ascii()),
            _ => None,
        };
        request.stays_after_content = request.stays;
        request.stays &= !has_content;
        Ok(Some((request, length)))
    }

    /// Gives what stands for a request that could not be read.
    pub(super) fn none() -> Self {
        Self {
            method: Method::Other,
            path: String::new(),
            stays: false,
            takes_chunks: false,
            told_to_stay: false,
            content: None,
            stays_after_content: false,
            fields: Vec::new(),
        }
    }

    /// Gives the bearer token it has.
    pub(super) fn bearer(&self) -> Option<&str> {
        let value = self.values(Field::Authorization).next()?;
        let (scheme, token) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    }

    /// Gives the values of a field, in their order.
    pub(super) fn values(&self, field: Field) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(found, _)| *found == field).map(|(_, value)| value.as_str())
    }

    /// Tells whether a client says that it takes gzip.
    pub(super) fn takes_gzip(&self) -> bool {
        self.values(Field::AcceptEncoding).flat_map(|value| value.split(',')).any(|coding| {
            let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
            let refused = quality
                .trim()
                .strip_prefix("q=")
                .is_some_and(|value| value.trim_matches(['0', '.']).is_empty());
            matches!(name.trim(), "gzip" | "*") && !refused
        })
    }

    /// Tells whether the client asks for JSON.
    pub(super) fn takes_json(&self) -> bool {
        let kinds = self.values(Field::Accept).flat_map(|value| value.split(','));
        kinds.filter_map(|kind| kind.split(';').next()).any(|kind| kind.trim() == "application/json")
    }
}

/// Reads a number of bytes: digits and nothing else.
fn length_of(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Gives the path of a request's target, which may be a whole URL, without its query.
fn path_of(target: &str) -> &str {
    let target = match target.strip_prefix("http://").or_else(|| target.strip_prefix("https://")) {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    target.split('?').next().unwrap_or(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Request {
        let (request, length) = Request::parse(head.as_bytes()).unwrap().unwrap();
        assert_eq!(length, head.len());
        request
    }

    #[test]
    fn what_is_asked() {
        let request = parse("GET /x?y HTTP/1.1\r\nHost: h\r\nRange: bytes=0-\r\nrange: x\r\n\r\n");
        assert_eq!((request.method, request.path.as_str()), (Method::Get, "/x"));
        assert_eq!(request.values(Field::Range).collect::<Vec<_>>(), ["bytes=0-", "x"]);
        assert!(request.stays && request.takes_chunks && !request.told_to_stay);
        assert_eq!(parse("HEAD http://h:1/x HTTP/1.1\r\n\r\n").path, "/x");
        assert_eq!(parse("HEAD http://h HTTP/1.1\r\n\r\n").path, "/");
        assert_eq!(parse("POST /x HTTP/1.1\r\n\r\n").method, Method::Post);
        assert_eq!(parse("PUT /x HTTP/1.1\r\n\r\n").method, Method::Other);
        assert!(parse("GET / HTTP/1.1\r\nAccept: text/html, application/json;q=0.5\r\n\r\n").takes_json());
        for (value, takes) in
            [("gzip", true), ("br, gzip;q=0", false), ("*;q=0.1", true), ("identity", false)]
        {
            assert_eq!(
                parse(&format!("GET / HTTP/1.1\r\nAccept-Encoding: {value}\r\n\r\n")).takes_gzip(),
                takes
            );
        }
    }

    #[test]
    fn how_long_connections_stay() {
        let stays = |head: &str| parse(head).stays;
        assert!(!stays("GET / HTTP/1.0\r\n\r\n"));
        assert!(stays("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
        assert!(!stays("GET / HTTP/1.1\r\nConnection: TE, close\r\n\r\n"));
        assert!(!stays("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"));
        assert!(!stays("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"));
        assert!(stays("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"));
    }

    #[test]
    fn what_is_wrong() {
        let check = |head: &[u8], expected: Result<(), Status>| {
            let found = Request::parse(head).map(|whole| assert_eq!(whole, None));
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(&head[..head.len().min(40)]));
        };
        check(b"", Ok(()));
        check(b"GET / HT", Ok(()));
        check(b"GET / HTTP/1.1\r\nX", Ok(()));
        check(b"GET / HTTP/2.0\r\n\r\n", Err(Status::VersionNotSupported));
        check(b"\x16\x03\x01\x02", Err(Status::BadRequest));
        check(b"GET /\0 HTTP/1.1\r\n\r\n", Err(Status::BadRequest));
        check(&[b"GET /".as_slice(), &[b'x'; MAX_HEAD]].concat(), Err(Status::HeadTooLarge));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
        check(many.as_bytes(), Err(Status::HeadTooLarge));
    }

    proptest::proptest! {
        #[test]
        fn junk_is_no_danger(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Request::parse(&bytes);
        }
    }
}
