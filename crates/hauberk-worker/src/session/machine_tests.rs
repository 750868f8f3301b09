//! What the session decides, as tables of what is received and what is sent.

use hauberk_protocol::proto::{Ack, Cancel, Drain, HelloAgain, OutputInfo, Pause, RefusedReason, Release};

use super::*;
use crate::session::tests_support::assign;

const INTERVAL: Duration = Duration::from_secs(15);
const LEASE: Duration = Duration::from_secs(60);

struct Table {
    session: Session,
    now: Instant,
    sequence: u64,
}

fn id(number: i64) -> AttemptId {
    AttemptId::new(number).unwrap()
}

fn success(number: i64) -> Finished {
    let outputs = vec![OutputInfo::default()];
    Finished { attempt: number, outcome: Outcome::Succeeded.into(), outputs, ..Finished::default() }
}

fn welcome() -> Welcome {
    Welcome { session: 9, heartbeat_interval_ms: 15_000, lease_ms: 60_000, ..Welcome::default() }
}

/// One word for each effect.
fn word(effect: Effect) -> String {
    match effect {
        Effect::Send(message) => {
            let place = format!("{}/{}", message.session, message.sequence);
            match message.body {
                WorkerBody::Hello(hello) => {
                    let running: Vec<_> = hello.running.iter().map(|one| one.attempt).collect();
                    format!("hello {running:?} {:?} {:?}", hello.unacknowledged, hello.unreleased)
                }
                WorkerBody::Credit(credit) => format!("{place} credit {}", credit.granted),
                WorkerBody::Heartbeat(beat) => {
                    let running: Vec<_> = beat.running.iter().map(|one| one.attempt).collect();
                    format!(
                        "{place} heartbeat {running:?} seen {} granted {}",
                        beat.last_assign_seen, beat.granted
                    )
                }
                WorkerBody::Started(started) => format!("{place} started {}", started.attempt),
                WorkerBody::Finished(finished) => {
                    format!("{place} finished {} {:?}", finished.attempt, finished.outcome())
                }
                WorkerBody::Declined(declined) => {
                    format!("{place} declined {} {:?}", declined.attempt, declined.reason())
                }
                WorkerBody::Goodbye(goodbye) => format!("{place} goodbye {}", goodbye.reason),
                other => other.kind().to_owned(),
            }
        }
        Effect::Begin(assignment) => format!("begin {}", assignment.attempt),
        Effect::Abort(attempt, reason) => format!("abort {attempt} {reason}"),
        Effect::Acknowledged { attempts, kept } => {
            format!("acknowledged {attempts:?} kept {kept:?}").replace("AttemptId(", "").replace(')', "")
        }
        Effect::Upload(upload) => format!("upload {}", upload.attempt),
        Effect::Released(attempts) => {
            format!("released {attempts:?}").replace("AttemptId(", "").replace(')', "")
        }
        Effect::Welcomed(_) => "welcomed".to_owned(),
        Effect::Reconnect(pause) => format!("reconnect after {} s", pause.as_secs()),
        Effect::Refused(refused) => format!("refused {:?}", refused.reason()),
        Effect::Left => "left".to_owned(),
    }
}

impl Table {
    fn new(slots: u32, ahead: usize) -> Self {
        Self::with(slots, ahead, BTreeMap::new(), Vec::new())
    }

    fn with(slots: u32, ahead: usize, owed: BTreeMap<AttemptId, Finished>, kept: Vec<AttemptId>) -> Self {
        let identity = Identity { slots, ..Identity::default() };
        let session = Session::new(identity, ahead, Timing::default(), owed, kept);
        Self { session, now: Instant::now(), sequence: 0 }
    }

    /// A session with its first credit given.
    fn joined(slots: u32, ahead: usize) -> Self {
        let mut table = Self::new(slots, ahead);
        table.does(|session, now, effects| session.connected(now, effects));
        table.hears(welcome());
        table.does(|session, now, effects| session.admit(now, effects));
        table
    }

    fn does(&mut self, step: impl FnOnce(&mut Session, Instant, &mut Vec<Effect>)) -> Vec<String> {
        let mut effects = Vec::new();
        step(&mut self.session, self.now, &mut effects);
        effects.into_iter().map(word).collect()
    }

    fn hears(&mut self, body: impl Into<ServerBody>) -> Vec<String> {
        let body = body.into();
        let session = match &body {
            ServerBody::HelloAgain(_) | ServerBody::Refused(_) => 0,
            _ => 9,
        };
        if let ServerBody::Welcome(_) = body {
            self.sequence = 0;
        }
        if session != 0 {
            self.sequence += 1;
        }
        let message = ServerMessage::new(session, self.sequence, body);
        self.does(|session, now, effects| session.received(now, message, effects))
    }

    fn finishes(&mut self, number: i64) -> Vec<String> {
        self.does(|session, now, effects| {
            session.ended(now, id(number), Ending::Finished(success(number)), effects);
        })
    }

    fn waits(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.does(|session, now, effects| session.tick(now, Load::default, effects))
    }
}

#[test]
fn one_build_from_hello_to_release() {
    let mut table = Table::new(2, 0);
    assert_eq!(table.does(|session, now, effects| session.connected(now, effects)), ["hello [] [] []"]);
    assert_eq!(table.hears(welcome()), ["welcomed"]);
    assert_eq!(table.does(|session, now, effects| session.admit(now, effects)), ["9/1 credit 2"]);
    assert_eq!(table.hears(assign(5)), ["begin 5"]);
    let started = table.does(|session, _, effects| session.started(id(5), Duration::ZERO, effects));
    assert_eq!(started, ["9/2 started 5"]);
    assert_eq!(table.finishes(5), ["9/3 finished 5 Succeeded", "9/4 credit 3"]);
    assert_eq!(table.hears(Ack { attempts: vec![5] }), ["acknowledged [5] kept [5]"]);
    assert_eq!(table.hears(Ack { attempts: vec![5] }), [""; 0]);
    assert_eq!(table.hears(Release { attempts: vec![5] }), ["released [5]"]);
    assert!(table.session.is_settled());
}

#[test]
fn no_work_is_asked_for_before_the_key_was_looked_at() {
    let mut table = Table::new(2, 0);
    table.does(|session, now, effects| session.connected(now, effects));
    table.hears(welcome());
    assert_eq!(table.waits(INTERVAL), ["9/1 heartbeat [] seen 0 granted 0"]);
    assert_eq!(table.does(|session, now, effects| session.admit(now, effects)), ["9/2 credit 2"]);
    assert_eq!(table.waits(Duration::ZERO), ["9/3 heartbeat [] seen 0 granted 2"]);
}

#[test]
fn credit_is_a_running_total_of_the_session() {
    let mut table = Table::joined(1, 1);
    assert_eq!(table.hears(assign(1)), ["begin 1"]);
    assert_eq!(table.hears(assign(2)), [""; 0], "waits for the slot");
    assert_eq!(table.hears(assign(3)), ["9/2 declined 3 NoSlot", "9/3 credit 3"]);
    assert_eq!(table.finishes(1), ["9/4 finished 1 Succeeded", "begin 2", "9/5 credit 4"]);
    assert_eq!(table.waits(INTERVAL), ["9/6 heartbeat [2] seen 4 granted 4"]);
    // A new session counts from the beginning.
    table.does(|session, _, _| session.lost());
    assert_eq!(table.does(|session, now, effects| session.connected(now, effects)), ["hello [2] [1] [1]"]);
    assert_eq!(table.hears(welcome()), ["welcomed", "9/1 finished 1 Succeeded"]);
    assert_eq!(table.does(|session, now, effects| session.admit(now, effects)), ["9/2 credit 1"]);
}

#[test]
fn a_repeated_assignment_changes_nothing_and_an_ended_one_is_told_again() {
    let mut table = Table::joined(1, 0);
    table.hears(assign(1));
    assert_eq!(table.hears(assign(1)), [""; 0]);
    table.finishes(1);
    assert_eq!(table.hears(assign(1)), ["9/4 finished 1 Succeeded"]);
}

#[test]
fn malformed_assignments_are_declined_and_cost_no_credit() {
    let mut table = Table::joined(1, 0);
    let bad = proto::Assign { derivation: "/etc/passwd".to_owned(), ..assign(4) };
    assert_eq!(table.hears(bad), ["9/2 declined 4 Unsupported", "9/3 credit 2"]);
    assert_eq!(table.hears(assign(5)), ["begin 5"]);
}

#[test]
fn cancellations() {
    let mut table = Table::joined(1, 1);
    table.hears(assign(1));
    table.hears(assign(2));
    let cancel = |attempt| Cancel { attempt, reason: "not wanted".to_owned() };
    assert_eq!(table.hears(cancel(2)), ["9/2 finished 2 Canceled", "9/3 credit 3"]);
    assert_eq!(table.hears(cancel(1)), ["abort 1 not wanted"]);
    assert_eq!(table.hears(cancel(1)), [""; 0]);
    assert_eq!(table.hears(cancel(7)), ["9/4 finished 7 Canceled"]);
    assert_eq!(table.finishes(1), ["9/5 finished 1 Succeeded", "9/6 credit 4"], "it was faster");
    assert_eq!(table.hears(cancel(1)), [""; 0]);
}

#[test]
fn messages_of_other_sessions_and_repeated_ones_are_ignored() {
    let mut table = Table::joined(1, 0);
    let other = ServerMessage::new(8, 2, proto::Assign { ..assign(1) });
    assert_eq!(table.does(|session, now, effects| session.received(now, other, effects)), [""; 0]);
    let repeated = ServerMessage::new(9, 1, proto::Assign { ..assign(1) });
    assert_eq!(table.does(|session, now, effects| session.received(now, repeated, effects)), [""; 0]);
    let unknown = ServerMessage::new(9, 2, ServerBody::Unknown { tag: 77 });
    assert_eq!(table.does(|session, now, effects| session.received(now, unknown, effects)), [""; 0]);
    let next = ServerMessage::new(9, 3, proto::Assign { ..assign(1) });
    assert_eq!(table.does(|session, now, effects| session.received(now, next, effects)), ["begin 1"]);
}

#[test]
fn a_gap_in_the_servers_numbers_begins_a_new_session() {
    let mut table = Table::joined(1, 0);
    table.hears(assign(1));
    table.sequence += 1;
    assert_eq!(table.hears(Ack::default()), ["hello [1] [] []"]);
}

#[test]
fn hello_again_is_answered_once() {
    let mut table = Table::joined(1, 0);
    assert_eq!(table.hears(HelloAgain {}), ["hello [] [] []"]);
    assert_eq!(table.hears(HelloAgain {}), [""; 0]);
    assert_eq!(table.hears(welcome()), ["welcomed"]);
    // What is late from before belongs to nothing.
    assert_eq!(table.hears(HelloAgain {}), ["hello [] [] []"]);
}

#[test]
fn refusals_end_or_delay() {
    let refused = |retry_after_s| Refused {
        reason: RefusedReason::NotReady.into(),
        message: String::new(),
        retry_after_s,
    };
    assert_eq!(Table::joined(1, 0).hears(refused(0)), ["refused NotReady"]);
    assert_eq!(Table::joined(1, 0).hears(refused(7)), ["reconnect after 7 s"]);
    assert_eq!(Table::joined(1, 0).hears(refused(u32::MAX)), ["reconnect after 3600 s"]);
}

#[test]
fn a_silent_server_is_left() {
    let mut table = Table::new(1, 0);
    table.does(|session, now, effects| session.connected(now, effects));
    assert_eq!(table.waits(Duration::from_secs(9)), [""; 0]);
    assert_eq!(table.waits(Duration::from_secs(1)), ["reconnect after 0 s"]);
    assert_eq!(table.session.deadline(), None);
    // A server that is busy gets more time with each try.
    for patience in [20, 40, 80, 160, 160] {
        table.does(|session, now, effects| session.connected(now, effects));
        assert_eq!(table.waits(Duration::from_secs(patience - 1)), [""; 0]);
        assert_eq!(table.waits(Duration::from_secs(1)), ["reconnect after 0 s"]);
    }
    table.does(|session, now, effects| session.connected(now, effects));
    table.hears(welcome());
    table.does(|session, now, effects| session.connected(now, effects));
    assert_eq!(table.waits(Duration::from_secs(10)), ["reconnect after 0 s"]);
}

#[test]
fn a_result_without_an_ack_is_told_again_ever_more_seldom_and_the_session_stays() {
    let mut table = Table::joined(1, 0);
    table.hears(assign(1));
    table.finishes(1);
    assert_eq!(table.waits(INTERVAL), ["9/4 heartbeat [] seen 2 granted 2"]);
    assert_eq!(table.waits(LEASE), ["9/5 heartbeat [] seen 2 granted 2", "9/6 finished 1 Succeeded"]);
    assert_eq!(table.waits(LEASE), ["9/7 heartbeat [] seen 2 granted 2"]);
    // What is assigned meanwhile is taken as ever.
    assert_eq!(table.hears(assign(2))[0], "begin 2");
    assert_eq!(table.waits(LEASE), ["9/8 heartbeat [2] seen 3 granted 2", "9/9 finished 1 Succeeded"]);
    assert_eq!(table.hears(Ack { attempts: vec![1] }), ["acknowledged [1] kept [1]"]);
    assert_eq!(table.waits(4 * LEASE), ["9/10 heartbeat [2] seen 3 granted 2"]);
}

#[test]
fn what_an_earlier_process_left_is_told() {
    let failed = Finished { attempt: 3, outcome: Outcome::BuildFailed.into(), ..Finished::default() };
    let mut table = Table::with(1, 0, BTreeMap::from([(id(3), failed), (id(4), success(4))]), vec![id(2)]);
    let hello = table.does(|session, now, effects| session.connected(now, effects));
    assert_eq!(hello, ["hello [] [3, 4] [2, 4]"]);
    assert_eq!(
        table.hears(welcome()),
        ["welcomed", "9/1 finished 3 BuildFailed", "9/2 finished 4 Succeeded"]
    );
    assert_eq!(table.hears(Ack { attempts: vec![3, 4] }), ["acknowledged [3, 4] kept [4]"]);
}

#[test]
fn a_drained_worker_leaves_when_everything_is_fetched() {
    let mut table = Table::joined(2, 0);
    table.hears(assign(1));
    assert_eq!(table.hears(Drain { reason: "reboot".to_owned() }), [""; 0]);
    assert_eq!(table.hears(assign(2)), ["9/2 declined 2 Leaving"]);
    assert_eq!(table.finishes(1), ["9/3 finished 1 Succeeded"], "and no credit");
    assert_eq!(table.hears(Ack { attempts: vec![1] }), ["acknowledged [1] kept [1]"]);
    assert_eq!(table.hears(Release { attempts: vec![1] }), ["released [1]", "9/4 goodbye drained", "left"]);
    assert_eq!(table.does(|session, now, effects| session.connected(now, effects)), [""; 0]);
}

#[test]
fn an_idle_worker_is_drained_at_once() {
    let mut table = Table::joined(2, 0);
    assert_eq!(table.hears(Drain::default()), ["9/2 goodbye drained", "left"]);
}

#[test]
fn a_pause_takes_no_credit_back() {
    let mut table = Table::joined(1, 0);
    assert_eq!(table.hears(Pause { paused: true, reason: "disk".to_owned() }), [""; 0]);
    assert_eq!(table.hears(Pause { paused: false, reason: String::new() }), [""; 0]);
    assert_eq!(table.hears(assign(1)), ["begin 1"]);
}

#[test]
fn results_of_a_time_without_a_session_are_told_in_the_next() {
    let mut table = Table::joined(1, 0);
    table.hears(assign(1));
    table.does(|session, _, _| session.lost());
    assert_eq!(table.finishes(1), [""; 0]);
    assert_eq!(table.waits(LEASE), [""; 0]);
    assert_eq!(table.does(|session, now, effects| session.connected(now, effects)), ["hello [] [1] [1]"]);
}

#[test]
fn absurd_intervals_are_bounded() {
    let mut table = Table::new(1, 0);
    table.does(|session, now, effects| session.connected(now, effects));
    table.hears(Welcome { session: 9, heartbeat_interval_ms: 0, lease_ms: 0, ..Welcome::default() });
    let wait = table.session.deadline().unwrap() - table.now;
    assert!(wait >= SHORTEST_INTERVAL, "{wait:?}");
}

#[test]
fn a_stopped_worker_begins_nothing_more() {
    let mut table = Table::joined(1, 1);
    table.hears(assign(1));
    table.hears(assign(2));
    table.session.stop_taking();
    assert_eq!(table.hears(assign(3)), ["9/2 declined 3 Leaving"]);
    assert_eq!(table.finishes(1), ["9/3 finished 1 Succeeded"]);
    assert_eq!(table.hears(Ack { attempts: vec![1] }), ["acknowledged [1] kept [1]"]);
    assert!(table.session.is_settled());
    let goodbye = table.does(|session, _, effects| session.goodbye("stopped", effects));
    assert_eq!(goodbye, ["9/4 goodbye stopped"]);
}

/// What may happen to a session, in any order.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Connect,
    Lose,
    Welcome,
    Admit,
    Assign(i64),
    Cancel(i64),
    Ack(i64),
    Release(i64),
    HelloAgain,
    Skip,
    Pause(bool),
    End(i64, bool),
    Decline(i64),
    Wait(u8),
    StopTaking,
}

fn happening() -> impl proptest::strategy::Strategy<Value = Happening> {
    use proptest::prelude::*;
    let attempt = || 1i64..12;
    prop_oneof![
        1 => Just(Happening::Connect),
        1 => Just(Happening::Lose),
        3 => Just(Happening::Welcome),
        3 => Just(Happening::Admit),
        8 => attempt().prop_map(Happening::Assign),
        2 => attempt().prop_map(Happening::Cancel),
        4 => attempt().prop_map(Happening::Ack),
        2 => attempt().prop_map(Happening::Release),
        1 => Just(Happening::HelloAgain),
        1 => Just(Happening::Skip),
        1 => any::<bool>().prop_map(Happening::Pause),
        6 => (attempt(), any::<bool>()).prop_map(|(attempt, good)| Happening::End(attempt, good)),
        1 => attempt().prop_map(Happening::Decline),
        2 => (0u8..90).prop_map(Happening::Wait),
        1 => Just(Happening::StopTaking),
    ]
}

/// Follows a session from outside: what it was told and what it said.
struct Watcher {
    session: Session,
    now: Instant,
    sequence: u64,
    slots: usize,
    running: std::collections::BTreeSet<i64>,
    owed: std::collections::BTreeSet<i64>,
    wire_session: u64,
    sent: u64,
    granted: u64,
    assigned: u64,
    stopped: bool,
    greeted: bool,
}

impl Watcher {
    fn new(slots: u32, ahead: usize) -> Self {
        let identity = Identity { slots, ..Identity::default() };
        let session = Session::new(identity, ahead, Timing::default(), BTreeMap::new(), Vec::new());
        Self {
            session,
            now: Instant::now(),
            sequence: 0,
            slots: slots as usize,
            running: Default::default(),
            owed: Default::default(),
            wire_session: 0,
            sent: 0,
            granted: 0,
            assigned: 0,
            stopped: false,
            greeted: false,
        }
    }

    fn hear(&mut self, body: impl Into<ServerBody>, effects: &mut Vec<Effect>) {
        self.sequence += 1;
        let message = ServerMessage::new(self.wire_session, self.sequence, body);
        self.session.received(self.now, message, effects);
    }

    fn step(&mut self, happening: Happening) {
        let mut effects = Vec::new();
        let joined = self.session.is_joined();
        match happening {
            Happening::Connect => self.session.connected(self.now, &mut effects),
            Happening::Lose => {
                self.session.lost();
                self.greeted = false;
            }
            Happening::Welcome if self.greeted => {
                self.greeted = false;
                self.wire_session += 1;
                (self.sequence, self.sent, self.granted, self.assigned) = (0, 0, 0, 0);
                let welcome = Welcome { session: self.wire_session, ..welcome() };
                self.hear(welcome, &mut effects);
                assert!(self.session.is_joined());
            }
            Happening::Admit => self.session.admit(self.now, &mut effects),
            Happening::Assign(attempt) if joined && self.assigned < self.granted => {
                self.assigned += 1;
                self.hear(assign(attempt), &mut effects);
                if effects.is_empty() {
                    // It was known: an honest server does not assign the same attempt twice.
                    self.assigned -= 1;
                }
            }
            Happening::Cancel(attempt) if joined => {
                self.hear(Cancel { attempt, reason: String::new() }, &mut effects);
            }
            Happening::Ack(attempt) if joined => {
                self.owed.remove(&attempt);
                self.hear(Ack { attempts: vec![attempt] }, &mut effects);
            }
            Happening::Release(attempt) if joined => {
                self.owed.remove(&attempt);
                self.hear(Release { attempts: vec![attempt] }, &mut effects);
            }
            Happening::HelloAgain => {
                let message = ServerMessage::new(0, 0, HelloAgain {});
                self.session.received(self.now, message, &mut effects);
            }
            Happening::Skip => self.sequence += 1,
            Happening::Pause(paused) if joined => {
                self.hear(Pause { paused, reason: String::new() }, &mut effects);
            }
            Happening::End(attempt, good) if self.running.remove(&attempt) => {
                self.owed.insert(attempt);
                let result =
                    if good { success(attempt) } else { Finished { attempt, ..Finished::default() } };
                self.session.ended(self.now, id(attempt), Ending::Finished(result), &mut effects);
            }
            Happening::Decline(attempt) if self.running.remove(&attempt) => {
                let declined = Declined { attempt, ..Declined::default() };
                self.session.ended(self.now, id(attempt), Ending::Declined(declined), &mut effects);
            }
            Happening::Wait(seconds) => {
                self.now += Duration::from_secs(seconds.into());
                self.session.tick(self.now, Load::default, &mut effects);
            }
            Happening::StopTaking => {
                self.stopped = true;
                self.session.stop_taking();
            }
            _ => {}
        }
        for effect in effects {
            self.check(effect);
        }
        assert!(self.running.len() <= self.slots, "{:?}", self.running);
    }

    fn check(&mut self, effect: Effect) {
        match effect {
            Effect::Begin(assignment) => {
                assert!(!self.stopped, "nothing begins in a worker that is stopped");
                let attempt = assignment.attempt.get();
                assert!(self.running.insert(attempt), "{attempt} begins twice");
                assert!(!self.owed.contains(&attempt), "{attempt} begins again before its result is known");
            }
            Effect::Abort(attempt, _) => assert!(self.running.contains(&attempt.get())),
            Effect::Reconnect(_) => self.greeted = false,
            Effect::Send(message) => match message.body {
                WorkerBody::Hello(hello) => {
                    self.greeted = true;
                    let told: std::collections::BTreeSet<_> = hello.unacknowledged.into_iter().collect();
                    assert!(told.is_superset(&self.owed), "{told:?} {:?}", self.owed);
                    let running: std::collections::BTreeSet<_> =
                        hello.running.iter().map(|one| one.attempt).collect();
                    assert!(running.is_superset(&self.running));
                }
                body => {
                    self.sent += 1;
                    assert_eq!((message.session, message.sequence), (self.wire_session, self.sent));
                    match body {
                        WorkerBody::Credit(credit) => {
                            assert!(credit.granted > self.granted && !self.stopped);
                            self.granted = credit.granted;
                        }
                        WorkerBody::Finished(finished) if finished.outcome() == Outcome::Canceled => {
                            self.owed.insert(finished.attempt);
                            // An answer about an attempt that is not here is not kept.
                            if !self
                                .session
                                .roster
                                .unacknowledged()
                                .any(|(one, _)| one.get() == finished.attempt)
                            {
                                self.owed.remove(&finished.attempt);
                            }
                        }
                        _ => {}
                    }
                }
            },
            Effect::Acknowledged { .. }
            | Effect::Upload(_)
            | Effect::Released(_)
            | Effect::Welcomed(_)
            | Effect::Refused(_)
            | Effect::Left => {}
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]

    #[test]
    fn no_order_of_events_breaks_a_promise(
        slots in 1u32..4,
        ahead in 0usize..3,
        happenings in proptest::collection::vec(happening(), 0..120),
    ) {
        let mut watcher = Watcher::new(slots, ahead);
        for happening in happenings {
            watcher.step(happening);
        }
        // In the end everything can be told, and no slot is lost.
        for attempt in watcher.running.clone() {
            watcher.step(Happening::End(attempt, false));
        }
        if !watcher.stopped {
            watcher.step(Happening::Lose);
            watcher.step(Happening::Connect);
            watcher.step(Happening::Welcome);
            watcher.step(Happening::Admit);
            while let Some(attempt) = watcher.running.first().copied() {
                watcher.step(Happening::End(attempt, false));
            }
            for attempt in watcher.owed.clone() {
                watcher.step(Happening::Ack(attempt));
            }
            proptest::prop_assert!(watcher.session.is_settled());
            proptest::prop_assert_eq!(watcher.granted - watcher.assigned, (slots as usize + ahead) as u64);
        }
    }
}
