//! A worker's session: what it can do, how much it may be given, and when it was last heard of.

use std::time::{Duration, Instant};

use hauberk_database::WorkerId;
use hauberk_order::Capabilities;
use hauberk_protocol::socket::RoutingId;
use hauberk_protocol::{ServerBody, ServerMessage};

/// Names a session: given by the server in Welcome, never 0, unpredictable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(i64);

impl SessionId {
    /// Wraps a number that was drawn at random; it is made positive and not 0.
    pub(crate) fn from_random(number: u64) -> Self {
        Self(i64::try_from(number >> 1).unwrap_or(1).max(1))
    }

    /// The session a message names, if it names one.
    pub(crate) fn from_wire(number: u64) -> Option<Self> {
        i64::try_from(number).ok().filter(|number| *number > 0).map(Self)
    }

    /// As it stands in messages.
    pub(crate) fn to_wire(self) -> u64 {
        self.0.unsigned_abs()
    }

    /// As it stands in the database.
    pub(crate) fn get(self) -> i64 {
        self.0
    }
}

/// One worker's session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Names it.
    pub(crate) id: SessionId,
    /// The worker.
    pub(crate) worker: WorkerId,
    /// The worker's name.
    pub(crate) name: String,
    /// Where to send.
    pub(crate) routing: RoutingId,
    /// What it can build.
    pub(crate) capabilities: Capabilities,
    /// Builds it runs at once, as it says.
    pub(crate) slots: u32,
    /// Its own system.
    pub(crate) system: String,
    /// An operator wants it to get no work.
    pub(crate) paused: bool,
    /// What it says it lacks to take work now; empty: nothing.
    pub(crate) shortage: String,
    /// An operator wants it to finish what it runs and to leave.
    pub(crate) draining: bool,
    /// Credit granted in total.
    granted: u64,
    /// It is tried with one build, though it is paused.
    pub(crate) probed: bool,
    /// Attempts assigned, or about to be, in total.
    assigned: u64,
    /// Messages sent.
    sequence: u64,
    /// Messages received: the largest sequence number.
    received: u64,
    last_seen: Instant,
}

impl Session {
    /// Begins a session.
    pub(crate) fn new(
        id: SessionId,
        worker: WorkerId,
        name: String,
        routing: RoutingId,
        capabilities: Capabilities,
        now: Instant,
    ) -> Self {
        Self {
            id,
            worker,
            name,
            routing,
            capabilities,
            slots: 0,
            system: String::new(),
            paused: false,
            shortage: String::new(),
            draining: false,
            granted: 0,
            probed: false,
            assigned: 0,
            sequence: 0,
            received: 0,
            last_seen: now,
        }
    }

    /// Attempts it can take now.
    pub(crate) fn free(&self) -> u64 {
        let free = self.granted.saturating_sub(self.assigned);
        match (self.draining || !self.shortage.is_empty(), self.paused) {
            (true, _) => 0,
            (false, true) => free.min(self.probed.into()),
            (false, false) => free,
        }
    }

    /// Tells whether it takes work, if it has room.
    pub(crate) fn takes_work(&self) -> bool {
        !self.paused && !self.draining && self.shortage.is_empty()
    }

    /// Takes a running total of credit; an overtaken smaller one changes nothing.
    pub(crate) fn grant(&mut self, total: u64) {
        self.granted = self.granted.max(total);
    }

    /// Reserves credit for an attempt that is being recorded.
    pub(crate) fn reserve(&mut self) {
        self.probed = false;
        self.assigned += 1;
    }

    /// Gives back credit whose attempt came to nothing before it was sent.
    pub(crate) fn give_back(&mut self) {
        self.assigned = self.assigned.saturating_sub(1);
    }

    /// Notes that it was heard of; gives the number of messages that were lost before this one.
    pub(crate) fn heard(&mut self, sequence: u64, now: Instant) -> u64 {
        self.last_seen = now;
        let lost = sequence.saturating_sub(self.received + 1);
        self.received = self.received.max(sequence);
        lost
    }

    /// Tells when it was last heard of.
    pub(crate) fn last_seen(&self) -> Instant {
        self.last_seen
    }

    /// Tells whether nothing was heard of it for a lease.
    pub(crate) fn is_lapsed(&self, lease: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.last_seen) > lease
    }

    /// Puts a message to it together; gives its sequence number too.
    pub(crate) fn message(&mut self, body: impl Into<ServerBody>) -> (u64, ServerMessage) {
        self.sequence += 1;
        (self.sequence, ServerMessage::new(self.id.to_wire(), self.sequence, body))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hauberk_store::StoreDirectory;

    use super::*;

    #[test]
    fn credit_is_a_running_total() {
        let capabilities = Capabilities {
            store_directory: StoreDirectory::nix(),
            systems: BTreeSet::new(),
            features: BTreeSet::new(),
            mandatory_features: BTreeSet::new(),
        };
        let now = Instant::now();
        let id = SessionId::from_random(u64::MAX);
        let routing = RoutingId::from_number(1);
        let mut session = Session::new(id, WorkerId::new(1), "w".to_owned(), routing, capabilities, now);
        assert_eq!(session.free(), 0);
        session.grant(3);
        session.grant(2);
        assert_eq!(session.free(), 3);
        session.reserve();
        session.reserve();
        assert_eq!(session.free(), 1);
        session.give_back();
        assert_eq!(session.free(), 2);
        session.paused = true;
        assert_eq!(session.free(), 0);
        (session.paused, session.shortage) = (false, "disk".to_owned());
        assert_eq!(session.free(), 0);
        session.shortage.clear();
        assert_eq!(session.free(), 2);
        session.draining = true;
        assert_eq!(session.free(), 0);
        assert_eq!(session.heard(1, now), 0);
        assert_eq!(session.heard(4, now), 2);
        assert_eq!(session.heard(2, now), 0);
        assert!(!session.is_lapsed(Duration::from_secs(60), now + Duration::from_secs(60)));
        assert!(session.is_lapsed(Duration::from_secs(60), now + Duration::from_secs(61)));
    }

    #[test]
    fn session_numbers_fit_the_wire_and_the_database() {
        for number in [0, 1, 2, u64::MAX, 1 << 63] {
            let id = SessionId::from_random(number);
            assert!(id.get() > 0);
            assert_eq!(SessionId::from_wire(id.to_wire()), Some(id));
        }
        assert_eq!(SessionId::from_wire(0), None);
        assert_eq!(SessionId::from_wire(u64::MAX), None);
    }
}
