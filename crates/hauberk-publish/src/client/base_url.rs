//! Where a substitute server is.

use std::{fmt, str::FromStr};

use reqwest::Url;

/// Names a substitute server: an `http` or `https` URL that its files' names are appended to.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BaseUrl {
    /// Ends with a slash.
    url: Url,
}

/// A text that names no substitute server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the URL of a substitute server: {reason}")]
pub struct BaseUrlError {
    /// The text given, cut after 200 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl BaseUrl {
    /// Reads a URL, with or without a slash at its end.
    ///
    /// # Errors
    /// Anything but `http` and `https`; no host; a query, a fragment or a password.
    pub fn parse(text: &str) -> Result<Self, BaseUrlError> {
        let wrong = |reason| BaseUrlError { text: text.chars().take(200).collect(), reason };
        let mut url = Url::parse(text.trim()).map_err(|_| wrong("it cannot be read"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("only http and https are spoken"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has a query or a fragment"));
        }
        if url.password().is_some() || !url.username().is_empty() {
            return Err(wrong("it has a user name or password"));
        }
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        Ok(Self { url })
    }

    /// Gives the URL of a file of the server, or nothing for a name that could mean a file elsewhere.
    pub(super) fn join(&self, name: &str) -> Option<Url> {
        let (path, query) = name.split_once('?').map_or((name, None), |(path, query)| (path, Some(query)));
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#' | b':');
        let inside = path.split('/').all(|part| {
            let dots = part.replace("%2e", ".").replace("%2E", ".");
            !matches!(dots.as_str(), "" | "." | "..")
        });
        if !inside || !name.bytes().all(plain) {
            return None;
        }
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path()));
        url.set_query(query);
        Some(url)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_base() {
        let base = BaseUrl::parse("http://h:5557/cache").unwrap();
        assert_eq!(base.to_string(), "http://h:5557/cache");
        assert_eq!(base, BaseUrl::parse("http://h:5557/cache/").unwrap());
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(base.join(name).as_ref().map(Url::as_str), expected, "{name}");
        };
        check("nar/x.nar.zst", Some("http://h:5557/cache/nar/x.nar.zst"));
        check("nar/x.nar?hash=y", Some("http://h:5557/cache/nar/x.nar?hash=y"));
        check("nar/gzip/a%3Fb", Some("http://h:5557/cache/nar/gzip/a%3Fb"));
        for name in [
            "",
            "/x",
            "//evil/x",
            "http://evil/x",
            "../x",
            "nar/../../x",
            "nar/%2e%2E/x",
            "nar/.%2e/x",
            "nar\\x",
            "nar/x#y",
            "nar/x y",
            "nar//x",
            "\u{e9}",
        ] {
            check(name, None);
        }
    }

    #[test]
    fn refuses_other_urls() {
        for text in [
            "",
            "h",
            "ftp://h",
            "file:///x",
            "http://",
            "http://h?x",
            "http://h#x",
            "http://u:p@h",
            "http://u@h",
        ] {
            assert!(BaseUrl::parse(text).is_err(), "{text}");
        }
        assert_eq!(BaseUrl::parse(" http://[::1]:1 ").unwrap().to_string(), "http://[::1]:1");
    }
}
