//! The network between a crew and the server is cut, in both directions or in one, silently.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hauberk_tests::simulated::{Random, SimulatedFarm, SimulatedFarmConfig};
use hauberk_tests::{LongLine, Machine, Network};

use crate::form::rounds;

type Cut = fn(&Network, &Machine) -> Result<()>;

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

/// Tells the shortest and the longest way there and back between a machine and an address, in milliseconds, of those that came back.
fn ping(from: &Machine, to: &str) -> Result<(f64, f64)> {
    // It fails where nothing comes back.
    let text = from.command("busybox").args(["ping", "-c", "8", "-i", "0.2", "-W", "10", to]).run()?;
    let times = text.lines().filter_map(|line| line.split_once("time=")?.1.strip_suffix(" ms")?.parse().ok());
    let times: Vec<f64> = times.collect();
    let (least, most) = (times.iter().copied().reduce(f64::min), times.iter().copied().reduce(f64::max));
    least.zip(most).with_context(|| format!("ping says: {text}"))
}

/// A farm whose crews are at lines that lose 5 % of all frames each way, and take so many milliseconds for the others.
async fn on_a_bad_line(name: &str, delay_ms: u64, waves: u64) -> Result<()> {
    let mut random = Random::of_test(name);
    let delay = Duration::from_millis(delay_ms);
    let line = LongLine { delay, loss_percent: 5, seed: random.number() };
    // Connections on such lines carry some ten kilobytes in a second; a long log has a megabyte or two.
    let slots = u32::try_from(rounds(8, 25))?;
    let config = SimulatedFarmConfig {
        workers: 1,
        slots,
        heartbeat: 5,
        lease: 30,
        line: Some(line),
        ..SimulatedFarmConfig::default()
    };
    let began = std::time::Instant::now();
    let mut farm = SimulatedFarm::start(config).await?;
    eprintln!("the workers have joined after {:?}", began.elapsed());
    let there_and_back = 2.0 * delay.as_secs_f64() * 1000.0;
    for crew in &farm.crews {
        let (least, most) = ping(&crew.machine, farm.server_address())?;
        eprintln!("{}: there and back in {least} to {most} ms", crew.machine.name());
        ensure!(least >= there_and_back, "the line of {} is too short", crew.machine.name());
    }
    for wave in 0..waves {
        let gate = farm.fill_with_work(&mut random).await?;
        farm.gates.open(&gate)?;
        farm.settle().await?;
        eprintln!("wave {wave} has settled after {:?}", began.elapsed());
    }
    farm.fill_all_slots().await?;
    // The server fetches by the same lines; a worker whose address seems not to answer uploads, and that counts as well.
    eprintln!(
        "{} times a worker was to upload",
        farm.server.log_text().matches("is to upload its results").count()
    );
    let given_up = farm.attempts_where("class not in ('succeeded', 'build_failed')").await?;
    for crew in &farm.crews {
        let counts = farm.network.line_counts(&crew.machine)?;
        let name = crew.machine.name();
        eprintln!("{name}: {counts:?} after {:?}", began.elapsed());
        ensure!(counts.lost * 100 > counts.passed, "the line of {name} loses next to nothing: {counts:?}");
    }
    assert_eq!(given_up, 0, "a line that is slow and loses some is no reason to give anything up");
    farm.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_with_loss_and_delay() -> Result<()> {
    Box::pin(on_a_bad_line("a_line_with_loss_and_delay", 100, rounds(1, 10))).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: for the full form"]
async fn a_line_with_loss_and_twice_the_delay() -> Result<()> {
    Box::pin(on_a_bad_line("a_line_with_loss_and_twice_the_delay", 200, rounds(1, 10))).await
}
