//! How sockets are set up.

use std::time::Duration;

use super::error::SocketError;
use crate::keys::{CurveKeyPair, CurvePublicKey};
use crate::message::{BACKEND_FRAME_LIMIT, LOG_FRAME_LIMIT};

/// Bytes that encryption adds to a frame; libzmq counts them, we do not.
const ENCRYPTION_OVERHEAD: usize = 64;

/// A peer whose machine is silent for so long is asked by the server's kernel whether it is there, in seconds.
///
/// Routers send no heartbeats of ZeroMQ's: libzmq keeps the timers of all connections in one list, and walks through it whenever one
/// of them is taken off, which is at each frame. With a thousand idle peers that was half of a server's processor time.
const KEEPALIVE_IDLE: i32 = 30;
/// The pause between such questions, in seconds, and how many remain unanswered before the connection is given up.
const KEEPALIVE_INTERVAL: i32 = 10;
const KEEPALIVE_COUNT: i32 = 3;

/// How long what was sent may take to leave after its socket is dropped.
const LINGER: Duration = Duration::from_secs(2);

/// How a server's socket is protected.
#[derive(Debug, Clone, Copy)]
pub enum ServerSecurity<'a> {
    /// Encrypted, with this key pair; peers are authenticated by their keys.
    Curve(&'a CurveKeyPair),
    /// Neither encrypted nor authenticated, for a network that is trusted.
    Insecure,
}

/// How a client's socket is protected.
#[derive(Debug, Clone, Copy)]
pub enum ClientSecurity<'a> {
    /// Encrypted; only a server that owns `server` can answer.
    Curve {
        /// The client's own key pair.
        keys: &'a CurveKeyPair,
        /// The server's public key.
        server: &'a CurvePublicKey,
    },
    /// Neither encrypted nor authenticated, for a network that is trusted.
    Insecure,
}

/// What a [`super::RouterSocket`] allows its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterOptions {
    /// Bytes in the largest frame; a peer that sends more is disconnected.
    pub frame_limit: usize,
    /// Frames of one peer that wait to be received before it is no longer read from.
    pub receive_queue: u32,
    /// Frames that wait for one peer before [`super::SendError::Full`].
    pub send_queue: u32,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
}

impl RouterOptions {
    /// Gives the options of a backend port.
    pub fn backend() -> Self {
        Self {
            frame_limit: BACKEND_FRAME_LIMIT,
            receive_queue: 256,
            send_queue: 1024,
            handshake_timeout: Duration::from_secs(10),
        }
    }

    /// Gives the options of a log port: fewer frames wait there, and the senders' windows bound what is under way.
    pub fn logs() -> Self {
        Self { frame_limit: LOG_FRAME_LIMIT, receive_queue: 64, send_queue: 1024, ..Self::backend() }
    }

    pub(super) fn apply(
        &self,
        socket: &zmq::Socket,
        security: &ServerSecurity<'_>,
    ) -> Result<(), SocketError> {
        self.apply_options(socket).map_err(SocketError::setup("set the options of a ROUTER socket"))?;
        match security {
            ServerSecurity::Curve(keys) => {
                curve_server(socket, keys).map_err(SocketError::setup("set a server's keys"))
            }
            ServerSecurity::Insecure => Ok(()),
        }
    }

    fn apply_options(&self, socket: &zmq::Socket) -> zmq::Result<()> {
        // Sending to a peer that is gone is an error, not silence.
        socket.set_router_mandatory(true)?;
        // Routing ids are made here and never taken over: a peer that chooses one must not get another's messages.
        socket.set_router_handover(false)?;
        socket.set_maxmsgsize(wire_limit(self.frame_limit))?;
        socket.set_rcvhwm(count(self.receive_queue))?;
        socket.set_sndhwm(count(self.send_queue))?;
        socket.set_tcp_keepalive(1)?;
        socket.set_tcp_keepalive_idle(KEEPALIVE_IDLE)?;
        socket.set_tcp_keepalive_intvl(KEEPALIVE_INTERVAL)?;
        socket.set_tcp_keepalive_cnt(KEEPALIVE_COUNT)?;
        socket.set_handshake_ivl(milliseconds(self.handshake_timeout))?;
        // A farm's workers come all at once after a restart; with the default of 100 they would wait for TCP's retries.
        socket.set_backlog(2048)?;
        socket.set_linger(milliseconds(LINGER))
    }
}

/// How a [`super::DealerSocket`] connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DealerOptions {
    /// Bytes in the largest frame; a server that sends more is disconnected.
    pub frame_limit: usize,
    /// Frames that wait to be received before the server is no longer read from.
    pub receive_queue: u32,
    /// Frames that wait for the server before [`super::SendError::Full`].
    pub send_queue: u32,
    /// How often the server is asked whether it is there.
    pub heartbeat_interval: Duration,
    /// How long it may take to answer before the connection is given up and made anew.
    pub heartbeat_timeout: Duration,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// The pause before the first new try.
    pub reconnect_interval: Duration,
    /// The longest pause before a new try; the pauses double up to it.
    pub reconnect_interval_max: Duration,
}

impl DealerOptions {
    /// Gives the options for a backend port.
    pub fn backend() -> Self {
        Self {
            frame_limit: BACKEND_FRAME_LIMIT,
            receive_queue: 1024,
            send_queue: 1024,
            // Both together, and a new connection, stay below a lease.
            heartbeat_interval: Duration::from_secs(20),
            heartbeat_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            reconnect_interval: Duration::from_millis(100),
            reconnect_interval_max: Duration::from_secs(10),
        }
    }

    /// Gives the options for a log port.
    pub fn logs() -> Self {
        Self { frame_limit: LOG_FRAME_LIMIT, send_queue: 64, ..Self::backend() }
    }

    pub(super) fn apply(
        &self,
        socket: &zmq::Socket,
        security: &ClientSecurity<'_>,
    ) -> Result<(), SocketError> {
        self.apply_options(socket).map_err(SocketError::setup("set the options of a DEALER socket"))?;
        match security {
            ClientSecurity::Curve { keys, server } => {
                curve_client(socket, keys, server).map_err(SocketError::setup("set a client's keys"))
            }
            ClientSecurity::Insecure => Ok(()),
        }
    }

    fn apply_options(&self, socket: &zmq::Socket) -> zmq::Result<()> {
        // A frame goes to a standing connection or is refused; it never waits for a session that will not know it.
        socket.set_immediate(true)?;
        socket.set_maxmsgsize(wire_limit(self.frame_limit))?;
        socket.set_rcvhwm(count(self.receive_queue))?;
        socket.set_sndhwm(count(self.send_queue))?;
        socket.set_heartbeat_ivl(milliseconds(self.heartbeat_interval))?;
        socket.set_heartbeat_timeout(milliseconds(self.heartbeat_timeout))?;
        socket.set_handshake_ivl(milliseconds(self.handshake_timeout))?;
        socket.set_connect_timeout(milliseconds(self.connect_timeout))?;
        socket.set_reconnect_ivl(milliseconds(self.reconnect_interval))?;
        socket.set_reconnect_ivl_max(milliseconds(self.reconnect_interval_max))?;
        socket.set_linger(milliseconds(LINGER))
    }
}

fn curve_server(socket: &zmq::Socket, keys: &CurveKeyPair) -> zmq::Result<()> {
    socket.set_zap_domain("hauberk")?;
    socket.set_curve_server(true)?;
    socket.set_curve_secretkey(keys.secret().as_bytes())
}

fn curve_client(socket: &zmq::Socket, keys: &CurveKeyPair, server: &CurvePublicKey) -> zmq::Result<()> {
    socket.set_curve_serverkey(server.as_bytes())?;
    socket.set_curve_publickey(keys.public().as_bytes())?;
    socket.set_curve_secretkey(keys.secret().as_bytes())
}

fn wire_limit(frame_limit: usize) -> i64 {
    i64::try_from(frame_limit.saturating_add(ENCRYPTION_OVERHEAD)).unwrap_or(i64::MAX)
}

/// A queue of 0 frames would mean one without limit.
fn count(frames: u32) -> i32 {
    i32::try_from(frames.max(1)).unwrap_or(i32::MAX)
}

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
