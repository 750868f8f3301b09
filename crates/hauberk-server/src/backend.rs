//! The backend port: frames in, frames out.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use hauberk_protocol::keys::CurvePublicKey;
use hauberk_protocol::socket::{Incoming, RouterSocket, RoutingId, SendError, SocketError};
use hauberk_protocol::{ServerBody, ServerMessage, WorkerBody, WorkerMessage};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc::{Sender, UnboundedReceiver};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::metrics::{Kinds, WireMetrics};
use crate::ration::{Chain, Ration};

/// How this port is called in metrics.
const PORT: &str = "backend";

/// What comes from the backend port.
#[derive(Debug)]
pub(crate) enum FromBackend {
    /// A message.
    Received(Box<Received>),
    /// A message to this connection could not be delivered: it is gone, or takes nothing any more.
    Undelivered(RoutingId),
}

/// A message, and who sent it.
#[derive(Debug)]
pub(crate) struct Received {
    /// The connection it came by.
    pub(crate) routing: RoutingId,
    /// The key its sender has proved to own.
    pub(crate) user: Option<CurvePublicKey>,
    /// Where its sender is.
    pub(crate) peer_address: Option<IpAddr>,
    /// What it says.
    pub(crate) message: WorkerMessage,
}

/// Owns the socket until `stop`. What waits in `outgoing` then is still sent.
pub(crate) async fn run(
    mut socket: RouterSocket,
    events: Sender<FromBackend>,
    mut outgoing: UnboundedReceiver<(RoutingId, ServerMessage)>,
    stop: CancellationToken,
    metrics: WireMetrics,
) -> Result<(), SocketError> {
    let mut peers = Peers::new(&metrics);
    let (mut sent, mut discarded) = (metrics.sent(PORT), 0);
    let not_frames = metrics.ignored(PORT, "no_frame");
    loop {
        tokio::select! {
            biased;
            message = outgoing.recv() => match message {
                Some((to, message)) => {
                    peers.answered(to, &message);
                    sent.count(message.body.kind());
                    metrics.waiting("to_workers", outgoing.len());
                    if !send(&mut socket, to, message) {
                        metrics.undelivered();
                        if events.send(FromBackend::Undelivered(to)).await.is_err() {
                            break;
                        }
                    }
                }
                None => break,
            },
            incoming = socket.recv() => {
                let incoming = incoming?;
                not_frames.inc_by(socket.discarded() - std::mem::replace(&mut discarded, socket.discarded()));
                if let Some(message) = peers.decode(incoming)
                    && events.send(FromBackend::Received(message)).await.is_err()
                {
                    break;
                }
            }
            () = stop.cancelled() => break,
        }
    }
    while let Ok((to, message)) = outgoing.try_recv() {
        send(&mut socket, to, message);
    }
    Ok(())
}

/// Who may send how much: a key that was welcomed once is a worker's, any other a guest's.
struct Peers {
    workers: HashSet<CurvePublicKey>,
    /// Whose Hello waits for an answer.
    waiting: HashMap<RoutingId, CurvePublicKey>,
    malformed: Ration,
    received: Kinds,
    ignored: Counter,
}

impl Peers {
    fn new(metrics: &WireMetrics) -> Self {
        Self {
            workers: HashSet::new(),
            waiting: HashMap::new(),
            malformed: Ration::default(),
            received: metrics.received(PORT),
            ignored: metrics.ignored(PORT, "malformed"),
        }
    }

    fn decode(&mut self, incoming: Incoming) -> Option<Box<Received>> {
        let Incoming { routing_id, user, peer_address, frame } = incoming;
        let guest = user.is_some_and(|user| !self.workers.contains(&user));
        let decoded =
            if guest { WorkerMessage::decode_from_guest(&frame) } else { WorkerMessage::decode(&frame) };
        match decoded {
            Ok(message) => {
                self.received.count(message.body.kind());
                if let (WorkerBody::Hello(_), Some(user)) = (&message.body, user) {
                    self.waiting.insert(routing_id, user);
                }
                Some(Box::new(Received { routing: routing_id, user, peer_address, message }))
            }
            Err(error) => {
                self.ignored.inc();
                self.malformed.count(peer_address, Instant::now(), &Chain(&error));
                None
            }
        }
    }

    fn answered(&mut self, to: RoutingId, message: &ServerMessage) {
        match message.body {
            ServerBody::Welcome(_) => self.workers.extend(self.waiting.remove(&to)),
            ServerBody::Refused(_) => {
                if let Some(user) = self.waiting.remove(&to) {
                    self.workers.remove(&user);
                }
            }
            _ => {}
        }
    }
}

/// Sends a message. False when it cannot reach its peer.
fn send(socket: &mut RouterSocket, to: RoutingId, message: ServerMessage) -> bool {
    let kind = message.body.kind();
    let sent = match message.encode() {
        Ok(frame) => socket.send(to, &frame),
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, message.kind = kind, "cannot send a {kind}");
            return true;
        }
    };
    match sent {
        Ok(()) => true,
        Err(SendError::PeerGone) => {
            debug!(message.kind = kind, "the peer of a {kind} is gone");
            false
        }
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, message.kind = kind, "cannot send a {kind}");
            false
        }
    }
}
