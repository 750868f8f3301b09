//! The statuses of answers.

/// How a request ended (RFC 9110, section 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// 200.
    Ok,
    /// 204.
    NoContent,
    /// 206.
    PartialContent,
    /// 304.
    NotModified,
    /// 307.
    TemporaryRedirect,
    /// 400.
    BadRequest,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 408.
    RequestTimeout,
    /// 409.
    Conflict,
    /// 411.
    LengthRequired,
    /// 413.
    ContentTooLarge,
    /// 416.
    RangeNotSatisfiable,
    /// 422.
    UnprocessableContent,
    /// 431.
    HeadTooLarge,
    /// 500.
    InternalError,
    /// 503.
    Unavailable,
    /// 505.
    VersionNotSupported,
}

impl Status {
    /// Gives its number.
    pub(super) const fn number(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::NoContent => 204,
            Self::PartialContent => 206,
            Self::NotModified => 304,
            Self::TemporaryRedirect => 307,
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::Conflict => 409,
            Self::LengthRequired => 411,
            Self::ContentTooLarge => 413,
            Self::RangeNotSatisfiable => 416,
            Self::UnprocessableContent => 422,
            Self::HeadTooLarge => 431,
            Self::InternalError => 500,
            Self::Unavailable => 503,
            Self::VersionNotSupported => 505,
        }
    }

    /// Gives the first line of an answer, without its end.
    pub(super) const fn line(self) -> &'static str {
        match self {
            Self::Ok => "HTTP/1.1 200 OK",
            Self::NoContent => "HTTP/1.1 204 No Content",
            Self::PartialContent => "HTTP/1.1 206 Partial Content",
            Self::NotModified => "HTTP/1.1 304 Not Modified",
            Self::TemporaryRedirect => "HTTP/1.1 307 Temporary Redirect",
            Self::BadRequest => "HTTP/1.1 400 Bad Request",
            Self::Forbidden => "HTTP/1.1 403 Forbidden",
            Self::NotFound => "HTTP/1.1 404 Not Found",
            Self::MethodNotAllowed => "HTTP/1.1 405 Method Not Allowed",
            Self::RequestTimeout => "HTTP/1.1 408 Request Timeout",
            Self::Conflict => "HTTP/1.1 409 Conflict",
            Self::LengthRequired => "HTTP/1.1 411 Length Required",
            Self::ContentTooLarge => "HTTP/1.1 413 Content Too Large",
            Self::UnprocessableContent => "HTTP/1.1 422 Unprocessable Content",
            Self::RangeNotSatisfiable => "HTTP/1.1 416 Range Not Satisfiable",
            Self::HeadTooLarge => "HTTP/1.1 431 Request Header Fields Too Large",
            Self::InternalError => "HTTP/1.1 500 Internal Server Error",
            Self::Unavailable => "HTTP/1.1 503 Service Unavailable",
            Self::VersionNotSupported => "HTTP/1.1 505 HTTP Version Not Supported",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_number() {
        for status in [
            Status::Ok,
            Status::PartialContent,
            Status::NotModified,
            Status::TemporaryRedirect,
            Status::BadRequest,
            Status::NoContent,
            Status::Forbidden,
            Status::Conflict,
            Status::LengthRequired,
            Status::ContentTooLarge,
            Status::UnprocessableContent,
            Status::NotFound,
            Status::MethodNotAllowed,
            Status::RequestTimeout,
            Status::RangeNotSatisfiable,
            Status::HeadTooLarge,
            Status::InternalError,
            Status::Unavailable,
            Status::VersionNotSupported,
        ] {
            assert!(status.line().starts_with(&format!("HTTP/1.1 {} ", status.number())));
        }
    }
}
