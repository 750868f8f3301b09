//! The codec: 64-bit little-endian numbers, strings padded with zeros to 8 bytes, lists with a count in front.

mod incoming;
mod limits;
mod outgoing;
#[cfg(test)]
mod tests;

pub(crate) use incoming::{Incoming, malformed};
pub(crate) use limits::Limit;
pub(crate) use outgoing::{Encoder, Outgoing};

use std::io;

use crate::{
    error::{DaemonError, Violation},
    operation::Operation,
};

/// Opens the conversation, client to daemon.
pub(crate) const CLIENT_MAGIC: u64 = 0x6e69_7863;
/// The daemon's answer to [`CLIENT_MAGIC`].
pub(crate) const DAEMON_MAGIC: u64 = 0x6478_696f;

/// Why bytes could not be read from or written to the peer.
#[derive(Debug)]
pub(crate) enum WireError {
    Io(io::Error),
    Violation(Violation),
}

impl WireError {
    /// Names the operation that was under way.
    pub(crate) fn during(self, operation: Operation) -> DaemonError {
        match self {
            Self::Io(source) => DaemonError::Lost { operation, source },
            Self::Violation(violation) => DaemonError::Protocol { operation, violation },
        }
    }
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Violation> for WireError {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// Gives the zero bytes that follow a string of `length` bytes.
pub(crate) const fn padding(length: u64) -> usize {
    (length.wrapping_neg() % 8) as usize
}
