//! The one-time token by which a new machine joins a farm.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::keys::CurvePublicKey;

/// Begins the text of a token; a change of its layout changes this word.
const PREFIX: &str = "hauberk1";

/// Bytes of randomness in a token.
const SECRET_LENGTH: usize = 20;

/// Admits a worker: the key of the server it may be shown to, and a secret.
///
/// As text: `hauberk1-KEY-SECRET`, lower-case letters and digits only, so that it needs no quoting. The server keeps the
/// [`EnrolmentToken::digest`], not the token. The whole key is in it and not a fingerprint, so that a machine that finds no
/// announcement needs nothing but the server's address.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct EnrolmentToken {
    #[zeroize(skip)]
    server: CurvePublicKey,
    secret: [u8; SECRET_LENGTH],
}

/// A text that is not an enrolment token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an enrolment token: it looks like {PREFIX}-KEY-SECRET and is made by `hauberk worker token`")]
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
        Self { server: *server, secret }
    }

    /// Gives the key of the server it may be shown to.
    pub fn server(&self) -> &CurvePublicKey {
        &self.server
    }

    /// Gives what a server keeps of the token: the SHA-256 of its text.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.to_string()).into()
    }
}

/// Shows the token itself, for the one time when its maker hands it over.
impl fmt::Display for EnrolmentToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}-")?;
        self.server.as_bytes().iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))?;
        write!(formatter, "-")?;
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
        let server = CurvePublicKey::from_bytes(hex_bytes(server)?);
        Ok(Self { server, secret: hex_bytes(digits)? })
    }
}

fn hex_bytes<const N: usize>(digits: &str) -> Result<[u8; N], TokenError> {
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return Err(TokenError);
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Ok(bytes)
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
        let ours = CurveKeyPair::generate();
        let token = EnrolmentToken::generate(ours.public());
        let read: EnrolmentToken = token.to_string().parse().unwrap();
        assert_eq!((read.server(), read.digest()), (ours.public(), token.digest()));
        assert_ne!(token.digest(), EnrolmentToken::generate(ours.public()).digest());
        assert!(!format!("{token:?}").contains(&token.to_string()[74..]));
    }

    proptest! {
        #[test]
        fn junk_is_refused(text in "(hauberk1-)?[0-9a-f-]{0,110}\\PC{0,3}") {
            if let Ok(token) = text.parse::<EnrolmentToken>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
