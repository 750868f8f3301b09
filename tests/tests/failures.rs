//! Builds that fail, each in its way.

use anyhow::Result;
use hauberk_tests::{Deadline, Farm, FarmConfig};

/// What fails by the package's fault, and its class.
const FAILURES: [(&str, &str); 8] = [
    ("broken-1", "build_failed"),
    ("no-space-1", "build_failed"),
    ("no-output-1", "build_failed"),
    ("chatty-1", "log_limit"),
    ("bulky-1", "output_limit"),
    ("talker-1", "timed_out"),
    ("sleeper-1", "silent"),
    ("leaver-1", "silent"),
];

const GRAPH: &str = r#"
  fine = job "fine-1" "echo fine > $out";
  broken = job "broken-1" "echo about to fail; exit 3";
  needs-broken = job "needs-broken-1" "cat ${broken} ${fine} > $out";
  needs-that = job "needs-that-1" "cat ${needs-broken} > $out";
  no-space = job "no-space-1" "echo 'cannot write: No space left on device' >&2; exit 1";
  chatty = job "chatty-1" "while true; do echo a line and another one; done";
  bulky = job "bulky-1" "head -c 1100000 /dev/zero > $out";
  slim = job "slim-1" "head -c 1000000 /dev/zero > $out";
  no-output = job "no-output-1" "echo forgot something";
  talker = job "talker-1" "while true; do echo still here; sleep 0.2; done" // { meta.timeout = 3; };
  sleeper = job "sleeper-1" "echo good night; sleep 1000" // { meta.maxSilent = 2; };
  source = derivation {
    name = "source-1";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-e" "-c" "export PATH=/bin; echo no such host; exit 4" ];
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" "fetched\n";
  };
  program = job "program-1" "cat ${source} > $out; echo compiled >> $out";
  package = job "package-1" "cat ${program} > $out";
  leaver = job "leaver-1" "sleep 1000 & sleep 1000 & setsid sleep 1000 & echo left some; sleep 1000" // { meta.maxSilent = 2; };
"#;

#[tokio::test]
async fn failures_are_told_apart_and_reach_their_dependents() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { slots: 2, ..FarmConfig::new()? })?;
    let mut server = farm
        .server_launch()
        .args(["--log-limit=1", "--output-limit=1", "--retries=1", "--retry-delay=0.1"])
        .start("remote-server", farm.directory())?;
    server.wait_ready(Deadline::seconds(60))?;
    farm.server = Some(server);
    for worker in 0..farm.workers.len() {
        farm.start_worker(worker)?;
    }
    let (repository, specification) = farm.repository("failures", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.wait_for_evaluations(1, Deadline::seconds(60)).await?;
    farm.wait_for_the_end(Deadline::seconds(90)).await?;
    farm.expect_states(&[
        ("fine-1", "succeeded"),
        ("broken-1", "failed"),
        ("needs-broken-1", "failed_dependency"),
        ("needs-that-1", "failed_dependency"),
        // There is plenty: what a log says proves nothing.
        ("no-space-1", "failed"),
        ("no-output-1", "failed"),
        ("chatty-1", "failed"),
        ("bulky-1", "failed"),
        ("slim-1", "succeeded"),
        ("talker-1", "failed"),
        ("sleeper-1", "failed"),
        ("source-1", "failed_other"),
        ("program-1", "failed_dependency"),
        ("package-1", "failed_dependency"),
        ("leaver-1", "failed"),
    ])
    .await?;
    let classes = "select array_agg(coalesce(a.class, '') order by a.number) from attempts a join builds b on b.id = a.build_id \
                   where b.id = any ($1::bigint[]) group by b.name order by b.name";
    let statement = "select id from builds where state = 'failed' order by name";
    let failed: Vec<i64> = farm.query(statement, &[]).await?.iter().map(|row| row.get(0)).collect();
    let mut expected = FAILURES;
    expected.sort_unstable();
    let expected: Vec<Vec<String>> = expected.iter().map(|(_, class)| vec![(*class).to_owned()]).collect();
    let told =
        |rows: Vec<tokio_postgres::Row>| -> Vec<Vec<String>> { rows.iter().map(|row| row.get(0)).collect() };
    assert_eq!(told(farm.query(classes, &[&failed]).await?), expected, "none of it is tried again");
    // The mebibyte that `--log-limit=1` gives it, and why it ended.
    let statement =
        "select a.log_bytes from attempts a join builds b on b.id = a.build_id where b.name = 'chatty-1'";
    let log: i64 = farm.query(statement, &[]).await?[0].get(0);
    assert!((log - (1 << 20)).abs() < 1000, "{log} bytes of log");
    let blamed = farm
        .query(
            "select f.name from builds b join builds f on f.id = b.failed_build_id where b.state = 'failed_dependency'",
            &[],
        )
        .await?;
    let mut blamed: Vec<&str> = blamed.iter().map(|row| row.get(0)).collect();
    blamed.sort_unstable();
    assert_eq!(blamed, ["broken-1", "broken-1", "source-1", "source-1"]);
    // The builders that were ended left nothing running.
    for host in &farm.workers {
        let left = host.machine.command("pgrep").args(["-f", "sleep 1000$"]).run().unwrap_or_default();
        assert_eq!(left, "", "{} has left-over builders", host.name());
    }

    // The first dependency is mended, and gives another path: it and its dependents are builds of their own. The second gives the path
    // that the first evaluation wanted, and so do its dependents: the builds that had failed begin anew.
    let mended = GRAPH.replace("exit 3", "echo now > $out").replace("exit 4", "echo fetched > $out");
    repository.write("release.nix", &hauberk_tests::jobs(&mended))?;
    repository.commit("Mend it")?;
    farm.look_now("failures").await?;
    farm.wait_for_evaluations(2, Deadline::seconds(60)).await?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    let names =
        |rows: Vec<tokio_postgres::Row>| -> Vec<String> { rows.iter().map(|row| row.get(0)).collect() };
    let statement = "select name from builds where state = 'succeeded' and generation = $1 order by name";
    let built = names(farm.query(statement, &[&1]).await?);
    assert_eq!(built, ["broken-1", "fine-1", "needs-broken-1", "needs-that-1", "slim-1"]);
    assert_eq!(names(farm.query(statement, &[&2]).await?), ["package-1", "program-1", "source-1"]);
    let first = "select j.name from jobs j join builds b on b.id = j.build_id \
                 where j.evaluation_id = (select min(id) from evaluations) and b.state = 'succeeded' order by 1";
    assert_eq!(names(farm.query(first, &[]).await?), ["fine", "package", "program", "slim", "source"]);

    // What is known to fail was not tried again. What has a fixed hash may have failed by the network, and had another try.
    assert_eq!(told(farm.query(classes, &[&failed]).await?), expected);
    let source: i64 = farm.query("select id from builds where name = 'source-1'", &[]).await?[0].get(0);
    assert_eq!(told(farm.query(classes, &[&vec![source]]).await?), [["daemon", "daemon", "succeeded"]]);
    farm.stop_all()
}
