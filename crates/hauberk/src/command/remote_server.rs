//! `hauberk remote-server`: hands builds to workers and publishes their results.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use hauberk_daemon::DaemonAddress;
use hauberk_discovery::Interfaces;
use hauberk_protocol::keys::CurveKeyPair;
use hauberk_protocol::socket::ServerAddress;
use hauberk_publish::push::PushLimits;
use hauberk_publish::{BaseUrl, Signer};
use hauberk_server::{Config, HealthPolicy, Limits, RetryPolicy, StoreConfig};
use hauberk_store::StoreDirectory;
use hauberk_store::signature::SecretKey;

use crate::command::DatabaseLocation;
use crate::command::expiry::{Expiry, parse_expiry};
use crate::command::publish_options::Publish;
use crate::command::store::{parse_store, usual_daemon};
use crate::exit::Failure;
use crate::keys::read_signing_key;
use crate::lifetime;

/// Hand builds to workers, and publish their results
///
/// Takes ready builds from the database, most urgent first, and pushes them to remote-workers with free slots; receives their logs;
/// fetches their outputs, verifies them, and serves them to everybody with its own signature.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    location: DatabaseLocation,

    /// Where nars, narinfos and build logs are kept
    #[arg(short, long, value_name = "DIRECTORY", default_value = "/var/cache/hauberk")]
    cache: PathBuf,

    /// The secret key that published results are signed with (`hauberk key signing`); may be given several times. Keys of Nix sign
    /// what is in Nix's stores, one of Guix what is in Guix's
    #[arg(long, value_name = "FILE", required = true)]
    signing_key: Vec<PathBuf>,

    /// The secret key by which workers know this server (`hauberk key curve`)
    #[arg(long, value_name = "FILE", required_unless_present = "insecure")]
    curve_key: Option<PathBuf>,

    /// Run without encryption: whoever reaches the ports can join as a worker. For a network that is trusted
    #[arg(long, conflicts_with = "curve_key")]
    insecure: bool,

    /// The address to listen at; `::` takes IPv4 as well
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
    listen: IpAddr,

    /// Where workers of the farm's other servers find this one, told to them by those [default: the host of --publish-url, or the
    /// host's name]
    #[arg(long, value_name = "HOST[:PORT]")]
    address: Option<ServerAddress>,

    /// Port for workers' messages
    #[arg(short, long, value_name = "PORT", default_value_t = 5555)]
    backend_port: u16,

    /// Port for workers' build logs
    #[arg(short, long, value_name = "PORT", default_value_t = 5556)]
    log_port: u16,

    /// Port for substitutes; given again, for those of the next store [default: 5557, and 5559 for a second store]
    #[arg(short, long, value_name = "PORT")]
    publish_port: Vec<u16>,

    /// The URL under which workers and users reach the publish port, if not by this host's address; given again, for the next
    /// store
    #[arg(long, value_name = "URL")]
    publish_url: Vec<String>,

    /// The stable name of this server, unique in the farm [default: the host's name]
    #[arg(long, overrides_with = "name")]
    name: Option<String>,

    /// The farm's name, for workers that look for it by mDNS
    #[arg(long, default_value = "hauberk")]
    farm: String,

    /// Where to announce this server by mDNS: `all` interfaces, `loopback`, `off`, or names of interfaces
    #[arg(long, value_name = "WHERE", default_value = "all", value_parser = parse_announce)]
    announce: Announce,

    /// The build daemon of the local store, which is served as well; `none` for a server without a store; given again, for the
    /// next store [default: the usual one of the store]
    #[arg(long, value_name = "SOCKET|none")]
    daemon: Vec<String>,

    /// A store whose builds this server takes: `nix`, `guix`, or a directory; may be given several times [default: the usual
    /// stores of the kinds of keys given, Nix first]
    #[arg(long, value_name = "nix|guix|DIRECTORY", value_parser = parse_store)]
    store: Vec<StoreDirectory>,

    /// Outputs of so many builds are fetched at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    fetches: usize,

    /// Ask this substitute server for each output once it is fetched, so that one that packs what it is asked for (`guix publish --cache`
    /// on the same store) has it when a user comes. What it answers does not matter
    #[arg(short = 'T', long, value_name = "URL")]
    trigger_substitute_url: Option<BaseUrl>,

    /// Substitute servers outside the farm that its users have as well, separated by blanks: what outputs refer to and these have is not fetched from
    /// workers; given again, for the next store
    #[arg(long, value_name = "URLS")]
    substitute_urls: Vec<String>,

    /// Add outputs, once they are fetched, to the stores of this machine as well, whose daemons must trust the signing keys. Nothing keeps them there
    /// from being collected
    #[arg(long)]
    add_to_store: bool,

    /// A worker shows life so often, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    heartbeat: u32,

    /// A worker that was not heard of for so long has lost its builds, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    lease: u32,

    /// A worker that was told to stop a canceled build has so long to do it, in seconds; then the build is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    stop_patience: u32,

    /// The queue is read so often even if nothing wakes the server, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    sweep: u32,

    /// Tries after the first, for builds that failed by the farm's fault
    #[arg(long, value_name = "N", default_value_t = 3)]
    retries: u16,

    /// Pause before the first of these tries, in seconds; each further one is eight times as long
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    retry_delay: f64,

    /// A worker whose daemon, disk or memory failed so many builds in a row, all of which then did otherwise elsewhere, gets no work until a
    /// probe succeeds or an operator resumes it; 0 = never
    #[arg(long, value_name = "N", default_value_t = 3)]
    sick_after: usize,

    /// Pause before such a worker is tried with one build, in seconds; after each that fails it is twice as long
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    probe_pause: u32,

    /// Largest build log, in MiB of text; 0 = no limit
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    log_limit: u64,

    /// Largest output of a build, in MiB of its nar; 0 = no limit
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    output_limit: u64,

    /// Largest build product that is taken out of an output, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 65_536)]
    product_limit: u64,

    /// Build logs are removed so long after the end of their attempts: a number with `h`, `d` (days), `w` or `m` (months of 30
    /// days), or `never`
    #[arg(long, value_name = "DURATION", default_value = "6m", value_parser = parse_expiry)]
    log_expiry: Expiry,

    /// Builds that have been ready for longer go before what is more urgent, emergencies excepted, the oldest first: a number with `s`,
    /// `min`, `h` or `d`, or `never`
    #[arg(long, value_name = "DURATION", default_value = "never", value_parser = parse_ageing)]
    ageing: Ageing,

    /// Take so much of derivations and sources for one evaluation from a register that has a store of its own, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 65_536)]
    push_limit: u64,

    /// Leave paths and shares aside: emergencies, priority and age alone. For measurements of what the rest of the order costs
    #[arg(long, hide = true)]
    priority_and_age_alone: bool,

    #[command(flatten)]
    publish: Publish,
}

/// When age begins to count; `None` is never.
type Ageing = Option<Duration>;

fn parse_ageing(text: &str) -> Result<Ageing, String> {
    if text == "never" {
        return Ok(None);
    }
    let wrong = || "give a number above 0 with `s`, `min`, `h` or `d`, such as `12h`, or `never`".to_owned();
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(at);
    let unit = match unit {
        "s" => 1,
        "min" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number = number.parse::<u32>().ok().filter(|&number| number > 0).ok_or_else(wrong)?;
    Ok(Some(Duration::from_secs(u64::from(number) * unit)))
}

/// Where to announce; `None` is nowhere.
type Announce = Option<Interfaces>;

pub(crate) fn parse_announce(text: &str) -> Result<Announce, String> {
    match text {
        "off" => Ok(None),
        text => parse_interfaces(text).map(Some),
    }
}

/// Reads `all`, `loopback` or names of interfaces.
pub(crate) fn parse_interfaces(text: &str) -> Result<Interfaces, String> {
    match text {
        "all" => Ok(Interfaces::All),
        "loopback" => Ok(Interfaces::Loopback),
        names => {
            let names: Vec<_> = names.split(',').map(str::to_owned).collect();
            if names.iter().any(String::is_empty) {
                return Err("give `all`, `loopback`, or names of interfaces separated by commas".to_owned());
            }
            Ok(Interfaces::Named(names))
        }
    }
}

/// Gives the host's name.
pub(crate) fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Serves until a signal comes.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let config = options.check()?;
    Ok(hauberk_server::run(config, lifetime::stop_on_signals()?, lifetime::ready).await?)
}

impl Options {
    fn check(self) -> Result<Config, Failure> {
        let curve = self.curve_key.as_deref().map(CurveKeyPair::read).transpose()?;
        let name = self.name.clone().unwrap_or_else(host_name);
        let stores = self.stores(&name)?;
        if self.add_to_store && stores.iter().any(|store| store.daemon.is_none()) {
            return Err(Failure::configuration(anyhow!(
                "--add-to-store needs the daemon of each store, and --daemon none says that there is none"
            )));
        }
        Ok(Config {
            database: self.location.parse()?,
            name,
            farm: self.farm,
            listen: self.listen,
            address: self.address,
            backend_port: self.backend_port,
            log_port: self.log_port,
            publish: self.publish.check()?,
            cache: self.cache,
            stores,
            curve,
            announce: self.announce,
            trigger: self.trigger_substitute_url,
            add_to_store: self.add_to_store,
            limits: Limits {
                heartbeat: Duration::from_secs(self.heartbeat.max(1).into()),
                lease: Duration::from_secs(self.lease.max(2).into()),
                stop_patience: Duration::from_secs(self.stop_patience.into()),
                sweep: Duration::from_secs(self.sweep.max(1).into()),
                retry: RetryPolicy {
                    tries: self.retries,
                    first_delay: self.retry_delay.clamp(0.0, 86_400.0),
                    ..RetryPolicy::default()
                },
                health: HealthPolicy {
                    sick_after: self.sick_after,
                    probe_pause: Duration::from_secs(self.probe_pause.max(1).into()),
                },
                log: self.log_limit.saturating_mul(1 << 20),
                log_expiry: self.log_expiry,
                output: self.output_limit.saturating_mul(1 << 20),
                product: self.product_limit.saturating_mul(1 << 20),
                ageing: self.ageing,
                priority_and_age_alone: self.priority_and_age_alone,
                fetches: self.fetches.max(1),
                push: PushLimits { bytes: self.push_limit.saturating_mul(1 << 20), ..PushLimits::default() },
                ..Limits::default()
            },
        })
    }

    /// Puts together what was said of each store.
    fn stores(&self, name: &str) -> Result<Vec<StoreConfig>, Failure> {
        let keys =
            self.signing_key.iter().map(|path| read_signing_key(path)).collect::<Result<Vec<_>, _>>()?;
        let directories = store_directories(&self.store, &keys).map_err(Failure::configuration)?;
        for (what, count) in [
            ("--publish-port", self.publish_port.len()),
            ("--publish-url", self.publish_url.len()),
            ("--daemon", self.daemon.len()),
            ("--substitute-urls", self.substitute_urls.len()),
        ] {
            if count > directories.len() {
                return Err(Failure::configuration(anyhow!(
                    "{what} is given {count} times for {} stores",
                    directories.len()
                )));
            }
        }
        let mut stores = Vec::new();
        for (place, directory) in directories.into_iter().enumerate() {
            let daemon = match self.daemon.get(place).map(String::as_str) {
                Some("none") => None,
                given => Some(given.unwrap_or_else(|| usual_daemon(&directory))),
            };
            let usual_port = DEFAULT_PUBLISH_PORTS.get(place);
            let Some(&publish_port) = self.publish_port.get(place).or(usual_port) else {
                return Err(Failure::configuration(anyhow!("{directory} needs a --publish-port")));
            };
            let urls = self.substitute_urls.get(place).map_or("", String::as_str).split_whitespace();
            let urls = urls.map(|url| BaseUrl::parse(url).map_err(Failure::configuration));
            let own = keys.iter().filter(|key| signs_for(key, &directory)).cloned();
            stores.push(StoreConfig {
                publish_port,
                publish_url: self.publish_url.get(place).cloned(),
                daemon: daemon.map(DaemonAddress::parse).transpose().map_err(Failure::configuration)?,
                signer: Signer::of(name, own),
                substitute_urls: urls.collect::<Result<_, _>>()?,
                directory,
            });
        }
        Ok(stores)
    }
}

/// Ports for the substitutes of the first store and of the second; the port between them is that of workers.
const DEFAULT_PUBLISH_PORTS: [u16; 2] = [5557, 5559];

/// Whether a key signs what is in this store: Guix's what is in Guix's, Nix's what is in any other.
fn signs_for(key: &SecretKey, directory: &StoreDirectory) -> bool {
    (key.usual_store() == StoreDirectory::guix()) == (*directory == StoreDirectory::guix())
}

/// Gives the stores a server takes: those that were named, or the usual ones of its keys.
fn store_directories(named: &[StoreDirectory], keys: &[SecretKey]) -> anyhow::Result<Vec<StoreDirectory>> {
    let mut directories = named.to_vec();
    if directories.is_empty() {
        let usual = [StoreDirectory::nix(), StoreDirectory::guix()];
        directories
            .extend(usual.into_iter().filter(|store| keys.iter().any(|key| key.usual_store() == *store)));
    }
    for (place, directory) in directories.iter().enumerate() {
        if directories[..place].contains(directory) {
            return Err(anyhow!("--store {directory} is given twice"));
        }
        let kind = if *directory == StoreDirectory::guix() { "Guix" } else { "Nix" };
        match keys.iter().filter(|key| signs_for(key, directory)).count() {
            0 => return Err(anyhow!("{directory} needs a --signing-key of {kind} (`hauberk key signing`)")),
            1 => {}
            count if kind == "Guix" => {
                return Err(anyhow!(
                    "{count} keys of Guix are given, and a narinfo of Guix has one signature"
                ));
            }
            _ => {}
        }
    }
    if let Some(key) = keys.iter().find(|key| !directories.iter().any(|directory| signs_for(key, directory)))
    {
        return Err(anyhow!("the key {} signs for none of the stores given", key.public_key().to_line()));
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use hauberk_store::signature::{guix, nix};

    use super::*;

    /// The command line as `hauberk remote-server` reads it.
    #[derive(Debug, clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn limits_are_what_the_options_say() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        let secret = nix::SecretKey::generate("farm-1").unwrap();
        std::fs::write(&key, secret.to_secret_string().as_str()).unwrap();
        let owner = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
        std::fs::set_permissions(&key, owner).unwrap();
        let limits = |options: &[&str]| {
            let key = key.to_str().unwrap();
            let words = [&["remote-server", "--insecure", "--signing-key", key], options].concat();
            let parsed = CommandLine::try_parse_from(words).unwrap();
            parsed.options.check().unwrap().limits
        };
        let standard = limits(&[]);
        assert_eq!(standard.log_expiry, Some(Duration::from_secs(6 * 30 * 24 * 60 * 60)));
        assert_eq!((standard.log, standard.output), (256 << 20, 0));
        let small = limits(&["--log-limit=2", "--output-limit=3", "--log-expiry=never"]);
        assert_eq!((small.log, small.output, small.log_expiry), (2 << 20, 3 << 20, None));
    }

    #[test]
    fn stores_follow_from_keys_unless_they_are_named() {
        let nix = || SecretKey::Nix(nix::SecretKey::generate("farm-1").unwrap());
        let guix = || SecretKey::Guix(guix::SecretKey::generate().unwrap());
        let stores = |named: &[StoreDirectory], keys: &[SecretKey]| store_directories(named, keys);
        let (n, g) = (StoreDirectory::nix(), StoreDirectory::guix());
        let both = [n.clone(), g.clone()];
        assert_eq!(stores(&[], &[nix()]).unwrap(), both[..1]);
        assert_eq!(stores(&[], &[guix(), nix(), nix()]).unwrap(), both);
        let turned = [g, n];
        assert_eq!(stores(&turned, &[guix(), nix()]).unwrap(), turned);
        assert!(stores(&[both[0].clone(), both[0].clone()], &[nix()]).is_err());
        assert!(stores(&both, &[nix()]).is_err());
        assert!(stores(&turned[..1], &[nix(), guix()]).is_err());
        assert!(stores(&[], &[guix(), guix()]).is_err());
    }
}
