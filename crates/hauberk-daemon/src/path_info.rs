//! What a store knows of a path.

use std::collections::BTreeSet;

use hauberk_store::{NarHash, NarInfo, StorePath};

/// What a store knows of one of its valid paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The path.
    pub path: StorePath,
    /// The derivation that made it, if the store was told.
    pub deriver: Option<StorePath>,
    /// SHA-256 of its NAR.
    pub nar_hash: NarHash,
    /// The paths it refers to, itself included if it does.
    pub references: BTreeSet<StorePath>,
    /// When it became valid here, in Unix seconds; 0 where it is yet to be added.
    pub registration_time: u64,
    /// Bytes of its NAR; 0 if the store does not know (very old entries).
    pub nar_size: u64,
    /// Tells whether it was built here and not fetched (Nix).
    pub ultimate: bool,
    /// Nix signatures, `NAME:BASE64`, as the store keeps them. Guix keeps none.
    pub signatures: BTreeSet<String>,
    /// What its contents hash to, where the path follows from that (Nix), as in `text:sha256:…`.
    pub content_address: Option<String>,
}

/// What a daemon needs to know of a path that is yet to be added, as a narinfo describes it.
impl From<&NarInfo> for PathInfo {
    fn from(narinfo: &NarInfo) -> Self {
        Self {
            path: narinfo.store_path.clone(),
            deriver: narinfo.deriver.clone(),
            nar_hash: narinfo.nar_hash,
            references: narinfo.references.clone(),
            registration_time: 0,
            nar_size: narinfo.nar_size,
            ultimate: false,
            signatures: narinfo.signatures.iter().map(ToString::to_string).collect(),
            content_address: narinfo.ca.clone(),
        }
    }
}

/// What substitute servers know of a path that is not valid here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubstitutablePathInfo {
    /// The path.
    pub path: StorePath,
    /// The derivation that made it.
    pub deriver: Option<StorePath>,
    /// The paths it refers to.
    pub references: BTreeSet<StorePath>,
    /// Bytes to download; 0 if unknown.
    pub download_size: u64,
    /// Bytes of its NAR; 0 if unknown.
    pub nar_size: u64,
}
