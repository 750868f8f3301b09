//! Nix's keys and signatures: Ed25519, each written `NAME:BASE64`.

use std::{fmt, str::FromStr};

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use super::base64;

/// Longest key name, in bytes.
pub const MAX_NAME_LENGTH: usize = 255;

/// Why a text is not a key or a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no colon between a name and the rest.
    #[error("{what} is not of the form NAME:BASE64")]
    NoName {
        /// What was read.
        what: &'static str,
    },
    /// The name is empty, too long, or has white space, a control character or a colon.
    #[error("malformed key name")]
    Name,
    /// The rest is not base 64 of the right length.
    #[error("{what} is not base 64 of {length} bytes")]
    Base64 {
        /// What was read.
        what: &'static str,
        /// Bytes it must have.
        length: usize,
    },
    /// The bytes are no point of the curve.
    #[error("public key is not a point of the curve")]
    Point,
    /// The second half of a secret key is not the public key of the first.
    #[error("secret key and the public key stored with it do not belong together")]
    Mismatch,
}

/// Why a secret key could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The name is not allowed.
    #[error("cannot generate a key")]
    Name(#[source] KeyError),
    /// The system gave no random bytes.
    #[error("cannot read random bytes for a key: {0}")]
    Random(getrandom::Error),
}

/// Checks a key's name: what stands before the colon of every key and signature.
fn check_name(name: &str) -> Result<(), KeyError> {
    let allowed = !name.is_empty()
        && name.len() <= MAX_NAME_LENGTH
        && name.chars().all(|c| c != ':' && !c.is_control() && !c.is_whitespace());
    if allowed { Ok(()) } else { Err(KeyError::Name) }
}

/// Splits `NAME:BASE64`; base 64 may miss its padding, as Nix's own decoder allows.
fn split<const N: usize>(what: &'static str, text: &str) -> Result<(String, Zeroizing<[u8; N]>), KeyError> {
    let (name, encoded) = text.trim_ascii().split_once(':').ok_or(KeyError::NoName { what })?;
    check_name(name)?;
    let bytes = base64::decode(encoded.as_bytes()).ok_or(KeyError::Base64 { what, length: N })?;
    Ok((name.to_owned(), bytes))
}

/// Joins a name and the bytes it is for.
fn join(name: &str, bytes: &[u8]) -> String {
    let mut text = String::with_capacity(name.len() + 1 + bytes.len().div_ceil(3) * 4);
    text.push_str(name);
    text.push(':');
    base64::encode(bytes, &mut text);
    text
}

/// A named secret key. Its bytes are wiped when it is dropped, and never printed.
#[derive(Clone)]
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

impl SecretKey {
    /// Makes a new key from the system's random bytes.
    ///
    /// # Errors
    /// A name that is not allowed, or a system without random bytes.
    pub fn generate(name: &str) -> Result<Self, GenerateError> {
        check_name(name).map_err(GenerateError::Name)?;
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(GenerateError::Random)?;
        Ok(Self { name: name.to_owned(), key: SigningKey::from_bytes(&seed) })
    }

    /// Reads `NAME:BASE64` of seed and public key, as key files hold it; white space around it is allowed.
    ///
    /// # Errors
    /// A malformed text, or halves that do not belong together.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = split::<64>("secret key", text)?;
        let key = SigningKey::from_keypair_bytes(&bytes).map_err(|_| KeyError::Mismatch)?;
        Ok(Self { name, key })
    }

    /// Gives the key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Signs `text`, usually a fingerprint.
    pub fn sign(&self, text: &str) -> Signature {
        Signature { name: self.name.clone(), bytes: self.key.sign(text.as_bytes()).to_bytes() }
    }

    /// Writes the text of a key file, without a line end.
    pub fn to_secret_string(&self) -> Zeroizing<String> {
        let pair = Zeroizing::new(self.key.to_keypair_bytes());
        Zeroizing::new(join(&self.name, pair.as_slice()))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

/// A named public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: VerifyingKey,
}

impl PublicKey {
    /// Reads `NAME:BASE64`; white space around it is allowed.
    ///
    /// # Errors
    /// A malformed text, or bytes that are no point of the curve.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = split::<32>("public key", text)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Point)?;
        Ok(Self { name, key })
    }

    /// Gives the key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells whether `signature` is this key's, by name and by arithmetic, over `text`.
    ///
    /// Keys and signatures that libsodium refuses (points of small order, values out of range) are refused here too.
    pub fn verify(&self, text: &str, signature: &Signature) -> bool {
        let bytes = ed25519_dalek::Signature::from_bytes(&signature.bytes);
        self.name == signature.name && self.key.verify_strict(text.as_bytes(), &bytes).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.name, self.key.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

/// A signature and the name of the key that made it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signature {
    name: String,
    bytes: [u8; 64],
}

impl Signature {
    /// Reads `NAME:BASE64`, the value of a narinfo's `Sig` line.
    ///
    /// # Errors
    /// A malformed text.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = split::<64>("signature", text)?;
        Ok(Self { name, bytes: *bytes })
    }

    /// Gives the name of the key that made it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the 64 bytes of R and s.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.bytes
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.name, &self.bytes))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Signature {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_signatures_round_trip() {
        let secret = SecretKey::generate("farm.example.org-1").unwrap();
        let again = SecretKey::parse(&format!("{}\n", *secret.to_secret_string())).unwrap();
        assert_eq!(again.public_key(), secret.public_key());
        let public = PublicKey::parse(&secret.public_key().to_string()).unwrap();
        let signature = Signature::parse(&secret.sign("text").to_string()).unwrap();
        assert!(public.verify("text", &signature));
        assert!(!public.verify("texts", &signature));
        let other = SecretKey::generate("farm.example.org-1").unwrap();
        assert!(!other.public_key().verify("text", &signature));
    }

    #[test]
    fn the_name_counts() {
        let secret = SecretKey::generate("a").unwrap();
        let mut signature = secret.sign("text");
        signature.name = "b".into();
        assert!(!secret.public_key().verify("text", &signature));
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = SecretKey::generate("key").unwrap();
        let hidden = secret.to_secret_string();
        let shown = format!("{secret:?}");
        assert_eq!(shown, "SecretKey { name: \"key\", .. }");
        assert!(!shown.contains(&hidden[4..]));
    }

    #[test]
    fn refuses_other_texts() {
        for name in ["", "a b", "a:b", "a\n", &"x".repeat(256)] {
            assert!(SecretKey::generate(name).is_err(), "{name:?}");
        }
        for text in ["", ":", "a", "a:", ":AAAA", "a:AAAA", "a:!!!!", "a:é"] {
            assert!(SecretKey::parse(text).is_err(), "{text:?}");
            assert!(PublicKey::parse(text).is_err(), "{text:?}");
            assert!(Signature::parse(text).is_err(), "{text:?}");
        }
        let mut pair = SecretKey::generate("a").unwrap().key.to_keypair_bytes();
        pair[63] ^= 1;
        let text = join("a", &pair);
        assert_eq!(SecretKey::parse(&text).unwrap_err(), KeyError::Mismatch);
    }
}
