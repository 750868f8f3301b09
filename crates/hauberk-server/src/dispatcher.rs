//! The dispatcher: owns what is known of sessions and open attempts, and decides what happens next.
//!
//! It is a plain state machine. Events go in, [`Effect`]s come out, and nothing here waits, reads a clock or touches a socket:
//! the task around it does ([`crate::task`]). Whatever must be durable leaves as an [`Op`], and what follows from it happens when
//! that is committed: an attempt is recorded before its Assign is sent, and a result before its Ack.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use hauberk_database::attempts::OpenAttempt;
use hauberk_database::dispatch::{
    self, AttemptClass, AttemptOrigin, Built, Claim, Claimed, Consequence, Ended, Fetched, KnownPath,
    Measures, Reached, ReadyBuild,
};
use hauberk_database::{AttemptId, BuildId, SpecificationId, WorkerId};
use hauberk_protocol::proto::{
    Ack, Declined, Finished, Heartbeat, Hello, HelloAgain, Origin, Outcome, Pause, Refused, RefusedReason,
    Release, Started,
};
use hauberk_protocol::socket::RoutingId;
use hauberk_protocol::{ServerBody, ServerMessage};
use tracing::{debug, info, warn};

use crate::health::Health;
use crate::outcome::{class_of, class_of_decline, consequence};
use crate::session::{Session, SessionId};
use crate::step::{Admitted, Committed, Effect, FetchJob, Late, Op, Policy, UploadRequest};
use crate::window::{Want, Window};
use crate::wording::{assign, built_outputs, measures, one_line, result_message, to_i64};

mod attempt;
mod attempts;
mod care;
mod census;
mod colleagues;
mod orders;
mod returns;

use attempt::{Attempt, By, Early, Phase};
use attempts::Attempts;
use colleagues::Colleagues;
use returns::Returns;

/// Builds a refill brings for each lane.
pub(crate) const WINDOW: usize = 2048;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    policy: Policy,
    window: Window,
    sessions: HashMap<SessionId, Session>,
    by_worker: HashMap<WorkerId, SessionId>,
    attempts: Attempts,
    /// Attempts that workers came back with, and that the database is asked about.
    returns: Returns,
    /// What was decided about attempts before it was heard that they were recorded.
    early: HashMap<AttemptId, Early>,
    /// Where builds that are to be tried again have failed by the farm's fault.
    tried: HashMap<BuildId, Vec<WorkerId>>,
    health: Health,
    colleagues: Colleagues,
    effects: Vec<Effect>,
    refilling: Refilling,
}

/// Whether the window is being filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refilling {
    No,
    UnderWay,
    /// Something became ready since that began, which it may not show.
    AskAgain,
}

impl Dispatcher {
    /// Makes a dispatcher that knows of nothing.
    pub(crate) fn new(policy: Policy, now: Instant) -> Self {
        let health = Health::new(policy.health);
        Self {
            window: Window::new(policy.order, now),
            policy,
            sessions: HashMap::new(),
            by_worker: HashMap::new(),
            attempts: Attempts::default(),
            returns: Returns::new(),
            early: HashMap::new(),
            tried: HashMap::new(),
            health,
            colleagues: Colleagues::default(),
            effects: Vec::new(),
            refilling: Refilling::No,
        }
    }

    /// Takes what is to be done, oldest first.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The worker of a session.
    pub(crate) fn worker_of(&self, id: SessionId) -> Option<WorkerId> {
        self.sessions.get(&id).map(|session| session.worker)
    }

    /// Takes over open attempts that the database shows: of older starts, or of other servers. Nobody is declared lost for one lease.
    pub(crate) fn adopt(&mut self, open: Vec<OpenAttempt>, now: Instant) {
        self.window.pass(now);
        for attempt in open {
            self.failed_before(attempt.build, &attempt.failed_on);
            // Its worker was faster, and brought it along.
            if self.attempts.contains_key(&attempt.attempt) {
                continue;
            }
            self.window.resume(&attempt);
            let phase = if attempt.built {
                self.effects.push(Effect::Fetch(FetchJob {
                    attempt: attempt.attempt,
                    build: attempt.build,
                    worker: attempt.worker,
                    name: attempt.name.clone(),
                    expected: None,
                    reported: None,
                }));
                Phase::Fetching
            } else {
                Phase::Unheard { until: now + self.policy.lease }
            };
            self.attempts.insert(
                attempt.attempt,
                Attempt {
                    build: attempt.build,
                    worker: attempt.worker,
                    name: attempt.name,
                    farm_faults: attempt.farm_faults,
                    late: attempt.late,
                    stop_by: None,
                    said: None,
                    outputs: None,
                    phase,
                },
            );
        }
    }

    /// Asks for the window to be filled anew; once more, if that is under way.
    pub(crate) fn want_refill(&mut self) {
        if self.refilling == Refilling::No {
            self.refilling = Refilling::UnderWay;
            self.window.refilling();
            self.effects.push(Effect::Refill(None));
        } else {
            self.refilling = Refilling::AskAgain;
        }
    }

    /// Takes what a refill brought: the heads of all lanes, or what follows in lanes `after` what was known of them.
    pub(crate) fn refilled(&mut self, after: Option<&[Reached]>, window: dispatch::Window) {
        for build in &window.builds {
            self.failed_before(build.id, &build.failed_on);
        }
        match after {
            None => self.window.refill(window, WINDOW),
            Some(after) => self.window.extend(after, &window, WINDOW),
        }
        if std::mem::replace(&mut self.refilling, Refilling::No) == Refilling::AskAgain {
            self.want_refill();
        }
    }

    /// Takes what specifications used before this start, in slot-seconds, and how many slots there were then.
    pub(crate) fn remember(&mut self, used: &[(SpecificationId, f64)], slots: u64) {
        self.window.remember(used, slots);
    }

    /// Takes what specifications have used at other servers, in slot-seconds.
    pub(crate) fn set_elsewhere(&mut self, used: &[(SpecificationId, f64)]) {
        self.window.set_elsewhere(used);
    }

    /// What specifications have used here, in slot-seconds.
    pub(crate) fn used(&mut self) -> Vec<(SpecificationId, f64)> {
        self.window.used()
    }

    /// A refill failed; the sweep will ask for another.
    pub(crate) fn refill_failed(&mut self) {
        self.refilling = Refilling::No;
    }

    /// Opens the session of a worker. An older one of the same worker is over: the newest Hello counts.
    pub(crate) fn hello(&mut self, admitted: Admitted, hello: &Hello, now: Instant) {
        let worker = admitted.worker;
        if let Some(old) = self.by_worker.remove(&worker) {
            self.window.remove_seat(old);
            if let Some(old) = self.sessions.remove(&old).filter(|old| old.routing != admitted.routing) {
                self.supersede(&old);
            }
        }
        let mut session = Session::new(
            admitted.session,
            worker,
            admitted.name,
            admitted.routing,
            admitted.capabilities,
            now,
        );
        session.paused = admitted.paused;
        session.draining = admitted.draining;
        session.slots = hello.slots;
        session.system = hello.systems.first().cloned().unwrap_or_default();
        info!(
            worker.name = %session.name,
            worker.slots = hello.slots,
            attempts.running = hello.running.len(),
            attempts.unacknowledged = hello.unacknowledged.len(),
            "{} joined from {} with {} slots",
            session.name, hello.machine, hello.slots
        );
        let id = session.id;
        let (_, welcome) = session.message(admitted.welcome);
        self.effects.push(Effect::Send(session.routing, welcome));
        if session.paused {
            let pause = Pause { paused: true, reason: "paused by an operator".to_owned() };
            let (_, message) = session.message(pause);
            self.effects.push(Effect::Send(session.routing, message));
        }
        if session.draining {
            let (_, message) = session.message(orders::drain());
            self.effects.push(Effect::Send(session.routing, message));
        }
        self.sessions.insert(id, session);
        self.by_worker.insert(worker, id);
        self.reconcile_hello(worker, id, hello);
    }

    /// Tells whoever holds an older session of a worker that it is over. A worker that connects anew has closed its old connection,
    /// and does not hear it; a second process with the same key would else take the session back, again and again.
    fn supersede(&mut self, old: &Session) {
        let refused = Refused {
            reason: RefusedReason::Superseded.into(),
            message: format!("another process has joined as {}", old.name),
            retry_after_s: 0,
        };
        self.effects.push(Effect::Send(old.routing, ServerMessage::new(0, 0, refused)));
    }

    /// Compares what a worker says it has with what the server believes it has.
    fn reconcile_hello(&mut self, worker: WorkerId, session: SessionId, hello: &Hello) {
        let running: HashSet<_> = hello.running.iter().map(|r| AttemptId::new(r.attempt)).collect();
        let unacknowledged: HashSet<_> = hello.unacknowledged.iter().map(|a| AttemptId::new(*a)).collect();
        let (mut lost, mut stopping) = (Vec::new(), Vec::new());
        self.attempts.for_each_of(worker, |id, attempt| {
            if attempt.phase.is_with_worker() {
                if running.contains(&id) || unacknowledged.contains(&id) {
                    attempt.phase = Phase::Running;
                    if attempt.stop_by.is_some() && running.contains(&id) {
                        stopping.push(id);
                    }
                } else {
                    lost.push(id);
                }
            }
        });
        for id in lost {
            self.end(
                id,
                AttemptClass::WorkerLost,
                "the worker came back without this attempt".to_owned(),
                Measures::default(),
                By::Server,
            );
        }
        for id in stopping {
            self.send(session, orders::cancel(id));
        }
        self.compare_unknown(worker, session, running);
        // Of those that are not known here, another server may still wait for the outputs: the database tells, if there is one.
        let kept: Vec<_> = hello
            .unreleased
            .iter()
            .map(|number| AttemptId::new(*number))
            .filter(|id| !unacknowledged.contains(id))
            .filter(|id| self.attempts.get(id).is_none_or(|attempt| attempt.worker != worker))
            .filter(|id| !self.is_asked_about(worker, *id))
            .collect();
        if self.policy.company.is_there() {
            for id in kept {
                self.kept(worker, id);
            }
        } else if !kept.is_empty() {
            self.send(session, Release { attempts: kept.into_iter().map(AttemptId::get).collect() });
        }
    }

    /// Notes that a session was heard of. False when there is no such session at that address: the peer is asked for a Hello.
    pub(crate) fn heard(
        &mut self,
        id: Option<SessionId>,
        routing: RoutingId,
        sequence: u64,
        now: Instant,
    ) -> bool {
        self.window.pass(now);
        match id.and_then(|id| self.sessions.get_mut(&id)).filter(|session| session.routing == routing) {
            Some(session) => {
                let lost = session.heard(sequence, now);
                if lost > 0 {
                    warn!(worker.name = %session.name, messages.lost = lost, "{lost} messages of {} were lost", session.name);
                }
                true
            }
            None => {
                let again = ServerMessage::new(0, 0, HelloAgain {});
                self.effects.push(Effect::Send(routing, again));
                false
            }
        }
    }

    /// Takes a running total of credit.
    pub(crate) fn credit(&mut self, id: SessionId, granted: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.grant(granted);
        }
        self.update_slots(id);
    }

    /// Takes a heartbeat and compares what runs, but only attempts the worker can have known of when it sent it.
    pub(crate) fn heartbeat(&mut self, id: SessionId, heartbeat: &Heartbeat) {
        self.credit(id, heartbeat.granted);
        self.short(id, heartbeat.load.as_ref().map_or("", |load| &load.shortage));
        let Some(session) = self.sessions.get(&id) else { return };
        let (worker, routing, now) = (session.worker, session.routing, session.last_seen());
        let never_arrived = self.attempts.of(worker).any(|(_, attempt)| match attempt.phase {
            Phase::Assigned { session, sequence, at } => {
                let waited = now.saturating_duration_since(at);
                session == id && sequence > heartbeat.last_assign_seen && waited > self.policy.lease
            }
            _ => false,
        });
        if never_arrived {
            warn!(worker.name = %session.name, "an Assign to {} was lost, asking it for a Hello", session.name);
            self.effects.push(Effect::Send(routing, ServerMessage::new(0, 0, HelloAgain {})));
        }
        let running: HashSet<_> = heartbeat.running.iter().map(|r| AttemptId::new(r.attempt)).collect();
        for id in &running {
            // Taken over from another server after its worker had come.
            if let Some(attempt) = self.attempts.get_mut(id).filter(|attempt| attempt.worker == worker)
                && let Phase::Unheard { .. } = attempt.phase
            {
                attempt.phase = Phase::Running;
            }
        }
        let lost: Vec<_> = self
            .attempts
            .of(worker)
            .filter(|(attempt_id, attempt)| {
                !running.contains(attempt_id)
                    && match attempt.phase {
                        Phase::Assigned { session, sequence, .. } => {
                            session != id || sequence <= heartbeat.last_assign_seen
                        }
                        Phase::Running => true,
                        Phase::Unheard { .. }
                        | Phase::Concluding
                        | Phase::Fetching
                        | Phase::GivingUp
                        | Phase::Ending => false,
                    }
            })
            .map(|(attempt_id, _)| attempt_id)
            .collect();
        for attempt in lost {
            self.end(
                attempt,
                AttemptClass::WorkerLost,
                "the worker does not know of this attempt".to_owned(),
                Measures::default(),
                By::Server,
            );
        }
        self.compare_unknown(worker, id, running);
    }

    /// A builder has begun.
    pub(crate) fn started(&mut self, id: SessionId, started: &Started) {
        let attempt_id = AttemptId::new(started.attempt);
        let Some(attempt) = self.attempt_of(id, attempt_id) else { return };
        if attempt.phase.is_with_worker() {
            attempt.phase = Phase::Running;
            let build = attempt.build;
            let inputs_ms = to_i64(started.inputs_ms);
            self.effects.push(Effect::Commit(Op::Start { attempt: attempt_id, build, inputs_ms }));
        }
    }

    /// An attempt ended, by its worker's word.
    pub(crate) fn finished(&mut self, id: SessionId, finished: &Finished) {
        let attempt_id = AttemptId::new(finished.attempt);
        let Some(worker) = self.worker_of(id) else { return };
        if !self.attempts.contains_key(&attempt_id) {
            self.returned_with_result(worker, finished);
            return;
        }
        let Some(attempt) = self.attempt_of(id, attempt_id) else {
            // It never was this worker's: the worker need not keep it.
            self.forget_result(worker, attempt_id);
            return;
        };
        match attempt.phase {
            Phase::Assigned { .. } | Phase::Running | Phase::Unheard { .. } => {
                self.conclude(attempt_id, finished);
            }
            // Being recorded: the Ack follows.
            Phase::Concluding | Phase::Ending => {}
            // Given up a moment ago: whether the result still counts is decided once that is recorded.
            Phase::GivingUp => attempt.said = Some(Box::new(finished.clone())),
            // Recorded: the first Ack was lost.
            Phase::Fetching => self.send(id, Ack { attempts: vec![finished.attempt] }),
        }
    }

    /// Takes the result of an attempt that its worker is at.
    fn conclude(&mut self, attempt_id: AttemptId, finished: &Finished) {
        let Some(attempt) = self.attempts.get_mut(&attempt_id) else { return };
        let build = attempt.build;
        let measures = measures(finished);
        let outcome = finished.outcome();
        match (outcome, class_of(outcome)) {
            (Outcome::Succeeded, _) => match built_outputs(finished) {
                Ok(outputs) => {
                    attempt.phase = Phase::Concluding;
                    self.window.ended(build);
                    let origin = match finished.origin() {
                        Origin::AlreadyValid => AttemptOrigin::AlreadyValid,
                        Origin::Built | Origin::Unspecified => AttemptOrigin::Built,
                    };
                    // Fetched while its word is being recorded: the record of both is one step if they meet in a batch. One that
                    // stands beside another succeeds elsewhere, so its word is recorded first.
                    let fetch = (!attempt.late).then(|| attempt.fetch(attempt_id, Some(outputs.clone())));
                    let built = Built { attempt: attempt_id, build, origin, outputs, measures };
                    self.effects.push(Effect::Commit(Op::Built(built)));
                    self.effects.extend(fetch.map(Effect::Fetch));
                }
                Err(problem) => {
                    let message = format!("the worker's report is not usable: {problem}");
                    self.end(attempt_id, AttemptClass::Transfer, message, measures, By::Worker);
                }
            },
            (_, Some(class)) => {
                let message = result_message(finished, class);
                self.end(attempt_id, class, message, measures, By::Worker);
            }
            (_, None) => {
                let message =
                    format!("the worker reported outcome {}, which is not known here", finished.outcome);
                self.end(attempt_id, AttemptClass::Daemon, message, measures, By::Worker);
            }
        }
    }

    /// A worker will not take an attempt.
    pub(crate) fn declined(&mut self, id: SessionId, declined: &Declined) {
        let attempt_id = AttemptId::new(declined.attempt);
        let Some(attempt) = self.attempt_of(id, attempt_id) else { return };
        if attempt.phase.is_with_worker() {
            let mut message = one_line(&declined.message);
            if !declined.paths.is_empty() {
                message = one_line(&format!("{message}: {}", declined.paths.join(", ")));
            }
            self.end(
                attempt_id,
                class_of_decline(declined.reason()),
                message,
                Measures::default(),
                By::Worker,
            );
        }
    }

    /// A worker leaves on purpose: what it ran is given back at once.
    pub(crate) fn goodbye(&mut self, id: SessionId, reason: &str) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (worker, name) = (session.worker, session.name.clone());
        info!(worker.name = %name, "{name} left: {}", one_line(reason));
        self.drop_session(id);
        for attempt in self.attempts_with(worker) {
            let message = format!("{name} left");
            self.end(attempt, AttemptClass::Canceled, message, Measures::default(), By::Server);
        }
    }

    /// A connection takes nothing any more. Its session is over, but not its attempts: the worker has a lease to come back.
    pub(crate) fn undelivered(&mut self, routing: RoutingId, now: Instant) {
        let Some(session) = self.sessions.values().find(|session| session.routing == routing) else { return };
        let (id, worker) = (session.id, session.worker);
        warn!(worker.name = %session.name, "{} cannot be reached", session.name);
        self.drop_session(id);
        let until = now + self.policy.lease;
        self.attempts.for_each_of(worker, |_, attempt| {
            if attempt.phase.is_with_worker() {
                attempt.phase = Phase::Unheard { until };
            }
        });
    }

    /// Looks for sessions and attempts that were not heard of for a lease. Gives how many sessions that were.
    pub(crate) fn tick(&mut self, now: Instant) -> usize {
        self.window.pass(now);
        let lapsed: Vec<_> = self
            .sessions
            .values()
            .filter(|session| session.is_lapsed(self.policy.lease, now))
            .map(|session| (session.id, session.worker, session.name.clone()))
            .collect();
        let count = lapsed.len();
        for (id, worker, name) in lapsed {
            warn!(worker.name = %name, "{name} was not heard of for {} s", self.policy.lease.as_secs());
            self.drop_session(id);
            for attempt in self.attempts_with(worker) {
                let message = format!("{name} was not heard of any more");
                self.end(attempt, AttemptClass::WorkerLost, message, Measures::default(), By::Server);
            }
        }
        let unheard: Vec<_> = self
            .attempts
            .iter()
            .filter(|(_, attempt)| matches!(attempt.phase, Phase::Unheard { until } if until <= now))
            .map(|(id, _)| id)
            .collect();
        for attempt in unheard {
            let message = "its worker did not come back".to_owned();
            self.end(attempt, AttemptClass::WorkerLost, message, Measures::default(), By::Server);
        }
        self.enforce_stops(now);
        self.look_after_workers(now);
        self.look_after_left(now);
        count
    }

    /// The database was away: nobody is declared lost for another lease.
    pub(crate) fn grace(&mut self, now: Instant) {
        for session in self.sessions.values_mut() {
            session.heard(0, now);
        }
        for attempt in self.attempts.values_mut() {
            if let Phase::Unheard { until } = &mut attempt.phase {
                *until = now + self.policy.lease;
            }
        }
    }

    /// Gives ready builds to free slots, in the order of `hauberk-order`.
    pub(crate) fn dispatch(&mut self, now: Instant) {
        self.window.pass(now);
        while let Some(placement) = {
            let (tried, by_worker) = (&self.tried, &self.by_worker);
            self.window.next(|build| avoided(tried, by_worker, build))
        } {
            let (build, id) = (placement.build, placement.session);
            let Some(session) = self.sessions.get(&id) else {
                self.window.remove_seat(id);
                self.window.lost(build);
                self.want_refill();
                continue;
            };
            let worker = session.worker;
            if self.leaves_to_others(build, placement.lane, id, now) {
                self.window.lost(build);
                self.update_slots(id);
                continue;
            }
            self.colleagues.forget(build);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.reserve();
            }
            let claim = Claim { build, worker, session: id.get(), lane: placement.lane };
            self.effects.push(Effect::Commit(Op::Claim(claim)));
            self.update_slots(id);
        }
        if self.refilling == Refilling::No {
            match self.window.wants(WINDOW / 4) {
                None => {}
                Some(Want::Anew) => self.want_refill(),
                Some(Want::More(after)) => {
                    self.refilling = Refilling::UnderWay;
                    self.effects.push(Effect::Refill(Some(after)));
                }
            }
        }
    }

    /// Builds became ready by what this server did.
    pub(crate) fn ready(&mut self, builds: &[ReadyBuild]) {
        for build in builds {
            self.failed_before(build.id, &build.failed_on);
            if !self.window.add(build) {
                self.want_refill();
            }
        }
    }

    /// A durable step is committed.
    pub(crate) fn committed(&mut self, committed: Committed, now: Instant) {
        self.window.pass(now);
        match committed {
            Committed::Granted(claimed) => self.granted(&claimed, now),
            Committed::NotGranted(claim) => {
                self.window.lost(claim.build);
                let session = self.by_worker.get(&claim.worker).copied();
                self.give_back_credit(session.filter(|id| id.get() == claim.session));
            }
            Committed::Built(id) => {
                let Some(attempt) = self.attempts.get_mut(&id) else { return };
                if attempt.phase == Phase::Concluding {
                    attempt.phase = Phase::Fetching;
                } else if attempt.phase != Phase::Ending {
                    // In Ending its outputs were there sooner; in any other phase it is not what was waited for.
                    return;
                }
                if attempt.late {
                    let job = attempt.fetch(id, None);
                    self.effects.push(Effect::Fetch(job));
                }
                let worker = attempt.worker;
                self.send_to_worker(worker, Ack { attempts: vec![id.get()] });
            }
            Committed::Succeeded(id) => {
                let Some(attempt) = self.attempts.remove(&id) else { return };
                self.window.ended(attempt.build);
                info!(build.id = %attempt.build, attempt.id = %id, "{} succeeded", attempt.name);
                self.did(attempt.worker, attempt.build);
                self.tried.remove(&attempt.build);
                self.send_to_worker(attempt.worker, Release { attempts: vec![id.get()] });
            }
            Committed::Ended(id) => {
                let Some(attempt) = self.attempts.remove(&id) else { return };
                self.window.ended(attempt.build);
                match (attempt.phase, attempt.said) {
                    (Phase::GivingUp, Some(finished)) => self.returned_with_result(attempt.worker, &finished),
                    // Whatever its worker has of it comes back with it.
                    (Phase::GivingUp, None) => {}
                    _ => self.forget_result(attempt.worker, id),
                }
            }
            Committed::Refused(id) => {
                let Some(attempt) = self.attempts.get(&id) else { return };
                // In any other phase it is not what is waited for.
                if matches!(attempt.phase, Phase::Concluding | Phase::Fetching | Phase::Ending) {
                    let message = "the database refuses what was reported of it".to_owned();
                    self.end(id, AttemptClass::Daemon, message, Measures::default(), By::Worker);
                }
            }
            Committed::Moved(id) => self.moved(id),
            Committed::Effects(effects) => self.ready(&effects.ready),
            Committed::TakenBack(id, worker, verdict) => self.taken_back(worker, id, verdict, now),
            Committed::Settled(id, settled) => {
                if let Some(other) = settled.superseded {
                    self.superseded(other);
                }
                self.ready(&settled.effects.ready);
                let Some(attempt) = self.attempts.remove(&id) else { return };
                self.window.ended(attempt.build);
                if settled.counts {
                    info!(build.id = %attempt.build, attempt.id = %id, "{} succeeded, late", attempt.name);
                }
                self.send_to_worker(attempt.worker, Release { attempts: vec![id.get()] });
            }
        }
    }

    /// Outputs of a worker are wanted that cannot be fetched. Without a session it is told in the next.
    pub(crate) fn ask_upload(&mut self, request: &UploadRequest) {
        self.send_to_worker(request.worker, request.upload.clone());
    }

    /// The outputs of an attempt are in the farm's cache, or never will be.
    pub(crate) fn fetched(&mut self, job: &FetchJob, result: Result<Vec<KnownPath>, String>) {
        let Some(attempt) = self.attempts.get_mut(&job.attempt) else { return };
        if !matches!(attempt.phase, Phase::Concluding | Phase::Fetching) {
            return;
        }
        match result {
            Ok(outputs) => {
                attempt.phase = Phase::Ending;
                let fetched = Fetched { attempt: job.attempt, build: attempt.build, outputs };
                self.effects.push(if attempt.late {
                    Effect::Late(Late::Succeed(fetched))
                } else {
                    Effect::Commit(Op::Succeed(fetched))
                });
            }
            Err(problem) => {
                self.end(
                    job.attempt,
                    AttemptClass::Transfer,
                    one_line(&problem),
                    Measures::default(),
                    By::Worker,
                );
            }
        }
    }

    fn granted(&mut self, claimed: &Claimed, now: Instant) {
        self.window.granted(claimed.build);
        let mut attempt = Attempt {
            build: claimed.build,
            worker: claimed.worker,
            name: claimed.name.clone(),
            farm_faults: claimed.farm_faults,
            late: false,
            stop_by: None,
            said: None,
            outputs: Some(claimed.outputs.clone()),
            phase: Phase::GivingUp,
        };
        let session = self.by_worker.get(&claimed.worker).copied().filter(|id| id.get() == claimed.session);
        let early = self.early.remove(&claimed.attempt);
        let unwanted = match (early, session) {
            (None, Some(_)) => None,
            (Some(Early::Superseded), _) => {
                self.window.ended(claimed.build);
                self.give_back_credit(session);
                return;
            }
            (Some(Early::Stopped), _) => Some("canceled before its worker was told"),
            (None, None) => Some("the worker's session ended before it was told"),
        };
        if let Some(reason) = unwanted {
            self.give_back_credit(session);
            self.attempts.insert(claimed.attempt, attempt);
            let none = Measures::default();
            self.end(claimed.attempt, AttemptClass::Canceled, reason.to_owned(), none, By::Server);
            return;
        }
        let Some(session) = session.and_then(|id| self.sessions.get_mut(&id)) else { return };
        info!(
            build.id = %claimed.build, build.drv = %claimed.derivation, attempt.id = %claimed.attempt,
            worker.name = %session.name,
            "{} goes to {} (try {})", claimed.name, session.name, claimed.number
        );
        let assign = assign(claimed, &self.policy);
        let (sequence, message) = session.message(assign);
        attempt.phase = Phase::Assigned { session: session.id, sequence, at: now };
        self.effects.push(Effect::Send(session.routing, message));
        self.attempts.insert(claimed.attempt, attempt);
    }

    fn give_back_credit(&mut self, session: Option<SessionId>) {
        let Some(id) = session else { return };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.give_back();
        }
        self.update_slots(id);
    }

    /// Ends an attempt without success; what becomes of its build follows from the class.
    fn end(&mut self, id: AttemptId, class: AttemptClass, message: String, measures: Measures, by: By) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        attempt.phase = match by {
            By::Worker => Phase::Ending,
            By::Server => Phase::GivingUp,
        };
        let consequence = consequence(class, attempt.farm_faults, &self.policy.retry);
        info!(
            build.id = %attempt.build, attempt.id = %id, attempt.class = %class,
            "{}: {class}{}{message}", attempt.name, if message.is_empty() { "" } else { ": " }
        );
        let (build, worker) = (attempt.build, attempt.worker);
        self.window.ended(build);
        match consequence {
            Consequence::Fail => self.did(worker, build),
            _ => self.health.failed(worker, build, class),
        }
        match consequence {
            Consequence::Retry { .. } => self.failed_before(build, &[worker]),
            Consequence::Ready => {}
            Consequence::Fail | Consequence::FailOther => drop(self.tried.remove(&build)),
        }
        let ended = Ended { attempt: id, build, class, message, measures, consequence };
        self.effects.push(Effect::Commit(Op::End(ended)));
    }

    /// Notes where a build has failed by the farm's fault: in this start of the server, in another, or at another server.
    fn failed_before(&mut self, build: BuildId, workers: &[WorkerId]) {
        if workers.is_empty() {
            return;
        }
        let tried = self.tried.entry(build).or_default();
        for worker in workers {
            if !tried.contains(worker) {
                tried.push(*worker);
            }
        }
    }

    /// The attempt, if it is the session's worker's.
    fn attempt_of(&mut self, id: SessionId, attempt: AttemptId) -> Option<&mut Attempt> {
        let session = self.sessions.get(&id)?;
        let found = self.attempts.get_mut(&attempt)?;
        if found.worker == session.worker {
            Some(found)
        } else {
            warn!(
                worker.name = %session.name, attempt.id = %attempt,
                "{} speaks of attempt {attempt}, which is another worker's", session.name
            );
            None
        }
    }

    /// Attempts that a worker is at.
    fn attempts_with(&self, worker: WorkerId) -> Vec<AttemptId> {
        let its = self.attempts.of(worker).filter(|(_, attempt)| attempt.phase.is_with_worker());
        its.map(|(id, _)| id).collect()
    }

    fn drop_session(&mut self, id: SessionId) {
        self.window.remove_seat(id);
        if let Some(session) = self.sessions.remove(&id) {
            self.by_worker.remove(&session.worker);
            self.effects.push(Effect::SessionEnded(session.worker, id));
        }
    }

    fn send(&mut self, id: SessionId, body: impl Into<ServerBody>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            let (_, message) = session.message(body);
            self.effects.push(Effect::Send(session.routing, message));
        } else {
            debug!(session.id = id.get(), "a message was for a session that is over");
        }
    }

    fn send_to_worker(&mut self, worker: WorkerId, body: impl Into<ServerBody>) {
        if let Some(id) = self.by_worker.get(&worker).copied() {
            self.send(id, body);
        }
    }

    fn update_slots(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get(&id) {
            self.window.set_seat(id, &session.capabilities, session.free(), session.slots.into());
        }
    }
}

/// The sessions of workers on which a build has failed by the farm's fault: it is tried elsewhere if it can be.
fn avoided(
    tried: &HashMap<BuildId, Vec<WorkerId>>,
    by_worker: &HashMap<WorkerId, SessionId>,
    build: BuildId,
) -> Vec<SessionId> {
    let tried = tried.get(&build).map_or(&[][..], Vec::as_slice);
    tried.iter().filter_map(|worker| by_worker.get(worker).copied()).collect()
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
