//! The worker's end: one socket, one server.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::consume_budget;
use tracing::debug;

use super::context::Context;
use super::error::{SendError, SocketError};
use super::options::{ClientSecurity, DealerOptions};
use super::readiness::{AsyncSocket, Part};

/// Tells the monitors of different sockets apart.
static MONITORS: AtomicU64 = AtomicU64::new(0);

/// What happens on a [`DealerSocket`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DealerEvent {
    /// The server sent a frame.
    Frame(Bytes),
    /// The connection changed.
    Connection(ConnectionEvent),
}

/// A change of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// The handshake succeeded: with CURVE, the server owns the expected key. Frames can be sent.
    Connected,
    /// The server knows our key and does not want it. libzmq does not try again: drop the socket.
    Refused {
        /// The status the server gave, 400 for a key that is refused.
        status: u32,
    },
    /// The handshake failed. It is tried again every [`DealerOptions::reconnect_interval`] or so, for ever.
    HandshakeFailed(HandshakeFailure),
    /// A connection that stood is lost. It is made anew.
    Disconnected,
    /// The server cannot be reached; the next try follows after a pause.
    Unreachable {
        /// The pause.
        retry_after: Duration,
    },
}

/// How a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The server hung up: it owns another key than the expected one, or it is no ZeroMQ server.
    HungUp,
    /// One side encrypts and the other does not.
    Mechanism,
    /// The server did not keep to ZeroMQ's protocol; libzmq's code says how.
    Protocol {
        /// One of libzmq's `ZMQ_PROTOCOL_ERROR_…`.
        code: u32,
    },
}

impl fmt::Display for ConnectionEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => formatter.write_str("connected"),
            Self::Refused { status } => {
                write!(formatter, "the server refuses this worker's key (status {status})")
            }
            Self::HandshakeFailed(failure) => write!(formatter, "the handshake failed: {failure}"),
            Self::Disconnected => formatter.write_str("the connection was lost"),
            Self::Unreachable { retry_after } => {
                write!(
                    formatter,
                    "the server cannot be reached, trying again in {} ms",
                    retry_after.as_millis()
                )
            }
        }
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HungUp => formatter.write_str(
                "the server hung up; it has probably another key than the expected one, or is no hauberk server",
            ),
            Self::Mechanism => formatter.write_str("one side encrypts and the other does not (--insecure)"),
            Self::Protocol { code } => write!(formatter, "the server broke ZeroMQ's protocol (code {code:#010x})"),
        }
    }
}

impl ConnectionEvent {
    /// Reads the first part of a monitor's message: the event, two bytes, and its value, four, in the machine's order.
    fn read(part: &[u8]) -> Option<Self> {
        use zmq::SocketEvent as Event;
        /// `ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH` of zmq.h.
        const MECHANISM_MISMATCH: u32 = 0x1100_0001;

        let (event, value) = part.split_first_chunk::<2>()?;
        let event = u16::from_ne_bytes(*event);
        let value = u32::from_ne_bytes(value.try_into().ok()?);
        let is = |known: Event| known.to_raw() == event;
        if is(Event::HANDSHAKE_SUCCEEDED) {
            Some(Self::Connected)
        } else if is(Event::HANDSHAKE_FAILED_AUTH) {
            Some(Self::Refused { status: value })
        } else if is(Event::HANDSHAKE_FAILED_NO_DETAIL) {
            Some(Self::HandshakeFailed(HandshakeFailure::HungUp))
        } else if is(Event::HANDSHAKE_FAILED_PROTOCOL) {
            Some(Self::HandshakeFailed(match value {
                MECHANISM_MISMATCH => HandshakeFailure::Mechanism,
                code => HandshakeFailure::Protocol { code },
            }))
        } else if is(Event::DISCONNECTED) {
            Some(Self::Disconnected)
        } else if is(Event::CONNECT_RETRIED) {
            Some(Self::Unreachable { retry_after: Duration::from_millis(value.into()) })
        } else {
            None
        }
    }
}

/// The events that [`ConnectionEvent::read`] knows.
fn watched_events() -> i32 {
    use zmq::SocketEvent as Event;
    [
        Event::HANDSHAKE_SUCCEEDED,
        Event::HANDSHAKE_FAILED_AUTH,
        Event::HANDSHAKE_FAILED_NO_DETAIL,
        Event::HANDSHAKE_FAILED_PROTOCOL,
        Event::DISCONNECTED,
        Event::CONNECT_RETRIED,
    ]
    .into_iter()
    .fold(0, |mask, event| mask | i32::from(event.to_raw()))
}

/// A connection to one server, made anew whenever it is lost. One task owns it.
///
/// After each [`ConnectionEvent::Connected`] the server sees a new peer, whatever was before: say Hello. Frames that were under
/// way when a connection was lost are lost with it, in both directions.
pub struct DealerSocket {
    socket: AsyncSocket,
    monitor: AsyncSocket,
    endpoint: SocketAddr,
    connected: bool,
    frame_limit: usize,
    _context: Context,
}

impl DealerSocket {
    /// Begins to connect to `endpoint`, and keeps at it. Whether it succeeds, [`DealerSocket::next`] tells.
    ///
    /// # Errors
    ///
    /// Fails when the socket cannot be made or, with [`ClientSecurity::Curve`], when libzmq cannot encrypt; not when the server
    /// cannot be reached.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn connect(
        context: &Context,
        endpoint: SocketAddr,
        security: ClientSecurity<'_>,
        options: &DealerOptions,
    ) -> Result<Self, SocketError> {
        if matches!(security, ClientSecurity::Curve { .. }) {
            super::require_curve()?;
        }
        let monitor = context.socket(zmq::PAIR)?;
        let setup = || SocketError::setup("watch a DEALER socket");
        // Without a limit: libzmq's own thread would wait for us to take an event.
        monitor.set_rcvhwm(0).map_err(setup())?;
        monitor.set_linger(0).map_err(setup())?;
        let socket = context.socket(zmq::DEALER)?;
        options.apply(&socket, &security)?;
        if endpoint.is_ipv6() {
            socket.set_ipv6(true).map_err(SocketError::setup("let a socket use IPv6"))?;
        }
        let name = format!("inproc://hauberk.monitor.{}", MONITORS.fetch_add(1, Ordering::Relaxed));
        socket.monitor(&name, watched_events()).map_err(setup())?;
        let connected = monitor
            .connect(&name)
            .map_err(setup())
            .and_then(|()| Ok((AsyncSocket::new(socket)?, AsyncSocket::new(monitor)?)))
            .map(|(socket, monitor)| Self {
                socket,
                monitor,
                endpoint,
                connected: false,
                frame_limit: options.frame_limit,
                _context: context.clone(),
            })
            .and_then(|mut dealer| {
                let connecting = dealer.socket.get().connect(&format!("tcp://{endpoint}"));
                connecting.map_err(|error| SocketError::Connect { endpoint, source: error.into() })?;
                Ok(dealer)
            })?;
        Ok(connected)
    }

    /// Gives the address it connects to.
    pub fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// Tells whether a connection stands, as far as [`DealerSocket::next`] has told.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Waits for the next frame or change of the connection. Cancel-safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// Fails when the socket does not work any more; no peer can cause that.
    pub async fn next(&mut self) -> Result<DealerEvent, SocketError> {
        loop {
            consume_budget().await;
            // The monitor first, so that Connected comes before the first frame.
            if let Some(event) = self.take_connection_event()? {
                return Ok(DealerEvent::Connection(event));
            }
            if let Some(frame) = self.take_frame()? {
                return Ok(DealerEvent::Frame(frame));
            }
            tokio::select! {
                ready = self.monitor.wait(zmq::POLLIN) => ready?,
                ready = self.socket.wait(zmq::POLLIN) => ready?,
            }
        }
    }

    /// Sends a frame at once or not at all.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] when no connection stands, or the server does not take what was sent before.
    pub fn try_send(&mut self, frame: &[u8]) -> Result<(), SendError> {
        if frame.len() > self.frame_limit {
            return Err(SendError::TooLarge { size: frame.len(), limit: self.frame_limit });
        }
        if !self.socket.is(zmq::POLLOUT)? {
            return Err(SendError::Full);
        }
        match self.socket.get().send(frame, zmq::DONTWAIT) {
            Ok(()) => Ok(()),
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => Err(SendError::Full),
            Err(error) => Err(SocketError::broken("send by a DEALER socket")(error).into()),
        }
    }

    /// Sends a frame as soon as a connection stands and takes it. Cancel-safe: the frame is sent or it is not.
    ///
    /// # Errors
    ///
    /// As [`DealerSocket::try_send`], but waits where that says [`SendError::Full`].
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), SendError> {
        loop {
            match self.try_send(frame) {
                Err(SendError::Full) => self.ready_to_send().await?,
                other => return other,
            }
        }
    }

    /// Waits until [`DealerSocket::try_send`] will take a frame.
    ///
    /// # Errors
    ///
    /// As [`DealerSocket::next`].
    pub async fn ready_to_send(&mut self) -> Result<(), SocketError> {
        consume_budget().await;
        self.socket.wait(zmq::POLLOUT).await
    }

    fn take_frame(&mut self) -> Result<Option<Bytes>, SocketError> {
        while self.socket.is(zmq::POLLIN)? {
            let Some(frame) = self.socket.try_take()? else { return Ok(None) };
            let mut more = frame.get_more();
            let whole = !more && frame.len() <= self.frame_limit;
            while more {
                let Some(part) = self.socket.try_take()? else { break };
                more = part.get_more();
            }
            if whole {
                return Ok(Some(Bytes::from_owner(Part(frame))));
            }
            debug!(server.endpoint = %self.endpoint, "discarded what {} sent: not one frame", self.endpoint);
        }
        Ok(None)
    }

    fn take_connection_event(&mut self) -> Result<Option<ConnectionEvent>, SocketError> {
        while self.monitor.is(zmq::POLLIN)? {
            let Some(first) = self.monitor.try_take()? else { return Ok(None) };
            let mut more = first.get_more();
            // The other part names the endpoint, of which there is one.
            while more {
                let Some(part) = self.monitor.try_take()? else { break };
                more = part.get_more();
            }
            match ConnectionEvent::read(&first) {
                // libzmq tells also of connections that ended before their handshake did.
                Some(ConnectionEvent::Disconnected) if !self.connected => {}
                Some(event) => {
                    self.connected = event == ConnectionEvent::Connected;
                    return Ok(Some(event));
                }
                None => {}
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for DealerSocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DealerSocket")
            .field("endpoint", &self.endpoint)
            .field("connected", &self.connected)
            .finish_non_exhaustive()
    }
}

impl Drop for DealerSocket {
    fn drop(&mut self) {
        // A monitor that nobody reads would stop libzmq's thread at the next event. Watching for no event, at a place
        // of its own, is how the `zmq` crate can end the watch; if that fails, the watch has ended all the same.
        let name = format!("inproc://hauberk.monitor.{}", MONITORS.fetch_add(1, Ordering::Relaxed));
        if let Err(error) = self.socket.get().monitor(&name, 0) {
            let error = std::io::Error::from(error);
            debug!(error = &error as &dyn std::error::Error, "cannot end the watch of a socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monitor_messages_of_any_shape_are_survived() {
        let message = |event: u16, value: u32| [&event.to_ne_bytes()[..], &value.to_ne_bytes()].concat();
        let check =
            |event, value, expected| assert_eq!(ConnectionEvent::read(&message(event, value)), expected);
        check(0x1000, 0, Some(ConnectionEvent::Connected));
        check(0x4000, 400, Some(ConnectionEvent::Refused { status: 400 }));
        check(0x0800, 32, Some(ConnectionEvent::HandshakeFailed(HandshakeFailure::HungUp)));
        check(0x2000, 0x1100_0001, Some(ConnectionEvent::HandshakeFailed(HandshakeFailure::Mechanism)));
        check(0x2000, 7, Some(ConnectionEvent::HandshakeFailed(HandshakeFailure::Protocol { code: 7 })));
        check(0x0004, 250, Some(ConnectionEvent::Unreachable { retry_after: Duration::from_millis(250) }));
        check(0x0001, 0, None);
        check(0x8000, 0, None);
        assert_eq!(ConnectionEvent::read(b""), None);
        assert_eq!(ConnectionEvent::read(b"\x01"), None);
        assert_eq!(ConnectionEvent::read(b"\x00\x10\x00"), None);
    }
}
