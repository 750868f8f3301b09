//! What specifications have used of the farm.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

mod farm;

use std::time::Duration;

use farm::{Farm, enrol};
use hauberk_database::usage;

#[tokio::test]
async fn what_was_used_counts_half_after_a_while() {
    let farm = Farm::with(&[&[], &[]]).await;
    let client = farm.client().await;
    let hour = Duration::from_secs(3600);
    assert!(usage::used(&client, hour, farm.server).await.unwrap().is_empty());
    farm.succeed(0).await;
    farm.succeed(1).await;
    // One ran for 100 s until an hour ago, the other for 100 s until now.
    let paid = "update attempts a set lane_id = b.lane_id from builds b where b.id = a.build_id";
    client.batch_execute(paid).await.unwrap();
    let ran = async |number: usize, ago: u32| {
        let build = farm.build(number).await;
        let ran = format!(
            "update attempts set assigned_at = now() - interval '{} s', built_at = null, \
             ended_at = now() - interval '{ago} s' where build_id = {build}",
            ago + 100
        );
        client.batch_execute(&ran).await.unwrap();
    };
    ran(0, 3600).await;
    ran(1, 0).await;
    let used = usage::used(&client, hour, farm.server).await.unwrap();
    let [(specification, slot_seconds)] = used.as_slice() else { panic!("{used:?}") };
    assert_eq!(*specification, farm.specification);
    assert!((slot_seconds - 150.0).abs() < 2.0, "{slot_seconds}");
    // Another server has not given it out, and knows of it as soon as this one has kept it.
    let other = enrol(&client, "other").await;
    assert!(usage::used(&client, hour, other).await.unwrap().is_empty());
    assert!(usage::used_elsewhere(&client, hour, other).await.unwrap().is_empty());
    usage::keep(&client, farm.server, &used).await.unwrap();
    usage::keep(&client, farm.server, &used).await.unwrap();
    assert!(usage::used_elsewhere(&client, hour, farm.server).await.unwrap().is_empty());
    client.batch_execute("update specification_usage set at = at - interval '1 hour'").await.unwrap();
    let elsewhere = usage::used_elsewhere(&client, hour, other).await.unwrap();
    assert!((elsewhere[0].1 - 75.0).abs() < 2.0, "{elsewhere:?}");
    // What is older than six such whiles does not count at all.
    ran(0, 7 * 3600).await;
    let used = usage::used(&client, hour, farm.server).await.unwrap();
    assert!((used[0].1 - 100.0).abs() < 2.0, "{used:?}");
    ran(1, 7 * 3600).await;
    assert!(usage::used(&client, hour, farm.server).await.unwrap().is_empty());
}
