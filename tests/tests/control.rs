//! What operators ask for, and workers that are thought to be lost and come back.

use anyhow::{Context, Result};
use hauberk_tests::{Deadline, Farm, FarmConfig, Process};
use nix::sys::signal::Signal;

/// A build that waits at a gate, one that needs it, and one that has nothing to do with them.
const GRAPH: &str = r#"
  first = job "first-1" ''
    echo here it begins
    ${gate "first"}
    echo first > $out
  '';
  second = job "second-1" "cat ${first} > $out; echo second >> $out";
  other = job "other-1" "echo other > $out";
"#;

/// The first try waits at gate `one`, the next at gate `two`.
const TURNS: &str = r#"
  first = job "first-1" ''
    echo here it begins
    if mkdir /gates/turn 2>/dev/null; then ${gate "one"} fi
    if [ -e /gates/one.open ]; then echo first > $out; exit; fi
    ${gate "two"}
    echo first > $out
  '';
  second = job "second-1" "cat ${first} > $out; echo second >> $out";
"#;

/// Starts the server with these options besides.
fn start_server(farm: &mut Farm, options: &[&str]) -> Result<()> {
    let mut process = farm.server_launch().args(options).start("remote-server", farm.directory())?;
    process.wait_ready(Deadline::seconds(60))?;
    farm.server = Some(process);
    Ok(())
}

/// Runs a command of an operator against the farm's database; gives what it printed.
fn operate(farm: &Farm, arguments: &[&str]) -> Result<String> {
    farm.hauberk().args(arguments).args(["--database", &farm.postgres.connection_string()]).run()
}

async fn id_of(farm: &Farm, name: &str) -> Result<String> {
    let id: i64 = farm.query("select id from builds where name = $1", &[&name]).await?[0].get(0);
    Ok(id.to_string())
}

/// The classes of a build's attempts, in the order of their number; empty for one that is open.
async fn classes(farm: &Farm, name: &str) -> Result<Vec<String>> {
    let statement = "select coalesce(a.class, '') from attempts a join builds b on b.id = a.build_id \
                     where b.name = $1 order by a.number";
    Ok(farm.query(statement, &[&name]).await?.iter().map(|row| row.get(0)).collect())
}

fn worker(farm: &mut Farm, index: usize) -> Result<&mut Process> {
    farm.workers[index].process()
}

/// Waits until every log of a build's attempts that wrote one is whole.
async fn wait_for_logs(farm: &mut Farm, name: &str) -> Result<()> {
    farm.wait_until(
        "the logs are whole",
        Deadline::seconds(60),
        "select bool_and(a.log_complete) from attempts a join builds b on b.id = a.build_id \
         where b.name = $1 and a.started_at is not null",
        &[&name],
    )
    .await
}

#[tokio::test]
async fn a_running_build_is_canceled_and_begins_anew_when_it_is_restarted() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    let (_, specification) = farm.repository("control", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.wait_for_build("first-1", &["running"], Deadline::seconds(60)).await?;
    farm.gates.wait_for_arrivals("first", 1, Deadline::seconds(30))?;
    let id = id_of(&farm, "first-1").await?;
    let said = operate(&farm, &["build", "cancel", &id])?;
    assert!(said.contains(&format!("1 build ({id}) are being stopped")), "{said}");
    farm.wait_for_build("first-1", &["canceled"], Deadline::seconds(20)).await?;
    farm.wait_for_build("second-1", &["canceled"], Deadline::seconds(5)).await?;
    assert_eq!(classes(&farm, "first-1").await?, ["canceled"]);
    // The slot is free again.
    farm.wait_for_build("other-1", &["succeeded"], Deadline::seconds(60)).await?;
    wait_for_logs(&mut farm, "first-1").await?;

    let refused = farm
        .hauberk()
        .args(["build", "cancel", "999999", "--database", &farm.postgres.connection_string()])
        .output()?;
    assert_eq!(refused.status.code(), Some(3));

    let said = operate(&farm, &["build", "restart", &id])?;
    assert!(said.contains("2 builds"), "{said}");
    farm.gates.wait_for_arrivals("first", 2, Deadline::seconds(60))?;
    farm.gates.open("first")?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    farm.expect_states(&[("first-1", "succeeded"), ("second-1", "succeeded")]).await?;
    assert_eq!(classes(&farm, "first-1").await?, ["canceled", "succeeded"]);
    let audited = farm.query("select action from audit where subject = $1 order by id", &[&id]).await?;
    let audited: Vec<String> = audited.iter().map(|row| row.get(0)).collect();
    assert_eq!(audited, ["build.cancel", "build.restart"]);
    farm.stop_all()
}

/// What two specifications want, and what only one of them does.
const SHARED: &str = r#"
  first = job "first-1" ''
    echo here it begins
    ${gate "first"}
    echo first > $out
  '';
  last = job "last-1" ''
    ${gate "last"}
    echo last > $out
  '';
  second = job "second-1" "cat ${first} > $out; echo second >> $out";
"#;

#[tokio::test]
async fn a_running_build_that_two_evaluations_want_is_stopped_when_both_are_canceled() -> Result<()> {
    let mut farm = Farm::create(FarmConfig::new()?)?;
    farm.start_all().await?;
    let (_, shared) = farm.repository("shared", SHARED)?;
    let more = format!("{SHARED}  alone = job \"alone-1\" \"cat ${{first}} > $out\";\n");
    let (_, with_more) = farm.repository("with-more", &more)?;
    farm.start_register(&[shared, with_more])?;
    farm.wait_for_evaluations(2, Deadline::seconds(60)).await?;
    farm.gates.wait_for_arrivals("first", 1, Deadline::seconds(60))?;
    farm.gates.wait_for_arrivals("last", 1, Deadline::seconds(60))?;
    farm.wait_for_build("first-1", &["running"], Deadline::seconds(60)).await?;
    farm.wait_for_build("last-1", &["running"], Deadline::seconds(60)).await?;
    let mut evaluations = Vec::new();
    for specification in ["with-more", "shared"] {
        let statement = "select e.id from evaluations e join specifications s on s.id = e.specification_id where s.name = $1";
        let id: i64 = farm.query(statement, &[&specification]).await?[0].get(0);
        evaluations.push(id.to_string());
    }

    operate(&farm, &["evaluation", "cancel", &evaluations[0]])?;
    // What the other wants goes on: to its end, if it is let.
    farm.expect_states(&[
        ("alone-1", "canceled"),
        ("first-1", "running"),
        ("last-1", "running"),
        ("second-1", "waiting"),
    ])
    .await?;
    farm.gates.open("last")?;
    farm.wait_for_build("last-1", &["succeeded"], Deadline::seconds(60)).await?;
    farm.expect_states(&[("first-1", "running"), ("second-1", "waiting")]).await?;
    assert_eq!(classes(&farm, "first-1").await?, [""]);

    operate(&farm, &["evaluation", "cancel", &evaluations[1]])?;
    farm.wait_for_build("first-1", &["canceled"], Deadline::seconds(60)).await?;
    farm.expect_states(&[("last-1", "succeeded"), ("second-1", "canceled")]).await?;
    assert_eq!(classes(&farm, "first-1").await?, ["canceled"]);
    assert_eq!(classes(&farm, "last-1").await?, ["succeeded"]);
    // Its builder is gone, and nobody came to the gates again.
    for host in &farm.workers {
        let left = host.machine.command("pgrep").args(["-f", "first.reached"]).run().unwrap_or_default();
        assert_eq!(left, "", "{} has left-over builders", host.name());
    }
    assert_eq!((farm.gates.arrivals("first"), farm.gates.arrivals("last")), (1, 1));
    farm.stop_all()
}

#[tokio::test]
async fn a_worker_that_does_not_stop_a_canceled_build_loses_it_but_not_its_slot() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    start_server(&mut farm, &["--stop-patience", "2"])?;
    farm.start_worker(0)?;
    let (_, specification) = farm.repository("control", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("first", 1, Deadline::seconds(60))?;
    worker(&mut farm, 0)?.signal(Signal::SIGSTOP)?;
    let evaluation: i64 = farm.query("select max(id) from evaluations", &[]).await?[0].get(0);
    operate(&farm, &["evaluation", "cancel", &evaluation.to_string()])?;
    farm.wait_for_build("first-1", &["canceled"], Deadline::seconds(20)).await?;
    farm.expect_states(&[("second-1", "canceled"), ("other-1", "canceled")]).await?;
    let id = id_of(&farm, "other-1").await?;
    operate(&farm, &["build", "restart", &id])?;
    worker(&mut farm, 0)?.signal(Signal::SIGCONT)?;
    // Only when the worker has stopped the one does it take the other.
    farm.wait_for_build("other-1", &["succeeded"], Deadline::seconds(60)).await?;
    assert_eq!(classes(&farm, "first-1").await?, ["canceled"]);
    farm.expect_states(&[("first-1", "canceled"), ("second-1", "canceled")]).await?;
    farm.stop_all()
}

#[tokio::test]
async fn workers_are_paused_and_drained() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    operate(&farm, &["worker", "pause", "worker-1", "--reason", "a new disk"])?;
    worker(&mut farm, 0)?.wait_log("paused this worker: a new disk", Deadline::seconds(20))?;
    let (_, specification) = farm.repository("control", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.wait_for_evaluations(1, Deadline::seconds(60)).await?;
    // It stays so across a restart of the server.
    let mut server = farm.server.take().expect("the server was started");
    server.kill9()?;
    server.restart()?;
    server.wait_ready(Deadline::seconds(60))?;
    farm.server = Some(server);
    farm.wait_until_joined(0).await?;
    farm.expect_states(&[("first-1", "ready"), ("other-1", "ready")]).await?;
    let attempts: i64 = farm.query("select count(*) from attempts", &[]).await?[0].get(0);
    assert_eq!(attempts, 0);
    operate(&farm, &["worker", "resume", "worker-1"])?;
    farm.gates.wait_for_arrivals("first", 1, Deadline::seconds(60))?;

    operate(&farm, &["worker", "drain", "worker-1"])?;
    worker(&mut farm, 0)?.wait_log("asks this worker to finish and leave", Deadline::seconds(20))?;
    worker(&mut farm, 0)?.check_alive()?;
    assert!(operate(&farm, &["worker", "list"])?.contains("draining"));
    let mut process = farm.workers[0].process.take().expect("the worker was started");
    farm.gates.open("first")?;
    farm.wait_for_build("first-1", &["succeeded"], Deadline::seconds(60)).await?;
    assert!(process.wait_end(Deadline::seconds(60))?.success());
    farm.expect_states(&[("second-1", "ready")]).await?;
    assert_eq!(classes(&farm, "first-1").await?, ["succeeded"]);
    // Whoever starts it again is told the same.
    process.restart()?;
    assert!(process.wait_end(Deadline::seconds(60))?.success());
    farm.expect_states(&[("second-1", "ready")]).await?;
    assert!(operate(&farm, &["worker", "list"])?.contains("drained"));
    operate(&farm, &["worker", "resume", "worker-1"])?;
    process.restart()?;
    farm.workers[0].process = Some(process);
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    farm.expect_states(&[("second-1", "succeeded"), ("other-1", "succeeded")]).await?;
    farm.stop_all()
}

/// The options of a server that gives up soon.
const HASTY: &[&str] = &["--heartbeat", "1", "--lease", "4", "--retry-delay", "0.1"];

#[tokio::test]
async fn the_result_of_a_worker_that_was_given_up_counts() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    start_server(&mut farm, HASTY)?;
    farm.start_worker(0)?;
    let (_, specification) = farm.repository("control", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("first", 1, Deadline::seconds(60))?;
    worker(&mut farm, 0)?.signal(Signal::SIGSTOP)?;
    farm.wait_for_build("first-1", &["ready"], Deadline::seconds(30)).await?;
    assert_eq!(classes(&farm, "first-1").await?, ["worker_lost"]);
    farm.gates.open("first")?;
    let output = farm.output_of("first-1").await?;
    let store = farm.workers[0].machine.outside(&output);
    hauberk_tests::wait_for("the builder ends", Deadline::seconds(30), || Ok(store.exists().then_some(())))?;
    worker(&mut farm, 0)?.signal(Signal::SIGCONT)?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    farm.expect_states(&[("first-1", "succeeded"), ("second-1", "succeeded")]).await?;
    // It may be given out once more between the worker's return and its result; then that attempt goes.
    let classes = classes(&farm, "first-1").await?;
    let (first, others) = classes.split_first().context("it has attempts")?;
    let superseded = others.iter().all(|class| class == "superseded");
    assert!(first == "succeeded" && superseded, "{}", farm.describe_builds().await);
    assert_eq!(farm.gates.arrivals("first"), 1, "it was built once");
    wait_for_logs(&mut farm, "first-1").await?;
    farm.stop_all()
}

#[tokio::test]
async fn of_two_attempts_after_a_pause_the_older_stays() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 2, ..FarmConfig::new()? })?;
    start_server(&mut farm, HASTY)?;
    farm.start_worker(0)?;
    let (_, specification) = farm.repository("control", TURNS)?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("one", 1, Deadline::seconds(60))?;
    farm.wait_for_build("first-1", &["running"], Deadline::seconds(30)).await?;
    worker(&mut farm, 0)?.signal(Signal::SIGSTOP)?;
    farm.start_worker(1)?;
    farm.gates.wait_for_arrivals("two", 1, Deadline::seconds(60))?;
    assert_eq!(classes(&farm, "first-1").await?, ["worker_lost", ""]);
    worker(&mut farm, 0)?.signal(Signal::SIGCONT)?;
    farm.wait_until(
        "the older attempt is open again",
        Deadline::seconds(30),
        "select count(*) = 1 from attempts where number = 1 and ended_at is null",
        &[],
    )
    .await?;
    assert_eq!(classes(&farm, "first-1").await?, ["", "superseded"]);
    worker(&mut farm, 1)?.wait_log("another attempt of the same build counts", Deadline::seconds(20))?;
    farm.gates.open("one")?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    farm.expect_states(&[("first-1", "succeeded"), ("second-1", "succeeded")]).await?;
    assert_eq!(classes(&farm, "first-1").await?, ["succeeded", "superseded"]);
    wait_for_logs(&mut farm, "first-1").await?;
    farm.stop_all()
}
