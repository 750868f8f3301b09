//! Against a real nix-daemon. Needs root, nix-bin, util-linux and busybox-static.

#![expect(clippy::unwrap_used, reason = "what goes wrong here must fail the test")]

mod builds;
mod log;
mod machine;
mod store;
