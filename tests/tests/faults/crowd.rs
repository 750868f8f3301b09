//! Many workers, and workers that should not be two.

use anyhow::Result;
use hauberk_tests::Deadline;
use hauberk_tests::simulated::{Graph, SimulatedFarm, SimulatedFarmConfig};

use crate::form::rounds;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_workers_on_one_server() -> Result<()> {
    let workers = usize::try_from(rounds(100, 500))?;
    let config =
        SimulatedFarmConfig { workers, slots: 1, heartbeat: 5, lease: 60, ..SimulatedFarmConfig::default() };
    let mut farm = SimulatedFarm::start(config).await?;
    farm.fill_all_slots().await?;
    farm.kill_server()?;
    farm.restart_server()?;
    farm.wait_joined().await?;
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_with_the_same_key() -> Result<()> {
    let config = SimulatedFarmConfig { crews: 1, workers: 1, slots: 10, ..SimulatedFarmConfig::default() };
    let mut farm = SimulatedFarm::start(config).await?;
    let tag = farm.tag();
    let mut graph = Graph::new(&tag);
    graph.add_many(&format!("gate.{tag}"), 10);
    farm.publish(&graph).await?;
    farm.wait_running(10).await?;
    // A copy of the machine comes up, with the worker's name and key.
    let mut twin = farm.twin_of_crew(0)?;
    // The newest counts: one of the two ends and says why, and the other goes on.
    let status = farm.crews[0].process.wait_end(Deadline::seconds(60))?;
    assert!(!status.success());
    assert!(farm.crews[0].process.log_text().contains("another"), "{}", farm.crews[0].process.log_tail());
    farm.gates.open(&tag)?;
    farm.wait_all_ended(60).await?;
    twin.check_alive()?;
    assert!(farm.attempts_where("number > 2").await? == 0, "what the first had is repeated once");
    twin.stop(Deadline::seconds(60))?;
    // What the first had when it ended comes with its next start.
    farm.crews[0].process.restart()?;
    farm.settle().await?;
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_with_the_same_name() -> Result<()> {
    let config = SimulatedFarmConfig { crews: 1, workers: 1, slots: 10, ..SimulatedFarmConfig::default() };
    let mut farm = SimulatedFarm::start(config).await?;
    let tag = farm.tag();
    let mut graph = Graph::new(&tag);
    graph.add_many(&format!("gate.{tag}"), 10);
    farm.publish(&graph).await?;
    farm.wait_running(10).await?;
    // One with the name, but a key that is not enrolled, tries for as long as it likes.
    let mut other = farm.stranger_named_as_crew(0)?;
    other.wait_log("is not enrolled", Deadline::seconds(60))?;
    farm.gates.open(&tag)?;
    farm.settle().await?;
    assert_eq!(farm.attempts_where("number > 1").await?, 0, "it disturbed nobody");
    farm.fill_all_slots().await?;
    farm.stop()
}
