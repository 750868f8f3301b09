//! What the daemon sends while an operation is under way.

use tokio::io::AsyncRead;

use crate::{
    error::Violation,
    failure::strip_ansi,
    version::{Dialect, ProtocolVersion},
    wire::{Incoming, Limit, WireError},
};

/// Codes of frames.
pub(crate) mod code {
    /// A line of the daemon or, with Guix, a chunk of output.
    pub(crate) const NEXT: u64 = 0x6f6c_6d67;
    /// The daemon wants data.
    pub(crate) const READ: u64 = 0x6461_7461;
    /// The daemon gives data.
    pub(crate) const WRITE: u64 = 0x6461_7416;
    /// The operation went well; results follow.
    pub(crate) const LAST: u64 = 0x616c_7473;
    /// The operation failed.
    pub(crate) const ERROR: u64 = 0x6378_7470;
    /// An activity begins (Nix).
    pub(crate) const START_ACTIVITY: u64 = 0x5354_5254;
    /// An activity ends (Nix).
    pub(crate) const STOP_ACTIVITY: u64 = 0x5354_4f50;
    /// An activity tells something (Nix).
    pub(crate) const RESULT: u64 = 0x5253_4c54;
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Next(Vec<u8>),
    Read(u64),
    Write(Vec<u8>),
    Last,
    Error(Reported),
    StartActivity { id: u64, level: u8, kind: u64, text: Vec<u8>, fields: Vec<Field> },
    StopActivity { id: u64 },
    Result { id: u64, kind: u64, fields: Vec<Field> },
}

/// An error the daemon reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) message: String,
    pub(crate) status: u64,
}

/// A field of an activity or of what it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Field {
    pub(crate) fn as_number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Bytes(_) => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Number(_) => None,
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
        }
    }
}

/// Reads the next frame.
pub(crate) async fn read<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
    version: ProtocolVersion,
) -> Result<Frame, WireError> {
    let found = incoming.number().await?;
    if version.dialect() == Dialect::Guix
        && matches!(found, code::START_ACTIVITY | code::STOP_ACTIVITY | code::RESULT)
    {
        return Err(Violation::Frame { code: found }.into());
    }
    Ok(match found {
        code::NEXT => Frame::Next(incoming.bytes(Limit::LOG).await?),
        code::READ => Frame::Read(incoming.number().await?),
        code::WRITE => Frame::Write(incoming.bytes(Limit::DATA).await?),
        code::LAST => Frame::Last,
        code::ERROR => Frame::Error(read_error(incoming, version).await?),
        code::START_ACTIVITY => {
            let id = incoming.number().await?;
            let level = incoming.small("verbosity").await?;
            let kind = incoming.number().await?;
            let text = incoming.bytes(Limit::MESSAGE).await?;
            let fields = read_fields(incoming).await?;
            incoming.number().await?; // the activity it is part of
            Frame::StartActivity { id, level, kind, text, fields }
        }
        code::STOP_ACTIVITY => Frame::StopActivity { id: incoming.number().await? },
        code::RESULT => Frame::Result {
            id: incoming.number().await?,
            kind: incoming.number().await?,
            fields: read_fields(incoming).await?,
        },
        code => return Err(Violation::Frame { code }.into()),
    })
}

/// Reads what follows [`code::ERROR`].
pub(crate) async fn read_error<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
    version: ProtocolVersion,
) -> Result<Reported, WireError> {
    match version.dialect() {
        Dialect::Guix => {
            let message = strip_ansi(&incoming.message().await?);
            Ok(Reported { message, status: incoming.number().await? })
        }
        Dialect::Nix => {
            incoming.text(Limit::WORD).await?; // always "Error"
            incoming.number().await?; // verbosity
            incoming.message().await?; // name, obsolete
            let message = strip_ansi(&incoming.message().await?);
            incoming.number().await?; // whether a position follows: never
            for _ in 0..incoming.count(Limit::FIELDS).await? {
                incoming.number().await?; // the same
                incoming.message().await?; // where in an expression the error arose
            }
            Ok(Reported { message, status: 1 })
        }
    }
}

async fn read_fields<R: AsyncRead + Unpin>(incoming: &mut Incoming<R>) -> Result<Vec<Field>, WireError> {
    let mut fields = Vec::new();
    for _ in 0..incoming.count(Limit::FIELDS).await? {
        fields.push(match incoming.number().await? {
            0 => Field::Number(incoming.number().await?),
            1 => Field::Bytes(incoming.bytes(Limit::LOG).await?),
            value => return Err(Violation::Number { what: "kind of field", value }.into()),
        });
    }
    Ok(fields)
}
