//! Hashes and their spellings: base 16, nix-base32, base 64 and SRI.

use std::{fmt, io, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::Digest;

use crate::base32;

/// A hash function that store paths or fixed outputs are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// 20 bytes.
    Sha1,
    /// 32 bytes.
    Sha256,
    /// 64 bytes.
    Sha512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sha1, Self::Sha256, Self::Sha512];

    /// Gives the name both worlds use, as `sha256`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Gives the bytes of a digest.
    pub const fn digest_length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// Hashes `data`.
    pub fn hash(self, data: &[u8]) -> Hash {
        match self {
            Self::Sha1 => Hash::from_slice(self, &sha1::Sha1::digest(data)),
            Self::Sha256 => Hash::from_slice(self, &sha2::Sha256::digest(data)),
            Self::Sha512 => Hash::from_slice(self, &sha2::Sha512::digest(data)),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, ParseHashError> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
            .ok_or_else(|| ParseHashError::Algorithm { name: text.chars().take(32).collect() })
    }
}

/// Why a text is not a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseHashError {
    /// There is no `:` (or `-` of the SRI form) after the algorithm.
    #[error("hash has no algorithm in front of it, as in sha256:…")]
    NoAlgorithm,
    /// The algorithm is none we know.
    #[error("unknown hash algorithm `{name}`")]
    Algorithm {
        /// The name given.
        name: String,
    },
    /// The algorithm is known but another one is wanted here.
    #[error("{found} hash where {wanted} is wanted")]
    Wanted {
        /// The one wanted.
        wanted: Algorithm,
        /// The one given.
        found: Algorithm,
    },
    /// The text has the length of no spelling of such a digest.
    #[error("{length} characters are no {algorithm} digest in base 16, 32 or 64")]
    Length {
        /// The algorithm.
        algorithm: Algorithm,
        /// Characters given.
        length: usize,
    },
    /// A character outside the alphabet, or a spelling that is not canonical.
    #[error("malformed base-{base} digest")]
    Digits {
        /// 16, 32 or 64.
        base: u8,
    },
}

/// Reads lower- or upper-case hexadecimal digits.
pub(crate) fn decode_base16(text: &[u8], bytes: &mut [u8]) -> Option<()> {
    if text.len() != bytes.len() * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(())
}

/// Spells `bytes` in lower-case hexadecimal digits.
pub fn encode_base16(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Fills `digest` from base 16, nix-base32 or padded base 64, told apart by length.
fn decode_digest(algorithm: Algorithm, text: &str, digest: &mut [u8]) -> Result<(), ParseHashError> {
    if text.len() == digest.len() * 2 {
        decode_base16(text.as_bytes(), digest).ok_or(ParseHashError::Digits { base: 16 })
    } else if text.len() == base32::encoded_length(digest.len()) {
        base32::decode_into(text.as_bytes(), digest).map_err(|_| ParseHashError::Digits { base: 32 })
    } else if text.len() == digest.len().div_ceil(3) * 4 {
        decode_base64(text, digest)
    } else {
        Err(ParseHashError::Length { algorithm, length: text.len() })
    }
}

/// Fills `digest` from padded base 64.
fn decode_base64(text: &str, digest: &mut [u8]) -> Result<(), ParseHashError> {
    let bytes = STANDARD.decode(text).map_err(|_| ParseHashError::Digits { base: 64 })?;
    if bytes.len() != digest.len() {
        return Err(ParseHashError::Digits { base: 64 });
    }
    digest.copy_from_slice(&bytes);
    Ok(())
}

/// A digest and the algorithm that gave it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash {
    algorithm: Algorithm,
    /// Beyond the digest's length, zero.
    digest: [u8; 64],
}

impl Hash {
    fn from_slice(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut digest = [0; 64];
        digest[..bytes.len()].copy_from_slice(bytes);
        Self { algorithm, digest }
    }

    /// Takes a digest's bytes, or nothing when the algorithm's digests have another length.
    pub fn new(algorithm: Algorithm, digest: &[u8]) -> Option<Self> {
        (digest.len() == algorithm.digest_length()).then(|| Self::from_slice(algorithm, digest))
    }

    /// Gives the algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Gives the digest's bytes.
    pub fn digest(&self) -> &[u8] {
        &self.digest[..self.algorithm.digest_length()]
    }

    /// Reads `ALGORITHM:DIGEST` with the digest in base 16, nix-base32 or base 64, or the SRI form `ALGORITHM-BASE64`.
    ///
    /// # Errors
    /// No or an unknown algorithm, a wrong length, a malformed digest.
    pub fn parse(text: &str) -> Result<Self, ParseHashError> {
        let at = text.find([':', '-']).ok_or(ParseHashError::NoAlgorithm)?;
        let algorithm: Algorithm = text[..at].parse()?;
        let rest = &text[at + 1..];
        let mut hash = Self::from_slice(algorithm, &[]);
        let digest = &mut hash.digest[..algorithm.digest_length()];
        if text.as_bytes()[at] == b'-' {
            decode_base64(rest, digest)?;
        } else {
            decode_digest(algorithm, rest, digest)?;
        }
        Ok(hash)
    }

    /// Reads a digest without its algorithm, in base 16, nix-base32 or base 64.
    ///
    /// # Errors
    /// A wrong length or a malformed digest.
    pub fn parse_digest(algorithm: Algorithm, text: &str) -> Result<Self, ParseHashError> {
        let mut hash = Self::from_slice(algorithm, &[]);
        decode_digest(algorithm, text, &mut hash.digest[..algorithm.digest_length()])?;
        Ok(hash)
    }

    /// Spells the digest alone in base 16.
    pub fn to_base16(&self) -> String {
        encode_base16(self.digest())
    }

    /// Spells the digest alone in nix-base32.
    pub fn to_base32(&self) -> String {
        base32::encode(self.digest())
    }

    /// Spells the digest alone in base 64.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.digest())
    }

    /// Spells the hash in the SRI form, `sha256-BASE64`.
    pub fn to_sri(&self) -> String {
        format!("{}-{}", self.algorithm, self.to_base64())
    }
}

impl fmt::Display for Hash {
    /// Writes `ALGORITHM:BASE32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.to_base32())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, ParseHashError> {
        Self::parse(text)
    }
}

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256([u8; 32]);

/// The SHA-256 of a store item's NAR.
pub type NarHash = Sha256;

impl Sha256 {
    /// Takes the digest's bytes.
    pub const fn from_bytes(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Hashes `data`.
    pub fn digest(data: &[u8]) -> Self {
        Self(sha2::Sha256::digest(data).into())
    }

    /// Gives the digest's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads what [`Hash::parse`] reads, or a digest alone; the algorithm must be sha256.
    ///
    /// # Errors
    /// As [`Hash::parse`], and another algorithm.
    pub fn parse(text: &str) -> Result<Self, ParseHashError> {
        let hash = match Hash::parse(text) {
            Err(ParseHashError::NoAlgorithm) => Hash::parse_digest(Algorithm::Sha256, text)?,
            other => other?,
        };
        Self::try_from(hash)
    }

    /// Spells the digest alone in base 16.
    pub fn to_base16(&self) -> String {
        encode_base16(&self.0)
    }

    /// Spells the digest alone in nix-base32.
    pub fn to_base32(&self) -> String {
        base32::encode(&self.0)
    }

    /// Spells the digest alone in base 64.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// Spells the hash in the SRI form, `sha256-BASE64`.
    pub fn to_sri(&self) -> String {
        format!("sha256-{}", self.to_base64())
    }
}

impl TryFrom<Hash> for Sha256 {
    type Error = ParseHashError;

    fn try_from(hash: Hash) -> Result<Self, ParseHashError> {
        match hash.algorithm {
            Algorithm::Sha256 => {
                let mut digest = [0; 32];
                digest.copy_from_slice(hash.digest());
                Ok(Self(digest))
            }
            found => Err(ParseHashError::Wanted { wanted: Algorithm::Sha256, found }),
        }
    }
}

impl From<Sha256> for Hash {
    fn from(hash: Sha256) -> Self {
        Self::from_slice(Algorithm::Sha256, &hash.0)
    }
}

impl fmt::Display for Sha256 {
    /// Writes `sha256:BASE32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.to_base32())
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, ParseHashError> {
        Self::parse(text)
    }
}

/// Computes a SHA-256 piece by piece and counts the bytes.
#[derive(Clone, Default)]
pub struct Sha256Hasher {
    state: sha2::Sha256,
    size: u64,
}

impl Sha256Hasher {
    /// Starts with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `data`.
    pub fn update(&mut self, data: &[u8]) {
        self.state.update(data);
        self.size += data.len() as u64;
    }

    /// Gives the bytes seen so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Ends with the hash and the number of bytes.
    pub fn finish(self) -> (Sha256, u64) {
        (Sha256(self.state.finalize().into()), self.size)
    }
}

impl fmt::Debug for Sha256Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sha256Hasher").field("size", &self.size).finish_non_exhaustive()
    }
}

impl io::Write for Sha256Hasher {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE16: &str = "b0d51c58c8b9c1f458fadf16c7d375630ef51da4df81915893b05c0fa4ed8bc6";

    #[test]
    fn every_spelling_of_one_digest() {
        let hash = Sha256::digest(b"vector");
        assert_eq!(hash.to_base16(), BASE16);
        assert_eq!(hash.to_string(), "sha256:1ilbxnj0yp5hjdc930fzlhfza3k3fp9wf5nzz9cg9hdrr1c1rmdh");
        for text in [
            hash.to_string(),
            hash.to_sri(),
            hash.to_base16(),
            hash.to_base32(),
            hash.to_base64(),
            format!("sha256:{BASE16}"),
            format!("sha256:{}", hash.to_base64()),
        ] {
            assert_eq!(Sha256::parse(&text), Ok(hash), "{text}");
        }
    }

    #[test]
    fn refuses_other_texts() {
        for text in ["", "sha256:", "sha256", "md5:00", "sha1:0", "sha256-00", "sha256:zz", ":", "-"] {
            assert!(Sha256::parse(text).is_err(), "{text:?}");
        }
        let sha1 = Algorithm::Sha1.hash(b"x").to_string();
        assert!(matches!(Sha256::parse(&sha1), Err(ParseHashError::Wanted { .. })));
    }

    proptest! {
        #[test]
        fn round_trips(data: Vec<u8>, which in 0..3usize) {
            let hash = Algorithm::ALL[which].hash(&data);
            prop_assert_eq!(Hash::parse(&hash.to_string()), Ok(hash));
            prop_assert_eq!(Hash::parse(&hash.to_sri()), Ok(hash));
            for text in [hash.to_base16(), hash.to_base32(), hash.to_base64()] {
                prop_assert_eq!(Hash::parse_digest(hash.algorithm(), &text), Ok(hash));
            }
        }

        #[test]
        fn junk_never_panics(text: String) {
            let _ = Hash::parse(&text);
            let _ = Sha256::parse(&text);
        }
    }
}
