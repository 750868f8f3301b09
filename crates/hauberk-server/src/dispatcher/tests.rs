use std::collections::BTreeSet;
use std::time::Duration;

use hauberk_database::late::{Reopened, Settled, Verdict, Word};
use hauberk_database::workers::Order;
use hauberk_database::{LaneId, SpecificationId};
use hauberk_order::Capabilities;
use hauberk_protocol::proto::{DeclineReason, OutputInfo, RunningAttempt, Welcome};
use hauberk_store::StoreDirectory;

use super::*;
use crate::health::HealthPolicy;
use crate::heart::Company;
use crate::outcome::RetryPolicy;
use crate::wording::MESSAGE_LIMIT;

const LEASE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(30);

/// A dispatcher with its clock, and what it has said so far.
struct Bench {
    dispatcher: Dispatcher,
    now: Instant,
    next_attempt: i64,
}

impl Bench {
    fn new() -> Self {
        let policy = Policy {
            lease: LEASE,
            stop_patience: PATIENCE,
            retry: RetryPolicy::default(),
            health: HealthPolicy::default(),
            log_limit: 0,
            output_limit: 0,
            order: hauberk_order::Policy::default(),
            company: Company::new(Duration::from_secs(3600)),
        };
        Self { dispatcher: Dispatcher::new(policy, Instant::now()), now: Instant::now(), next_attempt: 100 }
    }

    fn hello(&mut self, worker: i32, session: u64, hello: &Hello) -> SessionId {
        let id = SessionId::from_random(session << 1);
        let admitted = Admitted {
            worker: WorkerId::new(worker),
            name: format!("w{worker}"),
            paused: false,
            draining: false,
            capabilities: Capabilities {
                store_directory: StoreDirectory::nix(),
                systems: BTreeSet::from(["x86_64-linux".to_owned()]),
                features: BTreeSet::new(),
                mandatory_features: BTreeSet::new(),
            },
            session: id,
            routing: RoutingId::from_number(u32::try_from(session).unwrap()),
            welcome: Welcome::default(),
        };
        self.dispatcher.hello(admitted, hello, self.now);
        id
    }

    fn join(&mut self, worker: i32, session: u64, slots: u64) -> SessionId {
        let hello = Hello { slots: u32::try_from(slots).unwrap(), ..Hello::default() };
        let id = self.hello(worker, session, &hello);
        self.dispatcher.credit(id, slots);
        id
    }

    fn queue(&mut self, builds: &[i64]) {
        self.refill(builds.iter().map(|id| ready(*id)).collect());
    }

    fn refill(&mut self, builds: Vec<ReadyBuild>) {
        let lane = dispatch::Lane {
            id: LaneId::new(1),
            specification: SpecificationId::new(1),
            store_directory: StoreDirectory::nix(),
            system: "x86_64-linux".to_owned(),
            features: BTreeSet::new(),
            shares: 100,
        };
        self.dispatcher.refilled(None, dispatch::Window { lanes: vec![lane], builds });
        self.dispatcher.dispatch(self.now);
    }

    fn committed(&mut self, committed: Committed) {
        self.dispatcher.committed(committed, self.now);
    }

    /// Takes what is to be done; claims are granted on the way, as the committer would.
    fn settle(&mut self) -> Vec<Effect> {
        let mut all = Vec::new();
        loop {
            let effects = self.dispatcher.take_effects();
            if effects.is_empty() {
                return all;
            }
            for effect in effects {
                if let Effect::Commit(Op::Claim(claim)) = effect {
                    let claimed = self.claimed(claim);
                    self.committed(Committed::Granted(Box::new(claimed)));
                } else {
                    all.push(effect);
                }
            }
        }
    }

    fn claimed(&mut self, claim: Claim) -> Claimed {
        self.next_attempt += 1;
        Claimed {
            attempt: AttemptId::new(self.next_attempt),
            number: 1,
            build: claim.build,
            worker: claim.worker,
            session: claim.session,
            name: "hello".to_owned(),
            derivation: "/nix/store/00000000000000000000000000000000-hello.drv".parse().unwrap(),
            system: "x86_64-linux".to_owned(),
            features: Vec::new(),
            priority: 50,
            timeout: 0,
            max_silent: 0,
            farm_faults: 0,
            outputs: Vec::new(),
            inputs: Vec::new(),
        }
    }

    /// The one claim that is wanted now.
    fn claim(&mut self) -> Claim {
        let claims: Vec<_> = self
            .dispatcher
            .take_effects()
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Commit(Op::Claim(claim)) => Some(claim),
                _ => None,
            })
            .collect();
        let [claim] = claims[..] else { panic!("{claims:?}") };
        claim
    }

    /// A worker with one attempt, number 101.
    fn with_attempt() -> (Self, SessionId) {
        let mut bench = Self::new();
        let session = bench.join(1, 1, 1);
        bench.queue(&[7]);
        bench.settle();
        (bench, session)
    }
}

fn sent(effects: &[Effect]) -> Vec<&'static str> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(_, message) => Some(message.body.kind()),
            _ => None,
        })
        .collect()
}

fn ended(effects: &[Effect]) -> Vec<(i64, AttemptClass, Consequence)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Commit(Op::End(ended)) => Some((ended.attempt.get(), ended.class, ended.consequence)),
            _ => None,
        })
        .collect()
}

/// What the database is asked about attempts that came back.
fn asked(effects: &[Effect]) -> Vec<(i64, Word)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Late(Late::TakeBack(returned)) => Some((returned.attempt.get(), returned.word)),
            _ => None,
        })
        .collect()
}

fn reopened(build: i64, superseded: Option<i64>) -> Reopened {
    Reopened {
        build: BuildId::new(build),
        name: "hello".to_owned(),
        farm_faults: 0,
        superseded: superseded.map(AttemptId::new),
        built: false,
    }
}

fn ready(build: i64) -> ReadyBuild {
    ReadyBuild {
        id: BuildId::new(build),
        lane: LaneId::new(1),
        other_lanes: Vec::new(),
        urgency: 50,
        path_step: 0,
        expected_ms: 0,
        age_ms: 0,
        failed_on: Vec::new(),
    }
}

/// An attempt that the database shows, with its worker.
fn open_attempt(attempt: i64, build: i64, worker: i32) -> OpenAttempt {
    OpenAttempt {
        attempt: AttemptId::new(attempt),
        build: BuildId::new(build),
        worker: WorkerId::new(worker),
        built: false,
        late: false,
        fetch_tries: 0,
        farm_faults: 0,
        name: "hello".to_owned(),
        derivation: "/nix/store/00000000000000000000000000000000-hello.drv".parse().unwrap(),
        specification: SpecificationId::new(1),
        expected_ms: 0,
        age_ms: 0,
        failed_on: Vec::new(),
    }
}

fn success(attempt: i64) -> Finished {
    Finished {
        attempt,
        outcome: Outcome::Succeeded.into(),
        origin: Origin::Built.into(),
        outputs: vec![OutputInfo {
            name: "out".to_owned(),
            path: "/nix/store/00000000000000000000000000000000-hello".to_owned(),
            nar_hash: vec![0; 32].into(),
            nar_size: 120,
            references: Vec::new(),
        }],
        ..Finished::default()
    }
}

fn failure(attempt: i64, outcome: Outcome) -> Finished {
    Finished { attempt, outcome: outcome.into(), ..Finished::default() }
}

const RETRY: Consequence = Consequence::Retry { delay: 2.0 };

#[test]
fn nothing_is_sent_before_it_is_recorded() {
    let mut bench = Bench::new();
    bench.join(1, 1, 2);
    bench.settle();
    bench.queue(&[1, 2, 3]);
    let effects = bench.dispatcher.take_effects();
    assert!(sent(&effects).is_empty());
    let claims: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Commit(Op::Claim(claim)) => Some(*claim),
            _ => None,
        })
        .collect();
    assert_eq!(claims.iter().map(|claim| claim.build.get()).collect::<Vec<_>>(), [1, 2]);
    let claimed = bench.claimed(claims[0]);
    bench.committed(Committed::Granted(Box::new(claimed)));
    assert_eq!(sent(&bench.settle()), ["Assign"]);
    // The other build went to somebody else: the slot takes the next one.
    bench.committed(Committed::NotGranted(claims[1]));
    bench.dispatcher.dispatch(bench.now);
    assert_eq!(sent(&bench.settle()), ["Assign"]);
}

#[test]
fn a_burst_spreads_over_the_workers() {
    let mut bench = Bench::new();
    bench.join(1, 1, 4);
    bench.join(2, 2, 4);
    bench.settle();
    bench.queue(&[1, 2, 3, 4]);
    let mut workers = Vec::new();
    for effect in bench.dispatcher.take_effects() {
        if let Effect::Commit(Op::Claim(claim)) = effect {
            workers.push(claim.worker.get());
        }
    }
    workers.sort_unstable();
    assert_eq!(workers, [1, 1, 2, 2]);
}

/// The fetch that begins as the worker's word goes to be recorded.
fn fetched_with_record(effects: Vec<Effect>) -> FetchJob {
    match <[Effect; 2]>::try_from(effects) {
        Ok([Effect::Commit(Op::Built(built)), Effect::Fetch(job)]) if built.attempt == job.attempt => job,
        other => panic!("a result is recorded and fetched: {other:?}"),
    }
}

#[test]
fn a_build_goes_from_assigned_to_succeeded() {
    let (mut bench, session) = Bench::with_attempt();
    bench.dispatcher.started(session, &Started { attempt: 101, inputs_ms: 5 });
    assert!(matches!(bench.settle()[..], [Effect::Commit(Op::Start { .. })]));
    bench.dispatcher.finished(session, &success(101));
    let job = fetched_with_record(bench.settle());
    assert!(job.expected.is_some() && job.reported.is_some());
    bench.committed(Committed::Built(AttemptId::new(101)));
    assert_eq!(sent(&bench.settle()), ["Ack"]);
    bench.dispatcher.fetched(&job, Ok(Vec::new()));
    assert!(matches!(bench.settle()[..], [Effect::Commit(Op::Succeed(_))]));
    bench.committed(Committed::Succeeded(AttemptId::new(101)));
    assert_eq!(sent(&bench.settle()), ["Release"]);
    // The worker did not hear it and says it once more: only the database still knows of it.
    bench.dispatcher.finished(session, &success(101));
    assert_eq!(asked(&bench.settle()), [(101, Word::Succeeded)]);
    bench.committed(taken_back(1, 101, Verdict::History));
    assert_eq!(sent(&bench.settle()), ["Ack", "Release"]);
}

#[test]
fn outputs_that_are_there_before_the_result_is_recorded_wait_for_nothing() {
    let (mut bench, session) = Bench::with_attempt();
    bench.dispatcher.finished(session, &success(101));
    let job = fetched_with_record(bench.settle());
    bench.dispatcher.fetched(&job, Ok(Vec::new()));
    assert!(matches!(bench.settle()[..], [Effect::Commit(Op::Succeed(_))]));
    bench.committed(Committed::Built(AttemptId::new(101)));
    bench.committed(Committed::Succeeded(AttemptId::new(101)));
    assert_eq!(sent(&bench.settle()), ["Ack", "Release"]);
}

#[test]
fn a_result_is_acknowledged_when_it_is_recorded_and_not_before() {
    let (mut bench, session) = Bench::with_attempt();
    bench.dispatcher.finished(session, &failure(101, Outcome::BuildFailed));
    let effects = bench.settle();
    assert_eq!(ended(&effects), [(101, AttemptClass::BuildFailed, Consequence::Fail)]);
    assert!(sent(&effects).is_empty());
    // Said again meanwhile: still nothing to acknowledge.
    bench.dispatcher.finished(session, &failure(101, Outcome::BuildFailed));
    assert!(bench.settle().is_empty());
    bench.committed(Committed::Ended(AttemptId::new(101)));
    assert_eq!(sent(&bench.settle()), ["Ack", "Release"]);
}

#[test]
fn a_fetch_that_fails_for_good_is_the_farms_fault() {
    let (mut bench, session) = Bench::with_attempt();
    bench.dispatcher.finished(session, &success(101));
    let job = fetched_with_record(bench.settle());
    bench.committed(Committed::Built(AttemptId::new(101)));
    bench.settle();
    bench.dispatcher.fetched(&job, Err("the nar is damaged".to_owned()));
    assert_eq!(ended(&bench.settle()), [(101, AttemptClass::Transfer, RETRY)]);
}

#[test]
fn a_worker_that_comes_back_without_an_attempt_has_lost_it() {
    let (mut bench, _) = Bench::with_attempt();
    bench.hello(1, 2, &Hello::default());
    assert_eq!(ended(&bench.settle()), [(101, AttemptClass::WorkerLost, RETRY)]);
}

#[test]
fn a_worker_that_comes_back_with_its_attempt_goes_on() {
    for hello in [
        Hello {
            running: vec![RunningAttempt { attempt: 101, ..RunningAttempt::default() }],
            ..Hello::default()
        },
        Hello { unacknowledged: vec![101], ..Hello::default() },
    ] {
        let (mut bench, _) = Bench::with_attempt();
        let session = bench.hello(1, 2, &hello);
        let effects = bench.settle();
        assert_eq!(sent(&effects), ["Refused", "Welcome"]);
        assert!(ended(&effects).is_empty());
        bench.dispatcher.finished(session, &success(101));
        assert_eq!(fetched_with_record(bench.settle()).attempt, AttemptId::new(101));
    }
}

#[test]
fn what_runs_unwanted_is_canceled_and_what_is_kept_in_vain_released() {
    let mut bench = Bench::new();
    let hello = Hello {
        running: vec![RunningAttempt { attempt: 5, ..RunningAttempt::default() }],
        unreleased: vec![4],
        ..Hello::default()
    };
    bench.hello(1, 1, &hello);
    let effects = bench.settle();
    assert_eq!(sent(&effects), ["Welcome", "Release"]);
    assert_eq!(asked(&effects), [(5, Word::Running)]);
    bench.committed(taken_back(1, 5, Verdict::History));
    assert_eq!(sent(&bench.settle()), ["Cancel"]);
}

#[test]
fn a_heartbeat_only_speaks_of_what_its_sender_can_have_known() {
    let (mut bench, session) = Bench::with_attempt();
    // The Assign was the second message of the session.
    let heartbeat = |last_assign_seen| Heartbeat { last_assign_seen, granted: 1, ..Heartbeat::default() };
    bench.dispatcher.heartbeat(session, &heartbeat(1));
    assert!(bench.settle().is_empty());
    bench.dispatcher.heartbeat(session, &heartbeat(2));
    assert_eq!(ended(&bench.settle()), [(101, AttemptClass::WorkerLost, RETRY)]);
}

#[test]
fn an_assign_that_never_arrived_costs_a_hello() {
    let (mut bench, session) = Bench::with_attempt();
    let heartbeat = Heartbeat { granted: 1, ..Heartbeat::default() };
    for (time, expected) in [(LEASE, vec![]), (LEASE + Duration::from_secs(1), vec!["HelloAgain"])] {
        let now = bench.now + time;
        assert!(bench.dispatcher.heard(Some(session), RoutingId::from_number(1), 9, now));
        bench.dispatcher.heartbeat(session, &heartbeat);
        assert_eq!(sent(&bench.settle()), expected);
    }
}

#[test]
fn a_silent_worker_loses_its_builds_after_a_lease() {
    let (mut bench, _) = Bench::with_attempt();
    bench.dispatcher.tick(bench.now + LEASE);
    assert!(bench.settle().is_empty());
    bench.dispatcher.tick(bench.now + LEASE + Duration::from_millis(1));
    assert_eq!(ended(&bench.settle()), [(101, AttemptClass::WorkerLost, RETRY)]);
}

#[test]
fn a_worker_that_leaves_gives_its_builds_back_at_once() {
    let (mut bench, session) = Bench::with_attempt();
    bench.dispatcher.goodbye(session, "told to end");
    let effects = bench.settle();
    assert_eq!(ended(&effects), [(101, AttemptClass::Canceled, Consequence::Ready)]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::SessionEnded(..))));
}

#[test]
fn a_broken_connection_costs_the_session_but_not_the_build() {
    let (mut bench, session) = Bench::with_attempt();
    bench.dispatcher.undelivered(RoutingId::from_number(1), bench.now);
    assert!(ended(&bench.settle()).is_empty());
    // Whoever still speaks by it is asked for a Hello.
    assert!(!bench.dispatcher.heard(Some(session), RoutingId::from_number(1), 9, bench.now));
    assert_eq!(sent(&bench.settle()), ["HelloAgain"]);
    bench.dispatcher.tick(bench.now + LEASE);
    assert_eq!(ended(&bench.settle()), [(101, AttemptClass::WorkerLost, RETRY)]);
}

#[test]
fn a_session_belongs_to_one_connection() {
    let (mut bench, session) = Bench::with_attempt();
    assert!(bench.dispatcher.heard(Some(session), RoutingId::from_number(1), 1, bench.now));
    assert!(!bench.dispatcher.heard(Some(session), RoutingId::from_number(2), 2, bench.now));
    assert_eq!(sent(&bench.settle()), ["HelloAgain"]);
}

#[test]
fn nobody_decides_about_anothers_attempt() {
    let (mut bench, _) = Bench::with_attempt();
    let other = bench.join(2, 2, 1);
    bench.settle();
    bench.dispatcher.finished(other, &success(101));
    bench.dispatcher.declined(other, &Declined { attempt: 101, ..Declined::default() });
    bench.dispatcher.started(other, &Started { attempt: 101, inputs_ms: 0 });
    let effects = bench.settle();
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Commit(_))));
}

#[test]
fn a_claim_for_a_session_that_is_over_is_given_back() {
    let mut bench = Bench::new();
    let session = bench.join(1, 1, 1);
    bench.queue(&[7]);
    let effects = bench.dispatcher.take_effects();
    let Some(Effect::Commit(Op::Claim(claim))) =
        effects.into_iter().find(|effect| matches!(effect, Effect::Commit(_)))
    else {
        panic!("no claim")
    };
    bench.dispatcher.goodbye(session, "");
    let claimed = bench.claimed(claim);
    bench.committed(Committed::Granted(Box::new(claimed)));
    assert_eq!(ended(&bench.settle()), [(101, AttemptClass::Canceled, Consequence::Ready)]);
}

#[test]
fn a_restarted_server_waits_a_lease_for_the_workers_and_fetches_what_is_built() {
    let open = |attempt, built| OpenAttempt { built, ..open_attempt(attempt, attempt, 1) };
    let mut bench = Bench::new();
    bench.dispatcher.adopt(vec![open(1, false), open(2, true), open(3, false)], bench.now);
    assert!(matches!(&bench.settle()[..], [Effect::Fetch(job)] if job.attempt.get() == 2));
    let hello = Hello {
        running: vec![RunningAttempt { attempt: 1, ..RunningAttempt::default() }],
        unreleased: vec![2],
        ..Hello::default()
    };
    bench.hello(1, 1, &hello);
    let effects = bench.settle();
    assert_eq!(ended(&effects), [(3, AttemptClass::WorkerLost, RETRY)]);
    assert_eq!(sent(&effects), ["Welcome"]);

    let mut bench = Bench::new();
    bench.dispatcher.adopt(vec![open(1, false)], bench.now);
    bench.dispatcher.tick(bench.now);
    assert!(ended(&bench.settle()).is_empty());
    bench.dispatcher.grace(bench.now + LEASE);
    bench.dispatcher.tick(bench.now + LEASE);
    assert!(ended(&bench.settle()).is_empty());
    bench.dispatcher.tick(bench.now + LEASE + LEASE);
    assert_eq!(ended(&bench.settle()), [(1, AttemptClass::WorkerLost, RETRY)]);
}

#[test]
fn a_report_that_makes_no_sense_is_not_believed() {
    let mut twice = success(101);
    twice.outputs.push(twice.outputs[0].clone());
    let mut short = success(101);
    short.outputs[0].nar_hash = vec![0; 31].into();
    let mut elsewhere = success(101);
    elsewhere.outputs[0].path = "../../etc/passwd".to_owned();
    for report in [twice, short, elsewhere] {
        let (mut bench, session) = Bench::with_attempt();
        bench.dispatcher.finished(session, &report);
        assert_eq!(ended(&bench.settle()), [(101, AttemptClass::Transfer, RETRY)]);
    }
    let (mut bench, session) = Bench::with_attempt();
    let newer = Finished { attempt: 101, outcome: 77, ..Finished::default() };
    bench.dispatcher.finished(session, &newer);
    assert_eq!(ended(&bench.settle()), [(101, AttemptClass::Daemon, RETRY)]);
}

#[test]
fn what_workers_say_is_shown_as_one_bounded_line() {
    assert_eq!(one_line("a\nb\u{1b}[31m"), "a b [31m");
    let long = one_line(&"é".repeat(MESSAGE_LIMIT));
    assert!(long.len() <= MESSAGE_LIMIT + '…'.len_utf8());
}

fn running(attempt: i64) -> Hello {
    Hello { running: vec![RunningAttempt { attempt, ..RunningAttempt::default() }], ..Hello::default() }
}

/// A dispatcher that has given attempt 101 of worker 1 up, whose build is attempt 102 of worker 2 now; the session of worker 2.
fn with_a_lapsed_attempt() -> (Bench, SessionId) {
    let (mut bench, _) = Bench::with_attempt();
    bench.now += LEASE + Duration::from_millis(1);
    let other = bench.join(2, 2, 1);
    bench.dispatcher.tick(bench.now);
    bench.committed(Committed::Ended(AttemptId::new(101)));
    assert_eq!(sent(&bench.settle()), ["Welcome"], "whatever the worker has comes back with it");
    bench.queue(&[7]);
    assert_eq!(sent(&bench.settle()), ["Assign"]);
    (bench, other)
}

/// What the database says of an attempt that a worker came back with.
fn taken_back(worker: i32, attempt: i64, verdict: Verdict) -> Committed {
    Committed::TakenBack(AttemptId::new(attempt), WorkerId::new(worker), Some(verdict))
}

#[test]
fn who_speaks_of_the_attempts_of_others_keeps_only_itself_waiting() {
    let (mut bench, _) = with_a_lapsed_attempt();
    // Worker 2 claims it, and a great many more, before its own worker is back.
    let claimed: Vec<_> =
        (0..5000).map(|more| RunningAttempt { attempt: 101 + more, ..RunningAttempt::default() }).collect();
    let heartbeat = Heartbeat { running: claimed, ..Heartbeat::default() };
    let liar = bench.hello(2, 2, &Hello::default());
    bench.settle();
    bench.dispatcher.heartbeat(liar, &heartbeat);
    bench.dispatcher.heartbeat(liar, &heartbeat);
    assert_eq!(asked(&bench.settle()).len(), 1024);
    let session = bench.hello(1, 3, &Hello { unacknowledged: vec![101], ..Hello::default() });
    bench.settle();
    bench.dispatcher.finished(session, &success(101));
    assert_eq!(asked(&bench.settle()), [(101, Word::Succeeded)]);
    bench.committed(taken_back(2, 101, Verdict::NotTheirs));
    assert_eq!(sent(&bench.settle()), ["Cancel"]);
    bench.committed(taken_back(1, 101, Verdict::Beside(reopened(7, None))));
    assert!(matches!(bench.settle()[..], [Effect::Commit(Op::Built(_))]));
}

#[test]
fn a_late_result_counts_once_it_is_checked_and_ends_the_newer_attempt() {
    let (mut bench, other) = with_a_lapsed_attempt();
    let session = bench.hello(1, 3, &Hello { unacknowledged: vec![101], ..Hello::default() });
    bench.settle();
    bench.dispatcher.finished(session, &success(101));
    assert_eq!(asked(&bench.settle()), [(101, Word::Succeeded)]);
    // Said twice, asked once.
    bench.dispatcher.finished(session, &success(101));
    assert!(bench.settle().is_empty());
    bench.committed(taken_back(1, 101, Verdict::Beside(reopened(7, None))));
    assert!(matches!(bench.settle()[..], [Effect::Commit(Op::Built(_))]));
    bench.committed(Committed::Built(AttemptId::new(101)));
    let effects = bench.settle();
    assert_eq!(sent(&effects), ["Ack"]);
    let Some(Effect::Fetch(job)) = effects.into_iter().next() else { panic!("nothing is fetched") };
    // The newer attempt goes on meanwhile.
    bench.dispatcher.started(other, &Started { attempt: 102, inputs_ms: 5 });
    assert!(matches!(bench.settle()[..], [Effect::Commit(Op::Start { .. })]));
    bench.dispatcher.fetched(&job, Ok(Vec::new()));
    assert!(matches!(bench.settle()[..], [Effect::Late(Late::Succeed(_))]));
    let settled = Settled { counts: true, superseded: Some(AttemptId::new(102)), ..Settled::default() };
    bench.committed(Committed::Settled(AttemptId::new(101), settled));
    assert_eq!(sent(&bench.settle()), ["Cancel", "Release"]);
    // The newer attempt's end is nobody's concern.
    bench.dispatcher.finished(other, &failure(102, Outcome::Canceled));
    assert_eq!(sent(&bench.settle()), ["Ack", "Release"]);
    assert!(bench.dispatcher.attempts.is_empty() && bench.dispatcher.returns.is_empty());
}

#[test]
fn a_late_result_of_a_build_that_is_over_is_history() {
    let (mut bench, _) = with_a_lapsed_attempt();
    let session = bench.hello(1, 3, &Hello { unacknowledged: vec![101], ..Hello::default() });
    bench.settle();
    bench.dispatcher.finished(session, &failure(101, Outcome::BuildFailed));
    assert_eq!(asked(&bench.settle()), [(101, Word::Failed)]);
    bench.committed(taken_back(1, 101, Verdict::History));
    assert_eq!(sent(&bench.settle()), ["Ack", "Release"]);
    // What came to nothing is not even asked about.
    bench.dispatcher.finished(session, &failure(101, Outcome::DiskFull));
    let effects = bench.settle();
    assert_eq!((sent(&effects), asked(&effects)), (vec!["Ack", "Release"], vec![]));
}

#[test]
fn a_result_that_arrives_while_its_attempt_is_given_up_is_late() {
    let (mut bench, session) = Bench::with_attempt();
    bench.dispatcher.tick(bench.now + LEASE + Duration::from_millis(1));
    bench.settle();
    // It was only slow: its session is gone, but not its result.
    let again = bench.hello(1, 2, &Hello { unacknowledged: vec![101], ..Hello::default() });
    bench.settle();
    assert_ne!(session, again);
    bench.dispatcher.finished(again, &success(101));
    assert!(bench.settle().is_empty());
    bench.committed(Committed::Ended(AttemptId::new(101)));
    assert_eq!(asked(&bench.settle()), [(101, Word::Succeeded)]);
    bench.committed(taken_back(1, 101, Verdict::Reopened(reopened(7, None))));
    fetched_with_record(bench.settle());
}

#[test]
fn of_two_running_attempts_the_one_that_the_database_chooses_stays() {
    let (mut bench, _) = with_a_lapsed_attempt();
    let session = bench.hello(1, 3, &running(101));
    assert_eq!(asked(&bench.settle()), [(101, Word::Running)]);
    bench.committed(taken_back(1, 101, Verdict::Reopened(reopened(7, Some(102)))));
    let effects = bench.settle();
    assert_eq!(sent(&effects), ["Cancel"]);
    let Effect::Send(to, _) = &effects[0] else { panic!("nothing is sent") };
    assert_eq!(*to, RoutingId::from_number(2), "the newer attempt is stopped");
    bench.dispatcher.finished(session, &success(101));
    fetched_with_record(bench.settle());

    let (mut bench, _) = with_a_lapsed_attempt();
    bench.hello(1, 3, &running(101));
    bench.settle();
    bench.committed(taken_back(1, 101, Verdict::History));
    let effects = bench.settle();
    assert_eq!(sent(&effects), ["Cancel"]);
    let Effect::Send(to, _) = &effects[0] else { panic!("nothing is sent") };
    assert_eq!(*to, RoutingId::from_number(3), "the older attempt is stopped");
}

#[test]
fn an_attempt_that_ends_while_it_is_asked_about_is_asked_about_again() {
    let (mut bench, _) = with_a_lapsed_attempt();
    let session = bench.hello(1, 3, &running(101));
    bench.settle();
    bench.dispatcher.finished(session, &success(101));
    assert!(bench.settle().is_empty());
    bench.committed(taken_back(1, 101, Verdict::History));
    assert_eq!(asked(&bench.settle()), [(101, Word::Succeeded)]);
}

#[test]
fn what_was_decided_before_the_grant_was_heard_holds() {
    let mut bench = Bench::new();
    let session = bench.join(1, 1, 1);
    for (early, left) in [(true, 0), (false, 1)] {
        bench.settle();
        bench.queue(&[7]);
        let claim = bench.claim();
        let claimed = bench.claimed(claim);
        if early {
            bench.dispatcher.superseded(claimed.attempt);
        } else {
            bench.dispatcher.stop(&[claimed.attempt], bench.now);
        }
        bench.committed(Committed::Granted(Box::new(claimed)));
        let effects = bench.settle();
        assert!(sent(&effects).is_empty());
        assert_eq!(ended(&effects).len(), left);
        assert_eq!(bench.dispatcher.sessions[&session].free(), 1);
    }
}

#[test]
fn a_canceled_build_is_stopped_and_given_up_after_a_while() {
    let (mut bench, session) = Bench::with_attempt();
    let id = AttemptId::new(101);
    bench.dispatcher.stop(&[id], bench.now);
    assert_eq!(sent(&bench.settle()), ["Cancel"]);
    // Told once a session.
    bench.dispatcher.stop(&[id], bench.now + Duration::from_secs(1));
    assert!(bench.settle().is_empty());
    bench.hello(1, 2, &running(101));
    assert_eq!(sent(&bench.settle()), ["Refused", "Welcome", "Cancel"]);
    bench.dispatcher.tick(bench.now + PATIENCE - Duration::from_millis(1));
    assert!(bench.settle().is_empty());
    bench.dispatcher.tick(bench.now + PATIENCE);
    assert_eq!(ended(&bench.settle()), [(101, AttemptClass::Canceled, Consequence::Ready)]);
    assert!(bench.dispatcher.heard(Some(SessionId::from_random(4)), RoutingId::from_number(2), 1, bench.now));
    assert!(!bench.dispatcher.sessions.contains_key(&session));

    let (mut bench, session) = Bench::with_attempt();
    bench.dispatcher.stop(&[id], bench.now);
    bench.settle();
    bench.dispatcher.finished(session, &failure(101, Outcome::Canceled));
    assert_eq!(ended(&bench.settle()), [(101, AttemptClass::Canceled, Consequence::Ready)]);
    bench.dispatcher.tick(bench.now + PATIENCE);
    assert!(bench.settle().is_empty());
}

#[test]
fn operators_pause_and_resume_workers_and_ask_them_to_leave() {
    let order = |paused, draining| Order { paused, draining, ..order_of(1) };
    let mut bench = Bench::new();
    let session = bench.join(1, 1, 1);
    bench.settle();
    bench.dispatcher.govern(&[order(true, false)]);
    assert_eq!(sent(&bench.settle()), ["Pause"]);
    bench.queue(&[1]);
    assert!(bench.settle().is_empty());
    bench.dispatcher.govern(&[order(true, false)]);
    assert!(bench.settle().is_empty());
    bench.dispatcher.govern(&[order(false, false)]);
    bench.dispatcher.dispatch(bench.now);
    assert_eq!(sent(&bench.settle()), ["Pause", "Assign"]);
    bench.dispatcher.govern(&[order(false, true)]);
    assert_eq!(sent(&bench.settle()), ["Drain"]);
    bench.dispatcher.credit(session, 9);
    bench.queue(&[2]);
    assert!(bench.settle().is_empty());
    // It has been asked already, and leaves; only its next session gets work.
    bench.dispatcher.govern(&[order(false, false)]);
    bench.dispatcher.dispatch(bench.now);
    assert!(bench.settle().is_empty());
}

#[test]
fn a_worker_that_is_removed_has_nothing_any_more() {
    let revoked = Order { revoked: true, ..order_of(1) };
    let mut bench = Bench::new();
    let session = bench.join(1, 1, 4);
    bench.settle();
    bench.queue(&[1, 2, 3, 4]);
    bench.settle();
    bench.dispatcher.finished(session, &success(102));
    bench.settle();
    bench.dispatcher.finished(session, &success(103));
    bench.settle();
    bench.committed(Committed::Built(AttemptId::new(103)));
    bench.settle();
    bench.dispatcher.finished(session, &failure(104, Outcome::BuildFailed));
    bench.settle();
    bench.dispatcher.govern(std::slice::from_ref(&revoked));
    let effects = bench.settle();
    assert_eq!(sent(&effects), ["Refused"]);
    // What runs, what is being recorded and what is being fetched; a failure that is being recorded stands.
    let canceled = |attempt| (attempt, AttemptClass::Canceled, Consequence::Ready);
    assert_eq!(ended(&effects), [canceled(101), canceled(102), canceled(103)]);
    for effect in effects {
        if let Effect::Commit(Op::End(end)) = effect {
            bench.committed(Committed::Ended(end.attempt));
        }
    }
    assert!(bench.settle().iter().all(|effect| !matches!(effect, Effect::Send(..))));
    bench.dispatcher.govern(&[revoked]);
    assert!(bench.settle().is_empty());
}

#[test]
fn what_a_restarted_server_finds_beside_another_is_settled_beside_it() {
    let open = |attempt, late| OpenAttempt { built: late, late, ..open_attempt(attempt, 7, 1) };
    let mut bench = Bench::new();
    bench.dispatcher.adopt(vec![open(1, true), open(2, false)], bench.now);
    let effects = bench.settle();
    let [Effect::Fetch(job)] = &effects[..] else { panic!("{effects:?}") };
    bench.dispatcher.fetched(job, Ok(Vec::new()));
    assert!(matches!(bench.settle()[..], [Effect::Late(Late::Succeed(_))]));
}

#[test]
fn what_failed_by_the_farms_fault_is_tried_elsewhere() {
    let mut bench = Bench::new();
    let first = bench.join(1, 1, 4);
    bench.settle();
    bench.queue(&[7]);
    bench.settle();
    bench.join(2, 2, 1);
    bench.settle();
    let declined =
        Declined { attempt: 101, reason: DeclineReason::InputDiffers.into(), ..Declined::default() };
    bench.dispatcher.declined(first, &declined);
    assert_eq!(ended(&bench.settle()), [(101, AttemptClass::Declined, RETRY)]);
    bench.committed(Committed::Ended(AttemptId::new(101)));
    bench.settle();
    // The first worker has more room.
    bench.queue(&[7]);
    assert_eq!(bench.claim().worker, WorkerId::new(2));
}

#[test]
fn what_failed_before_the_server_began_is_tried_elsewhere() {
    let mut bench = Bench::new();
    // The first worker has more room.
    bench.join(1, 1, 4);
    bench.join(2, 2, 1);
    bench.settle();
    let failed = ReadyBuild { failed_on: vec![WorkerId::new(1)], ..ready(7) };
    bench.refill(vec![failed]);
    assert_eq!(bench.claim().worker, WorkerId::new(2));
    assert!(bench.dispatcher.has_failed_here());

    // An attempt that is taken over, and ends without any fault: so its build is ready again at once.
    let mut bench = Bench::new();
    let other = OpenAttempt { failed_on: vec![WorkerId::new(1)], ..open_attempt(101, 7, 3) };
    bench.dispatcher.adopt(vec![other], bench.now);
    bench.join(1, 1, 4);
    bench.join(2, 2, 1);
    bench.refill(Vec::new());
    bench.settle();
    bench.committed(Committed::Ended(AttemptId::new(101)));
    bench.dispatcher.ready(&[ready(7)]);
    bench.dispatcher.dispatch(bench.now);
    assert_eq!(bench.claim().worker, WorkerId::new(2));
}

#[test]
fn an_attempt_whose_record_is_refused_ends_and_its_build_is_tried_again() {
    let mut bench = Bench::new();
    let session = bench.join(1, 1, 1);
    bench.settle();
    bench.queue(&[7]);
    bench.settle();
    bench.dispatcher.finished(session, &success(101));
    bench.settle();
    bench.committed(Committed::Refused(AttemptId::new(101)));
    assert_eq!(ended(&bench.settle()), [(101, AttemptClass::Daemon, RETRY)]);
    bench.committed(Committed::Ended(AttemptId::new(101)));
    assert_eq!(sent(&bench.settle()), ["Ack", "Release"]);
    // Refused twice, it is not ended twice.
    bench.committed(Committed::Refused(AttemptId::new(101)));
    assert!(ended(&bench.settle()).is_empty());
}

/// Two workers that get builds one by one.
struct Ward {
    bench: Bench,
    sessions: [SessionId; 2],
    /// Builds that each was given.
    given: [u64; 2],
}

impl Ward {
    fn new() -> Self {
        let mut bench = Bench::new();
        let hello = Hello { slots: 1, ..Hello::default() };
        let sessions = [bench.hello(1, 1, &hello), bench.hello(2, 2, &hello)];
        bench.settle();
        Self { bench, sessions, given: [0, 0] }
    }

    /// Lets one of them try a build, and gives what the dispatcher wants done for it besides.
    fn tries(&mut self, worker: usize, build: i64, outcome: Outcome) -> Vec<Effect> {
        self.given[worker] += 1;
        self.bench.dispatcher.credit(self.sessions[worker], self.given[worker]);
        self.bench.queue(&[build]);
        assert_eq!(sent(&self.bench.settle()), ["Assign"]);
        let id = self.bench.next_attempt;
        let mut finished = if outcome == Outcome::Succeeded { success(id) } else { failure(id, outcome) };
        finished.outcome = outcome.into();
        self.bench.dispatcher.finished(self.sessions[worker], &finished);
        let mut effects = self.bench.settle();
        let attempt = AttemptId::new(id);
        self.bench.committed(match outcome {
            Outcome::Succeeded => Committed::Succeeded(attempt),
            _ => Committed::Ended(attempt),
        });
        effects.extend(self.bench.settle());
        effects
    }

    /// The workers that are found sick now.
    fn sick(&mut self) -> Vec<i32> {
        self.bench.dispatcher.tick(self.bench.now);
        let sick = |effect| match effect {
            Effect::SetAside(worker, _) => Some(worker.get()),
            _ => None,
        };
        self.bench.settle().into_iter().filter_map(sick).collect()
    }

    fn govern(&mut self, order: Order) {
        self.bench.dispatcher.govern(&[order]);
        self.bench.settle();
    }
}

#[test]
fn a_worker_that_fails_what_others_do_is_set_aside_unless_it_is_the_last() {
    let mut ward = Ward::new();
    for build in 1..4 {
        assert!(ward.sick().is_empty());
        ward.tries(0, build, Outcome::DiskFull);
        assert!(ward.sick().is_empty(), "nobody has done it yet");
        // Failing as a package does is doing otherwise, too.
        ward.tries(1, build, if build == 2 { Outcome::BuildFailed } else { Outcome::Succeeded });
    }
    ward.govern(Order { paused: true, ..order_of(2) });
    assert!(ward.sick().is_empty(), "the other gets no work: it is the last of its system");
    ward.govern(order_of(2));
    assert_eq!(ward.sick(), [1]);
}

#[test]
fn a_poisoned_build_that_goes_round_sets_nobody_aside() {
    let mut ward = Ward::new();
    for build in 1..9 {
        ward.tries(0, build, Outcome::OutOfMemory);
        ward.tries(1, build, Outcome::OutOfMemory);
        assert!(ward.sick().is_empty());
    }
    // What is the packages' fault is not the machine's.
    for build in 11..19 {
        ward.tries(0, build, Outcome::BuildFailed);
    }
    assert!(ward.sick().is_empty());
}

#[test]
fn what_is_set_aside_is_tried_with_one_build_at_a_time_until_it_does_one() {
    let mut ward = Ward::new();
    let pause = HealthPolicy::default().probe_pause;
    let aside = || Order { paused: true, set_aside: true, ..order_of(1) };
    ward.govern(aside());
    ward.bench.dispatcher.credit(ward.sessions[0], 9);
    ward.given[0] = 9;
    ward.bench.queue(&[1, 2]);
    assert!(sent(&ward.bench.settle()).is_empty());
    assert!(ward.sick().is_empty());
    ward.bench.now += pause;
    ward.bench.dispatcher.heard(Some(ward.sessions[0]), RoutingId::from_number(1), 1, ward.bench.now);
    ward.bench.dispatcher.tick(ward.bench.now);
    ward.bench.dispatcher.dispatch(ward.bench.now);
    assert_eq!(sent(&ward.bench.settle()).iter().filter(|kind| **kind == "Assign").count(), 1);
    ward.govern(aside());
    ward.bench.dispatcher.dispatch(ward.bench.now);
    assert!(sent(&ward.bench.settle()).is_empty(), "one is enough to try it");
    let attempt = ward.bench.next_attempt;
    ward.bench.dispatcher.finished(ward.sessions[0], &failure(attempt, Outcome::Daemon));
    assert!(!ward.bench.settle().iter().any(|effect| matches!(effect, Effect::Recovered(_))));
    ward.bench.committed(Committed::Ended(AttemptId::new(attempt)));
    ward.bench.settle();
    // The next comes after twice as long, and succeeds.
    ward.bench.dispatcher.tick(ward.bench.now);
    for again in [pause, pause] {
        ward.bench.dispatcher.dispatch(ward.bench.now);
        assert!(sent(&ward.bench.settle()).is_empty());
        ward.bench.now += again;
        ward.bench.dispatcher.heard(Some(ward.sessions[0]), RoutingId::from_number(1), 2, ward.bench.now);
        ward.bench.dispatcher.tick(ward.bench.now);
    }
    ward.bench.dispatcher.dispatch(ward.bench.now);
    assert_eq!(sent(&ward.bench.settle()), ["Assign"]);
    let attempt = ward.bench.next_attempt;
    ward.bench.dispatcher.finished(ward.sessions[0], &success(attempt));
    ward.bench.settle();
    ward.bench.committed(Committed::Succeeded(AttemptId::new(attempt)));
    let recovered = ward.bench.settle();
    assert!(recovered.iter().any(|effect| matches!(effect, Effect::Recovered(_))), "{recovered:?}");
}

/// Workers of another server take work that those of a bench can do.
fn colleagues() -> Vec<Capabilities> {
    vec![Capabilities {
        store_directory: StoreDirectory::nix(),
        systems: BTreeSet::from(["x86_64-linux".to_owned(), "aarch64-linux".to_owned()]),
        features: BTreeSet::new(),
        mandatory_features: BTreeSet::new(),
    }]
}

#[test]
fn workers_of_other_servers_count_when_one_is_sick() {
    let mut ward = Ward::new();
    ward.govern(Order { paused: true, ..order_of(2) });
    for build in 1..4 {
        ward.tries(0, build, Outcome::DiskFull);
    }
    assert_eq!(ward.bench.dispatcher.failed_here(), [1, 2, 3].map(BuildId::new));
    // Another server's worker has done them, and one is canceled meanwhile.
    let other = Some(WorkerId::new(9));
    ward.bench.dispatcher.are_over(&[
        (BuildId::new(1), other),
        (BuildId::new(2), other),
        (BuildId::new(3), None),
    ]);
    assert!(ward.bench.dispatcher.failed_here().is_empty());
    ward.bench.dispatcher.set_colleagues(colleagues());
    assert!(ward.sick().is_empty(), "two are not enough");
    ward.tries(0, 4, Outcome::DiskFull);
    ward.bench.dispatcher.are_over(&[(BuildId::new(4), other)]);
    ward.bench.dispatcher.set_colleagues(Vec::new());
    assert!(ward.sick().is_empty(), "it is the last of its system");
    ward.bench.dispatcher.set_colleagues(colleagues());
    assert_eq!(ward.sick(), [1]);
}

#[test]
fn what_failed_on_all_workers_here_is_left_to_those_of_other_servers_for_a_moment() {
    let mut ward = Ward::new();
    ward.tries(0, 1, Outcome::DiskFull);
    ward.bench.dispatcher.set_colleagues(colleagues());
    ward.bench.dispatcher.credit(ward.sessions[0], 9);
    ward.bench.queue(&[1, 2]);
    assert_eq!(ward.bench.claim().build, BuildId::new(2), "nobody else here has room, and others may");
    let later = ward.bench.now + Duration::from_secs(5);
    ward.bench.now = later;
    ward.bench.dispatcher.tick(later);
    let effects = ward.bench.dispatcher.take_effects();
    assert!(matches!(effects[..], [Effect::Refill(None)]), "nobody has taken it: {effects:?}");
    ward.bench.queue(&[1]);
    assert_eq!(ward.bench.claim().build, BuildId::new(1));
}

/// An operator wants nothing of this worker.
fn order_of(worker: i32) -> Order {
    Order {
        worker: WorkerId::new(worker),
        paused: false,
        reason: None,
        draining: false,
        revoked: false,
        set_aside: false,
    }
}

/// What comes of an event, in a word.
fn word(effects: &[Effect]) -> String {
    let mut words: Vec<String> = Vec::new();
    for effect in effects {
        words.push(match effect {
            Effect::Send(_, message) => message.body.kind().to_owned(),
            Effect::Commit(Op::Start { .. }) => "start".to_owned(),
            Effect::Commit(Op::Built(_)) => "built".to_owned(),
            Effect::Commit(Op::Succeed(_)) => "succeed".to_owned(),
            Effect::Commit(Op::End(ended)) => format!("end {}", ended.class),
            Effect::Commit(Op::Claim(_)) => "claim".to_owned(),
            Effect::Late(Late::TakeBack(_)) => "ask".to_owned(),
            Effect::Late(Late::Succeed(_)) => "settle".to_owned(),
            Effect::Fetch(_) => "fetch".to_owned(),
            Effect::Refill(_) => continue,
            Effect::SessionEnded(..) => "left".to_owned(),
            Effect::SetAside(..) => "set aside".to_owned(),
            Effect::Recovered(_) => "recovered".to_owned(),
        });
    }
    words.join(", ")
}

/// How an attempt stands with the dispatcher.
#[derive(Debug, Clone, Copy)]
enum Stand {
    /// Nothing is known of it.
    Unknown,
    /// Its worker says that it runs, and the database is asked what becomes of it.
    AskedAsRunning,
    /// Its worker has its result, and the database is asked.
    AskedWithResult,
    /// It is known, in a phase of this kind.
    In(fn(SessionId, Instant) -> Phase),
}

/// Every stand, with its name and place in a row.
const STANDS: [(&str, Stand); 10] = [
    ("unknown", Stand::Unknown),
    ("asked as running", Stand::AskedAsRunning),
    ("asked with result", Stand::AskedWithResult),
    ("assigned", Stand::In(|session, at| Phase::Assigned { session, sequence: 2, at })),
    ("running", Stand::In(|_, _| Phase::Running)),
    ("unheard", Stand::In(|_, now| Phase::Unheard { until: now + LEASE })),
    ("concluding", Stand::In(|_, _| Phase::Concluding)),
    ("fetching", Stand::In(|_, _| Phase::Fetching)),
    ("giving up", Stand::In(|_, _| Phase::GivingUp)),
    ("ending", Stand::In(|_, _| Phase::Ending)),
];

/// The place of a phase in a row: a new phase needs one.
fn column(phase: Phase) -> usize {
    match phase {
        Phase::Assigned { .. } => 3,
        Phase::Running => 4,
        Phase::Unheard { .. } => 5,
        Phase::Concluding => 6,
        Phase::Fetching => 7,
        Phase::GivingUp => 8,
        Phase::Ending => 9,
    }
}

/// Names the rows of what is recorded: a new kind of record needs one.
macro_rules! records {
    ($($pattern:pat => $row:literal),+ $(,)?) => {
        const RECORDS: &[&str] = &[$($row),+];

        fn row_of(committed: &Committed) -> &'static str {
            match committed {
                $($pattern => $row),+
            }
        }
    };
}

records! {
    Committed::Granted(_) => "the claim is granted",
    Committed::NotGranted(_) => "the claim is not granted",
    Committed::Built(_) => "built is recorded",
    Committed::Succeeded(_) => "its success is recorded",
    Committed::Ended(_) => "the end is recorded",
    Committed::Refused(_) => "its record is refused",
    Committed::Moved(_) => "it is another server's",
    Committed::Effects(_) => "others became ready",
    Committed::TakenBack(_, _, Some(Verdict::Reopened(_))) => "taken back",
    Committed::TakenBack(_, _, Some(Verdict::Beside(_))) => "taken back beside another",
    Committed::TakenBack(_, _, Some(Verdict::History)) => "it is history",
    Committed::TakenBack(_, _, Some(Verdict::NotTheirs)) => "it is another worker's",
    Committed::TakenBack(_, _, Some(Verdict::NotOurs)) => "it is not ours to take back",
    Committed::TakenBack(_, _, None) => "the database does not say",
    Committed::Settled(_, Settled { counts: true, .. }) => "settled, and counts",
    Committed::Settled(_, Settled { counts: false, .. }) => "settled in vain",
}

/// An event, and what comes of it in each stand.
type Row = (&'static str, [&'static str; STANDS.len()]);

const NOTHING: [&str; STANDS.len()] = [""; STANDS.len()];

#[rustfmt::skip]
const TABLE: &[Row] = &{
    const R: &str = "Refused, Welcome";
    const LOST: &str = "Refused, Welcome, end worker_lost";
    const AR: &str = "Ack, Release";
    const GONE: &str = "left, end canceled";
    const REMOVED: &str = "Refused, left, end canceled";
    const BUILT: &str = "built, fetch";
    [
    // unknown, asked as running, asked with result | assigned, running, unheard | concluding, fetching, giving up, ending

    // The worker says that the build has begun.
    ("started", ["", "", "", "start", "start", "start", "", "", "", ""]),
    // It has succeeded. What is being recorded is acknowledged later; what is not known here is asked about, once.
    ("succeeded", ["ask", "", "", BUILT, BUILT, BUILT, "", "Ack", "", ""]),
    // It failed by the package's fault.
    ("failed", ["ask", "", "", "end build_failed", "end build_failed", "end build_failed", "", "Ack", "", ""]),
    // It failed by the farm's fault, or was stopped: nothing that would still count.
    ("disk full", [AR, "", "", "end disk_full", "end disk_full", "end disk_full", "", "Ack", "", ""]),
    ("canceled", [AR, "", "", "end canceled", "end canceled", "end canceled", "", "Ack", "", ""]),
    // The worker will not take it.
    ("declined", ["", "", "", "end declined", "end declined", "end declined", "", "", "", ""]),
    // A heartbeat names it, or does not although it had seen the Assign.
    ("heartbeat with", ["ask", "", "", "", "", "", "", "", "", ""]),
    ("heartbeat without", ["", "", "", "end worker_lost", "end worker_lost", "", "", "", "", ""]),
    // A new session begins with it running, with its result, with its outputs alone, or without it; the one before is told that it is
    // over.
    ("hello with", ["Refused, Welcome, ask", R, R, R, R, R, R, R, R, R]),
    ("hello with its result", [R, R, R, R, R, R, R, R, R, R]),
    ("hello with its outputs", ["Refused, Welcome, Release", R, R, LOST, LOST, LOST, R, R, R, R]),
    ("hello without", [R, R, R, LOST, LOST, LOST, R, R, R, R]),
    // The worker leaves; its connection breaks; a lease goes by; a lease goes by while the database is away.
    ("goodbye", ["left", "left", "left", GONE, GONE, GONE, "left", "left", "left", "left"]),
    ("undelivered", ["left"; STANDS.len()]),
    ("lapse", [
        "left", "left", "left", "left, end worker_lost", "left, end worker_lost", "left, end worker_lost",
        "left", "left", "left", "left",
    ]),
    ("lapse after grace", NOTHING),
    // The outputs are in the cache, or never will be.
    ("fetched", ["", "", "", "", "", "", "succeed", "succeed", "", ""]),
    ("not fetched", ["", "", "", "", "", "", "end transfer", "end transfer", "", ""]),
    // An operator cancels it, and once more; the worker does not stop it in time; the worker is removed from the farm.
    ("stop", ["", "", "", "Cancel", "Cancel", "Cancel", "", "", "", ""]),
    ("stop again", NOTHING),
    ("stop overdue", ["", "", "", "end canceled", "end canceled", "end canceled", "", "", "", ""]),
    ("revoke", [
        "Refused, left", "Refused, left", "Refused, left", REMOVED, REMOVED, REMOVED, REMOVED, REMOVED,
        "Refused, left", "Refused, left",
    ]),
    // Another attempt counts.
    ("superseded", ["", "", "", "Cancel", "Cancel", "Cancel", AR, AR, AR, AR]),
    // Another server is dead, and left it; its worker may have been faster.
    ("adopt", NOTHING),
    ("adopt what is built", ["fetch", "fetch", "fetch", "", "", "", "", "", "", ""]),
    // What was to be recorded is, or is not.
    ("the claim is granted", ["Assign"; STANDS.len()]),
    ("the claim is not granted", NOTHING),
    ("built is recorded", ["", "", "", "", "", "", "Ack", "", "", "Ack"]),
    ("its success is recorded", [
        "", "", "", "Release", "Release", "Release", "Release", "Release", "Release", "Release",
    ]),
    ("the end is recorded", ["", "", "", AR, AR, AR, AR, AR, "", AR]),
    ("its record is refused", ["", "", "", "", "", "", "end daemon", "end daemon", "", "end daemon"]),
    ("it is another server's", [
        "", "", "", "HelloAgain", "HelloAgain", "HelloAgain", "HelloAgain", "HelloAgain", "HelloAgain", "HelloAgain",
    ]),
    ("others became ready", NOTHING),
    // What the database says of an attempt that it was asked about.
    ("taken back", ["", "", BUILT, "", "", "", "", "", "", ""]),
    ("taken back beside another", ["", "", "built", "", "", "", "", "", "", ""]),
    ("it is history", ["", "Cancel", AR, "", "", "", "", "", "", ""]),
    ("it is another worker's", ["", "Cancel", AR, "", "", "", "", "", "", ""]),
    ("it is not ours to take back", NOTHING),
    ("the database does not say", NOTHING),
    ("settled, and counts", ["", "", "", "Release", "Release", "Release", "Release", "Release", "Release", "Release"]),
    ("settled in vain", ["", "", "", "Release", "Release", "Release", "Release", "Release", "Release", "Release"]),
    ]
};

/// What is otherwise for an attempt that stands beside another: its outputs are fetched when the worker's word is recorded, and their
/// record is one of its own.
const LATE: &[(&str, &str, &str)] = &[
    ("succeeded", "assigned", "built"),
    ("succeeded", "running", "built"),
    ("succeeded", "unheard", "built"),
    ("built is recorded", "concluding", "fetch, Ack"),
    ("built is recorded", "ending", "fetch, Ack"),
    ("fetched", "concluding", "settle"),
    ("fetched", "fetching", "settle"),
];

/// What is recorded about attempt 101, by the name of its row.
fn record(bench: &mut Bench, session: SessionId, row: &str) -> Option<Committed> {
    let (id, worker) = (AttemptId::new(101), WorkerId::new(1));
    let claim = Claim { build: BuildId::new(7), worker, session: session.get(), lane: LaneId::new(1) };
    Some(match row {
        "the claim is granted" => {
            bench.next_attempt = 100;
            Committed::Granted(Box::new(bench.claimed(claim)))
        }
        "the claim is not granted" => Committed::NotGranted(claim),
        "built is recorded" => Committed::Built(id),
        "its success is recorded" => Committed::Succeeded(id),
        "the end is recorded" => Committed::Ended(id),
        "its record is refused" => Committed::Refused(id),
        "it is another server's" => Committed::Moved(id),
        "others became ready" => Committed::Effects(dispatch::Effects::default()),
        "taken back" => taken_back(1, 101, Verdict::Reopened(reopened(7, None))),
        "taken back beside another" => taken_back(1, 101, Verdict::Beside(reopened(7, None))),
        "it is history" => taken_back(1, 101, Verdict::History),
        "it is another worker's" => taken_back(1, 101, Verdict::NotTheirs),
        "it is not ours to take back" => taken_back(1, 101, Verdict::NotOurs),
        "the database does not say" => Committed::TakenBack(id, worker, None),
        "settled, and counts" => Committed::Settled(id, Settled { counts: true, ..Settled::default() }),
        "settled in vain" => Committed::Settled(id, Settled::default()),
        _ => return None,
    })
}

/// Brings an event about attempt 101 about, which is session 1 of worker 1's.
fn happens(bench: &mut Bench, session: SessionId, event: &str) {
    let id = AttemptId::new(101);
    if let Some(committed) = record(bench, session, event) {
        assert_eq!(row_of(&committed), event);
        bench.committed(committed);
        return;
    }
    let heartbeat = |running: &[i64]| Heartbeat {
        running: running
            .iter()
            .map(|attempt| RunningAttempt { attempt: *attempt, ..RunningAttempt::default() })
            .collect(),
        last_assign_seen: 9,
        granted: 1,
        load: None,
    };
    let job = FetchJob {
        attempt: id,
        build: BuildId::new(7),
        worker: WorkerId::new(1),
        name: "hello".to_owned(),
        expected: None,
        reported: None,
    };
    let open = |built| OpenAttempt { built, ..open_attempt(id.get(), 7, 1) };
    let now = bench.now;
    let lapsed = now + LEASE + Duration::from_millis(1);
    let dispatcher = &mut bench.dispatcher;
    match event {
        "started" => dispatcher.started(session, &Started { attempt: 101, inputs_ms: 1 }),
        "succeeded" => dispatcher.finished(session, &success(101)),
        "failed" => dispatcher.finished(session, &failure(101, Outcome::BuildFailed)),
        "disk full" => dispatcher.finished(session, &failure(101, Outcome::DiskFull)),
        "canceled" => dispatcher.finished(session, &failure(101, Outcome::Canceled)),
        "declined" => {
            let reason = DeclineReason::Unsupported.into();
            dispatcher.declined(session, &Declined { attempt: 101, reason, ..Declined::default() });
        }
        "heartbeat with" => dispatcher.heartbeat(session, &heartbeat(&[101])),
        "heartbeat without" => dispatcher.heartbeat(session, &heartbeat(&[])),
        "hello with" => drop(bench.hello(1, 2, &running(101))),
        "hello with its result" => {
            bench.hello(1, 2, &Hello { unacknowledged: vec![101], ..Hello::default() });
        }
        "hello with its outputs" => {
            bench.hello(1, 2, &Hello { unreleased: vec![101], ..Hello::default() });
        }
        "hello without" => drop(bench.hello(1, 2, &Hello::default())),
        "goodbye" => dispatcher.goodbye(session, ""),
        "undelivered" => dispatcher.undelivered(RoutingId::from_number(1), now),
        "lapse" => drop(dispatcher.tick(lapsed)),
        "lapse after grace" => {
            dispatcher.grace(now + LEASE);
            dispatcher.tick(lapsed);
        }
        "fetched" => dispatcher.fetched(&job, Ok(Vec::new())),
        "not fetched" => dispatcher.fetched(&job, Err("gone".to_owned())),
        "stop" => dispatcher.stop(&[id], now),
        "stop again" | "stop overdue" => {
            dispatcher.stop(&[id], now);
            dispatcher.take_effects();
            if event == "stop again" {
                dispatcher.stop(&[id], now);
            } else {
                dispatcher.tick(now + PATIENCE);
            }
        }
        "revoke" => dispatcher.govern(&[Order { revoked: true, ..order_of(1) }]),
        "superseded" => dispatcher.superseded(id),
        "adopt" => dispatcher.adopt(vec![open(false)], now),
        "adopt what is built" => dispatcher.adopt(vec![open(true)], now),
        other => panic!("no such event: {other}"),
    }
}

/// Every stand of an attempt, with everything that can be heard of it; of one that is its build's, and of one that stands beside another.
#[test]
fn every_phase_decides_about_every_event() {
    for record in RECORDS {
        assert!(TABLE.iter().any(|(event, _)| event == record), "{record}: there is no such row");
    }
    let mut wrong = Vec::new();
    for (event, expected) in TABLE {
        for (place, ((name, stand), expected)) in STANDS.iter().zip(expected).enumerate() {
            for late in [false, true] {
                let (mut bench, session) = Bench::with_attempt();
                let attempt = bench.dispatcher.attempts.get_mut(&AttemptId::new(101)).unwrap();
                let said = match stand {
                    Stand::In(phase) => {
                        attempt.late = late;
                        attempt.phase = phase(session, bench.now);
                        assert_eq!(column(attempt.phase), place, "{name}");
                        None
                    }
                    Stand::Unknown => Some(None),
                    Stand::AskedAsRunning => Some(Some("heartbeat with")),
                    Stand::AskedWithResult => Some(Some("succeeded")),
                };
                if let Some(said) = said {
                    bench.dispatcher.attempts.remove(&AttemptId::new(101));
                    if let Some(said) = said {
                        happens(&mut bench, session, said);
                        assert_eq!(word(&bench.settle()), "ask");
                    }
                }
                happens(&mut bench, session, event);
                let is_known = matches!(stand, Stand::In(_));
                let otherwise =
                    LATE.iter().find(|(row, stand, _)| late && is_known && row == event && stand == name);
                let expected = otherwise.map_or(*expected, |(_, _, expected)| *expected);
                let found = word(&bench.settle());
                if found != expected {
                    wrong.push(format!(
                        "{event}, while the attempt is {name} (late: {late}): `{found}`, not `{expected}`"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_newest_process_with_a_key_holds_the_session() {
    let mut bench = Bench::new();
    let old = bench.join(1, 1, 1);
    bench.settle();
    bench.join(1, 2, 1);
    let effects = bench.settle();
    let to_old: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(routing, message) if *routing == RoutingId::from_number(1) => Some(&message.body),
            _ => None,
        })
        .collect();
    assert!(
        matches!(to_old[..], [ServerBody::Refused(refused)] if refused.reason() == RefusedReason::Superseded)
    );
    assert!(!bench.dispatcher.heard(Some(old), RoutingId::from_number(1), 5, bench.now));
}
