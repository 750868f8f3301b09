//! The statements of a batch find their rows by keys, whatever the statistics say.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

use std::path::Path;

use hauberk_database::dispatch;
use hauberk_database::listing::{self, Filter};
use hauberk_database::testing::TestDatabase;
use serde_json::Value;

/// What the committer runs for every batch, and what the log port does.
const HOT: [&str; 18] = [
    "lock_builds",
    "claim",
    "claimed",
    "claimed_before",
    "start",
    "built",
    "built_outputs",
    "finish",
    "succeed",
    "hold_outputs",
    "release_dependents",
    "fail_dependents",
    "weather",
    "end_attempts",
    "after_attempts",
    "../attempts/log_owners",
    "../attempts/log_complete",
    "../attempts/hold_logs",
];
/// Tables that grow with the farm's history.
const GROWING: [&str; 7] =
    ["builds", "jobs", "outputs", "derivations", "build_dependencies", "attempts", "attempt_outputs"];

fn statement(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../sql/dispatch/{name}.sql"));
    std::fs::read_to_string(path).unwrap().trim_end().trim_end_matches(';').to_owned()
}

/// Finds scans of growing tables that no key leads to.
fn scans(plan: &Value, found: &mut Vec<String>) {
    match plan {
        Value::Array(items) => items.iter().for_each(|item| scans(item, found)),
        Value::Object(fields) => {
            let text = |key: &str| fields.get(key).and_then(Value::as_str);
            let node = text("Node Type").unwrap_or_default();
            let of_growing = text("Relation Name").is_none_or(|relation| GROWING.contains(&relation));
            let keyless = node == "Seq Scan" || (node.contains("Index") && text("Index Cond").is_none());
            if keyless && of_growing {
                found.push(format!("{node} on {:?} by {:?}", text("Relation Name"), text("Index Name")));
            }
            fields.values().for_each(|value| scans(value, found));
        }
        _ => {}
    }
}

async fn check(test: &TestDatabase) {
    let transaction = dispatch::batch(test.database()).await.unwrap();
    dispatch::begin_batch(&transaction, &[]).await.unwrap();
    let mut bad = String::new();
    for name in HOT {
        let text = statement(name);
        let parameters = (1..).take_while(|number| text.contains(&format!("${number}"))).count();
        transaction.batch_execute(&format!("prepare it as {text}")).await.unwrap();
        let explain = format!("explain (format json) execute it({})", vec!["null"; parameters].join(", "));
        let plan: Value = transaction.query_one(&explain, &[]).await.unwrap().get(0);
        transaction.batch_execute("deallocate it").await.unwrap();
        let mut found = Vec::new();
        scans(&plan, &mut found);
        if !found.is_empty() {
            bad.push_str(&format!("{name}: {found:?}\n"));
        }
    }
    assert!(bad.is_empty(), "{bad}");
}

#[tokio::test]
async fn a_batch_finds_its_rows_by_keys_on_fresh_tables() {
    let test = TestDatabase::new().await;
    check(&test).await;
}

#[tokio::test]
async fn a_batch_finds_its_rows_by_keys_on_tables_that_were_analyzed_while_they_were_empty() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    client.batch_execute("analyze").await.unwrap();
    check(&test).await;
}

#[tokio::test]
async fn a_batch_finds_its_rows_by_keys_when_the_farm_has_one_large_evaluation() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    client
        .batch_execute(
            "insert into specifications (name, definition) values ('s', '{}');
             insert into evaluations (specification_id, status) select id, 0 from specifications;
             insert into lanes (specification_id, store_directory, system)
                 select id, '/nix/store', 'x86_64-linux' from specifications;
             insert into builds (lane_id, derivation_id, name, system, state)
                 select l.id, n, 'b' || n, l.system, 'ready' from lanes l, generate_series(1, 20000) n order by n;
             insert into derivations (path, build_id) select '/nix/store/' || id || '.drv', id from builds order by id;
             insert into outputs (path, build_id, name) select '/nix/store/' || id, id, 'out' from builds;
             insert into build_dependencies select id, id - 1 from builds where id > 1;
             insert into jobs (evaluation_id, name, build_id, derivation_id)
                 select e.id, b.name, b.id, b.id from evaluations e, builds b;
             analyze",
        )
        .await
        .unwrap();
    check(&test).await;
}

#[tokio::test]
async fn what_follows_in_a_lane_is_read_from_where_the_last_refill_ended() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    client
        .batch_execute(
            "insert into specifications (name, definition) values ('s', '{}');
             insert into lanes (specification_id, store_directory, system)
                 select id, '/nix/store', s from specifications, unnest(array['a', 'b']) s;
             insert into builds (lane_id, derivation_id, name, system, state, remaining_path)
                 select l.id, n, 'b' || n, l.system, 'ready', 3 + n % 3 from lanes l, generate_series(1, 20000) n order by n;
             analyze builds; set plan_cache_mode = force_generic_plan",
        )
        .await
        .unwrap();
    let text = statement("window_more");
    let types = "bigint, double precision, integer[], smallint[], smallint[], bigint[], text[]";
    client.batch_execute(&format!("prepare it ({types}) as {text}")).await.unwrap();
    let asked = "(300, null, array[1], array[99::smallint], array[4::smallint], array[39000::bigint], null)";
    let plan: Value = client
        .query_one(&format!("explain (analyze, format json) execute it{asked}"), &[])
        .await
        .unwrap()
        .get(0);
    assert!(!plan.to_string().contains("builds_pkey"), "{plan}");
    // The rest of those whose paths are about as long, then those with shorter ones, the oldest first.
    let rows = client.query(&format!("execute it{asked}"), &[]).await.unwrap();
    let found: Vec<(i16, i64)> = rows.iter().map(|row| (row.get("path_step"), row.get("build_id"))).collect();
    // Paths of 4 and 5 ms are of one step.
    let all = "select path_step, id from builds
               where lane_id = 1 and (remaining_path in (4, 5) and id > 39000 or remaining_path = 3)
               order by path_step desc, id limit 300";
    let expected: Vec<(i16, i64)> =
        client.query(all, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(found, expected);
}

/// The names of the indexes that a plan reads, and what it sorts by.
fn indexes(plan: &Value, found: &mut Vec<String>) {
    match plan {
        Value::Array(items) => items.iter().for_each(|item| indexes(item, found)),
        Value::Object(fields) => {
            found.extend(fields.get("Index Name").and_then(Value::as_str).map(str::to_owned));
            // Together they are sorted by their numbers, to find each once.
            let keys = fields.get("Sort Key").and_then(Value::as_array).into_iter().flatten();
            found.extend(keys.map(Value::to_string).filter(|key| !key.ends_with("id\"")));
            fields.values().for_each(|value| indexes(value, found));
        }
        _ => {}
    }
}

#[tokio::test]
async fn the_heads_of_lanes_are_read_in_the_order_of_their_index() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    client
        .batch_execute(
            "insert into specifications (name, definition) values ('s', '{}');
             insert into lanes (specification_id, store_directory, system)
                 select id, '/nix/store', s from specifications, unnest(array['a', 'b']) s;
             insert into builds (lane_id, derivation_id, name, system, state, priority, remaining_path, other_lanes)
                 select l.id, n, 'b' || n, l.system, 'ready', n % 7, (n * 7919) % 100000, case when n % 10 = 0 then array[2] end
                 from lanes l, generate_series(1, 20000) n order by n;
             analyze builds; set plan_cache_mode = force_generic_plan",
        )
        .await
        .unwrap();
    let text = statement("window");
    client.batch_execute(&format!("prepare it (bigint, double precision, text[]) as {text}")).await.unwrap();
    let explain = "explain (format json) execute it(300, null, null)";
    let plan: Value = client.query_one(explain, &[]).await.unwrap().get(0);
    let mut found = Vec::new();
    indexes(&plan, &mut found);
    found.retain(|name| !name.starts_with("attempts"));
    found.sort_unstable();
    assert_eq!(found, ["builds_pkey", "builds_ready", "builds_ready_age", "builds_ready_shared"], "{plan}");

    // What goes before one of them, and whether there is anything as urgent: no walk through the table.
    client.batch_execute("deallocate it").await.unwrap();
    let types = "bigint, text, text, smallint, integer, bigint, smallint";
    client.batch_execute(&format!("prepare it ({types}) as {}", statement("../why/ahead"))).await.unwrap();
    let explain =
        "explain (format json) execute it(1, '/nix/store', 'a', 99::smallint, 1, 1000, 9::smallint)";
    let plan: Value = client.query_one(explain, &[]).await.unwrap().get(0);
    let mut found = Vec::new();
    scans(&plan, &mut found);
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test]
async fn between_assignment_and_end_no_index_is_touched() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    let indexed = |table: &'static str| {
        let client = &client;
        async move {
            let rows = client
                .query(
                    "select distinct a.attname::text from pg_index i
                     join pg_attribute a on a.attrelid = i.indrelid
                     where i.indrelid = $1::text::regclass
                       and (a.attnum = any (i.indkey)
                            or pg_get_expr(i.indpred, i.indrelid) ~ ('\\m' || a.attname || '\\M'))",
                    &[&table],
                )
                .await
                .unwrap();
            rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>()
        }
    };
    // What the steps of an attempt write, its end excepted.
    for column in ["state", "status", "started_at", "failed_build_id"] {
        assert!(!indexed("builds").await.contains(&column.to_owned()), "builds.{column} stands in an index");
    }
    for column in ["started_at", "built_at", "origin", "log_bytes", "log_complete", "fetch_tries"] {
        assert!(
            !indexed("attempts").await.contains(&column.to_owned()),
            "attempts.{column} stands in an index"
        );
    }
}

#[tokio::test]
async fn hashes_of_a_whole_page_of_outputs_find_room_on_it() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    client
        .batch_execute(
            "insert into specifications (name, definition) values ('s', '{}');
             insert into lanes (specification_id, store_directory, system) select id, '/nix/store', 'a' from specifications;
             insert into builds (lane_id, derivation_id, name, system, state)
                 select l.id, n, 'p' || n, l.system, 'ready' from lanes l, generate_series(1, 2000) n order by n;
             insert into outputs (path, build_id, name)
                 select '/nix/store/' || lpad(id::text, 32, 'a') || '-' || name, id, 'out' from builds order by id;
             begin",
        )
        .await
        .unwrap();
    let hold = format!(
        "prepare it (integer, bigint[], text[], bytea[], bigint[]) as {}; ",
        statement("hold_outputs")
    );
    client.batch_execute(&hold).await.unwrap();
    let all = "select format('execute it(1, %L, %L, %L, %L)', array_agg(build_id), array_agg(path),
                             array_agg(sha256(path::bytea)), array_agg(123456::bigint)) from outputs";
    let execute: String = client.query_one(all, &[]).await.unwrap().get(0);
    client.batch_execute(&execute).await.unwrap();
    let written = "select n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables where relname = 'outputs'";
    let row = client.query_one(written, &[]).await.unwrap();
    let (all, in_place): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(all, 2000);
    assert_eq!(in_place, all, "the others were entered into the index of paths anew");
}

#[tokio::test]
async fn builds_are_found_by_the_names_of_their_derivations() {
    let test = TestDatabase::new().await;
    let client = test.client().await;
    client
        .batch_execute(
            "insert into specifications (name, definition) values ('s', '{}');
             insert into lanes (specification_id, store_directory, system) select id, '/srv/a/store', 'a' from specifications;
             insert into builds (lane_id, derivation_id, name, system, state)
                 select l.id, n, 'p-' || n || '.1', l.system, 'ready' from lanes l, generate_series(1, 20000) n order by n;
             insert into derivations (path, build_id)
                 select '/srv/a/store/' || lpad((id * 7 + other)::text, 32, 'a') || '-' || name || '.drv', id
                 from builds, generate_series(0, 1) other;
             analyze",
        )
        .await
        .unwrap();
    let filter = Filter { name: Some("p-77?.*".to_owned()), ..Filter::default() };
    let found = listing::builds(&client, &filter, 100).await.unwrap();
    let names: Vec<String> = found.builds.into_iter().map(|build| build.line.name).collect();
    let all: Vec<String> = (770..780).rev().map(|number| format!("p-{number}.1")).collect();
    assert_eq!(names, all, "each once, the newest first");

    let types = "text[], text, text, text, text, bigint, bigint, text";
    client.batch_execute(&format!("prepare it ({types}) as {}", statement("../listing/name"))).await.unwrap();
    let explain = "explain (format json) execute it(null, null, null, null, 'p-77_.%', 100, 100000, 'p-77')";
    let plan: Value = client.query_one(explain, &[]).await.unwrap().get(0);
    assert!(plan.to_string().contains("derivations_name"), "{plan}");
}
