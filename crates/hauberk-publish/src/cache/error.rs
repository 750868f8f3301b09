//! What can go wrong with a cache directory.

use std::{
    io,
    path::{Path, PathBuf},
};

use hauberk_store::{NarHash, StoreDirectory, StorePath, cache_info::CacheInfoError, narinfo::NarInfoError};

/// Why the cache directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The operating system refused something.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A temporary file could not be written.
    #[error("cannot write a nar into the cache")]
    Write(#[source] io::Error),
    /// The directory's `nix-cache-info` cannot be read.
    #[error("malformed {path}")]
    CacheInfo {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CacheInfoError,
    },
    /// The directory belongs to another store.
    #[error("cache {path} is of the store {found}, not {wanted}: give another directory")]
    OtherStore {
        /// The directory.
        path: PathBuf,
        /// The store its `nix-cache-info` names.
        found: StoreDirectory,
        /// The store asked for.
        wanted: StoreDirectory,
    },
    /// An item of another store was to be inserted.
    #[error("{path} does not belong into a cache of the store {wanted}")]
    OtherStorePath {
        /// The item.
        path: StorePath,
        /// The cache's store.
        wanted: StoreDirectory,
    },
    /// An item of the local store is not what the store says it is.
    #[error("{path} has the hash {found} in the store, not {expected}: repair it there")]
    Damaged {
        /// The item.
        path: StorePath,
        /// What the store says.
        expected: NarHash,
        /// What its files give.
        found: NarHash,
    },
    /// A narinfo of the cache cannot be read.
    #[error("malformed narinfo {path}")]
    NarInfo {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: NarInfoError,
    },
    /// The thread that did the work ended early, as the program ends.
    #[error("the program ends")]
    Stopped,
}

impl CacheError {
    /// Makes an [`CacheError::Io`] of what `operation` on `path` gave.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }

    /// Tells whether the disk is full, or its quota.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Write(source) => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::CacheInfo { .. }
            | Self::OtherStore { .. }
            | Self::OtherStorePath { .. }
            | Self::Damaged { .. }
            | Self::NarInfo { .. }
            | Self::Stopped => false,
        }
    }
}
