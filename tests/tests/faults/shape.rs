//! Graphs of extreme shapes.

use std::time::Instant;

use anyhow::Result;
use hauberk_tests::simulated::{Graph, SimulatedFarm, SimulatedFarmConfig};

use crate::form::rounds;

#[tokio::test(flavor = "multi_thread")]
async fn a_long_chain() -> Result<()> {
    let mut farm =
        SimulatedFarm::start(SimulatedFarmConfig { crews: 1, ..SimulatedFarmConfig::small() }).await?;
    let mut graph = Graph::new("chain");
    let mut last = graph.add("quick", &[]);
    for _ in 1..rounds(200, 10_000) {
        last = graph.add("quick", &[last]);
    }
    farm.publish(&graph).await?;
    let began = Instant::now();
    farm.wait_all_ended(3600).await?;
    eprintln!("a chain of {}: {:?}", graph.len(), began.elapsed());
    farm.settle().await?;
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_chain_whose_first_link_fails() -> Result<()> {
    let mut farm =
        SimulatedFarm::start(SimulatedFarmConfig { crews: 1, ..SimulatedFarmConfig::small() }).await?;
    let mut graph = Graph::new("chain");
    let mut last = graph.add("failgate.now", &[]);
    for _ in 1..rounds(2000, 10_000) {
        last = graph.add("quick", &[last]);
    }
    farm.publish(&graph).await?;
    farm.wait_running(1).await?;
    let began = Instant::now();
    farm.gates.open("now")?;
    farm.wait_all_ended(600).await?;
    eprintln!("the failure of the first link of {}: {:?}", graph.len(), began.elapsed());
    farm.settle().await?;
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_with_5000_dependents_fails() -> Result<()> {
    let mut farm =
        SimulatedFarm::start(SimulatedFarmConfig { crews: 1, ..SimulatedFarmConfig::small() }).await?;
    let mut graph = Graph::new("wide");
    let root = graph.add("failgate.now", &[]);
    for _ in 0..5000 {
        graph.add("quick", &[root]);
    }
    farm.publish(&graph).await?;
    farm.wait_running(1).await?;
    let began = Instant::now();
    farm.gates.open("now")?;
    farm.wait_all_ended(600).await?;
    eprintln!("the failure of a build with 5000 dependents: {:?}", began.elapsed());
    farm.settle().await?;
    let one_moment: bool =
        farm.tables.query("select count(distinct finished_at) = 1 from builds", &[]).await?[0].get(0);
    assert!(one_moment, "the failure and what follows from it are one step");
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_fails_whose_many_dependents_needed_as_many_others() -> Result<()> {
    let mut farm =
        SimulatedFarm::start(SimulatedFarmConfig { crews: 1, ..SimulatedFarmConfig::small() }).await?;
    let count = rounds(1000, 5000);
    let mut graph = Graph::new("net");
    let root = graph.add("failgate.now", &[]);
    for _ in 0..count {
        let other = graph.add("gate.later", &[]);
        graph.add("quick", &[root, other]);
    }
    farm.publish(&graph).await?;
    farm.wait_running(farm.slots()).await?;
    let began = Instant::now();
    farm.gates.open("now")?;
    farm.wait_ended(usize::try_from(count + 1)?).await?;
    let failed = began.elapsed();
    // The others have nothing behind them any more.
    farm.wait_until("the failure is settled", "select not exists (select from order_notes)", &[]).await?;
    eprintln!(
        "the failure of a build with {count} dependents, which needed as many others: {failed:?}, and all is decided after {:?}",
        began.elapsed()
    );
    let behind =
        "select count(*) from builds where name like 'gate.later-%' and remaining_path > expected_ms";
    assert_eq!(farm.tables.query(behind, &[]).await?[0].get::<_, i64>(0), 0);
    farm.gates.open("later")?;
    farm.wait_all_ended(600).await?;
    farm.settle().await?;
    farm.fill_all_slots().await?;
    farm.stop()
}
