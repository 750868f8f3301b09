//! Which network interfaces are spoken on.

use mdns_sd::{IfKind, ServiceDaemon};
use tracing::warn;

use crate::DiscoveryError;

/// The network interfaces on which a server is announced or searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interfaces {
    /// All, loopback too, and those that come later.
    All,
    /// Only loopback: this machine.
    Loopback,
    /// Those of these names, now or when they come.
    Named(Vec<String>),
}

impl Interfaces {
    /// Starts a thread that speaks mDNS on these interfaces and no others.
    pub(crate) fn start(&self) -> Result<ServiceDaemon, DiscoveryError> {
        let daemon = ServiceDaemon::new().map_err(DiscoveryError::mdns("start a thread that speaks"))?;
        let choosing = || DiscoveryError::mdns("choose the interfaces");
        let chosen = match self {
            Self::All => return Ok(daemon),
            Self::Loopback => vec![IfKind::LoopbackV4, IfKind::LoopbackV6],
            Self::Named(names) => {
                for name in names.iter().filter(|name| !exists(name)) {
                    warn!(interface.name = %name, "there is no network interface {name} now");
                }
                names.iter().cloned().map(IfKind::Name).collect()
            }
        };
        daemon.disable_interface(IfKind::All).map_err(choosing())?;
        daemon.enable_interface(chosen).map_err(choosing())?;
        Ok(daemon)
    }
}

/// Tells whether this process sees an interface of that name. (`/sys` may show those of another network namespace.)
fn exists(name: &str) -> bool {
    let Ok(interfaces) = std::fs::read_to_string("/proc/self/net/dev") else { return true };
    interfaces.lines().filter_map(|line| line.split_once(':')).any(|(known, _)| known.trim() == name)
}

#[cfg(test)]
mod tests {
    use super::exists;

    #[test]
    fn interfaces_are_known_by_their_names() {
        assert!(exists("lo"));
        assert!(!exists("no-such-link"));
        assert!(!exists(""));
    }
}
