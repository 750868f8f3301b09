//! The real `hauberk remote-server` as a process.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hauberk_database::{ConnectionString, Database};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixDatagram;
use tokio::time::{Instant, sleep, timeout};

/// A server that is not ready by then will not be.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often an ended process is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// What a server is started with.
#[derive(Clone, Debug)]
pub(crate) struct ServerSetup {
    /// The `hauberk` program.
    pub(crate) program: PathBuf,
    /// The farm's database.
    pub(crate) database: ConnectionString,
    /// Its cache directory.
    pub(crate) cache: PathBuf,
    /// Its signing key's file.
    pub(crate) signing_key: PathBuf,
    /// Its CURVE key's file.
    pub(crate) curve_key: PathBuf,
    /// What it logs, as `--log` takes it.
    pub(crate) log: String,
    /// The socket of its build daemon, if it has one.
    pub(crate) daemon: Option<PathBuf>,
    /// More arguments.
    pub(crate) arguments: Vec<String>,
    /// Where its log and socket of notices go.
    pub(crate) directory: PathBuf,
}

/// A server that runs. It is killed when dropped, and also when this process is.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    setup: ServerSetup,
    ports: Ports,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    backend: u16,
    logs: u16,
    publish: u16,
}

impl Server {
    /// Starts it on free ports and waits until it serves.
    pub(crate) async fn start(setup: ServerSetup, database: &Database) -> Result<Self> {
        let ports = Ports { backend: 0, logs: 0, publish: 0 };
        let child = launch(&setup, ports).await?;
        let mut server = Self { child, setup, ports };
        let row = database
            .client()
            .await?
            .query_one("select backend_port, log_port, publish_url from servers", &[])
            .await
            .context("asking where the server listens")?;
        let port = |column| u16::try_from(row.get::<_, i32>(column)).context("reading the server's port");
        let url: String = row.get(2);
        let publish = url.rsplit(':').next().and_then(|port| port.parse().ok());
        let publish = publish.with_context(|| format!("reading the port of {url}"))?;
        server.ports = Ports { backend: port(0)?, logs: port(1)?, publish };
        Ok(server)
    }

    /// Starts it again on the same ports after [`Self::kill`], and waits until it serves.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.child = launch(&self.setup, self.ports).await?;
        Ok(())
    }

    /// Gives its port for workers.
    pub(crate) fn backend_port(&self) -> u16 {
        self.ports.backend
    }

    /// Gives its port for substitutes.
    pub(crate) fn publish_port(&self) -> u16 {
        self.ports.publish
    }

    /// Gives its process id.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing the server")?;
        self.child.wait().context("waiting for the killed server")?;
        Ok(())
    }

    /// Checks that it still runs.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait().context("looking after the server")? {
            None => Ok(()),
            Some(status) => bail!("the server ended by itself, {status}; its log ends:\n{}", self.log_tail()),
        }
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.check()?;
        kill(pid(&self.child)?, Signal::SIGTERM).context("asking the server to end")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().context("waiting for the server")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    bail!("the server ended with {status}; its log ends:\n{}", self.log_tail());
                }
                None if Instant::now() > deadline => {
                    bail!("the server does not end; its log ends:\n{}", self.log_tail());
                }
                None => sleep(LOOK).await,
            }
        }
    }

    fn log_tail(&self) -> String {
        super::tail(&fs::read_to_string(log_path(&self.setup.directory)).unwrap_or_default())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid(child: &Child) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id()).context("reading a process id")?))
}

fn log_path(directory: &Path) -> PathBuf {
    directory.join("server.log")
}

async fn launch(setup: &ServerSetup, ports: Ports) -> Result<Child> {
    let notices_path = setup.directory.join("notices");
    let _ = fs::remove_file(&notices_path);
    let notices = UnixDatagram::bind(&notices_path).context("making a socket for the server's notices")?;
    let log = File::options().create(true).append(true).open(log_path(&setup.directory));
    let log = log.context("opening the server's log")?;
    // The kernel ends the server when the thread that started it ends: this process's first, which waits for the scenario.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(&setup.program);
    command.args(["--log-format", "human", "--log", &setup.log, "remote-server"]);
    command.arg("--database").arg(setup.database.reveal());
    command.arg("--cache").arg(&setup.cache);
    command.arg("--signing-key").arg(&setup.signing_key);
    command.arg("--curve-key").arg(&setup.curve_key);
    command.args(["--listen", "127.0.0.1", "--name", "load", "--farm", "load", "--announce", "off"]);
    command.arg("--publish-port").arg(ports.publish.to_string());
    command.arg("--backend-port").arg(ports.backend.to_string());
    command.arg("--log-port").arg(ports.logs.to_string());
    command.arg("--daemon").arg(setup.daemon.as_deref().unwrap_or(Path::new("none")));
    command.args(&setup.arguments);
    command.env("NOTIFY_SOCKET", &notices_path);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut child =
        command.spawn().with_context(|| format!("starting {} through setpriv", setup.program.display()))?;

    let deadline = Instant::now() + PATIENCE;
    let mut notice = [0; 4096];
    loop {
        if let Ok(received) = timeout(LOOK, notices.recv(&mut notice)).await {
            let length = received.context("receiving the server's notices")?;
            if String::from_utf8_lossy(&notice[..length]).lines().any(|line| line == "READY=1") {
                return Ok(child);
            }
        }
        let ended = child.try_wait().context("looking after the server")?;
        if ended.is_some() || Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            let tail = super::tail(&fs::read_to_string(log_path(&setup.directory)).unwrap_or_default());
            bail!("the server does not start ({ended:?}); its log ends:\n{tail}");
        }
    }
}
