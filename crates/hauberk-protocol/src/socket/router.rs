//! The server's end: one socket, many peers.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use bytes::Bytes;
use tokio::task::consume_budget;
use tracing::debug;

use super::admission::parse_peer_address;
use super::context::Context;
use super::error::{SendError, SocketError};
use super::options::{RouterOptions, ServerSecurity};
use super::readiness::{AsyncSocket, Part};
use crate::keys::CurvePublicKey;

/// Names one connection of a peer, as long as it stands. A peer that connects again gets another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoutingId([u8; 5]);

impl RoutingId {
    /// Makes the id that a socket gives the connection of this number; for tests of what stands on routing ids.
    pub fn from_number(number: u32) -> Self {
        let [a, b, c, d] = number.to_be_bytes();
        Self([0, a, b, c, d])
    }

    /// Takes the bytes of an id that the socket made: five, the first of them 0. What a peer chose itself is refused.
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().filter(|id: &[u8; 5]| id[0] == 0).map(Self)
    }
}

impl fmt::Display for RoutingId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[1..].iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for RoutingId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RoutingId({self})")
    }
}

/// A frame, and who sent it.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The connection it came by, to send answers to.
    pub routing_id: RoutingId,
    /// The key that the sender has proved to own; always there on a socket with [`ServerSecurity::Curve`], never on
    /// one without.
    pub user: Option<CurvePublicKey>,
    /// Where the sender is.
    pub peer_address: Option<IpAddr>,
    /// What it sent.
    pub frame: Bytes,
}

/// Why something that arrived is not a frame for us.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Discarded {
    #[error("not exactly one part")]
    Parts,
    #[error("the peer chose its routing id itself")]
    ChosenRoutingId,
    #[error("larger than a frame may be")]
    TooLarge,
    #[error("without an authenticated key")]
    Anonymous,
}

/// A listening socket of the server. One task owns it.
pub struct RouterSocket {
    // Dropped before the context, which else could not end.
    socket: AsyncSocket,
    endpoint: SocketAddr,
    encrypted: bool,
    frame_limit: usize,
    discarded: u64,
    _context: Context,
}

impl RouterSocket {
    /// Listens on `endpoint`. With port 0 the system chooses one, see [`RouterSocket::endpoint`]; `[::]` takes IPv4 as well.
    ///
    /// # Errors
    ///
    /// Fails when the port is in use or not allowed, or, with [`ServerSecurity::Curve`], when libzmq cannot encrypt.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn bind(
        context: &Context,
        endpoint: SocketAddr,
        security: ServerSecurity<'_>,
        options: &RouterOptions,
    ) -> Result<Self, SocketError> {
        let encrypted = matches!(security, ServerSecurity::Curve(_));
        if encrypted {
            super::require_curve()?;
            context.admit()?;
        }
        let socket = context.socket(zmq::ROUTER)?;
        options.apply(&socket, &security)?;
        if endpoint.is_ipv6() {
            socket.set_ipv6(true).map_err(SocketError::setup("let a socket use IPv6"))?;
        }
        check_free(endpoint)?;
        let bind_error = |error: zmq::Error| match error {
            zmq::Error::EADDRINUSE => SocketError::InUse { endpoint },
            other => SocketError::Bind { endpoint, source: other.into() },
        };
        socket.bind(&format!("tcp://{endpoint}")).map_err(bind_error)?;
        let bound = socket.get_last_endpoint().map_err(bind_error)?;
        let bound =
            bound.ok().and_then(|text| parse_endpoint(&text, endpoint)).ok_or_else(|| SocketError::Bind {
                endpoint,
                source: io::Error::other("the system does not tell the port it chose"),
            })?;
        Ok(Self {
            socket: AsyncSocket::new(socket)?,
            endpoint: bound,
            encrypted,
            frame_limit: options.frame_limit,
            discarded: 0,
            _context: context.clone(),
        })
    }

    /// Gives the address it listens on, with the real port.
    pub fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// Counts what arrived since the start and was not a frame for us: wrong parts, a chosen routing id, too large.
    pub fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Waits for the next frame. Cancel-safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// Fails when the socket does not work any more; no peer can cause that.
    pub async fn recv(&mut self) -> Result<Incoming, SocketError> {
        loop {
            consume_budget().await;
            match self.take()? {
                Some(Ok(incoming)) => return Ok(incoming),
                Some(Err(_)) => {}
                None => self.socket.wait(zmq::POLLIN).await?,
            }
        }
    }

    /// Takes the next frame if one has arrived already, to handle many in one go.
    ///
    /// # Errors
    ///
    /// As [`RouterSocket::recv`].
    pub fn try_recv(&mut self) -> Result<Option<Incoming>, SocketError> {
        Ok(self.take()?.and_then(Result::ok))
    }

    /// Sends a frame by one connection, at once or not at all.
    ///
    /// # Errors
    ///
    /// [`SendError::PeerGone`] when the connection stands no longer, [`SendError::Full`] when the peer does not take what was
    /// sent before; other peers are not kept waiting for it.
    pub fn send(&mut self, to: RoutingId, frame: &[u8]) -> Result<(), SendError> {
        if frame.len() > self.frame_limit {
            return Err(SendError::TooLarge { size: frame.len(), limit: self.frame_limit });
        }
        match self.try_send(to, frame) {
            // The socket may not have looked at its peers' acknowledgements lately: let it, and try again.
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => {
                self.socket.is(zmq::POLLOUT)?;
                self.try_send(to, frame)
            }
            other => other,
        }
        .map_err(|error| match error {
            zmq::Error::EHOSTUNREACH => SendError::PeerGone,
            zmq::Error::EAGAIN | zmq::Error::EINTR => SendError::Full,
            other => SocketError::broken("send by a ROUTER socket")(other).into(),
        })
    }

    /// Only the first part can be refused; the second follows without an await between them.
    fn try_send(&mut self, to: RoutingId, frame: &[u8]) -> zmq::Result<()> {
        let socket = self.socket.get();
        socket.send(&to.0[..], zmq::DONTWAIT | zmq::SNDMORE)?;
        loop {
            match socket.send(frame, zmq::DONTWAIT) {
                // A message that was begun must be ended, or the next would continue it.
                Err(zmq::Error::EINTR) => {}
                other => return other,
            }
        }
    }

    fn take(&mut self) -> Result<Option<Result<Incoming, Discarded>>, SocketError> {
        if !self.socket.is(zmq::POLLIN)? {
            return Ok(None);
        }
        let Some(routing_id) = self.socket.try_take()? else { return Ok(None) };
        let mut frame = None;
        let mut parts = 0_u32;
        let mut more = routing_id.get_more();
        // Once the first part is there, so are the others. A peer may send any number; only one is kept.
        while more {
            let Some(part) = self.socket.try_take()? else { break };
            more = part.get_more();
            parts = parts.saturating_add(1);
            frame = Some(part);
        }
        let incoming = match frame {
            Some(frame) if parts == 1 => self.accept(&routing_id, frame),
            _ => Err(Discarded::Parts),
        };
        if let Err(reason) = &incoming {
            self.discarded += 1;
            debug!(reason = %reason, "discarded what a peer sent: {reason}");
        }
        Ok(Some(incoming))
    }

    fn accept(&self, routing_id: &[u8], mut frame: zmq::Message) -> Result<Incoming, Discarded> {
        let routing_id = RoutingId::read(routing_id).ok_or(Discarded::ChosenRoutingId)?;
        if frame.len() > self.frame_limit {
            return Err(Discarded::TooLarge);
        }
        let user = if self.encrypted {
            let key = frame.gets("User-Id").and_then(|text| text.parse().ok());
            Some(key.ok_or(Discarded::Anonymous)?)
        } else {
            None
        };
        let peer_address = frame.gets("Peer-Address").and_then(parse_peer_address);
        Ok(Incoming { routing_id, user, peer_address, frame: Bytes::from_owner(Part(frame)) })
    }
}

impl fmt::Debug for RouterSocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RouterSocket").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Finds out whether we may listen on `endpoint`, and says why not in the system's own words. The `zmq` crate
/// panics on errors that it does not know, such as an address family the kernel lacks.
fn check_free(endpoint: SocketAddr) -> Result<(), SocketError> {
    match TcpListener::bind(endpoint) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(SocketError::InUse { endpoint }),
        Err(source) => Err(SocketError::Bind { endpoint, source }),
    }
}

/// Reads what libzmq says it is bound to; an address that it writes otherwise than we do is the one asked for, with its port.
fn parse_endpoint(text: &str, asked: SocketAddr) -> Option<SocketAddr> {
    let text = text.strip_prefix("tcp://")?;
    if let Ok(endpoint) = text.parse() {
        return Some(endpoint);
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let address = match (host, asked.ip()) {
        ("*", IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        ("*", IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        (_, address) => address,
    };
    Some(SocketAddr::new(address, port))
}
