//! Two servers are at one database, and one of them is killed, or stands still for longer than the others wait.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use hauberk_tests::{
    Process,
    simulated::{Graph, Random, SecondServer, SimulatedFarm, SimulatedFarmConfig},
};
use nix::sys::signal::Signal;

/// A farm of two servers with short leases; its workers are at both.
async fn two_servers(test: &str, second_server: SecondServer) -> Result<(SimulatedFarm, String)> {
    let mut random = Random::of_test(test);
    let config = SimulatedFarmConfig {
        lease: 3,
        crews: 2,
        workers: 2,
        slots: 12,
        second_server,
        ..SimulatedFarmConfig::small()
    };
    let mut farm = SimulatedFarm::start(config).await?;
    let gate = farm.fill_with_work(&mut random).await?;
    let rows =
        farm.tables.query("select count(distinct epoch) from workers where epoch is not null", &[]).await?;
    assert_eq!(rows[0].get::<_, i64>(0), 2, "workers are at both servers");
    Ok((farm, gate))
}

fn second(farm: &mut SimulatedFarm) -> Result<&mut Process> {
    Ok(&mut farm.second.as_mut().context("there is a second server")?.0)
}

/// No build was repeated but for a server's sake, and none has two results that count.
async fn nothing_was_done_twice(farm: &SimulatedFarm) -> Result<()> {
    assert_eq!(
        farm.attempts_where(
            "class = 'succeeded' and exists (select from attempts o where o.build_id = attempts.build_id \
             and o.id <> attempts.id and o.class = 'succeeded')"
        )
        .await?,
        0
    );
    Ok(())
}

/// What a server says of its claims: granted, and lost.
fn claims(farm: &SimulatedFarm, address: &str) -> Result<(u64, u64)> {
    let of = |result: &str| farm.counter(address, &format!("hauberk_claims_total{{result=\"{result}\"}}"));
    Ok((of("granted")?, of("lost")?))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_take_from_one_queue() -> Result<()> {
    let (mut farm, gate) = two_servers("two_servers_take_from_one_queue", SecondServer::Shared).await?;
    farm.gates.open(&gate)?;
    farm.settle().await?;
    let addresses = [farm.server_address().to_owned(), farm.second.as_ref().context("two")?.2.clone()];
    for (kind, count) in [("quick", 1500), ("slow", 1500)] {
        let before = [claims(&farm, &addresses[0])?, claims(&farm, &addresses[1])?];
        let mut graph = Graph::new(&farm.tag());
        graph.add_many(kind, count);
        let began = Instant::now();
        farm.publish(&graph).await?;
        farm.wait_all_ended(300).await?;
        let seconds = began.elapsed().as_secs_f64();
        let mut totals = (0, 0);
        for (address, before) in addresses.iter().zip(before) {
            let after = claims(&farm, address)?;
            let (granted, lost) = (after.0 - before.0, after.1 - before.1);
            eprintln!("{kind}: {address} gave out {granted} builds and lost {lost}");
            ensure!(granted > 0, "{address} gives nothing out");
            totals = (totals.0 + granted, totals.1 + lost);
        }
        let ratio = totals.1 as f64 / totals.0 as f64;
        eprintln!(
            "{kind}: {count} builds in {seconds:.1} s, {ratio:.2} claims lost for each that was granted"
        );
        assert_eq!(totals.0, u64::try_from(count)?, "each is given out once");
    }
    farm.settle().await?;
    assert_eq!(farm.attempts_where("number > 1").await?, 0, "nothing had to be repeated");
    nothing_was_done_twice(&farm).await?;
    if let Some((mut process, _, _)) = farm.second.take() {
        process.stop(hauberk_tests::Deadline::seconds(40))?;
    }
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_servers_is_killed() -> Result<()> {
    let (mut farm, gate) = two_servers("one_of_two_servers_is_killed", SecondServer::Shared).await?;
    second(&mut farm)?.kill9()?;
    farm.checker.always(&farm.tables).await?.require_none()?;
    farm.gates.open(&gate)?;
    farm.settle().await?;
    nothing_was_done_twice(&farm).await?;
    // It comes back and takes its part again.
    second(&mut farm)?.restart()?;
    farm.fill_all_slots().await?;
    if let Some((mut process, _, _)) = farm.second.take() {
        process.stop(hauberk_tests::Deadline::seconds(40))?;
    }
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_servers_stands_still_for_longer_than_two_leases() -> Result<()> {
    let (mut farm, gate) =
        two_servers("one_of_two_servers_stands_still_for_longer_than_two_leases", SecondServer::ItsOwn)
            .await?;
    second(&mut farm)?.signal(Signal::SIGSTOP)?;
    farm.wait_until(
        "the second server is over",
        "select exists (select from server_epochs e join servers s on s.id = e.server_id \
         where s.name = 'farm-2' and e.ended_at is not null)",
        &[],
    )
    .await?;
    farm.gates.open(&gate)?;
    farm.settle().await?;
    let before = farm.ended().await?;
    second(&mut farm)?.signal(Signal::SIGCONT)?;
    // It finds that it is over, and writes nothing.
    let status = second(&mut farm)?.wait_end(hauberk_tests::Deadline::seconds(60))?;
    assert!(!status.success(), "{status}");
    assert!(second(&mut farm)?.log_text().contains("another has taken over"));
    farm.second = None;
    assert_eq!(farm.ended().await?, before);
    farm.settle().await?;
    nothing_was_done_twice(&farm).await?;
    farm.fill_all_slots().await?;
    farm.stop()
}
