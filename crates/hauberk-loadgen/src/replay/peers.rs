//! Orders to compare with.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use hauberk_order::{Cycle, remaining_paths};

use super::{Scheduler, Workload};

/// Cuirass's order among builds of one priority: the oldest first, which is the one that was recorded first.
#[derive(Debug, Default)]
pub(crate) struct OldestFirst {
    ready: BinaryHeap<Reverse<usize>>,
}

impl Scheduler for OldestFirst {
    fn published(&mut self, _: &Workload, _: usize, _: Duration) {}

    fn ready(&mut self, _: &Workload, build: usize, _: Duration) {
        self.ready.push(Reverse(build));
    }

    fn ended(&mut self, _: &Workload, _: usize, _: Duration) {}

    fn next(&mut self, _: &Workload, _: Duration) -> Option<usize> {
        self.ready.pop().map(|Reverse(build)| build)
    }
}

/// Hydra's order among builds of one priority: the most dependents first, then the oldest. Its share of the jobsets is the
/// same for all of one jobset, and does not change while a build waits.
#[derive(Debug, Default)]
pub(crate) struct ByDependents {
    dependents: Vec<usize>,
    ready: BinaryHeap<(usize, Reverse<usize>)>,
}

impl Scheduler for ByDependents {
    fn published(&mut self, workload: &Workload, evaluation: usize, _: Duration) {
        self.dependents.resize(workload.builds.len(), 0);
        for &build in &workload.evaluations[evaluation].builds {
            if workload.builds[build].evaluation == evaluation {
                for &needed in &workload.builds[build].dependencies {
                    self.dependents[needed] += 1;
                }
            }
        }
    }

    fn ready(&mut self, _: &Workload, build: usize, _: Duration) {
        self.ready.push((self.dependents[build], Reverse(build)));
    }

    fn ended(&mut self, _: &Workload, _: usize, _: Duration) {}

    fn next(&mut self, _: &Workload, _: Duration) -> Option<usize> {
        self.ready.pop().map(|(_, Reverse(build))| build)
    }
}

/// The list schedule of one who knows how long everything takes: the longest remaining path first.
#[derive(Debug)]
pub(crate) struct ByPath {
    paths: Vec<Duration>,
    ready: BinaryHeap<(Duration, Reverse<usize>)>,
}

impl ByPath {
    /// Learns the true durations of everything, also of what is yet to come.
    pub(crate) fn knowing(workload: &Workload) -> Result<Self, Cycle> {
        let durations: Vec<_> = workload.builds.iter().map(|build| build.duration).collect();
        let needed: Vec<_> = workload.builds.iter().map(|build| build.dependencies.clone()).collect();
        Ok(Self { paths: remaining_paths(&durations, |place| &needed[place])?, ready: BinaryHeap::new() })
    }
}

impl Scheduler for ByPath {
    fn published(&mut self, _: &Workload, _: usize, _: Duration) {}

    fn ready(&mut self, _: &Workload, build: usize, _: Duration) {
        self.ready.push((self.paths[build], Reverse(build)));
    }

    fn ended(&mut self, _: &Workload, _: usize, _: Duration) {}

    fn next(&mut self, _: &Workload, _: Duration) -> Option<usize> {
        self.ready.pop().map(|(_, Reverse(build))| build)
    }
}
