//! A real nix-daemon with a store of its own, in mount and process namespaces of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hauberk_daemon::{BuildDaemon as _, ConnectOptions, Connection, DaemonAddress};
use hauberk_store::{DrvPath, StorePath};
use tempfile::TempDir;

/// What lays the machine's directory (`$1`) over the computer's, or over the tree of another system (`$2`), and becomes the daemon.
const INIT: &str = r#"
set -e
if [ -z "$2" ]; then
    mount --bind "$1/nix" /nix
    mount --bind "$1/etc-nix" /etc/nix
    exec nix-daemon
fi
parent=${1%/*}
mount --bind "$2" "$2"
mkdir -p "$2/nix" "$2/etc/nix" "$2/proc" "$2/dev" "$2$parent" "$2/.outside"
mount --bind "$1/nix" "$2/nix"
mount --bind "$1/etc-nix" "$2/etc/nix"
mount --bind "$parent" "$2$parent"
mount --rbind /dev "$2/dev"
mount -t proc proc "$2/proc"
cd "$2"
pivot_root . .outside
umount -l .outside
exec nix-daemon
"#;

/// Names the variable that gives the root of a tree whose Nix is to be tested in place of the computer's, as `tests/trees` makes it.
const TREE: &str = "HAUBERK_NIX_TREE";

/// A nix-daemon that ends with its value.
pub(crate) struct Machine {
    directory: TempDir,
    outer: Child,
    _small: Vec<SmallDisk>,
}

/// Sizes of the file systems of a machine that are its own, as `64m`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Disks<'a> {
    /// Of the store.
    pub(crate) store: Option<&'a str>,
    /// Of the directory that builders run in.
    pub(crate) build: Option<&'a str>,
}

/// A small file system, gone with its value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, size: &str) -> Self {
        let options = format!("size={size},mode=1777");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).status();
        assert!(mount.unwrap().success(), "this test needs root");
        Self(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Machine {
    /// Starts a daemon with these lines in its nix.conf.
    ///
    /// # Panics
    /// Without root, nix-daemon or unshare.
    pub(crate) async fn start(settings: &str) -> Self {
        Self::start_with(settings, Disks::default()).await
    }

    /// Starts a daemon on a machine with such disks.
    pub(crate) async fn start_with(settings: &str, disks: Disks<'_>) -> Self {
        for mount_point in ["/nix", "/etc/nix"] {
            fs::create_dir_all(mount_point).expect("this test needs root");
        }
        let directory = tempfile::Builder::new().prefix("hauberk-worker-").tempdir().unwrap();
        for name in ["nix", "etc-nix", "home", "tmp"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let sizes = [("nix", disks.store), ("tmp", disks.build)];
        let mount = |(name, size): (&str, Option<&str>)| {
            size.map(|size| SmallDisk::mount(&directory.path().join(name), size))
        };
        let small = sizes.into_iter().filter_map(mount).collect();
        let settings =
            format!("build-users-group =\nsandbox = false\nsubstituters =\nmax-jobs = 4\n{settings}");
        fs::write(directory.path().join("etc-nix/nix.conf"), settings).unwrap();
        let log = fs::File::create(directory.path().join("daemon.log")).unwrap();
        let outer = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"])
            .args(["--propagation", "private", "--mount-proc", "sh", "-c", INIT, "init"])
            .arg(directory.path())
            .arg(std::env::var_os(TREE).unwrap_or_default())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("NIX_REMOTE", "")
            .env("HOME", directory.path().join("home"))
            .env("TMPDIR", directory.path().join("tmp"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("this test needs util-linux");
        let machine = Self { directory, outer, _small: small };
        let deadline = Instant::now() + Duration::from_secs(30);
        while Connection::connect(&machine.address(), &ConnectOptions::default()).await.is_err() {
            let log = fs::read_to_string(machine.path().join("daemon.log")).unwrap();
            assert!(
                Instant::now() < deadline,
                "nix-daemon does not come up (install nix-bin, be root): {log}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        machine
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn address(&self) -> DaemonAddress {
        DaemonAddress::from_path(self.path().join("nix/var/nix/daemon-socket/socket"))
    }

    pub(crate) async fn is_valid(&self, path: &StorePath) -> bool {
        let mut daemon = Connection::connect(&self.address(), &ConnectOptions::default()).await.unwrap();
        daemon.is_valid_path(path).await.unwrap()
    }

    /// Runs a stock Nix program against the daemon and gives what it prints.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let remote = format!("unix://{}?root={}", self.address(), self.path().display());
        let output = Command::new(program)
            .args(arguments)
            .env("NIX_REMOTE", remote)
            .env("NIX_CONF_DIR", self.path().join("etc-nix"))
            .env("HOME", self.path().join("home"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Makes the derivation that an expression gives.
    pub(crate) fn instantiate(&self, expression: &str) -> DrvPath {
        DrvPath::parse(&self.run("nix-instantiate", &["-E", expression])).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.outer.kill();
        let _ = self.outer.wait();
    }
}

/// Spells a derivation whose builder is a shell script.
pub(crate) fn script(name: &str, script: &str, attributes: &str) -> String {
    format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         PATH = \"/usr/bin:/bin\"; args = [ \"-e\" \"-c\" ''{script}'' ]; {attributes} }}"
    )
}

/// Counts the processes of the computer whose arguments contain `mark`.
pub(crate) fn processes_with(mark: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .filter(|arguments| String::from_utf8_lossy(arguments).replace('\0', " ").contains(mark))
        .count()
}
