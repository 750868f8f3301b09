//! What the farm foretells in a replay, and what came of it.

use std::time::Duration;

use fastrand::Rng;
use hauberk_order::{Basis, Estimate, Forecast, Outlook, PathStep, remaining, remaining_paths};

use super::{Outcome, Workload};

/// Builds that are asked about at each moment.
const ASKED: usize = 100;

/// A forecast that was made, at a moment, for a build that had not begun.
#[derive(Clone, Copy, Debug)]
struct Made {
    build: usize,
    at: Duration,
    forecast: Forecast,
}

/// What came of a forecast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compared {
    /// How far the likely end was off, as a part of the time until then.
    pub(crate) error: f64,
    /// Whether the end lay in the interval.
    pub(crate) within: bool,
    /// How wide the interval was, over the time until the likely end.
    pub(crate) width: f64,
}

/// Asks, at moments a certain time apart, when some of the builds that have not begun will end.
#[derive(Debug)]
pub(crate) struct Forecasts<'a> {
    workload: &'a Workload,
    slots: usize,
    /// Estimates are wrong by a factor up to this.
    error: f64,
    every: Duration,
    next: Duration,
    rng: Rng,
    made: Vec<Made>,
}

impl<'a> Forecasts<'a> {
    /// Asks each `every`.
    pub(crate) fn new(workload: &'a Workload, slots: usize, error: f64, every: Duration, seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        Self { workload, slots, error, every, next: every, rng, made: Vec::new() }
    }

    /// Looks at a moment of the replay, with all that is decided until then.
    pub(crate) fn watch(&mut self, now: Duration, outcome: &Outcome) {
        if now < self.next {
            return;
        }
        self.next = now + self.every;
        let builds = &self.workload.builds;
        let published = |build: usize| self.workload.evaluations[builds[build].evaluation].at <= now;
        let begun = |build: usize| outcome.began[build] <= now;
        let over = |build: usize| begun(build) && outcome.began[build] + builds[build].duration <= now;
        let left = |build: usize| remaining(builds[build].estimate, now.saturating_sub(outcome.began[build]));

        // When each can be there if slots were never short; a build comes after what it needs.
        let mut there = vec![Duration::ZERO; builds.len()];
        let mut chains = vec![Duration::ZERO; builds.len()];
        for (place, build) in builds.iter().enumerate() {
            chains[place] = build.dependencies.iter().map(|needed| there[*needed]).max().unwrap_or_default();
            there[place] = match () {
                () if over(place) => Duration::ZERO,
                () if begun(place) => left(place),
                () => chains[place] + build.estimate,
            };
        }
        // What the server's order knows of the paths: those of what is published.
        let estimates: Vec<Duration> = (0..builds.len())
            .map(|build| if published(build) { builds[build].estimate } else { Duration::ZERO })
            .collect();
        let needed = |build: usize| if published(build) { &*builds[build].dependencies } else { &[] };
        let Ok(paths) = remaining_paths(&estimates, needed) else { return };
        let mut waiting: Vec<usize> =
            (0..builds.len()).filter(|build| published(*build) && !begun(*build)).collect();
        waiting.sort_unstable_by_key(|build| (std::cmp::Reverse(PathStep::from(paths[*build])), *build));
        let running: Duration =
            (0..builds.len()).filter(|build| begun(*build) && !over(*build)).map(left).sum();
        let (mut ahead, mut ready_ahead) = (running, running);
        let asked = ASKED as f64 / waiting.len().max(1) as f64;
        for build in waiting {
            let own = builds[build].estimate;
            if self.rng.f64() < asked {
                let own = Estimate {
                    duration: own,
                    shortest: own.div_f64(self.error),
                    longest: own.mul_f64(self.error),
                    basis: Basis::SameVersion,
                };
                // Slots of a farm are few.
                let slots = self.slots as f64;
                let outlook = Outlook { chain: chains[build], ahead, ready_ahead, slots, own };
                self.made.push(Made { build, at: now, forecast: outlook.forecast() });
            }
            ahead += own;
            if outcome.ready[build] <= now {
                ready_ahead += own;
            }
        }
    }

    /// Compares what was foretold with what came.
    pub(crate) fn compare(&self, outcome: &Outcome) -> Vec<Compared> {
        self.made
            .iter()
            .map(|made| {
                let end = outcome.began[made.build].saturating_add(self.workload.builds[made.build].duration);
                let took = end.saturating_sub(made.at).as_secs_f64();
                let span = made.forecast.end;
                let [earliest, likely, latest] =
                    [span.earliest, span.likely, span.latest].map(|time| time.as_secs_f64());
                Compared {
                    error: (likely - took).abs() / took.max(1.0),
                    within: (earliest..=latest).contains(&took),
                    width: (latest - earliest) / likely.max(1.0),
                }
            })
            .collect()
    }
}
