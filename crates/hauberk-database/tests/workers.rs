//! Enrolment of workers and what they say of themselves.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

use hauberk_database::testing::TestDatabase;
use hauberk_database::workers::{self, Description, Enrolment, NewWorker};
use hauberk_database::{Epoch, GenericClient, WorkerId, audit};
use serde_json::json;

fn new<'a>(name: &'a str, public_key: &'a str) -> NewWorker<'a> {
    NewWorker { name, public_key, signing_key: "w-1:key", enrolled_by: "operator" }
}

#[tokio::test]
async fn names_and_keys_are_enrolled_once_until_removed() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    let Enrolment::Done(id) = workers::add(&client, new("one", "key-one")).await.unwrap() else {
        panic!("a new name and key are free")
    };
    assert_eq!(workers::add(&client, new("one", "key-one")).await.unwrap(), Enrolment::Done(id));
    assert_eq!(workers::add(&client, new("one", "other")).await.unwrap(), Enrolment::NameTaken);
    assert_eq!(workers::add(&client, new("two", "key-one")).await.unwrap(), Enrolment::KeyTaken);
    let keys = ["key-one".to_owned(), "key-two".to_owned()];
    let [found] = &workers::candidates(&client, &keys, &[]).await.unwrap()[..] else {
        panic!("one of them is enrolled")
    };
    assert_eq!((found.id, found.name.as_str(), found.revoked_at), (id, "one", None));

    workers::enter(&client, &["one"]).await.unwrap();
    assert_eq!(workers::by_name(&client, "one").await.unwrap().unwrap(), *found);
    assert_eq!(workers::remove(&client, "one").await.unwrap(), Some(id));
    assert_eq!(workers::remove(&client, "one").await.unwrap(), None);
    assert!(workers::by_name(&client, "one").await.unwrap().unwrap().revoked_at.is_some());
    let hello = workers::hello(&client, Epoch::new(1), &[(id, &Description::default())]).await.unwrap();
    assert_eq!(hello, []);
    assert_eq!(workers::add(&client, new("one", "other")).await.unwrap(), Enrolment::Done(id));
}

async fn enter(client: &impl GenericClient, name: &str) -> WorkerId {
    workers::enter(client, &[name, name]).await.unwrap();
    let [worker] = &workers::candidates(client, &[], &[name]).await.unwrap()[..] else {
        panic!("{name} was entered once")
    };
    worker.id
}

#[tokio::test]
async fn a_worker_without_a_key_keeps_the_signing_key_it_showed_first() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    let id = enter(&client, "lan").await;
    assert_eq!(enter(&client, "lan").await, id);
    for key in ["lan-1:a", "lan-1:b"] {
        workers::pin_signing_keys(&client, &[(id, key)]).await.unwrap();
        let worker = workers::by_name(&client, "lan").await.unwrap().unwrap();
        assert_eq!(worker.signing_key.as_deref(), Some("lan-1:a"));
    }
}

#[tokio::test]
async fn only_the_server_start_that_has_a_worker_speaks_for_it() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    let id = enter(&client, "w").await;
    let description = Description {
        machine: "m".into(),
        systems: vec!["x86_64-linux".into(), "builtin".into()],
        slots: 4,
        ..Description::default()
    };
    let (old, new) = (Epoch::new(1), Epoch::new(2));
    for epoch in [old, new] {
        assert_eq!(workers::hello(&client, epoch, &[(id, &description)]).await.unwrap(), [id]);
    }
    workers::seen(&client, old, &[(id, Some(json!({"load": 9})))]).await.unwrap();
    workers::seen(&client, new, &[(id, Some(json!({"load": 1})))]).await.unwrap();
    workers::seen(&client, new, &[(id, None)]).await.unwrap();
    assert_eq!(workers::disconnected(&client, &[id], old).await.unwrap(), 0);
    let worker = workers::list(&client).await.unwrap().remove(0);
    assert_eq!(worker.load, Some(json!({"load": 1})));
    assert_eq!(worker.connected.unwrap().epoch, new);
    assert_eq!(worker.description, description);
    assert_eq!(workers::disconnected(&client, &[id], new).await.unwrap(), 1);
    assert_eq!(workers::by_name(&client, "w").await.unwrap().unwrap().connected, None);
}

#[tokio::test]
async fn the_audit_gives_the_latest_first() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    for subject in ["a", "b"] {
        audit::record(&client, "operator", "worker.add", subject, Some(&json!({"n": 1}))).await.unwrap();
    }
    let latest = audit::latest(&client, 1).await.unwrap();
    assert_eq!(latest.iter().map(|entry| entry.subject.as_str()).collect::<Vec<_>>(), ["b"]);
}
