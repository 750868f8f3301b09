//! Why a socket cannot be made or used.

use std::io;
use std::net::SocketAddr;

/// Why a socket cannot be made, or has stopped working.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The linked libzmq was built without encryption.
    #[error(
        "libzmq {version} was built without CURVE: link one that was built with libsodium (Debian: libzmq3-dev), or pass \
         --insecure on a network that you trust"
    )]
    NoCurve {
        /// Version of the linked library.
        version: String,
    },
    /// Another program, or another socket of this one, listens there.
    #[error("cannot listen on tcp://{endpoint}: the port is in use")]
    InUse {
        /// Where it was to listen.
        endpoint: SocketAddr,
    },
    /// The system does not let us listen there.
    #[error("cannot listen on tcp://{endpoint}")]
    Bind {
        /// Where it was to listen.
        endpoint: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection cannot even be tried.
    #[error("cannot connect to tcp://{endpoint}")]
    Connect {
        /// Where to.
        endpoint: SocketAddr,
        /// What libzmq said.
        #[source]
        source: io::Error,
    },
    /// A socket or the thread that admits keys cannot be set up.
    #[error("cannot {operation}")]
    Setup {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The socket does not work any more.
    #[error("cannot {operation}")]
    Broken {
        /// What was tried.
        operation: &'static str,
        /// What libzmq said.
        #[source]
        source: io::Error,
    },
}

impl SocketError {
    pub(super) fn setup(operation: &'static str) -> impl FnOnce(zmq::Error) -> Self {
        move |error| Self::Setup { operation, source: error.into() }
    }

    pub(super) fn broken(operation: &'static str) -> impl FnOnce(zmq::Error) -> Self {
        move |error| Self::Broken { operation, source: error.into() }
    }
}

/// Why a frame was not taken for sending.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The frame is larger than the peer takes; it would close the connection.
    #[error("frame of {size} bytes cannot be sent, at most {limit} are allowed")]
    TooLarge {
        /// Bytes in the frame.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// No connection has this routing id any more.
    #[error("the peer is gone")]
    PeerGone,
    /// The queue to the peer is full, or no connection stands.
    #[error("the queue to the peer is full, or it is not connected")]
    Full,
    /// The socket does not work any more.
    #[error(transparent)]
    Socket(#[from] SocketError),
}
