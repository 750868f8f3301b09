//! Async client of the build daemon's worker protocol, Nix and Guix dialects, behind one trait.
