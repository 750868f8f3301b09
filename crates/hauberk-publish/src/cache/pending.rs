//! A verified item on its way into the cache.

use hauberk_store::NarInfo;

use super::nar_file::FinishedNar;

/// An item whose nar is on disk under a temporary name. [`Cache::commit`](super::Cache::commit) makes it visible;
/// dropped, it leaves nothing.
#[derive(Debug)]
pub struct Pending {
    pub(super) narinfo: NarInfo,
    pub(super) nar: FinishedNar,
}

impl Pending {
    /// Joins a nar file and what is known of its item; the places named in `narinfo` are replaced by the cache's own.
    pub fn new(nar: FinishedNar, mut narinfo: NarInfo) -> Self {
        narinfo.urls = vec![nar.place()];
        Self { narinfo, nar }
    }

    /// Gives what the cache will say of the item.
    pub fn narinfo(&self) -> &NarInfo {
        &self.narinfo
    }
}
