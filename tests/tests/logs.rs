//! Logs followed by the command line over HTTP, as on a machine that has not the server's files: only what is new travels, and nothing is
//! lost while a log grows and is sealed.

use std::os::unix::process::ExitStatusExt as _;

use anyhow::{Context, Result};
use hauberk_tests::{Deadline, Farm, FarmConfig, Launch, Process, wait_for};

/// One that prints much and waits twice, and one that tells how often it was tried.
const GRAPH: &str = r#"
  long = job "long-1" ''
    print() {
      i=0
      while [ $i -lt 40000 ]; do
        i=$((i + 1))
        echo "$1: line $i of this log, where something new stands: $((i * 7919 % 104729)) $((i * 1299709 % 15485863))"
      done
    }
    print first
    ${gate "middle"}
    print second
    ${gate "end"}
    echo this is the end
    echo > $out
  '';
  bad = job "bad-1" ''
    echo try >> /gates/bad.tries
    echo this is try $(wc -l < /gates/bad.tries)
    exit 3
  '';
"#;

/// Reads figures of the server's publish port: bytes it sent, and questions about logs it answered.
fn sent(farm: &Farm) -> Result<(u64, u64)> {
    let url = format!("{}/metrics", farm.publish_url());
    let text = farm.server_machine.command("curl").args(["--silent", "--fail", &url]).run()?;
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).with_context(|| format!("{name} is not in\n{text}"))
    };
    Ok((
        figure("hauberk_publish_sent_bytes_total")?,
        figure("hauberk_publish_requests_total{kind=\"log\",outcome=\"ok\"}")?,
    ))
}

fn follow(farm: &Farm, build: &str) -> Result<Process> {
    let database = farm.postgres.connection_string();
    let arguments = ["build", "log", build, "--follow", "--database", &database];
    farm.hauberk_on_server().args(arguments).start("follower", farm.directory())
}

#[tokio::test]
async fn a_long_log_is_followed_by_what_is_new_of_it() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    let (_, specification) = farm.repository("logs", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.wait_for_build("long-1", &["running"], Deadline::seconds(90)).await?;
    let id: i64 = farm.query("select id from builds where name = 'long-1'", &[]).await?[0].get(0);
    let mut follower = follow(&farm, &id.to_string())?;
    let reads = |follower: &Process, line: &'static str| {
        wait_for(&format!("the follower reads {line:?}"), Deadline::seconds(90), || {
            Ok(follower.log_text().contains(line).then_some(()))
        })
    };
    reads(&follower, "first: line 40000 ")?;

    // While nothing is new, nothing of the log travels, however often is asked.
    let (bytes, before) = sent(&farm)?;
    let deadline = Deadline::seconds(60);
    let after = loop {
        let (now, questions) = sent(&farm)?;
        if questions >= before + 6 {
            break now;
        }
        anyhow::ensure!(!deadline.is_over(), "the follower does not look again");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    };
    // The answers to this test's own questions are counted too.
    assert!(after - bytes < 1_000_000, "{} bytes for nothing", after - bytes);

    farm.gates.open("middle")?;
    reads(&follower, "second: line 40000 ")?;
    // The rest comes and the log is sealed while the follower looks.
    farm.gates.open("end")?;
    let status = follower.wait_end(Deadline::seconds(60))?;
    assert!(status.success(), "{status:?} {:?}: {}", status.signal(), follower.log_tail());
    let path: String =
        farm.query("select log_path from attempts where build_id = $1", &[&id]).await?[0].get(0);
    let kept = Launch::here("gzip").arg("-dc").arg(farm.cache().join("logs").join(path)).run()?;
    assert!(kept.ends_with("this is the end\n") || kept.contains("\nthis is the end\n"));
    let followed = follower.log_text();
    assert_eq!(followed.len(), kept.len());
    assert!(followed == kept, "what was followed differs from what is kept");

    earlier_attempts(&mut farm).await
}

/// The log of every attempt can be had, not only of the newest.
async fn earlier_attempts(farm: &mut Farm) -> Result<()> {
    farm.wait_for_build("bad-1", &["failed"], Deadline::seconds(60)).await?;
    let id: i64 = farm.query("select id from builds where name = 'bad-1'", &[]).await?[0].get(0);
    let id = id.to_string();
    let database = farm.postgres.connection_string();
    let run = |farm: &Farm, arguments: &[&str]| {
        farm.hauberk_on_server().args(arguments).args(["--database", &database]).run()
    };
    run(farm, &["build", "restart", &id])?;
    farm.wait_until(
        "it was tried again, and both logs are complete",
        Deadline::seconds(60),
        "select count(*) = 2 and bool_and(log_complete) from attempts join builds b on b.id = build_id where b.name = 'bad-1'",
        &[],
    )
    .await?;
    for number in ["1", "2"] {
        let said = run(farm, &["build", "log", &id, "--attempt", number])?;
        assert!(said.contains(&format!("this is try {number}\n")), "{said}");
    }
    let newest = run(farm, &["build", "log", &id])?;
    assert!(newest.contains("this is try 2\n"), "{newest}");
    Ok(())
}
