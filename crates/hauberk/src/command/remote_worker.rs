//! `hauberk remote-worker`: builds what the server hands out.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use hauberk_daemon::DaemonAddress;
use hauberk_discovery::Interfaces;
use hauberk_protocol::keys::CurveKeyPair;
use hauberk_protocol::socket::ServerAddress;
use hauberk_protocol::{EnrolmentToken, TokenError};
use hauberk_store::StoreDirectory;
use hauberk_store::narinfo::Compression;
use hauberk_store::signature::SecretKey;
use hauberk_worker::{
    Application, Config, DEFAULT_GRACE, DEFAULT_PUBLISH_PORT, LogLimits, PressureLimits, Reserve, Security,
    ServerLocation, TrustCheck, native_system,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::command::remote_server::{host_name, parse_interfaces};
use crate::command::store::{parse_store, usual_daemon};
use crate::exit::Failure;
use crate::keyring::Keyring;
use crate::keys::{curve_public_key, read_signing_key};
use crate::lifetime;

/// Bytes of the largest file with a token.
const LONGEST_TOKEN: u64 = 1024;

/// Build what the server hands out, through this machine's build daemon
///
/// Finds the server by mDNS unless it is named, joins with its enrolled key, builds, sends the logs, and publishes the results signed
/// until the server has fetched them. A machine that was never here before needs --enrol and a token of `hauberk worker token`; it keeps
/// its keys below --spool, and later starts need neither.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Builds at once
    #[arg(short, long, value_name = "N", default_value = "1")]
    workers: NonZeroU32,

    /// The server, as HOST, HOST:PORT or [IPV6]:PORT; given again, another of the same farm, to go to when one is gone. Without it, servers
    /// are looked for by mDNS
    #[arg(short, long, value_name = "HOST[:PORT]")]
    server: Vec<ServerAddress>,

    /// Become a worker of the farm by this token (`hauberk worker token`), or by that in a file: keys are made below --spool, the server
    /// is found, and enrols this machine. Once that is done, the same token is not shown again, and its file may go
    #[arg(long, value_name = "TOKEN|FILE")]
    enrol: Option<String>,

    /// The server's public CURVE key, or the file that holds it: no other server is joined [default: that of the server that has
    /// enrolled this machine, below --spool]
    // A key may begin with `-`, as one in 85 does.
    #[arg(long, value_name = "KEY|FILE", allow_hyphen_values = true, conflicts_with = "enrol")]
    server_key: Option<String>,

    /// The secret CURVE key of this worker (`hauberk key curve`), which must be enrolled on the server [default: the one below --spool]
    #[arg(long, value_name = "FILE", conflicts_with = "enrol")]
    curve_key: Option<PathBuf>,

    /// Join without encryption or keys. For a network that is trusted
    #[arg(long, conflicts_with_all = ["curve_key", "server_key", "enrol"])]
    insecure: bool,

    /// The secret key that results are signed with (`hauberk key signing`): one of Nix or of Guix, as the store is [default: the one
    /// below --spool]
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,

    /// The name this worker is enrolled under, or is to be [default: the one it was enrolled under by a token, or the host's name]
    #[arg(long)]
    name: Option<String>,

    /// Systems it builds for, separated by commas [default: this machine's]
    #[arg(short = 'S', long, value_name = "SYSTEMS", value_delimiter = ',')]
    systems: Vec<String>,

    /// Features it offers, as `kvm,big-parallel`
    #[arg(long, value_name = "FEATURES", value_delimiter = ',')]
    features: Vec<String>,

    /// Features it offers that a build must require to be given to it
    #[arg(long, value_name = "FEATURES", value_delimiter = ',')]
    mandatory_features: Vec<String>,

    /// Port of this machine's publish server, which the server fetches results from
    #[arg(short, long, value_name = "PORT", default_value_t = DEFAULT_PUBLISH_PORT)]
    publish_port: u16,

    /// The address the publish server listens at; `::` takes IPv4 as well
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
    publish_listen: IpAddr,

    /// How results are packed while they are fetched. The server keeps them as they came, and packs by itself what comes unpacked, at the cost of
    /// its own processors instead of this machine's
    #[arg(long, value_name = "WAY", value_enum, default_value_t = Packing::Zstd)]
    publish_compression: Packing,

    /// Processors that may pack one large result while it is fetched, where they have nothing else to do
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    publish_threads: u32,

    /// The URL under which the server reaches the publish port, if not by this machine's address
    #[arg(long, value_name = "URL")]
    publish_url: Option<String>,

    /// Upload results to the server in any case. Without this, a worker does so when the server cannot reach its publish port, as behind
    /// a router that translates addresses
    #[arg(long, conflicts_with = "publish_url")]
    upload: bool,

    /// Where results and logs wait until the server has them, and in `keys` the keys of a machine that was enrolled by a token
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

    /// No work is asked for while the file system of the store, of the build directory or of the spool has less free space, in GiB; 0 = no
    /// matter how little
    #[arg(long, value_name = "GIB", default_value = "5", value_parser = parse_gibibytes)]
    minimum_disk_space: u64,

    /// No work is asked for while less memory is available, in GiB; 0 = no matter how little
    #[arg(long, value_name = "GIB", default_value = "0", value_parser = parse_gibibytes)]
    minimum_memory: u64,

    /// No work is asked for while tasks of this machine wait for longer parts of their time than these percents: `cpu=60,memory=10,io=30`,
    /// or some of them (`some avg10` of /proc/pressure)
    #[arg(long, value_name = "WHAT=PERCENT", default_value = "", value_parser = parse_pressure)]
    maximum_pressure: PressureLimits,

    /// When the store's file system has less free space than --minimum-disk-space, let the build daemon collect garbage until so many GiB
    /// are freed, and again while it has less
    #[arg(long, value_name = "GIB", value_parser = parse_gibibytes)]
    collect_garbage: Option<u64>,

    /// Cores for each build [default: this machine's, divided by --workers]
    #[arg(long, value_name = "N")]
    cores: Option<NonZeroU32>,

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

/// How results are packed while they are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Packing {
    /// With zstd
    Zstd,
    /// Not at all
    None,
}

/// Works until a signal comes.
pub(crate) async fn run(mut options: Options) -> Result<(), Failure> {
    let stop = lifetime::stop_on_signals()?;
    if let Some(text) = options.enrol.take() {
        if options.may_lack(&text)? {
            tracing::info!("{text} is gone, and not needed: this machine is enrolled");
        } else {
            let token = read_token(&text)?;
            if !options.join_farm(&token, &stop).await? {
                return Ok(());
            }
        }
    }
    Ok(hauberk_worker::run(options.check()?, stop, lifetime::ready).await?)
}

/// Reads a number of GiB, which need not be whole, and gives bytes.
fn parse_gibibytes(text: &str) -> Result<u64, String> {
    const MOST: f64 = 1e9;
    match text.parse::<f64>() {
        Ok(number) if (0.0..=MOST).contains(&number) => Ok((number * f64::from(1 << 30)) as u64),
        _ => Err("a number of GiB is wanted, as 5 or 0.5".to_owned()),
    }
}

/// Reads limits as `cpu=60,io=30`.
fn parse_pressure(text: &str) -> Result<PressureLimits, String> {
    let mut limits = PressureLimits::default();
    for limit in text.split(',').filter(|limit| !limit.is_empty()) {
        let (resource, percent) = limit.split_once('=').unwrap_or((limit, ""));
        let place = match resource {
            "cpu" => &mut limits.cpu,
            "memory" => &mut limits.memory,
            "io" => &mut limits.io,
            _ => return Err(format!("`{resource}` is none of cpu, memory and io")),
        };
        *place = match percent.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Some((percent * 100.0).round() as u32),
            _ => return Err(format!("`{limit}` is not {resource}=PERCENT, with 0 to 100 %")),
        };
    }
    Ok(limits)
}

/// Takes a token, or the file that holds it.
fn read_token(text: &str) -> Result<EnrolmentToken, Failure> {
    if let Ok(token) = text.trim().parse() {
        return Ok(token);
    }
    if text.starts_with("hauberk1-") {
        return Err(Failure::configuration(anyhow!("{TokenError}")));
    }
    let read = || -> anyhow::Result<EnrolmentToken> {
        let mut contents = Zeroizing::new(String::new());
        File::open(text)
            .and_then(|file| file.take(LONGEST_TOKEN).read_to_string(&mut contents))
            .with_context(|| format!("`{text}` is neither a token nor a file that can be read"))?;
        contents.trim().parse().with_context(|| format!("{text} does not hold a token"))
    };
    read().map_err(Failure::configuration)
}

/// Gives the store whose daemon is here: that of Guix only where there is none of Nix.
fn store_of_this_machine() -> StoreDirectory {
    let is_here = |store: &StoreDirectory| Path::new(usual_daemon(store)).exists();
    let (nix, guix) = (StoreDirectory::nix(), StoreDirectory::guix());
    if is_here(&guix) && !is_here(&nix) { guix } else { nix }
}

impl Options {
    /// Tells whether the file of a token is gone from a machine that does not need it any more.
    fn may_lack(&self, token: &str) -> Result<bool, Failure> {
        let gone = !token.trim().starts_with("hauberk1-") && !Path::new(token).exists();
        Ok(gone && Keyring::of(&self.spool).enrolled()?.is_some())
    }

    /// Makes keys, and presents the token unless that was done before. False when a signal came first.
    async fn join_farm(&mut self, token: &EnrolmentToken, stop: &CancellationToken) -> Result<bool, Failure> {
        let keyring = Keyring::of(&self.spool);
        if keyring.enrolled()?.is_some_and(|enrolled| enrolled.is_by(token)) {
            return Ok(true);
        }
        let wanted = self.name.clone().unwrap_or_else(host_name);
        let store = self.store.clone().unwrap_or_else(store_of_this_machine);
        keyring.make_keys(&store, &wanted)?;
        let signing_key = read_signing_key(self.signing_key.as_deref().unwrap_or(&keyring.signing()))?;
        // The service manager need not wait for an operator who has mistyped a token.
        lifetime::ready();
        let application = Application {
            token: token.clone(),
            keys: CurveKeyPair::read(&keyring.curve())?,
            name: wanted,
            machine: host_name(),
            signing_key: signing_key.public_key().to_string(),
            server: self.location(),
        };
        let Some(name) = hauberk_worker::enrol(application, stop).await? else { return Ok(false) };
        keyring.remember(&name, token)?;
        // Whatever it had liked.
        self.name = Some(name);
        Ok(true)
    }

    fn location(&self) -> ServerLocation {
        match &self.server[..] {
            [] => ServerLocation::Discover(self.discover.clone()),
            addresses => ServerLocation::Addresses(addresses.to_vec()),
        }
    }

    /// Finds the keys, given or kept, and the name that goes with them.
    fn identity(&self) -> Result<(Security, SecretKey, String), Failure> {
        let keyring = Keyring::of(&self.spool);
        let kept = keyring.curve().exists();
        let security = match (&self.curve_key, &self.server_key) {
            _ if self.insecure => Security::Insecure,
            (None, _) if !kept => {
                return Err(Failure::configuration(anyhow!(
                    "this machine has no keys in {}: give --enrol and a token of `hauberk worker token`, or --curve-key, \
                     --server-key and --signing-key",
                    self.spool.display()
                )));
            }
            (keys, server) => {
                let keys = keys.clone().unwrap_or_else(|| keyring.curve());
                let server = match server {
                    Some(server) => curve_public_key(server)?,
                    None => keyring.server_key()?,
                };
                Security::Curve { keys: CurveKeyPair::read(&keys)?, server }
            }
        };
        let signing_key = read_signing_key(self.signing_key.as_deref().unwrap_or(&keyring.signing()))?;
        let name = match (&self.name, &self.curve_key) {
            (Some(name), _) => name.clone(),
            // The enrolment goes with the key that is kept.
            (None, None) if !self.insecure => {
                keyring.enrolled()?.map_or_else(host_name, |enrolled| enrolled.name)
            }
            (None, _) => host_name(),
        };
        Ok((security, signing_key, name))
    }

    fn check(self) -> Result<Config, Failure> {
        let (security, signing_key, name) = self.identity()?;
        let server = self.location();
        let store_directory = self.store.unwrap_or_else(|| signing_key.usual_store());
        let daemon = self.daemon.unwrap_or_else(|| usual_daemon(&store_directory).to_owned());
        let systems = if self.systems.is_empty() { vec![native_system()] } else { self.systems };
        // As in Nix's list of machines, what is mandatory is offered as well.
        let mut features = self.features;
        features.extend(self.mandatory_features.iter().cloned());
        features.sort_unstable();
        features.dedup();
        Ok(Config {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name,
            slots: self.workers,
            systems,
            features,
            mandatory_features: self.mandatory_features,
            store_directory,
            signing_key,
            security,
            server,
            publish_listen: self.publish_listen,
            publish_port: self.publish_port,
            publish_compression: match self.publish_compression {
                Packing::Zstd => Compression::Zstd,
                Packing::None => Compression::None,
            },
            publish_threads: self.publish_threads,
            publish_url: self.publish_url,
            upload: self.upload,
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
            reserve: Reserve {
                disk_bytes: self.minimum_disk_space,
                memory_bytes: self.minimum_memory,
                pressure: self.maximum_pressure,
            },
            collect_bytes: self.collect_garbage.filter(|bytes| *bytes > 0),
            cores: self.cores,
        })
    }
}
