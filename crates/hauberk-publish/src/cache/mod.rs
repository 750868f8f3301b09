//! The cache directory: a stock Nix binary cache on disk.

mod directory;
mod error;
mod nar_file;
mod pack;
mod pending;
mod scratch;
mod verify;

pub use directory::{Cache, Committed};
pub use error::CacheError;
pub use nar_file::{FinishedNar, NarFile};
pub use pack::{Method, UnknownMethod};
pub use pending::Pending;
pub use verify::{Finding, Verification, Verified};
