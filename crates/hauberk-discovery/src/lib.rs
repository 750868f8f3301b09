#![doc = include_str!("../README.md")]

mod advertisement;
mod advertiser;
mod browser;
mod interfaces;

pub use advertisement::{Advertisement, MalformedAdvertisement};
pub use advertiser::Advertiser;
pub use browser::{Browser, Discovery, Found, SEARCH_INTERVAL};
pub use interfaces::Interfaces;

/// The DNS-SD type of a remote-server. It is not Cuirass's `_remote-server._tcp`, whose workers speak another language.
pub const SERVICE_TYPE: &str = "_hauberk._tcp.local.";

/// Why nothing can be announced or searched for.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The thread that speaks mDNS cannot be started or has ended.
    #[error("cannot {operation} by mDNS")]
    Mdns {
        /// What was tried.
        operation: &'static str,
        /// What the mDNS library said.
        #[source]
        source: mdns_sd::Error,
    },
    /// What is to be announced does not fit a DNS-SD record.
    #[error("cannot announce the server by mDNS")]
    Advertisement {
        /// What does not fit.
        #[source]
        source: MalformedAdvertisement,
    },
    /// The thread that speaks mDNS has ended.
    #[error("the mDNS thread has ended")]
    Ended,
}

impl DiscoveryError {
    fn mdns(operation: &'static str) -> impl FnOnce(mdns_sd::Error) -> Self {
        move |source| Self::Mdns { operation, source }
    }
}
