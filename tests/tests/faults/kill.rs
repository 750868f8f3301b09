//! Processes are killed (SIGKILL) at random moments, under a thousand running builds; and PostgreSQL stays away for long.

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

/// Kills in each round, each at another moment.
const KILLS: usize = 6;

/// Kills victims in turn and starts them again, several in each wave of results, fetches and new assignments. The first time of all,
/// all slots are busy and nothing moves but long logs; and each fourth victim stays away for longer than a lease.
async fn kill_again_and_again(name: &str, victims: &[Victim], rounds: u64) -> Result<()> {
    let mut random = Random::of_test(name);
    let mut farm = SimulatedFarm::start(SimulatedFarmConfig::default()).await?;
    let mut killed = 0;
    for round in 0..rounds {
        let began = std::time::Instant::now();
        let tag = farm.tag();
        let mut graph = Graph::new(&tag);
        graph.add_many(&format!("gate.{tag}"), farm.slots());
        graph.add_tangle(farm.slots() / 2, &mut random);
        let before = farm.ended().await?;
        farm.publish(&graph).await?;
        farm.wait_running(farm.slots()).await?;
        let last = graph.len() as u64 * 9 / 10;
        let mut moments: Vec<_> = (0..KILLS).map(|_| random.below(last)).collect();
        moments.sort_unstable();
        if round == 0 {
            moments[0] = 0;
            farm.wait_long_log().await?;
        } else {
            farm.gates.open(&tag)?;
        }
        for moment in moments {
            farm.wait_ended(before + usize::try_from(moment)?).await?;
            let mut pause = Duration::from_millis(random.below(1500));
            if killed % 4 == 3 {
                pause += farm.lease();
            }
            let victim = victims[killed % victims.len()];
            let ended = farm.ended().await? - before;
            eprintln!("{name}: round {round}, {victim:?} is killed after {ended} builds, for {pause:?}");
            kill(&mut farm, victim, pause, &mut random).await?;
            killed += 1;
            farm.gates.open(&tag)?;
        }
        farm.settle().await?;
        eprintln!("{name}: round {round} took {:?}", began.elapsed());
    }
    farm.fill_all_slots().await?;
    farm.stop()
}

/// Kills a victim, looks at the tables, and starts it again after a pause.
async fn kill(farm: &mut SimulatedFarm, victim: Victim, pause: Duration, random: &mut Random) -> Result<()> {
    match victim {
        Victim::Server => {
            farm.kill_server()?;
            farm.checker.always(&farm.tables).await?.require_none()?;
            tokio::time::sleep(pause).await;
            farm.restart_server()
        }
        Victim::Crew => {
            let crew = usize::try_from(random.below(farm.crews.len() as u64))?;
            farm.crews[crew].process.kill9()?;
            farm.checker.always(&farm.tables).await?.require_none()?;
            tokio::time::sleep(pause).await;
            farm.crews[crew].process.restart()
        }
        Victim::Postgres => {
            farm.postgres.kill9()?;
            tokio::time::sleep(pause).await;
            farm.postgres.start()?;
            farm.checker.always(&farm.tables).await?.require_none()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_workers_and_postgres_are_killed_in_turn() -> Result<()> {
    let all = [Victim::Server, Victim::Crew, Victim::Postgres];
    kill_again_and_again("server_workers_and_postgres_are_killed_in_turn", &all, rounds(1, 10)).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: for the full form"]
async fn the_server_is_killed() -> Result<()> {
    kill_again_and_again("the_server_is_killed", &[Victim::Server], rounds(1, 5)).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: for the full form"]
async fn workers_are_killed() -> Result<()> {
    kill_again_and_again("workers_are_killed", &[Victim::Crew], rounds(1, 5)).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: for the full form"]
async fn postgres_is_killed() -> Result<()> {
    kill_again_and_again("postgres_is_killed", &[Victim::Postgres], rounds(1, 5)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_away_for_longer_than_two_leases() -> Result<()> {
    let mut random = Random::of_test("postgres_is_away_for_longer_than_two_leases");
    let config = SimulatedFarmConfig { lease: 6, ..SimulatedFarmConfig::small() };
    let mut farm = SimulatedFarm::start(config).await?;
    let gate = farm.fill_with_work(&mut random).await?;
    farm.postgres.kill9()?;
    // The workers of one crew are not heard of for longer than a lease; and when they are there again, they cannot join.
    farm.network.cut(&farm.crews[0].machine)?;
    farm.gates.open(&gate)?;
    for crew in 0..farm.crews.len() {
        farm.wait_results(crew, farm.slots_of_crew()).await?;
    }
    tokio::time::sleep(farm.lease() + Duration::from_secs(1)).await;
    farm.network.heal(&farm.crews[0].machine)?;
    tokio::time::sleep(farm.lease() + Duration::from_secs(1)).await;
    farm.postgres.start()?;
    farm.checker.always(&farm.tables).await?.require_none()?;
    farm.settle().await?;
    // It was the database that was not there: nobody is lost for that.
    assert_eq!(farm.attempts_where("class = 'worker_lost'").await?, 0, "{}", farm.describe().await);
    assert_eq!(farm.attempts_where("number > 1").await?, 0, "nothing had to be repeated");
    farm.fill_all_slots().await?;
    farm.stop()
}
