//! The handshake.

use hauberk_store::StoreDirectory;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Link;
use crate::{
    daemon::DaemonInfo,
    error::{DaemonError, Violation},
    frame::{self, Frame},
    operation::Operation,
    version::{Dialect, ProtocolVersion},
    wire::{CLIENT_MAGIC, DAEMON_MAGIC, Encoder, Incoming, Limit, Outgoing, WireError},
};

const OPERATION: Operation = Operation::Handshake;

/// The first version that tells the version of the program.
const TELLS_PROGRAM: ProtocolVersion = ProtocolVersion::new(1, 33);
/// The first version that tells whether the client is trusted.
const TELLS_TRUST: ProtocolVersion = ProtocolVersion::new(1, 35);
/// The first version that negotiates features.
const HAS_FEATURES: ProtocolVersion = ProtocolVersion::new(1, 38);

/// Greets the daemon at the other end of `stream`.
pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    store_directory: Option<StoreDirectory>,
) -> Result<(DaemonInfo, Link<S>), DaemonError> {
    let (reader, writer) = tokio::io::split(stream);
    let mut link = Link { incoming: Incoming::new(reader), outgoing: Outgoing::new(writer) };
    let offered = offer(&mut link).await.map_err(|error| error.during(OPERATION))?;
    let version = offered.negotiate().ok_or(DaemonError::UnsupportedVersion { version: offered })?;
    let (program_version, trusted) =
        agree(&mut link, version).await.map_err(|error| error.during(OPERATION))?;
    match frame::read(&mut link.incoming, version).await.map_err(|error| error.during(OPERATION))? {
        Frame::Last => {}
        Frame::Error(reported) => {
            return Err(DaemonError::Daemon {
                operation: OPERATION,
                message: reported.message,
                status: reported.status,
            });
        }
        Frame::Next(_)
        | Frame::Read(_)
        | Frame::Write(_)
        | Frame::StartActivity { .. }
        | Frame::StopActivity { .. }
        | Frame::Result { .. } => {
            let violation =
                Violation::Text { what: "greeting", text: "frame other than the last".to_owned() };
            return Err(DaemonError::Protocol { operation: OPERATION, violation });
        }
    }
    let dialect = version.dialect();
    let store_directory = store_directory.unwrap_or_else(|| match dialect {
        Dialect::Nix => StoreDirectory::nix(),
        Dialect::Guix => StoreDirectory::guix(),
    });
    Ok((DaemonInfo { dialect, version, program_version, trusted, store_directory }, link))
}

/// Exchanges the magic numbers and gives the version the daemon offers.
async fn offer<S: AsyncRead + AsyncWrite + Unpin>(link: &mut Link<S>) -> Result<ProtocolVersion, WireError> {
    let mut hello = Encoder::default();
    link.outgoing.send(hello.number(CLIENT_MAGIC)).await?;
    let found = link.incoming.number().await?;
    if found != DAEMON_MAGIC {
        return Err(Violation::Magic { found }.into());
    }
    let value = link.incoming.number().await?;
    ProtocolVersion::from_wire(value)
        .ok_or_else(|| Violation::Number { what: "protocol version", value }.into())
}

/// Sends the version to speak, and reads what it lets the daemon tell of itself.
async fn agree<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    version: ProtocolVersion,
) -> Result<(Option<String>, Option<bool>), WireError> {
    let nix = version.dialect() == Dialect::Nix;
    let mut answer = Encoder::default();
    answer.number(version.wire());
    if nix && version >= HAS_FEATURES {
        answer.number(0); // features of ours: none
    }
    // No processor affinity; reserve space, which Nix has given up and Guix's own client asks for.
    answer.number(0).flag(!nix);
    link.outgoing.send(&mut answer).await?;
    if !nix {
        return Ok((None, None));
    }
    if version >= HAS_FEATURES {
        link.incoming.words(Limit::FIELDS).await?;
    }
    let program = match version >= TELLS_PROGRAM {
        true => Some(link.incoming.text(Limit::WORD).await?),
        false => None,
    };
    let trusted = match version >= TELLS_TRUST {
        true => match link.incoming.number().await? {
            0 => None,
            1 => Some(true),
            2 => Some(false),
            value => return Err(Violation::Number { what: "trust", value }.into()),
        },
        false => None,
    };
    Ok((program, trusted))
}
