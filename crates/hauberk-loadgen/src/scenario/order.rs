//! `order`: what the order of dispatch costs.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Map, Value};

use super::deep_queue::{self, Measured};
use super::farm::{Farm, OutputKind};
use crate::figure::{Figure, rounded};
use crate::lab::{Lab, LabOptions, Ordering, Queue, Workers};
use hauberk_loadgen::simulated::Work;

/// Specifications that want builds, the next always with twice the shares of the one before.
const SPECIFICATIONS: usize = 4;

/// The whole order against priority and age alone: what shares, paths and ageing cost
///
/// flat_over_alone: builds of four specifications with shares and paths, taken through all their states in a second under the whole
/// order, over those under priority and age alone.
///
/// deep_queue_over_alone: the same while a million wait.
///
/// With priority and age alone, the indexes that only the rest of the order asks are not there either. Both are measured in turn.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Builds; the rate is that of the middle eight tenths
    #[arg(long, default_value_t = 20_000)]
    builds: usize,

    /// Measurements of each, in turn; their rates are averaged
    #[arg(long, default_value_t = 2)]
    turns: usize,

    /// Builds in the long queue; 0 leaves that figure out
    #[arg(long, default_value_t = 1_000_000)]
    queued: usize,

    /// Builds at once, on all workers together
    #[arg(long, default_value_t = 1000)]
    slots: usize,

    /// Workers
    #[arg(long, default_value_t = 100)]
    workers: usize,
}

/// Measures both figures, each rate on a laboratory of its own.
pub(crate) async fn run(options: &Options, lab: &LabOptions) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if options.builds > 0 {
        let mut rates = Rates::default();
        for _ in 0..options.turns.max(1) {
            for ordering in [Ordering::PriorityAndAge, Ordering::Whole] {
                rates.add(ordering, measure(options, lab, ordering).await?);
            }
        }
        figures.push(rates.figure("flat_over_alone"));
    }
    if options.queued > 0 {
        let queue = Queue::of(options.queued, lab).await?;
        let shape = deep_queue::Options::of(options.queued, options.slots, options.workers);
        let mut rates = Rates::default();
        for _ in 0..options.turns.max(1) {
            for ordering in [Ordering::PriorityAndAge, Ordering::Whole] {
                let measured = deep_queue::measure(&shape, lab, &queue, false, Some(ordering)).await?;
                rates.add(ordering, measured);
            }
        }
        figures.push(rates.figure("deep_queue_over_alone"));
    }
    Ok(figures)
}

/// Rates under both orders, and how the last was measured.
#[derive(Default)]
struct Rates {
    whole: Vec<f64>,
    alone: Vec<f64>,
    parameters: Map<String, Value>,
    parameters_alone: Map<String, Value>,
}

impl Rates {
    fn add(&mut self, ordering: Ordering, measured: Measured) {
        match ordering {
            Ordering::Whole => {
                self.whole.push(measured.rate);
                self.parameters = measured.parameters;
            }
            Ordering::PriorityAndAge => {
                self.alone.push(measured.rate);
                self.parameters_alone = measured.parameters;
            }
        }
    }

    fn figure(self, figure: &'static str) -> Figure {
        let Self { whole, alone, mut parameters, parameters_alone } = self;
        let rates = |rates: &[f64]| rates.iter().map(|rate| rounded(*rate, 1)).collect::<Vec<_>>();
        parameters.insert("builds_per_second".to_owned(), rates(&whole).into());
        parameters.insert("builds_per_second_alone".to_owned(), rates(&alone).into());
        parameters.insert("alone".to_owned(), parameters_alone.into());
        // As many of the one as of the other.
        let value = whole.iter().sum::<f64>() / alone.iter().sum::<f64>();
        Figure { scenario: "order", figure, value, unit: "", parameters }
    }
}

async fn measure(options: &Options, lab: &LabOptions, ordering: Ordering) -> Result<Measured> {
    let workers = Workers { count: options.workers, slots: options.slots, ahead: 0 };
    let lab_options = lab.ordered(ordering);
    let lab = Lab::start(&lab_options).await?;
    lab.set_ordering(ordering).await?;
    let work = Work::flat(options.builds)?;
    let mut farm = Farm::on(lab, &lab_options, workers, work, OutputKind::Cached, Duration::ZERO).await?;
    let part = options.builds.div_ceil(SPECIFICATIONS);
    let mut shares = 100;
    for before in (0..options.builds).step_by(part) {
        let work = Work::flat_after(before, part.min(options.builds - before))?;
        let name = format!("load-{}", before / part);
        farm.lab.publish_as(&name, shares, &work.registration).await?;
        shares *= 2;
    }
    let client = farm.lab.database().client().await?;
    for step in [
        "update builds set expected_ms = 1000 + id % 7 * 1000, remaining_path = 1000 + id % 97 * 1000",
        "vacuum (analyze) builds",
        "notify hauberk_ready",
    ] {
        client.batch_execute(step).await.context("giving builds durations")?;
    }
    drop(client);
    farm.start_workers().await?;
    farm.wait_done().await?;
    let rate = deep_queue::rate(&farm.gauge.releases(), options.builds)?;
    let memory = crate::lab::Memory::read(farm.server.process())?;
    let mut parameters = Map::new();
    farm.finish(&mut parameters).await?.require_exactly_once(options.builds)?;
    Ok(Measured { rate, memory, parameters })
}
