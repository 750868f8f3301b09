//! Keys and signatures: Ed25519 as Nix uses it, ECDSA in S-expressions as Guix does.

pub mod guix;
pub mod nix;
