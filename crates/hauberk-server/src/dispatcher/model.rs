//! A model of the farm around the dispatcher: database, committer, settler, fetcher, workers, connections and operators, moved step by
//! step in orders that wall-clock tests never reach.
//!
//! What the model's database does is what the statements under `sql/dispatch`, `sql/late`, `sql/control` and `sql/revival` do, and
//! its decisions about late attempts are the real ones. After any steps, the farm is left alone for a while: everything
//! has to come to its end then.
//!
//! `HAUBERK_MODEL_CASES` sets the number of cases.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use hauberk_database::dispatch::{Consequence, Effects};
use hauberk_database::late::{Decision, Other, Reopened, Settled, Standing, Verdict, decide};
use hauberk_database::workers::Order;
use hauberk_database::{BuildId, BuildState, LaneId, SpecificationId};
use hauberk_order::Capabilities;
use hauberk_protocol::proto::{Credit, Goodbye, OutputInfo, RunningAttempt, Welcome};
use hauberk_protocol::{WorkerBody, WorkerMessage};
use hauberk_store::StoreDirectory;
use proptest::prelude::*;

use super::*;
use crate::health::HealthPolicy;
use crate::heart::Company;
use crate::outcome::RetryPolicy;

const LEASE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(5);
const CASES: u32 = 400;
/// Rounds without faults in which everything has to end: some leases, and all retries.
const LAST_ROUNDS: usize = 80;
/// Worlds in which each rare thing has to happen.
const MOST_WORLDS: usize = 5000;

fn store_path(build: usize) -> String {
    format!("/nix/store/{build:032}-p{build}")
}

/// A build as the model's database has it.
#[derive(Debug)]
struct Build {
    needs: Vec<usize>,
    state: BuildState,
    generation: i32,
    attempt: Option<i64>,
    farm_faults: i16,
    cancel_requested: bool,
    /// Canceled or failed because of another.
    by_other: bool,
    /// The generations in which it has come to an end.
    ended: BTreeSet<i32>,
}

/// An attempt as the model's database has it.
#[derive(Debug)]
struct Row {
    build: usize,
    worker: i32,
    epoch: i64,
    generation: i32,
    class: Option<AttemptClass>,
    built: bool,
    late: bool,
    started: Option<u64>,
}

#[derive(Debug, Default)]
struct Db {
    builds: Vec<Build>,
    attempts: BTreeMap<i64, Row>,
    next: i64,
    clock: u64,
    paused: BTreeSet<i32>,
}

impl Db {
    fn is_bad(&self, build: usize) -> bool {
        let state = self.builds[build].state;
        state.is_final() && state != BuildState::Succeeded
    }

    fn ready_build(build: usize) -> ReadyBuild {
        ReadyBuild {
            id: BuildId::new(i64::try_from(build).unwrap()),
            lane: LaneId::new(1),
            other_lanes: Vec::new(),
            urgency: 50,
            path_step: 0,
            expected_ms: 0,
            age_ms: 0,
            failed_on: Vec::new(),
        }
    }

    fn finish(&mut self, build: usize, state: BuildState) {
        let row = &mut self.builds[build];
        assert!(state.is_final() && !row.state.is_final());
        assert!(row.ended.insert(row.generation), "build {build} ended twice in a generation");
        row.state = state;
        row.cancel_requested = false;
    }

    /// All that needs a build, through all levels.
    fn above(&self, build: usize) -> Vec<usize> {
        let mut found = BTreeSet::from([build]);
        for (number, row) in self.builds.iter().enumerate() {
            // What a build needs has a smaller number.
            if row.needs.iter().any(|need| found.contains(need)) {
                found.insert(number);
            }
        }
        found.remove(&build);
        found.into_iter().collect()
    }

    fn end_dependents(&mut self, build: usize, state: BuildState) {
        for above in self.above(build) {
            if matches!(
                self.builds[above].state,
                BuildState::Waiting | BuildState::Ready | BuildState::Deferred
            ) {
                self.finish(above, state);
                self.builds[above].by_other = true;
            }
        }
    }

    fn release_dependents(&mut self) -> Vec<ReadyBuild> {
        let mut ready = Vec::new();
        for build in 0..self.builds.len() {
            let row = &self.builds[build];
            let met = row.needs.iter().all(|need| self.builds[*need].state == BuildState::Succeeded);
            if row.state == BuildState::Waiting && met {
                self.builds[build].state = BuildState::Ready;
                ready.push(Self::ready_build(build));
            }
        }
        ready
    }

    fn open(&mut self, attempt: i64, epoch: i64) -> Option<&mut Row> {
        self.attempts.get_mut(&attempt).filter(|row| row.class.is_none() && row.epoch == epoch)
    }

    fn commit(&mut self, op: Op, epoch: i64) -> Vec<Committed> {
        match op {
            Op::Claim(claim) => {
                let build = usize::try_from(claim.build.get()).unwrap();
                if self.builds[build].state != BuildState::Ready {
                    return vec![Committed::NotGranted(claim)];
                }
                self.next += 1;
                let id = self.next;
                let row = &mut self.builds[build];
                (row.state, row.attempt) = (BuildState::Assigned, Some(id));
                let attempt = Row {
                    build,
                    worker: claim.worker.get(),
                    epoch,
                    generation: row.generation,
                    class: None,
                    built: false,
                    late: false,
                    started: None,
                };
                self.attempts.insert(id, attempt);
                vec![Committed::Granted(Box::new(Claimed {
                    attempt: AttemptId::new(id),
                    number: 1,
                    build: claim.build,
                    worker: claim.worker,
                    session: claim.session,
                    name: format!("p{build}"),
                    derivation: format!("{}.drv", store_path(build)).parse().unwrap(),
                    system: "x86_64-linux".to_owned(),
                    features: Vec::new(),
                    priority: 50,
                    timeout: 0,
                    max_silent: 0,
                    farm_faults: self.builds[build].farm_faults,
                    outputs: Vec::new(),
                    inputs: Vec::new(),
                }))]
            }
            Op::Start { attempt, .. } => {
                self.clock += 1;
                let clock = self.clock;
                if let Some(row) = self.open(attempt.get(), epoch) {
                    row.started.get_or_insert(clock);
                    let build = row.build;
                    let build = &mut self.builds[build];
                    if build.attempt == Some(attempt.get()) && build.state == BuildState::Assigned {
                        build.state = BuildState::Running;
                    }
                }
                Vec::new()
            }
            Op::Built(built) => {
                let id = built.attempt.get();
                if let Some(row) = self.open(id, epoch)
                    && !row.built
                {
                    row.built = true;
                    let build = row.build;
                    let build = &mut self.builds[build];
                    if build.attempt == Some(id)
                        && matches!(build.state, BuildState::Assigned | BuildState::Running)
                    {
                        build.state = BuildState::Built;
                    }
                }
                vec![Committed::Built(built.attempt)]
            }
            Op::Succeed(fetched) => {
                let id = fetched.attempt.get();
                let mut done = vec![Committed::Succeeded(fetched.attempt)];
                if let Some(row) = self.open(id, epoch) {
                    row.class = Some(AttemptClass::Succeeded);
                    let build = row.build;
                    if self.builds[build].attempt == Some(id) && self.builds[build].state.is_active() {
                        self.finish(build, BuildState::Succeeded);
                        let ready = self.release_dependents();
                        done.push(Committed::Effects(Effects { ready, ..Effects::default() }));
                    }
                }
                done
            }
            Op::End(ended) => {
                let id = ended.attempt.get();
                let mut effects = Effects::default();
                if let Some(row) = self.open(id, epoch) {
                    row.class = Some(ended.class);
                    let build = row.build;
                    if self.builds[build].attempt == Some(id) && self.builds[build].state.is_active() {
                        self.after_attempt(build, ended.consequence, &mut effects);
                    }
                }
                vec![Committed::Ended(ended.attempt), Committed::Effects(effects)]
            }
        }
    }

    fn after_attempt(&mut self, build: usize, consequence: Consequence, effects: &mut Effects) {
        let row = &mut self.builds[build];
        let state = match consequence {
            Consequence::Fail => BuildState::Failed,
            Consequence::FailOther => BuildState::FailedOther,
            Consequence::Retry { .. } | Consequence::Ready if row.cancel_requested => BuildState::Canceled,
            Consequence::Retry { .. } => BuildState::Deferred,
            Consequence::Ready => BuildState::Ready,
        };
        row.farm_faults +=
            i16::from(matches!(consequence, Consequence::Retry { .. } | Consequence::FailOther));
        match state {
            BuildState::Canceled => {
                self.finish(build, state);
                self.end_dependents(build, BuildState::Canceled);
            }
            BuildState::Failed | BuildState::FailedOther => {
                self.finish(build, state);
                self.end_dependents(build, BuildState::FailedDependency);
            }
            state => {
                row.state = state;
                effects.deferred = state == BuildState::Deferred;
                if state == BuildState::Ready {
                    effects.ready.push(Self::ready_build(build));
                }
            }
        }
    }

    fn other(&self, id: i64, build: usize) -> Option<i64> {
        let open = |(other, row): (&i64, &Row)| {
            (*other != id && row.build == build && row.class.is_none() && !row.late).then_some(*other)
        };
        self.attempts.iter().find_map(open)
    }

    fn standing(&self, id: i64) -> Standing {
        let row = &self.attempts[&id];
        let build = &self.builds[row.build];
        let order = |id: i64| (self.attempts[&id].started.unwrap_or(u64::MAX), id);
        Standing {
            class: row.class,
            current: row.generation == build.generation,
            build: build.state,
            other: self
                .other(id, row.build)
                .map(|other| Other { built: self.attempts[&other].built, later: order(id) < order(other) }),
        }
    }

    fn settle(&mut self, step: Late, epoch: i64) -> Committed {
        match step {
            Late::TakeBack(returned) => {
                let id = returned.attempt.get();
                let verdict = match self.attempts.get(&id) {
                    Some(row) if row.worker == returned.worker.get() => {
                        self.take_back(id, returned.word, epoch)
                    }
                    _ => Verdict::NotTheirs,
                };
                Committed::TakenBack(returned.attempt, returned.worker, Some(verdict))
            }
            Late::Succeed(fetched) => {
                let id = fetched.attempt.get();
                let standing = self.standing(id);
                let build = self.attempts[&id].build;
                let other = self.other(id, build);
                let Some(row) = self.open(id, epoch).filter(|row| row.late) else {
                    return Committed::Settled(fetched.attempt, Settled::default());
                };
                let counts = standing.current && !standing.build.is_final();
                row.class = Some(if counts { AttemptClass::Succeeded } else { AttemptClass::Superseded });
                if !counts {
                    return Committed::Settled(fetched.attempt, Settled::default());
                }
                if let Some(other) = other {
                    self.supersede(other);
                }
                self.builds[build].attempt = Some(id);
                self.finish(build, BuildState::Succeeded);
                let effects = Effects { ready: self.release_dependents(), ..Effects::default() };
                let superseded = other.map(AttemptId::new);
                Committed::Settled(fetched.attempt, Settled { counts, superseded, effects })
            }
        }
    }

    fn supersede(&mut self, id: i64) {
        self.attempts.get_mut(&id).unwrap().class = Some(AttemptClass::Superseded);
    }

    fn take_back(&mut self, id: i64, word: hauberk_database::late::Word, epoch: i64) -> Verdict {
        let standing = self.standing(id);
        let build = self.attempts[&id].build;
        let reopened = |db: &Self, superseded: Option<i64>| Reopened {
            build: BuildId::new(i64::try_from(build).unwrap()),
            name: format!("p{build}"),
            farm_faults: db.builds[build].farm_faults,
            superseded: superseded.map(AttemptId::new),
            built: db.attempts[&id].built,
        };
        let row = &self.attempts[&id];
        match decide(standing, word) {
            Decision::GoOn => {
                let late = row.late;
                self.attempts.get_mut(&id).unwrap().epoch = epoch;
                let reopened = reopened(self, None);
                if late { Verdict::Beside(reopened) } else { Verdict::Reopened(reopened) }
            }
            Decision::Reopen => {
                let other = self.other(id, build);
                if let Some(other) = other {
                    self.supersede(other);
                }
                let fault = standing.class == Some(AttemptClass::WorkerLost);
                let row = self.attempts.get_mut(&id).unwrap();
                (row.class, row.late, row.epoch) = (None, false, epoch);
                let state = if row.started.is_some() { BuildState::Running } else { BuildState::Assigned };
                let build = &mut self.builds[build];
                (build.state, build.attempt) = (state, Some(id));
                build.farm_faults = (build.farm_faults - i16::from(fault)).max(0);
                Verdict::Reopened(reopened(self, other))
            }
            Decision::Beside => {
                let row = self.attempts.get_mut(&id).unwrap();
                (row.class, row.late, row.epoch) = (None, true, epoch);
                Verdict::Beside(reopened(self, None))
            }
            Decision::History => Verdict::History,
        }
    }

    fn cancel(&mut self, build: usize) {
        match self.builds[build].state {
            BuildState::Waiting | BuildState::Ready | BuildState::Deferred => {
                self.finish(build, BuildState::Canceled);
                self.builds[build].by_other = false;
                self.end_dependents(build, BuildState::Canceled);
            }
            BuildState::Assigned | BuildState::Running => self.builds[build].cancel_requested = true,
            _ => {}
        }
    }

    fn restart(&mut self, build: usize) {
        if !self.is_bad(build) {
            return;
        }
        let mut revived = BTreeSet::from([build]);
        for number in (0..=build).rev() {
            if revived.contains(&number) {
                let needs = self.builds[number].needs.clone();
                revived.extend(needs.into_iter().filter(|need| self.is_bad(*need)));
            }
        }
        for number in 0..self.builds.len() {
            let row = &self.builds[number];
            let reason_gone = row.needs.iter().any(|need| revived.contains(need))
                && row.needs.iter().all(|need| !self.is_bad(*need) || revived.contains(need));
            if self.is_bad(number) && row.by_other && reason_gone {
                revived.insert(number);
            }
        }
        for number in revived {
            let row = &mut self.builds[number];
            row.generation += 1;
            (row.state, row.attempt, row.farm_faults) = (BuildState::Waiting, None, 0);
            (row.cancel_requested, row.by_other) = (false, false);
        }
        self.release_dependents();
    }

    /// What must hold at any time.
    fn check(&self) {
        for (number, build) in self.builds.iter().enumerate() {
            let open: Vec<i64> = self
                .attempts
                .iter()
                .filter(|(_, row)| row.build == number && row.class.is_none() && !row.late)
                .map(|(id, _)| *id)
                .collect();
            if build.state.is_active() {
                assert_eq!(open, Vec::from_iter(build.attempt), "build {number}: {build:?}");
            } else {
                assert!(open.is_empty(), "build {number}: {build:?}, open: {open:?}");
            }
            let waits = matches!(build.state, BuildState::Waiting | BuildState::Ready | BuildState::Deferred);
            assert!(
                !waits || !build.needs.iter().any(|need| self.is_bad(*need)),
                "build {number} waits for ever"
            );
            assert!(build.generation >= 1 && build.ended.len() <= usize::try_from(build.generation).unwrap());
        }
    }
}

/// An attempt as a worker has it.
#[derive(Debug, Clone, PartialEq)]
enum Held {
    Running,
    Stopping,
    Unacknowledged(Finished),
    Kept,
}

/// The worker's end of a session.
#[derive(Debug, Default)]
struct Joined {
    session: u64,
    sent: u64,
    received: u64,
    last_assign: u64,
    taken: u64,
    granted: u64,
}

#[derive(Debug)]
struct Worker {
    number: i32,
    slots: u64,
    /// Its connection.
    routing: Option<u32>,
    greeting: bool,
    joined: Option<Joined>,
    held: BTreeMap<i64, Held>,
    leaving: bool,
}

impl Worker {
    fn busy(&self) -> u64 {
        self.held.values().filter(|held| matches!(held, Held::Running | Held::Stopping)).count() as u64
    }

    fn running(&self) -> Vec<RunningAttempt> {
        let running = self.held.iter().filter(|(_, held)| matches!(held, Held::Running | Held::Stopping));
        running.map(|(id, _)| RunningAttempt { attempt: *id, ..RunningAttempt::default() }).collect()
    }

    fn hello(&mut self) -> WorkerMessage {
        (self.greeting, self.joined) = (true, None);
        let unacknowledged = self.held.iter().filter(|(_, held)| matches!(held, Held::Unacknowledged(_)));
        let hello = Hello {
            running: self.running(),
            unacknowledged: unacknowledged.map(|(id, _)| *id).collect(),
            unreleased: self
                .held
                .iter()
                .filter(|(_, held)| match held {
                    Held::Kept => true,
                    Held::Unacknowledged(finished) => !finished.outputs.is_empty(),
                    Held::Running | Held::Stopping => false,
                })
                .map(|(id, _)| *id)
                .collect(),
            ..Hello::default()
        };
        WorkerMessage::new(0, 1, hello)
    }

    fn say(&mut self, body: impl Into<WorkerBody>) -> Option<WorkerMessage> {
        let joined = self.joined.as_mut()?;
        joined.sent += 1;
        Some(WorkerMessage::new(joined.session, joined.sent, body))
    }

    fn grant(&mut self) -> Option<WorkerMessage> {
        let free = self.slots.saturating_sub(self.busy());
        let leaving = self.leaving;
        let joined = self.joined.as_mut()?;
        let granted = joined.taken + free;
        if granted <= joined.granted || leaving {
            return None;
        }
        joined.granted = granted;
        self.say(Credit { granted })
    }

    fn heartbeat(&mut self) -> Option<WorkerMessage> {
        let running = self.running();
        let joined = self.joined.as_ref()?;
        let (last_assign_seen, granted) = (joined.last_assign, joined.granted);
        self.say(Heartbeat { running, last_assign_seen, granted, load: None })
    }

    /// Ends an attempt with a result.
    fn finish(&mut self, finished: Finished) -> Vec<WorkerMessage> {
        self.held.insert(finished.attempt, Held::Unacknowledged(finished.clone()));
        let said = self.say(finished);
        said.into_iter().chain(self.grant()).collect()
    }

    fn receive(&mut self, message: ServerMessage) -> Vec<WorkerMessage> {
        match &message.body {
            ServerBody::HelloAgain(_) => {
                return if self.joined.is_some() { vec![self.hello()] } else { Vec::new() };
            }
            ServerBody::Welcome(welcome) => {
                if !self.greeting {
                    return Vec::new();
                }
                self.greeting = false;
                let session = welcome.session;
                self.joined = Some(Joined { session, received: message.sequence, ..Joined::default() });
                let owed: Vec<Finished> = self
                    .held
                    .values()
                    .filter_map(|held| match held {
                        Held::Unacknowledged(finished) => Some(finished.clone()),
                        _ => None,
                    })
                    .collect();
                let mut said: Vec<_> = owed.into_iter().filter_map(|finished| self.say(finished)).collect();
                said.extend(self.grant());
                return said;
            }
            _ => {}
        }
        let Some(joined) = self.joined.as_mut().filter(|joined| joined.session == message.session) else {
            return Vec::new();
        };
        if message.sequence <= joined.received {
            return Vec::new();
        }
        if message.sequence > joined.received + 1 {
            return vec![self.hello()];
        }
        joined.received = message.sequence;
        match message.body {
            ServerBody::Assign(assign) => {
                joined.last_assign = message.sequence;
                if self.held.contains_key(&assign.attempt) {
                    return Vec::new();
                }
                joined.taken += 1;
                assert!(self.busy() < self.slots, "worker {} got more than it has slots", self.number);
                self.held.insert(assign.attempt, Held::Running);
                self.grant().into_iter().collect()
            }
            ServerBody::Cancel(cancel) => match self.held.get_mut(&cancel.attempt) {
                Some(held @ Held::Running) => {
                    *held = Held::Stopping;
                    Vec::new()
                }
                Some(_) => Vec::new(),
                None => self.say(failure(cancel.attempt, Outcome::Canceled)).into_iter().collect(),
            },
            ServerBody::Ack(ack) => {
                for id in ack.attempts {
                    match self.held.get(&id) {
                        Some(Held::Unacknowledged(finished)) if finished.outputs.is_empty() => {
                            self.held.remove(&id);
                        }
                        Some(Held::Unacknowledged(_)) => {
                            self.held.insert(id, Held::Kept);
                        }
                        _ => {}
                    }
                }
                Vec::new()
            }
            ServerBody::Release(release) => {
                for id in release.attempts {
                    if let Some(Held::Unacknowledged(_) | Held::Kept) = self.held.get(&id) {
                        self.held.remove(&id);
                    }
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}

fn failure(attempt: i64, outcome: Outcome) -> Finished {
    Finished { attempt, outcome: outcome.into(), ..Finished::default() }
}

fn success(attempt: i64) -> Finished {
    let output = OutputInfo {
        name: "out".to_owned(),
        path: store_path(0),
        nar_hash: vec![0; 32].into(),
        ..OutputInfo::default()
    };
    Finished { attempt, outcome: Outcome::Succeeded.into(), outputs: vec![output], ..Finished::default() }
}

/// A connection between a worker and the server; the server may still read what a worker said before it made another.
#[derive(Debug)]
struct Connection {
    routing: u32,
    worker: usize,
    to_server: VecDeque<WorkerMessage>,
    to_worker: VecDeque<ServerMessage>,
    broken: bool,
}

struct World {
    dispatcher: Dispatcher,
    now: Instant,
    epoch: i64,
    db: Db,
    ops: VecDeque<Op>,
    late: VecDeque<Late>,
    answers: VecDeque<Committed>,
    fetches: Vec<FetchJob>,
    refill: bool,
    workers: Vec<Worker>,
    connections: Vec<Connection>,
    next_routing: u32,
    next_session: u64,
    /// What has happened that is rare.
    seen: BTreeSet<&'static str>,
}

impl World {
    fn new() -> Self {
        let graph: &[&[usize]] = &[&[], &[], &[0], &[0, 1], &[2], &[]];
        let builds = graph
            .iter()
            .map(|needs| Build {
                needs: needs.to_vec(),
                state: if needs.is_empty() { BuildState::Ready } else { BuildState::Waiting },
                generation: 1,
                attempt: None,
                farm_faults: 0,
                cancel_requested: false,
                by_other: false,
                ended: BTreeSet::new(),
            })
            .collect();
        let workers = [(1, 1), (2, 2)].map(|(number, slots)| Worker {
            number,
            slots,
            routing: None,
            greeting: false,
            joined: None,
            held: BTreeMap::new(),
            leaving: false,
        });
        let mut world = Self {
            dispatcher: Dispatcher::new(policy(), Instant::now()),
            now: Instant::now(),
            epoch: 1,
            db: Db { builds, ..Db::default() },
            ops: VecDeque::new(),
            late: VecDeque::new(),
            answers: VecDeque::new(),
            fetches: Vec::new(),
            refill: true,
            workers: workers.into(),
            connections: Vec::new(),
            next_routing: 0,
            next_session: 0,
            seen: BTreeSet::new(),
        };
        world.dispatcher.want_refill();
        for worker in 0..world.workers.len() {
            world.connect(worker);
        }
        world.act();
        world
    }

    /// What the task around the dispatcher does after every event.
    fn act(&mut self) {
        self.dispatcher.dispatch(self.now);
        loop {
            let effects = self.dispatcher.take_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    Effect::Send(to, message) => self.send(to, message),
                    Effect::Commit(op) => self.ops.push_back(op),
                    Effect::Late(step) => self.late.push_back(step),
                    Effect::Fetch(job) => self.fetches.push(job),
                    Effect::Refill(_) => self.refill = true,
                    // What the farm thinks of workers is not of the model.
                    Effect::SessionEnded(..) | Effect::SetAside(..) | Effect::Recovered(_) => {}
                }
            }
        }
        self.db.check();
    }

    fn send(&mut self, to: RoutingId, message: ServerMessage) {
        // What is said about another's attempt is only an answer to a lie.
        let addressee = self.connections.iter().find(|c| RoutingId::from_number(c.routing) == to);
        let addressee = addressee.map(|connection| self.workers[connection.worker].number);
        let its = |id: &i64| self.db.attempts.get(id).filter(|row| Some(row.worker) == addressee);
        match &message.body {
            ServerBody::Assign(assign) => {
                assert!(
                    self.db.attempts.contains_key(&assign.attempt),
                    "an Assign left before it was recorded"
                );
            }
            ServerBody::Ack(ack) => {
                for id in &ack.attempts {
                    let recorded = its(id).is_none_or(|row| row.built || row.class.is_some());
                    assert!(recorded, "the result of attempt {id} was acknowledged before it was recorded");
                }
            }
            ServerBody::Release(release) => {
                for id in &release.attempts {
                    let over = its(id).is_none_or(|row| row.class.is_some());
                    assert!(over, "attempt {id} was released while it is open");
                }
            }
            _ => {}
        }
        match self.connections.iter_mut().find(|c| RoutingId::from_number(c.routing) == to && !c.broken) {
            Some(connection) => connection.to_worker.push_back(message),
            None => self.dispatcher.undelivered(to, self.now),
        }
    }

    fn connect(&mut self, worker: usize) {
        if let Some(old) = self.workers[worker].routing.take() {
            self.disconnect(old);
        }
        self.next_routing += 1;
        let routing = self.next_routing;
        let hello = self.workers[worker].hello();
        self.workers[worker].routing = Some(routing);
        self.connections.push(Connection {
            routing,
            worker,
            to_server: VecDeque::from([hello]),
            to_worker: VecDeque::new(),
            broken: false,
        });
    }

    fn disconnect(&mut self, routing: u32) {
        for connection in &mut self.connections {
            if connection.routing == routing {
                connection.broken = true;
                connection.to_worker.clear();
            }
        }
    }

    fn say(&mut self, worker: usize, messages: impl IntoIterator<Item = WorkerMessage>) {
        let Some(routing) = self.workers[worker].routing else { return };
        if let Some(connection) = self.connections.iter_mut().find(|c| c.routing == routing) {
            connection.to_server.extend(messages);
        }
    }

    fn server_hears(&mut self, connection: usize) {
        let Some(message) = self.connections[connection].to_server.pop_front() else { return };
        let routing = RoutingId::from_number(self.connections[connection].routing);
        let number = self.workers[self.connections[connection].worker].number;
        let WorkerMessage { session, sequence, body } = message;
        if let WorkerBody::Hello(hello) = body {
            self.next_session += 1;
            let session = SessionId::from_random(self.next_session << 1);
            let admitted = Admitted {
                worker: WorkerId::new(number),
                name: format!("w{number}"),
                paused: self.db.paused.contains(&number),
                draining: false,
                capabilities: Capabilities {
                    store_directory: StoreDirectory::nix(),
                    systems: BTreeSet::from(["x86_64-linux".to_owned()]),
                    features: BTreeSet::new(),
                    mandatory_features: BTreeSet::new(),
                },
                session,
                routing,
                welcome: Welcome { session: session.to_wire(), ..Welcome::default() },
            };
            self.dispatcher.hello(admitted, &hello, self.now);
            self.act();
            self.control();
            return;
        }
        let session = SessionId::from_wire(session);
        if self.dispatcher.heard(session, routing, sequence, self.now)
            && let Some(session) = session
        {
            match body {
                WorkerBody::Credit(credit) => self.dispatcher.credit(session, credit.granted),
                WorkerBody::Heartbeat(heartbeat) => self.dispatcher.heartbeat(session, &heartbeat),
                WorkerBody::Started(started) => self.dispatcher.started(session, &started),
                WorkerBody::Finished(finished) => self.dispatcher.finished(session, &finished),
                WorkerBody::Declined(declined) => self.dispatcher.declined(session, &declined),
                WorkerBody::Goodbye(goodbye) => self.dispatcher.goodbye(session, &goodbye.reason),
                WorkerBody::Hello(_) | WorkerBody::Enrol(_) | WorkerBody::Unknown { .. } => {}
            }
        }
        self.act();
    }

    fn worker_hears(&mut self, connection: usize) {
        let Some(message) = self.connections[connection].to_worker.pop_front() else { return };
        let worker = self.connections[connection].worker;
        if self.workers[worker].routing == Some(self.connections[connection].routing) {
            let said = self.workers[worker].receive(message);
            self.say(worker, said);
        }
    }

    fn commit(&mut self) {
        if let Some(op) = self.ops.pop_front() {
            let done = self.db.commit(op, self.epoch);
            self.answers.extend(done);
            self.db.check();
        }
    }

    fn settle(&mut self) {
        if let Some(step) = self.late.pop_front() {
            let done = self.db.settle(step, self.epoch);
            self.answers.push_back(done);
            self.db.check();
        }
    }

    fn answer(&mut self) {
        if let Some(answer) = self.answers.pop_front() {
            self.note(&answer);
            self.dispatcher.committed(answer, self.now);
            self.act();
        }
    }

    fn note(&mut self, answer: &Committed) {
        let seen = match answer {
            Committed::TakenBack(_, _, Some(Verdict::Reopened(reopened)))
                if reopened.superseded.is_some() =>
            {
                "an older attempt was preferred"
            }
            Committed::TakenBack(_, _, Some(Verdict::Reopened(_))) => "an attempt was taken back",
            Committed::TakenBack(_, _, Some(Verdict::Beside(_))) => "a result stood beside another attempt",
            Committed::TakenBack(_, _, Some(Verdict::History)) => "a result was history",
            Committed::TakenBack(_, _, Some(Verdict::NotTheirs)) => "a worker lied",
            Committed::Settled(_, settled) if settled.counts && settled.superseded.is_some() => {
                "a late result ended a newer attempt"
            }
            Committed::Settled(_, settled) if settled.counts => "a late result counted",
            Committed::Settled(..) => "a late result was too late",
            Committed::NotGranted(_) => "a claim was lost",
            Committed::Granted(claimed) if self.dispatcher.early.contains_key(&claimed.attempt) => {
                "a grant was overtaken"
            }
            Committed::Ended(id)
                if self.dispatcher.attempts.get(id).is_some_and(|attempt| attempt.said.is_some()) =>
            {
                "a result arrived while its attempt was given up"
            }
            _ => return,
        };
        self.seen.insert(seen);
    }

    fn fetched(&mut self, pick: usize, works: bool) {
        if self.fetches.is_empty() {
            return;
        }
        let job = self.fetches.swap_remove(pick % self.fetches.len());
        let result = if works { Ok(Vec::new()) } else { Err("the nar is damaged".to_owned()) };
        self.dispatcher.fetched(&job, result);
        self.act();
    }

    fn fill(&mut self) {
        if !std::mem::take(&mut self.refill) {
            return;
        }
        let lane = dispatch::Lane {
            id: LaneId::new(1),
            specification: SpecificationId::new(1),
            store_directory: StoreDirectory::nix(),
            system: "x86_64-linux".to_owned(),
            features: BTreeSet::new(),
            shares: 100,
        };
        let ready =
            (0..self.db.builds.len()).filter(|build| self.db.builds[*build].state == BuildState::Ready);
        let builds = ready.map(Db::ready_build).collect();
        self.dispatcher.refilled(None, dispatch::Window { lanes: vec![lane], builds });
        self.act();
    }

    fn control(&mut self) {
        let unwanted: Vec<AttemptId> = self
            .db
            .builds
            .iter()
            .filter(|build| build.cancel_requested)
            .filter(|build| matches!(build.state, BuildState::Assigned | BuildState::Running))
            .filter_map(|build| build.attempt.map(AttemptId::new))
            .filter(|id| self.db.attempts[&id.get()].epoch == self.epoch)
            .collect();
        self.dispatcher.stop(&unwanted, self.now);
        let orders: Vec<Order> = self
            .workers
            .iter()
            .map(|worker| Order {
                worker: WorkerId::new(worker.number),
                paused: self.db.paused.contains(&worker.number),
                reason: None,
                draining: false,
                revoked: false,
                set_aside: false,
            })
            .collect();
        self.dispatcher.govern(&orders);
        self.act();
    }

    fn sweep(&mut self) {
        self.dispatcher.want_refill();
        self.dispatcher.forget_early();
        let mut woken = Vec::new();
        for build in 0..self.db.builds.len() {
            if self.db.builds[build].state == BuildState::Deferred {
                self.db.builds[build].state = BuildState::Ready;
                woken.push(Db::ready_build(build));
            }
        }
        self.dispatcher.ready(&woken);
        let strays = self.strays();
        self.dispatcher.adopt(strays, self.now);
        self.act();
        self.control();
        self.fill();
    }

    /// Open attempts of older starts become this one's.
    fn strays(&mut self) -> Vec<OpenAttempt> {
        let mut open = Vec::new();
        for (id, row) in &mut self.db.attempts {
            if row.class.is_none() && row.epoch < self.epoch {
                row.epoch = self.epoch;
                open.push(OpenAttempt {
                    specification: SpecificationId::new(1),
                    expected_ms: 0,
                    age_ms: 0,
                    failed_on: Vec::new(),
                    attempt: AttemptId::new(*id),
                    build: BuildId::new(i64::try_from(row.build).unwrap()),
                    worker: WorkerId::new(row.worker),
                    built: row.built,
                    late: row.late,
                    fetch_tries: 0,
                    farm_faults: self.db.builds[row.build].farm_faults,
                    name: format!("p{}", row.build),
                    derivation: format!("{}.drv", store_path(row.build)).parse().unwrap(),
                });
            }
        }
        open
    }

    /// The server is killed and started again. Some of what it wanted recorded still is, and one claim even later.
    fn restart_server(&mut self, pick: usize) {
        for _ in 0..pick % 4 {
            self.commit();
        }
        let zombie = self.ops.iter().position(|op| matches!(op, Op::Claim(_)));
        let zombie = zombie.and_then(|place| self.ops.remove(place));
        let old = self.epoch;
        self.epoch += 1;
        self.ops.clear();
        self.late.clear();
        self.answers.clear();
        self.fetches.clear();
        self.dispatcher = Dispatcher::new(policy(), Instant::now());
        let open = self.strays();
        self.dispatcher.adopt(open, self.now);
        self.dispatcher.want_refill();
        self.connections.clear();
        for worker in &mut self.workers {
            (worker.routing, worker.joined, worker.greeting) = (None, None, false);
        }
        if pick.is_multiple_of(3)
            && let Some(op) = zombie
        {
            self.db.commit(op, old);
        }
        self.act();
    }

    fn restart_worker(&mut self, worker: usize) {
        let lost = |_: &i64, held: &mut Held| !matches!(held, Held::Running | Held::Stopping);
        self.workers[worker].held.retain(lost);
        self.workers[worker].leaving = false;
        self.connect(worker);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.dispatcher.tick(self.now);
        self.act();
    }

    fn end_attempt(&mut self, worker: usize, pick: usize) {
        let active: Vec<(i64, bool)> = self.workers[worker]
            .held
            .iter()
            .filter(|(_, held)| matches!(held, Held::Running | Held::Stopping))
            .map(|(id, held)| (*id, *held == Held::Stopping))
            .collect();
        if active.is_empty() {
            return;
        }
        let (id, stopping) = active[pick % active.len()];
        let finished = match (stopping, (pick / 7) % 8) {
            (true, 1..) => failure(id, Outcome::Canceled),
            (_, 0..=4) => success(id),
            (_, 5) => failure(id, Outcome::BuildFailed),
            (_, 6) => failure(id, Outcome::DiskFull),
            (_, _) => failure(id, Outcome::OutOfMemory),
        };
        let said = self.workers[worker].finish(finished);
        self.say(worker, said);
    }

    fn start_attempt(&mut self, worker: usize, pick: usize) {
        let running = self.workers[worker].running();
        if !running.is_empty() {
            let attempt = running[pick % running.len()].attempt;
            let said = self.workers[worker].say(Started { attempt, inputs_ms: 1 });
            self.say(worker, said);
        }
    }

    fn step(&mut self, choice: u32) {
        let pick = usize::try_from(choice >> 8).unwrap();
        let worker = pick % self.workers.len();
        let connections = self.connections.len();
        let connection = if connections == 0 { None } else { Some((pick / 2) % connections) };
        let build = pick % self.db.builds.len();
        match choice & 0xff {
            0..40 => self.commit(),
            40..55 => self.settle(),
            55..95 => self.answer(),
            95..135 => {
                if let Some(connection) = connection {
                    self.server_hears(connection);
                }
            }
            135..165 => {
                if let Some(connection) = connection {
                    self.worker_hears(connection);
                }
            }
            165..180 => self.end_attempt(worker, pick / 2),
            180..190 => self.start_attempt(worker, pick / 2),
            190..202 => self.fetched(pick, pick % 5 != 0),
            202..212 => {
                let said = self.workers[worker].heartbeat();
                self.say(worker, said);
            }
            212..217 => self.fill(),
            217..221 => self.sweep(),
            221..226 => self.pass(Duration::from_secs(4)),
            226..229 => self.pass(LEASE + Duration::from_secs(1)),
            229..234 => self.connect(worker),
            // A message that does not arrive, in one direction or the other.
            234..237 => {
                if let Some(connection) = connection {
                    self.connections[connection].to_worker.pop_front();
                }
            }
            237..239 => {
                if let Some(connection) = connection {
                    self.connections[connection].to_server.pop_front();
                }
            }
            239..241 => self.restart_server(pick),
            241..243 => self.restart_worker(worker),
            243..247 => {
                self.db.cancel(build);
                if pick % 3 != 0 {
                    self.control();
                }
            }
            247..250 => {
                self.db.restart(build);
                self.dispatcher.want_refill();
                self.act();
            }
            250..252 => {
                let number = self.workers[worker].number;
                if !self.db.paused.remove(&number) {
                    self.db.paused.insert(number);
                }
                self.control();
            }
            // A result said once more.
            252..254 => {
                let owed = self.workers[worker].held.values().find_map(|held| match held {
                    Held::Unacknowledged(finished) => Some(finished.clone()),
                    _ => None,
                });
                if let Some(finished) = owed {
                    let said = self.workers[worker].say(finished);
                    self.say(worker, said);
                }
            }
            // It leaves, and is started again.
            254 => {
                let said = self.workers[worker].say(Goodbye::default());
                self.say(worker, said);
                self.restart_worker(worker);
            }
            // It speaks of an attempt that is another's.
            _ => {
                let id = i64::try_from(pick % 9).unwrap();
                let number = self.workers[worker].number;
                if self.db.attempts.get(&id).is_some_and(|row| row.worker != number) {
                    let said = self.workers[worker].say(success(id));
                    self.say(worker, said);
                }
            }
        }
        self.connections.retain(|connection| !connection.broken || !connection.to_server.is_empty());
    }

    /// Everything that can happen without a fault, until nothing more does.
    fn calm(&mut self) {
        loop {
            let before = (self.ops.len(), self.late.len(), self.answers.len(), self.fetches.len());
            while !self.ops.is_empty() || !self.late.is_empty() || !self.answers.is_empty() {
                self.commit();
                self.settle();
                self.answer();
            }
            while !self.fetches.is_empty() {
                self.fetched(0, true);
            }
            self.fill();
            let mut moved = false;
            for connection in 0..self.connections.len() {
                while !self.connections[connection].to_server.is_empty() {
                    self.server_hears(connection);
                    moved = true;
                }
                while !self.connections[connection].to_worker.is_empty() {
                    self.worker_hears(connection);
                    moved = true;
                }
            }
            if !moved && before == (0, 0, 0, 0) {
                return;
            }
        }
    }

    /// Leaves the farm alone until everything has come to its end.
    fn rest(&mut self) {
        self.db.paused.clear();
        for _ in 0..LAST_ROUNDS {
            for worker in 0..self.workers.len() {
                if self.workers[worker].routing.is_none() {
                    self.connect(worker);
                }
                let said = self.workers[worker].heartbeat();
                self.say(worker, said);
            }
            self.calm();
            for worker in 0..self.workers.len() {
                while self.workers[worker].busy() > 0 {
                    self.end_attempt(worker, 7);
                }
            }
            self.calm();
            self.pass(Duration::from_secs(2));
            self.sweep();
            self.calm();
            // A Hello or a Welcome that was lost: the worker asks again after a while.
            for worker in 0..self.workers.len() {
                if self.workers[worker].joined.is_none() {
                    self.connect(worker);
                }
            }
            self.calm();
            // An Ack or a Release that was lost: likewise.
            for worker in 0..self.workers.len() {
                if !self.workers[worker].held.is_empty() {
                    self.connect(worker);
                }
            }
            self.calm();
        }
    }

    fn check_the_end(&self) {
        for (number, build) in self.db.builds.iter().enumerate() {
            assert!(build.state.is_final(), "build {number} waits for ever: {build:?}");
            assert!(build.ended.contains(&build.generation), "build {number} has no end: {build:?}");
        }
        let open: Vec<_> = self.db.attempts.iter().filter(|(_, row)| row.class.is_none()).collect();
        assert!(open.is_empty(), "attempts are open for ever: {open:?}");
        assert!(self.dispatcher.attempts.is_empty(), "{:?}", self.dispatcher.attempts);
        assert!(self.dispatcher.returns.is_empty(), "{:?}", self.dispatcher.returns);
        for worker in &self.workers {
            let id = self.dispatcher.by_worker.get(&WorkerId::new(worker.number));
            let free = id.map(|id| self.dispatcher.sessions[id].free());
            assert_eq!(free, Some(worker.slots), "worker {} has lost a slot", worker.number);
            let kept: HashSet<_> = worker.held.keys().collect();
            assert!(kept.is_empty(), "worker {} keeps {kept:?} for ever", worker.number);
        }
    }
}

fn policy() -> Policy {
    Policy {
        lease: LEASE,
        stop_patience: PATIENCE,
        retry: RetryPolicy::default(),
        health: HealthPolicy::default(),
        log_limit: 0,
        output_limit: 0,
        order: hauberk_order::Policy::default(),
        company: Company::new(Duration::from_secs(3600)),
    }
}

fn cases() -> u32 {
    std::env::var("HAUBERK_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn everything_comes_to_its_end_once_whatever_happens(steps in prop::collection::vec(any::<u32>(), 0..600)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.rest();
        world.check_the_end();
    }
}

/// The rare things that the model is about do happen in it.
#[test]
fn the_model_reaches_what_it_is_about() {
    let mut wanted = BTreeSet::from([
        "an older attempt was preferred",
        "an attempt was taken back",
        "a result stood beside another attempt",
        "a result was history",
        "a worker lied",
        "a late result ended a newer attempt",
        "a late result counted",
        "a late result was too late",
        "a claim was lost",
        "a grant was overtaken",
        "a result arrived while its attempt was given up",
    ]);
    let mut random =
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    for _ in 0..MOST_WORLDS {
        let mut world = World::new();
        for _ in 0..600 {
            world.step(random.random());
        }
        wanted = &wanted - &world.seen;
        if wanted.is_empty() {
            return;
        }
    }
    panic!("never seen in {MOST_WORLDS} worlds: {wanted:?}");
}
