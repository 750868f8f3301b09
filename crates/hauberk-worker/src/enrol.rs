//! Joining a farm for the first time, by a token.

use std::sync::Arc;
use std::time::Duration;

use hauberk_protocol::keys::CurveKeyPair;
use hauberk_protocol::proto::{Enrol, Refused};
use hauberk_protocol::socket::{Context, DealerEvent, DealerSocket, SendError};
use hauberk_protocol::{EnrolmentToken, PROTOCOL_VERSION, ServerBody, ServerMessage, WorkerMessage};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Security, ServerLocation};
use crate::error::WorkerError;
use crate::finder::Finder;
use crate::neighbours::Neighbours;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// The pause after a connection that was of no use.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// A machine that wants to be enrolled.
#[derive(Debug)]
pub struct Application {
    /// The token, which names the one server that it is shown to.
    pub token: EnrolmentToken,
    /// The machine's own keys.
    pub keys: CurveKeyPair,
    /// The name it would like.
    pub name: String,
    /// Host name of the machine, for people.
    pub machine: String,
    /// The public key its results will be signed with.
    pub signing_key: String,
    /// Where the server is.
    pub server: ServerLocation,
}

/// Presents the token to the server whose key it names, and to no other, until it is taken or refused. Gives the name under which the
/// machine is enrolled, or nothing when `stop` came first.
///
/// # Errors
/// [`WorkerError::Refused`] when the token is not taken; and when sockets cannot be made.
pub async fn enrol(
    application: Application,
    stop: &CancellationToken,
) -> Result<Option<String>, WorkerError> {
    tokio::select! {
        () = stop.cancelled() => Ok(None),
        enrolled = apply(application) => enrolled.map(Some),
    }
}

async fn apply(application: Application) -> Result<String, WorkerError> {
    let Application { token, keys, name, machine, signing_key, server } = application;
    let security = Security::Curve { keys, server: *token.server() };
    let context = Context::new();
    let neighbours = Arc::new(Neighbours::nobody(Some(*token.server())));
    let finder = Finder::new(&name, server, security, context.clone(), neighbours)?;
    let enrol = Enrol { protocol: PROTOCOL_VERSION, token: token.to_string(), name, machine, signing_key };
    let mut pause = Duration::ZERO;
    let enrolled = loop {
        // The handshake proves that the server owns the key that the token names, whoever announced it.
        let socket = finder.clone().find(pause).await?.socket;
        info!(server.endpoint = %socket.endpoint(), "found the server at {}", socket.endpoint());
        pause = match timeout(PATIENCE, present(socket, &enrol)).await {
            Ok(Ok(Answer::Enrolled(name))) => break name,
            Ok(Ok(Answer::Refused(refused))) if refused.retry_after_s == 0 => {
                return Err(WorkerError::Refused { reason: refused.reason(), message: refused.message });
            }
            Ok(Ok(Answer::Refused(refused))) => {
                warn!("the server does not enrol this machine yet: {}", refused.message);
                Duration::from_secs(refused.retry_after_s.into()).min(LONGEST_PAUSE)
            }
            Ok(Ok(Answer::Lost)) => PAUSE,
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                warn!("the server did not answer within {} s, asking again", PATIENCE.as_secs());
                PAUSE
            }
        };
    };
    // What is left of the connection may take its time elsewhere.
    tokio::spawn(context.close());
    info!(worker.name = enrolled, "enrolled as {enrolled}");
    Ok(enrolled)
}

enum Answer {
    Enrolled(String),
    Refused(Refused),
    /// The connection broke.
    Lost,
}

async fn present(mut socket: DealerSocket, enrol: &Enrol) -> Result<Answer, WorkerError> {
    let frame = match WorkerMessage::new(0, 1, enrol.clone()).encode() {
        Ok(frame) => frame,
        Err(error) => return Err(WorkerError::Config(error.to_string())),
    };
    match socket.send(&frame).await {
        Ok(()) => {}
        Err(SendError::Socket(error)) => return Err(WorkerError::Socket(error)),
        Err(_) => return Ok(Answer::Lost),
    }
    loop {
        match socket.next().await.map_err(WorkerError::Socket)? {
            DealerEvent::Frame(frame) => match ServerMessage::decode(&frame) {
                Ok(ServerMessage { body: ServerBody::Enrolled(enrolled), .. }) => {
                    return Ok(Answer::Enrolled(enrolled.name));
                }
                Ok(ServerMessage { body: ServerBody::Refused(refused), .. }) => {
                    return Ok(Answer::Refused(refused));
                }
                Ok(_) => {}
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "ignored what the server sent");
                }
            },
            DealerEvent::Connection(change) => {
                warn!("{change}");
                // A pause, so that a server that hangs up at once is not asked again at once.
                sleep(PAUSE).await;
                return Ok(Answer::Lost);
            }
        }
    }
}
