//! Many workers in one process: real sessions, spools and publish servers, and builders that only simulate.
//!
//! What each builder does follows from its build's name, see [`Conduct`]; what it writes into its log from its attempt's number,
//! see [`LogText`].

mod builder;
mod gates;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use hauberk_loadgen::simulated::{OutputStore, Publication};
use hauberk_protocol::keys::{CurveKeyPair, CurvePublicKey};
use hauberk_protocol::socket::ServerAddress;
use hauberk_store::{StoreDirectory, signature::nix::SecretKey};
use hauberk_worker::{
    LogLimits, PublishAddress, Security, ServerLocation, SessionConfig, SharedContext, SpoolPlace,
    TrustCheck, WorkerError, native_system, run_with_builder,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use builder::Simulated;
use gates::OpenGates;

/// Sessions that share a ZeroMQ context: while they all connect anew, each needs several sockets, of which a context has 1,023.
const SESSIONS_PER_CONTEXT: usize = 50;

/// Run many workers whose builders are simulated
#[derive(Debug, Parser)]
struct Options {
    /// The server's address and port; several of the same farm may be given
    #[arg(long)]
    server: Vec<ServerAddress>,

    /// The server's public CURVE key
    #[arg(long, allow_hyphen_values = true)]
    server_key: CurvePublicKey,

    /// The workers' names; the CURVE key of each is the file of that name in the directory of keys
    #[arg(long, required = true, value_delimiter = ',')]
    names: Vec<String>,

    /// Directory of keys
    #[arg(long)]
    keys: PathBuf,

    /// The key that all of them sign with
    #[arg(long)]
    signing_key: PathBuf,

    /// Builds at once on each
    #[arg(long)]
    slots: NonZeroU32,

    /// Attempts that may wait on each
    #[arg(long, default_value_t = 0)]
    ahead: u32,

    /// Directory that holds a spool for each worker
    #[arg(long)]
    spools: PathBuf,

    /// Directory that holds their outputs
    #[arg(long)]
    store: PathBuf,

    /// The address their publish server listens at
    #[arg(long)]
    listen: IpAddr,

    /// Directory whose files `NAME.open` are open gates
    #[arg(long)]
    gates: PathBuf,

    /// How long running builds may take to end after SIGTERM, in milliseconds
    #[arg(long, default_value_t = 100)]
    grace_ms: u64,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("HAUBERK_LOG").unwrap_or_else(|_| "warn".into()),
        )
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    match start(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn start(options: &Options) -> Result<()> {
    let signing_key = SecretKey::parse(std::fs::read_to_string(&options.signing_key)?.trim())
        .context("reading the signing key")?;
    let store = OutputStore::open(options.store.clone())?;
    let publication = Publication::start(options.listen, Arc::clone(&store), &signing_key)?;
    let gates = OpenGates::watch(options.gates.clone());
    let uploader = store.uploader(&signing_key)?;
    let builder = Arc::new(Simulated { store, gates, uploader });
    let stop = CancellationToken::new();
    let mut sessions: JoinSet<Result<(), WorkerError>> = JoinSet::new();
    let mut context = SharedContext::default();
    for (index, name) in options.names.iter().enumerate() {
        if index % SESSIONS_PER_CONTEXT == 0 && index > 0 {
            context = SharedContext::default();
        }
        let keys = CurveKeyPair::read(&options.keys.join(name)).context("reading a worker's CURVE key")?;
        let config = SessionConfig {
            name: name.clone(),
            machine: "simulated".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store_directory: StoreDirectory::nix(),
            systems: vec![native_system()],
            features: Vec::new(),
            mandatory_features: Vec::new(),
            slots: options.slots,
            ahead: options.ahead,
            publish: PublishAddress::Port(publication.port()),
            signing_key: signing_key.public_key().to_string(),
            cores: 1,
            memory_bytes: 1 << 30,
            daemon: "simulated".to_owned(),
            security: Security::Curve { keys, server: options.server_key },
            server: ServerLocation::Addresses(options.server.clone()),
            spool: SpoolPlace::Directory(options.spools.join(name)),
            log_limits: LogLimits::default(),
            trust_check: TrustCheck::Require,
            grace: Duration::from_millis(options.grace_ms),
            context: context.clone(),
        };
        sessions.spawn(run_with_builder(config, Arc::clone(&builder) as _, stop.clone(), || ()));
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => stop.cancel(),
        Some(ended) = sessions.join_next() => {
            ended.context("a worker broke")?.context("a worker ended")?;
            anyhow::bail!("a worker ended by itself");
        }
    }
    while let Some(ended) = sessions.join_next().await {
        ended.context("a worker broke")?.context("a worker ended badly")?;
    }
    publication.stop().await
}
