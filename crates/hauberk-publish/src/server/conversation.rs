//! One client that asks, and nobody else: its socket blocks a thread.
//!
//! A client that waits for each answer before it asks again spends its time with waking the server. A thread that sleeps in the
//! socket itself is there sooner than a runtime that is told that the socket can be read, and then reads it.

use std::{
    io::{self, Read, Write},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::FutureExt;

use super::{
    activity::Activity,
    body::Body,
    connection::Shared,
    listener::Arrival,
    request::{Method, Request},
};

/// Requests of one client in succession, with none of others between, from which on they are a conversation.
const CONVERSATION: u32 = 32;

/// How long the client may think before its socket goes back to the runtime.
const PATIENCE: Duration = Duration::from_millis(5);

/// Bytes taken from a socket at a time.
const READ: usize = 8 * 1024;

/// Knows which of all connections asked last.
#[derive(Debug, Default)]
pub(super) struct Succession {
    /// The number of connections that there have been.
    numbered: AtomicU64,
    last: AtomicU64,
}

/// How often one connection has asked since another did.
#[derive(Debug)]
pub(super) struct Streak {
    number: u64,
    length: u32,
}

impl Succession {
    /// Begins the count of a new connection.
    pub(super) fn newcomer(&self) -> Streak {
        Streak { number: self.numbered.fetch_add(1, Ordering::Relaxed) + 1, length: 0 }
    }
}

impl Streak {
    /// Notes a request. Tells whether there is a conversation, and ends its count then.
    pub(super) fn note(&mut self, succession: &Succession) -> bool {
        self.length = if self.goes_on(succession) { self.length + 1 } else { 0 };
        let conversation = self.length >= CONVERSATION;
        if conversation {
            self.length = 0;
        }
        conversation
    }

    /// Notes a request. Tells whether the one before was of the same connection.
    fn goes_on(&self, succession: &Succession) -> bool {
        // Most often nothing is written, and no other processor has to be told.
        succession.last.load(Ordering::Relaxed) == self.number
            || succession.last.swap(self.number, Ordering::Relaxed) == self.number
    }
}

/// A connection whose socket is on no runtime.
pub(super) struct Conversation {
    /// The client.
    pub(super) peer: Arrival,
    /// Bytes received that belong to no request yet.
    pub(super) input: Vec<u8>,
    /// Answers that are not sent yet.
    pub(super) output: Vec<u8>,
}

impl Conversation {
    /// Answers what can be answered at once, until the client pauses, somebody else asks, something else is asked for, or the
    /// server stops. What is left to do then is left in the buffers.
    ///
    /// # Errors
    /// A client that is gone; what the operating system says.
    pub(super) fn run(mut self, shared: &Shared, activity: &Activity, streak: &Streak) -> io::Result<Self> {
        self.peer.block_for(Some(PATIENCE))?;
        while streak.goes_on(&shared.succession) && !shared.stop.is_cancelled() {
            let mut space = [0; READ];
            let received = match self.peer.read(&mut space) {
                Ok(0) => break,
                Ok(received) => received,
                Err(error) if is_pause(&error) => break,
                Err(error) => return Err(error),
            };
            activity.note();
            self.input.extend_from_slice(&space[..received]);
            if !self.answer(shared) || !self.send(shared, activity)? {
                break;
            }
        }
        self.peer.block_for(None)?;
        Ok(self)
    }

    /// Answers the request that was received, if it is whole and no other follows. Tells whether it did.
    fn answer(&mut self, shared: &Shared) -> bool {
        let Ok(Some((request, length))) = Request::parse(&self.input) else { return false };
        let simple = length == self.input.len()
            && request.stays
            && matches!(request.method, Method::Get | Method::Head)
            && request.path.ends_with(".narinfo");
        if !simple {
            return false;
        }
        // What is not at hand is asked for again on the runtime.
        let Some(reply) = shared.handler.handle(&request).now_or_never() else { return false };
        let Body::Bytes(bytes) = &reply.body else { return false };
        if reply.ends_connection(&request) {
            return false;
        }
        reply.write_head(&request, false, &mut self.output);
        if request.method != Method::Head {
            self.output.extend_from_slice(bytes);
        }
        self.input.clear();
        true
    }

    /// Sends what there is to send. Tells whether the client took all of it at once.
    fn send(&mut self, shared: &Shared, activity: &Activity) -> io::Result<bool> {
        let sent = match self.peer.write(&self.output) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => sent,
            Err(error) if is_pause(&error) => 0,
            Err(error) => return Err(error),
        };
        activity.note();
        shared.metrics.sent(sent as u64);
        self.output.drain(..sent);
        Ok(self.output.is_empty())
    }
}

/// Whether nothing came in time.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
