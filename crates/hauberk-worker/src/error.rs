//! Why a worker ended.

use hauberk_daemon::{DaemonAddress, DaemonError};
use hauberk_discovery::DiscoveryError;
use hauberk_protocol::proto::RefusedReason;
use hauberk_protocol::socket::SocketError;

use crate::spool::SpoolError;

/// Why a worker did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A value of the configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// The spool cannot be used.
    #[error("cannot use the spool")]
    Spool(#[source] SpoolError),
    /// The build daemon cannot be used.
    #[error(
        "cannot use the build daemon at {address}: is nix-daemon running? Start it, or name its socket with --daemon"
    )]
    Daemon {
        /// Its socket.
        address: DaemonAddress,
        /// What went wrong.
        #[source]
        source: DaemonError,
    },
    /// The build daemon does not accept the server's key.
    #[error("{message}")]
    Untrusted {
        /// What was refused, and the commands that mend it.
        message: String,
    },
    /// The publish server cannot listen, or has ended.
    #[error("the publish server does not serve: {message}")]
    Listen {
        /// Where, why, and the way out.
        message: String,
    },
    /// The server does not want this worker.
    #[error("the server refuses this worker ({}): {message}", reason_words(*.reason))]
    Refused {
        /// Its reason.
        reason: RefusedReason,
        /// Its words.
        message: String,
    },
    /// A socket cannot be made.
    #[error("cannot connect to the server")]
    Socket(#[source] SocketError),
    /// Servers cannot be looked for by mDNS.
    #[error("cannot look for servers by mDNS")]
    Discovery(#[source] DiscoveryError),
}

/// Says what a reason means and what can be done about it.
const fn reason_words(reason: RefusedReason) -> &'static str {
    match reason {
        RefusedReason::Unspecified => "for a reason this version does not know",
        RefusedReason::NotEnrolled => {
            "its key is not enrolled: start it with --enrol and a token, or run `hauberk worker add` on the server"
        }
        RefusedReason::Revoked => "its key was revoked",
        RefusedReason::Protocol => "the versions do not fit: update the older side",
        RefusedReason::NameTaken => "another worker has its name: choose one with --name",
        RefusedReason::SigningKey => "its signing key is not the one it was enrolled with",
        RefusedReason::StoreDirectory => "the farm does not build for its store directory",
        RefusedReason::BadHello => "its hello is not acceptable",
        RefusedReason::BadToken => "its enrolment token is not valid",
        RefusedReason::Superseded => "another process has joined with its key",
        RefusedReason::NotReady => "the server is not ready",
    }
}
