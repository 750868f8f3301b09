//! The `Range` request header.

/// What a `Range` header asks of a body of a known length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// The whole: no header, or one that may be passed over (several ranges, another unit, malformed).
    Whole,
    /// Bytes `first` to `last`, both included and inside the body.
    Part {
        /// The first byte.
        first: u64,
        /// The last byte.
        last: u64,
    },
    /// Nothing the body has.
    Unsatisfiable,
}

impl Range {
    /// Reads the header against a body of `length` bytes (RFC 9110, section 14).
    pub fn parse(header: Option<&str>, length: u64) -> Self {
        Self::one(header, length).unwrap_or(Self::Whole)
    }

    fn one(header: Option<&str>, length: u64) -> Option<Self> {
        let (first, last) = header?.trim().strip_prefix("bytes=")?.split_once('-')?;
        let (first, last) = (first.trim(), last.trim());
        if first.is_empty() {
            let suffix = number(last)?;
            return Some(if suffix == 0 || length == 0 {
                Self::Unsatisfiable
            } else {
                Self::Part { first: length.saturating_sub(suffix), last: length - 1 }
            });
        }
        let first = number(first)?;
        let last = if last.is_empty() { u64::MAX } else { number(last)? };
        if last < first {
            return None;
        }
        Some(if first >= length {
            Self::Unsatisfiable
        } else {
            Self::Part { first, last: last.min(length - 1) }
        })
    }
}

/// The least last byte by which a client says that it wants all that comes, of a body whose length nobody knows (RFC 8673): the largest
/// number that every program can hold.
pub(super) const ALL_THAT_COMES: u64 = (1 << 53) - 1;

/// What a `Range` header asks of a body whose length is not known: all from this byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    /// The first byte.
    pub(super) first: u64,
    /// The last byte as the client put it, which is far beyond the end.
    pub(super) last: u64,
}

impl Rest {
    /// The whole.
    pub(super) const WHOLE: Self = Self { first: 0, last: u64::MAX };

    /// Reads the header. What asks for anything else is passed over.
    pub(super) fn parse(header: Option<&str>) -> Self {
        Self::one(header).unwrap_or(Self::WHOLE)
    }

    fn one(header: Option<&str>) -> Option<Self> {
        let (first, last) = header?.trim().strip_prefix("bytes=")?.split_once('-')?;
        let (first, last) = (number(first.trim())?, number(last.trim())?);
        (last >= ALL_THAT_COMES && first < last).then_some(Self { first, last })
    }
}

/// Reads digits; what is too large for the type is as good as its largest value.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests() {
        let rest = |header| Rest::parse(Some(header));
        assert_eq!(rest("bytes=7-9007199254740991"), Rest { first: 7, last: 9_007_199_254_740_991 });
        assert_eq!(rest("bytes=0-9223372036854775807"), Rest { first: 0, last: i64::MAX as u64 });
        for whole in ["", "bytes=7-", "bytes=-7", "bytes=7-100", "bytes=9-8", "items=7-9007199254740991"] {
            assert_eq!(rest(whole), Rest::WHOLE, "{whole}");
        }
        assert_eq!(Rest::parse(None), Rest::WHOLE);
    }

    #[test]
    fn ranges() {
        let check = |header: &str, expected: Range| {
            assert_eq!(Range::parse(Some(header), 100), expected, "{header}");
        };
        check("bytes=0-0", Range::Part { first: 0, last: 0 });
        check("bytes=10-19", Range::Part { first: 10, last: 19 });
        check("bytes=90-", Range::Part { first: 90, last: 99 });
        check("bytes=90-1000", Range::Part { first: 90, last: 99 });
        check("bytes=-10", Range::Part { first: 90, last: 99 });
        check("bytes=-1000", Range::Part { first: 0, last: 99 });
        check("bytes=0-99999999999999999999999", Range::Part { first: 0, last: 99 });
        check("bytes=100-", Range::Unsatisfiable);
        check("bytes=99999999999999999999999-", Range::Unsatisfiable);
        check("bytes=-0", Range::Unsatisfiable);
        for whole in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-4",
            "bytes=0-1,5-6",
            "items=0-1",
            "bytes=+1-2",
            "bytes=a-b",
        ] {
            check(whole, Range::Whole);
        }
        assert_eq!(Range::parse(None, 100), Range::Whole);
        assert_eq!(Range::parse(Some("bytes=0-"), 0), Range::Unsatisfiable);
    }
}
