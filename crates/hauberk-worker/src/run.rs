//! A remote-worker with the build daemon of its machine.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hauberk_daemon::{ClientOptions, ConnectOptions, DaemonAddress, DaemonInfo, Pool};
use hauberk_publish::client::{BaseUrl, ClientConfig, SubstituteClient, Uploader};
use hauberk_publish::{PublishConfig, PublishServer, Signer, StoreSource};
use hauberk_store::StoreDirectory;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::builder::Builder;
use crate::config::{Config, PublishAddress, SessionConfig, SharedContext, SpoolPlace};
use crate::error::WorkerError;
use crate::machine::{Machine, MachineParts, memory_bytes};
use crate::metrics::{WorkerExporter, WorkerMetrics};
use crate::worker::run_counted;

/// The longest name of a worker, in characters.
const LONGEST_NAME: usize = 64;

/// Connections by which the publish server asks the daemon about paths.
const ASKERS: usize = 4;

/// How long the last messages may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Time in which another worker must answer.
const NEIGHBOUR: Duration = Duration::from_secs(3);

/// Threads of the publish server.
const PUBLISH_THREADS: usize = 1;

/// Runs a remote-worker until `stop` or a reason to end.
///
/// `ready` is called when the publish server listens, the daemon has answered and the search for the server begins.
///
/// # Errors
/// [`WorkerError`]; each names the thing and the way out.
pub async fn run(
    config: Config,
    stop: CancellationToken,
    ready: impl FnOnce() + Send,
) -> Result<(), WorkerError> {
    check_name(&config.name)?;
    let substitutes = config
        .substitute_urls
        .iter()
        .map(|url| BaseUrl::parse(url).map_err(|error| WorkerError::Config(error.to_string())))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(url) = &config.publish_url {
        BaseUrl::parse(url).map_err(|error| WorkerError::Config(error.to_string()))?;
    }
    let info = Machine::daemon_info(&config.daemon, &config.store_directory)
        .await
        .map_err(|source| WorkerError::Daemon { address: config.daemon.clone(), source })?;
    let root = config.daemon.store_root(&config.store_directory);
    let cores = std::thread::available_parallelism()
        .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));

    let client = SubstituteClient::new(config.store_directory.clone(), ClientConfig::farm())
        .map_err(|error| WorkerError::Config(error.to_string()))?;
    // Of whoever the server can reach: that need not be so here, and the server has everything too.
    let quick =
        ClientConfig { connect_timeout: NEIGHBOUR, narinfo_timeout: NEIGHBOUR, ..ClientConfig::farm() };
    let neighbours = SubstituteClient::new(config.store_directory.clone(), quick)
        .map_err(|error| WorkerError::Config(error.to_string()))?;
    let uploader = Uploader::new(
        config.store_directory.clone(),
        StoreSource::new(pool(&config), &root),
        Signer::of(&host_name(), [config.signing_key.clone()]),
        ClientConfig::farm(),
    )
    .map_err(|error| WorkerError::Config(error.to_string()))?;
    let metrics = WorkerMetrics::default();
    let (machine, lookout) = Machine::new(MachineParts {
        name: config.name.clone(),
        address: config.daemon.clone(),
        store_directory: config.store_directory.clone(),
        slots: config.slots,
        cores,
        cores_per_build: config.cores,
        client,
        neighbours,
        uploader,
        substitutes,
        roots: config.spool.join("roots"),
        store: store_on_disk(&root, &config.store_directory, &config.daemon),
        build_directory: config.build_directory.clone(),
        spool: config.spool.clone(),
        reserve: config.reserve,
        collect_bytes: config.collect_bytes,
        collections: metrics.collections(),
    })?;
    let mut looking = JoinSet::new();
    looking.spawn(lookout.run());

    let machine: Arc<dyn Builder> = Arc::new(machine);
    let exporter = WorkerExporter::new(metrics.clone(), Arc::clone(&machine), &config.name, &config.version);
    let (publish, port) = publish_server(&config, &root, exporter)?;
    let publishing = CancellationToken::new();
    let running = publish
        .spawn_on_own_runtime(PUBLISH_THREADS, publishing.clone())
        .map_err(|error| WorkerError::Listen { message: format!("cannot start its threads: {error}") })?;
    info!(worker.name = %config.name, "worker {} serves its results on port {port}", config.name);

    let session = session_config(&config, &info, port, cores);
    let context = session.context.clone();
    let mut published = std::pin::pin!(running.join());
    let worked = Box::pin(run_counted(session, machine, stop, ready, metrics));
    let result = tokio::select! {
        result = worked => result,
        // A worker that cannot give its results away is of no use.
        ended = published.as_mut() => {
            let message = ended.err().map_or_else(|| "it ended by itself".to_owned(), |error| error.to_string());
            return Err(WorkerError::Listen { message });
        }
    };
    // The last words are still on their way.
    let _ = tokio::time::timeout(LAST_WORDS, context.0.close()).await;
    publishing.cancel();
    if let Err(error) = published.await {
        warn!(error = &error as &dyn std::error::Error, "the publish server did not end in order");
    }
    result
}

fn session_config(config: &Config, info: &DaemonInfo, port: u16, cores: u32) -> SessionConfig {
    let program = info.program_version.as_deref().map_or_else(String::new, |version| format!(" {version}"));
    SessionConfig {
        name: config.name.clone(),
        machine: host_name(),
        version: config.version.clone(),
        store_directory: config.store_directory.clone(),
        systems: config.systems.clone(),
        features: config.features.clone(),
        mandatory_features: config.mandatory_features.clone(),
        slots: config.slots,
        ahead: 0,
        publish: match &config.publish_url {
            _ if config.upload => PublishAddress::Nowhere,
            Some(url) => PublishAddress::Url(url.clone()),
            None => PublishAddress::Port(port),
        },
        signing_key: config.signing_key.public_key().to_string(),
        cores,
        memory_bytes: memory_bytes(),
        daemon: format!("{}{program} (protocol {})", info.dialect, info.version),
        security: config.security.clone(),
        server: config.server.clone(),
        spool: SpoolPlace::Directory(config.spool.clone()),
        log_limits: config.log_limits,
        trust_check: config.trust_check,
        grace: config.grace,
        context: SharedContext::default(),
    }
}

/// Connections by which the daemon is asked about paths.
fn pool(config: &Config) -> Pool {
    let connect =
        ConnectOptions { store_directory: Some(config.store_directory.clone()), ..ConnectOptions::default() };
    Pool::to_socket(config.daemon.clone(), connect, ClientOptions::default(), ASKERS)
}

fn publish_server(
    config: &Config,
    root: &Path,
    exporter: WorkerExporter,
) -> Result<(PublishServer, u16), WorkerError> {
    let address = SocketAddr::new(config.publish_listen, config.publish_port);
    let refused = |error: std::io::Error| {
        let way_out = match error.kind() {
            std::io::ErrorKind::AddrInUse => ": the port is in use, choose another with --publish-port",
            std::io::ErrorKind::PermissionDenied => {
                ": ports below 1024 are for root, choose another with --publish-port"
            }
            _ => "",
        };
        WorkerError::Listen { message: format!("cannot listen on {address}{way_out} ({error})") }
    };
    let listener = TcpListener::bind(address).map_err(refused)?;
    let port = listener.local_addr().map_err(refused)?.port();
    let publish = PublishConfig {
        signer: Signer::of(&host_name(), [config.signing_key.clone()]),
        store: Some(StoreSource::new(pool(config), root)),
        compression: config.publish_compression.clone(),
        packing_threads: config.publish_threads,
        metrics: Some(Arc::new(exporter)),
        ..PublishConfig::new(config.store_directory.clone())
    };
    Ok((PublishServer::new(listener, publish), port))
}

fn store_on_disk(root: &Path, directory: &StoreDirectory, daemon: &DaemonAddress) -> PathBuf {
    let store = root.join(directory.as_str().trim_start_matches('/'));
    match store.is_dir() {
        true => store,
        // A store that was never used has no directory yet; the socket is usually on the same disk.
        false => daemon.path().parent().map_or_else(|| PathBuf::from("/"), Path::to_owned),
    }
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "unknown".to_owned())
}

fn check_name(name: &str) -> Result<(), WorkerError> {
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(sound) {
        return Err(WorkerError::Config(format!(
            "{name:?} cannot be a worker's name: 1 to {LONGEST_NAME} letters, digits and -_.@ are allowed, choose one with --name"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let long = "a".repeat(65);
        for bad in ["", "a b", "a/b", "é", &long] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["w1", "north-2.example", "a_b@c"] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
    }
}
