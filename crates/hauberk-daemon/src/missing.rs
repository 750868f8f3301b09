//! What a build would take.

use std::collections::BTreeSet;

use hauberk_store::{DrvPath, StorePath};

/// What would have to be done before a set of targets is valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// Derivations that would be built.
    pub will_build: BTreeSet<DrvPath>,
    /// Paths that would be fetched.
    pub will_substitute: BTreeSet<StorePath>,
    /// Paths that are neither valid nor made by a known derivation nor substitutable.
    pub unknown: BTreeSet<StorePath>,
    /// Bytes to download, as far as servers tell.
    pub download_size: u64,
    /// Bytes of the NARs of what would be fetched.
    pub nar_size: u64,
}
