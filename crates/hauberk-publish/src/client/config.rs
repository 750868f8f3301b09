//! How substitute servers are asked.

use std::time::Duration;

/// How substitute servers are asked.
#[derive(Debug, Clone, Copy)]
pub struct ClientConfig {
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time for a whole narinfo.
    pub narinfo_timeout: Duration,
    /// A nar's bytes may pause so long in all while [`Self::stall_bytes`] arrive; then the download has stalled. Time
    /// in which we do not listen does not count.
    pub stall_timeout: Duration,
    /// See [`Self::stall_timeout`].
    pub stall_bytes: u64,
    /// Items fetched into a cache at once; more wait. At least one.
    pub parallel_fetches: usize,
    /// Whether redirects are followed (at most five). Not for servers inside a farm, which send none: a hostile one
    /// could have any address asked.
    pub follow_redirects: bool,
    /// Whether servers are told that another server of their farm asks: what they do not have themselves they look for nowhere else.
    pub as_peer: bool,
    /// Whether the proxies of the environment (`https_proxy` and its like) are used.
    pub use_proxies: bool,
}

impl ClientConfig {
    /// Gives what suits servers and workers of the same farm.
    pub const fn farm() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            narinfo_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            stall_bytes: 64 * 1024,
            parallel_fetches: 8,
            follow_redirects: false,
            as_peer: false,
            use_proxies: false,
        }
    }

    /// Gives what suits servers that ask each other: one that does not answer soon is passed over.
    pub const fn peer() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            narinfo_timeout: Duration::from_secs(5),
            as_peer: true,
            ..Self::farm()
        }
    }

    /// Gives what suits substitute servers on the Internet: redirects and proxies too.
    pub const fn internet() -> Self {
        Self { follow_redirects: true, use_proxies: true, ..Self::farm() }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self::farm()
    }
}
