//! The tokens by which things are pushed.

use std::fmt;

use hauberk_store::{Sha256, hash::encode_base16};

/// What shows that somebody may push for an evaluation. Only its digest is kept where it is checked.
#[derive(Clone)]
pub struct PushToken(String);

impl PushToken {
    /// Makes one that nobody has seen.
    ///
    /// # Errors
    /// A system that gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(encode_base16(&bytes)))
    }

    /// Gives its text, which is secret.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Gives its digest.
    pub fn digest(&self) -> Sha256 {
        Sha256::digest(self.0.as_bytes())
    }
}

impl fmt::Debug for PushToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PushToken(…)")
    }
}
