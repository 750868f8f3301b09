//! Against peers made for the purpose: newer versions of Nix, and peers that mean harm.

#![expect(clippy::unwrap_used, reason = "what goes wrong here must fail the test")]

mod hostile;
mod operations;
mod script;
mod versions;
