//! What a publish server is made of.

use std::{sync::Arc, time::Duration};

use hauberk_store::{StoreDirectory, narinfo::Compression};
use tokio_rustls::TlsAcceptor;

use super::{
    elsewhere::Elsewhere, log_source::LogSource, metrics_source::MetricsSource, packer::Packing,
    relay::Relay, store_source::StoreSource,
};
use crate::{cache::Cache, inbox::Inbox, products::Products, push::PushDoor, signer::Signer};

/// What a publish server serves, and how.
#[derive(Clone)]
pub struct PublishConfig {
    /// The store whose items it serves; cache and store must be of it.
    pub store_directory: StoreDirectory,
    /// What clients sort servers by, lower first. Nix gives its own cache 40.
    pub priority: u32,
    /// Signs the narinfos of store items. Those of the cache are given out as they are.
    pub signer: Signer,
    /// The cache directory, looked at first.
    pub cache: Option<Cache>,
    /// The local store.
    pub store: Option<StoreSource>,
    /// How nars of the store are packed while they are sent: none, gzip or zstd. None by default, which costs least and
    /// tells clients sizes; packing pays on slow networks.
    pub compression: Compression,
    /// Threads that pack a large nar with zstd while it is sent, where as many processors are idle: each holds some 6 MiB. One by default.
    pub packing_threads: u32,
    /// How items of the store get into the cache when they are asked for. They do not without it, or without a cache.
    pub packing: Option<Packing>,
    /// Where results go that are uploaded; nothing is taken without it.
    pub inbox: Option<Inbox>,
    /// Where items come from that are neither in the cache nor in the store. Needs a cache.
    pub elsewhere: Option<Arc<dyn Elsewhere>>,
    /// Items of others that are passed on; what it does not know is looked for in cache and store.
    pub relay: Option<Arc<dyn Relay>>,
    /// Build products.
    pub products: Option<Products>,
    /// Takes derivations and sources that are pushed; nothing is taken without it.
    pub pushes: Option<PushDoor>,
    /// Build logs.
    pub logs: Option<Arc<dyn LogSource>>,
    /// More figures for `/metrics`.
    pub metrics: Option<Arc<dyn MetricsSource>>,
    /// How long a client may remember a narinfo. It is told only if there is a time here; clients have their own.
    pub ttl: Option<Duration>,
    /// How long a client may remember that a path is not here. Nothing by default: it may be here in a moment. (Nix
    /// does not look at this and remembers for its own `narinfo-cache-negative-ttl`.)
    pub negative_ttl: Duration,
    /// Encrypts connections by TCP.
    pub tls: Option<TlsAcceptor>,
    /// Bounds on connections.
    pub limits: Limits,
}

impl PublishConfig {
    /// Serves nothing of `store_directory` yet, with the default priority (40) and limits.
    pub fn new(store_directory: StoreDirectory) -> Self {
        Self {
            store_directory,
            priority: 40,
            signer: Signer::default(),
            cache: None,
            store: None,
            compression: Compression::None,
            packing_threads: 1,
            packing: None,
            inbox: None,
            elsewhere: None,
            relay: None,
            products: None,
            pushes: None,
            logs: None,
            metrics: None,
            ttl: None,
            negative_ttl: Duration::ZERO,
            tls: None,
            limits: Limits::default(),
        }
    }
}

/// Bounds on connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once, at least one, and at most half of the descriptors that the process may have; more wait in the
    /// kernel's queue. An idle one holds about two kilobytes, and one that receives a nar a buffer of 256 KiB.
    pub connections: usize,
    /// Time for a request's head, and for a connection between two requests.
    pub header_timeout: Duration,
    /// Time after which a connection on which nothing happens is closed if another client waits for a place.
    pub crowded_timeout: Duration,
    /// Time in which a client must take 16 KiB of an answer that waits for it.
    pub stall_timeout: Duration,
    /// Time given to answers in hand when the server ends.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16 * 1024,
            header_timeout: Duration::from_secs(30),
            crowded_timeout: Duration::from_secs(2),
            stall_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(10),
        }
    }
}
