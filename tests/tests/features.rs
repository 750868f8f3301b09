//! What a worker says of itself: features, both ways (what a build requires, and what a worker demands), several systems, and the cores
//! of each build.

use std::fs;

use anyhow::{Context, Result, ensure};
use hauberk_tests::{Deadline, Farm, FarmConfig};

const GRAPH: &str = r#"
  plain = job "plain-1" ''
    ${gate "plain"}
    echo plain > $out
  '' // { hauberk.priority = 3; };
  waits = job "waits-1" "echo waits > $out" // { hauberk.priority = 9; };
  big = derivation {
    name = "big-1";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-e" "-c" "echo big > $out" ];
    requiredSystemFeatures = [ "big-parallel" ];
  };
"#;

fn why(farm: &Farm, build: i64) -> Result<String> {
    let build = build.to_string();
    let database = farm.postgres.connection_string();
    farm.hauberk_on_server().args(["build", "why", &build, "--database", &database]).run()
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_require_features_and_workers_demand_them() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 2, slots: 1, ..FarmConfig::new()? })?;
    // The second worker has the feature, and takes nothing else.
    let launch = farm.workers[1].launch.clone();
    let features = ["--features", "big-parallel", "--mandatory-features", "big-parallel"];
    farm.workers[1].launch = launch.args(features);
    farm.start_server()?;
    farm.start_worker(0)?;
    farm.wait_until_joined(0).await?;
    let (_, specification) = farm.repository("features", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("plain", 1, Deadline::seconds(90))?;
    let id = async |name: &str| -> Result<i64> {
        Ok(farm.query("select id from builds where name = $1", &[&name]).await?[0].get(0))
    };
    let (big, waits) = (id("big-1").await?, id("waits-1").await?);
    assert_eq!(farm.state_of("big-1").await?, "ready");
    let said = why(&farm, big)?;
    ensure!(said.contains("No connected worker builds for") && said.contains("big-parallel"), "{said}");

    farm.start_worker(1)?;
    farm.wait_for_build("big-1", &["succeeded"], Deadline::seconds(90)).await?;
    // Its slot is free, and stays so.
    assert_eq!(farm.state_of("waits-1").await?, "ready");
    ensure!(why(&farm, waits)?.contains("slot"), "{}", why(&farm, waits)?);
    farm.gates.open("plain")?;
    farm.wait_for_the_end(Deadline::seconds(90)).await?;
    let rows = farm
        .query(
            "select b.name, w.name from attempts a join builds b on b.id = a.build_id join workers w on w.id = a.worker_id
             order by b.name",
            &[],
        )
        .await?;
    let who: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = [("big-1", "worker-2"), ("plain-1", "worker-1"), ("waits-1", "worker-1")];
    assert_eq!(who, expected.map(|(build, worker)| (build.to_owned(), worker.to_owned())));
    farm.stop_all()
}

/// Chains of one, two and three across two systems, where neither the names nor the systems are in the order in which they are to go.
const TWO_SYSTEMS: &str = r#"
  on = priority: system: name: script: derivation {
    inherit name system;
    builder = "/bin/sh";
    args = [ "-e" "-c" "export PATH=/bin\n${script}\nuname -m > $out" ];
  } // { hauberk = { inherit priority; }; };
  single = on 9 "x86_64-linux" "a-single-1" "";
  other = on 9 "i686-linux" "b-single-1" "";
  two-begins = on 9 "i686-linux" "c-begins-1" "";
  two-ends = on 9 "x86_64-linux" "c-ends-1" "cat ${two-begins}";
  three-begins = on 9 "x86_64-linux" "d-begins-1" "";
  three-goes-on = on 9 "i686-linux" "d-goes-on-1" "cat ${three-begins}";
  three-ends = on 9 "x86_64-linux" "d-ends-1" "cat ${three-goes-on}";
  urgent = on 3 "i686-linux" "e-urgent-1" "";
"#;

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_takes_the_builds_of_two_systems_in_one_order() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, slots: 1, ..FarmConfig::new()? })?;
    let launch = farm.workers[0].launch.clone();
    farm.workers[0].launch = launch.args(["--systems", "x86_64-linux,i686-linux"]);
    farm.start_server()?;
    let (_, specification) = farm.repository("systems", TWO_SYSTEMS)?;
    farm.start_register(&[specification])?;
    farm.wait_for_evaluations(1, Deadline::seconds(90)).await?;
    let rows = farm.query("select name from builds where state = 'ready' order by id", &[]).await?;
    let recorded: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(recorded.len(), 5, "{recorded:?}");
    // Of those that are alike, the one recorded first goes first.
    let alike: Vec<&str> =
        recorded.iter().filter(|name| name.contains("single")).map(String::as_str).collect();
    let mut expected = vec!["e-urgent-1", "d-begins-1", "c-begins-1"];
    expected.extend(alike);
    ensure!(recorded != expected, "the order of recording is that which is expected of the priorities");

    farm.start_worker(0)?;
    farm.wait_for_the_end(Deadline::seconds(120)).await?;
    let rows = farm
        .query(
            "select b.name, b.state, w.name from attempts a join builds b on b.id = a.build_id join workers w on w.id = a.worker_id
             order by a.assigned_at, a.id",
            &[],
        )
        .await?;
    assert_eq!(rows.len(), 8, "{}", farm.describe_builds().await);
    for row in &rows {
        assert_eq!((row.get(1), row.get(2)), ("succeeded", "worker-1"), "{}", farm.describe_builds().await);
    }
    let mut order: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    order.retain(|name| recorded.contains(name));
    assert_eq!(order, expected);
    for (name, machine) in [("d-begins-1", "x86_64\n"), ("e-urgent-1", "i686\n")] {
        assert_eq!(output(&farm, 0, name).await?, machine);
    }
    farm.stop_all()
}

const CORES: &str = r#"
  plain = job "plain-1" "echo -n $NIX_BUILD_CORES > $out";
  many = derivation {
    name = "many-1";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-e" "-c" "echo -n $NIX_BUILD_CORES > $out" ];
    requiredSystemFeatures = [ "big-parallel" ];
  };
"#;

#[tokio::test(flavor = "multi_thread")]
async fn builders_are_told_how_many_cores_they_may_use() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 2, slots: 2, ..FarmConfig::new()? })?;
    let launch = farm.workers[1].launch.clone();
    let features = ["--mandatory-features", "big-parallel"];
    farm.workers[1].launch = launch.args(features).args(["--cores", "7"]);
    farm.start_all().await?;
    let (_, specification) = farm.repository("cores", CORES)?;
    farm.start_register(&[specification])?;
    farm.wait_for_the_end(Deadline::seconds(90)).await?;
    // What is not said is a slot's part of the machine.
    let part = (std::thread::available_parallelism()?.get() / 2).max(1);
    assert_eq!(output(&farm, 0, "plain-1").await?, part.to_string());
    assert_eq!(output(&farm, 1, "many-1").await?, "7");
    farm.stop_all()
}

/// Reads what a build has written, in the store of the worker that built it.
async fn output(farm: &Farm, worker: usize, name: &str) -> Result<String> {
    let path = farm.output_of(name).await?;
    fs::read_to_string(farm.workers[worker].machine.outside(&path))
        .with_context(|| format!("reading the output of {name}"))
}
