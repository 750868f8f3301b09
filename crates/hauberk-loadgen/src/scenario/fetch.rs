//! `fetch`: results on their way from a worker into the server's cache.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Map, Value};

use super::farm::{Farm, OutputKind};
use crate::figure::{Figure, quantile, rounded};
use crate::http::BlockingClient;
use crate::lab::{LabOptions, Workers};
use hauberk_loadgen::simulated::Work;

/// Builds that come one after the other, whose outputs the server fetches: how fast they are there
///
/// throughput_over_copy: a large output, from the worker's Finished to its Release, against a download of the same nar that is hashed and
/// thrown away.
///
/// small_output_ms: from Finished to Release with an output of 1 KiB, which is fetched, verified, made durable, signed and recorded.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Large outputs; 0 leaves that figure out
    #[arg(long, default_value_t = 3)]
    large: usize,

    /// Size of each large output, in MB
    #[arg(long, value_name = "MB", default_value_t = 300)]
    large_mb: usize,

    /// Small outputs; 0 leaves that figure out
    #[arg(long, default_value_t = 200)]
    small: usize,
}

/// Measures both figures, each on a laboratory of its own.
pub(crate) async fn run(options: &Options, lab: &LabOptions) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if options.large > 0 {
        figures.push(large(options, lab).await?);
    }
    if options.small > 0 {
        let (mut seconds, parameters, _) = fetch(Work::chain(options.small)?, lab).await?;
        let median = quantile(&mut seconds, 0.5).context("nothing was fetched")? * 1e3;
        figures.push(Figure {
            scenario: "fetch",
            figure: "small_output_ms",
            value: rounded(median, 2),
            unit: "ms",
            parameters,
        });
    }
    Ok(figures)
}

async fn large(options: &Options, lab: &LabOptions) -> Result<Figure> {
    let mut work = Work::chain(options.large)?;
    work.output_size = options.large_mb * 1_000_000;
    let bytes = work.output_size as f64;
    let (mut seconds, mut parameters, mut copies) = fetch(work, lab).await?;
    let fetched = bytes / quantile(&mut seconds, 0.5).context("nothing was fetched")?;
    let copied = bytes / quantile(&mut copies, 0.5).context("nothing was copied")?;
    let mut note = |name: &str, rate: f64| parameters.insert(name.to_owned(), rounded(rate / 1e6, 1).into());
    note("fetched_mb_per_second", fetched);
    note("copied_mb_per_second", copied);
    let value = rounded(fetched / copied, 3);
    Ok(Figure { scenario: "fetch", figure: "throughput_over_copy", value, unit: "", parameters })
}

/// Lets one worker do the builds one after the other. Gives the seconds from the end of each to its release, and those that a plain
/// download of each output takes.
async fn fetch(work: Work, lab: &LabOptions) -> Result<(Vec<f64>, Map<String, Value>, Vec<f64>)> {
    let (count, outputs) = (work.outputs.len(), work.outputs.clone());
    let workers = Workers { count: 1, slots: 1, ahead: 0 };
    let mut farm = Farm::start(lab, workers, work, OutputKind::Fetched, Duration::ZERO).await?;
    farm.start_workers().await?;
    farm.wait_joined().await?;
    farm.publish().await?;
    farm.wait_done().await?;
    let (ended, released) = (farm.gauge.ended(), farm.gauge.releases());
    let seconds = ended.iter().zip(&released).map(|(ended, at)| (*at - *ended).as_secs_f64()).collect();
    let port = farm.publication_port().context("nothing is published")?;
    let copies = tokio::task::spawn_blocking(move || -> Result<Vec<f64>> {
        let mut client = BlockingClient::connect(port)?;
        let mut seconds = Vec::new();
        for output in outputs.iter().take(3) {
            let began = Instant::now();
            client.get_hashed(&format!("/nar/{}", output.base_name()))?;
            seconds.push(began.elapsed().as_secs_f64());
        }
        Ok(seconds)
    })
    .await??;
    let mut parameters = Map::new();
    farm.finish(&mut parameters).await?.require_exactly_once(count)?;
    Ok((seconds, parameters, copies))
}
