//! Codes that only whoever has a key can make.

use std::fmt;
use std::io;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A key. Not shown.
#[derive(Clone)]
pub(crate) struct Key([u8; 32]);

/// A code over some words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Code([u8; 32]);

impl Key {
    /// Makes one that nobody knows.
    pub(crate) fn random() -> io::Result<Self> {
        Ok(Self(random()?))
    }

    /// Makes that of a token.
    pub(crate) fn of(token: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"hauberk operator token\0");
        hash.update(token.as_bytes());
        Self(hash.finalize().into())
    }

    /// Tells whether it is that of a token, in a time that does not tell how near it was.
    pub(crate) fn is_of(&self, token: &str) -> bool {
        self.0.ct_eq(&Self::of(token).0).into()
    }

    /// Makes the code of some words, none of which can run into the next.
    pub(crate) fn code(&self, words: &[&str]) -> Code {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        for word in words {
            mac.update(&(word.len() as u64).to_be_bytes());
            mac.update(word.as_bytes());
        }
        Code(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(…)")
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Compares texts in a time that does not tell where they differ.
pub(crate) fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// Gives random bytes.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_depend_on_the_key_and_each_word() {
        let (one, other) = (Key::of("one token"), Key::of("another token"));
        let code = |key: &Key, words: &[&str]| key.code(words).to_string();
        assert_eq!(code(&one, &["a", "b"]), code(&one, &["a", "b"]));
        assert_ne!(code(&one, &["a", "b"]), code(&other, &["a", "b"]));
        assert_ne!(code(&one, &["a", "b"]), code(&one, &["ab"]));
        assert_eq!(code(&one, &[]).len(), 64);
        assert!(one.is_of("one token") && !one.is_of("another token"));
        assert!(!format!("{one:?}").contains("one"));
    }
}
