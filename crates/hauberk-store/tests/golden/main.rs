//! Every format against the bytes of a real GNU Guix.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

mod data;
mod derivations;
mod exports;
mod narinfos;
mod nars;
mod signatures;
