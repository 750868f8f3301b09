//! A build farm for GNU Guix and Nix.

fn main() {}
