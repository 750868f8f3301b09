//! `hauberk up`: a whole farm on one machine.

mod cluster;
mod layout;
mod supervisor;

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use hauberk_database::workers::{self, Enrolment, NewWorker};
use hauberk_database::{ConnectionString, Database};
use hauberk_protocol::keys::CurveKeyPair;
use hauberk_store::signature::{SecretKey, nix};
use tracing::info;

use self::cluster::Cluster;
use self::layout::Layout;
use self::supervisor::{Program, Supervisor};
use crate::command::print;
use crate::exit::Failure;
use crate::keys::{read_signing_key, write_signing_key};
use crate::lifetime;

/// The name of the one worker.
const WORKER: &str = "local";

/// Run a whole farm on this machine
///
/// Keeps everything under one directory: a private PostgreSQL, which is reached by a socket there and nowhere else, keys, checkouts,
/// results and logs. Runs register, remote-server, web and one remote-worker, starts again what ends by itself, and ends all of it in
/// order on Ctrl-C. Nothing listens beyond this machine.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where everything is kept [default: /var/lib/hauberk/up for root, else ~/.local/state/hauberk]
    #[arg(long, value_name = "DIRECTORY")]
    state_directory: Option<PathBuf>,

    /// The specifications: what to build
    #[arg(short = 'S', long, value_name = "FILE")]
    specifications: PathBuf,

    /// Builds at once [default: half of the processors]
    #[arg(short, long, value_name = "N")]
    workers: Option<NonZeroU32>,

    /// Port of the pages, on 127.0.0.1
    #[arg(short, long, default_value_t = 8080)]
    port: u16,

    /// Port for the worker's messages; logs, substitutes and the worker's results use the three ports after it
    #[arg(long, value_name = "PORT", default_value_t = 5555)]
    first_port: u16,

    /// The repositories are looked at so often, in seconds
    #[arg(short = 'I', long, value_name = "SECONDS", default_value_t = 600)]
    interval: u64,

    /// The socket of the build daemon
    #[arg(long, value_name = "SOCKET", default_value = "/nix/var/nix/daemon-socket/socket")]
    daemon: String,

    /// Substitute servers to ask for what is not to be built here, separated by blanks
    #[arg(long, value_name = "URLS", default_value = "")]
    substitute_urls: String,

    /// Print what each process logs as JSON
    #[arg(long)]
    json_logs: bool,
}

/// Runs the farm until a signal comes.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let stop = lifetime::stop_on_signals()?;
    let specifications = std::fs::canonicalize(&options.specifications)
        .with_context(|| format!("cannot read specifications {}", options.specifications.display()))
        .map_err(Failure::configuration)?;
    let ports = ports(options.first_port)?;
    let layout = Layout::make(options.state_directory.clone()).map_err(Failure::configuration)?;
    let _lock = layout.lock().map_err(Failure::configuration)?;
    let cluster =
        Cluster::start(&layout).await.map_err(|error| Failure::new(crate::exit::Exit::Database, error))?;
    let ended = farm(&options, &layout, &cluster, &specifications, ports, &stop).await;
    cluster.stop().await;
    ended
}

/// Runs all but the database, until `stop` or until something cannot go on.
async fn farm(
    options: &Options,
    layout: &Layout,
    cluster: &Cluster,
    specifications: &std::path::Path,
    [backend_port, log_port, publish_port, worker_port]: [u16; 4],
    stop: &tokio_util::sync::CancellationToken,
) -> Result<(), Failure> {
    let location: ConnectionString = cluster.location().parse().map_err(Failure::configuration)?;
    let database = Database::connect_or_create(&location, 2).await?;
    let keys = Keys::read_or_make(layout).map_err(Failure::configuration)?;
    enrol(&database, &keys).await?;
    drop(database);

    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = options.workers.map_or_else(|| (cpus / 2).max(1).to_string(), |slots| slots.to_string());
    let port = |port: u16| port.to_string();
    let local = Ipv4Addr::LOCALHOST.to_string();
    let text = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();

    let mut server = text(&["--listen", &local, "--name", "up", "--farm", "up", "--announce", "loopback"]);
    server.extend(text(&["--backend-port", &port(backend_port), "--log-port", &port(log_port)]));
    server.extend(text(&["--publish-port", &port(publish_port), "--daemon", &options.daemon]));
    server.extend([
        "--cache".into(),
        layout.cache().into(),
        "--curve-key".into(),
        layout.server_curve().into(),
    ]);
    server.extend(["--signing-key".into(), layout.server_signing().into()]);

    let mut worker =
        text(&["--name", WORKER, "--workers", &slots, "--server", &format!("{local}:{backend_port}")]);
    worker.extend(text(&[
        "--publish-port",
        &port(worker_port),
        "--publish-listen",
        &local,
        "--daemon",
        &options.daemon,
    ]));
    worker.extend(text(&["--trust-check", "warn", "--substitute-urls", &options.substitute_urls]));
    worker.extend(text(&["--server-key", &keys.server.public().to_string()]));
    worker.extend([
        "--spool".into(),
        layout.spool().into(),
        "--curve-key".into(),
        layout.worker_curve().into(),
    ]);
    worker.extend(["--signing-key".into(), layout.worker_signing().into()]);

    let mut register = text(&["--build-remote", "--interval", &options.interval.to_string()]);
    register.extend(text(&["--daemon", &options.daemon, "--substitute-urls", &options.substitute_urls]));
    register.extend(["--specifications".into(), specifications.into()]);
    register.extend(["--state-directory".into(), layout.register().into()]);

    let mut web = text(&["--listen", &local, "--port", &port(options.port), "--operators", "loopback"]);
    web.extend(["--cache".into(), layout.cache().into()]);

    // Started in this order, ended in the opposite one.
    let programs = vec![
        Program::new("remote-server", server),
        Program::new("register", register),
        Program::new("remote-worker", worker),
        Program::new("web", web),
    ];
    let mut supervisor = Supervisor::new(layout, cluster.location(), options.json_logs)?;
    let started = supervisor.start(programs, stop).await;
    let ended = match started {
        Ok(true) => {
            info!(
                "the farm is up: pages on http://{local}:{}/, substitutes on http://{local}:{publish_port}/",
                options.port
            );
            info!("to operate it by the command line: export HAUBERK_DATABASE=\"{}\"", cluster.location());
            print(format_args!("http://{local}:{}/", options.port))?;
            lifetime::ready();
            supervisor.supervise(stop).await
        }
        Ok(false) => Ok(()),
        Err(failure) => Err(failure),
    };
    supervisor.stop(Duration::from_secs(20)).await;
    ended
}

fn ports(first: u16) -> Result<[u16; 4], Failure> {
    let nth = |n| {
        first.checked_add(n).filter(|_| first > 0).ok_or_else(|| {
            Failure::configuration(anyhow!("--first-port {first}: four ports are needed from there on"))
        })
    };
    Ok([nth(0)?, nth(1)?, nth(2)?, nth(3)?])
}

struct Keys {
    server: CurveKeyPair,
    worker: CurveKeyPair,
    worker_signing: SecretKey,
}

impl Keys {
    fn read_or_make(layout: &Layout) -> anyhow::Result<Self> {
        let curve = |path: PathBuf| -> anyhow::Result<CurveKeyPair> {
            if !path.exists() {
                CurveKeyPair::generate().write_new(&path)?;
            }
            Ok(CurveKeyPair::read(&path)?)
        };
        let signing = |path: PathBuf, name: &str| -> anyhow::Result<()> {
            if !path.exists() {
                write_signing_key(&path, &SecretKey::Nix(nix::SecretKey::generate(name)?))?;
            }
            Ok(())
        };
        signing(layout.server_signing(), "hauberk-up-1")?;
        signing(layout.worker_signing(), "hauberk-up-worker-1")?;
        let worker_signing =
            read_signing_key(&layout.worker_signing()).map_err(|failure| anyhow!("{}", failure.text()))?;
        Ok(Self {
            server: curve(layout.server_curve())?,
            worker: curve(layout.worker_curve())?,
            worker_signing,
        })
    }
}

async fn enrol(database: &Database, keys: &Keys) -> Result<(), Failure> {
    let client = database.client().await?;
    let public_key = keys.worker.public().to_string();
    let signing_key = keys.worker_signing.public_key().to_string();
    let known = workers::by_name(&client, WORKER).await?;
    if known.is_some_and(|known| {
        known.revoked_at.is_none()
            && known.public_key.as_ref() == Some(&public_key)
            && known.signing_key.as_ref() == Some(&signing_key)
    }) {
        return Ok(());
    }
    workers::remove(&client, WORKER).await?;
    let new =
        NewWorker { name: WORKER, public_key: &public_key, signing_key: &signing_key, enrolled_by: "up" };
    match workers::add(&client, new).await? {
        Enrolment::Done(_) => Ok(()),
        Enrolment::NameTaken | Enrolment::KeyTaken => Err(Failure::configuration(anyhow!(
            "the worker's keys in the state directory belong to another worker"
        ))),
    }
}
