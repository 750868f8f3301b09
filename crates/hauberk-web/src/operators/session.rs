//! Sessions: what a browser shows after it was let in.
//!
//! A session is a cookie that names the operator, when it ends and a number of its own, with a code that only the operator's token makes.
//! So nothing is kept here: sessions outlive this process, and end when the token is taken out of the file.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use jiff::Timestamp;

use super::secret::{random, same};
use super::tokens::Tokens;
use crate::app::App;

/// The name of the cookie.
pub(super) const COOKIE: &str = "hauberk_operator";
/// How long a session lasts.
pub(super) const LASTS: Duration = Duration::from_secs(12 * 3600);

/// Somebody who may operate the farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// What stands in the audit.
    pub(crate) who: String,
    /// What every form carries.
    pub(crate) csrf: String,
    /// Whether there is a cookie to forget.
    pub(crate) can_log_out: bool,
}

/// Whoever looks at a page, with the session there is.
#[derive(Debug, Clone)]
pub(crate) struct Visitor(pub(crate) Option<Session>);

impl FromRequestParts<App> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        Ok(Self(app.operators.session(parts)))
    }
}

/// Begins a session with a token: gives the cookie's value.
pub(super) fn begin(tokens: &Tokens, token: &str) -> io::Result<Option<String>> {
    let Some((name, key)) = tokens.of_token(token) else { return Ok(None) };
    let ends = Timestamp::now().as_second() + LASTS.as_secs() as i64;
    let number = u128::from_ne_bytes(random()?);
    let said = format!("{name}:{ends}:{number:032x}");
    Ok(Some(format!("{said}:{}", key.code(&["session", &said]))))
}

/// Finds the session of a cookie.
pub(super) fn of_cookie(tokens: &Tokens, headers: &HeaderMap) -> Option<Session> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies =
        values.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    cookies.find_map(|(name, value)| (name == COOKIE).then(|| read(tokens, value)).flatten())
}

fn read(tokens: &Tokens, value: &str) -> Option<Session> {
    let (said, code) = value.rsplit_once(':')?;
    let name = said.split(':').next()?;
    let key = tokens.of_name(name)?;
    if !same(&key.code(&["session", said]).to_string(), code) {
        return None;
    }
    let ends: i64 = said.split(':').nth(1)?.parse().ok()?;
    if Timestamp::now().as_second() >= ends {
        return None;
    }
    let csrf = key.code(&["csrf", said]).to_string();
    Some(Session { who: format!("{name} (pages)"), csrf, can_log_out: true })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn tokens(text: &str) -> Tokens {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        Tokens::read(file.path()).unwrap()
    }

    fn session(tokens: &Tokens, cookie: &str) -> Option<Session> {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, cookie.parse().unwrap());
        of_cookie(tokens, &headers)
    }

    #[test]
    fn a_session_is_that_of_its_token_and_cannot_be_made_up() {
        let both = tokens("anna aaaaaaaaaaaaaaaaaaaa\nben bbbbbbbbbbbbbbbbbbbb\n");
        assert!(begin(&both, "cccccccccccccccccccc").unwrap().is_none());
        let value = begin(&both, "aaaaaaaaaaaaaaaaaaaa").unwrap().unwrap();
        let found = session(&both, &format!("other=1; {COOKIE}={value}")).unwrap();
        assert_eq!(found.who, "anna (pages)");
        // Another session of the same operator has another secret.
        let again = begin(&both, "aaaaaaaaaaaaaaaaaaaa").unwrap().unwrap();
        assert_ne!(session(&both, &format!("{COOKIE}={again}")).unwrap().csrf, found.csrf);
        for bad in [
            value.replace("anna", "ben"),
            value.replacen(':', ":9", 1),
            value[..value.len() - 1].to_owned(),
            "anna:9999999999:0:00".to_owned(),
            "::::".to_owned(),
            String::new(),
        ] {
            assert_eq!(session(&both, &format!("{COOKIE}={bad}")), None, "{bad}");
        }
        // The token was taken out of the file, or is another now.
        assert_eq!(session(&tokens("ben bbbbbbbbbbbbbbbbbbbb"), &format!("{COOKIE}={value}")), None);
        assert_eq!(session(&tokens("anna xxxxxxxxxxxxxxxxxxxx"), &format!("{COOKIE}={value}")), None);
    }

    #[test]
    fn a_session_ends() {
        let tokens = tokens("anna aaaaaaaaaaaaaaaaaaaa");
        let key = tokens.of_name("anna").unwrap();
        let of = |ends: i64| {
            let said = format!("anna:{ends}:00");
            session(&tokens, &format!("{COOKIE}={said}:{}", key.code(&["session", &said])))
        };
        assert!(of(Timestamp::now().as_second() + 60).is_some());
        assert!(of(Timestamp::now().as_second() - 1).is_none());
    }
}
