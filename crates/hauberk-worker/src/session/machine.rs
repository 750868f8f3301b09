//! The session: Hello, Welcome, credit, heartbeats, results until they are acknowledged, and leaving.
//!
//! Within a session both sides count their messages. When a number of the server's is missing, an Assign may be lost, and with it the
//! credit it used: a new Hello sets both sides right. The credit granted is always what was assigned in the session plus what
//! could be taken now, so that it never has to be kept in step with anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hauberk_protocol::proto::{
    self, AttemptPhase, Credit, DeclineReason, Declined, Finished, Goodbye, Heartbeat, Hello, Load, Outcome,
    Refused, Started, Welcome,
};
use hauberk_protocol::{ServerBody, ServerMessage, WorkerBody, WorkerMessage};
use tracing::{debug, info, warn};

use super::roster::{Canceled, Roster, Taken};
use crate::{Assignment, AttemptId};

/// What Hello says of the worker itself, with empty lists of attempts.
pub(crate) type Identity = Hello;

/// Bounds of what the server may ask for, and our own patience.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// How long the first Hello may go without an answer before the connection is given up; each further one twice as long.
    pub(crate) hello_timeout: Duration,
}

impl Default for Timing {
    /// 10 s: a server that waits for its database answers Refused (not ready) sooner than that.
    fn default() -> Self {
        Self { hello_timeout: Duration::from_secs(10) }
    }
}

/// Results are told again after a lease without an Ack, then after twice that, and so on, so often doubled at most: a server that is busy
/// must not become busier for it.
const MOST_DOUBLINGS: u32 = 5;
/// The patience with an unanswered Hello is doubled with each, so often at most.
const MOST_HELLO_DOUBLINGS: u32 = 4;
/// The shortest heartbeat interval that is taken from a server: a mistake there must not become a flood here.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// What is to be done.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a few effects are in hand at a time, and most of them send")]
pub(crate) enum Effect {
    /// Send a message.
    Send(WorkerMessage),
    /// Run an attempt.
    Begin(Arc<Assignment>),
    /// Stop an attempt, for this reason; its end is then told by [`Session::ended`].
    Abort(AttemptId, String),
    /// Forget the results of `attempts`, of which `kept` have outputs that are served on.
    Acknowledged { attempts: Vec<AttemptId>, kept: Vec<AttemptId> },
    /// Put these on the server, which cannot fetch them.
    Upload(proto::Upload),
    /// Forget these attempts and no longer serve their outputs.
    Released(Vec<AttemptId>),
    /// Look at the server: where it is, and whether the daemon accepts its key; then call [`Session::admit`].
    Welcomed(Box<Welcome>),
    /// Give this connection up and look for the server again, after this pause.
    Reconnect(Duration),
    /// The server does not want this worker, and another try makes no sense.
    Refused(Refused),
    /// The worker has left in order, as the server asked.
    Left,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ending {
    /// With a result.
    Finished(Finished),
    /// It was not run.
    Declined(Declined),
}

#[derive(Debug)]
enum Link {
    /// No connection.
    Away,
    /// Hello is sent.
    Greeting { since: Instant },
    /// Welcome has come.
    Joined(Joined),
    /// Goodbye is said, or there was nobody to say it to.
    Gone,
}

#[derive(Debug)]
struct Joined {
    session: u64,
    /// Number of the last message sent.
    sent: u64,
    /// Number of the last message received.
    received: u64,
    last_assign: u64,
    /// Attempts assigned in this session.
    taken: u64,
    /// The last total told.
    granted: u64,
    /// Whether work is wanted: the server's key was looked at.
    admitted: bool,
    interval: Duration,
    lease: Duration,
    next_heartbeat: Instant,
    /// Since when a result waits for its Ack, or for another since the last one came or results were told again.
    waiting_since: Option<Instant>,
    /// How often results were told again since the last Ack.
    repeated: u32,
}

/// The worker's side of the conversation.
#[derive(Debug)]
pub(crate) struct Session {
    identity: Identity,
    timing: Timing,
    roster: Roster,
    link: Link,
    /// No more work is taken.
    leaving: Option<Leaving>,
    paused: bool,
    /// The machine lacks something: no work is asked for.
    short: bool,
    /// Hellos without an answer since the last Welcome.
    unanswered: u32,
    /// Messages that could not be understood or were of another session.
    ignored: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// Told by the server: everything is finished first, and the outputs are fetched.
    Drained,
    /// Told by the operator: the caller decides when it is over.
    Stopped,
}

impl Session {
    pub(crate) fn new(
        identity: Identity,
        ahead: usize,
        timing: Timing,
        unacknowledged: BTreeMap<AttemptId, Finished>,
        kept: Vec<AttemptId>,
    ) -> Self {
        let slots = usize::try_from(identity.slots).unwrap_or(usize::MAX);
        Self {
            identity,
            timing,
            roster: Roster::new(slots, ahead, unacknowledged, kept),
            link: Link::Away,
            leaving: None,
            paused: false,
            short: false,
            unanswered: 0,
            ignored: 0,
        }
    }

    /// Whether a session stands.
    pub(crate) fn is_joined(&self) -> bool {
        matches!(self.link, Link::Joined(_))
    }

    /// Whether work is asked for in the session that stands.
    pub(crate) fn is_admitted(&self) -> bool {
        matches!(&self.link, Link::Joined(joined) if joined.admitted)
    }

    /// Whether nothing runs and every result is acknowledged.
    pub(crate) fn is_settled(&self) -> bool {
        self.roster.active().is_empty() && self.roster.unacknowledged().next().is_none()
    }

    /// The attempts that hold or wait for a slot.
    pub(crate) fn active(&self) -> Vec<AttemptId> {
        self.roster.active()
    }

    /// A connection stands, or the server asked for a Hello.
    pub(crate) fn connected(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if matches!(self.link, Link::Gone) {
            return;
        }
        let hello = Hello {
            running: self.roster.running(now),
            unacknowledged: self.roster.unacknowledged().map(|(attempt, _)| attempt.get()).collect(),
            unreleased: self.roster.unreleased().map(AttemptId::get).collect(),
            ..self.identity.clone()
        };
        self.link = Link::Greeting { since: now };
        effects.push(Effect::Send(WorkerMessage::new(0, 1, hello)));
    }

    /// The connection is lost. What runs goes on.
    pub(crate) fn lost(&mut self) {
        if !matches!(self.link, Link::Gone) {
            self.link = Link::Away;
        }
    }

    /// The server's key is accepted here: work is wanted.
    pub(crate) fn admit(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Link::Joined(joined) = &mut self.link {
            joined.admitted = true;
            // Heartbeats repeat the total, so one of them is due with the first credit.
            joined.next_heartbeat = now;
        }
        self.grant(effects);
    }

    /// The machine lacks something to take work, or no longer does: the server is told at once.
    pub(crate) fn short(&mut self, now: Instant, short: bool, effects: &mut Vec<Effect>) {
        self.short = short;
        if let Link::Joined(joined) = &mut self.link {
            joined.next_heartbeat = now;
        }
        self.grant(effects);
    }

    /// Takes a message.
    pub(crate) fn received(&mut self, now: Instant, message: ServerMessage, effects: &mut Vec<Effect>) {
        match message.body {
            ServerBody::HelloAgain(_) => {
                // Every message of the old session was answered so; one Hello is enough.
                if let Link::Joined(_) = self.link {
                    info!("the server does not know this session any more, saying hello again");
                    self.connected(now, effects);
                }
                return;
            }
            ServerBody::Refused(refused) => {
                self.refused(refused, effects);
                return;
            }
            ServerBody::Welcome(welcome) => {
                self.welcomed(now, message.sequence, welcome, effects);
                return;
            }
            ServerBody::Enrolled(_) => {
                self.ignore("an Enrolled that was not asked for");
                return;
            }
            _ => {}
        }
        let Link::Joined(joined) = &mut self.link else {
            self.ignore("a message without a session");
            return;
        };
        if message.session != joined.session {
            self.ignore("a message of another session");
            return;
        }
        // A server that does not count gives 0 each time.
        if message.sequence != 0 {
            let expected = joined.received + 1;
            if message.sequence < expected {
                self.ignore("a repeated message");
                return;
            }
            if message.sequence > expected {
                warn!(
                    messages.lost = message.sequence - expected,
                    "{} messages of the server were lost, saying hello again",
                    message.sequence - expected
                );
                self.connected(now, effects);
                return;
            }
            joined.received = message.sequence;
        }
        match message.body {
            ServerBody::Assign(assign) => self.assigned(now, message.sequence, assign, effects),
            ServerBody::Cancel(cancel) => self.canceled(&cancel, effects),
            ServerBody::Ack(ack) => {
                let (attempts, kept) = self.roster.acknowledge(&ack.attempts);
                if !attempts.is_empty() {
                    effects.push(Effect::Acknowledged { attempts, kept });
                }
                let waiting = self.roster.unacknowledged().next().is_some();
                if let Link::Joined(joined) = &mut self.link {
                    joined.waiting_since = waiting.then_some(now);
                    joined.repeated = 0;
                }
                self.leave_when_drained(effects);
            }
            ServerBody::Release(release) => {
                let released = self.roster.release(&release.attempts);
                if !released.is_empty() {
                    effects.push(Effect::Released(released));
                }
                self.leave_when_drained(effects);
            }
            ServerBody::Pause(pause) => {
                if self.paused != pause.paused {
                    let change = if pause.paused { "paused" } else { "resumed" };
                    info!(reason = pause.reason, "the server {change} this worker: {}", pause.reason);
                }
                self.paused = pause.paused;
            }
            ServerBody::Drain(drain) => {
                if self.leaving.is_none() {
                    info!(
                        reason = drain.reason,
                        "the server asks this worker to finish and leave: {}", drain.reason
                    );
                    self.leaving = Some(Leaving::Drained);
                }
                self.leave_when_drained(effects);
            }
            ServerBody::Upload(upload) => effects.push(Effect::Upload(upload)),
            ServerBody::Unknown { tag } => {
                warn!(message.tag = tag, "the server sent a message of unknown kind {tag}, which is ignored");
                self.ignored += 1;
            }
            ServerBody::Welcome(_)
            | ServerBody::Enrolled(_)
            | ServerBody::HelloAgain(_)
            | ServerBody::Refused(_) => {}
        }
    }

    fn welcomed(&mut self, now: Instant, sequence: u64, welcome: Welcome, effects: &mut Vec<Effect>) {
        if !matches!(self.link, Link::Greeting { .. }) || welcome.session == 0 {
            self.ignore("a Welcome that was not asked for");
            return;
        }
        let lease = Duration::from_millis(welcome.lease_ms.into()).max(2 * SHORTEST_INTERVAL);
        let interval = Duration::from_millis(welcome.heartbeat_interval_ms.into())
            .clamp(SHORTEST_INTERVAL, (lease / 2).max(SHORTEST_INTERVAL));
        self.link = Link::Joined(Joined {
            session: welcome.session,
            sent: 0,
            received: sequence,
            last_assign: 0,
            taken: 0,
            granted: 0,
            admitted: false,
            interval,
            lease,
            next_heartbeat: now + interval,
            waiting_since: None,
            repeated: 0,
        });
        self.paused = false;
        self.unanswered = 0;
        effects.push(Effect::Welcomed(Box::new(welcome)));
        self.tell_results(effects);
        if let Link::Joined(joined) = &mut self.link {
            joined.waiting_since = self.roster.unacknowledged().next().map(|_| now);
        }
        self.leave_when_drained(effects);
    }

    /// Tells every result that is not acknowledged, and gives their number.
    fn tell_results(&mut self, effects: &mut Vec<Effect>) -> usize {
        let owed: Vec<Finished> = self.roster.unacknowledged().map(|(_, result)| result.clone()).collect();
        let count = owed.len();
        for result in owed {
            self.send(result, effects);
        }
        count
    }

    fn refused(&mut self, refused: Refused, effects: &mut Vec<Effect>) {
        if !matches!(self.link, Link::Greeting { .. } | Link::Joined(_)) {
            self.ignore("a refusal without a hello");
            return;
        }
        self.link = Link::Away;
        if refused.retry_after_s == 0 {
            effects.push(Effect::Refused(refused));
        } else {
            warn!(
                reason = refused.reason().as_str_name(),
                "the server refuses this worker for now: {}", refused.message
            );
            // An hour at most: a wrong number must not lose the worker for ever.
            effects.push(Effect::Reconnect(Duration::from_secs(refused.retry_after_s.min(3600).into())));
        }
    }

    fn assigned(&mut self, now: Instant, sequence: u64, assign: proto::Assign, effects: &mut Vec<Effect>) {
        let number = assign.attempt;
        if let Link::Joined(joined) = &mut self.link {
            joined.last_assign = sequence;
        }
        let decline = |reason: DeclineReason, message: String| Declined {
            attempt: number,
            reason: reason.into(),
            message,
            paths: Vec::new(),
        };
        let refusal = match Assignment::try_from(assign) {
            Err(error) => Some(decline(DeclineReason::Unsupported, error.to_string())),
            Ok(_) if self.leaving.is_some() => {
                Some(decline(DeclineReason::Leaving, "the worker is leaving".to_owned()))
            }
            Ok(assignment) => match self.roster.assign(assignment, now) {
                Taken::Begin(assignment) => {
                    effects.push(Effect::Begin(assignment));
                    None
                }
                Taken::Queued => None,
                Taken::Known => return,
                Taken::Ended => {
                    let attempt = AttemptId::new(number);
                    let result = self
                        .roster
                        .unacknowledged()
                        .find(|(id, _)| Some(*id) == attempt)
                        .map(|(_, result)| result.clone());
                    if let Some(result) = result {
                        self.send(result, effects);
                    }
                    return;
                }
                Taken::NoSlot => Some(decline(DeclineReason::NoSlot, "every slot is taken".to_owned())),
            },
        };
        if let Link::Joined(joined) = &mut self.link {
            joined.taken += 1;
        }
        if let Some(declined) = refusal {
            warn!(attempt.id = number, "attempt {number} is declined: {}", declined.message);
            self.send(declined, effects);
        }
        self.grant(effects);
    }

    fn canceled(&mut self, cancel: &proto::Cancel, effects: &mut Vec<Effect>) {
        let Some(attempt) = AttemptId::new(cancel.attempt) else {
            self.ignore("a Cancel of no attempt");
            return;
        };
        match self.roster.cancel(attempt) {
            Canceled::Stop => effects.push(Effect::Abort(attempt, cancel.reason.clone())),
            Canceled::Dropped => {
                let result = canceled_result(attempt, &cancel.reason);
                self.roster.finish(attempt, result.clone());
                self.send(result, effects);
                self.grant(effects);
            }
            // It ended before the word came: its result says how.
            Canceled::Nothing => {}
            // The server waits for an end that nobody else will tell. Repeating it is harmless.
            Canceled::Unknown => self.send(canceled_result(attempt, "it does not run here"), effects),
        }
    }

    /// An attempt has come this far.
    pub(crate) fn reached(&mut self, attempt: AttemptId, phase: AttemptPhase) {
        self.roster.reach(attempt, phase);
    }

    /// The build of an attempt has begun.
    pub(crate) fn started(&mut self, attempt: AttemptId, inputs: Duration, effects: &mut Vec<Effect>) {
        self.roster.reach(attempt, AttemptPhase::Building);
        let inputs_ms = milliseconds(inputs);
        self.send(Started { attempt: attempt.get(), inputs_ms }, effects);
    }

    /// An attempt has ended.
    pub(crate) fn ended(
        &mut self,
        now: Instant,
        attempt: AttemptId,
        ending: Ending,
        effects: &mut Vec<Effect>,
    ) {
        match ending {
            Ending::Finished(result) => {
                self.roster.finish(attempt, result.clone());
                if let Link::Joined(joined) = &mut self.link {
                    joined.waiting_since.get_or_insert(now);
                }
                self.send(result, effects);
            }
            Ending::Declined(declined) => {
                // Not repeated: at a lost one the server finds that the attempt does not run here.
                self.roster.forget(attempt);
                self.send(declined, effects);
            }
        }
        while let Some(assignment) = self.roster.next() {
            effects.push(Effect::Begin(assignment));
        }
        self.grant(effects);
        self.leave_when_drained(effects);
    }

    /// How long this Hello may go without an answer. A server to which many workers come at once answers the last of them late: whoever
    /// gave up always after the same time would never be answered.
    fn hello_patience(&self) -> Duration {
        self.timing.hello_timeout * (1 << self.unanswered.min(MOST_HELLO_DOUBLINGS))
    }

    /// When [`Session::tick`] is next to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.link {
            Link::Away | Link::Gone => None,
            Link::Greeting { since } => Some(*since + self.hello_patience()),
            Link::Joined(joined) => Some(joined.next_heartbeat),
        }
    }

    /// Does what is due. `load` is asked for when a heartbeat is.
    pub(crate) fn tick(&mut self, now: Instant, load: impl FnOnce() -> Load, effects: &mut Vec<Effect>) {
        let hello_patience = self.hello_patience();
        match &mut self.link {
            Link::Away | Link::Gone => {}
            Link::Greeting { since } => {
                let waited = now.saturating_duration_since(*since);
                if waited >= hello_patience {
                    self.unanswered += 1;
                    warn!("the server did not answer within {} s, looking for it again", waited.as_secs());
                    self.link = Link::Away;
                    effects.push(Effect::Reconnect(Duration::ZERO));
                }
            }
            Link::Joined(joined) => {
                if now < joined.next_heartbeat {
                    return;
                }
                let patience = joined.lease * (1 << joined.repeated.min(MOST_DOUBLINGS));
                let repeat = joined
                    .waiting_since
                    .is_some_and(|since| now.saturating_duration_since(since) >= patience);
                if repeat {
                    joined.repeated += 1;
                    joined.waiting_since = Some(now);
                }
                joined.next_heartbeat = now + joined.interval;
                let (last_assign_seen, granted) = (joined.last_assign, joined.granted);
                let running = self.roster.running(now);
                self.send(Heartbeat { running, last_assign_seen, granted, load: Some(load()) }, effects);
                if repeat {
                    // In the session that stands: what the server has assigned meanwhile and has not arrived yet would be lost with it.
                    let owed = self.tell_results(effects);
                    warn!(
                        "{owed} results wait for their acknowledgement for {} s, telling them again",
                        patience.as_secs()
                    );
                }
            }
        }
    }

    /// Takes no more work; the caller decides when to say [`Session::goodbye`], which also gives back what waits for a slot.
    pub(crate) fn stop_taking(&mut self) {
        self.leaving = Some(Leaving::Stopped);
        self.roster.drop_queue();
    }

    /// Says goodbye; what still runs is given back by it.
    pub(crate) fn goodbye(&mut self, reason: &str, effects: &mut Vec<Effect>) {
        self.send(Goodbye { reason: reason.to_owned() }, effects);
        self.link = Link::Gone;
    }

    fn leave_when_drained(&mut self, effects: &mut Vec<Effect>) {
        let drained = self.leaving == Some(Leaving::Drained)
            && self.is_joined()
            && self.is_settled()
            && self.roster.unreleased().next().is_none();
        if drained {
            self.goodbye("drained", effects);
            effects.push(Effect::Left);
        }
    }

    /// Tells the server the credit there is, if it is more than before.
    fn grant(&mut self, effects: &mut Vec<Effect>) {
        let free = self.roster.free() as u64;
        let Link::Joined(joined) = &mut self.link else { return };
        let granted = joined.taken + free;
        if joined.admitted && self.leaving.is_none() && !self.short && granted > joined.granted {
            joined.granted = granted;
            self.send(Credit { granted }, effects);
        }
    }

    /// Sends within the session; without one the message is not needed, or repeated in the next.
    fn send(&mut self, body: impl Into<WorkerBody>, effects: &mut Vec<Effect>) {
        if let Link::Joined(joined) = &mut self.link {
            joined.sent += 1;
            effects.push(Effect::Send(WorkerMessage::new(joined.session, joined.sent, body)));
        }
    }

    fn ignore(&mut self, what: &'static str) {
        self.ignored += 1;
        debug!(messages.ignored = self.ignored, "ignored {what}");
    }
}

/// The result of an attempt that was canceled.
pub(crate) fn canceled_result(attempt: AttemptId, reason: &str) -> Finished {
    Finished {
        attempt: attempt.get(),
        outcome: Outcome::Canceled.into(),
        message: if reason.is_empty() { "canceled".to_owned() } else { format!("canceled: {reason}") },
        ..Finished::default()
    }
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
