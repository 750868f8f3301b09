//! A store of its own with the real build daemon of Nix.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hauberk_store::StorePath;

/// A daemon that does not listen by then will not.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often its socket is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// A store below a directory, and `nix-daemon` for it. The daemon ends when dropped, and also when this process is killed.
#[derive(Debug)]
pub(crate) struct RealStore {
    daemon: Child,
    root: PathBuf,
}

impl RealStore {
    /// Starts a daemon on an empty store below `root`, which exists.
    pub(crate) fn start(root: &Path) -> Result<Self> {
        let socket = socket_below(root);
        if let Some(directory) = socket.parent() {
            fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        }
        let log = fs::File::create(root.join("daemon.log")).context("making the daemon's log")?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nix-daemon"]);
        command.env("NIX_REMOTE", format!("local?root={}", root.display()));
        command.env("NIX_DAEMON_SOCKET_PATH", &socket);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let daemon = command.spawn().context("starting nix-daemon through setpriv")?;
        let mut store = Self { daemon, root: root.to_owned() };
        // The directory of the store appears with the first command.
        store.command("--init").output().context("running nix-store")?;
        let deadline = Instant::now() + PATIENCE;
        while !socket.exists() {
            let ended = store.daemon.try_wait().context("looking after nix-daemon")?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(root.join("daemon.log")).unwrap_or_default();
                bail!(
                    "nix-daemon does not start ({ended:?}); is Debian's package nix-bin installed?\n{}",
                    super::tail(&log)
                );
            }
            std::thread::sleep(LOOK);
        }
        Ok(store)
    }

    /// Gives the socket of its daemon.
    pub(crate) fn socket(&self) -> PathBuf {
        socket_below(&self.root)
    }

    /// Adds a copy of a file or directory.
    pub(crate) fn add(&self, path: &Path) -> Result<StorePath> {
        let output = self.command("--add").arg(path).output().context("running nix-store")?;
        if !output.status.success() {
            bail!("nix-store does not take {}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        StorePath::parse(text.trim()).with_context(|| format!("reading what nix-store said: {text}"))
    }

    fn command(&self, operation: &str) -> Command {
        let mut command = Command::new("nix-store");
        command.arg("--store").arg(&self.root).arg(operation);
        command.env_remove("NIX_REMOTE").env("HOME", &self.root);
        command
    }
}

impl Drop for RealStore {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn socket_below(root: &Path) -> PathBuf {
    root.join("nix/var/nix/daemon-socket/socket")
}
