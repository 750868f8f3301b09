//! Frames to messages and back: one enum per direction, and limits before anything is decoded.

use bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};

use crate::proto;

/// The largest frame on the backend port: 8 MiB, enough for an `Assign` with some 50,000 inputs.
pub const BACKEND_FRAME_LIMIT: usize = 8 << 20;

/// The largest frame on the log port: 1 MiB.
pub const LOG_FRAME_LIMIT: usize = 1 << 20;

/// The largest frame taken from a peer whose key is not enrolled: 64 KiB. A small frame can decode into
/// structures many times its size, and a guest has nothing to say that needs more.
pub const GUEST_FRAME_LIMIT: usize = 64 << 10;

/// Why a frame is not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The frame is larger than its port carries.
    #[error("frame of {size} bytes for a {kind}, at most {limit} are allowed")]
    TooLarge {
        /// The message that was expected.
        kind: &'static str,
        /// Bytes in the frame.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The frame is not protobuf, or not of this message.
    #[error("frame of {size} bytes is not a {kind}")]
    Malformed {
        /// The message that was expected.
        kind: &'static str,
        /// Bytes in the frame.
        size: usize,
        /// What the decoder found.
        #[source]
        source: prost::DecodeError,
    },
}

/// Why a message cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The message is larger than its port carries; the peer would close the connection.
    #[error("{kind} of {size} bytes cannot be sent, at most {limit} are allowed")]
    TooLarge {
        /// What was to be sent.
        kind: &'static str,
        /// Bytes it would take.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The body was not understood when it was received, so it cannot be sent on.
    #[error("a message of unknown kind cannot be sent")]
    Unknown,
}

/// Defines the enum of what one direction says, and its conversions from and to the generated `oneof`.
macro_rules! bodies {
    ($(#[$doc:meta])* $name:ident, $module:ident, first $first:literal { $($(#[$vdoc:meta])* $variant:ident($payload:ident)),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $($(#[$vdoc])* $variant(proto::$payload),)+
            /// A body that this version does not know, or none at all: to be counted, logged and survived.
            Unknown {
                /// The field number of the body, 0 when there was none.
                tag: u32,
            },
        }

        impl $name {
            /// Names the kind of message, for logs and metrics.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($variant),)+
                    Self::Unknown { .. } => "Unknown",
                }
            }

            fn from_wire(body: Option<proto::$module::Body>, frame: &Bytes) -> Self {
                match body {
                    $(Some(proto::$module::Body::$variant(payload)) => Self::$variant(payload),)+
                    None => Self::Unknown { tag: last_tag(frame, $first) },
                }
            }

            fn into_wire(self) -> Result<proto::$module::Body, EncodeError> {
                match self {
                    $(Self::$variant(payload) => Ok(proto::$module::Body::$variant(payload)),)+
                    Self::Unknown { .. } => Err(EncodeError::Unknown),
                }
            }
        }

        $(impl From<proto::$payload> for $name {
            fn from(payload: proto::$payload) -> Self {
                Self::$variant(payload)
            }
        })+
    };
}

bodies! {
    /// What a worker says to the server.
    WorkerBody, worker_message, first 3 {
        /// Opens a session.
        Hello(Hello),
        /// Asks, as a guest, to become a worker.
        Enrol(Enrol),
        /// Grants the server the right to assign.
        Credit(Credit),
        /// Shows life, and what is running.
        Heartbeat(Heartbeat),
        /// Says that the inputs are there and the build has begun.
        Started(Started),
        /// Ends an attempt.
        Finished(Finished),
        /// Refuses an attempt.
        Declined(Declined),
        /// Leaves on purpose.
        Goodbye(Goodbye),
    }
}

bodies! {
    /// What the server says to a worker.
    ServerBody, server_message, first 3 {
        /// Accepts a Hello and opens the session.
        Welcome(Welcome),
        /// Accepts an enrolment.
        Enrolled(Enrolled),
        /// Hands over an attempt.
        Assign(Assign),
        /// Takes an attempt back.
        Cancel(Cancel),
        /// Says that results are recorded.
        Ack(Ack),
        /// Says that outputs need not be kept any longer.
        Release(Release),
        /// Stops or resumes the flow of work.
        Pause(Pause),
        /// Asks to finish what runs and leave.
        Drain(Drain),
        /// Asks for a Hello, because the session is unknown.
        HelloAgain(HelloAgain),
        /// Refuses, with the reason.
        Refused(Refused),
        /// Asks for outputs that cannot be fetched.
        Upload(Upload),
    }
}

bodies! {
    /// What a worker says on the log port.
    LogBody, log_message, first 2 {
        /// Asks how much the server has.
        Open(LogOpen),
        /// Carries a part of the stream.
        Chunk(LogChunk),
        /// Ends the stream.
        End(LogEnd),
    }
}

bodies! {
    /// What the server says on the log port.
    LogReplyBody, log_reply, first 2 {
        /// Says how much the server has.
        Ack(LogAck),
        /// Refuses the log.
        Refused(LogRefused),
    }
}

/// Finds the field number of the last field numbered `first` or more, which in a message without a known body is the
/// body's; 0 when there is none.
fn last_tag(frame: &Bytes, first: u32) -> u32 {
    let mut rest = frame.clone();
    let mut found = 0;
    while rest.has_remaining() {
        let Ok((tag, wire_type)) = decode_key(&mut rest) else { break };
        if tag >= first && wire_type != WireType::EndGroup {
            found = tag;
        }
        if skip_field(wire_type, tag, &mut rest, DecodeContext::default()).is_err() {
            break;
        }
    }
    found
}

fn decode<M: prost::Message + Default>(
    kind: &'static str,
    frame: &Bytes,
    limit: usize,
) -> Result<M, DecodeError> {
    let size = frame.len();
    if size > limit {
        return Err(DecodeError::TooLarge { kind, size, limit });
    }
    M::decode(frame.clone()).map_err(|source| DecodeError::Malformed { kind, size, source })
}

fn encode<M: prost::Message>(kind: &'static str, message: &M, limit: usize) -> Result<Bytes, EncodeError> {
    let size = message.encoded_len();
    if size > limit {
        return Err(EncodeError::TooLarge { kind, size, limit });
    }
    Ok(message.encode_to_vec().into())
}

/// A message from a worker to the server, on the backend port.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerMessage {
    /// The session the server gave in Welcome; 0 in Hello and Enrol.
    pub session: u64,
    /// 1, 2, 3 … within the session.
    pub sequence: u64,
    /// What is said.
    pub body: WorkerBody,
}

impl WorkerMessage {
    /// Puts a message together.
    pub fn new(session: u64, sequence: u64, body: impl Into<WorkerBody>) -> Self {
        Self { session, sequence, body: body.into() }
    }

    /// Reads a frame from an enrolled worker. `bytes` fields share the frame's memory.
    ///
    /// # Errors
    ///
    /// Fails when the frame exceeds [`BACKEND_FRAME_LIMIT`] or is not a message. A body of unknown kind is no error, but
    /// [`WorkerBody::Unknown`].
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        Self::decode_within(frame, BACKEND_FRAME_LIMIT)
    }

    /// Reads a frame from a peer whose key is not enrolled.
    ///
    /// # Errors
    ///
    /// As [`WorkerMessage::decode`], with [`GUEST_FRAME_LIMIT`].
    pub fn decode_from_guest(frame: &Bytes) -> Result<Self, DecodeError> {
        Self::decode_within(frame, GUEST_FRAME_LIMIT)
    }

    fn decode_within(frame: &Bytes, limit: usize) -> Result<Self, DecodeError> {
        let message: proto::WorkerMessage = decode("worker message", frame, limit)?;
        Ok(Self {
            session: message.session,
            sequence: message.sequence,
            body: WorkerBody::from_wire(message.body, frame),
        })
    }

    /// Writes the frame.
    ///
    /// # Errors
    ///
    /// Fails when the frame would exceed [`BACKEND_FRAME_LIMIT`], or the body is [`WorkerBody::Unknown`].
    pub fn encode(self) -> Result<Bytes, EncodeError> {
        let kind = self.body.kind();
        let message = proto::WorkerMessage {
            session: self.session,
            sequence: self.sequence,
            body: Some(self.body.into_wire()?),
        };
        encode(kind, &message, BACKEND_FRAME_LIMIT)
    }
}

/// A message from the server to a worker, on the backend port.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerMessage {
    /// The session this belongs to; 0 in Enrolled, HelloAgain and Refused.
    pub session: u64,
    /// 1, 2, 3 … within the session.
    pub sequence: u64,
    /// What is said.
    pub body: ServerBody,
}

impl ServerMessage {
    /// Puts a message together.
    pub fn new(session: u64, sequence: u64, body: impl Into<ServerBody>) -> Self {
        Self { session, sequence, body: body.into() }
    }

    /// Reads a frame. `bytes` fields share its memory.
    ///
    /// # Errors
    ///
    /// Fails when the frame exceeds [`BACKEND_FRAME_LIMIT`] or is not a message. A body of unknown kind is no error, but
    /// [`ServerBody::Unknown`].
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        let message: proto::ServerMessage = decode("server message", frame, BACKEND_FRAME_LIMIT)?;
        Ok(Self {
            session: message.session,
            sequence: message.sequence,
            body: ServerBody::from_wire(message.body, frame),
        })
    }

    /// Writes the frame.
    ///
    /// # Errors
    ///
    /// Fails when the frame would exceed [`BACKEND_FRAME_LIMIT`], or the body is [`ServerBody::Unknown`].
    pub fn encode(self) -> Result<Bytes, EncodeError> {
        let kind = self.body.kind();
        let message = proto::ServerMessage {
            session: self.session,
            sequence: self.sequence,
            body: Some(self.body.into_wire()?),
        };
        encode(kind, &message, BACKEND_FRAME_LIMIT)
    }
}

/// A message from a worker to the server, on the log port.
#[derive(Debug, Clone, PartialEq)]
pub struct LogMessage {
    /// The attempt whose log this is about.
    pub attempt: i64,
    /// What is said.
    pub body: LogBody,
}

impl LogMessage {
    /// Puts a message together.
    pub fn new(attempt: i64, body: impl Into<LogBody>) -> Self {
        Self { attempt, body: body.into() }
    }

    /// Reads a frame. `LogChunk.data` shares its memory.
    ///
    /// # Errors
    ///
    /// Fails when the frame exceeds [`LOG_FRAME_LIMIT`] or is not a message. A body of unknown kind is no error, but
    /// [`LogBody::Unknown`].
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        let message: proto::LogMessage = decode("log message", frame, LOG_FRAME_LIMIT)?;
        Ok(Self { attempt: message.attempt, body: LogBody::from_wire(message.body, frame) })
    }

    /// Writes the frame.
    ///
    /// # Errors
    ///
    /// Fails when the frame would exceed [`LOG_FRAME_LIMIT`], or the body is [`LogBody::Unknown`].
    pub fn encode(self) -> Result<Bytes, EncodeError> {
        let kind = self.body.kind();
        let message = proto::LogMessage { attempt: self.attempt, body: Some(self.body.into_wire()?) };
        encode(kind, &message, LOG_FRAME_LIMIT)
    }
}

/// A message from the server to a worker, on the log port.
#[derive(Debug, Clone, PartialEq)]
pub struct LogReply {
    /// The attempt whose log this is about.
    pub attempt: i64,
    /// What is said.
    pub body: LogReplyBody,
}

impl LogReply {
    /// Puts a message together.
    pub fn new(attempt: i64, body: impl Into<LogReplyBody>) -> Self {
        Self { attempt, body: body.into() }
    }

    /// Reads a frame.
    ///
    /// # Errors
    ///
    /// Fails when the frame exceeds [`LOG_FRAME_LIMIT`] or is not a message. A body of unknown kind is no error, but
    /// [`LogReplyBody::Unknown`].
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        let message: proto::LogReply = decode("log reply", frame, LOG_FRAME_LIMIT)?;
        Ok(Self { attempt: message.attempt, body: LogReplyBody::from_wire(message.body, frame) })
    }

    /// Writes the frame.
    ///
    /// # Errors
    ///
    /// Fails when the frame would exceed [`LOG_FRAME_LIMIT`], or the body is [`LogReplyBody::Unknown`].
    pub fn encode(self) -> Result<Bytes, EncodeError> {
        let kind = self.body.kind();
        let message = proto::LogReply { attempt: self.attempt, body: Some(self.body.into_wire()?) };
        encode(kind, &message, LOG_FRAME_LIMIT)
    }
}
