//! `order`: what the order of dispatch costs.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Map, Value};

use super::deep_queue::{self, Circumstances, Measured};
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
/// flat_processor_over_alone, deep_queue_processor_over_alone: the processor time of server and PostgreSQL in these runs, for each
/// attempt, likewise. It is what bounds the rates, and it varies less.
///
/// With priority and age alone, the indexes that only the rest of the order asks are not there either. Both are measured in turn, and
/// each turn begins with the other.
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

    /// How long paths behind the builds of `flat` are: so many lengths, one after the other. With 1, builds are given out in the order
    /// in which they were recorded, as with age alone, and what differs is the work of deciding, without what it costs to go about in tables
    #[arg(long, default_value_t = 97, value_parser = clap::value_parser!(u32).range(1..))]
    paths: u32,

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
        for ordering in turns(options.turns) {
            rates.add(ordering, measure(options, lab, ordering).await?);
        }
        figures.extend(rates.figures(["flat_over_alone", "flat_processor_over_alone"]));
    }
    if options.queued > 0 {
        let queue = Queue::of(options.queued, lab).await?;
        let shape = deep_queue::Options::of(options.queued, options.slots, options.workers);
        let mut rates = Rates::default();
        for ordering in turns(options.turns) {
            let circumstances = Circumstances { ordering: Some(ordering), ..Circumstances::default() };
            let measured = deep_queue::measure(&shape, lab, &queue, circumstances).await?;
            rates.add(ordering, measured);
        }
        figures.extend(rates.figures(["deep_queue_over_alone", "deep_queue_processor_over_alone"]));
    }
    Ok(figures)
}

/// Both orders as often as said, alone and whole, whole and alone, so that a machine that becomes slower makes neither look so.
fn turns(count: usize) -> impl Iterator<Item = Ordering> {
    let (alone, whole) = (Ordering::PriorityAndAge, Ordering::Whole);
    [[alone, whole], [whole, alone]].into_iter().cycle().take(count.max(1)).flatten()
}

/// What was measured under both orders.
#[derive(Default)]
struct Rates {
    whole: Side,
    alone: Side,
}

/// What was measured under one order.
#[derive(Default)]
struct Side {
    rates: Vec<f64>,
    processor_us: Vec<f64>,
    /// How the last was measured.
    parameters: Map<String, Value>,
}

impl Side {
    fn add(&mut self, measured: Measured) {
        self.rates.push(measured.rate);
        let of = |name: &str| measured.parameters.get(name).and_then(Value::as_f64).unwrap_or_default();
        let seconds: f64 = ["cpu_seconds_server", "cpu_seconds_postgres"].into_iter().map(of).sum();
        self.processor_us.push(seconds * 1e6 / of("rows_attempts").max(1.0));
        self.parameters = measured.parameters;
    }
}

impl Rates {
    fn add(&mut self, ordering: Ordering, measured: Measured) {
        match ordering {
            Ordering::Whole => self.whole.add(measured),
            Ordering::PriorityAndAge => self.alone.add(measured),
        }
    }

    /// The two figures, of rates and of processor time.
    fn figures(self, [rate, processor]: [&'static str; 2]) -> [Figure; 2] {
        let Self { whole, alone } = self;
        let rounded =
            |values: &[f64], digits| values.iter().map(|value| rounded(*value, digits)).collect::<Vec<_>>();
        let mut parameters = whole.parameters;
        for (name, side) in
            [("", (&whole.rates, &whole.processor_us)), ("_alone", (&alone.rates, &alone.processor_us))]
        {
            parameters.insert(format!("builds_per_second{name}"), rounded(side.0, 1).into());
            parameters.insert(format!("processor_us_per_attempt{name}"), rounded(side.1, 1).into());
        }
        parameters.insert("alone".to_owned(), alone.parameters.into());
        // As many of the one as of the other.
        let ratio = |whole: &[f64], alone: &[f64]| whole.iter().sum::<f64>() / alone.iter().sum::<f64>();
        let figure = |figure, value| Figure {
            scenario: "order",
            figure,
            value,
            unit: "",
            parameters: parameters.clone(),
        };
        [
            figure(rate, ratio(&whole.rates, &alone.rates)),
            figure(processor, ratio(&whole.processor_us, &alone.processor_us)),
        ]
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
    let paths = options.paths;
    for step in [
        &format!(
            "update builds set expected_ms = 1000 + id % 7 * 1000, remaining_path = 1000 + id % {paths} * 1000"
        ),
        "vacuum (analyze) builds",
        "notify hauberk_ready",
    ] {
        client.batch_execute(step).await.context("giving builds durations")?;
    }
    drop(client);
    farm.count_anew().await?;
    farm.start_workers().await?;
    farm.wait_done().await?;
    let rate = deep_queue::rate(&farm.gauge.releases(), options.builds)?;
    let memory = crate::lab::Memory::read(farm.server.process())?;
    let mut parameters = Map::new();
    farm.finish(&mut parameters).await?.require_exactly_once(options.builds)?;
    Ok(Measured { rate, memory, parameters })
}
