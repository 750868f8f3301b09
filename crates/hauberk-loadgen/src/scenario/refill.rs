//! `refill`: how soon a slot that became free is busy again.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Map;

use super::farm::{Farm, OutputKind};
use crate::figure::Figure;
use crate::lab::{LabOptions, Workers};
use hauberk_loadgen::simulated::Work;

/// Few slots and many builds: how soon a slot that became free is busy again
///
/// builds_per_second_0ms: builds that cost nothing.
///
/// builds_per_second_100ms: builds that take 100 ms, of which 16 slots could
/// at best do 160 in a second.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Builds that cost nothing; 0 leaves that figure out
    #[arg(long, default_value_t = 10_000)]
    builds: usize,

    /// Builds that take 100 ms; 0 leaves that figure out
    #[arg(long, default_value_t = 1600)]
    slow_builds: usize,

    /// Builds at once, on all workers together
    #[arg(long, default_value_t = 16)]
    slots: usize,

    /// Workers
    #[arg(long, default_value_t = 4)]
    workers: usize,

    /// Attempts that a worker may hold besides those that run, so that no slot waits for the next
    #[arg(long, default_value_t = 0)]
    ahead: u32,
}

/// Measures both figures, each on a laboratory of its own.
pub(crate) async fn run(options: &Options, lab: &LabOptions) -> Result<Vec<Figure>> {
    let workers = Workers { count: options.workers, slots: options.slots, ahead: options.ahead };
    let mut figures = Vec::new();
    for (figure, builds, cost) in [
        ("builds_per_second_0ms", options.builds, Duration::ZERO),
        ("builds_per_second_100ms", options.slow_builds, Duration::from_millis(100)),
    ] {
        if builds == 0 {
            continue;
        }
        let mut farm = Farm::start(lab, workers, Work::flat(builds)?, OutputKind::Cached, cost).await?;
        farm.start_workers().await?;
        farm.wait_joined().await?;
        let began = farm.publish().await?;
        farm.wait_done().await?;
        let ended = farm.gauge.releases().last().copied().context("no build ended")?;
        let mut parameters = Map::new();
        let verdict = farm.finish(&mut parameters).await?;
        verdict.require_exactly_once(builds)?;
        let value = builds as f64 / (ended - began).as_secs_f64();
        figures.push(Figure { scenario: "refill", figure, value, unit: "builds/s", parameters });
    }
    Ok(figures)
}
