//! A real `hauberk remote-worker` as a process, with a real nix-daemon of its own.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hauberk_database::workers::{self, Enrolment, NewWorker};
use hauberk_protocol::keys::CurveKeyPair;
use hauberk_store::signature::nix::SecretKey;
use tokio::time::{Instant, sleep};

use super::{Lab, Server};

/// Who is not there by then will not come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// The worker's name.
const NAME: &str = "worker-process";

/// A worker's process, and its daemon's. Both are killed when dropped, and also when this process is.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    worker: Child,
    daemon: Child,
    log: PathBuf,
}

impl WorkerProcess {
    /// Enrols it, starts it with `slots`, and waits until it has joined.
    pub(crate) async fn start(lab: &Lab, server: &Server, slots: usize) -> Result<Self> {
        let directory = lab.directory().join(NAME);
        fs::create_dir(&directory).with_context(|| format!("making {}", directory.display()))?;
        let (curve, signing) = (directory.join("curve"), directory.join("signing"));
        let keys = CurveKeyPair::generate();
        keys.write_new(&curve).context("writing the worker's CURVE key")?;
        let key = SecretKey::generate("load-worker-process-1").context("making the worker's signing key")?;
        super::write_secret(&signing, &key.to_secret_string())?;
        let client = lab.database().client().await?;
        let worker = NewWorker {
            name: NAME,
            public_key: &keys.public().to_string(),
            signing_key: &key.public_key().to_string(),
            enrolled_by: "load",
        };
        match workers::add(&client, worker).await? {
            Enrolment::Done(_) => {}
            other => bail!("{NAME} cannot be enrolled: {other:?}"),
        }

        let socket = directory.join("socket");
        let daemon = daemon(&directory, &socket, &lab.signing_key().public_key().to_string())?;
        let log = directory.join("log");
        let output = File::create(&log).context("making the worker's log")?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&lab.program).args(["--log-format", "human"]);
        command.args(["remote-worker", "--name", NAME, "--workers", &slots.to_string()]);
        command.arg("--server").arg(format!("127.0.0.1:{}", server.backend_port()));
        command.arg("--server-key").arg(lab.curve().to_string());
        command.arg("--curve-key").arg(&curve).arg("--signing-key").arg(&signing);
        command.arg("--spool").arg(directory.join("spool")).arg("--daemon").arg(&socket);
        command.args(["--publish-listen", "127.0.0.1", "--publish-port", "0"]);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let worker = command.spawn().context("starting hauberk remote-worker through setpriv")?;
        let mut started = Self { worker, daemon, log };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = workers::by_name(&client, NAME).await?;
            if found.is_some_and(|worker| worker.connected.is_some()) {
                return Ok(started);
            }
            let ended = started.worker.try_wait().context("looking after the worker")?;
            if ended.is_some() || Instant::now() > deadline {
                let tail = super::tail(&fs::read_to_string(&started.log).unwrap_or_default());
                bail!("the worker does not join ({ended:?}); its log ends:\n{tail}");
            }
            sleep(LOOK).await;
        }
    }

    /// Gives its process id.
    pub(crate) fn process(&self) -> u32 {
        self.worker.id()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // All fail when they have ended already.
        for child in [&mut self.worker, &mut self.daemon] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a nix-daemon whose store lies below `directory`, and which trusts `key`.
fn daemon(directory: &Path, socket: &Path, key: &str) -> Result<Child> {
    let log = File::create(directory.join("daemon.log")).context("making the build daemon's log")?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "nix-daemon"]);
    command.env("NIX_REMOTE", format!("local?root={}", directory.join("root").display()));
    command.env("NIX_DAEMON_SOCKET_PATH", socket).env("NIX_CONF_DIR", directory);
    command.env("NIX_CONFIG", format!("build-users-group =\ntrusted-public-keys = {key}"));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut child = command.spawn().context("starting nix-daemon through setpriv")?;
    let deadline = std::time::Instant::now() + PATIENCE;
    while !socket.exists() {
        let ended = child.try_wait().context("looking after the build daemon")?;
        if ended.is_some() || std::time::Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            let tail = super::tail(&fs::read_to_string(directory.join("daemon.log")).unwrap_or_default());
            bail!("nix-daemon does not listen ({ended:?}); is Debian's package nix-bin installed?\n{tail}");
        }
        std::thread::sleep(LOOK);
    }
    Ok(child)
}
