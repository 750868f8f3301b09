//! Workers that cannot be reached put their results on the server.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use hauberk_tests::{Deadline, Farm, FarmConfig, LARGE_AND_SECOND, Launch, Machine, free_port, wait_for};

/// Lets nothing that was not asked for from inside come to a machine, as a router that translates addresses does.
fn hide(machine: &Machine) -> Result<()> {
    let table = "table inet router {\nchain input {\ntype filter hook input priority 0\npolicy drop\n\
                 iifname lo accept\nct state established,related accept\n}\n}";
    machine.command("nft").arg(table).run().map(|_| ())
}

/// A farm whose only worker cannot be reached.
async fn hidden_farm() -> Result<Farm> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    hide(&farm.workers[0].machine)?;
    // No announcement comes through.
    let server = farm.publish_url().replace("http://", "").replace(":5557", ":5555");
    let host = &mut farm.workers[0];
    host.launch = host.launch.clone().args(["--server", &server]);
    farm.start_all().await?;
    let (_, specification) = farm.repository("uploads", LARGE_AND_SECOND)?;
    farm.start_register(&[specification])?;
    Ok(farm)
}

/// The server's machine takes this many bytes a second from the worker, so that there is time to do harm.
fn throttle(farm: &Farm, rate: &str) -> Result<()> {
    farm.workers[0]
        .machine
        .command("tc")
        .args([
            "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "64kb", "latency", "50ms",
        ])
        .run()
        .map(|_| ())
}

fn unthrottle(farm: &Farm) -> Result<()> {
    farm.workers[0].machine.command("tc").args(["qdisc", "del", "dev", "eth0", "root"]).run().map(|_| ())
}

/// Waits until more than `least` bytes of the large nar are in the inbox, and gives how many.
fn wait_for_bytes(farm: &mut Farm, least: u64) -> Result<u64> {
    let inbox = farm.cache().join("inbox");
    wait_for("a part of the upload is there", Deadline::seconds(90), || {
        farm.check_processes()?;
        Ok(Some(bytes_below(&inbox)).filter(|bytes| *bytes > least))
    })
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Everything has succeeded at its first try, nothing was fetched from the worker, and a user gets just what was built.
async fn check_the_end(farm: &mut Farm) -> Result<()> {
    farm.wait_for_the_end(Deadline::seconds(240)).await?;
    farm.expect_states(&[("large-1", "succeeded"), ("second-1", "succeeded")]).await?;
    let attempts: i64 = farm.query("select count(*) from attempts", &[]).await?[0].get(0);
    assert_eq!(attempts, 2, "{}", farm.describe_builds().await);
    let output = farm.output_of("large-1").await?;
    let second = farm.output_of("second-1").await?;
    let key = farm.server_signing_key().to_owned();
    let user = farm.user_machine("user", &key)?;
    user.command("nix-store").args(["--realise", &second]).run()?;
    let built: PathBuf = farm.workers[0].machine.outside(&output);
    assert!(fs::read(built)? == fs::read(user.outside(&output))?, "the user got something else");
    wait_for("nothing is left of the uploads", Deadline::seconds(10), || {
        let left = fs::read_dir(farm.cache().join("inbox"))?.count();
        Ok((left == 0).then_some(()))
    })?;
    farm.stop_all()
}

fn server(farm: &mut Farm) -> Result<&mut hauberk_tests::Process> {
    farm.server.as_mut().context("the server was started")
}

#[tokio::test]
async fn a_worker_behind_a_router_uploads() -> Result<()> {
    let mut farm = hidden_farm().await?;
    server(&mut farm)?.wait_log("it is to upload its results", Deadline::seconds(30))?;
    // Operators are told.
    let found = "select coalesce(bool_or(uploads), false) from workers";
    farm.wait_until("it is known to upload", Deadline::seconds(30), found, &[]).await?;
    let database = farm.postgres.connection_string();
    let told = |what: &[&str]| farm.hauberk().arg("worker").args(what).args(["--database", &database]).run();
    let list = told(&["list"])?;
    assert!(list.contains("RESULTS") && list.contains("uploaded"), "{list}");
    let shown = told(&["show", "worker-1"])?;
    assert!(shown.contains("uploaded: the server does not reach it at http://"), "{shown}");
    let port = free_port()?;
    farm.start_web(port)?;
    for page in ["workers", "machine/MACHINE"] {
        let machine: String = farm.query("select machine from workers", &[]).await?[0].get(0);
        let url = format!("http://127.0.0.1:{port}/{}", page.replace("MACHINE", &machine));
        let shown = Launch::here("curl").args(["--silent", "--show-error", "--fail", &url]).run()?;
        assert!(shown.contains("cannot be reached, uploads its results"), "{page}: {shown}");
    }
    farm.gates.open("large")?;
    check_the_end(&mut farm).await
}

#[tokio::test]
async fn a_worker_uploads_when_it_is_told_to() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    let host = &mut farm.workers[0];
    host.launch = host.launch.clone().arg("--upload");
    farm.start_all().await?;
    let (_, specification) = farm.repository("uploads", LARGE_AND_SECOND)?;
    farm.start_register(&[specification])?;
    farm.gates.open("large")?;
    check_the_end(&mut farm).await
}

#[tokio::test]
async fn whoever_answers_for_a_worker_is_not_believed() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 2, ..FarmConfig::new()? })?;
    // The first says that it is where the second is.
    let other = format!("http://{}:5558", farm.workers[1].address);
    let host = &mut farm.workers[0];
    host.launch = host.launch.clone().args(["--publish-url", &other]);
    farm.start_server()?;
    farm.start_worker(1)?;
    farm.wait_until_joined(1).await?;
    farm.hauberk()
        .args(["worker", "pause", "worker-2", "--database", &farm.postgres.connection_string()])
        .run()?;
    farm.start_worker(0)?;
    farm.wait_until_joined(0).await?;
    server(&mut farm)?.wait_log("is not worker-1", Deadline::seconds(30))?;
    let (_, specification) = farm.repository("uploads", LARGE_AND_SECOND)?;
    farm.start_register(&[specification])?;
    farm.gates.open("large")?;
    check_the_end(&mut farm).await
}

#[tokio::test]
async fn an_upload_survives_a_cut() -> Result<()> {
    let mut farm = hidden_farm().await?;
    throttle(&farm, "8mbit")?;
    farm.gates.open("large")?;
    let before = wait_for_bytes(&mut farm, 2 << 20)?;
    // Long enough for both sides to notice that nothing comes, too short for a lease.
    farm.network.unplug(&farm.workers[0].machine)?;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    farm.network.plug(&farm.workers[0].machine)?;
    assert!(wait_for_bytes(&mut farm, before)? > before);
    unthrottle(&farm)?;
    check_the_end(&mut farm).await
}

#[tokio::test]
async fn an_upload_survives_the_server() -> Result<()> {
    let mut farm = hidden_farm().await?;
    throttle(&farm, "8mbit")?;
    farm.gates.open("large")?;
    let mut before = wait_for_bytes(&mut farm, 1 << 20)?;
    for _ in 0..2 {
        server(&mut farm)?.kill9()?;
        assert!(bytes_below(&farm.cache().join("inbox")) >= before);
        server(&mut farm)?.restart()?;
        server(&mut farm)?.wait_ready(Deadline::seconds(60))?;
        // It goes on; it does not begin anew.
        before = wait_for_bytes(&mut farm, before)?;
    }
    unthrottle(&farm)?;
    check_the_end(&mut farm).await
}

#[tokio::test]
async fn an_upload_survives_its_worker() -> Result<()> {
    let mut farm = hidden_farm().await?;
    throttle(&farm, "8mbit")?;
    farm.gates.open("large")?;
    let before = wait_for_bytes(&mut farm, 2 << 20)?;
    farm.workers[0].process()?.kill9()?;
    assert!(bytes_below(&farm.cache().join("inbox")) >= before);
    farm.workers[0].process()?.restart()?;
    farm.workers[0].process()?.wait_ready(Deadline::seconds(60))?;
    wait_for_bytes(&mut farm, before)?;
    unthrottle(&farm)?;
    check_the_end(&mut farm).await
}
