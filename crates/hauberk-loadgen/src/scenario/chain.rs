//! `chain`: builds each of which needs the one before.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Map;

use super::farm::{Farm, OutputKind};
use crate::figure::{Figure, quantile, rounded};
use crate::lab::{LabOptions, Workers};
use hauberk_loadgen::simulated::Work;

/// Builds each of which needs the one before: how long after one begins does the next
///
/// link_ms_median, link_ms_p99: the builds cost nothing, and the fetch step finds their outputs in the server's cache.
///
/// link_ms_fetched_median: each has a signed output of 1 KiB, which is fetched, verified and republished before the next begins.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Length of the chain whose outputs are in the server's cache; 0 leaves those figures out
    #[arg(long, default_value_t = 400)]
    depth: usize,

    /// Length of the chain whose outputs are fetched; 0 leaves that figure out
    #[arg(long, default_value_t = 400)]
    fetched_depth: usize,

    /// Workers with a slot each
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

/// Measures each kind of link on a laboratory of its own.
pub(crate) async fn run(options: &Options, lab: &LabOptions) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (depth, kind) in [(options.depth, OutputKind::Cached), (options.fetched_depth, OutputKind::Fetched)] {
        if depth > 1 {
            figures.extend(measure(options.workers, depth, kind, lab).await?);
        }
    }
    Ok(figures)
}

async fn measure(workers: usize, depth: usize, kind: OutputKind, lab: &LabOptions) -> Result<Vec<Figure>> {
    let workers = Workers { count: workers, slots: workers, ahead: 0 };
    let mut farm = Farm::start(lab, workers, Work::chain(depth)?, kind, Duration::ZERO).await?;
    farm.start_workers().await?;
    farm.wait_joined().await?;
    farm.publish().await?;
    farm.wait_done().await?;
    let mut links: Vec<f64> =
        farm.gauge.begun().windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).collect();
    let mut parameters = Map::new();
    let verdict = farm.finish(&mut parameters).await?;
    verdict.require_exactly_once(depth)?;
    let mut at = |share| quantile(&mut links, share).context("no link was seen");
    let (median, p99, longest) = (at(0.5)?, at(0.99)?, at(1.0)?);
    parameters.insert("depth".to_owned(), depth.into());
    parameters.insert("longest_ms".to_owned(), rounded(longest, 2).into());
    let figure = |figure, value| {
        let parameters = parameters.clone();
        Figure { scenario: "chain", figure, value, unit: "ms", parameters }
    };
    Ok(match kind {
        OutputKind::Cached => vec![figure("link_ms_median", median), figure("link_ms_p99", p99)],
        OutputKind::Fetched => {
            vec![figure("link_ms_fetched_median", median), figure("link_ms_fetched_p99", p99)]
        }
    })
}
