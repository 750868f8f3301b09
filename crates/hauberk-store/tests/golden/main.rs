//! Every format against the bytes of a real GNU Guix.

mod data;
mod derivations;
mod narinfos;
mod nars;
mod signatures;
