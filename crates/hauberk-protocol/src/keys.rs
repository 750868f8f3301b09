//! CURVE keys: who a peer is on the wire.

mod file;

use std::fmt;
use std::str::FromStr;

use curve25519_dalek::MontgomeryPoint;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use file::KeyFileError;

use crate::z85;

/// The public half of a CURVE key pair, by which a peer is known.
///
/// Its text form is Z85, 40 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CurvePublicKey([u8; 32]);

/// A text that is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a CURVE key: a key is 40 characters of Z85 (digits, letters and .-:+=^!/*?&<>()[]{{}}@%$#)")]
pub struct NotAKey;

impl CurvePublicKey {
    /// Takes the 32 bytes of a key.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Gives the 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for CurvePublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&z85::encode(&self.0))
    }
}

impl fmt::Debug for CurvePublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CurvePublicKey({self})")
    }
}

impl FromStr for CurvePublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        z85::decode(text).map(|key| Self(*key)).ok_or(NotAKey)
    }
}

impl TryFrom<&[u8]> for CurvePublicKey {
    type Error = NotAKey;

    fn try_from(bytes: &[u8]) -> Result<Self, NotAKey> {
        bytes.try_into().map(Self).map_err(|_| NotAKey)
    }
}

/// The secret half of a CURVE key pair. It is never printed, and wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct CurveSecretKey([u8; 32]);

impl CurveSecretKey {
    /// Takes the 32 bytes of a key; any 32 bytes are one.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Computes the public half.
    pub fn public(&self) -> CurvePublicKey {
        CurvePublicKey(MontgomeryPoint::mul_base_clamped(self.0).to_bytes())
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn to_text(&self) -> Zeroizing<String> {
        z85::encode(&self.0)
    }
}

impl FromStr for CurveSecretKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        z85::decode(text).map(|key| Self(*key)).ok_or(NotAKey)
    }
}

impl fmt::Debug for CurveSecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CurveSecretKey(..)")
    }
}

/// A secret key and the public key that belongs to it.
#[derive(Debug, Clone)]
pub struct CurveKeyPair {
    public: CurvePublicKey,
    secret: CurveSecretKey,
}

impl CurveKeyPair {
    /// Makes a new key pair from the system's randomness.
    ///
    /// # Panics
    ///
    /// Panics when the operating system gives no randomness, which Linux does once it has booted.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).expect("the operating system has randomness");
        Self::from(CurveSecretKey(*bytes))
    }

    /// Gives the public half.
    pub fn public(&self) -> &CurvePublicKey {
        &self.public
    }

    /// Gives the secret half.
    pub fn secret(&self) -> &CurveSecretKey {
        &self.secret
    }
}

impl From<CurveSecretKey> for CurveKeyPair {
    fn from(secret: CurveSecretKey) -> Self {
        Self { public: secret.public(), secret }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_key_is_the_one_libsodium_computes() {
        for _ in 0..50 {
            let theirs = zmq::CurveKeyPair::new().unwrap();
            let ours = CurveKeyPair::from(CurveSecretKey::from_bytes(theirs.secret_key));
            assert_eq!(ours.public().as_bytes(), &theirs.public_key);
        }
    }

    #[test]
    fn a_secret_key_is_not_printed() {
        let pair = CurveKeyPair::generate();
        let printed = format!("{pair:?}");
        assert!(printed.contains("CurveSecretKey(..)"), "{printed}");
        assert!(!printed.contains(pair.secret.to_text().as_str()));
    }

    #[test]
    fn text_forms_round_trip() {
        let public = *CurveKeyPair::generate().public();
        assert_eq!(public.to_string().parse(), Ok(public));
    }
}
