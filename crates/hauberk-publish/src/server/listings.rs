//! Listings of what only the cache has.

use std::io;

use bytes::Bytes;
use hauberk_store::{NarHash, StorePathHash};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::body::Source;
use crate::{recent::Recent, stream::list_nar};

/// Nars unpacked at once to be listed.
const AT_ONCE: usize = 2;
/// Listings remembered, at most twice as many, and the longest of them, in bytes.
const REMEMBERED: usize = 64;
const LONGEST: usize = 64 * 1024;

/// Lists nars of the cache by unpacking them.
pub(super) struct Listings {
    permits: Semaphore,
    remembered: Recent<StorePathHash, (NarHash, Bytes)>,
}

impl Listings {
    /// Knows none yet.
    pub(super) fn new() -> Self {
        Self { permits: Semaphore::new(AT_ONCE), remembered: Recent::new(REMEMBERED) }
    }

    /// Gives one that is remembered, of this nar.
    pub(super) fn known(&self, hash: &StorePathHash, nar_hash: &NarHash) -> Option<Bytes> {
        self.remembered.get(hash).filter(|(known, _)| known == nar_hash).map(|(_, listing)| listing)
    }

    /// Lists the nar that `source` gives, which has `size` bytes.
    ///
    /// # Errors
    /// A source that fails, or gives no nar.
    pub(super) async fn make(
        &self,
        hash: StorePathHash,
        nar_hash: NarHash,
        source: Source,
        size: u64,
    ) -> io::Result<Bytes> {
        let _permit = self.permits.acquire().await.map_err(io::Error::other)?;
        let listed = spawn_blocking(move || list_nar(source, size)).await;
        let listing = Bytes::from(listed.map_err(io::Error::other).flatten()?);
        if listing.len() <= LONGEST {
            self.remembered.insert(hash, (nar_hash, listing.clone()));
        }
        Ok(listing)
    }
}
