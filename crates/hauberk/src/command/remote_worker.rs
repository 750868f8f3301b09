//! `hauberk remote-worker`: builds what the server hands out.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hauberk_daemon::DaemonAddress;
use hauberk_discovery::Interfaces;
use hauberk_protocol::keys::CurveKeyPair;
use hauberk_protocol::socket::ServerAddress;
use hauberk_store::StoreDirectory;
use hauberk_worker::{
    Config, DEFAULT_GRACE, DEFAULT_PUBLISH_PORT, LogLimits, Security, ServerLocation, TrustCheck,
    native_system,
};

use crate::command::remote_server::{host_name, parse_interfaces};
use crate::command::store::{parse_store, usual_daemon};
use crate::exit::Failure;
use crate::keys::{curve_public_key, read_signing_key};
use crate::lifetime;

/// Build what the server hands out, through this machine's build daemon
///
/// Finds the server by mDNS unless it is named, joins with its enrolled key, builds, sends the logs, and publishes the results signed
/// until the server has fetched them.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Builds at once
    #[arg(short, long, value_name = "N", default_value = "1")]
    workers: NonZeroU32,

    /// The server, as HOST, HOST:PORT or [IPV6]:PORT; without it, it is looked for by mDNS
    #[arg(short, long, value_name = "HOST[:PORT]")]
    server: Option<ServerAddress>,

    /// The server's public CURVE key, or the file that holds it: no other server is joined
    // A key may begin with `-`, as one in 85 does.
    #[arg(long, value_name = "KEY|FILE", required_unless_present = "insecure", allow_hyphen_values = true)]
    server_key: Option<String>,

    /// The secret CURVE key of this worker (`hauberk key curve`), which must be enrolled on the server
    #[arg(long, value_name = "FILE", required_unless_present = "insecure")]
    curve_key: Option<PathBuf>,

    /// Join without encryption or keys. For a network that is trusted
    #[arg(long, conflicts_with_all = ["curve_key", "server_key"])]
    insecure: bool,

    /// The secret key that results are signed with (`hauberk key signing`): one of Nix or of Guix, as the store is
    #[arg(long, value_name = "FILE")]
    signing_key: PathBuf,

    /// The name this worker is enrolled under [default: the host's name]
    #[arg(long)]
    name: Option<String>,

    /// Systems it builds for, separated by commas [default: this machine's]
    #[arg(short = 'S', long, value_name = "SYSTEMS", value_delimiter = ',')]
    systems: Vec<String>,

    /// Features it offers, as `kvm,big-parallel`
    #[arg(long, value_name = "FEATURES", value_delimiter = ',')]
    features: Vec<String>,

    /// Features of these that a build must require to be given to it
    #[arg(long, value_name = "FEATURES", value_delimiter = ',')]
    mandatory_features: Vec<String>,

    /// Port of this machine's publish server, which the server fetches results from
    #[arg(short, long, value_name = "PORT", default_value_t = DEFAULT_PUBLISH_PORT)]
    publish_port: u16,

    /// The address the publish server listens at; `::` takes IPv4 as well
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
    publish_listen: IpAddr,

    /// The URL under which the server reaches the publish port, if not by this machine's address
    #[arg(long, value_name = "URL")]
    publish_url: Option<String>,

    /// Where results and logs wait until the server has them
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/hauberk/worker")]
    spool: PathBuf,

    /// The socket of this machine's build daemon [default: the usual one of the store]
    #[arg(long, value_name = "SOCKET")]
    daemon: Option<String>,

    /// The store of that daemon: `nix`, `guix`, or its directory [default: the usual one of the signing key's kind]
    #[arg(long, value_name = "nix|guix|DIRECTORY", value_parser = parse_store)]
    store: Option<StoreDirectory>,

    /// Where the daemon builds, to watch its free space
    #[arg(long, value_name = "DIRECTORY", default_value = "/tmp")]
    build_directory: PathBuf,

    /// Substitute servers to ask for inputs the farm does not have, separated by blanks
    #[arg(long, value_name = "URLS", default_value = "")]
    substitute_urls: String,

    /// What to do when the build daemon does not accept what the server signs
    #[arg(long, value_enum, value_name = "WHAT", default_value = "require")]
    trust_check: Trust,

    /// Where to look for the server by mDNS: `all` interfaces, `loopback`, or names of interfaces
    #[arg(long, value_name = "WHERE", default_value = "all", value_parser = parse_interfaces)]
    discover: Interfaces,

    /// Running builds may take so long to finish when the worker is told to end, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_GRACE.as_secs())]
    grace: u64,
}

/// What to do when the build daemon does not accept what the server signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Trust {
    /// End, and tell how to mend it
    Require,
    /// Warn, and go on: builds whose inputs must be fetched will fail
    Warn,
}

/// Works until a signal comes.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let config = options.check()?;
    Ok(hauberk_worker::run(config, lifetime::stop_on_signals()?, lifetime::ready).await?)
}

impl Options {
    fn check(self) -> Result<Config, Failure> {
        let security = match (&self.curve_key, &self.server_key) {
            (Some(keys), Some(server)) => {
                Security::Curve { keys: CurveKeyPair::read(keys)?, server: curve_public_key(server)? }
            }
            // The command line allows it only with --insecure.
            _ => Security::Insecure,
        };
        let signing_key = read_signing_key(&self.signing_key)?;
        let store_directory = self.store.unwrap_or_else(|| signing_key.usual_store());
        let daemon = self.daemon.unwrap_or_else(|| usual_daemon(&store_directory).to_owned());
        let systems = if self.systems.is_empty() { vec![native_system()] } else { self.systems };
        Ok(Config {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.name.unwrap_or_else(host_name),
            slots: self.workers,
            systems,
            features: self.features,
            mandatory_features: self.mandatory_features,
            store_directory,
            signing_key,
            security,
            server: self.server.map_or(ServerLocation::Discover(self.discover), ServerLocation::Address),
            publish_listen: self.publish_listen,
            publish_port: self.publish_port,
            publish_url: self.publish_url,
            spool: self.spool,
            log_limits: LogLimits::default(),
            daemon: DaemonAddress::parse(&daemon).map_err(Failure::configuration)?,
            build_directory: self.build_directory,
            substitute_urls: self.substitute_urls.split_whitespace().map(str::to_owned).collect(),
            trust_check: match self.trust_check {
                Trust::Require => TrustCheck::Require,
                Trust::Warn => TrustCheck::Warn,
            },
            grace: Duration::from_secs(self.grace),
        })
    }
}
