//! The steps that the order goes by are the same in the database as in `hauberk-order`.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

use hauberk_database::testing::TestDatabase;
use hauberk_order::PathStep;

#[tokio::test]
async fn the_database_has_the_same_steps() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    let mut paths: Vec<i64> = (0..=1000).collect();
    for power in 1..63 {
        let at = 1_i64 << power;
        paths.extend([at - 1, at, at + 1, at + at / 4, at + (at - 1) / 2, at + at / 2, at + at / 2 + 1]);
    }
    paths.extend([i64::MAX - 1, i64::MAX]);
    // Numbers of every size in between.
    let mut number = 88_172_645_463_325_252_u64;
    for place in 0..2000 {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        paths.push((number >> (1 + place % 63)) as i64);
    }
    let rows = client
        .query(
            "select p, path_step(p) from unnest($1::bigint[]) with ordinality as n (p, place) order by place",
            &[&paths],
        )
        .await
        .unwrap();
    assert_eq!(rows.len(), paths.len());
    for row in rows {
        let (path, step): (i64, i16) = (row.get(0), row.get(1));
        assert_eq!(step, PathStep::of_millis(path.unsigned_abs()).get(), "of {path} ms");
    }
}

#[tokio::test]
async fn a_build_has_the_step_of_its_path_and_moves_only_with_it() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    client
        .batch_execute(
            "insert into specifications (name, definition) values ('s', '{}');
             insert into lanes (specification_id, store_directory, system) select id, '/nix/store', 'x' from specifications;
             insert into builds (lane_id, derivation_id, name, system, state, remaining_path)
                 select l.id, 1, 'b', 'x', 'ready', 40000 from lanes l",
        )
        .await
        .unwrap();
    let step =
        async || -> i16 { client.query_one("select path_step from builds", &[]).await.unwrap().get(0) };
    assert_eq!(step().await, PathStep::of_millis(40_000).get());
    // A path that is a little longer leaves the indexes alone: the row finds room in its page.
    let hot = async |path: i64| -> i64 {
        // Of this connection, since it last told.
        let told = "select pg_stat_get_xact_tuples_hot_updated('builds'::regclass)";
        client.batch_execute("begin").await.unwrap();
        let before: i64 = client.query_one(told, &[]).await.unwrap().get(0);
        client.execute("update builds set remaining_path = $1", &[&path]).await.unwrap();
        let after: i64 = client.query_one(told, &[]).await.unwrap().get(0);
        client.batch_execute("commit").await.unwrap();
        after - before
    };
    assert_eq!(hot(48_000).await, 1);
    assert_eq!(step().await, PathStep::of_millis(40_000).get());
    assert_eq!(hot(50_000).await, 0);
    assert_eq!(step().await, PathStep::of_millis(50_000).get());
    let unrelated = client.execute("update builds set expected_ms = 7, unmet = 0", &[]).await.unwrap();
    assert_eq!((unrelated, step().await), (1, PathStep::of_millis(50_000).get()));
}
