//! A worker that lies.

use anyhow::Result;
use hauberk_tests::Deadline;
use hauberk_tests::simulated::{Graph, SimulatedFarm, SimulatedFarmConfig};

/// What the liar takes: less than would exhaust the tries of a build that it gets again and again.
const LIES: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_lies() -> Result<()> {
    let mut farm = SimulatedFarm::start(SimulatedFarmConfig::small()).await?;
    let tag = farm.tag();
    let mut graph = Graph::new(&tag);
    graph.add_many(&format!("gate.{tag}"), farm.slots());
    farm.publish(&graph).await?;
    farm.wait_running(farm.slots()).await?;
    let honest = farm.attempts_where("true").await?;

    // It joins, claims what is not its own, and waits for work of its own.
    let mut liar = farm.liar(LIES).await?;
    farm.wait_until(
        "the liar has joined",
        "select exists (select from workers where name = 'liar' and epoch is not null)",
        &[],
    )
    .await?;
    let mut more = Graph::new("more");
    more.add_many("quick", 2 * LIES);
    farm.publish(&more).await?;
    liar.wait_log("all lies are told", Deadline::seconds(60))?;
    let lies = i64::try_from(LIES)?;
    farm.wait_until(
        "what it was given is taken back",
        "select count(*) = $1 from attempts a join workers w on w.id = a.worker_id \
         where w.name = 'liar' and a.class in ('transfer', 'worker_lost', 'build_failed', 'declined')",
        &[&lies],
    )
    .await?;
    // Nobody else's attempt has suffered.
    assert_eq!(farm.attempts_where("ended_at is null").await?, honest);
    farm.checker.attended(&farm.tables).await?.require_none()?;
    liar.check_alive()?;
    farm.gates.open(&tag)?;
    farm.settle().await?;
    let believed = farm
        .attempts_where("class in ('succeeded', 'build_failed') and worker_id = (select id from workers where name = 'liar')")
        .await?;
    assert_eq!(believed, 0, "{}", farm.describe().await);
    farm.fill_all_slots().await?;
    farm.stop()
}
