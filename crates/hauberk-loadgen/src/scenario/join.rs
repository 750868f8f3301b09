//! `join`: a worker joins a farm that has work for it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Map;

use super::farm::{Farm, OutputKind};
use crate::figure::{Figure, rounded};
use crate::lab::{LabOptions, Workers};
use hauberk_loadgen::simulated::Work;

/// An idle farm with work, and a worker that joins: how long until its first build begins
///
/// first_build_ms: from the start of the worker, so that connecting and the handshake of the keys are in it, to its first build.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Builds that wait
    #[arg(long, default_value_t = 100)]
    builds: usize,
}

/// Measures it.
pub(crate) async fn run(options: &Options, lab: &LabOptions) -> Result<Vec<Figure>> {
    let builds = options.builds.max(1);
    let workers = Workers { count: 1, slots: 1, ahead: 0 };
    let mut farm = Farm::start(lab, workers, Work::flat(builds)?, OutputKind::Cached, Duration::ZERO).await?;
    farm.publish().await?;
    let began = Instant::now();
    farm.start_workers().await?;
    let gauge = std::sync::Arc::clone(&farm.gauge);
    farm.until("the first build begins", gauge.wait_begun()).await?;
    let first = gauge.begun().first().copied().context("no build was begun")?;
    let joined = gauge.first_joined().context("nobody was welcomed")?;
    farm.wait_done().await?;
    let mut parameters = Map::new();
    parameters.insert(
        "after_welcome_ms".to_owned(),
        rounded(first.saturating_duration_since(joined).as_secs_f64() * 1e3, 2).into(),
    );
    let verdict = farm.finish(&mut parameters).await?;
    verdict.require_exactly_once(builds)?;
    let value = (first - began).as_secs_f64() * 1e3;
    Ok(vec![Figure { scenario: "join", figure: "first_build_ms", value, unit: "ms", parameters }])
}
