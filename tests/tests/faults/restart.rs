//! The server is killed and started again at particular moments.

use anyhow::Result;
use hauberk_tests::simulated::{Graph, Random, SimulatedFarm, SimulatedFarmConfig};
use nix::sys::signal::Signal;

async fn small_farm() -> Result<SimulatedFarm> {
    SimulatedFarm::start(SimulatedFarmConfig { lease: 120, ..SimulatedFarmConfig::small() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_starts_again_while_idle() -> Result<()> {
    let mut farm = small_farm().await?;
    for _ in 0..3 {
        farm.kill_server()?;
        farm.restart_server()?;
    }
    farm.wait_joined().await?;
    farm.fill_all_slots().await?;
    farm.server.stop(hauberk_tests::Deadline::seconds(60))?;
    farm.restart_server()?;
    farm.wait_joined().await?;
    farm.fill_all_slots().await?;
    assert_eq!(farm.attempts_where("number > 1").await?, 0, "nothing had to be repeated");
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_starts_again_between_request_and_answer() -> Result<()> {
    let mut farm = small_farm().await?;
    for crew in &mut farm.crews {
        crew.process.signal(Signal::SIGSTOP)?;
    }
    let tag = farm.tag();
    let mut graph = Graph::new(&tag);
    graph.add_many("slow", farm.slots() * 2);
    farm.publish(&graph).await?;
    let slots = i64::try_from(farm.slots())?;
    farm.wait_until(
        "every slot has an assignment",
        "select count(*) = $1 from builds where state = 'assigned'",
        &[&slots],
    )
    .await?;
    farm.kill_server()?;
    farm.checker.always(&farm.tables).await?.require_none()?;
    for crew in &mut farm.crews {
        crew.process.signal(Signal::SIGCONT)?;
    }
    farm.restart_server()?;
    farm.settle().await?;
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_starts_again_while_results_wait() -> Result<()> {
    let mut random = Random::of_test("the_server_starts_again_while_results_wait");
    let mut farm = small_farm().await?;
    let gate = farm.fill_with_work(&mut random).await?;
    farm.wait_long_log().await?;
    farm.kill_server()?;
    farm.gates.open(&gate)?;
    for crew in 0..farm.crews.len() {
        farm.wait_results(crew, farm.slots_of_crew()).await?;
    }
    // The workers are killed as well, and have their results from their disks.
    farm.crews[0].process.kill9()?;
    farm.crews[0].process.restart()?;
    farm.restart_server()?;
    farm.settle().await?;
    assert_eq!(farm.attempts_where("number > 1").await?, 0, "nothing had to be repeated");
    farm.fill_all_slots().await?;
    farm.stop()
}
