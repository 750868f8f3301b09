//! Why a server does not start, or ends.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use hauberk_daemon::DaemonError;
use hauberk_database::DatabaseError;
use hauberk_discovery::DiscoveryError;
use hauberk_protocol::socket::SocketError;
use hauberk_publish::cache::CacheError;
use hauberk_publish::client::ClientError;
use hauberk_publish::inbox::InboxError;
use hauberk_publish::products::ProductsError;
use hauberk_publish::server::ServeError;

use crate::trust::ProbeError;

/// Why a server does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The backend or log port cannot be used.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The publish port cannot be used.
    #[error("cannot listen on http://{address} for substitute clients")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The publish server ended.
    #[error("the publish server ended")]
    Publish(#[from] ServeError),
    /// The cache directory cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The directory of uploads cannot be used.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// The directory of build products cannot be used.
    #[error(transparent)]
    Products(#[from] ProductsError),
    /// The log directory cannot be used.
    #[error("cannot make the log directory {path}")]
    Logs {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The local build daemon cannot be used.
    #[error(
        "cannot use the local build daemon: start it, name its socket with --daemon, or serve without a store by --daemon none"
    )]
    Daemon(#[source] DaemonError),
    /// It is to hold no store.
    #[error("the server needs one store at least")]
    NoStore,
    /// The local daemon's store is another than the server's.
    #[error("the build daemon's store is {found}, and the server's {wanted}")]
    OtherStore {
        /// The daemon's.
        found: String,
        /// The server's.
        wanted: String,
    },
    /// The substitute client cannot be made.
    #[error("cannot make connections to workers")]
    Client(#[from] ClientError),
    /// The server cannot be announced.
    #[error("cannot announce the server by mDNS")]
    Discovery(#[from] DiscoveryError),
    /// No trust probe could be made.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// Another process serves under the same name.
    #[error("another remote-server named `{name}` has started; give each its own --name")]
    Superseded {
        /// The name.
        name: String,
    },
    /// Another server has taken over what this one had.
    #[error(
        "this server stood still, and another has taken over what it had; `{name}` is to be started again, and shares the work then"
    )]
    TakenOver {
        /// The name.
        name: String,
    },
    /// A part of the server ended by itself.
    #[error("the {part} ended by itself")]
    Ended {
        /// Which.
        part: &'static str,
    },
}
