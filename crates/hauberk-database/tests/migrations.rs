//! The schema goes up, down and up again, and is refused where it is not known.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

use hauberk_database::testing::TestDatabase;
use hauberk_database::{Client, Database, DatabaseError, migrations};

async fn count(client: &Client, table: &str) -> i64 {
    client.query_one(&format!("select count(*) from {table}"), &[]).await.unwrap().get(0)
}

/// Puts a row into the tables that others hang on.
async fn fill(client: &Client) {
    client
        .batch_execute(
            "insert into specifications (name, definition) values ('s', '{}');
             insert into evaluations (specification_id) select id from specifications;
             insert into lanes (specification_id, store_directory, system)
                 select id, '/nix/store', 'x86_64-linux' from specifications;
             insert into builds (lane_id, derivation_id, name, system) select id, 1, 'hello', system from lanes;
             insert into derivations (path, build_id) select '/nix/store/x.drv', id from builds;
             insert into outputs (path, build_id, name) select '/nix/store/x', id, 'out' from builds;
             insert into jobs (evaluation_id, name, build_id, derivation_id)
                 select e.id, 'hello', b.id, 1 from evaluations e, builds b;
             insert into workers (name) values ('w');
             insert into attempts (build_id, derivation_id, generation, number, kind, worker_id, session, epoch)
                 select b.id, 1, 1, 1, 'first', w.id, 1, 1 from builds b, workers w;
             insert into audit (who, action, subject) values ('me', 'test', 'it');",
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn it_goes_up_down_and_up_again_with_rows_in_it() {
    let test = TestDatabase::empty().await;
    let mut client = test.client().await;

    let steps = migrations::migrate(&mut client, None).await.unwrap();
    assert_eq!(steps.len(), migrations::newest() as usize);
    assert!(migrations::migrate(&mut client, None).await.unwrap().is_empty());
    let status = migrations::status(&client).await.unwrap();
    assert_eq!((status.version(), status.pending.len()), (migrations::newest(), 0));
    fill(&client).await;
    assert_eq!(count(&client, "attempts").await, 1);

    let steps = migrations::migrate(&mut client, Some(0)).await.unwrap();
    assert!(steps.iter().all(|step| !step.up));
    assert_eq!(migrations::status(&client).await.unwrap().version(), 0);
    assert!(client.query("select from builds", &[]).await.is_err());

    migrations::migrate(&mut client, None).await.unwrap();
    fill(&client).await;
    assert_eq!(count(&client, "builds").await, 1);
}

#[tokio::test]
async fn programs_that_migrate_at_once_do_it_once() {
    let test = TestDatabase::empty().await;
    let (mut one, mut other) = (test.client().await, test.client().await);
    let (one, other) =
        tokio::join!(migrations::migrate(&mut one, None), migrations::migrate(&mut other, None));
    assert_eq!(one.unwrap().len() + other.unwrap().len(), migrations::newest() as usize);
}

#[tokio::test]
async fn an_empty_database_is_filled_by_those_who_may_and_refused_by_others() {
    let test = TestDatabase::empty().await;
    let error = Database::connect(test.location(), 1).await.unwrap_err();
    assert!(matches!(error, DatabaseError::NoSchema { .. }), "{error:?}");
    assert!(error.to_string().contains("hauberk database migrate"), "{error}");

    Database::connect_or_create(test.location(), 1).await.unwrap();
    Database::connect(test.location(), 1).await.unwrap();
}

#[tokio::test]
async fn a_database_of_others_is_left_alone() {
    let test = TestDatabase::empty().await;
    test.client().await.batch_execute("create table theirs (n integer)").await.unwrap();
    let error = Database::connect_or_create(test.location(), 1).await.unwrap_err();
    assert!(matches!(error, DatabaseError::NoSchema { .. }), "{error:?}");
}

#[tokio::test]
async fn an_unknown_version_is_refused_naming_both() {
    let test = TestDatabase::new().await;
    let newer = migrations::newest() + 1;
    let mut client = test.client().await;
    client
        .execute("insert into hauberk_schema (version, name) values ($1, 'later')", &[&newer])
        .await
        .unwrap();
    for error in [
        Database::connect(test.location(), 1).await.unwrap_err(),
        Database::connect_or_create(test.location(), 1).await.unwrap_err(),
        migrations::migrate(&mut client, None).await.unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains(&format!("version {newer}")), "{text}");
        assert!(text.contains(&format!("to {}", migrations::newest())), "{text}");
    }
    let error = migrations::migrate(&mut client, Some(newer)).await.unwrap_err();
    assert!(matches!(error, DatabaseError::NoSuchVersion { .. }), "{error:?}");
}

#[tokio::test]
async fn an_unreachable_database_is_named_without_the_password() {
    let location = "host=/nonexistent dbname=farm user=f password=hush".parse().unwrap();
    let error = Database::connect(&location, 1).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, DatabaseError::Unreachable { .. }), "{error:?}");
    assert!(text.contains("/nonexistent") && !text.contains("hush"), "{text}");
}
