//! What a worker is told, checked.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use hauberk_daemon::DaemonAddress;
use hauberk_protocol::keys::{CurveKeyPair, CurvePublicKey};
use hauberk_protocol::socket::{ClientSecurity, Context, ServerAddress};
use hauberk_store::StoreDirectory;
use hauberk_store::narinfo::Compression;
use hauberk_store::signature::SecretKey;

use crate::machine::Reserve;
use crate::spool::LogLimits;

/// The port a worker's publish server listens on unless told otherwise.
pub const DEFAULT_PUBLISH_PORT: u16 = 5558;

/// How long running builds may take to end after an orderly stop was asked for, unless told otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// Everything a remote-worker with a real build daemon needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Stable name, unique in the farm.
    pub name: String,
    /// Version of the program, for people.
    pub version: String,
    /// Builds at once.
    pub slots: NonZeroU32,
    /// Systems it builds for, its own first; see [`native_system`].
    pub systems: Vec<String>,
    /// Features it offers.
    pub features: Vec<String>,
    /// Those of its features that a build must require to be given to it.
    pub mandatory_features: Vec<String>,
    /// The store directory it builds in.
    pub store_directory: StoreDirectory,
    /// The key it signs its outputs with.
    pub signing_key: SecretKey,
    /// How the connection to the server is protected.
    pub security: Security,
    /// Where the server is.
    pub server: ServerLocation,
    /// Address the publish server listens on.
    pub publish_listen: std::net::IpAddr,
    /// Port the publish server listens on; 0 lets the system choose.
    pub publish_port: u16,
    /// How the publish server packs nars while they are sent.
    pub publish_compression: Compression,
    /// Threads that pack one large nar with zstd while it is sent.
    pub publish_threads: u32,
    /// Where others reach the publish server, if not at the address the server sees.
    pub publish_url: Option<String>,
    /// Whether results are uploaded to the server in any case, even if it could fetch them.
    pub upload: bool,
    /// Directory for results and logs that the server does not have yet, and for the links that keep outputs alive.
    pub spool: PathBuf,
    /// How much log text the spool takes.
    pub log_limits: LogLimits,
    /// The socket of the build daemon.
    pub daemon: DaemonAddress,
    /// The directory in which the daemon runs builders, to tell a full disk by.
    pub build_directory: PathBuf,
    /// Caches to ask for inputs that the farm does not have, in this order.
    pub substitute_urls: Vec<String>,
    /// What to do when the daemon does not accept the server's key.
    pub trust_check: TrustCheck,
    /// How long running builds may take to end after an orderly stop was asked for.
    pub grace: Duration,
    /// What the machine must have to spare before work is asked for.
    pub reserve: Reserve,
    /// Bytes that the daemon is to collect at a time when the store's file system has less than the reserve; none: never.
    pub collect_bytes: Option<u64>,
    /// Cores for each builder; none: the machine's, divided by the slots.
    pub cores: Option<NonZeroU32>,
}

/// How the connection to the server is protected.
#[derive(Clone, Debug)]
pub enum Security {
    /// Encrypted and authenticated on both sides.
    Curve {
        /// The worker's own key pair.
        keys: CurveKeyPair,
        /// The server's public key, pinned. Other servers of its farm are believed to be what it says of them.
        server: CurvePublicKey,
    },
    /// Neither, for a network that is trusted.
    Insecure,
}

impl Security {
    pub(crate) fn as_client(&self) -> ClientSecurity<'_> {
        match self {
            Self::Curve { keys, server } => ClientSecurity::Curve { keys, server },
            Self::Insecure => ClientSecurity::Insecure,
        }
    }

    /// The same for a server with this key; as it is, without one.
    pub(crate) fn with_server(&self, key: Option<CurvePublicKey>) -> Self {
        match (self, key) {
            (Self::Curve { keys, .. }, Some(server)) => Self::Curve { keys: keys.clone(), server },
            _ => self.clone(),
        }
    }

    /// The key a server must have, if that is known.
    pub(crate) fn pinned(&self) -> Option<&CurvePublicKey> {
        match self {
            Self::Curve { server, .. } => Some(server),
            Self::Insecure => None,
        }
    }
}

/// Where the server is.
#[derive(Clone, Debug)]
pub enum ServerLocation {
    /// At one of these addresses; without a port, at the usual one.
    Addresses(Vec<ServerAddress>),
    /// Announced by mDNS on these interfaces.
    Discover(hauberk_discovery::Interfaces),
}

/// What to do when the daemon does not accept the server's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustCheck {
    /// End with an error that names the remedy.
    Require,
    /// Warn, and go on: inputs that only the server has cannot be fetched then.
    Warn,
}

/// Where results and logs are kept until the server has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpoolPlace {
    /// In this directory, so that they outlive the process.
    Directory(PathBuf),
    /// In memory, for simulated workers.
    Memory,
}

/// Where others reach the publish server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishAddress {
    /// At this URL.
    Url(String),
    /// At this port of the address the server sees.
    Port(u16),
    /// Nowhere: results are uploaded.
    Nowhere,
}

/// What a session needs to know, whatever builds behind it; see [`crate::run_with_builder`].
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Stable name, unique in the farm.
    pub name: String,
    /// Host name of the machine, for people.
    pub machine: String,
    /// Version of the program, for people.
    pub version: String,
    /// Only builds of this store directory are taken.
    pub store_directory: StoreDirectory,
    /// Systems it builds for, its own first.
    pub systems: Vec<String>,
    /// Features it offers.
    pub features: Vec<String>,
    /// Those of its features that a build must require to be given to it.
    pub mandatory_features: Vec<String>,
    /// Builds at once.
    pub slots: NonZeroU32,
    /// Attempts that may wait for a slot, so that none is idle while a result travels.
    pub ahead: u32,
    /// Where others reach the publish server.
    pub publish: PublishAddress,
    /// The public key that results are signed with: `NAME:BASE64`, or the S-expression of Guix.
    pub signing_key: String,
    /// Cores of the machine.
    pub cores: u32,
    /// Memory of the machine in bytes.
    pub memory_bytes: u64,
    /// Kind and version of the build daemon, for people.
    pub daemon: String,
    /// How the connection to the server is protected.
    pub security: Security,
    /// Where the server is.
    pub server: ServerLocation,
    /// Where results and logs are kept.
    pub spool: SpoolPlace,
    /// How much log text the spool takes.
    pub log_limits: LogLimits,
    /// Whether a server whose key the daemon refuses ends the worker.
    pub trust_check: TrustCheck,
    /// How long running builds may take to end after an orderly stop was asked for.
    pub grace: Duration,
    /// The ZeroMQ context; some 100 sessions can share one.
    pub context: SharedContext,
}

/// A ZeroMQ context that several sessions may share.
#[derive(Clone, Default)]
pub struct SharedContext(pub Context);

impl std::fmt::Debug for SharedContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedContext")
    }
}

/// The system of the machine this program runs on, as Nix and Guix call it: `x86_64-linux`.
pub fn native_system() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}
