//! `flat`: many builds that need nothing and cost nothing, on many slots.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use hauberk_database::Database;
use serde_json::{Map, Value};

use super::farm::{Farm, OutputKind};
use crate::figure::{Figure, rounded};
use crate::lab::{LabOptions, Workers};
use hauberk_loadgen::simulated::Work;

/// Independent builds that cost nothing: how many the farm takes through all their states in a second
///
/// builds_per_second: every state is recorded, and the fetch step finds the outputs in the server's cache.
///
/// builds_per_second_fetched: each build has a signed output of 1 KiB, which is fetched, verified and republished.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Builds whose outputs are in the server's cache; 0 leaves that figure out
    #[arg(long, default_value_t = 20_000)]
    builds: usize,

    /// Builds whose outputs are fetched; 0 leaves that figure out
    #[arg(long, default_value_t = 5000)]
    fetched_builds: usize,

    /// Builds at once, on all workers together
    #[arg(long, default_value_t = 1000)]
    slots: usize,

    /// Workers, each with a key pair and a connection of its own
    #[arg(long, default_value_t = 100)]
    workers: usize,
}

/// Measures both figures, each on a laboratory of its own.
pub(crate) async fn run(options: &Options, lab: &LabOptions) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if options.builds > 0 {
        figures.push(measure(options, lab, OutputKind::Cached).await?);
    }
    if options.fetched_builds > 0 {
        figures.push(measure(options, lab, OutputKind::Fetched).await?);
    }
    Ok(figures)
}

async fn measure(options: &Options, lab: &LabOptions, kind: OutputKind) -> Result<Figure> {
    let (builds, figure) = match kind {
        OutputKind::Cached => (options.builds, "builds_per_second"),
        OutputKind::Fetched => (options.fetched_builds, "builds_per_second_fetched"),
    };
    let workers = Workers { count: options.workers, slots: options.slots, ahead: 0 };
    let mut farm = Farm::start(lab, workers, Work::flat(builds)?, kind, Duration::ZERO).await?;
    farm.start_workers().await?;
    farm.wait_joined().await?;
    let began = farm.publish().await?;
    farm.wait_done().await?;
    let releases = farm.gauge.releases();
    let seconds = |place: usize| releases.get(place).map(|at| (*at - began).as_secs_f64());
    let whole = seconds(builds - 1).context("no build ended")?;
    let mut parameters = Map::new();
    // Without the first and the last tenth, when slots are empty.
    if let (Some(from), Some(to)) = (seconds(builds / 10), seconds(builds - 1 - builds / 10))
        && to > from
    {
        let builds = (builds - 2 * (builds / 10)) as f64;
        parameters
            .insert("builds_per_second_in_the_middle".to_owned(), rounded(builds / (to - from), 1).into());
    }
    let states = states_recorded(farm.lab.database()).await?;
    parameters.insert("steps_recorded".to_owned(), states);
    let verdict = farm.finish(&mut parameters).await?;
    verdict.require_exactly_once(builds)?;
    let value = builds as f64 / whole;
    Ok(Figure { scenario: "flat", figure, value, unit: "builds/s", parameters })
}

/// Counts the moments that attempts have on record.
async fn states_recorded(database: &Database) -> Result<Value> {
    let row = database
        .client()
        .await?
        .query_one(
            "select count(assigned_at) as assigned, count(started_at) as started, count(built_at) as built,
                    count(ended_at) as ended from attempts",
            &[],
        )
        .await
        .context("counting the steps on record")?;
    let count = |name: &str| (name.to_owned(), row.get::<_, i64>(name).into());
    Ok(Value::Object(["assigned", "started", "built", "ended"].map(count).into_iter().collect()))
}
