//! A verified item on its way into the cache.

use hauberk_store::NarInfo;

use super::nar_file::FinishedNar;

/// An item whose nar is on disk under a temporary name, perhaps packed in several ways. [`Cache::commit`](super::Cache::commit)
/// makes it visible; dropped, it leaves nothing.
#[derive(Debug)]
pub struct Pending {
    pub(super) narinfo: NarInfo,
    pub(super) nars: Vec<FinishedNar>,
}

impl Pending {
    /// Joins a nar file and what is known of its item; the places named in `narinfo` are replaced by the cache's own.
    pub fn new(nar: FinishedNar, narinfo: NarInfo) -> Self {
        Self::several(vec![nar], narinfo)
    }

    /// Joins several files of the same nar and what is known of its item, as [`Self::new`].
    pub(super) fn several(nars: Vec<FinishedNar>, mut narinfo: NarInfo) -> Self {
        narinfo.urls = nars.iter().map(FinishedNar::place).collect();
        Self { narinfo, nars }
    }

    /// Gives what the cache will say of the item.
    pub fn narinfo(&self) -> &NarInfo {
        &self.narinfo
    }
}
