//! Proof that a publish server holds a key.

use std::fmt;

use hauberk_store::hash::encode_base16;

/// Fewest and most characters of a nonce.
const LENGTHS: std::ops::RangeInclusive<usize> = 32..=64;

/// Stands before a nonce in what is signed. No narinfo's fingerprint begins so, hence no signature of a nonce can
/// ever pass for one of a store item.
const PURPOSE: &str = "hauberk-publish-server;";

/// A text asked to be signed once, to see who is there: 32 to 64 letters and digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nonce(String);

impl Nonce {
    /// Makes one that nobody has seen.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(encode_base16(&bytes)))
    }

    /// Reads one; nothing for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fits = LENGTHS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        fits.then(|| Self(text.to_owned()))
    }

    /// Gives the text that is signed.
    pub(crate) fn signed_text(&self) -> String {
        format!("{PURPOSE}{self}")
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
