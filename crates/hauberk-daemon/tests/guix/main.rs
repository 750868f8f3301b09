//! Against what a real guix-daemon (February 2022) said and was told, byte for byte.

mod builds;
mod missing;
mod queries;
mod recording;
mod wire;
