//! Builders that the kernel kills for want of memory.

use anyhow::{Result, ensure};
use hauberk_tests::{Deadline, Farm, FarmConfig, MemoryGroup, jobs};

/// A build that fails by itself, while another machine runs out of memory.
const BROKEN: &str = r#"
  broken = job "broken-1" ''
    ${gate "broken"}
    exit 3
  '';
"#;

/// One whose builder starts what is killed, and one whose builder is killed itself.
const HUNGRY: &str = r#"
  hungry = job "hungry-1" ''
    perl -e '$x = "x" x 150000000; print length $x' > $out
  '';
  swollen = job "swollen-1" ''
    exec perl -e '$x = "x" x 150000000; open $f, ">", $ENV{out}; print $f length $x'
  '';
"#;

/// The attempts of a build: the workers' names, classes, exit statuses and messages.
async fn attempts(farm: &Farm, build: &str) -> Result<Vec<(String, String, Option<i32>, String)>> {
    let statement = "select w.name, coalesce(a.class, 'open'), a.exit_status, coalesce(a.message, '') from attempts a \
                     join builds b on b.id = a.build_id join workers w on w.id = a.worker_id where b.name = $1 order by a.number";
    let rows = farm.query(statement, &[&build]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn builders_that_the_kernel_kills_for_want_of_memory_are_tried_elsewhere() -> Result<()> {
    let (Some(small), Some(large)) = (MemoryGroup::create("small")?, MemoryGroup::create("large")?) else {
        eprintln!("not tried: this kernel has no control groups of memory, or they may not be used here");
        return Ok(());
    };
    let mut farm = Farm::create(FarmConfig { slots: 2, ..FarmConfig::new()? })?;
    small.add(farm.workers[0].machine.daemon_id()?)?;
    small.limit(64 << 20)?;
    large.add(farm.workers[1].machine.daemon_id()?)?;
    let launch = farm.server_launch().args(["--retry-delay", "10"]);
    let mut server = launch.start("remote-server", farm.directory())?;
    server.wait_ready(Deadline::seconds(60))?;
    farm.server = Some(server);
    for worker in 0..2 {
        farm.start_worker(worker)?;
        farm.wait_until_joined(worker).await?;
    }
    let operate = |farm: &Farm, arguments: &[&str]| {
        let database = farm.postgres.connection_string();
        farm.hauberk_on_server().args(arguments).args(["--database", &database]).run()
    };

    // A build is under way on the second machine, and the others go to the first.
    operate(&farm, &["worker", "pause", "worker-1"])?;
    let (repository, specification) = farm.repository("memory", BROKEN)?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("broken", 1, Deadline::seconds(90))?;
    operate(&farm, &["worker", "pause", "worker-2"])?;
    operate(&farm, &["worker", "resume", "worker-1"])?;
    repository.write("release.nix", &jobs(&format!("{BROKEN}{HUNGRY}")))?;
    repository.commit("Be hungry")?;
    farm.look_now("memory").await?;
    farm.wait_until(
        "both have failed",
        Deadline::seconds(120),
        "select count(distinct build_id) = 2 from attempts where ended_at is not null",
        &[],
    )
    .await?;
    ensure!(small.kills()? >= 2, "the kernel has killed {} processes", small.kills()?);
    for build in ["hungry-1", "swollen-1"] {
        let tried = attempts(&farm, build).await?;
        let (worker, class, exit_status, message) = &tried[0];
        assert_eq!((worker.as_str(), class.as_str()), ("worker-1", "out_of_memory"), "{build}: {message}");
        assert_eq!(*exit_status, Some(128 + 9), "{build}: {message}");
        assert!(message.starts_with("the machine ran out of memory: "), "{build}: {message}");
        assert_eq!(farm.state_of(build).await?, "deferred");
    }
    // Want of memory on another machine, as the same kernel has it, is no excuse.
    farm.gates.open("broken")?;
    farm.wait_for_build("broken-1", &["failed"], Deadline::seconds(60)).await?;
    let tried = attempts(&farm, "broken-1").await?;
    assert_eq!((tried.len(), tried[0].1.as_str(), tried[0].2), (1, "build_failed", Some(3)), "{tried:?}");

    operate(&farm, &["worker", "resume", "worker-2"])?;
    for build in ["hungry-1", "swollen-1"] {
        farm.wait_for_build(build, &["succeeded"], Deadline::seconds(90)).await?;
        let tried = attempts(&farm, build).await?;
        let tried: Vec<_> =
            tried.iter().map(|(worker, class, ..)| (worker.as_str(), class.as_str())).collect();
        assert_eq!(tried, [("worker-1", "out_of_memory"), ("worker-2", "succeeded")], "{build}");
    }
    assert_eq!(large.kills()?, 0);
    farm.stop_all()
}
