//! Trying several addresses of one server.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::context::Context;
use super::dealer::{ConnectionEvent, DealerEvent, DealerSocket};
use super::error::SocketError;
use super::options::{ClientSecurity, DealerOptions};

/// Why no address of a server worked.
#[derive(Debug, thiserror::Error)]
pub enum RaceError {
    /// Each address failed once.
    #[error("no address of the server works: {}", Failures(.0))]
    Failed(
        /// What happened at each address.
        Vec<(SocketAddr, ConnectionEvent)>,
    ),
    /// A socket could not be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

struct Failures<'a>(&'a [(SocketAddr, ConnectionEvent)]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("it has none");
        }
        for (position, (endpoint, event)) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(formatter, "{separator}{endpoint}: {event}")?;
        }
        Ok(())
    }
}

/// An address of a server, and how to speak to it there.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The address.
    pub endpoint: SocketAddr,
    /// The keys.
    pub security: ClientSecurity<'a>,
}

/// Connects to the first address that completes a handshake. The addresses are tried in their order, each `head_start` after the one
/// before, and at once when all earlier ones have failed; the connections of the others are dropped.
///
/// The socket is connected already: its [`ConnectionEvent::Connected`] does not come again.
///
/// # Errors
///
/// Fails when each address has failed once, at the latest after [`DealerOptions::connect_timeout`] and
/// [`DealerOptions::handshake_timeout`] of the last.
pub async fn connect_first(
    context: &Context,
    endpoints: &[SocketAddr],
    security: ClientSecurity<'_>,
    options: &DealerOptions,
    head_start: Duration,
) -> Result<DealerSocket, RaceError> {
    let candidates: Vec<_> =
        endpoints.iter().map(|endpoint| Candidate { endpoint: *endpoint, security }).collect();
    Ok(connect_first_of(context, &candidates, options, head_start).await?.0)
}

/// Connects as [`connect_first`] does, to addresses of servers with different keys. Gives the place of the one that was faster as well.
///
/// # Errors
///
/// As [`connect_first`].
pub async fn connect_first_of(
    context: &Context,
    candidates: &[Candidate<'_>],
    options: &DealerOptions,
    head_start: Duration,
) -> Result<(DealerSocket, usize), RaceError> {
    let mut waiting = candidates.iter().enumerate();
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some((place, candidate)) = waiting.next() {
            let socket = DealerSocket::connect(context, candidate.endpoint, candidate.security, options)?;
            running.push(async move { shake_hands(socket).await.map(|met| (met, place)) });
        } else if running.is_empty() {
            return Err(RaceError::Failed(failures));
        }
        let last = waiting.len() == 0;
        let pause = tokio::time::sleep(head_start);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                Some(ended) = running.next() => match ended? {
                    (Ok(socket), place) => return Ok((socket, place)),
                    (Err(failure), _) => failures.push(failure),
                },
                () = &mut pause, if !last => break,
            }
            if running.is_empty() {
                break;
            }
        }
    }
}

/// Waits for the first word about a connection: the socket when it stands, else what went wrong.
async fn shake_hands(
    mut socket: DealerSocket,
) -> Result<Result<DealerSocket, (SocketAddr, ConnectionEvent)>, SocketError> {
    loop {
        match socket.next().await? {
            DealerEvent::Connection(ConnectionEvent::Connected) => return Ok(Ok(socket)),
            DealerEvent::Connection(failure) => return Ok(Err((socket.endpoint(), failure))),
            // A frame is the proof of a handshake, and its Connected comes before it.
            DealerEvent::Frame(_) => {}
        }
    }
}
