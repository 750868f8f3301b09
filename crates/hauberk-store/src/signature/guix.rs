//! Guix's keys and signatures: ECDSA over the curve of Ed25519, in S-expressions.
//!
//! It is not EdDSA: the secret is an integer, the nonce comes from RFC 6979, and the digest is cut to 253 bits.

mod acl;
mod ecdsa;
mod key;
mod line;
mod signature;

pub use acl::{Acl, AclError};
pub use key::{GenerateError, KeyError, PublicKey, SecretKey};
pub use line::{SignatureLine, SignatureLineError};
pub use signature::{Signature, SignatureError};
