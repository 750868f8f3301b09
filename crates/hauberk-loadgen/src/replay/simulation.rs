//! Lets the time of a replay pass.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::Workload;

/// Decides which build begins next.
pub(crate) trait Scheduler {
    /// An evaluation is published. Its builds that wait for nothing are told by [`Self::ready`] right after.
    fn published(&mut self, workload: &Workload, evaluation: usize, now: Duration);

    /// A build waits for nothing any more.
    fn ready(&mut self, workload: &Workload, build: usize, now: Duration);

    /// A build ended, and a slot is free.
    fn ended(&mut self, workload: &Workload, build: usize, now: Duration);

    /// Chooses what begins now, while a slot is free.
    fn next(&mut self, workload: &Workload, now: Duration) -> Option<usize>;
}

/// When everything happened.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// For each build, when it became ready.
    pub(crate) ready: Vec<Duration>,
    /// For each build, when it began.
    pub(crate) began: Vec<Duration>,
    /// When the last one ended.
    pub(crate) makespan: Duration,
}

/// Builds a workload on so many slots. What watches is called after each moment in which something happened, with what is
/// decided so far.
pub(crate) fn simulate(
    workload: &Workload,
    slots: usize,
    scheduler: &mut dyn Scheduler,
    mut watch: impl FnMut(Duration, &Outcome),
) -> Outcome {
    let mut unmet: Vec<usize> = workload.builds.iter().map(|build| build.dependencies.len()).collect();
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); workload.builds.len()];
    for (place, build) in workload.builds.iter().enumerate() {
        for needed in &build.dependencies {
            dependents[*needed].push(place);
        }
    }
    let never = vec![Duration::MAX; workload.builds.len()];
    let mut outcome = Outcome { ready: never.clone(), began: never, makespan: Duration::ZERO };
    let mut published = 0;
    let mut ends: BinaryHeap<Reverse<(Duration, usize)>> = BinaryHeap::new();
    let mut now = Duration::ZERO;
    loop {
        while let Some(Reverse((at, build))) = ends.peek().copied()
            && at <= now
        {
            ends.pop();
            outcome.makespan = now;
            scheduler.ended(workload, build, now);
            for &dependent in &dependents[build] {
                unmet[dependent] -= 1;
                if unmet[dependent] == 0 && workload.builds[dependent].evaluation < published {
                    outcome.ready[dependent] = now;
                    scheduler.ready(workload, dependent, now);
                }
            }
        }
        while let Some(evaluation) = workload.evaluations.get(published).filter(|next| next.at <= now) {
            scheduler.published(workload, published, now);
            for &build in &evaluation.builds {
                if workload.builds[build].evaluation == published && unmet[build] == 0 {
                    outcome.ready[build] = now;
                    scheduler.ready(workload, build, now);
                }
            }
            published += 1;
        }
        while ends.len() < slots
            && let Some(build) = scheduler.next(workload, now)
        {
            outcome.began[build] = now;
            ends.push(Reverse((now + workload.builds[build].duration, build)));
        }
        watch(now, &outcome);
        let end = ends.peek().map(|Reverse((at, _))| *at);
        let publication = workload.evaluations.get(published).map(|next| next.at);
        match end.into_iter().chain(publication).min() {
            Some(next) => now = next,
            None => return outcome,
        }
    }
}
