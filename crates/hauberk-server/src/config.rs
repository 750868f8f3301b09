//! What a server is told.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hauberk_daemon::DaemonAddress;
use hauberk_database::ConnectionString;
use hauberk_discovery::Interfaces;
use hauberk_protocol::keys::CurveKeyPair;
use hauberk_protocol::socket::ServerAddress;
use hauberk_publish::push::PushLimits;
use hauberk_publish::server::PublishOptions;
use hauberk_publish::{BaseUrl, Signer};
use hauberk_store::StoreDirectory;

use crate::health::HealthPolicy;
use crate::outcome::RetryPolicy;

/// What a server is told. Every value is checked already, except that ports may turn out to be in use.
pub struct Config {
    /// The farm's database.
    pub database: ConnectionString,
    /// The stable name of this server, unique in the farm.
    pub name: String,
    /// The farm's name, for those who look for it by mDNS.
    pub farm: String,
    /// The address to listen at; `::` takes IPv4 as well.
    pub listen: IpAddr,
    /// Where workers of other servers find this one; without it, at the host of the first store's publish URL, or by the host's name.
    pub address: Option<ServerAddress>,
    /// Port for workers' messages; 0 lets the system choose one, as for the others.
    pub backend_port: u16,
    /// Port for logs.
    pub log_port: u16,
    /// What else is chosen of the publish servers. Listeners that are ports are used in place of the stores' own, in their order; others
    /// serve the first store.
    pub publish: PublishOptions,
    /// Holds nars, narinfos and logs.
    pub cache: PathBuf,
    /// The stores whose builds it takes, one at least, each of another directory. The first is the one told to those who ask for
    /// one.
    pub stores: Vec<StoreConfig>,
    /// The server's CURVE key pair; none only on a network that is trusted.
    pub curve: Option<CurveKeyPair>,
    /// Where to announce the server by mDNS; none for nowhere.
    pub announce: Option<Interfaces>,
    /// A substitute server that is asked for each output once it is fetched; what it answers does not matter.
    pub trigger: Option<BaseUrl>,
    /// Whether outputs are added to the stores of this machine as well.
    pub add_to_store: bool,
    /// Times and limits.
    pub limits: Limits,
}

/// One of the stores whose builds a server takes. Each is published at a port of its own.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Its directory.
    pub directory: StoreDirectory,
    /// Port for its substitutes; 0 lets the system choose one.
    pub publish_port: u16,
    /// The URL workers and clients reach its publish server at, if it is not this host's address and port.
    pub publish_url: Option<String>,
    /// Its daemon on this machine; without one, only the cache is served.
    pub daemon: Option<DaemonAddress>,
    /// What its narinfos are signed with.
    pub signer: Signer,
    /// Substitute servers outside the farm that its users have as well: what outputs refer to and these have is not fetched from workers.
    pub substitute_urls: Vec<BaseUrl>,
}

impl StoreConfig {
    /// Gives the directory of its cache below the server's: that itself for Nix's usual store, and one named after the store for
    /// any other, so that a store that is added later moves no files.
    pub fn cache(&self, cache: &Path) -> PathBuf {
        if self.directory == StoreDirectory::nix() {
            return cache.to_owned();
        }
        cache.join(self.directory.as_str().trim_start_matches('/').replace('/', "-"))
    }
}

/// Times and limits of a server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How often workers show life.
    pub heartbeat: Duration,
    /// A worker that was not heard of for so long has lost its builds.
    pub lease: Duration,
    /// A worker that was told to stop a build has so long to do it; then it is given up.
    pub stop_patience: Duration,
    /// How often the queue is read anew without a wake-up: what a lost one costs at most. Not zero.
    pub sweep: Duration,
    /// What to do after the farm's faults.
    pub retry: RetryPolicy,
    /// Builds that have been ready for longer go before what is more urgent, emergencies excepted, the oldest first; none: never.
    pub ageing: Option<Duration>,
    /// When workers are set aside, and how often they are tried.
    pub health: HealthPolicy,
    /// Leaves paths and shares aside, so that what the order costs can be measured.
    pub priority_and_age_alone: bool,
    /// Largest log, in bytes of text; 0 = no limit.
    pub log: u64,
    /// Logs are kept so long after the end of their attempts; none: for ever.
    pub log_expiry: Option<Duration>,
    /// Largest output, in bytes of nar; 0 = no limit.
    pub output: u64,
    /// Largest build product, in bytes.
    pub product: u64,
    /// Attempts whose outputs are fetched at once.
    pub fetches: usize,
    /// What registers may push.
    pub push: PushLimits,
    /// What is in hand may take so long to finish when the server ends.
    pub grace: Duration,
}

impl Default for Limits {
    /// Heartbeats each 15 s, leases of 60 s, 30 s to stop a build, logs of 256 MiB that are kept for 6 months of 30 days, build
    /// products of 64 GiB, 8 fetches at once, 10 s of grace; no ageing.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            lease: Duration::from_secs(60),
            stop_patience: Duration::from_secs(30),
            sweep: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            ageing: None,
            health: HealthPolicy::default(),
            priority_and_age_alone: false,
            log: 256 << 20,
            log_expiry: Some(Duration::from_secs(180 * 24 * 60 * 60)),
            output: 0,
            product: 64 << 30,
            fetches: 8,
            push: PushLimits::default(),
            grace: Duration::from_secs(10),
        }
    }
}
