//! Disks are full for a while.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hauberk_tests::simulated::{Random, SimulatedFarm, SimulatedFarmConfig};

/// Fills a file system to the last byte; the file goes with [`Filler::free`].
struct Filler(PathBuf);

impl Filler {
    fn fill(directory: &Path) -> Result<Self> {
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

    fn free(self) -> Result<()> {
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
    farm.server.wait_log("cannot fetch the outputs", hauberk_tests::Deadline::seconds(60))?;
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
