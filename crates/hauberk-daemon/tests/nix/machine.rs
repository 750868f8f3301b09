//! A real nix-daemon with a store of its own, in namespaces of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hauberk_daemon::{BuildDaemon, ClientOptions, ConnectOptions, Connection, DaemonAddress};
use hauberk_store::DrvPath;
use tempfile::TempDir;
use tokio::net::UnixStream;

/// What lays the machine's directory (`$1`) over the computer's, or over the tree of another system (`$2`), and becomes the
/// rest of its arguments.
const ENTER: &str = r#"
set -e
machine=$1 tree=$2
shift 2
if [ -z "$tree" ]; then
    mount --bind "$machine/nix" /nix
    mount --bind "$machine/etc-nix" /etc/nix
    exec "$@"
fi
parent=${machine%/*}
mount --bind "$tree" "$tree"
mkdir -p "$tree/nix" "$tree/etc/nix" "$tree/proc" "$tree/dev" "$tree$parent" "$tree/.outside"
mount --bind "$machine/nix" "$tree/nix"
mount --bind "$machine/etc-nix" "$tree/etc/nix"
mount --bind "$parent" "$tree$parent"
mount --rbind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
cd "$tree"
pivot_root . .outside
umount -l .outside
exec "$@"
"#;

/// Names the variable that gives the root of a tree whose Nix is to be tested in place of the computer's.
const TREE: &str = "HAUBERK_NIX_TREE";

/// Gives the settings every machine has; `/bin/sh` is all a builder finds.
fn settings(machine: &Path) -> String {
    format!(
        "build-users-group =
sandbox = true
sandbox-paths = /bin/sh={}/busybox
substituters =
max-jobs = 4
",
        machine.display()
    )
}

/// Gives the tree whose Nix is to be tested, or nothing where it is the computer's.
pub(crate) fn tree() -> Option<PathBuf> {
    std::env::var_os(TREE).filter(|tree| !tree.is_empty()).map(PathBuf::from)
}

/// Gives `program` in namespaces of its own, where `machine` is laid over the computer or the tree.
fn enter(machine: &Path, unshare: &[&str], program: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"])
        .args(unshare)
        .args(["sh", "-c", ENTER, "enter"])
        .arg(machine)
        .arg(tree().unwrap_or_default())
        .args(program)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", machine.join("home"))
        .env("TMPDIR", machine.join("tmp"))
        .stdin(Stdio::null());
    command
}

/// A nix-daemon that ends with its value.
pub(crate) struct Machine {
    directory: TempDir,
    outer: Child,
}

impl Machine {
    /// Starts a daemon with more lines for its nix.conf.
    ///
    /// # Panics
    /// Without root, nix-daemon, unshare or busybox: these tests prove nothing without them.
    pub(crate) async fn start(more: &str) -> Self {
        let root = tree().unwrap_or_else(|| PathBuf::from("/"));
        for program in ["nix-daemon", "nix-instantiate"] {
            assert!(
                root.join("usr/bin").join(program).exists(),
                "these tests need {program} in {}: install nix-bin, or make the tree anew",
                root.display()
            );
        }
        for program in ["unshare", "setpriv", "busybox"] {
            assert!(
                std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                    .any(|directory| directory.join(program).exists()),
                "these tests need {program}: install util-linux and busybox-static"
            );
        }
        for mount_point in ["/nix", "/etc/nix"] {
            fs::create_dir_all(mount_point)
                .expect("these tests need root: they make mount points and namespaces");
        }
        let directory = tempfile::Builder::new().prefix("hauberk-nix-").tempdir().unwrap();
        for name in ["nix", "etc-nix", "home", "tmp"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let lines = format!("{}{more}", settings(directory.path()));
        fs::write(directory.path().join("etc-nix/nix.conf"), lines).unwrap();
        fs::copy("/bin/busybox", directory.path().join("busybox")).unwrap();
        let log = fs::File::create(directory.path().join("daemon.log")).unwrap();
        let outer = enter(
            directory.path(),
            &["--pid", "--fork", "--kill-child=KILL", "--mount-proc"],
            &["nix-daemon"],
        )
        .env("NIX_REMOTE", "")
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
        let machine = Self { directory, outer };
        let deadline = Instant::now() + Duration::from_secs(30);
        // The first session makes the database; others that come meanwhile are turned away.
        while Connection::connect(&machine.address(), &ConnectOptions::default()).await.is_err() {
            let log = fs::read_to_string(machine.directory.path().join("daemon.log")).unwrap();
            assert!(Instant::now() < deadline, "nix-daemon does not come up; these tests need root: {log}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        machine
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn socket(&self) -> PathBuf {
        self.path().join("nix/var/nix/daemon-socket/socket")
    }

    pub(crate) fn address(&self) -> DaemonAddress {
        DaemonAddress::from_path(self.socket())
    }

    /// Connects, with options.
    pub(crate) async fn connect_with(&self, options: &ClientOptions) -> Connection<UnixStream> {
        let mut connection = Connection::connect(&self.address(), &ConnectOptions::default()).await.unwrap();
        connection.set_options(options).await.unwrap();
        connection
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> Connection<UnixStream> {
        self.connect_with(&ClientOptions::default()).await
    }

    /// Runs a stock Nix program against the daemon and gives what it prints.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.command(program, arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {errors}");
        output.stdout
    }

    /// Gives a stock Nix program that speaks with the daemon.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = enter(self.path(), &[], &[&[program], arguments].concat());
        command.env("NIX_REMOTE", "daemon");
        command
    }

    /// Makes the derivation an expression gives.
    pub(crate) fn instantiate(&self, expression: &str) -> DrvPath {
        let path = self.run("nix-instantiate", &["-E", expression]);
        DrvPath::parse(String::from_utf8(path).unwrap().trim()).unwrap()
    }

    /// Makes a derivation of that name whose builder is a shell script.
    pub(crate) fn script(&self, name: &str, script: &str) -> DrvPath {
        self.script_with(name, script, "")
    }

    /// The same, with more attributes.
    pub(crate) fn script_with(&self, name: &str, script: &str, attributes: &str) -> DrvPath {
        self.instantiate(&script_expression(name, script, attributes))
    }

    /// Kills the daemon and all that runs in its namespaces.
    pub(crate) fn kill(&mut self) {
        let _ = self.outer.kill();
        let _ = self.outer.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Spells a derivation in the Nix language.
pub(crate) fn script_expression(name: &str, script: &str, attributes: &str) -> String {
    format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         args = [ \"-e\" \"-c\" ''{script}'' ]; {attributes} }}"
    )
}

/// Counts the processes of the computer whose arguments contain `mark`.
pub(crate) fn processes_with(mark: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .filter(|arguments| String::from_utf8_lossy(arguments).replace('\0', " ").contains(mark))
        .count()
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
