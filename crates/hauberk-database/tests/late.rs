//! Attempts that were given up and come back, on a real database.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

mod farm;

use farm::{Farm, path};
use hauberk_database::dispatch::{
    AttemptClass, BuiltOutput, Claimed, Consequence, Fetched, KnownPath, Measures,
};
use hauberk_database::late::{self, Decision, Other, Report, Returned, Settled, Standing, Verdict, Word};
use hauberk_database::{BuildState, WorkerId, attempts, begin, commit, dispatch};

/// No delay here is longer, in seconds.
const LONGEST: f64 = 86_400.0;
const LOST: Consequence = Consequence::Retry { delay: 0.0 };

fn output(number: usize) -> BuiltOutput {
    BuiltOutput {
        name: "out".into(),
        path: path(number),
        nar_hash: vec![u8::try_from(number).unwrap(); 32],
        nar_size: 100,
        references: Vec::new(),
    }
}

impl Farm {
    async fn take_back_as(&self, claimed: &Claimed, worker: WorkerId, word: Word) -> Verdict {
        let report = (word != Word::Running).then(|| Report {
            message: format!("late: {word:?}"),
            outputs: if word == Word::Succeeded { vec![output(0)] } else { Vec::new() },
            measures: Measures { build_ms: Some(7), ..Measures::default() },
        });
        let returned = Returned { attempt: claimed.attempt, worker, word, report };
        let mut client = self.client().await;
        let transaction = begin(&mut client).await.unwrap();
        let verdict = late::take_back(&transaction, &returned, self.epoch).await.unwrap();
        commit(transaction).await.unwrap();
        verdict
    }

    async fn take_back(&self, claimed: &Claimed, word: Word) -> Verdict {
        self.take_back_as(claimed, self.worker, word).await
    }

    /// An attempt of package 0 that was given up.
    async fn lapsed(&self) -> Claimed {
        let claimed = self.claim(0).await;
        dispatch::start(&self.client().await, &[(claimed.attempt, 1)], self.epoch).await.unwrap();
        self.end(&claimed, AttemptClass::WorkerLost, LOST).await;
        claimed
    }

    /// One that was given up, and the newer one that is open instead of it.
    async fn two(&self) -> (Claimed, Claimed) {
        let older = self.lapsed().await;
        dispatch::wake_deferred(&self.client().await, LONGEST, &[]).await.unwrap();
        (older, self.claim(0).await)
    }

    async fn settle(&self, claimed: &Claimed) -> Settled {
        let known = KnownPath { path: path(0), nar_hash: vec![0; 32], nar_size: 100 };
        let fetched = Fetched { attempt: claimed.attempt, build: claimed.build, outputs: vec![known] };
        let mut client = self.client().await;
        let transaction = begin(&mut client).await.unwrap();
        let settled = late::succeed(&transaction, &fetched, self.epoch, self.server).await.unwrap();
        commit(transaction).await.unwrap();
        settled
    }

    async fn classes(&self) -> Vec<Option<String>> {
        let client = self.client().await;
        let rows = client.query("select class from attempts order by id", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

fn classes(expected: &[Option<AttemptClass>]) -> Vec<Option<String>> {
    expected.iter().map(|class| class.map(|class| class.as_str().to_owned())).collect()
}

#[tokio::test]
async fn what_nobody_else_took_goes_on_as_if_it_had_not_been_given_up() {
    for word in [Word::Running, Word::Succeeded, Word::Failed] {
        let farm = Farm::with(&[&[], &[0]]).await;
        let claimed = farm.lapsed().await;
        assert_eq!(farm.states().await, ["deferred", "waiting"]);
        let verdict = farm.take_back(&claimed, word).await;
        let Verdict::Reopened(reopened) = verdict.clone() else { panic!("{word:?}: {verdict:?}") };
        assert_eq!((reopened.build, reopened.farm_faults, reopened.superseded), (claimed.build, 0, None));
        assert_eq!(farm.states().await, ["running", "waiting"]);
        farm.check().await;
        // Asked again, because the answer was lost on its way.
        assert_eq!(farm.take_back(&claimed, word).await, verdict);
        farm.built(&claimed, 0).await;
        assert_eq!(farm.fetched(&claimed, 0, farm.epoch).await, [farm.build(1).await]);
        assert_eq!(farm.states().await, ["succeeded", "ready"]);
        assert_eq!(farm.classes().await, classes(&[Some(AttemptClass::Succeeded)]));
        farm.check().await;
    }
}

#[tokio::test]
async fn a_late_success_counts_when_it_is_checked_and_ends_the_newer_attempt() {
    let farm = Farm::with(&[&[], &[0]]).await;
    let (older, newer) = farm.two().await;
    let Verdict::Beside(reopened) = farm.take_back(&older, Word::Succeeded).await else { panic!() };
    assert_eq!(reopened.superseded, None);
    assert!(matches!(farm.take_back(&older, Word::Succeeded).await, Verdict::Beside(_)));
    // Nothing is decided until it is checked.
    assert_eq!(farm.classes().await, classes(&[None, None]));
    farm.built(&older, 0).await;
    assert_eq!(farm.states().await, ["assigned", "waiting"]);
    assert_eq!(attempts::outputs(&farm.client().await, older.attempt).await.unwrap().len(), 1);
    let open = attempts::open(&farm.client().await, farm.epoch, &[]).await.unwrap();
    let open: Vec<_> = open.iter().map(|open| (open.attempt, open.late, open.built)).collect();
    assert_eq!(open, [(older.attempt, true, true), (newer.attempt, false, false)]);

    let settled = farm.settle(&older).await;
    assert_eq!((settled.counts, settled.superseded), (true, Some(newer.attempt)));
    assert_eq!(settled.effects.ready.iter().map(|ready| ready.id).collect::<Vec<_>>(), [farm.build(1).await]);
    assert_eq!(farm.states().await, ["succeeded", "ready"]);
    assert_eq!(
        farm.classes().await,
        classes(&[Some(AttemptClass::Succeeded), Some(AttemptClass::Superseded)])
    );
    farm.check().await;
    // It counts once.
    assert!(!farm.settle(&older).await.counts);
    // What the newer one says comes too late in its turn.
    farm.built(&newer, 0).await;
    assert!(farm.fetched(&newer, 0, farm.epoch).await.is_empty());
    assert_eq!(farm.take_back(&newer, Word::Succeeded).await, Verdict::History);
    assert_eq!(farm.states().await, ["succeeded", "ready"]);
    farm.check().await;
}

#[tokio::test]
async fn a_late_success_that_fails_its_checks_costs_the_newer_attempt_nothing() {
    let farm = Farm::with(&[&[]]).await;
    let (older, newer) = farm.two().await;
    farm.take_back(&older, Word::Succeeded).await;
    farm.built(&older, 0).await;
    let effects = farm.end(&older, AttemptClass::Transfer, LOST).await;
    assert!(!effects.deferred && effects.finished.is_empty());
    assert_eq!(farm.states().await, ["assigned"]);
    farm.built(&newer, 0).await;
    farm.fetched(&newer, 0, farm.epoch).await;
    assert_eq!(farm.states().await, ["succeeded"]);
    assert_eq!(farm.classes().await, classes(&[Some(AttemptClass::Transfer), Some(AttemptClass::Succeeded)]));
    assert_eq!(farm.take_back(&older, Word::Succeeded).await, Verdict::History);
    farm.check().await;
}

#[tokio::test]
async fn of_two_successes_the_first_that_is_checked_counts() {
    let farm = Farm::with(&[&[]]).await;
    let (older, newer) = farm.two().await;
    farm.built(&newer, 0).await;
    // A success of the other is under way already: one that only runs is not wanted, and neither is a failure.
    assert_eq!(farm.take_back(&older, Word::Running).await, Verdict::History);
    assert_eq!(farm.take_back(&older, Word::Failed).await, Verdict::History);
    let (older, newer) = (newer, older);
    // The roles are as they were: the older comes back with its success.
    assert_eq!(farm.states().await, ["built"]);
    farm.fetched(&older, 0, farm.epoch).await;
    assert_eq!(farm.states().await, ["succeeded"]);
    assert_eq!(farm.take_back(&newer, Word::Succeeded).await, Verdict::History);
    farm.check().await;

    let farm = Farm::with(&[&[]]).await;
    let (older, newer) = farm.two().await;
    farm.built(&newer, 0).await;
    assert!(matches!(farm.take_back(&older, Word::Succeeded).await, Verdict::Beside(_)));
    farm.built(&older, 0).await;
    farm.fetched(&newer, 0, farm.epoch).await;
    assert!(!farm.settle(&older).await.counts);
    assert_eq!(
        farm.classes().await,
        classes(&[Some(AttemptClass::Superseded), Some(AttemptClass::Succeeded)])
    );
    farm.check().await;
}

#[tokio::test]
async fn of_two_that_run_the_one_that_began_first_stays() {
    let farm = Farm::with(&[&[]]).await;
    let (older, newer) = farm.two().await;
    dispatch::start(&farm.client().await, &[(newer.attempt, 1)], farm.epoch).await.unwrap();
    let Verdict::Reopened(reopened) = farm.take_back(&older, Word::Running).await else { panic!() };
    assert_eq!(reopened.superseded, Some(newer.attempt));
    assert_eq!(farm.classes().await, classes(&[None, Some(AttemptClass::Superseded)]));
    assert_eq!(farm.states().await, ["running"]);
    farm.check().await;
    // The one that was told to stop does not come back.
    assert_eq!(farm.take_back(&newer, Word::Running).await, Verdict::History);
    // Unless the other is lost again: what it finished before it was told still counts.
    farm.end(&older, AttemptClass::WorkerLost, LOST).await;
    assert!(matches!(farm.take_back(&newer, Word::Succeeded).await, Verdict::Reopened(_)));
    farm.check().await;

    // One whose builder had not begun is not expected to end first.
    let farm = Farm::with(&[&[]]).await;
    let older = farm.claim(0).await;
    farm.end(&older, AttemptClass::WorkerLost, LOST).await;
    dispatch::wake_deferred(&farm.client().await, LONGEST, &[]).await.unwrap();
    let newer = farm.claim(0).await;
    dispatch::start(&farm.client().await, &[(newer.attempt, 1)], farm.epoch).await.unwrap();
    assert_eq!(farm.take_back(&older, Word::Running).await, Verdict::History);
    farm.check().await;
}

#[tokio::test]
async fn a_late_failure_by_the_packages_fault_counts_at_once() {
    let farm = Farm::with(&[&[], &[0]]).await;
    let (older, newer) = farm.two().await;
    let Verdict::Reopened(reopened) = farm.take_back(&older, Word::Failed).await else { panic!() };
    assert_eq!(reopened.superseded, Some(newer.attempt));
    farm.end(&older, AttemptClass::BuildFailed, Consequence::Fail).await;
    assert_eq!(farm.states().await, ["failed", "failed_dependency"]);
    // Over is over: one result counts.
    assert_eq!(farm.take_back(&newer, Word::Succeeded).await, Verdict::History);
    assert_eq!(farm.states().await, ["failed", "failed_dependency"]);
    farm.check().await;
}

#[tokio::test]
async fn what_changes_nothing_is_kept_as_history_once() {
    let farm = Farm::with(&[&[]]).await;
    let (older, newer) = farm.two().await;
    farm.built(&newer, 0).await;
    farm.fetched(&newer, 0, farm.epoch).await;
    for _ in 0..2 {
        assert_eq!(farm.take_back(&older, Word::Succeeded).await, Verdict::History);
    }
    assert_eq!(farm.take_back(&older, Word::Nothing).await, Verdict::History);
    let client = farm.client().await;
    let row = client
        .query_one("select message, build_ms, origin, class from attempts where id = $1", &[&older.attempt])
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "because; late: Succeeded");
    assert_eq!(row.get::<_, Option<i64>>(1), Some(7));
    assert_eq!((row.get::<_, &str>(2), row.get::<_, &str>(3)), ("built", "worker_lost"));
    assert_eq!(attempts::outputs(&client, older.attempt).await.unwrap(), [output(0)]);
    farm.check().await;
}

#[tokio::test]
async fn nobody_comes_back_with_anothers_attempt_or_none() {
    let farm = Farm::with(&[&[]]).await;
    let claimed = farm.lapsed().await;
    for word in Word::ALL {
        assert_eq!(farm.take_back_as(&claimed, WorkerId::new(77), *word).await, Verdict::NotTheirs);
    }
    let unknown = Claimed { attempt: hauberk_database::AttemptId::new(999), ..claimed.clone() };
    assert_eq!(farm.take_back(&unknown, Word::Running).await, Verdict::NotTheirs);
    assert_eq!(farm.states().await, ["deferred"]);
}

#[tokio::test]
async fn a_result_of_an_older_generation_changes_nothing() {
    let farm = Farm::with(&[&[]]).await;
    let claimed = farm.lapsed().await;
    farm.client()
        .await
        .execute("update builds set generation = generation + 1, state = 'ready', not_before = null", &[])
        .await
        .unwrap();
    assert_eq!(farm.take_back(&claimed, Word::Succeeded).await, Verdict::History);
    assert_eq!(farm.states().await, ["ready"]);
    farm.check().await;
}

/// Every way an attempt, its build and the one that is open instead can stand, with every word.
#[test]
fn every_standing_decides_about_every_word() {
    use BuildState as S;
    use Decision as D;
    let waiting_for_work = [S::Ready, S::Deferred];
    let being_tried = [S::Assigned, S::Running];
    let others = [
        None,
        Some(Other { built: false, later: true }),
        Some(Other { built: false, later: false }),
        Some(Other { built: true, later: true }),
        Some(Other { built: true, later: false }),
    ];
    let classes: Vec<_> = std::iter::once(None).chain(AttemptClass::ALL.iter().copied().map(Some)).collect();
    let mut cases = 0;
    for class in classes {
        for current in [false, true] {
            for build in S::ALL.iter().copied() {
                for other in others {
                    for word in Word::ALL.iter().copied() {
                        cases += 1;
                        let given_up = matches!(
                            class,
                            Some(
                                AttemptClass::WorkerLost | AttemptClass::Canceled | AttemptClass::Superseded
                            )
                        );
                        let tried_by_other = being_tried.contains(&build) && other.is_some_and(|o| !o.built);
                        let expected = if class.is_none() {
                            D::GoOn
                        } else if !given_up || !current || build.is_final() || build == S::Staged {
                            D::History
                        } else {
                            match word {
                                Word::Nothing | Word::Kept => D::History,
                                _ if waiting_for_work.contains(&build) && other.is_none() => D::Reopen,
                                Word::Succeeded => D::Beside,
                                Word::Failed if tried_by_other => D::Reopen,
                                Word::Running if tried_by_other && other.is_some_and(|o| o.later) => {
                                    D::Reopen
                                }
                                Word::Running | Word::Failed => D::History,
                            }
                        };
                        let standing = Standing { class, current, build, other };
                        assert_eq!(late::decide(standing, word), expected, "{standing:?} {word:?}");
                    }
                }
            }
        }
    }
    assert_eq!(cases, 17 * 2 * 14 * 5 * 5);
}
