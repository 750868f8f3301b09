//! What the farm's other servers have.

use std::time::Duration;

use async_trait::async_trait;
use hauberk_store::StorePathHash;

/// The field of a request by which a server of the farm asks another. What is not there is then looked for nowhere else, or two servers would
/// ask each other without end.
pub const PEER_FIELD: &str = "hauberk-peer";

/// What came of looking elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// The item is in the cache now.
    Here,
    /// No other server has it.
    Nowhere,
    /// It is on its way, and not here before this time is over.
    Coming(Duration),
}

/// Brings what is not here from the farm's other servers.
#[async_trait]
pub trait Elsewhere: Send + Sync {
    /// Brings the item with this hash part into the cache, if another server has it.
    async fn bring(&self, hash: &StorePathHash) -> Brought;
}
