//! Keys of either world, told apart by how they are written.

use std::{fmt, str::FromStr};

use super::{guix, nix};
use crate::store_directory::StoreDirectory;

/// Why a text is not a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is written as Nix's are, but is none.
    #[error("not a key of Nix, NAME:BASE64")]
    Nix(#[source] nix::KeyError),
    /// It is written as Guix's are, but is none.
    #[error("not a key of Guix, an S-expression")]
    Guix(#[source] guix::KeyError),
}

/// A public key of Nix or of Guix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// Nix's: `NAME:BASE64`.
    Nix(nix::PublicKey),
    /// Guix's: `(public-key …)`.
    Guix(guix::PublicKey),
}

impl PublicKey {
    /// Gives the key in one line: Guix's many lines are joined by blanks, which means the same.
    pub fn to_line(&self) -> String {
        self.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    /// Reads the text of a key file.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if is_expression(text) {
            guix::PublicKey::parse(text.as_bytes()).map(Self::Guix).map_err(KeyError::Guix)
        } else {
            nix::PublicKey::parse(text).map(Self::Nix).map_err(KeyError::Nix)
        }
    }
}

impl fmt::Display for PublicKey {
    /// Writes the text of a key file, without a line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nix(key) => key.fmt(f),
            Self::Guix(key) => f.write_str(key.to_string().trim_end()),
        }
    }
}

/// A secret key of Nix or of Guix, which is wiped when it is dropped, and never printed.
#[derive(Clone, Debug)]
pub enum SecretKey {
    /// Nix's: `NAME:BASE64`.
    Nix(nix::SecretKey),
    /// Guix's: `(private-key …)`.
    Guix(guix::SecretKey),
}

impl SecretKey {
    /// Reads the bytes of a key file.
    ///
    /// # Errors
    /// Bytes that are no key of either kind.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(bytes).map_or("", str::trim);
        // What is no text can only be the other form of an expression.
        if is_expression(text) || (text.is_empty() && !bytes.is_empty()) {
            guix::SecretKey::parse(bytes).map(Self::Guix).map_err(KeyError::Guix)
        } else {
            nix::SecretKey::parse(text).map(Self::Nix).map_err(KeyError::Nix)
        }
    }

    /// Gives the public half.
    pub fn public_key(&self) -> PublicKey {
        match self {
            Self::Nix(key) => PublicKey::Nix(key.public_key()),
            Self::Guix(key) => PublicKey::Guix(key.public_key().clone()),
        }
    }

    /// Gives the store directory whose items such keys usually sign.
    pub fn usual_store(&self) -> StoreDirectory {
        match self {
            Self::Nix(_) => StoreDirectory::nix(),
            Self::Guix(_) => StoreDirectory::guix(),
        }
    }
}

fn is_expression(text: &str) -> bool {
    text.starts_with('(')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_told_apart_and_read_back() {
        let nix = nix::SecretKey::generate("farm-1").unwrap();
        let guix = guix::SecretKey::generate().unwrap();
        let read = SecretKey::parse(format!("{}\n", &*nix.to_secret_string()).as_bytes()).unwrap();
        assert_eq!(read.public_key(), PublicKey::Nix(nix.public_key()));
        assert_eq!(read.usual_store(), StoreDirectory::nix());
        let read = SecretKey::parse(&guix.to_secret_bytes()).unwrap();
        assert_eq!(read.public_key(), PublicKey::Guix(guix.public_key().clone()));
        assert_eq!(read.usual_store(), StoreDirectory::guix());
        for key in [PublicKey::Nix(nix.public_key()), PublicKey::Guix(guix.public_key().clone())] {
            assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
            assert_eq!(key.to_line().parse::<PublicKey>().unwrap(), key);
            assert!(!key.to_line().contains('\n'));
        }
    }

    #[test]
    fn other_texts_are_neither() {
        for text in ["", "farm-1", "farm-1:x", "(public-key)", "(acl)", "("] {
            assert!(text.parse::<PublicKey>().is_err(), "{text}");
            assert!(SecretKey::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(SecretKey::parse(b"\xff\xfe").is_err());
    }
}
