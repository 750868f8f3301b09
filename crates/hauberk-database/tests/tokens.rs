//! Enrolment by tokens.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

use std::time::Duration;

use hauberk_database::testing::TestDatabase;
use hauberk_database::tokens::{self, Applicant, NewToken, Redeemed, Spent};
use hauberk_database::{GenericClient, TokenId, begin, commit, workers};

const DIGEST: [u8; 32] = [7; 32];

const fn new() -> NewToken<'static> {
    NewToken {
        digest: &DIGEST,
        name: None,
        systems: None,
        uses: 1,
        lifetime: Duration::from_secs(60),
        created_by: "operator",
    }
}

const fn applicant<'a>(name: &'a str, public_key: &'a str) -> Applicant<'a> {
    Applicant { name, public_key, signing_key: "w-1:key" }
}

/// Presents the token, as the server does: only what is done stays.
async fn redeem(test: &TestDatabase, applicant: Applicant<'_>) -> Redeemed {
    let mut client = test.client().await;
    let transaction = begin(&mut client).await.unwrap();
    let redeemed = tokens::redeem(&transaction, &DIGEST, applicant).await.unwrap();
    if matches!(redeemed, Redeemed::Enrolled { .. }) {
        commit(transaction).await.unwrap();
    }
    redeemed
}

fn enrolled(name: &str, token: TokenId) -> Redeemed {
    Redeemed::Enrolled { name: name.to_owned(), token, created_by: "operator".to_owned() }
}

#[tokio::test]
async fn a_token_admits_one_machine_and_that_one_again() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    assert_eq!(redeem(&test, applicant("a", "key-a")).await, Redeemed::Unknown);
    let systems = ["x86_64-linux".to_owned()];
    let id = tokens::make(&client, NewToken { systems: Some(&systems), ..new() }).await.unwrap();
    assert_eq!(redeem(&test, applicant("a", "key-a")).await, enrolled("a", id));
    let worker = workers::by_name(&client, "a").await.unwrap().unwrap();
    assert_eq!(worker.public_key.as_deref(), Some("key-a"));
    assert_eq!(worker.signing_key.as_deref(), Some("w-1:key"));
    assert_eq!(worker.allowed_systems.as_deref(), Some(&systems[..]));
    assert_eq!(worker.enrolled_by, format!("token {id} of operator"));
    // It did not hear the answer, and asks again.
    assert_eq!(redeem(&test, applicant("a", "key-a")).await, Redeemed::Before { name: "a".to_owned() });
    assert_eq!(redeem(&test, applicant("b", "key-b")).await, Redeemed::Spent(id, Spent::Used));
    // Once it is removed, the token is of no use to it either.
    workers::remove(&client, "a").await.unwrap();
    assert_eq!(redeem(&test, applicant("a", "key-a")).await, Redeemed::Spent(id, Spent::Used));
}

#[tokio::test]
async fn names_and_keys_of_others_are_not_taken_and_cost_no_use() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    let id = tokens::make(&client, NewToken { uses: 2, ..new() }).await.unwrap();
    assert_eq!(redeem(&test, applicant("a", "key-a")).await, enrolled("a", id));
    let taken = Redeemed::NameTaken("a".to_owned());
    assert_eq!(redeem(&test, applicant("a", "key-b")).await, taken);
    let other = Applicant { signing_key: "w-2:key", ..applicant("b", "key-a") };
    assert_eq!(redeem(&test, other).await, Redeemed::KeyTaken);
    assert_eq!(tokens::list(&client).await.unwrap()[0].used, 1);
    assert_eq!(redeem(&test, applicant("b", "key-b")).await, enrolled("b", id));
}

#[tokio::test]
async fn a_token_may_name_its_worker_and_ends() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    let id = tokens::make(&client, NewToken { name: Some("anna"), uses: 3, ..new() }).await.unwrap();
    assert_eq!(redeem(&test, applicant("host", "key-a")).await, enrolled("anna", id));
    assert!(tokens::make(&client, new()).await.is_err(), "a digest is there once");
    client
        .execute("update enrolment_tokens set expires_at = now() - interval '1 second'", &[])
        .await
        .unwrap();
    assert_eq!(redeem(&test, applicant("b", "key-b")).await, Redeemed::Spent(id, Spent::Expired));
    assert!(tokens::revoke(&client, id).await.unwrap());
    assert!(!tokens::revoke(&client, id).await.unwrap());
    assert!(!tokens::revoke(&client, TokenId::new(99)).await.unwrap());
    assert_eq!(redeem(&test, applicant("b", "key-b")).await, Redeemed::Spent(id, Spent::Revoked));
    assert_eq!(tokens::list(&client).await.unwrap()[0].spent(), Some(Spent::Revoked));
}

#[tokio::test]
async fn the_last_use_is_given_to_one() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    let id = tokens::make(&client, new()).await.unwrap();
    let both = tokio::join!(redeem(&test, applicant("a", "key-a")), redeem(&test, applicant("b", "key-b")));
    let spent = Redeemed::Spent(id, Spent::Used);
    assert!(both == (enrolled("a", id), spent.clone()) || both == (spent, enrolled("b", id)), "{both:?}");
}
