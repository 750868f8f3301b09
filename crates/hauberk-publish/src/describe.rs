//! From what a store knows of a path to a narinfo.

use hauberk_daemon::PathInfo;
use hauberk_store::{NarInfo, signature::nix::Signature};

/// Says of a path what its store knows, with the signatures the store keeps; where its nar is comes after.
pub(crate) fn describe(info: &PathInfo) -> NarInfo {
    NarInfo {
        store_path: info.path.clone(),
        urls: Vec::new(),
        nar_hash: info.nar_hash,
        nar_size: info.nar_size,
        references: info.references.clone(),
        deriver: info.deriver.clone(),
        system: None,
        signatures: info.signatures.iter().filter_map(|text| Signature::parse(text).ok()).collect(),
        ca: info.content_address.clone(),
        unknown: Vec::new(),
        guix_signature: None,
    }
}
