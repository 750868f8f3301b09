//! What each event makes of a build, whatever state it is in: every pair of both, on a real database.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

mod farm;

use farm::{Farm, package, path};
use hauberk_database::dispatch::{
    self, AttemptClass, AttemptOrigin, Built, Consequence, Ended, Fetched, KnownPath, Measures,
};
use hauberk_database::registration::{self, NewJob, Registration};
use hauberk_database::upkeep::{self, Finding, Rule};
use hauberk_database::{AttemptId, BuildId, BuildState, Level, begin, commit, control, evaluations};

/// How many states there are: a new one changes the length of every row.
const STATES: usize = BuildState::ALL.len();

/// An event, how the build's only dependency stands when it comes, and the state that follows on each state, in the order of
/// [`BuildState::ALL`]; `-` where it stays.
type Row = (&'static str, Dependency, [&'static str; STATES]);

/// How the only dependency of the build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dependency {
    /// It has succeeded: the build waits for nothing.
    Met,
    /// It has succeeded, and the build does not know.
    MetUnseen,
    /// It is for a worker to take.
    Unmet,
    /// It runs.
    Running,
    /// It has failed.
    Failed,
    /// It is canceled.
    Canceled,
}

impl Dependency {
    const fn state(self) -> BuildState {
        match self {
            Self::Met | Self::MetUnseen => BuildState::Succeeded,
            Self::Unmet => BuildState::Ready,
            Self::Running => BuildState::Running,
            Self::Failed => BuildState::Failed,
            Self::Canceled => BuildState::Canceled,
        }
    }

    /// How many dependencies the build believes that it has to wait for.
    const fn unmet(self) -> i32 {
        match self {
            Self::Met => 0,
            Self::MetUnseen | Self::Unmet | Self::Running | Self::Failed | Self::Canceled => 1,
        }
    }
}

#[rustfmt::skip]
const TABLE: &[Row] = &{
    use Dependency::{Canceled, Failed, Met, MetUnseen, Running, Unmet};
    const SUCCEEDED: &str = "succeeded";
    const CANCELED: &str = "canceled";
    const DOOMED: &str = "failed_dependency";
    [
    // staged, held, waiting, deferred, ready | assigned, running, built, fetching | succeeded, failed, failed_dependency, failed_other, canceled

    // A worker is to have it.
    ("claim", Met,
        ["-", "-", "-", "-", "assigned", "-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    // Its attempt goes on.
    ("start", Met,
        ["-", "-", "-", "-", "-", "running", "-", "-", "-", "-", "-", "-", "-", "-"]),
    ("built", Met,
        ["-", "-", "-", "-", "-", "built", "built", "-", "-", "-", "-", "-", "-", "-"]),
    ("fetching", Met,
        ["-", "-", "-", "-", "-", "-", "-", "fetching", "-", "-", "-", "-", "-", "-"]),
    ("fetch failed", Met,
        ["-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    ("succeed", Met,
        ["-", "-", "-", "-", "-", SUCCEEDED, SUCCEEDED, SUCCEEDED, SUCCEEDED, "-", "-", "-", "-", "-"]),
    ("finish", Met,
        ["-", "-", "-", "-", "-", SUCCEEDED, SUCCEEDED, SUCCEEDED, SUCCEEDED, "-", "-", "-", "-", "-"]),
    // Its attempt ends, with each consequence; and with an operator's wish that it be canceled.
    ("end: fail", Met,
        ["-", "-", "-", "-", "-", "failed", "failed", "failed", "failed", "-", "-", "-", "-", "-"]),
    ("end: fail, to be canceled", Met,
        ["-", "-", "-", "-", "-", "failed", "failed", "failed", "failed", "-", "-", "-", "-", "-"]),
    ("end: fail otherwise", Met,
        ["-", "-", "-", "-", "-", "failed_other", "failed_other", "failed_other", "failed_other", "-", "-", "-", "-", "-"]),
    ("end: fail otherwise, to be canceled", Met,
        ["-", "-", "-", "-", "-", "failed_other", "failed_other", "failed_other", "failed_other", "-", "-", "-", "-", "-"]),
    ("end: ready", Met,
        ["-", "-", "-", "-", "-", "ready", "ready", "ready", "ready", "-", "-", "-", "-", "-"]),
    ("end: ready, to be canceled", Met,
        ["-", "-", "-", "-", "-", CANCELED, CANCELED, CANCELED, CANCELED, "-", "-", "-", "-", "-"]),
    ("end: retry", Met,
        ["-", "-", "-", "-", "-", "deferred", "deferred", "deferred", "deferred", "-", "-", "-", "-", "-"]),
    ("end: retry, to be canceled", Met,
        ["-", "-", "-", "-", "-", CANCELED, CANCELED, CANCELED, CANCELED, "-", "-", "-", "-", "-"]),
    // What it needs comes to its end.
    ("dependency succeeds", Running,
        ["-", "-", "ready", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    ("dependency fails", Running,
        [DOOMED, DOOMED, DOOMED, DOOMED, DOOMED, "-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    ("dependency is canceled", Unmet,
        [CANCELED, CANCELED, CANCELED, CANCELED, CANCELED, "-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    ("dependency is canceled when its attempt ends", Running,
        [CANCELED, CANCELED, CANCELED, CANCELED, CANCELED, "-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    // Operators. What runs is only asked to stop.
    ("cancel", Met,
        [CANCELED, CANCELED, CANCELED, CANCELED, CANCELED, "-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    ("restart", Met,
        ["-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "ready", "ready", "ready", "ready"]),
    ("restart", Unmet,
        ["-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "waiting", "waiting", "waiting", "waiting"]),
    // Together with what it failed by.
    ("restart", Failed,
        ["-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "waiting", "waiting", "waiting", "waiting"]),
    ("restart of the dependency", Failed,
        ["-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "waiting", "-", "-"]),
    ("restart of the dependency", Canceled,
        ["-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "waiting", "-", "-"]),
    // Another evaluation wants it.
    ("publish", Met,
        ["ready", "-", "ready", "-", "-", "-", "-", "-", "-", "-", "-", "ready", "-", "ready"]),
    ("publish", Unmet,
        ["waiting", "-", "-", "waiting", "waiting", "-", "-", "-", "-", "-", "-", "waiting", "-", "waiting"]),
    ("publish", Failed,
        [DOOMED, DOOMED, DOOMED, DOOMED, DOOMED, "-", "-", "-", "-", "-", "-", "-", "-", DOOMED]),
    // Time goes by.
    ("wake", Met,
        ["-", "-", "-", "ready", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    ("wake too soon", Met,
        ["-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    // The sweep looks at what waits.
    ("sweep", Unmet,
        ["-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    ("sweep", MetUnseen,
        ["-", "-", "ready", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    ("sweep", Failed,
        ["-", "-", DOOMED, "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    ("sweep", Canceled,
        ["-", "-", CANCELED, "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    // It is found without an open attempt.
    ("free", Met,
        ["-", "-", "-", "-", "-", "ready", "ready", "ready", "ready", "-", "-", "-", "-", "-"]),
    ]
};

/// A build and what it needs, for one try of one row.
struct Pair<'a> {
    farm: &'a Farm,
    /// Package numbers: what it needs, and it.
    numbers: [usize; 2],
    dependency: BuildId,
    build: BuildId,
}

impl Pair<'_> {
    /// Puts a build into a state, with an attempt that stands where the state says. What is not under way has one that is `astray`,
    /// still open, or one that has ended, or none.
    async fn place(&self, build: BuildId, state: BuildState, unmet: i32, attempt: Attempt) -> AttemptId {
        let client = self.farm.client().await;
        client
            .execute(
                "update builds set state = $2, unmet = $3, ready_at = now(), started_at = now(),
                        finished_at = case when $4 then now() end,
                        not_before = case when $2 = 'deferred' then now() + interval '1 hour' end
                 where id = $1",
                &[&build, &state.as_str(), &unmet, &state.is_final()],
            )
            .await
            .unwrap();
        if attempt == Attempt::None {
            return AttemptId::new(0);
        }
        let begun = matches!(state, BuildState::Running | BuildState::Built | BuildState::Fetching);
        let built = matches!(state, BuildState::Built | BuildState::Fetching);
        let class = match (attempt, state) {
            (Attempt::Open, _) => None,
            (_, BuildState::Succeeded) => Some("succeeded"),
            (_, BuildState::Failed) => Some("build_failed"),
            _ => Some("worker_lost"),
        };
        let row = client
            .query_one(
                "with made as (
                     insert into attempts (build_id, derivation_id, generation, number, kind, worker_id, session, epoch,
                                           started_at, built_at, ended_at, class)
                     select id, derivation_id, generation, 1, 'first', $2, 7, $3, case when $4 then now() end,
                            case when $5 then now() end, case when $6::text is not null then now() end, $6
                     from builds where id = $1
                     returning id, build_id
                 )
                 update builds b set attempt_id = made.id from made where b.id = made.build_id returning b.attempt_id",
                &[&build, &self.farm.worker, &self.farm.epoch, &begun, &built, &class],
            )
            .await
            .unwrap();
        row.get(0)
    }

    async fn state(&self) -> String {
        let client = self.farm.client().await;
        client.query_one("select state from builds where id = $1", &[&self.build]).await.unwrap().get(0)
    }

    /// Leaves nothing that another try could meet.
    async fn clear(&self) {
        let client = self.farm.client().await;
        let both = [self.dependency, self.build];
        client.execute("delete from attempts where build_id = any ($1)", &[&&both[..]]).await.unwrap();
        client
            .execute(
                "update builds set state = 'succeeded', unmet = 0, attempt_id = null, cancel_requested_at = null
                 where id = any ($1)",
                &[&&both[..]],
            )
            .await
            .unwrap();
    }

    fn ended(attempt: AttemptId, build: BuildId, class: AttemptClass, consequence: Consequence) -> Ended {
        let (message, measures) = ("because".to_owned(), Measures::default());
        Ended { attempt, build, class, message, measures, consequence }
    }

    async fn end(&self, ended: Ended) {
        dispatch::end(&self.farm.client().await, &[ended], self.farm.epoch).await.unwrap();
    }

    fn fetched(attempt: AttemptId, build: BuildId, number: usize) -> Fetched {
        let known = KnownPath { path: path(number), nar_hash: vec![7; 32], nar_size: 100 };
        Fetched { attempt, build, outputs: vec![known] }
    }

    async fn ask_to_cancel(&self, build: BuildId) {
        let ask = "update builds set cancel_requested_at = now() where id = $1";
        self.farm.client().await.execute(ask, &[&build]).await.unwrap();
    }

    async fn restart(&self, build: BuildId) {
        let mut client = self.farm.client().await;
        let transaction = begin(&mut client).await.unwrap();
        control::restart_builds(&transaction, &[build]).await.unwrap();
        commit(transaction).await.unwrap();
    }

    async fn cancel(&self, build: BuildId) {
        let mut client = self.farm.client().await;
        let transaction = begin(&mut client).await.unwrap();
        control::cancel_builds(&transaction, &[build]).await.unwrap();
        commit(transaction).await.unwrap();
    }

    async fn publish(&self) {
        let mut client = self.farm.client().await;
        let evaluation = evaluations::start(&client, self.farm.specification, &[]).await.unwrap();
        let [dependency, build] = self.numbers;
        let registration = Registration {
            builds: vec![package(dependency, &[]), package(build, &[dependency])],
            jobs: vec![NewJob { name: "it".to_owned(), build: 1, priority: Level::try_from(5).unwrap() }],
            ..Registration::default()
        };
        registration::publish(&mut client, evaluation, &registration).await.unwrap();
    }

    /// Brings an event about.
    async fn happens(&self, event: &str, attempt: AttemptId, below: AttemptId) {
        let (farm, build, [_, number]) = (self.farm, self.build, self.numbers);
        let client = farm.client().await;
        let ended = |class, consequence| Self::ended(attempt, build, class, consequence);
        if event.ends_with(", to be canceled") {
            self.ask_to_cancel(build).await;
        }
        match event.trim_end_matches(", to be canceled") {
            "claim" => drop(farm.claim_with(&[build], farm.epoch, false).await),
            "start" => dispatch::start(&client, &[(attempt, 1)], farm.epoch).await.unwrap(),
            "built" => dispatch::built(&client, &[built(attempt, build)], farm.epoch).await.unwrap(),
            "fetching" => dispatch::fetching(&client, &[attempt], farm.epoch).await.unwrap(),
            "fetch failed" => {
                dispatch::fetch_failed(&client, attempt, farm.epoch, 1.0, "gone").await.unwrap();
            }
            "succeed" => {
                let fetched = Self::fetched(attempt, build, number);
                dispatch::succeed(&client, &[fetched], farm.epoch, farm.server).await.unwrap();
            }
            "finish" => {
                let finished = (built(attempt, build), Self::fetched(attempt, build, number));
                dispatch::finish(&client, &[finished], &[], farm.epoch, farm.server).await.unwrap();
            }
            "end: fail" => self.end(ended(AttemptClass::BuildFailed, Consequence::Fail)).await,
            "end: fail otherwise" => self.end(ended(AttemptClass::Daemon, Consequence::FailOther)).await,
            "end: ready" => self.end(ended(AttemptClass::Canceled, Consequence::Ready)).await,
            "end: retry" => {
                self.end(ended(AttemptClass::WorkerLost, Consequence::Retry { delay: 60.0 })).await;
            }
            "dependency succeeds" => {
                let fetched = Self::fetched(below, self.dependency, self.numbers[0]);
                dispatch::succeed(&client, &[fetched], farm.epoch, farm.server).await.unwrap();
            }
            "dependency fails" => {
                let class = AttemptClass::BuildFailed;
                self.end(Self::ended(below, self.dependency, class, Consequence::Fail)).await;
            }
            "dependency is canceled" => self.cancel(self.dependency).await,
            "dependency is canceled when its attempt ends" => {
                self.cancel(self.dependency).await;
                let class = AttemptClass::Canceled;
                self.end(Self::ended(below, self.dependency, class, Consequence::Ready)).await;
            }
            "cancel" => self.cancel(build).await,
            "restart" => self.restart(build).await,
            "restart of the dependency" => self.restart(self.dependency).await,
            "publish" => self.publish().await,
            "wake" => {
                let due = "update builds set not_before = now() - interval '1 second' where id = $1 and not_before is not null";
                client.execute(due, &[&build]).await.unwrap();
                dispatch::wake_deferred(&client, 7200.0, &[]).await.unwrap();
            }
            "wake too soon" => drop(dispatch::wake_deferred(&client, 7200.0, &[]).await.unwrap()),
            "sweep" => drop(upkeep::sweep(&mut farm.client().await, 0, 10_000).await.unwrap()),
            "free" => {
                let finding = Finding { rule: Rule::Tried, rows: vec![build.get()] };
                upkeep::repair(&mut farm.client().await, &finding).await.unwrap();
            }
            other => panic!("no such event: {other}"),
        }
    }
}

/// The attempt of a build that is put into a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    None,
    Open,
    Ended,
}

/// What attempt the build has when an event comes: the event's own is open, whatever state the build is in.
fn attempt_at(event: &str, state: BuildState) -> Attempt {
    let is_of_attempt = event.starts_with("end: ")
        || ["start", "built", "fetching", "fetch failed", "succeed", "finish"].contains(&event);
    match event {
        "free" => Attempt::Ended,
        _ if is_of_attempt || state.is_active() => Attempt::Open,
        _ if state.is_final() => Attempt::Ended,
        _ => Attempt::None,
    }
}

fn built(attempt: AttemptId, build: BuildId) -> Built {
    let measures = Measures::default();
    Built { attempt, build, origin: AttemptOrigin::Built, outputs: Vec::new(), measures }
}

#[tokio::test]
async fn every_state_decides_about_every_event() {
    let tries = TABLE.len() * STATES;
    let needs: Vec<Vec<usize>> =
        (0..2 * tries).map(|number| if number % 2 == 0 { Vec::new() } else { vec![number - 1] }).collect();
    let needs: Vec<&[usize]> = needs.iter().map(Vec::as_slice).collect();
    let farm = Farm::with(&needs).await;
    let mut wrong = Vec::new();
    let mut number = 0;
    for (event, dependency, expected) in TABLE {
        for (state, expected) in BuildState::ALL.iter().copied().zip(expected) {
            let numbers = [number, number + 1];
            number += 2;
            let (below, build) = (farm.build(numbers[0]).await, farm.build(numbers[1]).await);
            let pair = Pair { farm: &farm, numbers, dependency: below, build };
            let below = match dependency {
                Dependency::Running => Attempt::Open,
                Dependency::Met | Dependency::MetUnseen | Dependency::Failed => Attempt::Ended,
                Dependency::Unmet | Dependency::Canceled => Attempt::None,
            };
            let below = pair.place(pair.dependency, dependency.state(), 0, below).await;
            let attempt = pair.place(build, state, dependency.unmet(), attempt_at(event, state)).await;
            pair.happens(event, attempt, below).await;
            let expected = if *expected == "-" { state.as_str() } else { *expected };
            let found = pair.state().await;
            if found != expected {
                wrong.push(format!(
                    "{event}, while the build is {state} and what it needs {dependency:?}: {found} instead of {expected}"
                ));
            }
            pair.clear().await;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
