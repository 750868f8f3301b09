//! A test in a network namespace of its own.

use std::env;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Set in the namespace.
const INSIDE: &str = "HAUBERK_TEST_INSIDE_NAMESPACE";

/// Programs the tests call, and the Debian packages they are in.
const PROGRAMS: [(&str, &str); 6] = [
    ("unshare", "util-linux"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("avahi-daemon", "avahi-daemon"),
    ("avahi-browse", "avahi-utils"),
    ("dbus-daemon", "dbus"),
];

/// Runs the body of the test `name` in new network, mount and process namespaces, all of whose processes end with it.
///
/// A thread keeps the network it was made in, so the namespace has to be there before the mDNS thread: the test binary starts
/// itself again.
pub(crate) fn in_namespace(name: &str, body: impl AsyncFnOnce()) {
    if env::var_os(INSIDE).is_some() {
        run(&["ip", "link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(120), body()).await.expect("it takes far too long");
        });
        return;
    }
    check_requirements();
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    std::io::stdout().write_all(&output.stdout).unwrap();
    std::io::stderr().write_all(&output.stderr).unwrap();
    assert!(output.status.success(), "{name} failed in its namespace");
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(ran, "there is no test {name}");
}

fn check_requirements() {
    let missing: Vec<_> =
        PROGRAMS.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    assert!(
        missing.is_empty(),
        "this test needs programs that are not installed: apt-get install {}",
        missing.join(" ")
    );
    let root = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status().unwrap();
    assert!(root.success(), "this test makes network namespaces: run it as root, or with CAP_SYS_ADMIN");
}

/// Programs of administrators are not always on the path.
fn find(program: &str) -> Option<String> {
    let path = env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    folders.map(|folder| format!("{folder}/{program}")).find(|file| Path::new(file).exists())
}

/// Runs a command to its end and gives what it printed.
pub(crate) fn run(command: &[&str]) -> String {
    let program = find(command[0]).unwrap_or_else(|| panic!("{} is not installed", command[0]));
    let output = Command::new(program).args(&command[1..]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A program that runs beside the test and ends with it.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &[&str]) -> Self {
        let program = find(command[0]).unwrap_or_else(|| panic!("{} is not installed", command[0]));
        let child = Command::new(program).args(&command[1..]).stdin(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes a network of the one interface `lan0`, with the addresses 10.99.0.1 and one of the link.
pub(crate) fn make_network() {
    run(&["ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1"]);
    run(&["ip", "addr", "add", "10.99.0.1/24", "dev", "lan0"]);
    run(&["ip", "link", "set", "lan0", "up"]);
    run(&["ip", "link", "set", "lan1", "up"]);
}

/// Avahi and the bus it is asked through, in this namespace, on one interface that stands for a network.
pub(crate) struct Avahi {
    _daemon: Running,
    _bus: Running,
}

impl Avahi {
    /// Makes a network and starts Avahi on it.
    pub(crate) async fn start() -> Self {
        make_network();
        // The machine's own bus and Avahi, if any, are left alone.
        run(&["mount", "-t", "tmpfs", "tmpfs", "/run"]);
        for folder in ["/run/dbus", "/run/avahi-daemon"] {
            std::fs::create_dir(folder).unwrap();
        }
        let config = "/run/avahi-daemon.conf";
        std::fs::write(config, "[server]\nhost-name=avahi-machine\nallow-interfaces=lan0\n[publish]\n")
            .unwrap();
        let mut bus = Running::start(&["dbus-daemon", "--system", "--nofork", "--nopidfile"]);
        until("the bus runs", || {
            assert!(bus.is_running(), "dbus-daemon ended");
            Path::new("/run/dbus/system_bus_socket").exists()
        })
        .await;
        let mut daemon = Running::start(&[
            "avahi-daemon",
            "--file",
            config,
            "--no-drop-root",
            "--no-rlimits",
            "--no-chroot",
        ]);
        until("Avahi runs", || {
            assert!(daemon.is_running(), "avahi-daemon ended");
            let answer = Command::new("avahi-browse").args(["-at"]).output().unwrap();
            answer.status.success()
        })
        .await;
        Self { _daemon: daemon, _bus: bus }
    }
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
