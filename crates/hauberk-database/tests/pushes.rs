//! Who may push for an evaluation, and for how long.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

use std::time::Duration;

use hauberk_database::evaluations::{self, EvaluationStatus};
use hauberk_database::pushes;
use hauberk_database::servers::{self, PublishedStore, ServerFacts};
use hauberk_database::specifications::{self, NewSpecification};
use hauberk_database::testing::TestDatabase;
use hauberk_database::{Client, EvaluationId, ServerId};
use hauberk_store::StoreDirectory;

const DAY: Duration = Duration::from_secs(86_400);

async fn server(client: &Client, name: &str, stores: &[PublishedStore]) -> ServerId {
    let facts = ServerFacts {
        name: name.to_owned(),
        host: "h".to_owned(),
        backend_port: 1,
        log_port: 2,
        publish_url: None,
        public_key: None,
        version: "0".to_owned(),
        address: None,
        stores: stores.to_vec(),
    };
    servers::enrol(client, &facts).await.unwrap()
}

async fn evaluation(client: &Client, name: &str) -> EvaluationId {
    let new = NewSpecification {
        name,
        definition: &serde_json::json!({}),
        priority: hauberk_database::Level::default(),
        shares: 100,
        enabled: true,
        public: true,
    };
    let specification = specifications::upsert(client, new).await.unwrap();
    evaluations::start(client, specification, &[]).await.unwrap()
}

#[tokio::test]
async fn a_token_is_good_for_one_server_and_evaluation_until_it_ends() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let [one, two] = [server(&client, "one", &[]).await, server(&client, "two", &[]).await];
    let [first, second] = [evaluation(&client, "a").await, evaluation(&client, "b").await];
    let (token, other) = ([1; 32], [2; 32]);
    let admits = async |evaluation, server, token: &[u8; 32]| {
        pushes::admits(&client, evaluation, server, token).await.unwrap()
    };
    assert!(!admits(first, one, &token).await);
    assert!(!pushes::under_way(&client, &[one]).await.unwrap());
    pushes::begin(&client, first, one, &token, DAY).await.unwrap();
    assert!(admits(first, one, &token).await && pushes::under_way(&client, &[one]).await.unwrap());
    assert!(!admits(first, one, &other).await && !admits(first, two, &token).await);
    assert!(!admits(second, one, &token).await && !pushes::under_way(&client, &[two]).await.unwrap());

    // A new one ends the one before.
    pushes::begin(&client, first, one, &other, DAY).await.unwrap();
    assert!(!admits(first, one, &token).await && admits(first, one, &other).await);
    // That it has all does not end it: the evaluation is not published yet.
    pushes::complete(&client, first, one, 3, 4).await.unwrap();
    assert!(admits(first, one, &other).await && pushes::under_way(&client, &[one]).await.unwrap());
    evaluations::end(&client, first, EvaluationStatus::Aborted, "").await.unwrap();
    assert!(!admits(first, one, &other).await && !pushes::under_way(&client, &[one]).await.unwrap());

    pushes::begin(&client, second, one, &token, Duration::ZERO).await.unwrap();
    assert!(!admits(second, one, &token).await && !pushes::under_way(&client, &[one]).await.unwrap());
}

#[tokio::test]
async fn servers_say_which_stores_they_publish() {
    let database = TestDatabase::new().await;
    let client = database.client().await;
    let one = server(&client, "one", &[]).await;
    let (nix, guix) = (StoreDirectory::nix(), StoreDirectory::guix());
    let store = |directory: &StoreDirectory, url: &str| PublishedStore {
        directory: directory.to_string(),
        url: url.to_owned(),
        keys: Vec::new(),
        identity: format!("{directory}/00000000000000000000000000000000-x").parse().ok(),
    };
    let found = async |directory| pushes::destinations(&client, directory, DAY).await.unwrap();
    assert_eq!(found(&nix).await, []);
    server(&client, "one", &[store(&nix, "http://a"), store(&guix, "http://b")]).await;
    let destinations = found(&guix).await;
    assert_eq!(destinations.len(), 1);
    assert_eq!((destinations[0].publish_url.as_str(), destinations[0].alive), ("http://b", false));
    assert_eq!(destinations[0].identity, store(&guix, "").identity);
    let epoch = servers::begin_epoch(&client, one, DAY).await.unwrap();
    assert!(found(&nix).await[0].alive);
    servers::end_epoch(&client, epoch).await.unwrap();
    assert!(!found(&nix).await[0].alive);

    let none = PublishedStore { identity: None, ..store(&nix, "http://c") };
    server(&client, "one", &[none]).await;
    assert_eq!(found(&guix).await, []);
    let destinations = found(&nix).await;
    assert_eq!((destinations[0].publish_url.as_str(), &destinations[0].identity), ("http://c", &None));
}
