//! Keys and signatures: Ed25519 as Nix uses it, ECDSA in S-expressions as Guix does.

mod base64;
mod either;
pub mod guix;
pub mod nix;

pub use either::{KeyError, PublicKey, SecretKey};
