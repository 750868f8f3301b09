//! `replay`: the order of dispatch, in simulated time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use hauberk_order::{Policy, Urgency};
use serde_json::{Map, Value, json};

use crate::figure::{Figure, quantile, rounded};
use crate::replay::{
    ByDependents, ByPath, Compared, Forecasts, Graph, OldestFirst, Outcome, Scheduler, ServerOrder, Shape,
    Workload, simulate,
};

/// The order of dispatch on a real graph of 9,968 derivations, in simulated time
///
/// makespan_over_offline: how long the server's order takes, over the list schedule of one who knows all durations beforehand; the
/// largest of all runs. makespan_over_bound: the same over what no schedule can beat. oldest_first_over_offline and
/// dependents_over_offline: the orders of Cuirass and Hydra in the same runs. fair_share_error: how far two specifications of 1:3
/// shares are from them while both have work. ageing_overtaking_seconds: the most by which a build was
/// overtaken by one that became ready later, with the bound given; unbounded_overtaking_seconds without it. estimate_error_median: how far
/// the foretold ends of builds that wait are off, as a part of the time until then; estimate_coverage: the part of them that ended
/// within the interval that was told; estimate_coverage_of_worst_run: that of the run with the least.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Seeds of the durations; each is a run of its own
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    seeds: Vec<u64>,

    /// Evaluations in the staggered runs
    #[arg(long, default_value_t = 8)]
    evaluations: usize,

    /// Factor by which estimates are wrong at most
    #[arg(long, default_value_t = 2.0)]
    error: f64,

    /// Standard deviation of the logarithm of durations
    #[arg(long, default_value_t = 1.5)]
    spread: f64,

    /// Bound of the ageing, in hours
    #[arg(long, default_value_t = 2.0)]
    ageing_hours: f64,
}

/// Half the builds take less.
const MEDIAN_SECONDS: f64 = 60.0;
/// Slots of a machine.
const MACHINE: usize = 8;
/// Work per slot over the critical path: elsewhere every order looks good.
const RATIOS: [f64; 5] = [0.67, 0.8, 1.0, 1.25, 1.5];
/// Evaluations that come within the time of one's critical path.
const STAGGER: f64 = 4.0;
/// Times within one critical path at which ends are foretold.
const ASKED: f64 = 20.0;
/// Derivations that change between two evaluations; most take many others with them.
const TOUCHED: usize = 20;

/// Measures it.
pub(crate) fn run(options: &Options) -> Result<Vec<Figure>> {
    ensure!(!options.seeds.is_empty(), "at least one seed is needed");
    let graph = Graph::load()?;
    let mut figures = makespans(options, &graph)?;
    figures.extend(fair_share(options, &graph)?);
    figures.extend(ageing(options, &graph));
    figures.extend(forecasts(options, &graph)?);
    Ok(figures)
}

fn shape(options: &Options, seed: u64) -> Shape {
    Shape { seed, median_seconds: MEDIAN_SECONDS, spread: options.spread, error: options.error }
}

fn machines(slots: usize) -> impl Iterator<Item = u64> {
    let whole = std::iter::repeat_n(MACHINE as u64, slots / MACHINE);
    whole.chain(Some((slots % MACHINE) as u64).filter(|rest| *rest > 0))
}

fn order(slots: usize, ageing: Option<Duration>) -> ServerOrder {
    ServerOrder::new(Policy { ageing, ..Policy::default() }, machines(slots))
}

fn makespan(workload: &Workload, slots: usize, scheduler: &mut dyn Scheduler) -> f64 {
    simulate(workload, slots, scheduler, |_, _| {}).makespan.as_secs_f64()
}

/// The server's order against others, one evaluation and several, over seeds and slot counts.
fn makespans(options: &Options, graph: &Graph) -> Result<Vec<Figure>> {
    let mut ratios: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut runs = Vec::new();
    for &seed in &options.seeds {
        let shape = shape(options, seed);
        let single = Workload::of(graph, shape);
        let apart = single.critical_path().div_f64(STAGGER);
        let several = Workload::of_evaluations(graph, shape, options.evaluations, apart, TOUCHED);
        for ratio in RATIOS {
            for workload in [&single, &several] {
                let slots = slots_for(workload, ratio);
                let bound = workload.lower_bound(slots).as_secs_f64();
                let offline = makespan(workload, slots, &mut ByPath::knowing(workload)?);
                let ours = makespan(workload, slots, &mut order(slots, None));
                let oldest = makespan(workload, slots, &mut OldestFirst::default());
                let dependents = makespan(workload, slots, &mut ByDependents::default());
                for (name, value) in [
                    ("makespan_over_offline", ours / offline),
                    ("makespan_over_bound", ours / bound),
                    ("oldest_first_over_offline", oldest / offline),
                    ("dependents_over_offline", dependents / offline),
                ] {
                    ratios.entry(name).or_default().push(value);
                }
                runs.push(json!({
                    "seed": seed, "slots": slots, "evaluations": workload.evaluations.len(),
                    "builds": workload.builds.len(), "work_over_path": ratio,
                    "hours": rounded(ours / 3600.0, 2), "over_offline": rounded(ours / offline, 3),
                    "over_bound": rounded(ours / bound, 3), "oldest_first": rounded(oldest / offline, 3),
                    "dependents": rounded(dependents / offline, 3),
                }));
            }
        }
    }
    let mut figures = Vec::new();
    for name in [
        "makespan_over_offline",
        "makespan_over_bound",
        "oldest_first_over_offline",
        "dependents_over_offline",
    ] {
        let mut values = ratios.remove(name).unwrap_or_default();
        let largest = quantile(&mut values, 1.0).context("nothing was replayed")?;
        let median = quantile(&mut values, 0.5).context("nothing was replayed")?;
        let mut parameters = Map::from_iter([
            ("median".to_owned(), rounded(median, 3).into()),
            ("error".to_owned(), options.error.into()),
            ("spread".to_owned(), options.spread.into()),
        ]);
        if name == "makespan_over_offline" {
            parameters.insert("single_runs".to_owned(), Value::Array(runs.clone()));
        }
        figures.push(Figure { scenario: "replay", figure: name, value: largest, unit: "ratio", parameters });
    }
    Ok(figures)
}

fn slots_for(workload: &Workload, ratio: f64) -> usize {
    let slots = workload.work().as_secs_f64() / (workload.critical_path().as_secs_f64() * ratio);
    // Slots of a farm are few.
    (slots.round() as usize).max(1)
}

/// Two specifications of the same graph, with shares 1:3, on few slots.
fn fair_share(options: &Options, graph: &Graph) -> Result<Vec<Figure>> {
    let mut errors = Vec::new();
    for &seed in &options.seeds {
        let workload = Workload::of_specifications(graph, shape(options, seed), 2);
        let slots = slots_for(&workload, 4.0);
        let mut order = order(slots, None);
        order.set_specification(0, 100, Urgency::LAST);
        order.set_specification(1, 300, Urgency::LAST);
        let mut contended = Duration::ZERO;
        let mut since = Duration::ZERO;
        let mut ended = false;
        let outcome = simulate(&workload, slots, &mut order, |now, outcome| {
            let waits = |specification: usize| {
                workload.evaluations[specification]
                    .builds
                    .iter()
                    .any(|build| outcome.ready[*build] <= now && outcome.began[*build] == Duration::MAX)
            };
            // The first hour shows the grain of single builds, not the share.
            if since.is_zero() && now >= Duration::from_secs(3600) {
                since = now;
            }
            ended = ended || !(waits(0) && waits(1));
            if !ended {
                contended = now;
            }
        });
        ensure!(contended > since, "the specifications never wanted more than there was");
        let used = |specification: usize| -> f64 {
            let builds = &workload.evaluations[specification].builds;
            builds.iter().map(|build| overlap(&workload, &outcome, *build, since, contended)).sum()
        };
        let share = used(0) / (used(0) + used(1));
        errors.push(((share - 0.25) / 0.25).abs());
    }
    let value = quantile(&mut errors, 1.0).context("nothing was replayed")?;
    let parameters = Map::from_iter([("shares".to_owned(), json!([1, 3]))]);
    Ok(vec![Figure { scenario: "replay", figure: "fair_share_error", value, unit: "ratio", parameters }])
}

/// Seconds that a build ran between two moments.
fn overlap(workload: &Workload, outcome: &Outcome, build: usize, from: Duration, to: Duration) -> f64 {
    let began = outcome.began[build];
    let end = began.saturating_add(workload.builds[build].duration);
    end.min(to).saturating_sub(began.max(from)).as_secs_f64()
}

/// A specification that nobody hurries, beside one that is urgent.
fn ageing(options: &Options, graph: &Graph) -> Vec<Figure> {
    let bound = Duration::from_secs_f64(options.ageing_hours.max(0.0) * 3600.0);
    let (mut bounded, mut unbounded) = (Duration::ZERO, Duration::ZERO);
    for &seed in &options.seeds {
        let workload = Workload::of_specifications(graph, shape(options, seed), 2);
        let slots = slots_for(&workload, 2.0);
        let overtaking = |ageing| {
            let mut order = order(slots, ageing);
            order.set_specification(0, 100, Urgency::LAST);
            order.set_specification(1, 100, Urgency::FIRST);
            let outcome = simulate(&workload, slots, &mut order, |_, _| {});
            overtaking(&outcome)
        };
        bounded = bounded.max(overtaking(Some(bound)));
        unbounded = unbounded.max(overtaking(None));
    }
    let parameters = Map::from_iter([("bound_seconds".to_owned(), bound.as_secs().into())]);
    let figure = |figure, value: Duration| Figure {
        scenario: "replay",
        figure,
        value: value.as_secs_f64(),
        unit: "s",
        parameters: parameters.clone(),
    };
    vec![figure("ageing_overtaking_seconds", bounded), figure("unbounded_overtaking_seconds", unbounded)]
}

/// When builds are said to end, in runs of one evaluation and of several, of which the farm does not know those that are to come.
fn forecasts(options: &Options, graph: &Graph) -> Result<Vec<Figure>> {
    let (mut errors, mut widths, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    let mut worst = 1.0_f64;
    // Ends that lay within what was told, of all.
    let (mut singly, mut staggered) = ((0_usize, 0_usize), (0_usize, 0_usize));
    for &seed in &options.seeds {
        let shape = shape(options, seed);
        let single = Workload::of(graph, shape);
        let apart = single.critical_path().div_f64(STAGGER);
        let several = Workload::of_evaluations(graph, shape, options.evaluations, apart, TOUCHED);
        for ratio in RATIOS {
            for workload in [&single, &several] {
                let slots = slots_for(workload, ratio);
                let every = single.critical_path().div_f64(ASKED);
                let mut forecasts = Forecasts::new(workload, slots, options.error, every, seed);
                let mut order = order(slots, None);
                let outcome = simulate(workload, slots, &mut order, |now, outcome| {
                    forecasts.watch(now, outcome);
                });
                let compared = forecasts.compare(&outcome);
                let hits = compared.iter().filter(|one| one.within).count();
                let coverage = hits as f64 / compared.len().max(1) as f64;
                worst = worst.min(coverage);
                let all = |of: fn(&Compared) -> f64| compared.iter().map(of).collect::<Vec<f64>>();
                let (mut own, mut wide) = (all(|one| one.error), all(|one| one.width));
                runs.push(json!({
                    "seed": seed, "evaluations": workload.evaluations.len(), "work_over_path": ratio,
                    "forecasts": compared.len(),
                    "error_median": quantile(&mut own, 0.5).map(|median| rounded(median, 3)),
                    "coverage": rounded(coverage, 3),
                    "width_median": quantile(&mut wide, 0.5).map(|median| rounded(median, 2)),
                }));
                let of_kind = if workload.evaluations.len() == 1 { &mut singly } else { &mut staggered };
                *of_kind = (of_kind.0 + hits, of_kind.1 + compared.len());
                errors.append(&mut own);
                widths.append(&mut wide);
            }
        }
    }
    let part = |(hits, all): (usize, usize)| hits as f64 / all.max(1) as f64;
    let coverage = part((singly.0 + staggered.0, singly.1 + staggered.1));
    let median = quantile(&mut errors, 0.5).context("nothing was foretold")?;
    let parameters = Map::from_iter([
        ("forecasts".to_owned(), errors.len().into()),
        ("error".to_owned(), options.error.into()),
        ("width_median".to_owned(), rounded(quantile(&mut widths, 0.5).unwrap_or_default(), 2).into()),
        ("coverage_of_one_evaluation".to_owned(), rounded(part(singly), 3).into()),
        ("coverage_of_staggered_evaluations".to_owned(), rounded(part(staggered), 3).into()),
        ("single_runs".to_owned(), Value::Array(runs)),
    ]);
    let figure = |figure, value| Figure {
        scenario: "replay",
        figure,
        value,
        unit: "ratio",
        parameters: parameters.clone(),
    };
    Ok(vec![
        figure("estimate_error_median", median),
        figure("estimate_coverage", coverage),
        figure("estimate_coverage_of_worst_run", worst),
    ])
}

/// The most by which a build was overtaken by one that became ready later.
fn overtaking(outcome: &Outcome) -> Duration {
    let mut order: Vec<usize> = (0..outcome.began.len()).collect();
    order.sort_unstable_by_key(|build| (outcome.began[*build], outcome.ready[*build]));
    let mut most = Duration::ZERO;
    // Of all that began before, the one that became ready last.
    let mut latest = Duration::ZERO;
    for build in order {
        most = most.max(latest.saturating_sub(outcome.ready[build]));
        latest = latest.max(outcome.ready[build]);
    }
    most
}
