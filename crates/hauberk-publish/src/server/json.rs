//! A narinfo as JSON, with the field names of `nix path-info --json`.

use bytes::Bytes;
use hauberk_store::{NarInfo, StorePath};
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    path: String,
    nar_hash: String,
    nar_size: u64,
    references: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deriver: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    signatures: Vec<String>,
    #[serde(flatten)]
    place: Option<Place>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    url: String,
    compression: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    download_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    download_hash: Option<String>,
}

/// Writes the JSON of a narinfo; of several places the first.
pub(super) fn of(narinfo: &NarInfo) -> Result<Bytes, serde_json::Error> {
    let item = Item {
        path: narinfo.store_path.to_string(),
        nar_hash: narinfo.nar_hash.to_sri(),
        nar_size: narinfo.nar_size,
        references: narinfo.references.iter().map(ToString::to_string).collect(),
        deriver: narinfo.deriver.as_ref().map(StorePath::to_string),
        ca: narinfo.ca.clone(),
        signatures: narinfo.signatures.iter().map(ToString::to_string).collect(),
        place: narinfo.urls.first().map(|place| Place {
            url: place.url.clone(),
            compression: place.compression.to_string(),
            download_size: place.file_size,
            download_hash: place.file_hash.map(|hash| hash.to_sri()),
        }),
    };
    serde_json::to_vec(&item).map(Bytes::from)
}
