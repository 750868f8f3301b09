#![doc = include_str!("../README.md")]

pub mod keys;
mod message;
pub mod socket;
mod token;
mod z85;

pub use message::{
    BACKEND_FRAME_LIMIT, DecodeError, EncodeError, GUEST_FRAME_LIMIT, LOG_FRAME_LIMIT, LogBody, LogMessage,
    LogReply, LogReplyBody, ServerBody, ServerMessage, WorkerBody, WorkerMessage,
};
pub use token::{EnrolmentToken, TokenError};

/// The version of the protocol that this crate speaks, as it stands in `Hello.protocol`.
pub const PROTOCOL_VERSION: u32 = 1;

/// The port on which a server waits for workers unless it is told another.
pub const DEFAULT_BACKEND_PORT: u16 = 5555;

/// The port on which a server receives logs unless it is told another.
pub const DEFAULT_LOG_PORT: u16 = 5556;

/// The messages of `proto/hauberk/v1/hauberk.proto`, as generated.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/hauberk.v1.rs"));
}
