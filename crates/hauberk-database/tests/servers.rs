//! Several servers on one database.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]
#![allow(dead_code, reason = "a module that several tests share")]

mod farm;

use std::time::Duration;

use farm::Farm;
use hauberk_database::dispatch::{self, AttemptClass, Claim, Consequence};
use hauberk_database::late::{self, Returned, Verdict, Word};
use hauberk_database::servers::{self, ServerFacts};
use hauberk_database::workers::{self, Description, Enrolment, NewWorker};
use hauberk_database::{BuildId, Epoch, GenericClient, LaneId, ServerId, WorkerId, attempts, begin, commit};

/// Adds another server to a farm, and starts it.
async fn second(farm: &Farm) -> (ServerId, Epoch) {
    let client = farm.client().await;
    let facts = ServerFacts {
        name: "second".into(),
        host: "elsewhere".into(),
        backend_port: 5555,
        log_port: 5556,
        publish_url: None,
        public_key: Some("key".into()),
        version: "0".into(),
        address: Some("elsewhere:5555".into()),
        stores: vec![servers::PublishedStore {
            directory: "/nix/store".into(),
            url: "http://elsewhere:5557".into(),
            keys: vec!["second-1:key".into()],
            identity: None,
        }],
    };
    let server = servers::enrol(&client, &facts).await.unwrap();
    (server, servers::begin_epoch(&client, server, Duration::from_secs(60)).await.unwrap())
}

async fn claim(farm: &Farm, number: usize, server: ServerId, epoch: Epoch) -> usize {
    let mut client = farm.client().await;
    let transaction = begin(&mut client).await.unwrap();
    let build: BuildId = farm.build(number).await;
    dispatch::lock_builds(&transaction, &[build]).await.unwrap();
    let claims = [Claim { build, worker: farm.worker, session: 9, lane: LaneId::new(1) }];
    let taken = dispatch::claim(&transaction, &claims, epoch, server, false).await.unwrap();
    commit(transaction).await.unwrap();
    taken.len()
}

async fn take_back(farm: &Farm, attempt: hauberk_database::AttemptId, word: Word, epoch: Epoch) -> Verdict {
    let returned = Returned { attempt, worker: farm.worker, word, report: None };
    let mut client = farm.client().await;
    let transaction = begin(&mut client).await.unwrap();
    let verdict = late::take_back(&transaction, &returned, epoch).await.unwrap();
    commit(transaction).await.unwrap();
    verdict
}

#[tokio::test]
async fn what_a_dead_server_had_goes_to_another_and_it_can_write_nothing_more() {
    let farm = Farm::with(&[&[], &[]]).await;
    let (server, epoch) = second(&farm).await;
    let claimed = farm.claim(0).await;
    let client = farm.client().await;
    let [peer] = &servers::watch(&client, server).await.unwrap()[..] else { panic!("there is one other") };
    assert_eq!((peer.epoch, peer.name.as_str()), (farm.epoch, "srv"));
    // As long as it lives, nothing is taken.
    assert_eq!(servers::take_over(&client, epoch).await.unwrap(), []);
    assert!(servers::beat(&client, farm.epoch).await.unwrap());
    assert!(!servers::close(&client, peer).await.unwrap(), "it has counted on");
    let peers = servers::watch(&client, server).await.unwrap();
    assert!(servers::close(&client, &peers[0]).await.unwrap());
    assert!(!servers::close(&client, &peers[0]).await.unwrap(), "one does it");
    assert_eq!(servers::watch(&client, server).await.unwrap(), []);
    assert_eq!(servers::take_over(&client, epoch).await.unwrap(), [claimed.attempt]);
    assert_eq!(servers::take_over(&client, epoch).await.unwrap(), []);
    assert_eq!(attempts::open(&client, epoch, &[]).await.unwrap().len(), 1);

    // It wakes up.
    assert!(!servers::beat(&client, farm.epoch).await.unwrap());
    assert!(!servers::is_superseded(&client, farm.server, farm.epoch).await.unwrap());
    dispatch::start(&client, &[(claimed.attempt, 1)], farm.epoch).await.unwrap();
    assert_eq!(farm.states().await, ["assigned", "ready"]);
    assert_eq!(claim(&farm, 1, farm.server, farm.epoch).await, 0, "it gives nothing out");
    assert_eq!(servers::take_over(&client, farm.epoch).await.unwrap(), [], "and takes nothing");
    let moved = dispatch::moved(&client, &[claimed.attempt], farm.epoch).await.unwrap();
    assert_eq!(moved.into_iter().collect::<Vec<_>>(), [claimed.attempt]);
    assert_eq!(take_back(&farm, claimed.attempt, Word::Running, farm.epoch).await, Verdict::NotOurs);
    assert_eq!(claim(&farm, 1, server, epoch).await, 1);
    dispatch::start(&client, &[(claimed.attempt, 1)], epoch).await.unwrap();
    assert_eq!(farm.states().await, ["running", "assigned"]);
}

#[tokio::test]
async fn an_attempt_goes_where_its_worker_goes() {
    let farm = Farm::with(&[&[]]).await;
    let (_, epoch) = second(&farm).await;
    let claimed = farm.claim(0).await;
    let client = farm.client().await;
    // Its server lives, and may write no more about it all the same.
    let Verdict::Reopened(reopened) = take_back(&farm, claimed.attempt, Word::Running, epoch).await else {
        panic!("it is open")
    };
    assert!(!reopened.built);
    dispatch::start(&client, &[(claimed.attempt, 1)], farm.epoch).await.unwrap();
    assert_eq!(farm.states().await, ["assigned"]);
    dispatch::start(&client, &[(claimed.attempt, 1)], epoch).await.unwrap();
    assert_eq!(farm.states().await, ["running"]);
    // And back, with its outputs under way.
    client.execute("update attempts set built_at = now()", &[]).await.unwrap();
    let verdict = take_back(&farm, claimed.attempt, Word::Kept, farm.epoch).await;
    assert!(matches!(verdict, Verdict::Reopened(reopened) if reopened.built));
    client.execute("update attempts set ended_at = now(), class = 'worker_lost'", &[]).await.unwrap();
    assert_eq!(take_back(&farm, claimed.attempt, Word::Kept, farm.epoch).await, Verdict::History);
}

/// A worker that says that it builds for this system, and joins the start of a server.
async fn joins(farm: &Farm, name: &str, system: &str, epoch: Epoch) -> WorkerId {
    let client = farm.client().await;
    let new = NewWorker { name, public_key: name, signing_key: "w-1:key", enrolled_by: "" };
    let Enrolment::Done(worker) = workers::add(&client, new).await.unwrap() else {
        panic!("{name} is enrolled")
    };
    let said = Description {
        store_directory: "/nix/store".to_owned(),
        systems: vec![system.to_owned()],
        ..Description::default()
    };
    workers::hello(&client, epoch, &[(worker, &said)]).await.unwrap();
    worker
}

#[tokio::test]
async fn the_last_worker_of_a_system_is_not_set_aside_whatever_server_it_is_at() {
    let farm = Farm::with(&[]).await;
    let (_, epoch) = second(&farm).await;
    let (here, there) = (farm.epoch, epoch);
    let first = joins(&farm, "first", "x86_64-linux", here).await;
    let second = joins(&farm, "second", "x86_64-linux", there).await;
    joins(&farm, "third", "aarch64-linux", there).await;
    let mut client = farm.client().await;
    let mut kinds = workers::elsewhere(&client, here).await.unwrap();
    kinds.sort_by(|a, b| a.systems.cmp(&b.systems));
    assert_eq!(
        kinds.iter().flat_map(|kind| &kind.systems).collect::<Vec<_>>(),
        ["aarch64-linux", "x86_64-linux"]
    );
    // Both servers find theirs sick at once, and either has the other's in mind: one of them stays.
    let mut other = farm.client().await;
    let (a, b) = tokio::join!(
        workers::set_aside(&mut client, first, here, "sick"),
        workers::set_aside(&mut other, second, there, "sick"),
    );
    a.unwrap();
    b.unwrap();
    let count = "select count(*) from workers where set_aside_at is not null";
    let set_aside = async || -> i64 { farm.client().await.query_one(count, &[]).await.unwrap().get(0) };
    assert_eq!(set_aside().await, 1);
    // With another at work the other goes as well, but not while that is paused.
    workers::set_aside(&mut client, first, here, "sick").await.unwrap();
    workers::set_aside(&mut client, second, there, "sick").await.unwrap();
    assert_eq!(set_aside().await, 1);
    let third = joins(&farm, "fourth", "x86_64-linux", there).await;
    for _ in 0..2 {
        workers::set_aside(&mut client, first, here, "sick").await.unwrap();
        workers::set_aside(&mut client, second, there, "sick").await.unwrap();
    }
    assert_eq!(set_aside().await, 2);
    workers::set_aside(&mut client, third, there, "sick").await.unwrap();
    assert_eq!(set_aside().await, 2);
}

#[tokio::test]
async fn a_server_hears_what_became_of_builds_at_another() {
    let farm = Farm::with(&[&[], &[], &[]]).await;
    let claimed = farm.claim(0).await;
    farm.end(&claimed, AttemptClass::DiskFull, Consequence::Retry { delay: 0.0 }).await;
    let client = farm.client().await;
    let builds = [farm.build(0).await, farm.build(1).await, farm.build(2).await];
    let own = [AttemptClass::Succeeded, AttemptClass::BuildFailed];
    assert_eq!(dispatch::over(&client, &builds, &own).await.unwrap(), []);
    dispatch::wake_deferred(&client, 3600.0, &[]).await.unwrap();
    let claimed = farm.claim(0).await;
    farm.end(&claimed, AttemptClass::BuildFailed, Consequence::Fail).await;
    let claimed = farm.claim(1).await;
    farm.end(&claimed, AttemptClass::Daemon, Consequence::FailOther).await;
    let over = dispatch::over(&client, &builds, &own).await.unwrap();
    assert_eq!(over, [(builds[0], Some(farm.worker)), (builds[1], None)]);
}

#[tokio::test]
async fn workers_are_told_of_the_other_servers() {
    let farm = Farm::with(&[&[]]).await;
    let (server, _) = second(&farm).await;
    let client = farm.client().await;
    let [other] = &servers::neighbours(&client, farm.server).await.unwrap()[..] else { panic!("one other") };
    assert_eq!((other.name.as_str(), other.address.as_str()), ("second", "elsewhere:5555"));
    assert_eq!(other.public_key.as_deref(), Some("key"));
    // The first has no address.
    assert_eq!(servers::neighbours(&client, server).await.unwrap(), []);
    client.execute("update server_epochs set beat_at = now() - interval '31 days'", &[]).await.unwrap();
    assert_eq!(servers::neighbours(&client, farm.server).await.unwrap(), []);
}

#[tokio::test]
async fn servers_know_where_the_others_publish_as_long_as_those_live() {
    let farm = Farm::with(&[&[]]).await;
    let (server, epoch) = second(&farm).await;
    let client = farm.client().await;
    let [other] = &servers::publishers(&client, farm.server, "/nix/store").await.unwrap()[..] else {
        panic!("one other")
    };
    assert_eq!((other.name.as_str(), other.url.as_str()), ("second", "http://elsewhere:5557"));
    assert_eq!(other.keys, ["second-1:key"]);
    assert_eq!(servers::publishers(&client, farm.server, "/gnu/store").await.unwrap(), []);
    assert_eq!(servers::publishers(&client, server, "/nix/store").await.unwrap(), []);
    servers::end_epoch(&client, epoch).await.unwrap();
    assert_eq!(servers::publishers(&client, farm.server, "/nix/store").await.unwrap(), []);
}

#[tokio::test]
async fn a_log_is_with_the_server_that_received_it_last() {
    let farm = Farm::with(&[&[]]).await;
    let (server, _) = second(&farm).await;
    let claimed = farm.claim(0).await;
    let client = farm.client().await;
    let is_elsewhere = async |server| {
        let owners = attempts::log_owners(&client, &[claimed.attempt], server).await.unwrap();
        owners[&claimed.attempt].elsewhere
    };
    assert!(!is_elsewhere(farm.server).await && is_elsewhere(server).await);
    attempts::hold_logs(&client, &[claimed.attempt], server).await.unwrap();
    assert!(is_elsewhere(farm.server).await && !is_elsewhere(server).await);
    let complete = [(claimed.attempt, 3)];
    assert_eq!(attempts::log_complete(&client, &complete, farm.server).await.unwrap(), [claimed.attempt]);
    // It is complete there, and stays.
    attempts::hold_logs(&client, &[claimed.attempt], server).await.unwrap();
    assert!(!is_elsewhere(farm.server).await);
}
