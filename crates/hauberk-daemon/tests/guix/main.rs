//! Against what a real guix-daemon (February 2022) said and was told, byte for byte.

#![expect(clippy::unwrap_used, reason = "what goes wrong here must fail the test")]

mod builds;
mod missing;
mod queries;
mod recording;
mod wire;
