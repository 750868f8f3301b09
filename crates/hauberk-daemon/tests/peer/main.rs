//! Against peers made for the purpose: newer versions of Nix, and peers that mean harm.

mod hostile;
mod script;
mod versions;
