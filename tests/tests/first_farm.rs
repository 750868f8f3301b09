//! "Your first farm" (`doc/first-farm.md`) is followed as it is written, with namespaces as machines.
//!
//! What a block's info string says decides how it is run:
//!
//! - `sh`: by bash, as root, on each machine that its first line names;
//! - `sh repeat`: the same, again and again until it prints what the `text` block after it shows;
//! - `sh apt`: packages come from the computer the test runs on, and only what their installation sets up is done;
//! - `sh build`: the program is the one that was built for the test;
//! - `sh copy`: `scp` lines become copies of files from one machine's directories to another's;
//! - `sh systemd`: `systemctl` lines start and stop what the units installed on that machine say, as the users they say.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use hauberk_tests::{
    Deadline, LabDirectory, Launch, Machine, MachineConfig, Network, Process, hauberk_program, require_root,
    wait_for,
};

/// Directories that each machine has for itself; in all others it sees the computer's files.
const OWN: [&str; 8] = ["etc", "root", "run", "srv", "usr/local", "usr/src", "var/cache", "var/lib"];

/// Makes the directories `$2` and following; `$1` is the machine's.
const SETTLE: &str = r#"
machine=$1
shift
cp -a /etc "$machine/etc"
for name; do mkdir -p "$machine/$name"; done
chmod 0700 "$machine/root"
chmod 1777 "$machine/tmp"
for name; do mount --bind "$machine/$name" "/$name"; done
mkdir -p /usr/local/bin
rm -f /etc/systemd/system/hauberk* /etc/sysusers.d/hauberk.conf
# What the page writes into this file must come from the page alone.
sed -i -e '/^trusted-public-keys/d' -e '/^narinfo-cache/d' /etc/nix/nix.conf
"#;

/// What the installation of nix-setup-systemd does.
const SET_UP_NIX: &str = "
groupadd --force --system nix-users
chown root:nix-users /nix/var/nix/daemon-socket
chmod 0770 /nix/var/nix/daemon-socket
";

/// What the installation of postgresql does; a server that runs is made of it by [`START_POSTGRES`].
const SET_UP_POSTGRES: &str = r"
install -d -o postgres -g postgres /run/postgresql /var/lib/postgresql
cd /var/lib/postgresql
programs=$(ls -d /usr/lib/postgresql/*/bin | sort --version-sort | tail -n 1)
runuser -u postgres -- $programs/initdb --auth=peer --encoding=UTF8 --locale=C --no-sync --pgdata=/var/lib/postgresql/main
";
const START_POSTGRES: &str = r"
programs=$(ls -d /usr/lib/postgresql/*/bin | sort --version-sort | tail -n 1)
exec setpriv --pdeathsig KILL --reuid=postgres --regid=postgres --init-groups \
    $programs/postgres -D /var/lib/postgresql/main -k /run/postgresql -c listen_addresses= -c fsync=off
";

/// What goes wrong on purpose: a machine, commands on it of which the last one fails, and its exit status.
const TROUBLES: [(&str, &str, i32); 13] = [
    ("server", "hauberk web --nonsense", 2),
    (
        "server",
        "hauberk remote-server --curve-key /etc/hauberk/absent --signing-key /etc/hauberk/server.signing",
        3,
    ),
    (
        "server",
        "runuser -u hauberk-worker -- hauberk remote-server --curve-key /etc/hauberk/server.curve --signing-key x",
        3,
    ),
    (
        "server",
        "install -m 0644 /etc/hauberk/server.curve open; hauberk remote-server --curve-key open --signing-key x",
        3,
    ),
    ("server", "echo '[[specification' > bad.toml; hauberk register --specifications bad.toml", 3),
    ("server", "hauberk worker list", 4),
    (
        "server",
        "runuser -u postgres -- createdb empty; runuser -u postgres -- hauberk worker list --database \
         'host=/run/postgresql dbname=empty user=postgres'",
        4,
    ),
    (
        "server",
        "runuser -u hauberk -- hauberk remote-server --curve-key /etc/hauberk/server.curve \
         --signing-key /etc/hauberk/server.signing --name other --announce off",
        5,
    ),
    (
        "server",
        "sed 's,/srv/git/first,/srv/git/absent,' \
         /etc/hauberk/specifications.toml > /var/lib/hauberk/absent.toml; runuser -u hauberk -- hauberk register --one-shot \
         --specifications /var/lib/hauberk/absent.toml --state-directory /var/lib/hauberk/register",
        8,
    ),
    ("worker-1", "mkdir spool; hauberk remote-worker --spool spool --enrol /etc/hauberk/worker.token", 3),
    (
        "worker-1",
        "keys=/var/lib/hauberk-worker/keys; hauberk key signing other-1 other; hauberk remote-worker \
         --curve-key $keys/worker.curve --signing-key other --server-key $keys/server.curve.pub --spool spool",
        7,
    ),
    (
        "worker-1",
        "keys=/var/lib/hauberk-worker/keys; hauberk remote-worker --curve-key $keys/worker.curve \
         --signing-key $keys/worker.signing --server-key $keys/server.curve.pub --spool spool --daemon /nonexistent",
        6,
    ),
    // Run after the server's key is taken from the file.
    (
        "worker-1",
        "cd /; runuser -u hauberk-worker -- hauberk remote-worker --enrol /etc/hauberk/worker.token \
         --spool /var/lib/hauberk-worker",
        6,
    ),
];

/// Runs a service where it sees what systemd lets it see: `$1` is the host name, `$2` the directories it may write,
/// `$3` the files it may not read, and the rest the command.
const CONFINE: &str = r#"
hostname "$1"
writable=$2
for path in $3; do mount --bind /dev/null "$path"; done
shift 3
for path in $writable; do mount --bind "$path" "$path"; done
mount -t tmpfs -o mode=1777 none /tmp
mount -t tmpfs -o mode=0000 none /root
mount -t tmpfs -o mode=0000 none /home
while read -r _ _ _ _ target _; do
    case " $writable /tmp " in *" $target "*) continue ;; esac
    case $target in /proc* | /sys* | /dev*) continue ;; esac
    # Those that lie below another cannot be reached anyway.
    mount -o remount,bind,ro "$target" 2> /dev/null || true
done < /proc/self/mountinfo
for path in / /etc /nix /run /usr/local /var/cache /var/lib; do
    if touch "$path/written" 2> /dev/null; then
        echo "$path can be written"
        exit 1
    fi
done
exec "$@"
"#;

#[test]
fn the_page_is_right() -> Result<()> {
    require_root()?;
    let page = fs::read_to_string(project().join("doc/first-farm.md"))?;
    let blocks = blocks(&page)?;
    let mut names: Vec<&str> = Vec::new();
    for machine in blocks.iter().flat_map(|block| &block.machines) {
        if !names.contains(&machine.as_str()) {
            names.push(machine);
        }
    }
    assert_eq!(names, ["server", "worker-1", "worker-2", "laptop"]);
    let mut laboratory = Laboratory::create(&names)?;
    for block in &blocks {
        for machine in &block.machines {
            let begin = Instant::now();
            laboratory
                .follow(machine, block)
                .with_context(|| format!("on {machine}, the block in line {}:\n{}", block.line, block.text))
                .with_context(|| laboratory.log_tails())?;
            println!("{machine}, line {}: {} ms", block.line, begin.elapsed().as_millis());
        }
    }

    // The laptop could not have built it, and the two workers had to do it together.
    let builders = laboratory.host("server")?.run(
        "cd /; runuser -u hauberk -- psql --no-align --tuples-only --command \
         'select string_agg(distinct name, $$ $$ order by name) from attempts join workers w on w.id = worker_id'",
    )?;
    assert_eq!(builders.trim(), "worker-1 worker-2");

    // What the page says about errors is what happens.
    laboratory.host_mut("server")?.start("hauberk-remote-server")?;
    laboratory.host("worker-1")?.run("sed -i '/^extra-trusted-public-keys/d' /etc/nix/nix.conf")?;
    laboratory.host_mut("worker-1")?.service("systemctl restart nix-daemon")?;
    let mut rows = errors(&page)?;
    let table = format!("{rows:#?}");
    for (machine, commands, status) in TROUBLES {
        let output = laboratory.host(machine)?.bash(commands).output_within(Deadline::seconds(60))?;
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(status), "{commands}\n{said}");
        let before = rows.len();
        rows.retain(|row| row.status != status || !has(&said, &row.message));
        assert!(rows.len() < before, "{commands}\n{said}\nis not, or twice, in the table\n{table}");
    }
    assert!(rows.is_empty(), "these were not tried: {rows:#?}");
    Ok(())
}

/// What does not end a process is found in its sources.
#[test]
fn what_the_page_says_of_the_journal_is_in_the_program() -> Result<()> {
    let page = fs::read_to_string(project().join("doc/first-farm.md"))?;
    let mut sources = String::new();
    for entry in fs::read_dir(project().join("crates"))? {
        add_sources(&entry?.path().join("src"), &mut sources)?;
    }
    let table = page.split("\n| says | what to do |").nth(1).context("the page has no such table")?;
    let messages: Vec<&str> = table
        .lines()
        .skip(2)
        .map_while(|row| row.strip_prefix("| "))
        .filter_map(|row| row.strip_prefix('`')?.split('`').next())
        .collect();
    assert!(!messages.is_empty());
    for message in messages {
        for part in message.split('…') {
            assert!(sources.contains(part), "no program says {part:?}, a part of {message:?}");
        }
    }
    Ok(())
}

fn add_sources(directory: &Path, text: &mut String) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            add_sources(&path, text)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// A row of the page's table of errors.
#[derive(Debug)]
struct Row {
    status: i32,
    /// With `…` for what differs from case to case.
    message: String,
}

fn errors(page: &str) -> Result<Vec<Row>> {
    let table = page.split("| status | says | what to do |").nth(1).context("the page has no such table")?;
    table
        .lines()
        .skip(2)
        .map_while(|row| row.strip_prefix("| "))
        .map(|row| {
            let (status, rest) = row.split_once(" | `").context("a row has a status and a message")?;
            let (message, _) = rest.split_once("` |").context("a message ends")?;
            Ok(Row { status: status.parse()?, message: message.to_owned() })
        })
        .collect()
}

/// Tells whether the parts of a message occur in a text in their order.
fn has(text: &str, message: &str) -> bool {
    let mut rest = text;
    message.split('…').all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// A block of commands.
#[derive(Debug)]
struct Block {
    kind: Kind,
    machines: Vec<String>,
    text: String,
    /// What is shown after it.
    shown: Vec<String>,
    line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Run,
    Repeat,
    Packages,
    Build,
    Copy,
    Services,
}

/// Finds the blocks of commands in the page, and what it shows after them.
fn blocks(page: &str) -> Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(information) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let kind = match information {
            "text" => {
                let block = blocks.last_mut().context("something is shown before the first commands")?;
                block.shown = body.iter().map(|line| normal(line)).collect();
                continue;
            }
            "sh" => Kind::Run,
            "sh repeat" => Kind::Repeat,
            "sh apt" => Kind::Packages,
            "sh build" => Kind::Build,
            "sh copy" => Kind::Copy,
            "sh systemd" => Kind::Services,
            other => bail!("line {}: nobody knows how to follow `{other}`", number + 1),
        };
        let (machines, commands) = body
            .split_first()
            .and_then(|(first, rest)| Some((first.strip_prefix("# ")?, rest)))
            .with_context(|| format!("the block in line {} names no machine", number + 1))?;
        blocks.push(Block {
            kind,
            machines: machines.split(" and ").map(str::to_owned).collect(),
            text: commands.join("\n"),
            shown: Vec::new(),
            line: number + 1,
        });
    }
    Ok(blocks)
}

/// A line with single blanks, and the computer's system for the one that the page shows.
fn normal(line: &str) -> String {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace("x86_64-linux", &format!("{}-linux", std::env::consts::ARCH))
}

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The machines, the first of which is dropped first.
struct Laboratory {
    hosts: BTreeMap<String, Host>,
    program: PathBuf,
    _network: Network,
    _directory: LabDirectory,
}

/// A machine and what runs on it.
struct Host {
    services: BTreeMap<String, Process>,
    machine: Machine,
}

impl Laboratory {
    fn create(names: &[&str]) -> Result<Self> {
        let directory = LabDirectory::create()?;
        // Four copies of it are made.
        let program = directory.path().join("hauberk");
        Launch::here("strip").arg("--strip-debug").arg("-o").arg(&program).arg(hauberk_program()?).run()?;
        let machines = directory.subdirectory("machines")?;
        let mut network = Network::create(directory.path())?;
        let mut hosts = BTreeMap::new();
        let mut addresses = String::from("127.0.0.1 localhost\n");
        for name in names {
            let config = MachineConfig { name: (*name).to_owned(), ..MachineConfig::default() };
            let machine = Machine::start(&machines, &config)?;
            addresses.push_str(&format!("{} {name}\n", network.attach(&machine)?));
            let settle = machine.command("bash").args(["-euc", SETTLE, "settle"]).arg(machine.directory());
            settle.args(OWN).run()?;
            hosts.insert((*name).to_owned(), Host { services: BTreeMap::new(), machine });
        }
        for host in hosts.values() {
            fs::write(host.outside("/etc/hosts"), &addresses)?;
        }
        Ok(Self { hosts, program, _network: network, _directory: directory })
    }

    fn host(&self, name: &str) -> Result<&Host> {
        self.hosts.get(name).with_context(|| format!("there is no machine {name}"))
    }

    fn follow(&mut self, name: &str, block: &Block) -> Result<()> {
        let text = &block.text;
        match block.kind {
            Kind::Run => {
                let printed = self.host(name)?.run(text)?;
                ensure!(shows(&printed, &block.shown), "it printed\n{printed}");
                Ok(())
            }
            Kind::Repeat => {
                ensure!(!block.shown.is_empty(), "the page does not show what is to come");
                let mut printed = String::new();
                wait_for("what the page shows comes", Deadline::seconds(180), || {
                    for host in self.hosts.values_mut() {
                        host.services.values_mut().try_for_each(Process::check_alive)?;
                    }
                    printed = self.host(name)?.run(text)?;
                    Ok(shows(&printed, &block.shown).then_some(()))
                })
                .with_context(|| format!("it printed\n{printed}"))
            }
            Kind::Packages => self.host_mut(name)?.set_up(text),
            Kind::Build => {
                let host = self.host(name)?;
                let sources = host.outside("/usr/src/hauberk");
                fs::create_dir_all(sources.join("target/release"))?;
                fs::copy(&self.program, sources.join("target/release/hauberk"))?;
                fs::create_dir_all(sources.join("systemd"))?;
                for entry in fs::read_dir(project().join("systemd"))? {
                    let entry = entry?;
                    fs::copy(entry.path(), sources.join("systemd").join(entry.file_name()))?;
                }
                Ok(())
            }
            Kind::Copy => text.lines().try_for_each(|line| self.copy(name, line)),
            Kind::Services => text.lines().try_for_each(|line| self.host_mut(name)?.service(line)),
        }
    }

    fn host_mut(&mut self, name: &str) -> Result<&mut Host> {
        self.hosts.get_mut(name).with_context(|| format!("there is no machine {name}"))
    }

    /// Does what `scp root@MACHINE:FILE FILE` does.
    fn copy(&self, name: &str, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["scp", from, to] = words.as_slice() else { bail!("`{line}` is not of the form scp FROM TO") };
        let (from_machine, from) = from
            .strip_prefix("root@")
            .and_then(|from| from.split_once(':'))
            .with_context(|| format!("`{from}` is not of the form root@MACHINE:FILE"))?;
        fs::copy(self.host(from_machine)?.outside(from), self.host(name)?.outside(to))
            .with_context(|| line.to_owned())?;
        Ok(())
    }

    fn log_tails(&self) -> String {
        let mut text = String::new();
        for (name, host) in &self.hosts {
            for process in host.services.values() {
                text.push_str(&format!("--- {name}, {}:\n{}\n", process.name(), process.log_tail()));
            }
        }
        text
    }
}

/// Tells whether every line of `wanted` is among what was printed; one that ends in `…` shows only how it begins.
fn shows(printed: &str, wanted: &[String]) -> bool {
    let printed: Vec<String> = printed.lines().map(normal).collect();
    wanted.iter().all(|line| match line.strip_suffix('…') {
        Some(beginning) => printed.iter().any(|printed| printed.starts_with(beginning)),
        None => printed.contains(line),
    })
}

impl Host {
    fn outside(&self, path: &str) -> PathBuf {
        self.machine.outside(path)
    }

    /// A program on this machine, as root, with the machine's host name.
    fn command(&self, program: &[&str]) -> Launch {
        self.machine
            .command("unshare")
            .args(["--uts", "--", "bash", "-c", r#"hostname "$0" && exec "$@""#])
            .arg(self.machine.name())
            .args(program)
            .env("HOME", "/root")
            .env("TMPDIR", "/tmp")
            .env("NIX_REMOTE", "")
    }

    fn bash(&self, text: &str) -> Launch {
        self.command(&["bash", "-euo", "pipefail", "-c", &format!("cd /root\n{text}")])
    }

    fn run(&self, text: &str) -> Result<String> {
        self.bash(text).run()
    }

    /// Does what the installation of packages sets up.
    fn set_up(&mut self, text: &str) -> Result<()> {
        let packages: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("apt-get install --yes "))
            .flat_map(str::split_whitespace)
            .collect();
        ensure!(packages.contains(&"nix-bin"), "the machine has no Nix");
        if packages.contains(&"nix-setup-systemd") {
            self.run(SET_UP_NIX)?;
        }
        if packages.contains(&"postgresql") {
            self.run(SET_UP_POSTGRES)?;
            let directory = self.machine.directory().to_owned();
            let process = self.command(&["bash", "-euc", START_POSTGRES]).start("postgresql", &directory)?;
            self.services.insert("postgresql".to_owned(), process);
            wait_for("PostgreSQL takes connections", Deadline::seconds(60), || {
                self.services.values_mut().try_for_each(Process::check_alive)?;
                let ready = self.bash("pg_isready --quiet --host=/run/postgresql").output()?;
                Ok(ready.status.success().then_some(()))
            })?;
        }
        Ok(())
    }

    /// Does what a line of `systemctl` or `journalctl` does.
    fn service(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["systemctl", "daemon-reload"] => Ok(()),
            ["systemctl", "restart", "nix-daemon"] => {
                self.machine.kill_daemon()?;
                self.machine.start_daemon()
            }
            ["systemctl", "enable", "--now", units @ ..] => {
                units.iter().try_for_each(|unit| self.start(unit))
            }
            ["systemctl", "disable", "--now", units @ ..] => units.iter().try_for_each(|unit| {
                let mut process =
                    self.services.remove(*unit).with_context(|| format!("{unit} does not run"))?;
                process.stop(Deadline::seconds(60))
            }),
            ["journalctl", "--unit", unit, "--lines", _] => {
                let process = self.services.get(*unit).with_context(|| format!("{unit} does not run"))?;
                ensure!(process.log_text().contains("ready"), "{unit} did not say that it is ready");
                Ok(())
            }
            _ => bail!("nobody knows how to follow `{line}`"),
        }
    }

    /// Starts what a unit says, as systemd would.
    fn start(&mut self, name: &str) -> Result<()> {
        let path = self.outside(&format!("/etc/systemd/system/{name}.service"));
        let unit = Unit::read(&path)?;
        let user = unit.one("User")?;
        let mut writable = Vec::new();
        for (setting, parent) in [("StateDirectory", "/var/lib"), ("CacheDirectory", "/var/cache")] {
            for directory in unit.all(setting).flat_map(str::split_whitespace) {
                let directory = format!("{parent}/{directory}");
                self.command(&["install", "-d", "-o", user, "-g", unit.one("Group")?, &directory]).run()?;
                writable.push(directory);
            }
        }
        let mut variables: BTreeMap<String, String> = BTreeMap::new();
        for variable in unit.all("Environment") {
            variables.extend(assignment(variable));
        }
        for file in unit.all("EnvironmentFile") {
            let optional = file.strip_prefix('-');
            match fs::read_to_string(self.outside(optional.unwrap_or(file))) {
                Ok(text) => variables.extend(text.lines().filter_map(assignment)),
                Err(error) if optional.is_none() => return Err(error).context(file.to_owned()),
                Err(_) => {}
            }
        }
        let mut command = vec!["setpriv", "--pdeathsig", "KILL", "--init-groups", "--no-new-privs"];
        let (reuid, regid) = (format!("--reuid={user}"), format!("--regid={}", unit.one("Group")?));
        command.extend([reuid.as_str(), regid.as_str(), "--bounding-set=-all", "--inh-caps=-all", "--"]);
        for word in unit.one("ExecStart")?.split_whitespace() {
            match word.strip_prefix('$') {
                Some(variable) => command.extend(
                    variables
                        .get(variable)
                        .with_context(|| format!("nobody sets ${variable}"))?
                        .split_whitespace(),
                ),
                None => command.push(word),
            }
        }
        ensure!(unit.one("ProtectSystem")? == "strict" && unit.one("ProtectHome")? == "yes");
        let hidden: Vec<&str> = unit
            .all("InaccessiblePaths")
            .flat_map(str::split_whitespace)
            .map(|path| path.trim_start_matches('-'))
            .collect();
        let (writable, hidden) = (writable.join(" "), hidden.join(" "));
        let launch = self
            .machine
            .command("unshare")
            .args(["--uts", "--mount", "--", "bash", "-euc", CONFINE, "confine", self.machine.name()])
            .args([&writable, &hidden])
            .args(&command)
            .env("TMPDIR", "/tmp")
            .env("NIX_REMOTE", "");
        let mut launch = launch.env("USER", user).env("LOGNAME", user).env("HOME", "/nonexistent");
        for (variable, value) in &variables {
            launch = launch.env(variable, value);
        }
        let mut process = launch.start(name, self.machine.directory())?;
        process.wait_ready(Deadline::seconds(60))?;
        self.services.insert(name.to_owned(), process);
        Ok(())
    }
}

/// A unit file's section `[Service]`.
struct Unit {
    settings: Vec<(String, String)>,
}

impl Unit {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let settings = text
            .lines()
            .skip_while(|line| *line != "[Service]")
            .skip(1)
            .take_while(|line| !line.starts_with('['))
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Ok(Self { settings })
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.settings.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn one(&self, name: &str) -> Result<&str> {
        self.settings
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
            .with_context(|| format!("the unit does not set {name}"))
    }
}

/// Reads `NAME=VALUE` or `NAME="VALUE"`.
fn assignment(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    (!name.starts_with('#')).then(|| (name.to_owned(), value.trim_matches('"').to_owned()))
}
