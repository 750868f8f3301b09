//! Disks are full for a while.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hauberk_tests::Deadline;
use hauberk_tests::simulated::{Graph, Random, SimulatedFarm, SimulatedFarmConfig, publish};

use crate::form::rounds;

/// What the system says when a disk is full, and everybody who passes it on.
const FULL: &str = "No space left on device";

/// Fills a file system to the last byte; the file goes with [`Filler::free`].
pub(crate) struct Filler(PathBuf);

impl Filler {
    pub(crate) fn fill(directory: &Path) -> Result<Self> {
        let path = directory.join("filler");
        let mut file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        // Ever smaller pieces, until not even a byte goes in.
        for size in [1 << 20, 4096, 1] {
            let piece = vec![0; size];
            loop {
                match file.write(&piece) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(Self(path))
    }

    /// Gives so many bytes of it back.
    fn leave(&self, bytes: u64) -> Result<()> {
        let file = File::options().write(true).open(&self.0)?;
        let length = file.metadata()?.len();
        Ok(file.set_len(length.saturating_sub(bytes))?)
    }

    pub(crate) fn free(self) -> Result<()> {
        Ok(fs::remove_file(&self.0)?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_cache_and_logs_is_full() -> Result<()> {
    let mut random = Random::of_test("the_disk_of_cache_and_logs_is_full");
    let config =
        SimulatedFarmConfig { cache_size: Some("16m".to_owned()), lease: 60, ..SimulatedFarmConfig::small() };
    let mut farm = SimulatedFarm::start(config).await?;
    let gate = farm.fill_with_work(&mut random).await?;
    let filler = Filler::fill(&farm.server_machine.inside(&farm.directory().join("cache")))?;
    farm.gates.open(&gate)?;
    let slots = i64::try_from(farm.slots())?;
    farm.wait_until(
        "every build waits for room",
        "select count(*) >= $1 from builds where state in ('built', 'fetching')",
        &[&slots],
    )
    .await?;
    farm.server.wait_log("cannot fetch the outputs", Deadline::seconds(60))?;
    farm.checker.attended(&farm.tables).await?.require_none()?;
    filler.free()?;
    farm.settle().await?;
    assert_eq!(farm.attempts_where("number > 1").await?, 0, "nothing had to be repeated");
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_a_spool_is_full() -> Result<()> {
    let mut random = Random::of_test("the_disk_of_a_spool_is_full");
    let config =
        SimulatedFarmConfig { spool_size: Some("4m".to_owned()), lease: 60, ..SimulatedFarmConfig::small() };
    let mut farm = SimulatedFarm::start(config).await?;
    let filler = Filler::fill(&farm.crews[0].spools)?;
    // Logs and results are kept in memory then, and the builds go on.
    let gate = farm.fill_with_work(&mut random).await?;
    farm.gates.open(&gate)?;
    farm.settle().await?;
    assert_eq!(farm.attempts_where("number > 1").await?, 0, "nothing had to be repeated");
    filler.free()?;
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_the_database_is_full() -> Result<()> {
    let mut random = Random::of_test("the_disk_of_the_database_is_full");
    let config = SimulatedFarmConfig {
        database_size: Some("96m".to_owned()),
        lease: 60,
        ..SimulatedFarmConfig::small()
    };
    let mut farm = SimulatedFarm::start(config).await?;
    let cluster = farm.directory().join("postgres/cluster");
    let machine = farm.database_machine.as_ref().context("the database has a machine")?;
    let cluster = machine.inside(&cluster);
    for round in 0..rounds(3, 12) {
        let gate = farm.fill_with_work(&mut random).await?;
        let filler = Filler::fill(&cluster)?;
        // Full at once, or by what comes next: then some of it still finds room.
        filler.leave(random.below(2) * random.below(1 << 20))?;
        let said = farm.server.log_text().matches(FULL).count();
        farm.gates.open(&gate)?;
        let mut more = Graph::new(&farm.tag());
        more.add_tangle(5000, &mut random);
        let refused = publish(farm.database(), &more).await;
        eprintln!(
            "round {round}: publishing says {:?}",
            refused.as_ref().err().map(|error| format!("{error:#}"))
        );
        refused.unwrap_err();
        // What finds room, as in rows and journals that are written over, is done all the same.
        let unfinished = "select from builds where status < 0";
        let deadline = Deadline::seconds(120);
        while farm.server.log_text().matches(FULL).count() == said {
            farm.server.check_alive()?;
            if farm.tables.query(unfinished, &[]).await.is_ok_and(|builds| builds.is_empty()) {
                eprintln!("round {round}: all of it found room");
                break;
            }
            if deadline.is_over() {
                anyhow::bail!("the server does not say what is wrong\n{}", farm.describe().await);
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        filler.free()?;
        // PostgreSQL ends where there is no room for its journal: whoever looks after it starts it again.
        let deadline = Deadline::seconds(120);
        while let Err(error) = farm.tables.query("select 1", &[]).await {
            anyhow::ensure!(!deadline.is_over(), "the database does not come back: {error:#}");
            if !farm.postgres.is_running()? {
                eprintln!("round {round}: PostgreSQL has ended");
                farm.postgres.start()?;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        farm.checker.always(&farm.tables).await?.require_none()?;
        farm.settle().await?;
        assert_eq!(farm.attempts_where("number > 1").await?, 0, "nothing had to be repeated");
    }
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_disk_is_full_is_set_aside_until_it_does_a_build() -> Result<()> {
    let config = SimulatedFarmConfig {
        workers: 1,
        slots: 5,
        outputs_size: Some("8m".to_owned()),
        server_arguments: vec!["--probe-pause".to_owned(), "1".to_owned()],
        ..SimulatedFarmConfig::default()
    };
    let mut farm = SimulatedFarm::start(config).await?;
    let publish_some = async |farm: &mut SimulatedFarm| -> Result<()> {
        let mut graph = Graph::new(&farm.tag());
        graph.add_many("slow", 10);
        farm.publish(&graph).await?;
        farm.settle().await
    };
    let is_aside = "select paused and set_aside_at is not null and pause_reason like 'set aside by the farm: %' \
                    from workers where name = 'crew-1-1'";
    let filler = Filler::fill(&farm.crews[0].outputs)?;
    // What fails there succeeds on the other.
    let deadline = Deadline::seconds(120);
    while !farm.tables.query(is_aside, &[]).await?[0].get::<_, bool>(0) {
        anyhow::ensure!(!deadline.is_over(), "the worker is not set aside\n{}", farm.describe().await);
        publish_some(&mut farm).await?;
    }
    farm.server.wait_log("set aside by the farm", Deadline::seconds(10))?;
    // It is probed, and stays aside as long as its disk is full.
    let failed = farm.attempts_where("class = 'disk_full'").await?;
    while farm.attempts_where("class = 'disk_full'").await? == failed {
        anyhow::ensure!(!deadline.is_over(), "the worker is not tried\n{}", farm.describe().await);
        publish_some(&mut farm).await?;
    }
    assert!(
        farm.tables.query(is_aside, &[]).await?[0].get::<_, bool>(0),
        "a probe that fails changes nothing"
    );
    filler.free()?;
    let deadline = Deadline::seconds(120);
    while farm.tables.query("select paused from workers where name = 'crew-1-1'", &[]).await?[0].get(0) {
        anyhow::ensure!(!deadline.is_over(), "the worker gets no work again\n{}", farm.describe().await);
        publish_some(&mut farm).await?;
    }
    farm.fill_all_slots().await?;
    farm.stop()
}
