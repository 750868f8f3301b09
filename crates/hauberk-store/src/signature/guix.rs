//! Guix's keys and signatures: ECDSA over the Ed25519 curve, in S-expressions.
mod line;

pub use line::{SignatureLine, SignatureLineError};
