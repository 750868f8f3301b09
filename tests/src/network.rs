//! A network of machines.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, path::Path};

use anyhow::{Context, Result};

use crate::{
    launch::{Launch, Place},
    machine::Machine,
    process::Process,
    wait::{Deadline, wait_for},
};

/// A bridge in a network namespace of its own, and a cable from it to each machine. The computer itself is not on it.
#[derive(Debug)]
pub struct Network {
    switch: Process,
    ports: BTreeMap<String, u8>,
}

impl Network {
    /// Makes an empty network; `directory` takes a log.
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
        let network = Self { switch, ports: BTreeMap::new() };
        network.ip(&["link", "add", "bridge", "type", "bridge"])?;
        network.ip(&["link", "set", "bridge", "up"])?;
        Ok(network)
    }

    /// Connects a machine and gives its address, 10.77.0.1 for the first.
    ///
    /// # Errors
    /// The cable cannot be made.
    pub fn attach(&mut self, machine: &Machine) -> Result<Ipv4Addr> {
        let number = u8::try_from(self.ports.len() + 1).context("too many machines")?;
        let port = format!("port{number}");
        self.ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns"]
            .into_iter()
            .chain([machine.network_process().to_string().as_str()])
            .collect::<Vec<_>>())?;
        self.ip(&["link", "set", &port, "master", "bridge", "up"])?;
        let address = Ipv4Addr::new(10, 77, 0, number);
        machine.set_address(address)?;
        self.ports.insert(machine.name().to_owned(), number);
        Ok(address)
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

    /// Loses so many of a hundred packets from and to a machine, at random.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn lose(&self, machine: &Machine, percent: u8) -> Result<()> {
        self.filter(
            machine,
            &[
                &format!("iifname {{}} numgen random mod 100 < {percent} drop"),
                &format!("oifname {{}} numgen random mod 100 < {percent} drop"),
            ],
        )
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

    /// Ends a silent cut, or loss.
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

    fn inside(&self, program: &str) -> Launch {
        Launch::at(Place::Network(self.switch.id()), program)
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        self.inside("ip").args(arguments).run().map(|_| ())
    }
}
