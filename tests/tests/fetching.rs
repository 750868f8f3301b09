//! Results on their way from workers to the server, while connections are cut and the server is killed, and what a bad one costs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use hauberk_tests::{Deadline, Farm, FarmConfig, LARGE_AND_SECOND, Process, wait_for};

/// Two outputs of one build.
const TWINS: &str = r#"
  twins = derivation {
    name = "twins-1";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    outputs = [ "out" "doc" ];
    args = [ "-e" "-c" "export PATH=/bin\nseq 1 20000 > $out\nseq 1 30000 > $doc" ];
  };
"#;

/// The worker sends so much a second, so that there is time to do harm.
fn throttle(farm: &Farm, rate: &str) -> Result<()> {
    let queue = ["tbf", "rate", rate, "burst", "64kb", "latency", "50ms"];
    let at = ["qdisc", "add", "dev", "eth0", "root"];
    farm.workers[0].machine.command("tc").args(at).args(queue).run().map(|_| ())
}

fn unthrottle(farm: &Farm) -> Result<()> {
    farm.workers[0].machine.command("tc").args(["qdisc", "del", "dev", "eth0", "root"]).run().map(|_| ())
}

fn server(farm: &mut Farm) -> Result<&mut Process> {
    farm.server.as_mut().context("the server was started")
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

/// Waits until more than `least` bytes of what is being fetched are on the server's disk, and gives how many.
fn wait_for_bytes(farm: &mut Farm, least: u64) -> Result<u64> {
    let scratch = farm.cache().join("tmp");
    wait_for("a part of the output is there", Deadline::seconds(90), || {
        farm.check_processes()?;
        Ok(Some(bytes_below(&scratch)).filter(|bytes| *bytes > least))
    })
}

fn narinfo(farm: &Farm, path: &str) -> PathBuf {
    let name = path.rsplit('/').next().unwrap_or_default();
    farm.cache().join(format!("{}.narinfo", name.split('-').next().unwrap_or_default()))
}

async fn throttled_farm() -> Result<Farm> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    let (_, specification) = farm.repository("fetching", LARGE_AND_SECOND)?;
    farm.start_register(&[specification])?;
    farm.wait_for_build("large-1", &["running"], Deadline::seconds(60)).await?;
    throttle(&farm, "8mbit")?;
    farm.gates.open("large")?;
    Ok(farm)
}

/// Everything has succeeded at its first try, and a user gets just what was built.
async fn check_the_end(mut farm: Farm) -> Result<()> {
    unthrottle(&farm)?;
    farm.wait_for_the_end(Deadline::seconds(240)).await?;
    farm.expect_states(&[("large-1", "succeeded"), ("second-1", "succeeded")]).await?;
    let attempts: i64 = farm.query("select count(*) from attempts", &[]).await?[0].get(0);
    assert_eq!(attempts, 2, "{}", farm.describe_builds().await);
    let (large, second) = (farm.output_of("large-1").await?, farm.output_of("second-1").await?);
    let key = farm.server_signing_key().to_owned();
    let user = farm.user_machine("user", &key)?;
    user.command("nix-store").args(["--realise", &second]).run()?;
    let built = farm.workers[0].machine.outside(&large);
    assert!(fs::read(built)? == fs::read(user.outside(&large))?, "the user got something else");
    farm.hauberk().args(["cache", "verify"]).arg(farm.cache()).run()?;
    farm.stop_all()
}

#[tokio::test]
async fn a_fetch_survives_a_cut() -> Result<()> {
    let mut farm = throttled_farm().await?;
    let before = wait_for_bytes(&mut farm, 2 << 20)?;
    // All its connections break at once, and it can be reached again a moment later.
    let machine = &farm.workers[0].machine;
    let reset = "table inet cut {\nchain output {\ntype filter hook output priority 0\ntcp sport 5558 reject with tcp reset\n}\n\
                 chain input {\ntype filter hook input priority 0\ntcp dport 5558 reject with tcp reset\n}\n}";
    machine.command("nft").arg(reset).run()?;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    machine.command("nft").args(["delete", "table", "inet", "cut"]).run()?;
    // It goes on; it does not begin anew.
    assert!(wait_for_bytes(&mut farm, before)? > before);
    check_the_end(farm).await
}

#[tokio::test]
async fn a_fetch_survives_the_server() -> Result<()> {
    let mut farm = throttled_farm().await?;
    let output = farm.output_of("large-1").await?;
    for _ in 0..2 {
        wait_for_bytes(&mut farm, 2 << 20)?;
        server(&mut farm)?.kill9()?;
        ensure!(!narinfo(&farm, &output).exists(), "half an output is published");
        ensure!(bytes_below(&farm.cache().join("nar")) < 1 << 20, "half a nar has its name");
        server(&mut farm)?.restart()?;
        server(&mut farm)?.wait_ready(Deadline::seconds(60))?;
    }
    check_the_end(farm).await
}

/// Only one of two outputs comes changed: neither is published, and the build is done elsewhere.
#[tokio::test]
async fn what_comes_with_a_changed_output_is_not_published_either() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 2, ..FarmConfig::new()? })?;
    let launch = farm.server_launch().args(["--retry-delay", "5"]);
    let mut process = launch.start("remote-server", farm.directory())?;
    process.wait_ready(Deadline::seconds(60))?;
    farm.server = Some(process);
    let (_, specification) = farm.repository("fetching", TWINS)?;
    farm.start_register(&[specification])?;
    farm.wait_for_build("twins-1", &["ready"], Deadline::seconds(60)).await?;
    let rows = farm.query("select path from outputs order by name", &[]).await?;
    let paths: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let [doc, out] = paths.as_slice() else { anyhow::bail!("two outputs are expected: {paths:?}") };
    let place = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        format!("/nar/zstd/{name}")
    };
    let (flag, log) = (farm.directory().join("tamper"), farm.directory().join("proxy-requests"));
    fs::write(&flag, "")?;
    let host = &mut farm.workers[0];
    let _proxy = host
        .machine
        .command(env!("CARGO_BIN_EXE_tampering-proxy"))
        .args(["0.0.0.0:5600", "127.0.0.1:5558", &place(doc)])
        .arg(&flag)
        .arg(&log)
        .start("proxy", host.machine.directory())?;
    wait_for("the proxy listens", Deadline::seconds(10), || Ok(log.exists().then_some(())))?;
    host.launch = host.launch.clone().args(["--publish-url", &format!("http://{}:5600", host.address)]);
    farm.start_worker(0)?;
    let refused = "select exists (select from attempts where class = 'transfer')";
    farm.wait_until("the first attempt is given up", Deadline::seconds(90), refused, &[]).await?;
    let requests = fs::read_to_string(&log)?;
    ensure!(requests.contains(&format!("{} changed", place(doc))), "{requests}");
    ensure!(requests.contains(&format!("{} passed", place(out))), "the other was not fetched: {requests}");
    for path in &paths {
        ensure!(!narinfo(&farm, path).exists(), "{path} is published");
    }
    ensure!(bytes_below(&farm.cache().join("nar")) == 0, "a nar is left");

    farm.start_worker(1)?;
    farm.wait_for_build("twins-1", &["succeeded"], Deadline::seconds(180)).await?;
    let by = "select w.name from builds b join attempts a on a.id = b.attempt_id join workers w on w.id = a.worker_id";
    assert_eq!(farm.query(by, &[]).await?[0].get::<_, &str>(0), "worker-2");
    ensure!(paths.iter().all(|path| narinfo(&farm, path).exists()), "something is missing");
    farm.hauberk().args(["cache", "verify"]).arg(farm.cache()).run()?;
    farm.stop_all()
}
