//! Guix's signatures.

use std::fmt;

use super::{Acl, PublicKey, ecdsa};
use crate::{
    hash::Sha256,
    sexp::{Sexp, SexpError},
};

/// A signature with what it signs and the key that made it, as they travel together.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Signature {
    sexp: Sexp,
}

/// Why a signature is not good for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is no S-expression.
    #[error("malformed signature")]
    Sexp(#[source] SexpError),
    /// What is signed, or the key, is missing.
    #[error("corrupt signature: it names no data or no key")]
    Corrupt,
    /// The key is not in the ACL.
    #[error("unauthorized public key")]
    Unauthorized,
    /// It signs the hash of something else.
    #[error("signed hash is that of something else")]
    HashMismatch,
    /// The arithmetic says no.
    #[error("invalid signature")]
    Invalid,
    /// It is of another algorithm or encoding, which libgcrypt answers with an error.
    #[error("signature of an unsupported kind")]
    Unsupported,
}

/// Flags of `data` without which libgcrypt does not take its hash as it is.
const ENCODING_FLAGS: [&[u8]; 2] = [b"rfc6979", b"raw"];

/// Flags that change nothing here.
const HARMLESS_FLAGS: [&[u8]; 6] = [b"param", b"noparam", b"comp", b"nocomp", b"no-blinding", b"igninvflag"];

/// Names libgcrypt knows hash functions by; which one is said to have been used does not enter the arithmetic.
const HASH_NAMES: [&[u8]; 11] = [
    b"sha256",
    b"sha1",
    b"sha224",
    b"sha384",
    b"sha512",
    b"md5",
    b"rmd160",
    b"sha3-224",
    b"sha3-256",
    b"sha3-384",
    b"sha3-512",
];

impl Signature {
    pub(super) fn new(hash: &Sha256, r: &[u8; 32], s: &[u8; 32], key: &PublicKey) -> Self {
        let atom = |text: &str| Sexp::atom(text);
        let number = |name: &str, bytes: &[u8; 32]| {
            let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
            Sexp::list([atom(name), Sexp::atom(&bytes[zeros..])])
        };
        let flags = Sexp::list([atom("flags"), atom("rfc6979")]);
        let hash = Sexp::list([atom("hash"), atom("sha256"), Sexp::atom(hash.as_bytes().as_slice())]);
        let sexp = Sexp::list([
            atom("signature"),
            Sexp::list([atom("data"), flags, hash]),
            Sexp::list([atom("sig-val"), Sexp::list([atom("ecdsa"), number("r", r), number("s", s)])]),
            key.as_sexp().clone(),
        ]);
        Self { sexp }
    }

    /// Reads the bytes of a signature, as an export stream holds them.
    ///
    /// # Errors
    /// [`SignatureError::Sexp`]; whether it is a signature at all is told by [`Self::verify`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        Ok(Self { sexp: Sexp::parse(bytes).map_err(SignatureError::Sexp)? })
    }

    /// Reads a text each of whose characters stands for one byte, as a narinfo holds it in base 64.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_text(text: &str) -> Result<Self, SignatureError> {
        Ok(Self { sexp: Sexp::parse_text(text).map_err(SignatureError::Sexp)? })
    }

    /// Gives the expression of the key that is said to have made it.
    pub fn subject(&self) -> Option<&Sexp> {
        self.sexp.find("public-key")
    }

    /// Gives the bytes of the hash that is signed.
    pub fn signed_hash(&self) -> Option<&[u8]> {
        self.sexp.find("data")?.find_atom("hash", 2)
    }

    /// Checks that a key of the ACL has signed `hash`, in the order in which Guix asks.
    ///
    /// # Errors
    /// The first answer that is no.
    pub fn verify(&self, hash: &Sha256, acl: &Acl) -> Result<(), SignatureError> {
        let (Some(data), Some(subject)) = (self.sexp.find("data"), self.subject()) else {
            return Err(SignatureError::Corrupt);
        };
        if !acl.contains(subject) {
            return Err(SignatureError::Unauthorized);
        }
        if data.find_atom("hash", 2) != Some(hash.as_bytes()) {
            return Err(SignatureError::HashMismatch);
        }
        check_encoding(data)?;
        let key = PublicKey::from_sexp(subject.clone()).map_err(|_| SignatureError::Unsupported)?;
        let value = self.sexp.find("sig-val").ok_or(SignatureError::Unsupported)?;
        let value = ["ecdsa", "ecc"].iter().find_map(|name| value.find(name));
        let value = value.ok_or(SignatureError::Unsupported)?;
        let (Some(r), Some(s)) = (value.find_atom("r", 1), value.find_atom("s", 1)) else {
            return Err(SignatureError::Unsupported);
        };
        if ecdsa::verify(key.point(), hash.as_bytes(), r, s) { Ok(()) } else { Err(SignatureError::Invalid) }
    }

    /// Gives the bytes as libgcrypt would write them.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.sexp.to_advanced()
    }

    /// Gives the text as libgcrypt would write it, one character for each byte.
    pub fn to_text(&self) -> String {
        self.sexp.to_advanced_text()
    }
}

/// Checks that libgcrypt would take the hash in `data` as the number to sign.
fn check_encoding(data: &Sexp) -> Result<(), SignatureError> {
    let flags = data.find("flags").and_then(Sexp::as_list).ok_or(SignatureError::Unsupported)?;
    let flags: Vec<_> = flags.iter().skip(1).filter_map(Sexp::as_atom).collect();
    let known = flags.iter().all(|flag| ENCODING_FLAGS.contains(flag) || HARMLESS_FLAGS.contains(flag));
    let encoded = flags.iter().any(|flag| ENCODING_FLAGS.contains(flag));
    let name = data.find_atom("hash", 1).unwrap_or_default();
    let algorithm = HASH_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known));
    if known && encoded && algorithm { Ok(()) } else { Err(SignatureError::Unsupported) }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sexp.fmt(f)
    }
}
