//! Processes killed in the middle of a build.

use anyhow::Result;
use hauberk_tests::{Deadline, Farm, FarmConfig};

/// A build that waits at a gate, and one that needs it.
const GRAPH: &str = r#"
  first = job "first-1" ''
    ${gate "first"}
    echo first > $out
  '';
  second = job "second-1" "cat ${first} > $out; echo second >> $out";
"#;

/// Gives a farm whose first build waits at its gate.
async fn farm_with_a_running_build(workers: usize) -> Result<Farm> {
    let mut farm = Farm::create(FarmConfig { workers, ..FarmConfig::new()? })?;
    farm.start_server()?;
    farm.start_worker(0)?;
    let (_, specification) = farm.repository("recovery", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("first", 1, Deadline::seconds(60))?;
    farm.wait_for_build("first-1", &["running"], Deadline::seconds(30)).await?;
    Ok(farm)
}

async fn check_the_end(farm: &mut Farm, attempts: i64) -> Result<()> {
    farm.wait_for_the_end(Deadline::seconds(120)).await?;
    farm.expect_states(&[("first-1", "succeeded"), ("second-1", "succeeded")]).await?;
    let made: i64 = farm
        .query(
            "select count(*) from attempts a join builds b on b.id = a.build_id where b.name = 'first-1'",
            &[],
        )
        .await?[0]
        .get(0);
    assert_eq!(made, attempts, "{}", farm.describe_builds().await);
    farm.stop_all()
}

fn server(farm: &mut Farm) -> &mut hauberk_tests::Process {
    farm.server.as_mut().expect("the server was started")
}

#[tokio::test]
async fn a_build_survives_its_server() -> Result<()> {
    let mut farm = farm_with_a_running_build(1).await?;
    server(&mut farm).kill9()?;
    // The result comes while nobody is there to take it.
    farm.gates.open("first")?;
    let output = farm.output_of("first-1").await?;
    let store = farm.workers[0].machine.outside(&output);
    hauberk_tests::wait_for("the output is in the worker's store", Deadline::seconds(30), || {
        Ok(store.exists().then_some(()))
    })?;
    server(&mut farm).restart()?;
    server(&mut farm).wait_ready(Deadline::seconds(60))?;
    check_the_end(&mut farm, 1).await
}

#[tokio::test]
async fn a_build_goes_on_under_a_new_server() -> Result<()> {
    let mut farm = farm_with_a_running_build(1).await?;
    server(&mut farm).kill9()?;
    server(&mut farm).restart()?;
    server(&mut farm).wait_ready(Deadline::seconds(60))?;
    farm.wait_until_joined(0).await?;
    farm.gates.open("first")?;
    check_the_end(&mut farm, 1).await
}

#[tokio::test]
async fn a_killed_worker_is_given_its_build_again() -> Result<()> {
    let mut farm = farm_with_a_running_build(1).await?;
    farm.workers[0].process()?.kill9()?;
    farm.workers[0].process()?.restart()?;
    farm.workers[0].process()?.wait_ready(Deadline::seconds(60))?;
    farm.gates.wait_for_arrivals("first", 2, Deadline::seconds(90))?;
    farm.gates.open("first")?;
    check_the_end(&mut farm, 2).await
}

#[tokio::test]
async fn a_lost_workers_build_goes_to_another() -> Result<()> {
    let mut farm = farm_with_a_running_build(2).await?;
    farm.start_worker(1)?;
    // The whole machine loses power.
    farm.workers[0].machine.power_off();
    if let Some(process) = &mut farm.workers[0].process {
        process.wait_end(Deadline::seconds(10))?;
    }
    // One lease has to pass.
    farm.gates.wait_for_arrivals("first", 2, Deadline::seconds(150))?;
    farm.gates.open("first")?;
    farm.workers[0].process = None;
    check_the_end(&mut farm, 2).await
}

#[tokio::test]
async fn a_build_survives_the_database() -> Result<()> {
    let mut farm = farm_with_a_running_build(1).await?;
    farm.postgres.kill9()?;
    farm.gates.open("first")?;
    let builds = farm.workers[0].machine.directory().join("nix/store");
    hauberk_tests::wait_for("the output is in the worker's store", Deadline::seconds(30), || {
        let found = std::fs::read_dir(&builds)?
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().ends_with("-first-1"));
        farm.check_processes()?;
        Ok(found.then_some(()))
    })?;
    farm.postgres.start()?;
    check_the_end(&mut farm, 1).await
}

#[tokio::test]
async fn everything_is_killed_and_started_again() -> Result<()> {
    let mut farm = farm_with_a_running_build(1).await?;
    for process in [&mut farm.register, &mut farm.server].into_iter().flatten() {
        process.kill9()?;
    }
    farm.workers[0].process()?.kill9()?;
    farm.postgres.kill9()?;
    farm.postgres.start()?;
    // In the wrong order: the worker first.
    farm.workers[0].process()?.restart()?;
    for process in [&mut farm.register, &mut farm.server].into_iter().flatten() {
        process.restart()?;
        process.wait_ready(Deadline::seconds(60))?;
    }
    farm.workers[0].process()?.wait_ready(Deadline::seconds(60))?;
    farm.gates.open("first")?;
    check_the_end(&mut farm, 2).await
}

#[tokio::test]
async fn a_register_killed_in_an_evaluation_evaluates_again() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    // Nix takes some seconds over this.
    let slow = r#"
  count = n: if n < 2 then 1 else count (n - 1) + count (n - 2);
  late = job "late-1" "echo ${toString (count 28)} > $out";
"#;
    let (_, specification) = farm.repository("slow", slow)?;
    farm.start_register(&[specification])?;
    farm.wait_until(
        "the evaluation has begun",
        Deadline::seconds(30),
        "select exists (select from evaluations where status = -1)",
        &[],
    )
    .await?;
    if let Some(register) = &mut farm.register {
        register.kill9()?;
        register.restart()?;
        register.wait_ready(Deadline::seconds(60))?;
    }
    farm.wait_for_evaluations(1, Deadline::seconds(90)).await?;
    farm.wait_for_build("late-1", &["succeeded"], Deadline::seconds(60)).await?;
    let open: i64 = farm.query("select count(*) from evaluations where status = -1", &[]).await?[0].get(0);
    assert_eq!(open, 0, "the killed evaluation is still said to run");
    let builds: i64 = farm.query("select count(*) from builds", &[]).await?[0].get(0);
    assert_eq!(builds, 1, "{}", farm.describe_builds().await);
    farm.stop_all()
}
