//! From what a store knows of a path to a narinfo.

use hauberk_daemon::PathInfo;
use hauberk_store::{NarInfo, StorePath, narinfo::Compression, signature::nix::Signature};

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

/// Gives the URL, relative to the server, under which an item is served by name, as Guix has it.
pub fn item_nar_url(compression: &Compression, item: &StorePath) -> String {
    let mut url = String::from("nar/");
    if *compression != Compression::None {
        url.push_str(compression.as_str());
        url.push('/');
    }
    for byte in item.base_name().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}
