//! The task that sends the logs of all attempts over one connection to the log port.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hauberk_protocol::socket::{
    ConnectionEvent, Context, DealerEvent, DealerOptions, DealerSocket, SendError, SocketError,
};
use hauberk_protocol::{LogReply, LogReplyBody};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until};
use tracing::{debug, info, warn};

use super::attempt_log::{AttemptLog, Wake};
use super::transfer::{Answered, Transfer};
use crate::AttemptId;
use crate::config::Security;

/// How long a line waits for others before it is compressed and sent.
const FLUSH_DELAY: Duration = Duration::from_millis(50);

/// How often overdue answers are looked for.
const TICK: Duration = Duration::from_secs(1);

/// The pause before a full connection is tried again.
const FULL: Duration = Duration::from_millis(5);

/// The pause before a socket is made again that could not be.
const BROKEN: Duration = Duration::from_secs(5);

enum Command {
    /// Where the log port of the server is, and the keys of both sides.
    Target(SocketAddr, Box<Security>),
    /// A log that has something to send, or may have later.
    Log(AttemptLog),
    /// A log that has ended without a word.
    Forget(AttemptId),
    /// A log has text that is in no chunk yet, or has ended.
    Wake(AttemptId),
}

/// Gives logs to the task that sends them. Cheap to clone; the task ends when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Courier {
    commands: mpsc::UnboundedSender<Command>,
    /// How many logs there are, those without a word included.
    waiting: Arc<watch::Sender<usize>>,
    spooled: Arc<AtomicU64>,
}

/// The receiving end of a [`Courier`], before its task runs.
pub(crate) struct CourierTask {
    commands: mpsc::UnboundedReceiver<Command>,
    waiting: Arc<watch::Sender<usize>>,
    spooled: Arc<AtomicU64>,
}

impl Courier {
    pub(crate) fn new() -> (Self, CourierTask) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(watch::Sender::new(0));
        let spooled = Arc::new(AtomicU64::new(0));
        let task =
            CourierTask { commands: receiver, waiting: Arc::clone(&waiting), spooled: Arc::clone(&spooled) };
        (Self { commands, waiting, spooled }, task)
    }

    /// What logs tell the task by. It does not keep the task alive.
    pub(crate) fn wake(&self) -> Wake {
        let commands = self.commands.downgrade();
        Arc::new(move |attempt| {
            if let Some(commands) = commands.upgrade() {
                // The task is gone only when the worker is, and the next one sends what is left.
                let _ = commands.send(Command::Wake(attempt));
            }
        })
    }

    /// Sends to this address from now on.
    pub(crate) fn target(&self, address: SocketAddr, security: Security) {
        let _ = self.commands.send(Command::Target(address, Box::new(security)));
    }

    /// Sends this log, as soon as it has text, until the server has it.
    pub(crate) fn add(&self, log: AttemptLog) {
        self.waiting.send_modify(|logs| *logs += 1);
        let _ = self.commands.send(Command::Log(log));
    }

    /// Forgets a log that has ended without a word.
    pub(crate) fn forget(&self, attempt: AttemptId) {
        let _ = self.commands.send(Command::Forget(attempt));
    }

    /// Compressed bytes of all logs that the server does not have in full.
    pub(crate) fn spooled(&self) -> u64 {
        self.spooled.load(Ordering::Relaxed)
    }

    /// What [`Self::spooled`] is read from; it does not keep the task alive.
    pub(crate) fn spooled_gauge(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.spooled)
    }

    /// Waits until the server has every log.
    pub(crate) async fn all_sent(&self) {
        // An error would mean that nobody counts any more, but this value does.
        let _ = self.waiting.subscribe().wait_for(|logs| *logs == 0).await;
    }
}

/// Logs that may have something to send, each at most once, in the order of their turns.
#[derive(Default)]
struct Turns {
    order: VecDeque<AttemptId>,
    members: BTreeSet<AttemptId>,
}

impl Turns {
    fn push(&mut self, attempt: AttemptId) {
        if self.members.insert(attempt) {
            self.order.push_back(attempt);
        }
    }

    fn pop(&mut self) -> Option<AttemptId> {
        let attempt = self.order.pop_front()?;
        self.members.remove(&attempt);
        Some(attempt)
    }
}

struct Sender {
    context: Context,
    security: Security,
    target: Option<SocketAddr>,
    socket: Option<DealerSocket>,
    transfers: BTreeMap<AttemptId, Transfer>,
    /// Logs without a word so far.
    quiet: BTreeMap<AttemptId, AttemptLog>,
    /// Whose turn it is to send.
    turns: Turns,
    /// A message that the socket did not take.
    held: Option<Bytes>,
    dirty: BTreeSet<AttemptId>,
    waiting: Arc<watch::Sender<usize>>,
    spooled: Arc<AtomicU64>,
}

impl CourierTask {
    /// Sends logs until every [`Courier`] is gone.
    pub(crate) async fn run(mut self, context: Context, security: Security) {
        let mut sender = Sender {
            context,
            security,
            target: None,
            socket: None,
            transfers: BTreeMap::new(),
            quiet: BTreeMap::new(),
            turns: Turns::default(),
            held: None,
            dirty: BTreeSet::new(),
            waiting: self.waiting,
            spooled: self.spooled,
        };
        let mut flush_at: Option<tokio::time::Instant> = None;
        let mut tick_at = tokio::time::Instant::now() + TICK;
        loop {
            let full = match sender.send() {
                Ok(full) => full,
                Err(error) => {
                    sender.broken(&error).await;
                    continue;
                }
            };
            let flush = async {
                match flush_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let busy = !sender.transfers.is_empty();
            let socket = &mut sender.socket;
            let event = async {
                match socket {
                    Some(socket) => socket.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = self.commands.recv() => match command {
                    None => return,
                    Some(Command::Target(address, security)) => sender.set_target(address, *security),
                    Some(Command::Log(log)) => sender.add(log),
                    Some(Command::Forget(attempt)) => sender.forget(attempt),
                    Some(Command::Wake(attempt)) => {
                        if sender.dirty.insert(attempt) {
                            flush_at.get_or_insert_with(|| tokio::time::Instant::now() + FLUSH_DELAY);
                        }
                    }
                },
                event = event => match event {
                    Ok(DealerEvent::Frame(frame)) => sender.received(&frame),
                    Ok(DealerEvent::Connection(change)) => sender.connection(change),
                    Err(error) => sender.broken(&error).await,
                },
                () = flush => {
                    flush_at = None;
                    sender.flush();
                }
                () = sleep(FULL), if full => {}
                () = sleep_until(tick_at), if busy => {
                    tick_at = tokio::time::Instant::now() + TICK;
                    let now = Instant::now();
                    sender.transfers.values_mut().for_each(|transfer| transfer.tick(now));
                    sender.queue_all();
                }
            }
        }
    }
}

impl Sender {
    fn set_target(&mut self, address: SocketAddr, security: Security) {
        let same_key = self.security.pinned() == security.pinned();
        self.security = security;
        if self.target != Some(address) || !same_key {
            self.target = Some(address);
            self.socket = None;
            self.held = None;
        }
    }

    fn add(&mut self, log: AttemptLog) {
        let attempt = log.id();
        if log.text_bytes() == 0 {
            self.quiet.insert(attempt, log);
            return;
        }
        self.transfers.insert(attempt, Transfer::new(log));
        self.turns.push(attempt);
        self.measure();
    }

    fn forget(&mut self, attempt: AttemptId) {
        if let Some(log) = self.quiet.remove(&attempt) {
            self.delete(log);
        }
    }

    fn measure(&self) {
        let bytes = self.transfers.values().map(|transfer| transfer.log().stream_bytes()).sum();
        self.spooled.store(bytes, Ordering::Relaxed);
    }

    fn flush(&mut self) {
        for attempt in std::mem::take(&mut self.dirty) {
            if let Some(log) = self.quiet.remove(&attempt) {
                self.transfers.insert(attempt, Transfer::begin(log));
            }
            if let Some(transfer) = self.transfers.get(&attempt) {
                transfer.log().flush();
                self.turns.push(attempt);
            }
        }
        self.measure();
    }

    fn queue_all(&mut self) {
        self.transfers.keys().for_each(|attempt| self.turns.push(*attempt));
    }

    fn connection(&mut self, change: ConnectionEvent) {
        match change {
            ConnectionEvent::Connected => {
                debug!("connected to the log port");
                self.held = None;
                self.transfers.values_mut().for_each(Transfer::restart);
                self.queue_all();
            }
            ConnectionEvent::Refused { .. } => {
                warn!("the log port: {change}; logs wait in the spool");
                // libzmq does not try again by itself; the next session brings a new target.
                self.socket = None;
                self.target = None;
            }
            ConnectionEvent::Disconnected => info!("the log port: {change}; logs wait in the spool"),
            ConnectionEvent::HandshakeFailed(_) | ConnectionEvent::Unreachable { .. } => {
                debug!("the log port: {change}");
            }
        }
    }

    fn received(&mut self, frame: &Bytes) {
        let reply = match LogReply::decode(frame) {
            Ok(reply) => reply,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "ignored what the log port sent");
                return;
            }
        };
        let Some(attempt) = AttemptId::new(reply.attempt) else { return };
        let Some(transfer) = self.transfers.get_mut(&attempt) else { return };
        let now = Instant::now();
        let done = match reply.body {
            LogReplyBody::Ack(ack) => match transfer.answered(now, ack) {
                Answered::GoesOn => false,
                Answered::Complete => true,
                Answered::Impossible => {
                    warn!(attempt.id = %attempt, "the server has more of the log of attempt {attempt} than this worker kept");
                    true
                }
            },
            LogReplyBody::Refused(refused) if refused.forget => {
                warn!(attempt.id = %attempt, "the server does not want the log of attempt {attempt}: {}", refused.message);
                true
            }
            LogReplyBody::Refused(refused) => {
                debug!(attempt.id = %attempt, "the server does not take the log of attempt {attempt} now: {}", refused.message);
                transfer.postpone(now);
                false
            }
            LogReplyBody::Unknown { tag } => {
                warn!(
                    message.tag = tag,
                    "the log port sent a message of unknown kind {tag}, which is ignored"
                );
                false
            }
        };
        if done {
            self.drop_log(attempt);
        } else {
            self.turns.push(attempt);
        }
    }

    fn drop_log(&mut self, attempt: AttemptId) {
        if let Some(transfer) = self.transfers.remove(&attempt) {
            self.delete(transfer.log().clone());
            self.measure();
        }
    }

    fn delete(&self, log: AttemptLog) {
        let (waiting, in_memory) = (Arc::clone(&self.waiting), log.is_in_memory());
        let delete = move || {
            if let Err(error) = log.remove() {
                warn!(attempt.id = %log.id(), %error, "cannot delete the spooled log of attempt {}", log.id());
            }
            waiting.send_modify(|logs| *logs = logs.saturating_sub(1));
        };
        if in_memory {
            delete();
        } else {
            tokio::task::spawn_blocking(delete);
        }
    }

    /// Sends what can be sent. Tells whether the connection was full.
    fn send(&mut self) -> Result<bool, SocketError> {
        let mut unreadable = Vec::new();
        let full = self.send_turns(&mut unreadable);
        unreadable.into_iter().for_each(|attempt| self.drop_log(attempt));
        full
    }

    fn send_turns(&mut self, unreadable: &mut Vec<AttemptId>) -> Result<bool, SocketError> {
        if self.transfers.is_empty() {
            return Ok(false);
        }
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => {
                let Some(target) = self.target else { return Ok(false) };
                none.insert(DealerSocket::connect(
                    &self.context,
                    target,
                    self.security.as_client(),
                    &DealerOptions::logs(),
                )?)
            }
        };
        if !socket.is_connected() {
            return Ok(false);
        }
        let now = Instant::now();
        loop {
            let frame = match self.held.take() {
                Some(frame) => frame,
                None => {
                    let Some(attempt) = self.turns.pop() else { return Ok(false) };
                    let Some(transfer) = self.transfers.get_mut(&attempt) else { continue };
                    match transfer.next(now) {
                        Ok(None) => continue,
                        Ok(Some(message)) => {
                            self.turns.push(attempt);
                            match message.encode() {
                                Ok(frame) => frame,
                                Err(error) => {
                                    warn!(
                                        error = &error as &dyn std::error::Error,
                                        "cannot send a piece of a log"
                                    );
                                    continue;
                                }
                            }
                        }
                        Err(error) => {
                            warn!(attempt.id = %attempt, %error, "cannot read the spooled log of attempt {attempt}: it stays cut");
                            unreadable.push(attempt);
                            continue;
                        }
                    }
                }
            };
            match socket.try_send(&frame) {
                Ok(()) => {}
                Err(SendError::Full) => {
                    self.held = Some(frame);
                    return Ok(true);
                }
                Err(SendError::Socket(error)) => return Err(error),
                Err(error) => warn!(error = &error as &dyn std::error::Error, "cannot send a piece of a log"),
            }
        }
    }

    async fn broken(&mut self, error: &SocketError) {
        warn!(
            error = error as &dyn std::error::Error,
            "the connection to the log port broke; logs wait in the spool"
        );
        self.socket = None;
        self.held = None;
        // Commands wait in their channel meanwhile; nothing else would happen without a socket.
        sleep(BROKEN).await;
    }
}
