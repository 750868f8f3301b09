//! The build daemon that holds the store, as evaluators and we reach it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hauberk_daemon::{
    BuildDaemon, ConnectOptions, Connection, DaemonAddress, DaemonError, InvalidDaemonAddress, Keeper,
    NIX_SOCKET,
};
use hauberk_store::StorePath;

/// A build daemon: its socket and, where the store's files are not below `/`, their root.
///
/// Written as the `nix` programs have it: `PATH`, `unix://PATH` or `unix://PATH?root=DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NixDaemon {
    address: DaemonAddress,
    root: Option<PathBuf>,
}

impl NixDaemon {
    /// Gives what `NIX_REMOTE` has to be for the `nix` programs to use it.
    pub fn remote(&self) -> String {
        match &self.root {
            None if self.address.path() == Path::new(NIX_SOCKET) => "daemon".to_owned(),
            None => format!("unix://{}", self.address),
            Some(root) => format!("unix://{}?root={}", self.address, root.display()),
        }
    }

    /// Gives the socket.
    pub fn address(&self) -> &DaemonAddress {
        &self.address
    }

    /// Connects to it.
    pub(crate) async fn connect(&self) -> Result<Box<dyn BuildDaemon>, DaemonError> {
        Ok(Box::new(Connection::connect(&self.address, &ConnectOptions::default()).await?))
    }

    /// Gives a keeper of paths in its store.
    pub(crate) fn keeper(&self) -> Keeper {
        Keeper::to_socket(self.address.clone(), ConnectOptions::default())
    }

    /// Tells where the file of a store path is, as we see it.
    pub(crate) fn file(&self, path: &StorePath) -> PathBuf {
        let full = path.to_string();
        match &self.root {
            Some(root) => root.join(full.trim_start_matches('/')),
            None => full.into(),
        }
    }
}

impl Default for NixDaemon {
    fn default() -> Self {
        Self { address: DaemonAddress::nix(), root: None }
    }
}

impl FromStr for NixDaemon {
    type Err = InvalidDaemonAddress;

    fn from_str(text: &str) -> Result<Self, InvalidDaemonAddress> {
        let address = DaemonAddress::parse(text)?;
        let query = text.strip_prefix("unix://").and_then(|rest| rest.split_once('?'));
        let root = query
            .iter()
            .flat_map(|(_, query)| query.split('&'))
            .find_map(|pair| pair.strip_prefix("root="))
            .map(PathBuf::from);
        Ok(Self { address, root })
    }
}

impl fmt::Display for NixDaemon {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_named_as_nix_names_them() {
        let path = StorePath::parse("/nix/store/45rrqddcql46lzs8nma7hncjl4cvy7df-simple").unwrap();
        for (text, remote, file) in [
            ("/nix/var/nix/daemon-socket/socket", "daemon", "/nix/store"),
            ("nix", "daemon", "/nix/store"),
            ("/m/socket", "unix:///m/socket", "/nix/store"),
            ("unix:///m/socket?root=/m", "unix:///m/socket?root=/m", "/m/nix/store"),
        ] {
            let daemon: NixDaemon = text.parse().unwrap();
            assert_eq!(daemon.remote(), remote);
            assert!(daemon.file(&path).starts_with(file), "{text}");
        }
        assert!("socket".parse::<NixDaemon>().is_err());
    }
}
