//! Processes are killed (SIGKILL) at random moments, under a thousand running builds.

use std::time::Duration;

use anyhow::Result;
use hauberk_tests::simulated::{Graph, Random, SimulatedFarm, SimulatedFarmConfig};

use crate::form::rounds;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Server,
    Crew,
    Postgres,
}

/// Kills a victim and starts it again, in each round at another moment: in the first while all slots are busy and nothing moves, in
/// the others somewhere in the wave of results, fetches and new assignments that follows.
async fn kill_again_and_again(name: &str, victims: &[Victim], rounds: u64) -> Result<()> {
    let mut random = Random::of_test(name);
    let mut farm = SimulatedFarm::start(SimulatedFarmConfig::default()).await?;
    for round in 0..rounds {
        let began = std::time::Instant::now();
        let tag = farm.tag();
        let mut graph = Graph::new(&tag);
        graph.add_many(&format!("gate.{tag}"), farm.slots());
        graph.add_tangle(farm.slots() / 2, &mut random);
        let before = farm.ended().await?;
        farm.publish(&graph).await?;
        farm.wait_running(farm.slots()).await?;
        if round > 0 {
            farm.gates.open(&tag)?;
            let moment = usize::try_from(random.below(graph.len() as u64 * 9 / 10))?;
            farm.wait_ended(before + moment).await?;
        }
        let victim = victims[usize::try_from(round % victims.len() as u64)?];
        let pause = Duration::from_millis(random.below(1500));
        eprintln!(
            "{name}: round {round}, {victim:?} is killed after {} builds",
            farm.ended().await? - before
        );
        match victim {
            Victim::Server => {
                farm.kill_server()?;
                farm.checker.always(&farm.tables).await?.require_none()?;
                tokio::time::sleep(pause).await;
                farm.restart_server()?;
            }
            Victim::Crew => {
                let crew = usize::try_from(random.below(farm.crews.len() as u64))?;
                farm.crews[crew].process.kill9()?;
                farm.checker.always(&farm.tables).await?.require_none()?;
                tokio::time::sleep(pause).await;
                farm.crews[crew].process.restart()?;
            }
            Victim::Postgres => {
                farm.postgres.kill9()?;
                tokio::time::sleep(pause).await;
                farm.postgres.start()?;
                farm.checker.always(&farm.tables).await?.require_none()?;
            }
        }
        farm.gates.open(&tag)?;
        farm.settle().await?;
        eprintln!("{name}: round {round} took {:?}", began.elapsed());
    }
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn server_workers_and_postgres_are_killed_in_turn() -> Result<()> {
    let all = [Victim::Server, Victim::Crew, Victim::Postgres];
    kill_again_and_again("server_workers_and_postgres_are_killed_in_turn", &all, rounds(3, 60)).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: for the full form"]
async fn the_server_is_killed() -> Result<()> {
    kill_again_and_again("the_server_is_killed", &[Victim::Server], rounds(3, 30)).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: for the full form"]
async fn workers_are_killed() -> Result<()> {
    kill_again_and_again("workers_are_killed", &[Victim::Crew], rounds(3, 30)).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: for the full form"]
async fn postgres_is_killed() -> Result<()> {
    kill_again_and_again("postgres_is_killed", &[Victim::Postgres], rounds(3, 30)).await
}
