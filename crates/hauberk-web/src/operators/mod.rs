//! Who may operate the farm by the pages.
//!
//! Nobody, unless it is configured: by a token, which is exchanged for a session at `/login`, or from this machine itself. Every deed
//! is a POST that carries a secret of the session and comes from a page of ours by what the browser says; so neither a link nor a page
//! elsewhere does anything.

mod loopback;
mod order;
mod origin;
mod secret;
mod session;
mod tokens;

pub use tokens::{Tokens, TokensError};

pub(crate) use loopback::Peer;
pub(crate) use order::{Order, Refusal, read_form};
pub(crate) use session::{Session, Visitor};

use std::sync::Arc;

use axum::http::Version;
use axum::http::request::Parts;

use secret::Key;
use session::COOKIE;

/// Who may operate the farm by the pages. The default is nobody.
#[derive(Debug, Clone, Default)]
pub struct Operators {
    tokens: Option<Arc<Tokens>>,
    loopback: Option<Arc<Key>>,
}

impl Operators {
    /// Lets those operate the farm who have one of these tokens.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = Some(Arc::new(tokens));
        self
    }

    /// Lets people of this machine operate the farm, when their browser connects over the loopback interface and not by a proxy.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn with_loopback(mut self) -> std::io::Result<Self> {
        self.loopback = Some(Arc::new(Key::random()?));
        Ok(self)
    }

    /// Tells whether somebody may.
    pub(crate) fn any(&self) -> bool {
        self.tokens.is_some() || self.loopback.is_some()
    }

    /// Tells whether there is anything to log in with.
    pub(crate) fn take_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Finds the session of a request.
    pub(crate) fn session(&self, parts: &Parts) -> Option<Session> {
        if let Some(tokens) = &self.tokens
            && let Some(session) = session::of_cookie(tokens, &parts.headers)
        {
            return Some(session);
        }
        let key = self.loopback.as_ref()?;
        let peer = parts.extensions.get::<Peer>()?;
        if parts.version == Version::HTTP_10 {
            // Proxies speak it to what is behind them; browsers do not.
            return None;
        }
        let user = peer.user(&parts.headers)?;
        let csrf = key.code(&["csrf", "loopback", &user.uid.to_string()]).to_string();
        Some(Session { who: format!("{} (pages, this machine)", user.name), csrf, can_log_out: false })
    }

    /// Exchanges a token for the value of a session's cookie.
    pub(crate) fn log_in(&self, token: &str) -> std::io::Result<Option<String>> {
        let Some(tokens) = &self.tokens else { return Ok(None) };
        session::begin(tokens, token)
    }
}

/// Writes the header that keeps a session in the browser, or (without a value) forgets it.
pub(crate) fn set_cookie(value: Option<&str>, is_secure: bool) -> String {
    let secure = if is_secure { "; Secure" } else { "" };
    match value {
        Some(value) => {
            let age = session::LASTS.as_secs();
            format!("{COOKIE}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}")
        }
        None => format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict{secure}"),
    }
}
