//! Cancellation, restart and the reversal of failures, on a real database.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

mod farm;

use std::time::Duration;

use farm::Farm;
use hauberk_database::control::{self, Canceled, Restarted};
use hauberk_database::dispatch::{self, AttemptClass, Claimed, Consequence};
use hauberk_database::listen::{CONTROL, EVALUATION_CANCELED, Event, Listener, READY};
use hauberk_database::workers::{self, Direction, Order};
use hauberk_database::{BuildId, Client, EvaluationId, begin, commit};

const LOST: Consequence = Consequence::Retry { delay: 0.0 };

impl Farm {
    async fn ids(&self, numbers: &[usize]) -> Vec<BuildId> {
        let mut ids = Vec::new();
        for number in numbers {
            ids.push(self.build(*number).await);
        }
        ids
    }

    async fn cancel(&self, numbers: &[usize]) -> Canceled {
        let ids = self.ids(numbers).await;
        let mut client = self.client().await;
        let transaction = begin(&mut client).await.unwrap();
        let mut canceled = control::cancel_builds(&transaction, &ids).await.unwrap();
        commit(transaction).await.unwrap();
        canceled.canceled.sort_unstable();
        canceled
    }

    async fn cancel_evaluation(&self, evaluation: EvaluationId) -> Option<Canceled> {
        let mut client = self.client().await;
        let transaction = begin(&mut client).await.unwrap();
        let canceled = control::cancel_evaluation(&transaction, evaluation).await.unwrap();
        commit(transaction).await.unwrap();
        canceled
    }

    async fn restart(&self, numbers: &[usize]) -> Restarted {
        let ids = self.ids(numbers).await;
        let mut client = self.client().await;
        let transaction = begin(&mut client).await.unwrap();
        let mut restarted = control::restart_builds(&transaction, &ids).await.unwrap();
        commit(transaction).await.unwrap();
        restarted.revived.sort_unstable();
        restarted
    }

    async fn fail(&self, number: usize) {
        let claimed = self.claim(number).await;
        self.end(&claimed, AttemptClass::BuildFailed, Consequence::Fail).await;
    }

    async fn to_stop(&self) -> Vec<i64> {
        let unwanted = control::to_stop(&self.client().await, self.epoch).await.unwrap();
        unwanted.into_iter().map(|attempt| attempt.get()).collect()
    }

    async fn running(&self, number: usize) -> Claimed {
        let claimed = self.claim(number).await;
        dispatch::start(&self.client().await, &[(claimed.attempt, 1)], self.epoch).await.unwrap();
        claimed
    }

    async fn generations(&self) -> Vec<i32> {
        let client = self.client().await;
        let rows = client
            .query(
                "select b.generation from builds b join outputs o on o.build_id = b.id order by o.path",
                &[],
            )
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// Waits until a connection waits for a lock.
async fn wait_until_blocked(client: &Client) {
    wait_until_so_many_are_blocked(client, 1).await;
}

async fn wait_until_so_many_are_blocked(client: &Client, count: i64) {
    let waiting = "select count(*) from pg_stat_activity where datname = current_database() \
                   and wait_event_type = 'Lock'";
    for _ in 0..2000 {
        if client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nobody waits for a lock");
}

#[tokio::test]
async fn what_waits_is_canceled_at_once_with_all_that_needs_it() {
    let farm = Farm::with(&[&[], &[0], &[1], &[]]).await;
    let canceled = farm.cancel(&[0]).await;
    assert_eq!(canceled.canceled, farm.ids(&[0, 1, 2]).await);
    assert!(canceled.stopping.is_empty() && canceled.over.is_empty() && canceled.unknown.is_empty());
    assert_eq!(farm.states().await, ["canceled", "canceled", "canceled", "ready"]);
    farm.check().await;
    let again = farm.cancel(&[0]).await;
    assert_eq!((again.over, again.canceled.len()), (farm.ids(&[0]).await, 0));
    let mut client = farm.client().await;
    let transaction = begin(&mut client).await.unwrap();
    let unknown = control::cancel_builds(&transaction, &[BuildId::new(999)]).await.unwrap();
    assert_eq!(unknown.unknown, [BuildId::new(999)]);
}

#[tokio::test]
async fn what_runs_is_stopped_first_and_canceled_by_whatever_ends_it() {
    for (class, consequence) in [
        (AttemptClass::Canceled, Consequence::Ready),
        (AttemptClass::WorkerLost, LOST),
        (AttemptClass::Transfer, LOST),
    ] {
        let farm = Farm::with(&[&[], &[0]]).await;
        let claimed = farm.running(0).await;
        let mut listener = Listener::connect(farm.test.location(), &[CONTROL]).await.unwrap();
        let canceled = farm.cancel(&[0]).await;
        assert_eq!((canceled.stopping, canceled.canceled.len()), (farm.ids(&[0]).await, 0));
        assert!(matches!(listener.next().await, Event::Notification { channel, .. } if channel == CONTROL));
        assert_eq!(farm.to_stop().await, [claimed.attempt.get()]);
        assert_eq!(farm.states().await, ["running", "waiting"]);
        let effects = farm.end(&claimed, class, consequence).await;
        assert_eq!((effects.finished.len(), effects.deferred, effects.ready.len()), (2, false, 0));
        assert_eq!(farm.states().await, ["canceled", "canceled"]);
        assert!(farm.to_stop().await.is_empty());
        farm.check().await;
    }
}

#[tokio::test]
async fn a_result_that_counts_comes_before_a_cancellation() {
    let farm = Farm::with(&[&[], &[0]]).await;
    let claimed = farm.running(0).await;
    farm.cancel(&[0]).await;
    farm.built(&claimed, 0).await;
    assert!(farm.to_stop().await.is_empty(), "it is built already");
    assert_eq!(farm.cancel(&[0]).await.over, farm.ids(&[0]).await);
    assert_eq!(farm.fetched(&claimed, 0, farm.epoch).await, farm.ids(&[1]).await);
    assert_eq!(farm.states().await, ["succeeded", "ready"]);

    let claimed = farm.running(1).await;
    farm.cancel(&[1]).await;
    farm.end(&claimed, AttemptClass::BuildFailed, Consequence::Fail).await;
    assert_eq!(farm.states().await, ["succeeded", "failed"]);
    farm.check().await;
}

#[tokio::test]
async fn an_evaluation_takes_only_what_nobody_else_wants() {
    // 0 is needed by 1 and 2; 3 stands alone; 4 needs 2.
    let graph: &[&[usize]] = &[&[], &[0], &[0], &[], &[2]];
    let farm = Farm::with(graph).await;
    let other = farm.evaluate(graph, &[4]).await;
    let canceled = farm.cancel_evaluation(farm.evaluation).await.unwrap();
    assert_eq!(canceled.canceled.len(), 2);
    assert_eq!(farm.states().await, ["ready", "canceled", "waiting", "canceled", "waiting"]);
    farm.check().await;
    // The last that wants the rest gives it up.
    farm.cancel_evaluation(other).await.unwrap();
    assert_eq!(farm.states().await, ["canceled"; 5]);
    assert_eq!(farm.cancel_evaluation(EvaluationId::new(999)).await, None);
    // A later one wants them again.
    farm.evaluate(graph, &[1, 4]).await;
    assert_eq!(farm.states().await, ["ready", "waiting", "waiting", "ready", "waiting"]);
    assert_eq!(farm.generations().await, [2; 5]);
    farm.check().await;
}

#[tokio::test]
async fn an_evaluation_that_wants_a_build_that_is_being_stopped_gets_it() {
    let graph: &[&[usize]] = &[&[], &[0]];
    let farm = Farm::with(graph).await;
    let claimed = farm.running(0).await;
    let canceled = farm.cancel_evaluation(farm.evaluation).await.unwrap();
    assert_eq!((canceled.stopping, canceled.canceled), (farm.ids(&[0]).await, farm.ids(&[1]).await));
    farm.evaluate(graph, &[1]).await;
    assert!(farm.to_stop().await.is_empty(), "the request is taken back");
    // The worker had been told already.
    let effects = farm.end(&claimed, AttemptClass::Canceled, Consequence::Ready).await;
    assert_eq!(effects.ready.len(), 1);
    assert_eq!(farm.states().await, ["ready", "waiting"]);
    farm.check().await;
}

#[tokio::test]
async fn a_running_build_goes_on_until_the_last_evaluation_gives_it_up() {
    // 0 is needed by 1, which the first evaluation wants alone, and by 2.
    let graph: &[&[usize]] = &[&[], &[0], &[0]];
    let farm = Farm::with(graph).await;
    let other = farm.evaluate(graph, &[2]).await;
    let claimed = farm.running(0).await;
    let canceled = farm.cancel_evaluation(farm.evaluation).await.unwrap();
    assert_eq!((canceled.stopping, canceled.canceled), (Vec::new(), farm.ids(&[1]).await));
    assert!(farm.to_stop().await.is_empty(), "the other evaluation still wants it");
    assert_eq!(farm.states().await, ["running", "canceled", "waiting"]);
    farm.check().await;

    let canceled = farm.cancel_evaluation(other).await.unwrap();
    assert_eq!((canceled.stopping, canceled.canceled), (farm.ids(&[0]).await, farm.ids(&[2]).await));
    assert_eq!(farm.to_stop().await, [claimed.attempt.get()]);
    assert_eq!(farm.states().await, ["running", "canceled", "canceled"]);
    farm.end(&claimed, AttemptClass::Canceled, Consequence::Ready).await;
    assert_eq!(farm.states().await, ["canceled"; 3]);
    farm.check().await;
}

#[tokio::test]
async fn an_evaluation_that_runs_is_not_published_once_it_is_canceled() {
    let farm = Farm::with(&[&[]]).await;
    let client = farm.client().await;
    let evaluation = hauberk_database::evaluations::start(&client, farm.specification, &[]).await.unwrap();
    let mut listener = Listener::connect(farm.test.location(), &[EVALUATION_CANCELED]).await.unwrap();
    assert!(hauberk_database::evaluations::canceled(&client, &[evaluation]).await.unwrap().is_empty());
    assert_eq!(farm.cancel_evaluation(evaluation).await, Some(Canceled::default()));
    // Its register is told, once; that it is canceled stays with it.
    assert_eq!(farm.cancel_evaluation(evaluation).await, Some(Canceled::default()));
    assert_eq!(farm.cancel_evaluation(farm.evaluation).await.unwrap().canceled.len(), 1);
    client.execute("select pg_notify($1, 'end')", &[&EVALUATION_CANCELED]).await.unwrap();
    for expected in [evaluation.to_string(), "end".to_owned()] {
        let Event::Notification { payload, .. } = listener.next().await else {
            panic!("the connection is lost")
        };
        assert_eq!(payload, expected);
    }
    assert_eq!(hauberk_database::evaluations::canceled(&client, &[evaluation]).await.unwrap(), [evaluation]);
    let empty = hauberk_database::registration::Registration::default();
    let mut client = farm.client().await;
    assert!(hauberk_database::registration::publish(&mut client, evaluation, &empty).await.is_err());
}

#[tokio::test]
async fn a_restart_revives_what_failed_by_it_across_evaluations() {
    let farm = Farm::with(&[&[], &[0], &[1], &[]]).await;
    farm.evaluate(&[&[], &[0], &[1], &[], &[2, 3]], &[4]).await;
    farm.fail(0).await;
    let failed = "failed_dependency";
    assert_eq!(farm.states().await, ["failed", failed, failed, "ready", failed]);
    let mut listener = Listener::connect(farm.test.location(), &[READY]).await.unwrap();
    let restarted = farm.restart(&[0]).await;
    assert_eq!(restarted.revived, farm.ids(&[0, 1, 2, 4]).await);
    assert!(matches!(listener.next().await, Event::Notification { .. }));
    assert_eq!(farm.states().await, ["ready", "waiting", "waiting", "ready", "waiting"]);
    assert_eq!(farm.generations().await, [2, 2, 2, 1, 2]);
    farm.check().await;
    for number in [0, 1, 2, 3, 4] {
        farm.succeed(number).await;
        farm.check().await;
    }
    let again = farm.restart(&[0]).await;
    assert_eq!((again.revived.len(), again.succeeded), (0, farm.ids(&[0]).await));
}

#[tokio::test]
async fn what_failed_by_something_else_too_stays_failed() {
    let farm = Farm::with(&[&[], &[], &[0, 1], &[2]]).await;
    farm.fail(0).await;
    farm.fail(1).await;
    let failed = "failed_dependency";
    assert_eq!(farm.restart(&[0]).await.revived, farm.ids(&[0]).await);
    assert_eq!(farm.states().await, ["ready", "failed", failed, failed]);
    farm.check().await;
    assert_eq!(farm.restart(&[1]).await.revived, farm.ids(&[1, 2, 3]).await);
    assert_eq!(farm.states().await, ["ready", "ready", "waiting", "waiting"]);
    farm.check().await;
    assert_eq!(farm.restart(&[0]).await.unfinished, farm.ids(&[0]).await);
}

#[tokio::test]
async fn a_restart_of_a_dependent_goes_down_to_what_failed() {
    let farm = Farm::with(&[&[], &[0], &[1], &[0]]).await;
    farm.fail(0).await;
    let restarted = farm.restart(&[2]).await;
    assert_eq!(restarted.revived, farm.ids(&[0, 1, 2, 3]).await);
    farm.check().await;
    // What was canceled because of another begins anew with it; what was canceled for its own sake does not.
    farm.cancel(&[3]).await;
    farm.cancel(&[0]).await;
    assert_eq!(farm.states().await, ["canceled"; 4]);
    farm.restart(&[0]).await;
    assert_eq!(farm.states().await, ["ready", "waiting", "waiting", "canceled"]);
    farm.check().await;
}

#[tokio::test]
async fn a_deep_chain_fails_is_canceled_and_begins_anew_at_once() {
    let chain: Vec<Vec<usize>> = (0..250).map(|n: usize| n.checked_sub(1).into_iter().collect()).collect();
    let chain: Vec<&[usize]> = chain.iter().map(Vec::as_slice).collect();
    let farm = Farm::with(&chain).await;
    farm.fail(0).await;
    assert!(farm.states().await[1..].iter().all(|state| state == "failed_dependency"));
    assert_eq!(farm.restart(&[249]).await.revived.len(), 250);
    assert!(farm.states().await[1..].iter().all(|state| state == "waiting"));
    assert_eq!(farm.cancel(&[0]).await.canceled.len(), 250);
    farm.check().await;
}

#[tokio::test]
async fn a_failure_that_is_recorded_while_its_dependents_are_revived_fails_them_again() {
    // 2 needs 0, which is restarted, and 1, which fails meanwhile.
    let farm = Farm::with(&[&[], &[], &[0, 1]]).await;
    farm.fail(0).await;
    let claimed = farm.claim(1).await;
    let ids = farm.ids(&[0, 1]).await;

    // The failure is written first and committed last.
    let mut failing = farm.client().await;
    let transaction = begin(&mut failing).await.unwrap();
    dispatch::lock_builds(&transaction, &ids[1..]).await.unwrap();
    let restarting = {
        let mut client = farm.client().await;
        let ids = ids.clone();
        tokio::spawn(async move {
            let transaction = begin(&mut client).await.unwrap();
            let restarted = control::restart_builds(&transaction, &ids[..1]).await.unwrap();
            commit(transaction).await.unwrap();
            restarted
        })
    };
    wait_until_blocked(&farm.client().await).await;
    let ended = dispatch::Ended {
        attempt: claimed.attempt,
        build: claimed.build,
        class: AttemptClass::BuildFailed,
        message: String::new(),
        measures: dispatch::Measures::default(),
        consequence: Consequence::Fail,
    };
    dispatch::end(&transaction, std::slice::from_ref(&ended), farm.epoch).await.unwrap();
    commit(transaction).await.unwrap();
    restarting.await.unwrap();
    assert_eq!(farm.states().await, ["ready", "failed", "failed_dependency"]);
    farm.check().await;

    // The other way about: the restart holds what the failure wants.
    farm.restart(&[1]).await;
    farm.fail(0).await;
    let claimed = farm.claim(1).await;
    let mut restarting = farm.client().await;
    let transaction = begin(&mut restarting).await.unwrap();
    control::restart_builds(&transaction, &ids[..1]).await.unwrap();
    let failing = {
        let mut client = farm.client().await;
        let (epoch, builds) = (farm.epoch, vec![ids[1]]);
        let ended = dispatch::Ended { attempt: claimed.attempt, ..ended };
        tokio::spawn(async move {
            let transaction = begin(&mut client).await.unwrap();
            dispatch::lock_builds(&transaction, &builds).await.unwrap();
            dispatch::end(&transaction, &[ended], epoch).await.unwrap();
            commit(transaction).await.unwrap();
        })
    };
    wait_until_blocked(&farm.client().await).await;
    commit(transaction).await.unwrap();
    failing.await.unwrap();
    assert_eq!(farm.states().await, ["ready", "failed", "failed_dependency"]);
    farm.check().await;
}

#[tokio::test]
async fn a_result_that_is_recorded_while_its_dependents_are_published_is_not_missed() {
    // A result that is being recorded holds its build: the publication waits, and counts it as met.
    let graph: &[&[usize]] = &[&[], &[0]];
    let farm = Farm::with(&graph[..1]).await;
    let claimed = farm.claim(0).await;
    farm.built(&claimed, 0).await;
    let mut client = farm.client().await;
    let transaction = begin(&mut client).await.unwrap();
    dispatch::lock_builds(&transaction, &[claimed.build]).await.unwrap();
    let fetched = farm::fetched(&claimed, 0);
    dispatch::succeed(&transaction, &[fetched], farm.epoch, farm.server).await.unwrap();
    let publishing = farm.evaluate(graph, &[1]);
    let committing = async {
        wait_until_blocked(&farm.client().await).await;
        commit(transaction).await.unwrap();
    };
    tokio::join!(publishing, committing);
    assert_eq!(farm.states().await, ["succeeded", "ready"]);
    farm.check().await;

    // A publication that is being written holds what it counts: the result waits, and finds the new dependents. Its first statement
    // has begun by then, and cannot see them: only the second can, which begins when the publication is committed.
    for finishes in [false, true] {
        let farm = Farm::with(&graph[..1]).await;
        let claimed = farm.claim(0).await;
        if !finishes {
            farm.built(&claimed, 0).await;
        }
        // Nobody may add edges for now, so that the publication stops when it holds what it counts.
        let gate = farm.client().await;
        gate.batch_execute("begin; lock table build_dependencies in share mode").await.unwrap();
        let publishing = farm.evaluate(graph, &[1]);
        let recording = async {
            wait_until_blocked(&farm.client().await).await;
            let mut client = farm.client().await;
            let transaction = begin(&mut client).await.unwrap();
            let fetched = farm::fetched(&claimed, 0);
            if finishes {
                let built = farm::built(&claimed, 0);
                let both = [(built, fetched)];
                dispatch::finish(&transaction, &both, &[], farm.epoch, farm.server).await.unwrap();
            } else {
                dispatch::succeed(&transaction, &[fetched], farm.epoch, farm.server).await.unwrap();
            }
            commit(transaction).await.unwrap();
        };
        let opening = async {
            wait_until_so_many_are_blocked(&farm.client().await, 2).await;
            gate.batch_execute("commit").await.unwrap();
        };
        tokio::join!(publishing, recording, opening);
        assert_eq!(farm.states().await, ["succeeded", "ready"]);
        farm.check().await;
    }
}

#[tokio::test]
async fn workers_are_directed_by_name_and_the_server_is_told() {
    let farm = Farm::with(&[&[]]).await;
    let client = farm.client().await;
    let mut listener = Listener::connect(farm.test.location(), &[CONTROL]).await.unwrap();
    let description = workers::Description::default();
    workers::hello(&client, farm.epoch, &[(farm.worker, &description)]).await.unwrap();
    let order = |paused, reason: Option<&str>, draining| {
        let reason = reason.map(ToOwned::to_owned);
        [Order { worker: farm.worker, paused, reason, draining, revoked: false, set_aside: false }]
    };
    for (direction, expected) in [
        (Direction::Pause(Some("disk")), order(true, Some("disk"), false)),
        (Direction::Drain, order(true, Some("disk"), true)),
        (Direction::Resume, order(false, None, false)),
        (Direction::Pause(None), order(true, None, false)),
    ] {
        assert_eq!(workers::direct(&client, "w", direction).await.unwrap(), Some(farm.worker));
        assert!(matches!(listener.next().await, Event::Notification { .. }));
        assert_eq!(workers::orders(&client, farm.epoch).await.unwrap(), expected);
    }
    assert_eq!(workers::direct(&client, "nobody", Direction::Drain).await.unwrap(), None);

    assert_eq!(workers::remove(&client, "w").await.unwrap(), Some(farm.worker));
    assert!(matches!(listener.next().await, Event::Notification { .. }));
    let orders = workers::orders(&client, farm.epoch).await.unwrap();
    assert!(matches!(orders[..], [Order { revoked: true, .. }]), "{orders:?}");
    // Without a session and without attempts, there is nothing to be done about it.
    workers::disconnected(&client, &[farm.worker], farm.epoch).await.unwrap();
    assert_eq!(workers::orders(&client, farm.epoch).await.unwrap(), []);
}

#[tokio::test]
async fn a_worker_that_is_set_aside_is_paused_until_it_recovers_or_is_resumed() {
    let farm = Farm::with(&[]).await;
    let client = farm.client().await;
    let standing = async || {
        let order = workers::orders(&farm.client().await, farm.epoch).await.unwrap().remove(0);
        (order.paused, order.set_aside, order.reason)
    };
    let said = workers::Description::default();
    workers::hello(&client, farm.epoch, &[(farm.worker, &said)]).await.unwrap();
    let aside = (true, true, Some("sick".to_owned()));
    workers::set_aside(&mut farm.client().await, farm.worker, farm.epoch, "sick").await.unwrap();
    assert_eq!(standing().await, aside);
    workers::recover(&client, farm.worker, farm.epoch).await.unwrap();
    assert_eq!(standing().await, (false, false, None));
    workers::set_aside(&mut farm.client().await, farm.worker, farm.epoch, "sick").await.unwrap();
    workers::direct(&client, "w", Direction::Resume).await.unwrap().unwrap();
    assert_eq!(standing().await, (false, false, None));
    // What an operator has paused is the operator's.
    workers::direct(&client, "w", Direction::Pause(Some("new disk"))).await.unwrap().unwrap();
    workers::set_aside(&mut farm.client().await, farm.worker, farm.epoch, "sick").await.unwrap();
    workers::recover(&client, farm.worker, farm.epoch).await.unwrap();
    assert_eq!(standing().await, (true, false, Some("new disk".to_owned())));
}
