//! From the local store into the cache.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use hauberk_daemon::PathInfo;
use hauberk_store::{Sha256, hash::Sha256Hasher, narinfo::Compression};

use super::{directory::Cache, error::CacheError, pending::Pending};
use crate::{describe::describe, stream::NarReader};

/// Level of zstd.
const ZSTD_LEVEL: i32 = 3;

/// Bytes read and packed at a time.
const CHUNK: usize = 128 * 1024;

impl Cache {
    /// Packs an item of a local store with zstd. `info` is what the store's daemon says of it, and its files lie under
    /// `root` (usually `/`). The signatures the store keeps are kept.
    ///
    /// # Errors
    /// Files that cannot be read or are not what the store says, a cache that cannot take them.
    pub async fn pack(&self, info: &PathInfo, root: &Path) -> Result<Pending, CacheError> {
        let (cache, info) = (self.clone(), info.clone());
        let file = root.join(info.path.to_string().trim_start_matches('/'));
        let packing = tokio::task::spawn_blocking(move || cache.pack_blocking(&info, &file));
        packing.await.map_err(|_| CacheError::Stopped)?
    }

    fn pack_blocking(&self, info: &PathInfo, file: &Path) -> Result<Pending, CacheError> {
        let mut reader = NarReader::open(file).map_err(CacheError::io("open", file))?;
        let mut encoder = zstd::Encoder::new(self.begin()?, ZSTD_LEVEL).map_err(CacheError::Write)?;
        let mut hasher = Sha256Hasher::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(CacheError::io("read", file)(error)),
            };
            hasher.update(&buffer[..count]);
            encoder.write_all(&buffer[..count]).map_err(CacheError::Write)?;
        }
        let found: Sha256 = hasher.finish().0;
        if found != info.nar_hash {
            let (path, expected) = (info.path.clone(), info.nar_hash);
            return Err(CacheError::Damaged { path, expected, found });
        }
        let nar = encoder.finish().map_err(CacheError::Write)?.finish(Compression::Zstd);
        let narinfo = describe(info, nar.place());
        Ok(Pending::new(nar, narinfo))
    }
}
