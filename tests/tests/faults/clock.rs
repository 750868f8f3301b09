//! Wall clocks jump by hours, while builds run and leases run.
//!
//! Leases, retries and limits go by clocks that cannot be set; what is left to the database's clock is when deferred builds are due.

use anyhow::{Context, Result};
use hauberk_tests::simulated::{Clocks, Random, SimulatedFarm, SimulatedFarmConfig};

use crate::form::rounds;

const HOUR: i64 = 3600;

/// Who sees a jump.
const SEERS: [(&str, [bool; 3]); 4] = [
    ("the database", [true, false, false]),
    ("the server", [false, true, false]),
    ("the workers", [false, false, true]),
    ("everybody", [true, true, true]),
];

fn set(clocks: &Clocks, seers: [bool; 3], seconds: i64) -> Result<()> {
    for (clock, sees) in [&clocks.database, &clocks.server, &clocks.workers].into_iter().zip(seers) {
        if sees {
            clock.set(seconds)?;
        }
    }
    Ok(())
}

/// Moves some of the farm's clocks to so far after the computer's, and lets more than a lease pass.
async fn jump(farm: &SimulatedFarm, seers: [bool; 3], seconds: i64) -> Result<()> {
    set(farm.clocks.as_ref().context("the farm has clocks")?, seers, seconds)?;
    tokio::time::sleep(farm.lease() + farm.lease() / 2).await;
    farm.checker.attended(&farm.tables).await?.require_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_jump_while_builds_run() -> Result<()> {
    let mut random = Random::of_test("clocks_jump_while_builds_run");
    let config = SimulatedFarmConfig { clocks: true, lease: 6, ..SimulatedFarmConfig::small() };
    let mut farm = SimulatedFarm::start(config).await?;
    for round in 0..rounds(1, 10) {
        for (who, seers) in SEERS {
            let far = HOUR * i64::try_from(1 + random.below(100))?;
            eprintln!("round {round}: {who} jumps by {far} s");
            let gate = farm.fill_with_work(&mut random).await?;
            jump(&farm, seers, far).await?;
            jump(&farm, seers, -far).await?;
            // The next jump comes into the wave of results.
            farm.gates.open(&gate)?;
            jump(&farm, seers, far / 2).await?;
            farm.settle().await?;
        }
        assert_eq!(
            farm.attempts_where("number > 1").await?,
            0,
            "nobody lost a lease\n{}",
            farm.describe().await
        );
    }
    // Everything starts anew at another time than it ended.
    let gate = farm.fill_with_work(&mut random).await?;
    farm.kill_server()?;
    farm.crews[0].process.kill9()?;
    let clocks = farm.clocks.as_ref().context("the farm has clocks")?;
    set(clocks, [true, true, true], -500 * HOUR)?;
    farm.gates.open(&gate)?;
    farm.crews[0].process.restart()?;
    farm.restart_server()?;
    farm.settle().await?;
    farm.fill_all_slots().await?;
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_databases_clock_is_set_back_while_builds_are_deferred() -> Result<()> {
    let mut random = Random::of_test("the_databases_clock_is_set_back_while_builds_are_deferred");
    let config =
        SimulatedFarmConfig { clocks: true, retries: 2, retry_delay: 10.0, ..SimulatedFarmConfig::small() };
    let mut farm = SimulatedFarm::start(config).await?;
    let gate = farm.fill_with_work(&mut random).await?;
    farm.crews[0].process.kill9()?;
    farm.gates.open(&gate)?;
    farm.wait_until(
        "what the crew had is deferred",
        "select count(*) >= $1 from builds where state = 'deferred' and not_before > now() + interval '1 second'",
        &[&i64::try_from(farm.slots_of_crew())?],
    )
    .await?;
    let clocks = farm.clocks.as_ref().context("the farm has clocks")?;
    clocks.database.set(-10 * HOUR)?;
    farm.crews[0].process.restart()?;
    // Not ten hours later.
    farm.settle().await?;
    assert_eq!(farm.attempts_where("number > 2").await?, 0, "each is tried once more");
    farm.fill_all_slots().await?;
    farm.stop()
}
