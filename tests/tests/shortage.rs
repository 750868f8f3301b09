//! A worker whose disk fills says so, gets no work, and takes work again by itself; everybody can see why.

use std::fs;

use anyhow::{Context, Result, ensure};
use hauberk_tests::{Deadline, Farm, FarmConfig, Launch, wait_for};
use serde_json::Value;

const GRAPH: &str = r#"
  only = job "only-1" "echo only > $out";
"#;

const SHORT: &str = "select exists (select from workers where name = $1 and shortage is not null)";

fn ask(farm: &Farm, arguments: &[&str]) -> Result<String> {
    farm.hauberk_on_server().args(arguments).args(["--database", &farm.postgres.connection_string()]).run()
}

fn metrics_of(farm: &Farm, url: &str) -> Result<String> {
    farm.server_machine.command("curl").args(["--silent", "--show-error", url]).run()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_disk_fills_gets_no_work_until_there_is_room() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    let spool = farm.workers[0].machine.directory().join("spool");
    farm.workers[0].machine.mount_small(&spool, "64m")?;
    let launch = farm.workers[0].launch.clone();
    farm.workers[0].launch = launch.args(["--minimum-disk-space", "0.03", "--cores", "1"]);
    farm.start_all().await?;
    farm.start_web(0)?;

    // 20 MiB are left of the 64: less than 0.03 GiB.
    let filler = farm.workers[0].machine.inside(&spool).join("filler");
    fs::write(&filler, vec![1; 44 << 20])?;
    let name = farm.workers[0].name().to_owned();
    farm.wait_until("the worker says that it is short", Deadline::seconds(60), SHORT, &[&name]).await?;

    let (_, specification) = farm.repository("shortage", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.wait_for_build("only-1", &["ready"], Deadline::seconds(90)).await?;
    let build: i64 = farm.query("select id from builds where name = 'only-1'", &[]).await?[0].get(0);
    let words = "the disk of the spool has ";
    for arguments in
        [&["build", "why", &build.to_string()][..], &["worker", "list"], &["worker", "show", &name]]
    {
        let said = ask(&farm, arguments)?;
        ensure!(said.contains(words), "{arguments:?} does not say it:\n{said}");
    }
    let list: Value = serde_json::from_str(&ask(&farm, &["worker", "list", "--json"])?)?;
    assert_eq!(list[0]["state"], "short", "{list}");
    let status: Value = serde_json::from_str(&ask(&farm, &["status", "--json"])?)?;
    assert_eq!(status["workers"]["short"], 1, "{status}");
    assert_eq!(status["queue"][0]["reason"], "workers_paused", "{status}");
    let metrics = metrics_of(&farm, &format!("{}/metrics", farm.publish_url()))?;
    ensure!(metrics.contains("hauberk_sessions{state=\"short\"} 1"), "{metrics}");
    ensure!(
        metrics.contains("hauberk_queue_builds{system=\"x86_64-linux\",reason=\"worker\"} 1"),
        "{metrics}"
    );
    let url = format!("http://{}:5558/metrics", farm.workers[0].address);
    let metrics = metrics_of(&farm, &url)?;
    ensure!(metrics.contains("hauberk_worker_short{of=\"spool_disk\"} 1"), "{metrics}");
    assert_eq!(farm.state_of("only-1").await?, "ready", "nothing is assigned meanwhile");

    fs::remove_file(&filler)?;
    farm.wait_for_build("only-1", &["succeeded"], Deadline::seconds(60)).await?;
    farm.wait_until(
        "the worker says that it lacks nothing",
        Deadline::seconds(60),
        "select exists (select from workers where name = $1 and shortage is null)",
        &[&name],
    )
    .await?;
    farm.stop_all()
}

#[test]
fn a_limit_of_pressure_is_an_error_where_the_kernel_tells_none() -> Result<()> {
    let farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    let host = &farm.workers[0];
    // As on a kernel that was booted with psi=0.
    host.machine.command("mount").args(["-t", "tmpfs", "none", "/proc/pressure"]).run()?;
    let launch: Launch = host.launch.clone().args(["--maximum-pressure", "io=50,cpu=80.5"]);
    let output = launch.output_within(Deadline::seconds(60))?;
    let text = String::from_utf8(output.stdout)? + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    for words in ["/proc/pressure/cpu", "psi=1", "--maximum-pressure"] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    // Without a limit nothing is asked of the kernel.
    let mut process = host.launch.start("worker-1", farm.directory())?;
    wait_for("the worker looks for its server", Deadline::seconds(60), || {
        process.check_alive().context("the worker ended")?;
        Ok(process.log_text().contains("serves its results").then_some(()))
    })
}
