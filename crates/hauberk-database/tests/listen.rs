//! Notifications arrive, and a lost connection is told.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

use std::time::Duration;

use hauberk_database::listen::{CHANGED, Event, Listener, READY};
use hauberk_database::testing::TestDatabase;

async fn next(listener: &mut Listener) -> Event {
    tokio::time::timeout(Duration::from_secs(30), listener.next()).await.expect("an event comes")
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_told() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    let mut listener = Listener::connect(test.location(), &[READY, CHANGED]).await.unwrap();

    client.batch_execute("notify hauberk_ready; notify hauberk_changed, 'build:7'").await.unwrap();
    let ready = Event::Notification { channel: READY.into(), payload: String::new() };
    assert_eq!(next(&mut listener).await, ready);
    assert_eq!(
        next(&mut listener).await,
        Event::Notification { channel: CHANGED.into(), payload: "build:7".into() }
    );

    client
        .batch_execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and query ilike 'listen%'",
        )
        .await
        .unwrap();
    assert_eq!(next(&mut listener).await, Event::Reconnected);
    assert!(listener.is_connected());
    client.batch_execute("notify hauberk_ready").await.unwrap();
    assert_eq!(next(&mut listener).await, ready);
    assert_eq!(listener.try_next(), None);
}
