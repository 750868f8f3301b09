//! What a replay has to build.

use std::time::Duration;

use fastrand::Rng;

use super::Graph;

/// A build.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    /// How long it takes.
    pub(crate) duration: Duration,
    /// How long it is believed to take.
    pub(crate) estimate: Duration,
    /// What it needs, as places in the workload.
    pub(crate) dependencies: Vec<usize>,
    /// The evaluation that brought it.
    pub(crate) evaluation: usize,
    /// The system it is built on.
    pub(crate) system: String,
}

/// One evaluation.
#[derive(Clone, Debug)]
pub(crate) struct Evaluation {
    /// When it is published.
    pub(crate) at: Duration,
    /// Its specification.
    pub(crate) specification: usize,
    /// What it wants, whether it brought it or not; everything after what it needs.
    pub(crate) builds: Vec<usize>,
}

/// How durations are drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Seeds everything that is drawn.
    pub(crate) seed: u64,
    /// Half the builds take less than so many seconds.
    pub(crate) median_seconds: f64,
    /// How heavy the tail is: the standard deviation of the logarithm.
    pub(crate) spread: f64,
    /// Estimates are wrong by a factor up to this, up or down.
    pub(crate) error: f64,
}

/// No build takes longer.
const LONGEST_SECONDS: f64 = 8.0 * 3600.0;
/// What is fixed is a download mostly: it takes this part of what a build takes.
const FIXED_PART: f64 = 0.05;

impl Shape {
    fn duration(&self, rng: &mut Rng, is_fixed: bool) -> Duration {
        // A normal number is near enough the sum of twelve even ones, less six.
        let normal: f64 = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
        let part = if is_fixed { FIXED_PART } else { 1.0 };
        let seconds = self.median_seconds * part * (normal * self.spread).exp();
        Duration::from_secs_f64(seconds.clamp(0.1, LONGEST_SECONDS))
    }

    fn estimate(&self, rng: &mut Rng, duration: Duration) -> Duration {
        duration.mul_f64(self.error.max(1.0).powf(rng.f64() * 2.0 - 1.0))
    }
}

/// What a replay has to build.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    /// The builds.
    pub(crate) builds: Vec<Build>,
    /// What wants them, in the order of time.
    pub(crate) evaluations: Vec<Evaluation>,
}

impl Workload {
    /// One evaluation of the whole graph.
    pub(crate) fn of(graph: &Graph, shape: Shape) -> Self {
        let mut workload = Self { builds: Vec::new(), evaluations: Vec::new() };
        workload.add_copy(graph, &mut Rng::with_seed(shape.seed), shape, 0);
        workload
    }

    /// For each specification an evaluation of the whole graph with nothing in common, all at the start.
    pub(crate) fn of_specifications(graph: &Graph, shape: Shape, specifications: usize) -> Self {
        let mut workload = Self { builds: Vec::new(), evaluations: Vec::new() };
        let mut rng = Rng::with_seed(shape.seed);
        for specification in 0..specifications {
            workload.add_copy(graph, &mut rng, shape, specification);
        }
        workload
    }

    /// Several evaluations of one specification, `apart` after each other. In each, `touched` derivations have changed, and with them
    /// everything that needs them; the rest is that of the evaluation before.
    pub(crate) fn of_evaluations(
        graph: &Graph,
        shape: Shape,
        evaluations: usize,
        apart: Duration,
        touched: usize,
    ) -> Self {
        let mut rng = Rng::with_seed(shape.seed);
        let mut workload = Self { builds: Vec::new(), evaluations: Vec::new() };
        workload.add_copy(graph, &mut rng, shape, 0);
        let mut current: Vec<usize> = (0..graph.nodes.len()).collect();
        for evaluation in 1..evaluations {
            let mut changed = vec![false; graph.nodes.len()];
            for _ in 0..touched {
                changed[rng.usize(..graph.nodes.len())] = true;
            }
            for (place, node) in graph.nodes.iter().enumerate() {
                if node.dependencies.iter().any(|needed| changed[*needed]) {
                    changed[place] = true;
                }
                if changed[place] {
                    let dependencies = node.dependencies.iter().map(|needed| current[*needed]).collect();
                    // The new version takes about as long as the old one.
                    let old = &workload.builds[current[place]];
                    let duration = old.duration.mul_f64(0.8 + 0.4 * rng.f64());
                    let system = node.system.clone();
                    let estimate = shape.estimate(&mut rng, duration);
                    current[place] = workload.builds.len();
                    workload.builds.push(Build { duration, estimate, dependencies, evaluation, system });
                }
            }
            let at = apart * u32::try_from(evaluation).unwrap_or(u32::MAX);
            workload.evaluations.push(Evaluation { at, specification: 0, builds: current.clone() });
        }
        workload
    }

    fn add_copy(&mut self, graph: &Graph, rng: &mut Rng, shape: Shape, specification: usize) {
        let first = self.builds.len();
        let evaluation = self.evaluations.len();
        for node in &graph.nodes {
            let duration = shape.duration(rng, node.is_fixed);
            self.builds.push(Build {
                duration,
                estimate: shape.estimate(rng, duration),
                dependencies: node.dependencies.iter().map(|needed| first + needed).collect(),
                evaluation,
                system: node.system.clone(),
            });
        }
        let builds = (first..self.builds.len()).collect();
        self.evaluations.push(Evaluation { at: Duration::ZERO, specification, builds });
    }

    /// The specification that brought a build.
    pub(crate) fn specification_of(&self, build: usize) -> usize {
        self.evaluations[self.builds[build].evaluation].specification
    }

    /// The time that all builds take together.
    pub(crate) fn work(&self) -> Duration {
        self.builds.iter().map(|build| build.duration).sum()
    }

    /// The time that the longest chain takes.
    pub(crate) fn critical_path(&self) -> Duration {
        self.ends_at_best().into_iter().max().unwrap_or_default()
    }

    /// No farm with so many slots is done sooner: neither before the last chain, begun when its evaluation came, nor
    /// before its slots have done all that came with and after some evaluation.
    pub(crate) fn lower_bound(&self, slots: usize) -> Duration {
        let chains = self.critical_path();
        let mut after = Duration::ZERO;
        let mut bound = chains;
        for (number, evaluation) in self.evaluations.iter().enumerate().rev() {
            after += self
                .builds
                .iter()
                .filter(|build| build.evaluation == number)
                .map(|build| build.duration)
                .sum::<Duration>();
            bound = bound.max(evaluation.at + after.div_f64(slots as f64));
        }
        bound
    }

    /// When each build would end if slots were never short.
    fn ends_at_best(&self) -> Vec<Duration> {
        let mut ends: Vec<Duration> = Vec::with_capacity(self.builds.len());
        for build in &self.builds {
            let inputs = build.dependencies.iter().map(|needed| ends[*needed]).max().unwrap_or_default();
            ends.push(inputs.max(self.evaluations[build.evaluation].at) + build.duration);
        }
        ends
    }
}
