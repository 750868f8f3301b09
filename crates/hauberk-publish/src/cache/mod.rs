//! The cache directory: a stock Nix binary cache on disk.

mod archive;
mod collect;
mod directory;
mod error;
mod import;
mod keep;
mod nar_file;
mod order;
mod pack;
mod pending;
mod reader;
mod renew;
pub(crate) mod scratch;
mod verify;

pub use archive::{ArchiveError, export_archive};
pub use collect::{Collection, Hold, StoredItem};
pub use directory::{Cache, Committed};
pub use error::CacheError;
pub use import::{Import, Imported, Refused};
pub use nar_file::{FinishedNar, NarFile};
pub(crate) use pack::Encoder;
pub use pack::{Method, UnknownMethod};
pub use pending::Pending;
pub use reader::CacheReader;
pub use renew::{Renewal, Renewed};
pub use verify::{Finding, Verification, Verified};
