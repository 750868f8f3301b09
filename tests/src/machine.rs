//! A host in small.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use anyhow::{Context, Result, bail};
use hauberk_daemon::DaemonAddress;

use crate::{
    guix::GuixRoot,
    launch::{Launch, Place},
    process::{Process, children_of},
    spawn::spawn,
    wait::{Deadline, wait_for},
};

/// What becomes the first process inside: it lays the machine's own directories over the computer's and then reaps.
const INIT: &str = r#"
set -eu
mount --bind "$1/nix" /nix
mount --bind "$1/etc-nix" /etc/nix
if [ -n "$2" ]; then
    for directory in gnu var/guix etc/guix; do
        mount --bind "$1/$directory" "/$directory"
    done
    # The root of the daemon must be a mount point itself, so that it can give its builders another.
    mount --rbind "$2" "$2"
    for directory in gnu var/guix etc/guix; do
        mount --bind "$1/$directory" "$2/$directory"
    done
    mount --bind "$1/tmp" "$2/tmp"
    # Where laboratories lie: the daemon follows roots to there.
    mount --rbind /var/tmp "$2/var/tmp"
    mount -t proc proc "$2/proc"
    mount --rbind /dev "$2/dev"
fi
ip link set lo up
echo ready
exec >&- 2>&-
while true; do sleep 86400; done
"#;

/// What is particular about a machine.
#[derive(Clone, Debug, Default)]
pub struct MachineConfig {
    /// Its name.
    pub name: String,
    /// Keys whose signatures its daemon accepts.
    pub trusted_public_keys: Vec<String>,
    /// Caches its daemon asks.
    pub substituters: Vec<String>,
    /// The directory builders see as `/gates`, if any.
    pub gates: Option<PathBuf>,
    /// More lines for its nix.conf.
    pub settings: String,
    /// It runs no nix-daemon: nothing is built on it.
    pub without_daemon: bool,
    /// The Guix it has beside Nix, if any.
    pub guix: Option<GuixRoot>,
    /// More arguments for its guix-daemon.
    pub guix_options: Vec<String>,
}

/// A machine: network, mounts and processes of its own, a Nix store of its own, and a real nix-daemon; if asked for also a Guix
/// store and a real guix-daemon.
///
/// Apart from `/nix`, `/etc/nix`, `/gnu`, `/var/guix` and `/etc/guix` it sees the computer's files. Everything in it ends with it.
#[derive(Debug)]
pub struct Machine {
    name: String,
    directory: PathBuf,
    daemon: Option<Process>,
    guix_daemon: Option<Process>,
    config: MachineConfig,
    outer: Child,
    inner: u32,
}

impl Machine {
    /// Starts a machine below `directory`, with its daemon.
    ///
    /// # Errors
    /// The namespaces cannot be made or the daemon does not start.
    pub fn start(directory: &Path, config: &MachineConfig) -> Result<Self> {
        let directory = directory.join(&config.name);
        let guix_directories = ["gnu/store", "var/guix", "etc/guix"];
        let names = ["nix", "etc-nix", "home", "tmp", "run"];
        for name in names.into_iter().chain(guix_directories.into_iter().filter(|_| config.guix.is_some())) {
            fs::create_dir_all(directory.join(name))
                .with_context(|| format!("making {}/{name}", directory.display()))?;
        }
        // The mount points; they stay empty on the computer itself.
        let guix_points = ["/gnu", "/var/guix", "/etc/guix"];
        let points = ["/nix", "/etc/nix"].into_iter();
        for mount_point in points.chain(guix_points.into_iter().filter(|_| config.guix.is_some())) {
            fs::create_dir_all(mount_point)
                .with_context(|| format!("making the mount point {mount_point}"))?;
        }
        fs::write(directory.join("etc-nix/nix.conf"), nix_conf(config))?;
        let mut command = std::process::Command::new("setpriv");
        command
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child=KILL",
            ])
            .args(["--propagation", "private", "--mount-proc", "bash", "-c", INIT, "init"])
            .arg(&directory)
            .arg(config.guix.as_ref().map_or(Path::new(""), GuixRoot::path))
            .stdin(Stdio::null())
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(directory.join("init.log"))?);
        let mut outer = spawn(command).context("making namespaces")?;
        let mut line = String::new();
        let output = outer.stdout.take().context("the output was asked for")?;
        BufReader::new(output).read_line(&mut line)?;
        if line != "ready\n" {
            let _ = outer.kill();
            let _ = outer.wait();
            bail!(
                "machine {} does not come up: {}",
                config.name,
                fs::read_to_string(directory.join("init.log")).unwrap_or_default()
            );
        }
        let inner =
            children_of(outer.id()).first().copied().context("the machine's first process is gone")?;
        let mut machine = Self {
            name: config.name.clone(),
            directory,
            daemon: None,
            guix_daemon: None,
            config: config.clone(),
            outer,
            inner,
        };
        if !config.without_daemon {
            machine.start_daemon()?;
        }
        if config.guix.is_some() {
            machine.start_guix_daemon()?;
        }
        Ok(machine)
    }

    /// Gives its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the directory that holds its store (`nix`), its configuration, `home`, `tmp` and `run`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Gives where a path of its store lies, seen from outside.
    pub fn outside(&self, path: &str) -> PathBuf {
        self.directory.join(path.trim_start_matches('/'))
    }

    pub(crate) fn network_process(&self) -> u32 {
        self.inner
    }

    /// Runs `program` inside, as a client of the machine's daemon.
    pub fn command(&self, program: impl Into<PathBuf>) -> Launch {
        Launch::at(Place::Inside(self.inner), program)
            .env("HOME", self.directory.join("home"))
            .env("TMPDIR", self.directory.join("tmp"))
            .env("NIX_REMOTE", "daemon")
    }

    /// Lays a file system of its own, in memory and of this size (as `4m`), over a directory. The computer does not see it; see
    /// [`Machine::inside`].
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn mount_small(&self, directory: &Path, size: &str) -> Result<()> {
        self.command("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=0777"), "none"])
            .arg(directory)
            .run()
            .map(|_| ())
    }

    /// Gives where a path lies as the machine sees it, mounts included, for as long as it runs.
    pub fn inside(&self, path: &Path) -> PathBuf {
        Path::new("/proc")
            .join(self.inner.to_string())
            .join("root")
            .join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Starts the nix-daemon, if need be again, and waits for its socket.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_daemon(&mut self) -> Result<()> {
        let socket = self.directory.join("nix/var/nix/daemon-socket/socket");
        let _ = fs::remove_file(&socket);
        // With NIX_REMOTE set the daemon would be its own client, without end.
        let mut daemon =
            self.command("nix-daemon").env("NIX_REMOTE", "").start("nix-daemon", &self.directory)?;
        wait_for(&format!("the nix-daemon of {} listens", self.name), Deadline::seconds(30), || {
            daemon.check_alive()?;
            Ok(socket.exists().then_some(()))
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Gives the process id of the nix-daemon, as this computer numbers it.
    ///
    /// # Errors
    /// It does not run.
    pub fn daemon_id(&self) -> Result<u32> {
        Ok(self.daemon.as_ref().context("the nix-daemon does not run")?.id())
    }

    /// Kills the nix-daemon and leaves its socket behind, as a crash does.
    ///
    /// # Errors
    /// It did not run.
    pub fn kill_daemon(&mut self) -> Result<()> {
        self.daemon.take().context("the nix-daemon does not run")?.kill9()
    }

    /// Runs a program of its Guix, such as `guix` or `guile`, inside.
    ///
    /// # Errors
    /// It has no Guix.
    pub fn guix(&self, program: &str) -> Result<Launch> {
        let root = self.config.guix.as_ref().context("the machine has no Guix")?;
        Ok(self
            .command("chroot")
            .arg(root.path())
            .arg(program)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            // Messages in other languages than English are not understood.
            .env("LC_ALL", "C.UTF-8")
            .env("TMPDIR", "/tmp"))
    }

    /// Gives the address of its guix-daemon, as seen from outside.
    pub fn guix_address(&self) -> DaemonAddress {
        DaemonAddress::from_path(self.directory.join("var/guix/daemon-socket/socket"))
    }

    /// Starts the guix-daemon, if need be again, and waits for its socket.
    ///
    /// # Errors
    /// It has no Guix, or the daemon does not start.
    pub fn start_guix_daemon(&mut self) -> Result<()> {
        let socket = self.directory.join("var/guix/daemon-socket/socket");
        let _ = fs::remove_file(&socket);
        let launch = self
            .guix("guix-daemon")?
            .args(["--build-users-group=guixbuild", "--substitute-urls=", "--no-offload"])
            .args(&self.config.guix_options);
        let mut daemon = launch.start("guix-daemon", &self.directory)?;
        wait_for(&format!("the guix-daemon of {} listens", self.name), Deadline::seconds(30), || {
            daemon.check_alive()?;
            Ok(socket.exists().then_some(()))
        })?;
        self.guix_daemon = Some(daemon);
        Ok(())
    }

    /// Kills the guix-daemon and leaves its socket behind, as a crash does.
    ///
    /// # Errors
    /// It did not run.
    pub fn kill_guix_daemon(&mut self) -> Result<()> {
        self.guix_daemon.take().context("the guix-daemon does not run")?.kill9()
    }

    pub(crate) fn set_address(&self, address: Ipv4Addr) -> Result<()> {
        let ip = |arguments: &[&str]| self.command("ip").args(arguments).run();
        ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        ip(&["link", "set", "eth0", "up"])?;
        Ok(())
    }
}

impl Machine {
    /// Cuts the power: everything inside is killed at once. Does not wait for it.
    pub fn power_off(&mut self) {
        let _ = self.outer.kill();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
        let _ = self.outer.wait();
        // The namespace's processes die with its first one, which dies with the outer process: wait for that, so
        // that nothing writes into the directory any more.
        let _ = wait_for("the machine is gone", Deadline::seconds(10), || {
            Ok((!Path::new("/proc").join(self.inner.to_string()).exists()).then_some(()))
        });
    }
}

fn nix_conf(config: &MachineConfig) -> String {
    // Builders find the computer's compiler in their sandbox; /bin and the library directories are links into /usr.
    let mut sandbox_paths = vec!["/bin=/usr/bin".to_owned(), "/usr".to_owned()];
    for directory in ["/lib", "/lib32", "/lib64", "/libx32"] {
        if Path::new(directory).is_symlink() {
            sandbox_paths.push(format!("{directory}=/usr{directory}"));
        } else if Path::new(directory).is_dir() {
            sandbox_paths.push(directory.to_owned());
        }
    }
    sandbox_paths.push("/etc/alternatives".to_owned());
    if let Some(gates) = &config.gates {
        sandbox_paths.push(format!("/gates={}", gates.display()));
    }
    format!(
        "build-users-group =\n\
         sandbox = true\n\
         sandbox-paths = {}\n\
         substituters = {}\n\
         trusted-public-keys = {}\n\
         narinfo-cache-negative-ttl = 0\n\
         narinfo-cache-positive-ttl = 0\n\
         fsync-metadata = false\n\
         {}",
        sandbox_paths.join(" "),
        config.substituters.join(" "),
        config.trusted_public_keys.join(" "),
        config.settings,
    )
}
