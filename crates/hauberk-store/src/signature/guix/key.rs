//! Guix's key pairs.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use super::{Signature, ecdsa};
use crate::{
    hash::Sha256,
    sexp::{Sexp, SexpError},
};

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is no S-expression.
    #[error("malformed {what}")]
    Sexp {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: SexpError,
    },
    /// It is one, but of something else, or of another algorithm.
    #[error("{what} is not of the form ({what} (ecc (curve Ed25519) …))")]
    Form {
        /// What was read.
        what: &'static str,
    },
    /// Secret and public half do not belong together.
    #[error("public-key and private-key do not belong together")]
    Mismatch,
}

/// Why a secret key could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot read random bytes for a key: {0}")]
pub struct GenerateError(getrandom::Error);

const PUBLIC: &str = "public-key";
const PRIVATE: &str = "private-key";
const CURVE: &[u8] = b"Ed25519";

/// Gives the parameters of an `ecc` key on our curve whose outermost token is `what`.
fn parameters<'a>(sexp: &'a Sexp, what: &'static str) -> Result<&'a Sexp, KeyError> {
    let form = KeyError::Form { what };
    let items = sexp.as_list().ok_or(form)?;
    match items {
        [token, ecc] if token.as_atom() == Some(what.as_bytes()) => {
            let name = ecc.as_list().and_then(<[Sexp]>::first).and_then(Sexp::as_atom);
            if name == Some(b"ecc") && ecc.find_atom("curve", 1) == Some(CURVE) { Ok(ecc) } else { Err(form) }
        }
        _ => Err(form),
    }
}

/// Gives a point's 32 bytes; libgcrypt also knows them with 0x40 in front.
fn point(bytes: &[u8]) -> Option<[u8; 32]> {
    match bytes {
        [0x40, rest @ ..] if rest.len() == 32 => rest.try_into().ok(),
        _ => bytes.try_into().ok(),
    }
}

fn key_sexp(token: &str, public: &[u8; 32], secret: Option<&[u8; 32]>) -> Sexp {
    let pair = |name: &str, bytes: &[u8]| Sexp::list([Sexp::atom(name), Sexp::atom(bytes)]);
    let mut parameters = vec![Sexp::atom("ecc"), pair("curve", CURVE), pair("q", public)];
    parameters.extend(secret.map(|secret| pair("d", secret)));
    Sexp::list([Sexp::atom(token), Sexp::List(parameters)])
}

/// A public key: what stands in `signing-key.pub`, in an ACL and in signatures.
///
/// Two are the same when the whole expressions are, as Guix compares them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    sexp: Sexp,
    point: [u8; 32],
}

impl PublicKey {
    /// Reads the bytes of a key file.
    ///
    /// # Errors
    /// Bytes that are no S-expression, or none of an ECC key on Ed25519.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        let sexp = Sexp::parse(bytes).map_err(|source| KeyError::Sexp { what: PUBLIC, source })?;
        Self::from_sexp(sexp)
    }

    /// Takes an expression that has been read.
    ///
    /// # Errors
    /// One of something else.
    pub fn from_sexp(sexp: Sexp) -> Result<Self, KeyError> {
        let form = KeyError::Form { what: PUBLIC };
        let q = parameters(&sexp, PUBLIC)?.find_atom("q", 1).ok_or(form)?;
        let point = point(q).ok_or(form)?;
        Ok(Self { sexp, point })
    }

    fn from_point(point: [u8; 32]) -> Self {
        Self { sexp: key_sexp(PUBLIC, &point, None), point }
    }

    /// Gives the expression.
    pub fn as_sexp(&self) -> &Sexp {
        &self.sexp
    }

    pub(super) fn point(&self) -> &[u8; 32] {
        &self.point
    }
}

impl fmt::Display for PublicKey {
    /// Writes the text of a key file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sexp.to_advanced_text())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", crate::hash::encode_base16(&self.point))
    }
}

/// A secret key. Its bytes are wiped when it is dropped, and never printed.
#[derive(Clone)]
pub struct SecretKey {
    secret: Zeroizing<[u8; 32]>,
    public: PublicKey,
}

impl SecretKey {
    /// Makes a new key from the system's random bytes, as `guix archive --generate-key` does.
    ///
    /// # Errors
    /// A system without random bytes.
    pub fn generate() -> Result<Self, GenerateError> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret).map_err(GenerateError)?;
        secret[0] = secret[0] & 0x7f | 0x40;
        secret[31] &= 0xf8;
        let public = PublicKey::from_point(ecdsa::public_key(&secret));
        Ok(Self { secret, public })
    }

    /// Reads the bytes of `signing-key.sec`.
    ///
    /// # Errors
    /// Bytes that are no S-expression or none of an ECC key on Ed25519, or halves that do not belong together.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        let sexp = Sexp::parse(bytes).map_err(|source| KeyError::Sexp { what: PRIVATE, source })?;
        let sexp = Zeroizing::new(sexp);
        let form = KeyError::Form { what: PRIVATE };
        let parameters = parameters(&sexp, PRIVATE)?;
        let d = parameters.find_atom("d", 1).ok_or(form)?;
        // An integer: zero bytes in front may be missing, or too many.
        let d = &d[d.iter().take_while(|&&byte| byte == 0).count()..];
        let mut secret = Zeroizing::new([0; 32]);
        secret.get_mut(32_usize.wrapping_sub(d.len())..).ok_or(form)?.copy_from_slice(d);
        let public = ecdsa::public_key(&secret);
        match parameters.find_atom("q", 1) {
            Some(q) if point(q) != Some(public) => Err(KeyError::Mismatch),
            _ => Ok(Self { secret, public: PublicKey::from_point(public) }),
        }
    }

    /// Reads a key pair from the bytes of `signing-key.pub` and `signing-key.sec`.
    ///
    /// # Errors
    /// As the halves' own, and halves that do not belong together.
    pub fn parse_pair(public: &[u8], secret: &[u8]) -> Result<Self, KeyError> {
        let (public, secret) = (PublicKey::parse(public)?, Self::parse(secret)?);
        if public.point == secret.public.point {
            Ok(Self { public, ..secret })
        } else {
            Err(KeyError::Mismatch)
        }
    }

    /// Gives the public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a SHA-256 digest.
    pub fn sign(&self, hash: &Sha256) -> Signature {
        let (r, s) = ecdsa::sign(&self.secret, hash.as_bytes());
        Signature::new(hash, &r, &s, &self.public)
    }

    /// Writes the bytes of `signing-key.sec`.
    pub fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut sexp = key_sexp(PRIVATE, &self.public.point, Some(&self.secret));
        let bytes = Zeroizing::new(sexp.to_advanced());
        sexp.zeroize();
        bytes
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey").field("public", &self.public).finish_non_exhaustive()
    }
}
