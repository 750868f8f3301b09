//! What a publish server is told.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use anyhow::Context;
use clap::{Args, ValueEnum};
use hauberk_publish::cache::Method;
use hauberk_publish::server::{Listener, Meanwhile, Packing, PublishOptions, tls_acceptor};
use listenfd::ListenFd;

use crate::exit::{Exit, Failure};

/// How long a client that is told to come again may remember that.
const NOT_YET: Duration = Duration::from_secs(10);

/// What the publish server of a remote-server is told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Substitutes")]
pub(crate) struct Publish {
    /// Serve substitutes on this socket of the machine as well; may be given several times. systemd can hand over sockets too, and a
    /// port among them is used in place of the publish port
    #[arg(long, value_name = "PATH")]
    publish_socket: Vec<PathBuf>,

    /// Encrypt the publish port: the file with the certificate and those that lead to its authority (PEM). The publish URL must
    /// then begin with `https:`
    #[arg(long, value_name = "FILE", requires_all = ["publish_tls_key", "publish_url"])]
    publish_tls_certificate: Option<PathBuf>,

    /// The file with the certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "publish_tls_certificate")]
    publish_tls_key: Option<PathBuf>,

    /// Tell clients that they may remember a narinfo for so long, in seconds [default: nothing is told]
    #[arg(long, value_name = "SECONDS")]
    publish_ttl: Option<u64>,

    /// Tell clients that they may remember for so long that something is not here, in seconds; with 0 they
    /// ask each time, and so find what has been built since [default: 0]
    #[arg(long, value_name = "SECONDS")]
    publish_negative_ttl: Option<u64>,

    /// Pack items of the local store into the cache when they are asked for: `zstd`, `gzip` or `none`, with `:LEVEL` or without;
    /// several, separated by commas, for clients of Guix
    #[arg(long, value_name = "METHODS", value_delimiter = ',')]
    pack: Vec<Method>,

    /// Items packed at once
    #[arg(long, value_name = "N", default_value_t = 2, requires = "pack")]
    pack_threads: usize,

    /// Smaller items are served from the store, in KiB of nar
    #[arg(long, value_name = "KIB", default_value_t = 16, requires = "pack")]
    pack_at_least: u64,

    /// What clients get while an item is packed
    #[arg(long, value_enum, value_name = "WHAT", default_value = "stream", requires = "pack")]
    pack_meanwhile: WhilePacking,
}

/// What clients get while an item is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WhilePacking {
    /// The item as it comes from the store
    Stream,
    /// A 404 that is good for ten seconds
    NotYet,
}

impl Publish {
    /// Reads the files named, and makes the sockets.
    pub(crate) fn check(self) -> Result<PublishOptions, Failure> {
        let mut options = PublishOptions::default();
        for path in &self.publish_socket {
            let listener = listen(path).with_context(|| format!("cannot listen on {}", path.display()));
            options.listeners.push(listener.map_err(|error| Failure::new(Exit::Listen, error))?.into());
        }
        let activated = activated().context("cannot use a socket that was handed over");
        options.listeners.extend(activated.map_err(|error| Failure::new(Exit::Listen, error))?);
        if let (Some(certificate), Some(key)) = (&self.publish_tls_certificate, &self.publish_tls_key) {
            options.tls = Some(tls_acceptor(certificate, key).map_err(Failure::configuration)?);
        }
        options.ttl = self.publish_ttl.map(Duration::from_secs);
        options.negative_ttl = self.publish_negative_ttl.map(Duration::from_secs);
        if !self.pack.is_empty() {
            let mut packing = Packing::new(self.pack);
            packing.threads = self.pack_threads.clamp(1, 64);
            packing.least = self.pack_at_least.saturating_mul(1024);
            packing.meanwhile = match self.pack_meanwhile {
                WhilePacking::Stream => Meanwhile::Stream,
                WhilePacking::NotYet => Meanwhile::NotYet(NOT_YET),
            };
            options.packing = Some(packing);
        }
        Ok(options)
    }
}

/// Listens on a socket that everybody on the machine may use. One that a process left when it ended is replaced.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let left = path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
    if left && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Gives the sockets that systemd has made for this process.
fn activated() -> io::Result<Vec<Listener>> {
    let mut handed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..handed.len() {
        // Each is taken as what it is; the other way fails and leaves it.
        match handed.take_tcp_listener(index) {
            Ok(listener) => listeners.extend(listener.map(Listener::from)),
            Err(_) => listeners.extend(handed.take_unix_listener(index)?.map(Listener::from)),
        }
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_left_is_replaced_and_one_in_use_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = listen(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let _second = listen(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "kept").unwrap();
        listen(&file).unwrap_err();
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    }
}
