//! Priorities and emergencies by operators, on a real database.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

mod farm;

use farm::Farm;
use hauberk_database::dispatch::{AttemptClass, Consequence};
use hauberk_database::listen::{Event, Listener, READY};
use hauberk_database::priority_control::{self, Changed, Settled, Subject};
use hauberk_database::{BuildId, EvaluationId, Priority, audit, begin, commit, control};

fn priority(number: i64) -> Priority {
    Priority::try_from(number).unwrap()
}

impl Farm {
    async fn set_priority(&self, number: usize, to: Option<i64>) -> Option<Changed> {
        let build = self.build(number).await;
        let mut client = self.client().await;
        let transaction = begin(&mut client).await.unwrap();
        let changed =
            priority_control::set_priority(&transaction, build, to.map(priority), "me").await.unwrap();
        commit(transaction).await.unwrap();
        changed
    }

    async fn set_emergency(&self, subject: Subject, on: bool) -> Option<Changed> {
        let mut client = self.client().await;
        let transaction = begin(&mut client).await.unwrap();
        let changed = priority_control::set_emergency(&transaction, subject, on, "me").await.unwrap();
        commit(transaction).await.unwrap();
        changed
    }

    /// The urgencies of packages 0, 1, 2 ...
    async fn urgencies(&self) -> Vec<i16> {
        let client = self.client().await;
        let rows = client
            .query("select b.urgency from builds b join outputs o on o.build_id = b.id order by o.path", &[])
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

#[tokio::test]
async fn a_priority_goes_down_to_what_a_build_needs_and_is_taken_back_there() {
    // 3 needs 1 and 2, both need 0; 4 needs 2 as well. All are jobs of priority 55.
    let farm = Farm::with(&[&[], &[0], &[0], &[1, 2], &[2]]).await;
    assert_eq!(farm.urgencies().await, [55; 5]);
    let mut listener = Listener::connect(farm.test.location(), &[READY]).await.unwrap();
    let changed = farm.set_priority(3, Some(7)).await.unwrap();
    assert_eq!(changed.builds.len(), 4);
    assert_eq!(changed.urgency.unwrap().priority, priority(7));
    assert_eq!(farm.urgencies().await, [7, 7, 7, 7, 55]);
    assert!(matches!(listener.next().await, Event::Notification { channel, .. } if channel == READY));
    // The head of the queue is what the most urgent one waits for.
    assert_eq!(farm.ready().await, [farm.build(0).await]);

    // Less urgent than its dependents want it, nothing becomes.
    let changed = farm.set_priority(2, Some(99)).await.unwrap();
    assert_eq!((changed.urgency.unwrap().priority, changed.builds.len()), (priority(7), 0));
    farm.set_priority(4, Some(60)).await.unwrap();
    assert_eq!(farm.urgencies().await, [7, 7, 7, 7, 60]);
    farm.set_priority(3, Some(80)).await.unwrap();
    assert_eq!(farm.urgencies().await, [55, 55, 60, 80, 60]);
    farm.set_priority(3, None).await.unwrap();
    assert_eq!(farm.urgencies().await, [55, 55, 55, 55, 60]);

    let log = audit::latest(&farm.client().await, 9).await.unwrap();
    assert_eq!((log.len(), log[0].who.as_str(), log[0].action.as_str()), (5, "me", "build.priority"));
}

#[tokio::test]
async fn an_emergency_goes_before_everything_with_what_it_needs() {
    let farm = Farm::with(&[&[], &[], &[1], &[0]]).await;
    let build = farm.build(2).await;
    let changed = farm.set_emergency(Subject::Build(build), true).await.unwrap();
    assert!(changed.urgency.unwrap().emergency);
    assert_eq!(changed.builds, [farm.build(1).await, build]);
    assert_eq!(farm.urgencies().await, [55, -1, -1, 55]);
    assert_eq!(farm.ready().await, [farm.build(1).await, farm.build(0).await]);
    farm.succeed(1).await;
    assert_eq!(farm.ready().await, [build, farm.build(0).await]);

    farm.set_emergency(Subject::Build(build), false).await.unwrap();
    assert_eq!(farm.urgencies().await, [55, -1, 55, 55]);
    farm.succeed(2).await;
    assert_eq!(farm.set_emergency(Subject::Build(build), true).await, None);
    assert_eq!(farm.set_emergency(Subject::Build(BuildId::new(999)), true).await, None);
    assert_eq!(farm.set_emergency(Subject::Evaluation(EvaluationId::new(999)), true).await, None);
}

#[tokio::test]
async fn an_evaluation_goes_before_everything_and_a_build_of_two_stays_there_for_the_other() {
    let graph: &[&[usize]] = &[&[], &[0], &[0], &[]];
    let farm = Farm::with(graph).await;
    let other = farm.evaluate(graph, &[1, 2]).await;
    let third = farm.evaluate(graph, &[2]).await;
    let changed = farm.set_emergency(Subject::Evaluation(other), true).await.unwrap();
    assert_eq!((changed.urgency, changed.builds.len()), (None, 3));
    assert_eq!(farm.urgencies().await, [-1, -1, -1, 55]);
    farm.set_emergency(Subject::Evaluation(third), true).await.unwrap();
    farm.set_emergency(Subject::Evaluation(other), false).await.unwrap();
    assert_eq!(farm.urgencies().await, [-1, 55, -1, 55]);
    farm.set_emergency(Subject::Evaluation(third), false).await.unwrap();
    assert_eq!(farm.urgencies().await, [55; 4]);
}

impl Farm {
    /// The paths that begin with packages 0, 1, 2 ..., in milliseconds.
    async fn paths(&self) -> Vec<i64> {
        let statement =
            "select b.remaining_path from builds b join outputs o on o.build_id = b.id order by o.path";
        let rows = self.client().await.query(statement, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Gives every build an expected duration, and what waits for it a path that goes by that: as if it had been published so.
    async fn set_paths(&self, expected: i64, paths: &[i64]) {
        let client = self.client().await;
        for (number, path) in paths.iter().enumerate() {
            let set = "update builds set expected_ms = $2, remaining_path = $3 where id = $1";
            client.execute(set, &[&self.build(number).await, &expected, path]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_canceled_hurries_nothing_any_more_until_it_begins_anew() {
    // 1, 2 and 3 need each other in a row, and 4 needs 0 as well.
    let graph: &[&[usize]] = &[&[], &[0], &[1], &[2], &[0]];
    let farm = Farm::with(graph).await;
    farm.set_paths(1000, &[4000, 3000, 2000, 1000, 1000]).await;
    farm.set_priority(3, Some(7)).await.unwrap();
    farm.set_emergency(Subject::Build(farm.build(2).await), true).await.unwrap();
    assert_eq!(farm.urgencies().await, [-1, -1, -1, 7, 55]);
    let mut client = farm.client().await;

    let transaction = begin(&mut client).await.unwrap();
    let canceled = control::cancel_builds(&transaction, &[farm.build(2).await]).await.unwrap();
    commit(transaction).await.unwrap();
    assert_eq!(canceled.canceled.len(), 2);
    assert_eq!(
        (farm.urgencies().await[..2].to_vec(), farm.paths().await[..2].to_vec()),
        (vec![55; 2], vec![2000, 1000])
    );

    let transaction = begin(&mut client).await.unwrap();
    control::restart_builds(&transaction, &[farm.build(3).await]).await.unwrap();
    commit(transaction).await.unwrap();
    assert_eq!(farm.urgencies().await, [-1, -1, -1, 7, 55]);
    assert_eq!(farm.paths().await, [4000, 3000, 2000, 1000, 1000]);
    farm.check().await;
}

#[tokio::test]
async fn a_canceled_evaluation_hurries_nothing_that_another_wants() {
    // The first evaluation wants 0 and 1. The second wants all, as an emergency; 2 and 3 only it.
    let farm = Farm::with(&[&[], &[0]]).await;
    let graph: &[&[usize]] = &[&[], &[0], &[1], &[2]];
    let other = farm.evaluate(graph, &[1, 3]).await;
    farm.set_paths(1000, &[4000, 3000, 2000, 1000]).await;
    farm.set_emergency(Subject::Evaluation(other), true).await.unwrap();
    assert_eq!(farm.urgencies().await, [-1; 4]);
    let mut client = farm.client().await;
    let transaction = begin(&mut client).await.unwrap();
    let canceled = control::cancel_evaluation(&transaction, other).await.unwrap().unwrap();
    commit(transaction).await.unwrap();
    assert_eq!(canceled.canceled, [farm.build(2).await, farm.build(3).await]);
    assert_eq!(farm.urgencies().await[..2], [55, 55]);
    assert_eq!(farm.paths().await[..2], [2000, 1000]);
    farm.check().await;
}

impl Farm {
    async fn settle(&self) -> Settled {
        priority_control::settle(&mut self.client().await).await.unwrap()
    }

    async fn cancel(&self, number: usize) -> control::Canceled {
        let build = self.build(number).await;
        let mut client = self.client().await;
        let transaction = begin(&mut client).await.unwrap();
        let canceled = control::cancel_builds(&transaction, &[build]).await.unwrap();
        commit(transaction).await.unwrap();
        canceled
    }

    async fn restart(&self, number: usize) {
        let build = self.build(number).await;
        let mut client = self.client().await;
        let transaction = begin(&mut client).await.unwrap();
        control::restart_builds(&transaction, &[build]).await.unwrap();
        commit(transaction).await.unwrap();
    }
}

/// 3 needs 1 and 2, 2 needs 0, and 4 needs 0 as well. All are jobs of priority 55.
const DIAMOND: &[&[usize]] = &[&[], &[], &[0], &[1, 2], &[0]];

#[tokio::test]
async fn what_failed_hurries_nothing_any_more_until_it_begins_anew() {
    let farm = Farm::with(DIAMOND).await;
    farm.set_paths(1000, &[3000, 2000, 2000, 1000, 1000]).await;
    farm.set_emergency(Subject::Build(farm.build(3).await), true).await.unwrap();
    assert_eq!(farm.urgencies().await, [-1, -1, -1, -1, 55]);
    // A failure that takes nothing along leaves nothing to do.
    let claimed = farm.claim(1).await;
    let retried = farm.end(&claimed, AttemptClass::Daemon, Consequence::Ready).await;
    assert!(!retried.noted);
    assert_eq!(farm.settle().await, Settled::default());

    let claimed = farm.claim(1).await;
    let failed = farm.end(&claimed, AttemptClass::BuildFailed, Consequence::Fail).await;
    assert!(failed.noted);
    assert_eq!(farm.urgencies().await, [-1, -1, -1, -1, 55], "the path of results decides nothing");
    // Somebody records something about 0 just now: the rest is not kept waiting, and 0 comes later.
    let mut client = farm.client().await;
    let transaction = begin(&mut client).await.unwrap();
    hauberk_database::dispatch::lock_builds(&transaction, &[farm.build(0).await]).await.unwrap();
    assert!(farm.settle().await.again);
    assert_eq!(farm.urgencies().await, [-1, 55, 55, -1, 55]);
    commit(transaction).await.unwrap();
    assert_eq!(farm.settle().await, Settled { changed: 1, again: false });
    assert_eq!(farm.urgencies().await, [55, 55, 55, -1, 55]);
    assert_eq!(farm.paths().await, [2000, 2000, 1000, 1000, 1000]);
    assert_eq!(farm.settle().await, Settled::default());

    // Neither does it when it is wanted again and fails at once, or when an operator says it once more.
    farm.evaluate(DIAMOND, &[3]).await;
    farm.set_emergency(Subject::Build(farm.build(3).await), true).await.unwrap();
    assert_eq!(farm.urgencies().await, [55, 55, 55, -1, 55]);
    // By then a minute is expected of each, and nothing unfinished is behind 2.
    assert_eq!(farm.paths().await, [120_000, 2000, 60_000, 1000, 60_000]);

    farm.set_paths(1000, &[2000, 2000, 1000, 1000, 1000]).await;
    farm.restart(3).await;
    assert_eq!(farm.urgencies().await, [-1, -1, -1, -1, 55]);
    assert_eq!(farm.paths().await, [3000, 2000, 2000, 1000, 1000]);
    farm.check().await;
}

#[tokio::test]
async fn what_was_stopped_and_begins_anew_by_an_evaluation_is_needed_as_urgently_again() {
    let farm = Farm::with(DIAMOND).await;
    farm.set_priority(3, Some(7)).await.unwrap();
    assert_eq!(farm.urgencies().await, [7, 7, 7, 7, 55]);
    let claimed = farm.claim(1).await;
    assert_eq!(farm.cancel(1).await.stopping.len(), 1);
    assert!(farm.end(&claimed, AttemptClass::Canceled, Consequence::Ready).await.noted);
    assert_eq!(farm.states().await[3], "canceled");
    assert_eq!(farm.settle().await, Settled { changed: 3, again: false });
    assert_eq!(farm.urgencies().await, [55, 55, 55, 7, 55]);

    // An evaluation wants 1 alone: 3 begins anew with it, and so what else 3 needs is urgent again.
    farm.evaluate(&DIAMOND[..2], &[1]).await;
    assert_eq!(farm.states().await[3], "waiting");
    assert_eq!(farm.settle().await, Settled { changed: 3, again: false });
    assert_eq!(farm.urgencies().await, [7, 7, 7, 7, 55]);
    farm.check().await;
}

#[tokio::test]
async fn what_nobody_else_wants_is_built_last() {
    // 2 is the only job, and needs 0 and 1.
    let farm = Farm::with(&[]).await;
    farm.evaluate(&[&[], &[], &[0, 1]], &[2]).await;
    assert_eq!(farm.urgencies().await, [55; 3]);
    let claimed = farm.claim(0).await;
    farm.end(&claimed, AttemptClass::BuildFailed, Consequence::Fail).await;
    farm.settle().await;
    assert_eq!(farm.urgencies().await, [99, 99, 55]);
    assert_eq!(farm.ready().await, [farm.build(1).await]);
}
