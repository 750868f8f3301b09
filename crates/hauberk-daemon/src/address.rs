//! Where a build daemon listens.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use hauberk_store::StoreDirectory;

/// The socket of the Nix daemon where nothing else is configured.
pub const NIX_SOCKET: &str = "/nix/var/nix/daemon-socket/socket";

/// The socket of the Guix daemon where nothing else is configured.
pub const GUIX_SOCKET: &str = "/var/guix/daemon-socket/socket";

/// Names the Unix socket of a build daemon: an absolute path, or `unix://PATH`.
///
/// The words `nix` and `guix` stand for the sockets the two daemons have by default. A query (`?root=…`), which the
/// `nix` programs accept behind the path, is ignored: it only matters to clients that read the store's files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DaemonAddress(PathBuf);

/// A text that names no daemon socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no daemon address: give an absolute socket path, unix://PATH, nix or guix")]
pub struct InvalidDaemonAddress {
    /// The text given, cut after 255 characters.
    pub text: String,
}

impl DaemonAddress {
    /// Gives the default socket of the Nix daemon.
    pub fn nix() -> Self {
        Self(NIX_SOCKET.into())
    }

    /// Gives the default socket of the Guix daemon.
    pub fn guix() -> Self {
        Self(GUIX_SOCKET.into())
    }

    /// Takes the path of a socket.
    pub fn from_path(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Reads an absolute path, `unix://PATH`, `nix` or `guix`.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidDaemonAddress> {
        let path = match text {
            "nix" | "daemon" => return Ok(Self::nix()),
            "guix" => return Ok(Self::guix()),
            _ => match text.strip_prefix("unix://") {
                Some(rest) => rest.split_once('?').map_or(rest, |(path, _)| path),
                None => text,
            },
        };
        if path.len() > 1 && path.starts_with('/') && !path.contains('\0') {
            Ok(Self(path.into()))
        } else {
            Err(InvalidDaemonAddress { text: text.chars().take(255).collect() })
        }
    }

    /// Gives the path of the socket.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Gives what stands before `directory` in the real paths of the daemon's files, `/` as a rule: a daemon in a mount
    /// namespace of its own has its socket, and its store, below a directory of this one.
    pub fn store_root(&self, directory: &StoreDirectory) -> PathBuf {
        for socket in [NIX_SOCKET, GUIX_SOCKET] {
            let root = self.0.to_str().and_then(|path| path.strip_suffix(&socket[1..])).map(PathBuf::from);
            if let Some(root) = root
                && root.join(directory.as_str().trim_start_matches('/')).is_dir()
            {
                return root;
            }
        }
        PathBuf::from("/")
    }
}

impl fmt::Display for DaemonAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl FromStr for DaemonAddress {
    type Err = InvalidDaemonAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_paths_and_urls() {
        let check = |text: &str, path: Option<&str>| {
            let parsed = DaemonAddress::parse(text).ok();
            assert_eq!(parsed.as_ref().map(DaemonAddress::path), path.map(Path::new), "{text:?}");
        };
        check("/run/socket", Some("/run/socket"));
        check("unix:///run/socket", Some("/run/socket"));
        check("unix:///run/socket?root=/lab", Some("/run/socket"));
        check("nix", Some(NIX_SOCKET));
        check("guix", Some(GUIX_SOCKET));
        for bad in ["", "/", "run/socket", "unix://", "unix://run", "ssh://host", "/a\0b"] {
            check(bad, None);
        }
    }
    #[test]
    fn the_store_of_a_daemon_elsewhere_is_found_by_its_socket() {
        let machine = std::env::temp_dir().join(format!("hauberk-daemon-root-{}", std::process::id()));
        std::fs::create_dir_all(machine.join("nix/store")).unwrap();
        let root = |socket: &Path| DaemonAddress::from_path(socket).store_root(&StoreDirectory::nix());
        let found = root(&machine.join("nix/var/nix/daemon-socket/socket"));
        std::fs::remove_dir_all(&machine).unwrap();
        assert_eq!(found.components().collect::<PathBuf>(), machine);
        assert_eq!(root(Path::new("/run/nix.socket")), Path::new("/"));
    }
}
