#![doc = include_str!("../README.md")]

pub mod base32;
pub mod cache_info;
pub mod derivation;
pub mod export;
pub mod hash;
pub mod nar;
pub mod narinfo;
pub mod sexp;
pub mod signature;
pub mod store_directory;
pub mod store_path;
#[cfg(any(test, feature = "test"))]
pub mod strategies;

pub use derivation::{Derivation, DerivationKind, OutputName, OutputNames};
pub use hash::{Hash, NarHash, Sha256};
pub use narinfo::NarInfo;
pub use store_directory::StoreDirectory;
pub use store_path::{DrvPath, StorePath, StorePathHash};
