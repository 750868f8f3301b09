//! Builds that fail, each in its way.

use anyhow::Result;
use hauberk_tests::{Deadline, Farm, FarmConfig};

const GRAPH: &str = r#"
  fine = job "fine-1" "echo fine > $out";
  broken = job "broken-1" "echo about to fail; exit 3";
  needs-broken = job "needs-broken-1" "cat ${broken} ${fine} > $out";
  needs-that = job "needs-that-1" "cat ${needs-broken} > $out";
  no-space = job "no-space-1" "echo 'cannot write: No space left on device' >&2; exit 1";
  no-output = job "no-output-1" "echo forgot something";
  talker = job "talker-1" "while true; do echo still here; sleep 0.2; done" // { meta.timeout = 3; };
  sleeper = job "sleeper-1" "echo good night; sleep 1000" // { meta.maxSilent = 2; };
  leaver = job "leaver-1" "sleep 1000 & sleep 1000 & setsid sleep 1000 & echo left some; sleep 1000" // { meta.maxSilent = 2; };
"#;

#[tokio::test]
async fn failures_are_told_apart_and_reach_their_dependents() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { slots: 2, ..FarmConfig::new()? })?;
    farm.start_all().await?;
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
        ("talker-1", "failed"),
        ("sleeper-1", "failed"),
        ("leaver-1", "failed"),
    ])
    .await?;
    for (name, class) in [
        ("broken-1", "build_failed"),
        ("no-space-1", "build_failed"),
        ("no-output-1", "build_failed"),
        ("talker-1", "timed_out"),
        ("sleeper-1", "silent"),
        ("leaver-1", "silent"),
    ] {
        let rows = farm
            .query(
                "select a.class, a.number from attempts a join builds b on b.id = a.build_id where b.name = $1",
                &[&name],
            )
            .await?;
        assert_eq!(rows.len(), 1, "{name} is the package's fault and not tried again");
        assert_eq!(rows[0].get::<_, Option<&str>>(0), Some(class), "{name}");
    }
    let blamed = farm
        .query(
            "select f.name from builds b join builds f on f.id = b.failed_build_id where b.state = 'failed_dependency'",
            &[],
        )
        .await?;
    assert!(blamed.len() == 2 && blamed.iter().all(|row| row.get::<_, &str>(0) == "broken-1"));
    // The builders that were ended left nothing running.
    for host in &farm.workers {
        let left = host.machine.command("pgrep").args(["-f", "sleep 1000$"]).run().unwrap_or_default();
        assert_eq!(left, "", "{} has left-over builders", host.name());
    }

    // The dependency is mended, and its dependents come back.
    repository.write("release.nix", &hauberk_tests::jobs(&GRAPH.replace("exit 3", "echo now > $out")))?;
    repository.commit("Mend it")?;
    farm.look_now("failures").await?;
    farm.wait_for_evaluations(2, Deadline::seconds(60)).await?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    let mended: i64 = farm
        .query(
            "select count(*) from builds where state = 'succeeded' and name in ('broken-1', 'needs-broken-1', 'needs-that-1')",
            &[],
        )
        .await?[0]
        .get(0);
    assert_eq!(mended, 3, "{}", farm.describe_builds().await);
    farm.stop_all()
}
