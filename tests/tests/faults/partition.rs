//! The network between a crew and the server is cut, in both directions or in one, silently.

use std::time::Duration;

use anyhow::Result;
use hauberk_tests::Network;
use hauberk_tests::simulated::{Random, SimulatedFarm, SimulatedFarmConfig};

use crate::form::rounds;

type Cut = fn(&Network, &hauberk_tests::Machine) -> Result<()>;

const CUTS: [(&str, Cut); 3] =
    [("both ways", Network::cut), ("from the worker", Network::cut_from), ("to the worker", Network::cut_to)];

#[tokio::test(flavor = "multi_thread")]
async fn a_short_partition() -> Result<()> {
    let mut random = Random::of_test("a_short_partition");
    let config = SimulatedFarmConfig { lease: 120, ..SimulatedFarmConfig::small() };
    let mut farm = SimulatedFarm::start(config).await?;
    for _ in 0..rounds(1, 10) {
        for (direction, cut) in CUTS {
            let before = farm.published();
            let gate = farm.fill_with_work(&mut random).await?;
            farm.wait_long_log().await?;
            eprintln!("a short cut {direction}");
            cut(&farm.network, &farm.crews[0].machine)?;
            farm.gates.open(&gate)?;
            // What the others had, at least, ends meanwhile; and connections notice.
            farm.wait_ended(before + farm.slots_of_crew()).await?;
            tokio::time::sleep(Duration::from_millis(random.below(2000))).await;
            farm.checker.attended(&farm.tables).await?.require_none()?;
            farm.network.heal(&farm.crews[0].machine)?;
            farm.settle().await?;
        }
    }
    // Assignments that were under way are given back, but what ran went on.
    let lost =
        farm.attempts_where("class not in ('succeeded', 'build_failed') and started_at is not null").await?;
    assert_eq!(lost, 0, "what ran had not to be repeated");
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_longer_than_a_lease() -> Result<()> {
    let mut random = Random::of_test("a_partition_longer_than_a_lease");
    let config = SimulatedFarmConfig { lease: 3, ..SimulatedFarmConfig::small() };
    let mut farm = SimulatedFarm::start(config).await?;
    let mut lost = 0;
    for _ in 0..rounds(1, 10) {
        for (direction, cut) in CUTS {
            let before = farm.published();
            let gate = farm.fill_with_work(&mut random).await?;
            farm.wait_long_log().await?;
            eprintln!("a long cut {direction}");
            cut(&farm.network, &farm.crews[0].machine)?;
            lost += farm.slots_of_crew();
            farm.wait_lost(lost).await?;
            lost = farm.attempts_where("class = 'worker_lost'").await?;
            farm.gates.open(&gate)?;
            // The others take over.
            farm.wait_ended(before + farm.slots()).await?;
            farm.checker.attended(&farm.tables).await?.require_none()?;
            farm.network.heal(&farm.crews[0].machine)?;
            farm.settle().await?;
            farm.wait_joined().await?;
        }
    }
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_with_loss_and_delay() -> Result<()> {
    let mut random = Random::of_test("a_line_with_loss_and_delay");
    let config = SimulatedFarmConfig { delay_ms: 100, lease: 30, ..SimulatedFarmConfig::small() };
    let mut farm = SimulatedFarm::start(config).await?;
    for crew in &farm.crews {
        farm.network.lose(&crew.machine, 5)?;
    }
    for _ in 0..rounds(2, 10) {
        let gate = farm.fill_with_work(&mut random).await?;
        farm.gates.open(&gate)?;
        farm.settle().await?;
    }
    farm.fill_all_slots().await?;
    farm.stop()
}
