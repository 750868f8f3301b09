//! Export streams: store items with what a store knows of them, as `guix archive --export` and `nix-store --export`
//! write them.
//!
//! An item is its NAR, a magic number, path, references, deriver, and perhaps a signature over all of that.

mod decoder;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeSet;

pub use decoder::{Decoder, Event, ExportError, ExportedItem};
pub use writer::{ExportWriter, ItemWriter};

use crate::store_path::StorePath;

/// Stands between an item's NAR and the rest.
const MAGIC: u64 = 0x4558_494e;

/// What a store knows of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportItem {
    /// The item.
    pub path: StorePath,
    /// What it refers to, perhaps itself among them.
    pub references: BTreeSet<StorePath>,
    /// The derivation that made it.
    pub deriver: Option<StorePath>,
}
