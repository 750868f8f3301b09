//! The deeds of operators, and the listings they choose from, on a real database.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

mod farm;

use farm::Farm;
use hauberk_database::dispatch::{AttemptClass, Consequence};
use hauberk_database::listing::{self, Filter};
use hauberk_database::operators::{self, Extent, Only, OperatorError, Subject};
use hauberk_database::workers::Direction;
use hauberk_database::{BuildId, BuildState, Database, EvaluationId, Priority, audit, overview};

const ALONE: Extent = Extent { dependencies: false, dependents: false };

impl Farm {
    fn database(&self) -> &Database {
        self.test.database()
    }

    async fn fail(&self, number: usize) {
        let claimed = self.claim(number).await;
        self.end(&claimed, AttemptClass::BuildFailed, Consequence::Fail).await;
    }

    async fn cancel(&self, number: usize) {
        operators::cancel_builds(self.database(), "anna", &[self.build(number).await]).await.unwrap();
    }

    async fn restart(&self, number: usize, extent: Extent, only: Only) -> usize {
        let builds = [self.build(number).await];
        let outcome = operators::restart_builds(self.database(), "ben", &builds, extent, only).await.unwrap();
        outcome.revived.len()
    }

    async fn history(&self, number: usize) -> Vec<(String, String)> {
        let lines = operators::of_build(&self.client().await, self.build(number).await, 10).await.unwrap();
        lines.into_iter().map(|line| (line.who, line.action)).collect()
    }

    async fn list(&self, filter: Filter) -> Vec<String> {
        let listing = listing::builds(&self.client().await, &filter, 100).await.unwrap();
        assert!(!listing.is_partial);
        listing.builds.into_iter().map(|build| build.line.name).collect()
    }
}

/// Two chains of two, and a build that needs both.
const GRAPH: &[&[usize]] = &[&[], &[0], &[], &[2], &[1, 3]];

#[tokio::test]
async fn a_restart_takes_only_what_it_is_asked_for() {
    let farm = Farm::with(GRAPH).await;
    farm.fail(0).await;
    farm.cancel(2).await;
    assert_eq!(
        farm.states().await,
        ["failed", "failed_dependency", "canceled", "canceled", "failed_dependency"]
    );
    // What failed stays, and with it what needs it.
    let outcome =
        operators::restart_evaluation(farm.database(), "ben", farm.evaluation, Only::Canceled).await.unwrap();
    assert_eq!((outcome.revived.len(), outcome.left.len()), (2, 3));
    assert_eq!(farm.states().await, ["failed", "failed_dependency", "ready", "waiting", "failed_dependency"]);
    let outcome =
        operators::restart_evaluation(farm.database(), "ben", farm.evaluation, Only::Failed).await.unwrap();
    assert_eq!((outcome.revived.len(), outcome.left.len()), (3, 0));
    assert_eq!(farm.states().await, ["ready", "waiting", "ready", "waiting", "waiting"]);
    farm.check().await;
}

#[tokio::test]
async fn what_was_canceled_and_needs_what_failed_waits_for_its_restart() {
    let farm = Farm::with(&[&[], &[0], &[1]]).await;
    farm.cancel(1).await;
    farm.fail(0).await;
    assert_eq!(farm.states().await, ["failed", "canceled", "canceled"]);
    assert_eq!(farm.restart(1, ALONE, Only::Canceled).await, 0);
    assert_eq!(farm.restart(1, ALONE, Only::Failed).await, 0);
    assert_eq!(farm.restart(1, ALONE, Only::Any).await, 3);
    assert_eq!(farm.states().await, ["ready", "waiting", "waiting"]);
    farm.check().await;
}

#[tokio::test]
async fn a_subtree_begins_anew_with_what_it_needs_or_what_needs_it() {
    let farm = Farm::with(GRAPH).await;
    farm.succeed(0).await;
    farm.fail(1).await;
    farm.succeed(2).await;
    farm.fail(3).await;
    assert_eq!(farm.states().await[1..], ["failed", "succeeded", "failed", "failed_dependency"]);
    // What succeeded stays, and what needs it begins anew only when that is asked for.
    assert_eq!(farm.restart(0, ALONE, Only::Any).await, 0);
    assert_eq!(farm.restart(0, Extent { dependents: true, dependencies: false }, Only::Failed).await, 1);
    assert_eq!(farm.states().await[1..], ["ready", "succeeded", "failed", "failed_dependency"]);
    assert_eq!(farm.restart(4, Extent { dependencies: true, dependents: false }, Only::Any).await, 2);
    assert_eq!(farm.states().await, ["succeeded", "ready", "succeeded", "ready", "waiting"]);
    assert_eq!(farm.history(4).await, [("ben".to_owned(), "build.restart".to_owned())]);
    farm.check().await;
}

#[tokio::test]
async fn deeds_are_recorded_with_all_they_touched_or_not_done() {
    let farm = Farm::with(GRAPH).await;
    farm.cancel(2).await;
    for number in [2, 3, 4] {
        assert_eq!(farm.history(number).await, [("anna".to_owned(), "build.cancel".to_owned())]);
    }
    assert_eq!(farm.history(0).await, []);
    let nobody = BuildId::new(99_999);
    let first = farm.build(0).await;
    let refused = operators::cancel_builds(farm.database(), "anna", &[first, nobody]).await;
    assert!(matches!(refused, Err(OperatorError::NoBuilds(ids)) if ids == [nobody]));
    let refused =
        operators::restart_builds(farm.database(), "anna", &[nobody], ALONE, Only::Any).await.unwrap_err();
    assert!(refused.to_string().contains("no build 99999"), "{refused}");
    let refused = operators::cancel_evaluation(farm.database(), "anna", EvaluationId::new(77)).await;
    assert!(matches!(refused, Err(OperatorError::NoEvaluation(_))));
    let refused =
        operators::direct_workers(farm.database(), "anna", &["w", "absent"], Direction::Drain).await;
    assert!(matches!(refused, Err(OperatorError::NoWorker(name)) if name == "absent"));
    let refused = operators::evaluate(farm.database(), "anna", "absent").await;
    assert!(matches!(refused, Err(OperatorError::NoSpecification(_))));
    assert_eq!(farm.states().await[..2], ["ready", "waiting"]);
    assert_eq!(audit::latest(&farm.client().await, 100).await.unwrap().len(), 1);

    operators::direct_workers(farm.database(), "anna", &["w"], Direction::Pause(Some("a new disk")))
        .await
        .unwrap();
    operators::remove_worker(farm.database(), "ben", "w").await.unwrap();
    let lines = operators::of_subject(&farm.client().await, Subject::Worker, "w", 10).await.unwrap();
    let told: Vec<_> = lines.iter().map(|line| (line.who.as_str(), line.action.as_str())).collect();
    assert_eq!(told, [("ben", "worker.remove"), ("anna", "worker.pause")]);
    assert!(lines[1].detail.as_ref().unwrap().to_string().contains("a new disk"));
    // A worker of the same name as an evaluation's number is another thing.
    assert!(
        operators::of_subject(&farm.client().await, Subject::Evaluation, "w", 10).await.unwrap().is_empty()
    );
}

#[tokio::test]
async fn older_evaluations_give_way_to_a_newer_one() {
    let farm = Farm::with(&[&[], &[], &[]]).await;
    let second = farm.evaluate(&[&[], &[], &[]], &[1, 2]).await;
    let third = farm.evaluate(&[&[], &[], &[]], &[2]).await;
    let superseded = operators::superseded(&farm.client().await, None).await.unwrap();
    let ids: Vec<EvaluationId> = superseded.iter().map(|one| one.evaluation).collect();
    assert_eq!(ids, [farm.evaluation, second]);
    let refused = operators::cancel_superseded(farm.database(), "anna", Some("other")).await;
    assert!(matches!(refused, Err(OperatorError::NoSpecification(_))));
    let outcomes = operators::cancel_superseded(farm.database(), "anna", Some("s")).await.unwrap();
    assert_eq!(outcomes.len(), 2);
    assert_eq!(farm.states().await, ["canceled", "canceled", "ready"]);
    assert!(operators::superseded(&farm.client().await, None).await.unwrap().is_empty());
    let client = farm.client().await;
    let lines = operators::of_subject(&client, Subject::Evaluation, &second.to_string(), 5).await.unwrap();
    assert_eq!(lines[0].action, "evaluation.cancel_superseded");
    assert_eq!(farm.history(1).await[0].1, "evaluation.cancel_superseded");

    // Only the newest is evaluated again, and an older one can still be restarted.
    let refused = operators::retry_evaluation(farm.database(), "anna", second).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("retry {third}")), "{refused}");
    assert_eq!(operators::retry_evaluation(farm.database(), "anna", third).await.unwrap(), "s");
    let latest = hauberk_database::evaluations::latest(&client, farm.specification).await.unwrap();
    assert!(latest.unwrap().outdated);
    let outcome = operators::restart_evaluation(farm.database(), "anna", second, Only::Any).await.unwrap();
    assert_eq!(outcome.revived.len(), 1);
    assert_eq!(operators::superseded(&farm.client().await, None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn builds_are_found_by_what_is_asked() {
    let farm = Farm::with(&[&[], &[0], &[], &[2]]).await;
    farm.fail(0).await;
    farm.succeed(2).await;
    let of = |states: &[BuildState]| Filter { states: states.to_vec(), ..Filter::default() };
    let everything = farm.list(Filter::default()).await;
    assert_eq!(everything.len(), 4);
    assert_eq!(farm.list(of(&[BuildState::Failed])).await, ["p0"]);
    assert_eq!(farm.list(of(&[BuildState::Ready])).await, ["p3"]);
    assert_eq!(farm.list(of(&[BuildState::Ready, BuildState::Succeeded])).await.len(), 2);
    for filter in [
        Filter { worker: Some("w".into()), ..Filter::default() },
        Filter { worker: Some("w".into()), evaluation: Some(farm.evaluation), ..Filter::default() },
    ] {
        assert_eq!(farm.list(filter).await, ["p2", "p0"]);
    }
    let evaluation = Some(farm.evaluation);
    assert_eq!(farm.list(Filter { evaluation, ..Filter::default() }).await.len(), 4);
    assert_eq!(farm.list(Filter { evaluation, ..of(&[BuildState::FailedDependency]) }).await, ["p1"]);
    for name in ["p3", "p3*", "?3", "*3"] {
        assert_eq!(
            farm.list(Filter { name: Some(name.into()), ..Filter::default() }).await,
            ["p3"],
            "{name}"
        );
    }
    assert!(farm.list(Filter { name: Some("p%".into()), ..Filter::default() }).await.is_empty());
    let system = |system: &str| Filter { system: Some(system.into()), ..Filter::default() };
    assert_eq!(farm.list(system("x86_64-linux")).await.len(), 4);
    assert!(farm.list(system("aarch64-linux")).await.is_empty());
    let specification = |name: &str| Filter { specification: Some(name.into()), ..Filter::default() };
    assert_eq!(farm.list(specification("s")).await.len(), 4);
    assert!(farm.list(specification("absent")).await.is_empty());
    let two = listing::builds(&farm.client().await, &Filter::default(), 2).await.unwrap();
    assert_eq!(two.builds.len(), 2);
    assert!(two.builds[0].line.id > two.builds[1].line.id);

    let client = farm.client().await;
    let queue = overview::queue(&client).await.unwrap();
    assert_eq!(queue.counted, None);
    assert_eq!(
        queue.builds.iter().map(|one| (one.state, one.builds)).collect::<Vec<_>>(),
        [(BuildState::Ready, 1)]
    );
    let rates = overview::rates(&client).await.unwrap();
    assert_eq!(rates.iter().map(|rate| rate.minute).sum::<i64>(), 3);
    assert_eq!(overview::servers(&client).await.unwrap()[0].name, "srv");
}

#[tokio::test]
async fn urgency_is_handed_down_and_recorded_for_all_it_changes() {
    let farm = Farm::with(&[&[], &[0], &[]]).await;
    let top = farm.build(1).await;
    let priority = Priority::try_from(3).unwrap();
    let changed =
        operators::set_priority(farm.database(), "anna", &[top], Some(priority)).await.unwrap().remove(0).1;
    assert_eq!((changed.urgency.unwrap().priority, changed.builds.len()), (priority, 2));
    for number in [0, 1] {
        assert_eq!(farm.history(number).await, [("anna".to_owned(), "build.priority".to_owned())]);
    }
    assert_eq!(farm.history(2).await, []);
    let changed =
        operators::set_evaluation_emergency(farm.database(), "ben", farm.evaluation, true).await.unwrap();
    assert_eq!(changed.builds.len(), 3);
    assert_eq!(farm.history(2).await, [("ben".to_owned(), "evaluation.emergency".to_owned())]);
    operators::set_build_emergency(farm.database(), "ben", &[top], false).await.unwrap();
    let all =
        operators::set_evaluation_priority(farm.database(), "ben", farm.evaluation, None).await.unwrap();
    assert_eq!(all.len(), 3);
    farm.succeed(0).await;
    let done = farm.build(0).await;
    let refused = operators::set_build_emergency(farm.database(), "ben", &[done], true).await;
    assert!(matches!(refused, Err(OperatorError::NotUnfinished(id)) if id == done));
    let nothing = EvaluationId::new(99);
    let refused = operators::set_evaluation_priority(farm.database(), "ben", nothing, None).await;
    assert!(matches!(refused, Err(OperatorError::NoEvaluation(_))));
}

#[tokio::test]
async fn a_long_queue_is_counted_once_for_all_who_ask() {
    let farm = Farm::with(&[&[]]).await;
    let client = farm.client().await;
    let more = |count: i64| {
        format!(
        "insert into builds (lane_id, derivation_id, name, system, state)
         select lane_id, derivation_id, name || n, system, 'waiting' from builds, generate_series(1, {count}) n where id = 1"
    )
    };
    let counts = async || {
        let queue = overview::queue(&client).await.unwrap();
        (queue.counted, queue.builds.iter().map(|one| (one.state, one.builds)).collect::<Vec<_>>())
    };
    // A short queue is never told from what was written down.
    overview::queue(&client).await.unwrap();
    assert!(client.query("select from queue_counts", &[]).await.unwrap().is_empty());
    client.batch_execute(&more(overview::LONG)).await.unwrap();
    let first = vec![(BuildState::Ready, 1), (BuildState::Waiting, overview::LONG)];
    let second = vec![(BuildState::Ready, 1), (BuildState::Waiting, overview::LONG + 1)];
    assert_eq!(counts().await, (Some(0), first.clone()));
    client.batch_execute(&more(1)).await.unwrap();
    assert_eq!(counts().await.1, first, "it is not counted again at once");
    // Somebody counts anew: what is not very old is told meanwhile, and what is is counted for this one alone.
    let mut other = farm.client().await;
    let age = async |by: &str| {
        let sql = format!("update queue_counts set counted_at = now() - interval '{by}'");
        client.batch_execute(&sql).await.unwrap();
    };
    let counting = other.transaction().await.unwrap();
    counting.execute("select pg_advisory_xact_lock(4826391004)", &[]).await.unwrap();
    age("1 minute").await;
    let (counted, told) = counts().await;
    assert!(counted.is_some_and(|seconds| seconds >= 60) && told == first);
    age("1 hour").await;
    assert_eq!(counts().await, (None, second.clone()));
    counting.rollback().await.unwrap();
    assert_eq!(counts().await, (Some(0), second));
}
