//! ZeroMQ sockets for tokio: a ROUTER that knows who speaks, and a DEALER that knows whether it is connected.
//!
//! Every socket belongs to the one task that calls it: all methods take `&mut self`. Receiving is cancel-safe, so a task does both
//! directions with `select!` over [`RouterSocket::recv`] or [`DealerSocket::next`] and a channel of what is to be sent.

mod admission;
mod context;
mod dealer;
mod error;
mod options;
mod race;
mod readiness;
mod router;
mod server_address;

pub use admission::{Admission, AdmissionPolicy, AdmitEveryKey};
pub use context::Context;
pub use dealer::{ConnectionEvent, DealerEvent, DealerSocket, HandshakeFailure};
pub use error::{SendError, SocketError};
pub use options::{ClientSecurity, DealerOptions, RouterOptions, ServerSecurity};
pub use race::{Candidate, RaceError, connect_first, connect_first_of};
pub use router::{Incoming, RouterSocket, RoutingId};
pub use server_address::{AddressError, ServerAddress};

/// Checks that the linked libzmq can encrypt.
///
/// # Errors
///
/// Fails with [`SocketError::NoCurve`], whose text tells how to get a libzmq with CURVE.
pub fn require_curve() -> Result<(), SocketError> {
    match zmq::has("curve") {
        Some(true) => Ok(()),
        Some(false) | None => {
            let (major, minor, patch) = zmq::version();
            Err(SocketError::NoCurve { version: format!("{major}.{minor}.{patch}") })
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_linked_libzmq_has_curve() {
        assert_eq!(zmq::has("curve"), Some(true));
        super::require_curve().unwrap();
    }
}
