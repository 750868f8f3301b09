//! Nars that are passed on.

use std::io::Read;

use async_trait::async_trait;
use bytes::Bytes;
use hauberk_store::StorePathHash;

/// Knows nars that others have, and passes them on.
#[async_trait]
pub trait Relay: Send + Sync {
    /// Gives the narinfo of the item with this hash part, word by word, if the item is passed on.
    fn narinfo(&self, hash: &StorePathHash) -> Option<Bytes>;

    /// Gives what has this name (`nar/…`) in such a narinfo, packed as the narinfo says. The reader may block.
    async fn nar(&self, name: &str) -> Option<Box<dyn Read + Send>>;
}
