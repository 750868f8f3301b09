//! `idle`: what a large farm costs that has nothing to do.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use hauberk_loadgen::simulated::Work;
use serde_json::{Map, Value};

use super::farm::{Farm, OutputKind};
use crate::figure::{Figure, rounded};
use crate::lab::{LabOptions, Memory, WorkerProcess, Workers, processor_seconds};

/// Heartbeats that came together as the workers joined have been worked off by then.
const CALM: Duration = Duration::from_secs(5);
const MIB: f64 = 1_048_576.0;

/// Many workers that have joined, and nothing to do: what that costs
///
/// server_cpu_percent: processor time of the server, in hundredths of a core.
///
/// worker_rss_mb, worker_rss_anon_mb: resident memory of a real `hauberk remote-worker` with a real nix-daemon, and the part of it
/// that is no file, in MiB.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Workers, each with a key pair and a connection of its own
    #[arg(long, default_value_t = 1000)]
    workers: usize,

    /// Builds at once that the real worker process offers
    #[arg(long, default_value_t = 4)]
    slots: usize,

    /// How long it is looked at, in seconds; heartbeats come each 15
    #[arg(long, default_value_t = 45)]
    span: u64,
}

/// Measures all figures on one laboratory.
pub(crate) async fn run(options: &Options, lab: &LabOptions) -> Result<Vec<Figure>> {
    let workers = Workers { count: options.workers, slots: options.workers, ahead: 0 };
    let mut farm = Farm::start(lab, workers, Work::flat(0)?, OutputKind::Cached, Duration::ZERO).await?;
    farm.start_workers().await?;
    farm.wait_joined().await?;
    let worker = WorkerProcess::start(&farm.lab, &farm.server, options.slots).await?;
    crate::progress(format_args!("looking on for {} s", options.span));
    farm.until("the farm calms down", tokio::time::sleep(CALM)).await?;

    let (server, process) = (farm.server.process(), worker.process());
    let before = (processor_seconds(server)?, processor_seconds(process)?, tokio::time::Instant::now());
    let used = farm.lab.usage(&farm.server).await?;
    farm.until("time passes", tokio::time::sleep(Duration::from_secs(options.span))).await?;
    let wall = before.2.elapsed().as_secs_f64();
    let percent = |now: f64, before: f64| (now - before) / wall * 100.0;
    let server_percent = percent(processor_seconds(server)?, before.0);
    let worker_percent = percent(processor_seconds(process)?, before.1);
    let (memory, server_memory) = (Memory::read(process)?, Memory::read(server)?);
    let mut parameters = Map::new();
    farm.lab.usage(&farm.server).await?.since(&used, &mut parameters);

    let mut note = |name: &str, value: Value| parameters.insert(name.to_owned(), value);
    note("workers", options.workers.into());
    note("worker_slots", options.slots.into());
    note("worker_cpu_percent", rounded(worker_percent, 3).into());
    note("server_rss_mb", rounded(server_memory.resident as f64 / MIB, 1).into());
    note("server_rss_anon_mb", rounded(server_memory.anonymous as f64 / MIB, 1).into());
    farm.lab.note(&mut parameters);
    drop(worker);
    farm.stop().await?;
    let figure = |figure, value, unit| Figure {
        scenario: "idle",
        figure,
        value,
        unit,
        parameters: parameters.clone(),
    };
    Ok(vec![
        figure("server_cpu_percent", server_percent, "%"),
        figure("worker_rss_mb", memory.resident as f64 / MIB, "MiB"),
        figure("worker_rss_anon_mb", memory.anonymous as f64 / MIB, "MiB"),
    ])
}
