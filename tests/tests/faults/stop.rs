//! Processes stand still for a while (SIGSTOP), and go on.

use std::time::Duration;

use anyhow::Result;
use hauberk_tests::simulated::{Random, SimulatedFarm, SimulatedFarmConfig};
use nix::sys::signal::Signal;

/// A farm whose leases are longer than anything here takes.
fn patient() -> SimulatedFarmConfig {
    SimulatedFarmConfig { lease: 120, ..SimulatedFarmConfig::small() }
}

/// A farm with short leases.
fn hasty() -> SimulatedFarmConfig {
    SimulatedFarmConfig { lease: 3, ..SimulatedFarmConfig::small() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stands_still_for_less_than_a_lease() -> Result<()> {
    let mut random = Random::of_test("a_worker_stands_still_for_less_than_a_lease");
    let mut farm = SimulatedFarm::start(patient()).await?;
    let gate = farm.fill_with_work(&mut random).await?;
    farm.crews[0].process.signal(Signal::SIGSTOP)?;
    farm.gates.open(&gate)?;
    // What the others had, at least, ends meanwhile.
    farm.wait_ended(farm.slots_of_crew()).await?;
    farm.checker.attended(&farm.tables).await?.require_none()?;
    farm.crews[0].process.signal(Signal::SIGCONT)?;
    farm.settle().await?;
    assert_eq!(farm.attempts_where("number > 1").await?, 0, "nothing had to be repeated");
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stands_still_for_longer_than_a_lease() -> Result<()> {
    let mut random = Random::of_test("a_worker_stands_still_for_longer_than_a_lease");
    let mut farm = SimulatedFarm::start(hasty()).await?;
    let gate = farm.fill_with_work(&mut random).await?;
    farm.crews[0].process.signal(Signal::SIGSTOP)?;
    farm.wait_lost(farm.slots_of_crew()).await?;
    farm.checker.attended(&farm.tables).await?.require_none()?;
    farm.gates.open(&gate)?;
    // The others take over what it had.
    farm.wait_ended(farm.slots()).await?;
    farm.crews[0].process.signal(Signal::SIGCONT)?;
    farm.settle().await?;
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_stands_still_for_less_than_a_lease() -> Result<()> {
    let mut random = Random::of_test("the_server_stands_still_for_less_than_a_lease");
    let mut farm = SimulatedFarm::start(patient()).await?;
    let gate = farm.fill_with_work(&mut random).await?;
    farm.server.signal(Signal::SIGSTOP)?;
    farm.gates.open(&gate)?;
    for crew in 0..farm.crews.len() {
        farm.wait_results(crew, farm.slots_of_crew()).await?;
    }
    farm.checker.always(&farm.tables).await?.require_none()?;
    farm.server.signal(Signal::SIGCONT)?;
    farm.settle().await?;
    assert_eq!(farm.attempts_where("number > 1").await?, 0, "nothing had to be repeated");
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_stands_still_for_longer_than_a_lease() -> Result<()> {
    let mut random = Random::of_test("the_server_stands_still_for_longer_than_a_lease");
    let mut farm = SimulatedFarm::start(hasty()).await?;
    let gate = farm.fill_with_work(&mut random).await?;
    farm.server.signal(Signal::SIGSTOP)?;
    farm.gates.open(&gate)?;
    for crew in 0..farm.crews.len() {
        farm.wait_results(crew, farm.slots_of_crew()).await?;
    }
    tokio::time::sleep(farm.lease() + Duration::from_secs(2)).await;
    farm.server.signal(Signal::SIGCONT)?;
    farm.settle().await?;
    // It was the server that was not there: nobody is lost for that.
    assert_eq!(farm.attempts_where("number > 1").await?, 0, "nothing had to be repeated");
    farm.fill_all_slots().await?;
    farm.stop()
}
