//! Where `hauberk up` keeps what.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

/// The state directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the directories that are not there. The default is below /var/lib for root, and the user's own state directory for others.
    pub(super) fn make(directory: Option<PathBuf>) -> anyhow::Result<Self> {
        let root = match directory {
            Some(directory) => std::path::absolute(directory).context("cannot find the working directory")?,
            None => default_directory()?,
        };
        let layout = Self { root };
        let make = |path: &Path, mode: u32| {
            DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(path)
                .with_context(|| format!("cannot make the state directory {}", path.display()))
        };
        // PostgreSQL's files belong to another user when root runs the farm: it must be able to pass.
        make(&layout.root, if nix::unistd::geteuid().is_root() { 0o755 } else { 0o700 })?;
        make(&layout.keys(), 0o700)?;
        make(&layout.cache(), 0o755)?;
        make(&layout.register(), 0o700)?;
        make(&layout.spool(), 0o700)?;
        make(&layout.run(), 0o700)?;
        Ok(layout)
    }

    /// Makes sure that no other farm uses the directory, as long as the file is held.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        let path = self.root.join("lock");
        let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(anyhow!(
                "another `hauberk up` uses {}; end it, or choose another --state-directory",
                self.root.display()
            )),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The PostgreSQL cluster.
    pub(super) fn cluster(&self) -> PathBuf {
        self.root.join("postgresql")
    }

    fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    pub(super) fn server_curve(&self) -> PathBuf {
        self.keys().join("server.curve")
    }

    pub(super) fn server_signing(&self) -> PathBuf {
        self.keys().join("server.signing")
    }

    pub(super) fn worker_curve(&self) -> PathBuf {
        self.keys().join("worker.curve")
    }

    pub(super) fn worker_signing(&self) -> PathBuf {
        self.keys().join("worker.signing")
    }

    /// The server's cache directory.
    pub(super) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// The register's checkouts.
    pub(super) fn register(&self) -> PathBuf {
        self.root.join("register")
    }

    /// The worker's spool.
    pub(super) fn spool(&self) -> PathBuf {
        self.root.join("worker")
    }

    /// Sockets by which the processes tell that they are ready.
    pub(super) fn run(&self) -> PathBuf {
        self.root.join("run")
    }
}

fn default_directory() -> anyhow::Result<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Ok("/var/lib/hauberk/up".into());
    }
    if let Some(state) = std::env::var_os("XDG_STATE_HOME").filter(|state| !state.is_empty()) {
        return Ok(PathBuf::from(state).join("hauberk"));
    }
    match std::env::home_dir() {
        Some(home) => Ok(home.join(".local/state/hauberk")),
        None => bail!("there is no home directory; name a --state-directory"),
    }
}
