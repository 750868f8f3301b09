//! Narinfos of the cache directory, remembered.

use std::{io, os::unix::fs::MetadataExt, path::Path};

use bytes::Bytes;
use hauberk_store::StorePathHash;

use super::failure::Failure;
use crate::{cache::Cache, recent::Recent};

/// Narinfos remembered, at most twice as many; about a kilobyte each.
const REMEMBERED: usize = 8 * 1024;

/// A cache directory whose narinfos need not be read again while their files stay the same: one look at the file system for each
/// answer in place of five.
pub(super) struct CachedNarInfos {
    cache: Cache,
    remembered: Recent<StorePathHash, (Stamp, Bytes)>,
}

/// What changes when a file is replaced or written to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl CachedNarInfos {
    /// Takes a cache.
    pub(super) fn new(cache: Cache) -> Self {
        Self { cache, remembered: Recent::new(REMEMBERED) }
    }

    /// Gives a narinfo as it is stored.
    pub(super) fn text(&self, hash: &StorePathHash) -> Result<Option<Bytes>, Failure> {
        let path = self.cache.narinfo_path(hash);
        let Some(stamp) = stamp(&path).map_err(Failure::Open)? else { return Ok(None) };
        if let Some((known, text)) = self.remembered.get(hash)
            && known == stamp
        {
            return Ok(Some(text));
        }
        // A file that is replaced after it was looked at is remembered under the old stamp, and read again the next time.
        let Some(text) = self.cache.narinfo_text(hash)? else { return Ok(None) };
        let text = Bytes::from(text);
        self.remembered.insert(*hash, (stamp, text.clone()));
        Ok(Some(text))
    }
}

fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    match path.symlink_metadata() {
        Ok(metadata) => Ok(Some(Stamp {
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
