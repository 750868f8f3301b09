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

/// What lays the machine's directories over the computer's and becomes the daemon.
const INIT: &str = r#"mount --bind "$1/nix" /nix && mount --bind "$1/etc-nix" /etc/nix && exec nix-daemon"#;

/// Settings every machine has; `/bin/sh` is all a builder finds.
const SETTINGS: &str = "build-users-group =
sandbox = true
sandbox-paths = /bin/sh=/bin/busybox
substituters =
max-jobs = 4
";

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
    pub(crate) async fn start(settings: &str) -> Self {
        for program in ["nix-daemon", "nix-instantiate", "unshare", "setpriv", "busybox"] {
            assert!(
                std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                    .any(|directory| directory.join(program).exists()),
                "these tests need {program}: install nix-bin, util-linux and busybox-static"
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
        fs::write(directory.path().join("etc-nix/nix.conf"), format!("{SETTINGS}{settings}")).unwrap();
        let log = fs::File::create(directory.path().join("daemon.log")).unwrap();
        let outer = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"])
            .args(["--propagation", "private", "--mount-proc", "sh", "-c", INIT, "init"])
            .arg(directory.path())
            .env("NIX_REMOTE", "")
            .env("HOME", directory.path().join("home"))
            .env("TMPDIR", directory.path().join("tmp"))
            .stdin(Stdio::null())
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
        let remote = format!("unix://{}?root={}", self.socket().display(), self.path().display());
        let output = Command::new(program)
            .args(arguments)
            .env("NIX_REMOTE", remote)
            .env("NIX_CONF_DIR", self.path().join("etc-nix"))
            .env("HOME", self.path().join("home"))
            .env("TMPDIR", self.path().join("tmp"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {errors}");
        output.stdout
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
