//! What dispatch does to builds and attempts, on a real database.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

mod farm;

use farm::{Farm, path};
use hauberk_database::dispatch::{
    self, AttemptClass, AttemptOrigin, Built, BuiltOutput, Consequence, Fetched, KnownPath, Measures,
    Reached, ReadyBuild,
};
use hauberk_database::{AttemptId, BuildId, LaneId, WorkerId, attempts, begin, commit, servers};

/// No delay here is longer, in seconds.
const LONGEST: f64 = 86_400.0;

#[tokio::test]
async fn a_chain_is_built_link_by_link() {
    let farm = Farm::with(&[&[], &[0], &[0, 1]]).await;
    assert_eq!(farm.states().await, ["ready", "waiting", "waiting"]);
    assert_eq!(farm.ready().await, [farm.build(0).await]);
    assert_eq!(farm.succeed(0).await, [farm.build(1).await]);
    farm.check().await;
    assert_eq!(farm.succeed(1).await, [farm.build(2).await]);
    assert!(farm.succeed(2).await.is_empty());
    assert_eq!(farm.states().await, ["succeeded"; 3]);
    farm.check().await;
}

#[tokio::test]
async fn a_claim_tells_all_that_the_worker_must_know() {
    let farm = Farm::with(&[&[], &[0]]).await;
    farm.succeed(0).await;
    let claimed = farm.claim(1).await;
    assert_eq!(claimed.number, 1);
    assert_eq!(claimed.derivation.to_string(), format!("/nix/store/{:032}-p1.drv", 1));
    assert_eq!(claimed.outputs, [("out".to_owned(), path(1))]);
    assert_eq!(claimed.inputs, [KnownPath { path: path(0), nar_hash: vec![0; 32], nar_size: 100 }]);
    assert_eq!((claimed.timeout, claimed.max_silent, claimed.priority), (3600, 600, 55));
    assert_eq!((claimed.worker, claimed.session), (farm.worker, 7));
    farm.check().await;
}

#[tokio::test]
async fn a_build_is_claimed_once() {
    let farm = Farm::with(&[&[]]).await;
    let build = farm.build(0).await;
    let first = farm.claim(0).await;
    assert!(farm.claim_with(&[build], farm.epoch, false).await.is_empty());
    // The server did not learn that its transaction was committed, and asks again.
    let again = farm.claim_with(&[build], farm.epoch, true).await;
    assert_eq!(again.iter().map(|claimed| claimed.attempt).collect::<Vec<_>>(), [first.attempt]);
    farm.check().await;
}

#[tokio::test]
async fn a_failure_fails_all_that_needs_it_and_nothing_else() {
    let farm = Farm::with(&[&[], &[0], &[1], &[]]).await;
    let claimed = farm.claim(0).await;
    let effects = farm.end(&claimed, AttemptClass::BuildFailed, Consequence::Fail).await;
    assert_eq!(effects.finished.len(), 3);
    assert_eq!(farm.states().await, ["failed", "failed_dependency", "failed_dependency", "ready"]);
    let client = farm.client().await;
    let rows = client
        .query("select failed_build_id from builds where state = 'failed_dependency'", &[])
        .await
        .unwrap();
    let root = farm.build(0).await;
    assert!(rows.iter().all(|row| row.get::<_, Option<BuildId>>(0) == Some(root)));
    farm.check().await;
}

#[tokio::test]
async fn the_farms_fault_defers_a_build_and_the_next_try_is_counted() {
    let farm = Farm::with(&[&[]]).await;
    let claimed = farm.claim(0).await;
    let effects = farm.end(&claimed, AttemptClass::WorkerLost, Consequence::Retry { delay: 0.0 }).await;
    assert!(effects.deferred && effects.finished.is_empty());
    assert_eq!(farm.states().await, ["deferred"]);
    assert!(dispatch::next_deferred(&farm.client().await, LONGEST).await.unwrap().unwrap() <= 0.0);
    assert_eq!(dispatch::wake_deferred(&farm.client().await, LONGEST, &[]).await.unwrap().len(), 1);
    assert!(dispatch::next_deferred(&farm.client().await, LONGEST).await.unwrap().is_none());
    let claimed = farm.claim(0).await;
    assert_eq!((claimed.number, claimed.farm_faults), (2, 1));
    let effects = farm.end(&claimed, AttemptClass::Canceled, Consequence::Ready).await;
    assert_eq!(effects.ready.len(), 1);
    let claimed = farm.claim(0).await;
    assert_eq!((claimed.number, claimed.farm_faults), (3, 1));
    farm.end(&claimed, AttemptClass::Daemon, Consequence::FailOther).await;
    assert_eq!(farm.states().await, ["failed_other"]);
    farm.check().await;
}

/// Where each ready build has failed, as a refill and what follows on one show it.
async fn failed_on(farm: &Farm, classes: &[AttemptClass]) -> Vec<Vec<WorkerId>> {
    let client = farm.client().await;
    let shown = dispatch::window(&client, 10, None, classes).await.unwrap().builds;
    let reached = Reached { lane: LaneId::new(1), urgency: -1, path_step: i16::MAX, build: BuildId::new(0) };
    let more = dispatch::window_more(&client, 10, None, &[reached], classes).await.unwrap().builds;
    let by_build = |mut builds: Vec<ReadyBuild>| -> Vec<Vec<WorkerId>> {
        builds.sort_unstable_by_key(|build| build.id);
        builds.into_iter().map(|build| build.failed_on).collect()
    };
    let shown = by_build(shown);
    assert_eq!(by_build(more), shown);
    shown
}

#[tokio::test]
async fn what_failed_by_the_farms_fault_shows_where() {
    const FAULTS: &[AttemptClass] = &[AttemptClass::Daemon, AttemptClass::Transfer];
    let farm = Farm::with(&[&[], &[]]).await;
    let client = farm.client().await;
    assert_eq!(failed_on(&farm, FAULTS).await, [[], []] as [[WorkerId; 0]; 2]);
    // Twice at the same worker; stopped there for no fault before.
    let stopped = farm.claim(0).await;
    farm.end(&stopped, AttemptClass::Canceled, Consequence::Ready).await;
    for class in FAULTS {
        let claimed = farm.claim(0).await;
        farm.end(&claimed, *class, Consequence::Retry { delay: 0.0 }).await;
        let woken = dispatch::wake_deferred(&client, LONGEST, FAULTS).await.unwrap();
        assert_eq!(woken.into_iter().map(|build| build.failed_on).collect::<Vec<_>>(), [[farm.worker]]);
    }
    assert_eq!(failed_on(&farm, FAULTS).await, [vec![farm.worker], vec![]]);
    assert_eq!(failed_on(&farm, &[AttemptClass::DiskFull]).await, [[], []] as [[WorkerId; 0]; 2]);
    // So does an attempt that is taken over.
    farm.claim(0).await;
    let [open] = &attempts::open(&client, farm.epoch, FAULTS).await.unwrap()[..] else {
        panic!("one is open")
    };
    assert_eq!(open.failed_on, [farm.worker]);
    // What was before the build began anew does not count.
    client
        .execute("update builds set generation = generation + 1, state = 'ready' where farm_faults > 0", &[])
        .await
        .unwrap();
    assert_eq!(failed_on(&farm, FAULTS).await, [[], []] as [[WorkerId; 0]; 2]);
}

#[tokio::test]
async fn a_delay_is_waited_for() {
    let farm = Farm::with(&[&[]]).await;
    let claimed = farm.claim(0).await;
    farm.end(&claimed, AttemptClass::Transfer, Consequence::Retry { delay: 3600.0 }).await;
    assert!(dispatch::wake_deferred(&farm.client().await, LONGEST, &[]).await.unwrap().is_empty());
    assert!(dispatch::next_deferred(&farm.client().await, LONGEST).await.unwrap().unwrap() > 3000.0);
}

#[tokio::test]
async fn a_clock_that_was_set_back_keeps_no_build_waiting() {
    let farm = Farm::with(&[&[], &[]]).await;
    for build in 0..2 {
        let claimed = farm.claim(build).await;
        farm.end(&claimed, AttemptClass::Transfer, Consequence::Retry { delay: 60.0 }).await;
    }
    // Deferred for a minute, five hours later than it is now; the other is as it should be.
    let first = farm.build(0).await;
    farm.client()
        .await
        .execute("update builds set not_before = not_before + interval '5 hours' where id = $1", &[&first])
        .await
        .unwrap();
    assert!(dispatch::next_deferred(&farm.client().await, 30.0).await.unwrap().unwrap() <= 30.0);
    let woken = dispatch::wake_deferred(&farm.client().await, 3600.0, &[]).await.unwrap();
    assert_eq!(woken.iter().map(|build| build.id).collect::<Vec<_>>(), [first]);
    assert_eq!(farm.states().await, ["ready", "deferred"]);
    farm.check().await;
}

#[tokio::test]
async fn what_has_ended_cannot_be_ended_or_decided_again() {
    let farm = Farm::with(&[&[]]).await;
    let first = farm.claim(0).await;
    farm.end(&first, AttemptClass::Canceled, Consequence::Ready).await;
    let second = farm.claim(0).await;
    // The first attempt's worker speaks up late.
    let effects = farm.end(&first, AttemptClass::BuildFailed, Consequence::Fail).await;
    assert!(effects.finished.is_empty());
    farm.built(&first, 0).await;
    assert!(attempts::outputs(&farm.client().await, first.attempt).await.unwrap().is_empty());
    assert!(farm.fetched(&first, 0, farm.epoch).await.is_empty());
    assert_eq!(farm.states().await, ["assigned"]);
    farm.built(&second, 0).await;
    farm.fetched(&second, 0, farm.epoch).await;
    assert_eq!(farm.states().await, ["succeeded"]);
    farm.check().await;
}

#[tokio::test]
async fn a_newer_start_of_the_server_takes_the_open_attempts_over() {
    let farm = Farm::with(&[&[], &[]]).await;
    let running = farm.claim(0).await;
    let done = farm.claim(1).await;
    farm.built(&done, 1).await;
    let client = farm.client().await;
    let newer = servers::begin_epoch(&client, farm.server, std::time::Duration::from_secs(60)).await.unwrap();
    assert!(!servers::beat(&client, farm.epoch).await.unwrap());
    assert!(servers::beat(&client, newer).await.unwrap());
    let open = attempts::open(&client, newer, &[]).await.unwrap();
    let open: Vec<(AttemptId, bool)> = open.iter().map(|open| (open.attempt, open.built)).collect();
    assert_eq!(open, [(running.attempt, false), (done.attempt, true)]);
    // The older start does not know yet, and what it writes touches nothing.
    farm.end(&running, AttemptClass::WorkerLost, Consequence::FailOther).await;
    assert!(farm.fetched(&done, 1, farm.epoch).await.is_empty());
    assert_eq!(farm.states().await, ["assigned", "built"]);
    farm.fetched(&done, 1, newer).await;
    assert_eq!(farm.states().await, ["assigned", "succeeded"]);
    // What the older one was giving out as it ended is taken over too.
    let farm = Farm::with(&[&[]]).await;
    let client = farm.client().await;
    let newer = servers::begin_epoch(&client, farm.server, std::time::Duration::from_secs(60)).await.unwrap();
    client.execute("update server_epochs set ended_at = null", &[]).await.unwrap();
    let stray = farm.claim(0).await;
    client.execute("update server_epochs set ended_at = now() where epoch <> $1", &[&newer]).await.unwrap();
    assert_eq!(servers::adopt(&client, farm.server, newer).await.unwrap(), [stray.attempt]);
    assert!(servers::adopt(&client, farm.server, newer).await.unwrap().is_empty());
    assert_eq!(attempts::open(&client, newer, &[]).await.unwrap().len(), 1);
    servers::end_epoch(&client, newer).await.unwrap();
    assert!(!servers::beat(&client, newer).await.unwrap());
}

#[tokio::test]
async fn a_started_build_is_running_and_its_fetch_is_shown() {
    let farm = Farm::with(&[&[]]).await;
    let claimed = farm.claim(0).await;
    let client = farm.client().await;
    dispatch::start(&client, &[(claimed.attempt, 12)], farm.epoch).await.unwrap();
    assert_eq!(farm.states().await, ["running"]);
    farm.built(&claimed, 0).await;
    assert_eq!(farm.states().await, ["built"]);
    dispatch::fetching(&client, &[claimed.attempt], farm.epoch).await.unwrap();
    assert_eq!(farm.states().await, ["fetching"]);
    dispatch::fetch_failed(&client, claimed.attempt, farm.epoch, 1.0, "no route").await.unwrap();
    let source = attempts::result_source(&client, claimed.attempt).await.unwrap().unwrap();
    assert_eq!((source.worker.as_str(), source.fetch_tries), ("w", 1));
    let expected = attempts::expected_outputs(&client, claimed.attempt).await.unwrap();
    assert_eq!(expected, [("out".to_owned(), path(0))]);
    let nobodys = AttemptId::new(claimed.attempt.get() + 1000);
    let owners = attempts::log_owners(&client, &[claimed.attempt, nobodys], farm.server).await.unwrap();
    assert_eq!(owners.len(), 1);
    let owner = &owners[&claimed.attempt];
    assert_eq!((owner.public_key.as_deref(), owner.complete), (Some("key"), false));
    let complete = [(claimed.attempt, 9)];
    assert_eq!(attempts::log_complete(&client, &complete, farm.server).await.unwrap(), [claimed.attempt]);
    let log = attempts::latest_log(&client, &path(0)).await.unwrap().unwrap();
    assert_eq!((log.path, log.complete), (format!("0/{}.gz", claimed.attempt), true));
    assert_eq!(log.server, Some(farm.server));
    assert!(attempts::latest_log(&client, &path(9)).await.unwrap().is_none());
    farm.check().await;
}

#[tokio::test]
async fn a_complete_log_is_recorded_without_waiting_for_whoever_writes_about_its_attempt() {
    let farm = Farm::with(&[&[], &[]]).await;
    let (first, second) = (farm.claim(0).await, farm.claim(1).await);
    let mut writer = farm.client().await;
    let transaction = begin(&mut writer).await.unwrap();
    dispatch::start(&transaction, &[(first.attempt, 0)], farm.epoch).await.unwrap();
    let client = farm.client().await;
    let logs = [(second.attempt, 2), (first.attempt, 1)];
    assert_eq!(attempts::log_complete(&client, &logs, farm.server).await.unwrap(), [second.attempt]);
    commit(transaction).await.unwrap();
    assert_eq!(attempts::log_complete(&client, &logs[1..], farm.server).await.unwrap(), [first.attempt]);
    farm.check().await;
}

#[tokio::test]
async fn what_is_built_and_fetched_at_once_succeeds_in_one_step_and_once() {
    let farm = Farm::with(&[&[], &[0]]).await;
    let claimed = farm.claim(0).await;
    let output = BuiltOutput {
        name: "out".into(),
        path: path(0),
        nar_hash: vec![7; 32],
        nar_size: 100,
        references: Vec::new(),
    };
    let known = KnownPath { path: path(0), nar_hash: vec![7; 32], nar_size: 100 };
    let finished = [(
        Built {
            attempt: claimed.attempt,
            build: claimed.build,
            origin: AttemptOrigin::Built,
            outputs: vec![output.clone()],
            measures: Measures { build_ms: Some(5), ..Measures::default() },
        },
        Fetched { attempt: claimed.attempt, build: claimed.build, outputs: vec![known] },
    )];
    let client = farm.client().await;
    let effects = dispatch::finish(&client, &finished, &[], farm.epoch, farm.server).await.unwrap();
    assert_eq!(effects.finished, [claimed.build]);
    assert_eq!(effects.ready.iter().map(|ready| ready.id).collect::<Vec<_>>(), [farm.build(1).await]);
    assert_eq!(attempts::outputs(&client, claimed.attempt).await.unwrap(), [output]);
    let row = client
        .query_one(
            "select started_at is not null and built_at is not null and ended_at is not null, class, build_ms \
             from attempts",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (true, "succeeded", 5_i64));
    let again = dispatch::finish(&client, &finished, &[], farm.epoch, farm.server).await.unwrap();
    assert!(again.finished.is_empty() && again.ready.is_empty());
    assert_eq!(farm.states().await, ["succeeded", "ready"]);
    let next = farm.claim(1).await;
    assert_eq!(next.inputs.len(), 1);
    farm.check().await;
}
