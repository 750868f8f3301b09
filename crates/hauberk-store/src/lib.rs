//! Store paths, hashes, NAR, narinfo, derivations, keys and signatures of Nix and Guix: pure formats.
