//! Against a real nix-daemon. Needs root, nix-bin, util-linux and busybox-static.

mod builds;
mod log;
mod machine;
mod store;
