//! Why an exchange with a build daemon failed.

use std::io;

use hauberk_store::StorePath;

use crate::{address::DaemonAddress, operation::Operation, version::ProtocolVersion};

/// Why an operation of a build daemon did not give its result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The socket is not there or nobody listens on it.
    #[error("cannot connect to the build daemon at {address}")]
    Connect {
        /// Where the daemon should listen.
        address: DaemonAddress,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The daemon did not greet in time.
    #[error("the build daemon did not finish the {operation} within {seconds} s")]
    TimedOut {
        /// What was waited for.
        operation: Operation,
        /// The time allowed, in seconds.
        seconds: u64,
    },
    /// The peer speaks a version this client does not.
    #[error(
        "the build daemon speaks protocol {version}, which is not supported (Nix 1.34 and later, Guix 1.97 to 1.100 are)"
    )]
    UnsupportedVersion {
        /// What it offered.
        version: ProtocolVersion,
    },
    /// The daemon refused or failed the operation, and said so. The connection can be used again.
    #[error("{operation} refused by the build daemon: {message}")]
    Daemon {
        /// What was asked.
        operation: Operation,
        /// Its words, without colour codes.
        message: String,
        /// Guix: 100 a builder failed, 101 a time limit, 1 all else. Nix: 0 or 1.
        status: u64,
    },
    /// The socket broke. The connection is gone.
    #[error("connection to the build daemon lost during {operation}")]
    Lost {
        /// What was under way.
        operation: Operation,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The daemon sent what the protocol does not allow. The connection is gone.
    #[error("the build daemon broke the protocol during {operation}")]
    Protocol {
        /// What was under way.
        operation: Operation,
        /// What is wrong.
        #[source]
        violation: Violation,
    },
    /// An earlier operation broke this connection or was dropped half-way.
    #[error("{operation} not possible: this connection to the build daemon broke earlier")]
    Broken {
        /// What was asked.
        operation: Operation,
    },
    /// This dialect or version has no such operation.
    #[error("{operation} is not possible with this build daemon: {reason}")]
    Unsupported {
        /// What was asked.
        operation: Operation,
        /// Why not.
        reason: &'static str,
    },
    /// The path asked for is not valid in the daemon's store. The connection can be used again.
    #[error("{path} is not valid in the store")]
    NotValid {
        /// The path.
        path: StorePath,
    },
    /// The stream the caller gave bytes by failed.
    #[error("cannot read the data for {operation}")]
    Source {
        /// What it was for.
        operation: Operation,
        /// What the stream said.
        #[source]
        source: io::Error,
    },
    /// The stream the caller takes bytes by failed. The connection is gone.
    #[error("cannot write the data of {operation}")]
    Sink {
        /// What it came from.
        operation: Operation,
        /// What the stream said.
        #[source]
        source: io::Error,
    },
    /// What was read from the store is not what its metadata says, or cannot be read.
    #[error("{operation}: {path} is damaged in the daemon's store: {reason}")]
    Damaged {
        /// What was under way.
        operation: Operation,
        /// The path.
        path: StorePath,
        /// What does not fit.
        reason: String,
    },
}

impl DaemonError {
    /// Tells whether another try on a new connection may succeed: the socket, not the request, was at fault.
    pub const fn is_connection(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::TimedOut { .. } | Self::Lost { .. } | Self::Broken { .. } => true,
            Self::UnsupportedVersion { .. }
            | Self::Daemon { .. }
            | Self::Protocol { .. }
            | Self::Unsupported { .. }
            | Self::NotValid { .. }
            | Self::Source { .. }
            | Self::Sink { .. }
            | Self::Damaged { .. } => false,
        }
    }
}

/// What a peer sent that the protocol does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The greeting is not that of a build daemon.
    #[error("greeting {found:#x} is not that of a build daemon")]
    Magic {
        /// The number received.
        found: u64,
    },
    /// A length or count is beyond what this client takes.
    #[error("{what} of {length} is over the limit of {limit}")]
    TooLong {
        /// What was announced.
        what: &'static str,
        /// Its length or count.
        length: u64,
        /// The most that is taken.
        limit: u64,
    },
    /// A string is padded with other bytes than zero.
    #[error("{what} is padded with bytes other than zero")]
    Padding {
        /// What was read.
        what: &'static str,
    },
    /// A number is outside the range its field has.
    #[error("{what} cannot be {value}")]
    Number {
        /// The field.
        what: &'static str,
        /// The number received.
        value: u64,
    },
    /// A text is not what its field holds.
    #[error("`{text}` is not a {what}")]
    Text {
        /// The field.
        what: &'static str,
        /// The text received, shortened.
        text: String,
    },
    /// A frame of a kind that is unknown or has no place here.
    #[error("unexpected frame {code:#x}")]
    Frame {
        /// Its code.
        code: u64,
    },
    /// The NAR that was sent is not one.
    #[error("malformed NAR: {reason}")]
    Nar {
        /// What is wrong.
        reason: String,
    },
}
