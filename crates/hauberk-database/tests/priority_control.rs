//! Priorities and emergencies by operators, on a real database.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

mod farm;

use farm::Farm;
use hauberk_database::listen::{Event, Listener, READY};
use hauberk_database::priority_control::{self, Changed, Subject};
use hauberk_database::{BuildId, EvaluationId, Priority, audit, begin, commit};

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
