//! The server is killed and started again at particular moments.

use anyhow::Result;
use hauberk_tests::simulated::{Graph, Random, SimulatedFarm, SimulatedFarmConfig};
use hauberk_tests::{Deadline, wait_for};
use nix::sys::signal::Signal;

use crate::disk::Filler;

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
    farm.server.stop(Deadline::seconds(60))?;
    farm.restart_server()?;
    farm.wait_joined().await?;
    farm.fill_all_slots().await?;
    assert_eq!(farm.attempts_where("number > 1").await?, 0, "nothing had to be repeated");
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_starts_again_between_request_and_answer() -> Result<()> {
    let mut farm = small_farm().await?;
    // A worker that is stopped before it has said that it takes builds gets none.
    let credits = "hauberk_messages_received_total{port=\"backend\",kind=\"Credit\"}";
    let workers: u64 = farm.crews.iter().map(|crew| crew.names.len() as u64).sum();
    wait_for("every worker takes builds", Deadline::seconds(60), || {
        Ok((farm.counter(farm.server_address(), credits)? >= workers).then_some(()))
    })?;
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

#[tokio::test(flavor = "multi_thread")]
async fn the_server_starts_again_before_the_next_try_and_it_goes_elsewhere() -> Result<()> {
    let config = SimulatedFarmConfig {
        workers: 1,
        slots: 2,
        lease: 120,
        outputs_size: Some("8m".to_owned()),
        retry_delay: 3600.0,
        ..SimulatedFarmConfig::default()
    };
    let mut farm = SimulatedFarm::start(config).await?;
    let tag = farm.tag();
    let mut graph = Graph::new(&tag);
    for gate in 0..4 {
        graph.add(&format!("gate.{tag}g{gate}"), &[]);
    }
    farm.publish(&graph).await?;
    farm.wait_running(4).await?;
    // Everything fails where nothing can be written, and the other worker has a slot free then.
    let filler = Filler::fill(&farm.crews[0].outputs)?;
    let given = "select w.name, b.name, b.id from attempts a join builds b on b.id = a.build_id \
                 join workers w on w.id = a.worker_id order by w.name, b.name";
    let given = farm.tables.query(given, &[]).await?;
    let gates: Vec<String> = given
        .iter()
        .map(|row| row.get::<_, &str>(1).trim_start_matches("gate.").split('-').next().unwrap().to_owned())
        .collect();
    assert_eq!(given[1].get::<_, &str>(0), "crew-1-1", "each has as many as it has slots");
    for gate in &gates[..3] {
        farm.gates.open(gate)?;
    }
    farm.wait_until(
        "two have failed by the worker's fault, and one is done",
        "select count(*) filter (where state = 'deferred') = 2 and count(*) filter (where state = 'succeeded') = 1 from builds",
        &[],
    )
    .await?;
    farm.kill_server()?;
    farm.restart_server()?;
    farm.wait_joined().await?;
    // One of the two is due. The worker where it failed has two slots free, and the other one. To have its connections ended makes the
    // server look at once.
    let due = given[0].get::<_, i64>(2);
    farm.tables.query("update builds set not_before = now() where id = $1 returning id", &[&due]).await?;
    farm.tables.end_other_connections().await?;
    farm.wait_until("the next try succeeds", "select state = 'succeeded' from builds where id = $1", &[&due])
        .await?;
    let where_to = "select w.name from attempts a join workers w on w.id = a.worker_id where a.build_id = $1 order by a.number";
    let went: Vec<String> =
        farm.tables.query(where_to, &[&due]).await?.iter().map(|row| row.get(0)).collect();
    assert_eq!(went, ["crew-1-1", "crew-2-1"]);
    filler.free()?;
    farm.gates.open(&gates[3])?;
    farm.tables
        .query("update builds set not_before = now() where state = 'deferred' returning id", &[])
        .await?;
    farm.fill_all_slots().await?;
    farm.stop()
}
