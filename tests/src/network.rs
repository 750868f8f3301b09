//! A network of machines.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    launch::{Launch, Place},
    machine::Machine,
    process::Process,
    program::program_beside,
    wait::{Deadline, wait_for},
};

/// What is bad about a line. Every frame goes through it, whatever it is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLine {
    /// How late everything comes, each way.
    pub delay: Duration,
    /// So many of a hundred frames are lost at random, each way.
    pub loss_percent: u8,
    /// What decides which.
    pub seed: u64,
}

/// What became of the frames of a line, in both directions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// They arrived.
    pub passed: u64,
    /// They were lost at random.
    pub lost: u64,
    /// There was no room for them on the line, or nobody at its end.
    pub dropped: u64,
}

/// A bridge in a network namespace of its own, and a cable from it to each machine. The computer itself is not on it.
#[derive(Debug)]
pub struct Network {
    switch: Process,
    ports: BTreeMap<String, u8>,
    /// What passes the frames of long lines on, and where it counts them.
    lines: BTreeMap<u8, (Process, PathBuf)>,
    directory: PathBuf,
}

impl Network {
    /// Makes an empty network; `directory` takes logs.
    ///
    /// # Errors
    /// The namespace or the bridge cannot be made.
    pub fn create(directory: &Path) -> Result<Self> {
        let switch =
            Launch::here("unshare").args(["--net", "--", "sleep", "infinity"]).start("switch", directory)?;
        let own = fs::read_link("/proc/self/ns/net")?;
        wait_for("the switch has its network namespace", Deadline::seconds(10), || {
            let namespace = fs::read_link(format!("/proc/{}/ns/net", switch.id()))?;
            Ok((namespace != own).then_some(()))
        })?;
        let network =
            Self { switch, ports: BTreeMap::new(), lines: BTreeMap::new(), directory: directory.to_owned() };
        network.ip(&["link", "add", "bridge", "type", "bridge"])?;
        network.ip(&["link", "set", "bridge", "up"])?;
        Ok(network)
    }

    /// Connects a machine and gives its address, 10.77.0.1 for the first.
    ///
    /// # Errors
    /// The cable cannot be made.
    pub fn attach(&mut self, machine: &Machine) -> Result<Ipv4Addr> {
        let number = self.next_port()?;
        let port = format!("port{number}");
        self.ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns"]
            .into_iter()
            .chain([machine.network_process().to_string().as_str()])
            .collect::<Vec<_>>())?;
        self.plug_in(machine, number)
    }

    /// As [`Network::attach`], by a long, bad line instead of a cable.
    ///
    /// # Errors
    /// The line cannot be made: the kernel may lack `/dev/net/tun`.
    pub fn attach_by_line(&mut self, machine: &Machine, line: &LongLine) -> Result<Ipv4Addr> {
        let number = self.next_port()?;
        let (port, far) = (format!("port{number}"), format!("far{number}"));
        let counts = self.directory.join(format!("line-{number}"));
        let mut process = self
            .inside(program_beside("long-line")?)
            .args(["--devices", &port, &far, "--delay-ms", &line.delay.as_millis().to_string()])
            .args(["--loss-percent", &line.loss_percent.to_string()])
            .args(["--seed", &(line.seed ^ u64::from(number)).to_string(), "--counts"])
            .arg(&counts)
            .start(&format!("{}-line", machine.name()), &self.directory)?;
        process.wait_ready(Deadline::seconds(60))?;
        self.ip(&["link", "set", &far, "netns", &machine.network_process().to_string(), "name", "eth0"])?;
        self.lines.insert(number, (process, counts));
        self.plug_in(machine, number)
    }

    fn next_port(&self) -> Result<u8> {
        u8::try_from(self.ports.len() + 1).context("too many machines")
    }

    fn plug_in(&mut self, machine: &Machine, number: u8) -> Result<Ipv4Addr> {
        self.ip(&["link", "set", &format!("port{number}"), "master", "bridge", "up"])?;
        let address = Ipv4Addr::new(10, 77, 0, number);
        machine.set_address(address)?;
        self.ports.insert(machine.name().to_owned(), number);
        Ok(address)
    }

    /// Tells what became of the frames of a machine's line so far; it is counted five times in a second.
    ///
    /// # Errors
    /// The machine has no such line, or the line is broken.
    pub fn line_counts(&self, machine: &Machine) -> Result<LineCounts> {
        let (_, path) = self
            .lines
            .get(&self.port(machine)?)
            .with_context(|| format!("machine {} has a cable", machine.name()))?;
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let counts: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        match counts[..] {
            [passed, lost, dropped] => Ok(LineCounts { passed, lost, dropped }),
            _ => anyhow::bail!("{} counts {text:?}", path.display()),
        }
    }

    /// Drops everything from and to a machine silently: its cable still looks connected.
    ///
    /// # Errors
    /// The machine is not on this network, or the filter cannot be set.
    pub fn cut(&self, machine: &Machine) -> Result<()> {
        self.filter(machine, &["iifname {} drop", "oifname {} drop"])
    }

    /// Drops everything a machine sends silently; what is sent to it still comes.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn cut_from(&self, machine: &Machine) -> Result<()> {
        self.filter(machine, &["iifname {} drop"])
    }

    /// Drops everything that is sent to a machine silently; what it sends still goes out.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn cut_to(&self, machine: &Machine) -> Result<()> {
        self.filter(machine, &["oifname {} drop"])
    }

    fn filter(&self, machine: &Machine, rules: &[&str]) -> Result<()> {
        let number = self.port(machine)?;
        let rules: Vec<_> =
            rules.iter().map(|rule| rule.replace("{}", &format!("\"port{number}\""))).collect();
        let table = format!(
            "table bridge cut{number} {{\nchain drops {{\ntype filter hook forward priority 0\n{}\n}}\n}}",
            rules.join("\n")
        );
        self.inside("nft").arg(table).run().map(|_| ())
    }

    /// Ends a silent cut.
    ///
    /// # Errors
    /// There was none.
    pub fn heal(&self, machine: &Machine) -> Result<()> {
        let number = self.port(machine)?;
        self.inside("nft").arg(format!("delete table bridge cut{number}")).run().map(|_| ())
    }

    /// Pulls a machine's cable: the machine notices.
    ///
    /// # Errors
    /// The machine is not on this network.
    pub fn unplug(&self, machine: &Machine) -> Result<()> {
        self.ip(&["link", "set", &format!("port{}", self.port(machine)?), "down"])
    }

    /// Puts the cable back.
    ///
    /// # Errors
    /// The machine is not on this network.
    pub fn plug(&self, machine: &Machine) -> Result<()> {
        self.ip(&["link", "set", &format!("port{}", self.port(machine)?), "up"])
    }

    fn port(&self, machine: &Machine) -> Result<u8> {
        self.ports
            .get(machine.name())
            .copied()
            .with_context(|| format!("machine {} is not on this network", machine.name()))
    }

    fn inside(&self, program: impl Into<PathBuf>) -> Launch {
        Launch::at(Place::Network(self.switch.id()), program)
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        self.inside("ip").args(arguments).run().map(|_| ())
    }
}
