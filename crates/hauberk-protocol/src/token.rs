//! The one-time token by which a new machine joins a farm.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::keys::{CurvePublicKey, KeyFingerprint};

/// Begins the text of a token; a change of its layout changes this word.
const PREFIX: &str = "hauberk1";

/// Bytes of randomness in a token.
const SECRET_LENGTH: usize = 20;

/// Admits one worker, once: the fingerprint of the server it may be shown to, and a secret.
///
/// As text: `hauberk1-FINGERPRINT-SECRET`, lower-case letters and digits only, so that it needs no quoting. The server keeps the
/// [`EnrolmentToken::digest`], not the token.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct EnrolmentToken {
    #[zeroize(skip)]
    server: KeyFingerprint,
    secret: [u8; SECRET_LENGTH],
}

/// A text that is not an enrolment token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an enrolment token: it looks like {PREFIX}-FINGERPRINT-SECRET and is made by `hauberk worker token`"
)]
pub struct TokenError;

impl EnrolmentToken {
    /// Makes a new token for the server with the key `server`.
    ///
    /// # Panics
    ///
    /// Panics when the operating system gives no randomness.
    pub fn generate(server: &CurvePublicKey) -> Self {
        let mut secret = [0; SECRET_LENGTH];
        getrandom::fill(&mut secret).expect("the operating system has randomness");
        Self { server: server.fingerprint(), secret }
    }

    /// Tells whether the token may be shown to the server with the key `server`.
    pub fn is_for(&self, server: &CurvePublicKey) -> bool {
        self.server == server.fingerprint()
    }

    /// Gives the fingerprint of the server the token was made for.
    pub fn server(&self) -> KeyFingerprint {
        self.server
    }

    /// Gives what a server keeps of the token: the SHA-256 of its text.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.to_string()).into()
    }

    /// Compares with a kept digest in constant time.
    pub fn has_digest(&self, digest: &[u8]) -> bool {
        self.digest()[..].ct_eq(digest).into()
    }
}

/// Shows the token itself, for the one time when its maker hands it over.
impl fmt::Display for EnrolmentToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}-{}-", self.server)?;
        self.secret.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EnrolmentToken({}, ..)", self.server)
    }
}

impl FromStr for EnrolmentToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let rest = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')).ok_or(TokenError)?;
        let (server, digits) = rest.split_once('-').ok_or(TokenError)?;
        let server = server.parse().map_err(|_| TokenError)?;
        let mut secret = [0; SECRET_LENGTH];
        if digits.len() != 2 * SECRET_LENGTH {
            return Err(TokenError);
        }
        for (byte, pair) in secret.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Ok(Self { server, secret })
    }
}

fn hex_digit(character: u8) -> Result<u8, TokenError> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        _ => Err(TokenError),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::CurveKeyPair;

    #[test]
    fn a_token_is_for_one_server_and_survives_its_text() {
        let (ours, other) = (CurveKeyPair::generate(), CurveKeyPair::generate());
        let token = EnrolmentToken::generate(ours.public());
        let read: EnrolmentToken = token.to_string().parse().unwrap();
        assert!(read.is_for(ours.public()) && !read.is_for(other.public()));
        assert!(read.has_digest(&token.digest()));
        assert!(!read.has_digest(&EnrolmentToken::generate(ours.public()).digest()));
        assert!(!format!("{token:?}").contains(&token.to_string()[42..]));
    }

    proptest! {
        #[test]
        fn junk_is_refused(text in "(hauberk1-)?[0-9a-f-]{0,80}\\PC{0,3}") {
            if let Ok(token) = text.parse::<EnrolmentToken>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
