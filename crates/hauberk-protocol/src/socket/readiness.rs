//! Waiting for a ZeroMQ socket in tokio.
//!
//! libzmq tells about changes through a descriptor that becomes readable once per change (an edge), for both directions, and any call on
//! the socket may take the edge away. So the state is asked first, always, and only when it is not the wanted one is the
//! descriptor waited for.

use std::os::fd::{AsRawFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::SocketError;

/// A ZeroMQ socket that a task can wait for.
pub(super) struct AsyncSocket(AsyncFd<Registered>);

/// A socket with its descriptor, which libzmq keeps until the socket is closed.
struct Registered {
    socket: zmq::Socket,
    descriptor: RawFd,
}

impl AsRawFd for Registered {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor
    }
}

impl AsyncSocket {
    /// Takes over a socket that is set up.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub(super) fn new(socket: zmq::Socket) -> Result<Self, SocketError> {
        let descriptor =
            socket.get_fd().map_err(SocketError::setup("get the descriptor of a ZeroMQ socket"))?;
        let registered = Registered { socket, descriptor };
        #[expect(unsafe_code, reason = "tokio offers no safe way for a descriptor that another library owns")]
        // SAFETY: the descriptor is open and the same for as long as the socket lives, which is in the same struct and dropped
        // after the registration.
        let registration = unsafe { AsyncFd::register_with_interest(registered, Interest::READABLE) };
        registration.map(Self).map_err(|error| SocketError::Setup {
            operation: "register a ZeroMQ socket with the runtime",
            source: error.into(),
        })
    }

    pub(super) fn get(&mut self) -> &zmq::Socket {
        &self.0.get_mut().socket
    }

    /// Tells whether one of the `wanted` events holds now. Asking lets libzmq handle all that has come in.
    pub(super) fn is(&mut self, wanted: zmq::PollEvents) -> Result<bool, SocketError> {
        loop {
            match self.get().get_events() {
                Ok(events) => return Ok(events.intersects(wanted)),
                Err(zmq::Error::EINTR) => {}
                Err(error) => return Err(SocketError::broken("ask for the state of a ZeroMQ socket")(error)),
            }
        }
    }

    /// Waits until one of the `wanted` events holds. Cancel-safe.
    pub(super) async fn wait(&mut self, wanted: zmq::PollEvents) -> Result<(), SocketError> {
        while !self.is(wanted)? {
            let mut guard = self
                .0
                .readable_mut()
                .await
                .map_err(|source| SocketError::Broken { operation: "wait for a ZeroMQ socket", source })?;
            guard.clear_ready();
        }
        Ok(())
    }

    /// Takes the next part of a message, if there is one.
    pub(super) fn try_take(&mut self) -> Result<Option<zmq::Message>, SocketError> {
        loop {
            match self.get().recv_msg(zmq::DONTWAIT) {
                Ok(part) => return Ok(Some(part)),
                Err(zmq::Error::EAGAIN) => return Ok(None),
                Err(zmq::Error::EINTR) => {}
                Err(error) => return Err(SocketError::broken("receive from a ZeroMQ socket")(error)),
            }
        }
    }
}

/// Lets [`bytes::Bytes`] own a received part, so that it is not copied.
pub(super) struct Part(pub(super) zmq::Message);

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
