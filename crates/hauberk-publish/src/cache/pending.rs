//! A verified item on its way into the cache.

use hauberk_store::{NarInfo, narinfo::NarUrl};

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
        narinfo.urls = vec![NarUrl {
            url: format!("nar/{}", nar.file_name()),
            compression: nar.compression.clone(),
            file_size: Some(nar.file_size),
            file_hash: Some(nar.file_hash.into()),
        }];
        Self { narinfo, nar }
    }

    /// Gives what the cache will say of the item.
    pub fn narinfo(&self) -> &NarInfo {
        &self.narinfo
    }
}
