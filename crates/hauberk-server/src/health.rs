//! Workers' health: which of them are sick, and when to try them again.
//!
//! A worker is sick when its daemon, disk or memory failed some distinct builds in a row, each of which then did otherwise elsewhere. A build
//! that fails everywhere says nothing about anybody. What is known here is of this start of the server; that a worker is set aside is in its
//! row, and comes back with the orders for it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hauberk_database::dispatch::AttemptClass;
use hauberk_database::{BuildId, WorkerId};

/// Builds that are remembered of each worker at most; of more the oldest are forgotten.
const REMEMBERED: usize = 64;
/// The pause between probes is doubled with each that fails, so often at most.
const MOST_DOUBLINGS: u32 = 6;
/// That a worker is to be set aside is said again after so long, if nothing came of it.
const SAID_AGAIN: Duration = Duration::from_secs(30);

/// When workers are set aside, and how often they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthPolicy {
    /// So many distinct builds in a row make a worker sick; 0 = never.
    pub sick_after: usize,
    /// The pause before the first probe.
    pub probe_pause: Duration,
}

impl Default for HealthPolicy {
    /// Three builds; a probe after five minutes, and ever more seldom after that.
    fn default() -> Self {
        Self { sick_after: 3, probe_pause: Duration::from_secs(300) }
    }
}

/// A build that failed on a worker by the machine's fault.
#[derive(Debug)]
struct Failure {
    build: BuildId,
    class: AttemptClass,
    /// Whether it did otherwise elsewhere since.
    otherwise: bool,
}

/// A worker that is set aside.
#[derive(Debug)]
struct Aside {
    /// When it is to be probed; not known before the next look.
    probe_at: Option<Instant>,
    /// Probes that failed.
    probes: u32,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Health {
    policy: HealthPolicy,
    failures: HashMap<WorkerId, Vec<Failure>>,
    aside: HashMap<WorkerId, Aside>,
    said: HashMap<WorkerId, Instant>,
}

impl Health {
    /// Knows nothing yet.
    pub(crate) fn new(policy: HealthPolicy) -> Self {
        Self { policy, failures: HashMap::new(), aside: HashMap::new(), said: HashMap::new() }
    }

    /// An attempt failed on a worker by the farm's fault.
    pub(crate) fn failed(&mut self, worker: WorkerId, build: BuildId, class: AttemptClass) {
        if self.policy.sick_after == 0 || !is_of_the_machine(class) {
            return;
        }
        if let Some(aside) = self.aside.get_mut(&worker) {
            aside.probes += 1;
            aside.probe_at = None;
            return;
        }
        let failures = self.failures.entry(worker).or_default();
        failures.retain(|failure| failure.build != build);
        if failures.len() >= REMEMBERED {
            failures.remove(0);
        }
        failures.push(Failure { build, class, otherwise: false });
    }

    /// A worker has brought a build to an end that is the package's own, success or failure: its row of failures is over. Gives whether it
    /// was set aside.
    pub(crate) fn did(&mut self, worker: WorkerId) -> bool {
        self.failures.remove(&worker);
        self.aside.contains_key(&worker)
    }

    /// A build did otherwise elsewhere than on these workers.
    pub(crate) fn did_otherwise(&mut self, build: BuildId, than: &[WorkerId]) {
        for worker in than {
            let failures = self.failures.get_mut(worker).into_iter().flatten();
            failures.filter(|failure| failure.build == build).for_each(|failure| failure.otherwise = true);
        }
    }

    /// Takes whether a worker is set aside, as its row says.
    pub(crate) fn set_aside(&mut self, worker: WorkerId, set_aside: bool) {
        if set_aside {
            self.failures.remove(&worker);
            self.said.remove(&worker);
            self.aside.entry(worker).or_insert(Aside { probe_at: None, probes: 0 });
        } else {
            self.aside.remove(&worker);
        }
    }

    /// Tells whether a worker is set aside.
    pub(crate) fn is_set_aside(&self, worker: WorkerId) -> bool {
        self.aside.contains_key(&worker)
    }

    /// Gives the workers that are sick, each with the reason, unless `is_needed` says that it is the last of its kind.
    pub(crate) fn sick(
        &mut self,
        now: Instant,
        is_needed: impl Fn(WorkerId) -> bool,
    ) -> Vec<(WorkerId, String)> {
        let Self { policy, failures, said, .. } = self;
        let mut sick = Vec::new();
        for (worker, failures) in failures {
            let known: Vec<_> = failures.iter().filter(|failure| failure.otherwise).collect();
            let said_already =
                said.get(worker).is_some_and(|at| now.saturating_duration_since(*at) < SAID_AGAIN);
            if known.len() < policy.sick_after || said_already || is_needed(*worker) {
                continue;
            }
            said.insert(*worker, now);
            let last = known.last().map_or(AttemptClass::Daemon, |failure| failure.class);
            let shown: Vec<_> = known.iter().rev().take(3).map(|failure| failure.build.to_string()).collect();
            sick.push((
                *worker,
                format!(
                    "set aside by the farm: {} builds in a row failed here and did otherwise elsewhere, the last by {last} (builds {})",
                    known.len(),
                    shown.join(", ")
                ),
            ));
        }
        sick
    }

    /// Gives the workers that are set aside and are to be tried with one build now.
    pub(crate) fn due_probes(&mut self, now: Instant) -> Vec<WorkerId> {
        let pause = self.policy.probe_pause;
        let mut due = Vec::new();
        for (worker, aside) in &mut self.aside {
            let next = now + pause * (1 << aside.probes.min(MOST_DOUBLINGS));
            if *aside.probe_at.get_or_insert(next) <= now {
                // If nothing comes of it, another is due after as long.
                aside.probe_at = Some(next);
                due.push(*worker);
            }
        }
        due
    }
}

/// Whether a failure may be the machine's: of its daemon, its disk or its memory.
fn is_of_the_machine(class: AttemptClass) -> bool {
    match class {
        AttemptClass::DiskFull | AttemptClass::OutOfMemory | AttemptClass::Daemon => true,
        AttemptClass::Succeeded
        | AttemptClass::BuildFailed
        | AttemptClass::TimedOut
        | AttemptClass::Silent
        | AttemptClass::LogLimit
        | AttemptClass::OutputLimit
        | AttemptClass::NotDeterministic
        | AttemptClass::MissingInputs
        | AttemptClass::Transfer
        | AttemptClass::WorkerLost
        | AttemptClass::Declined
        | AttemptClass::Canceled
        | AttemptClass::Superseded => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: WorkerId = WorkerId::new(1);
    const OTHER: WorkerId = WorkerId::new(2);

    fn health() -> Health {
        Health::new(HealthPolicy::default())
    }

    fn sick(health: &mut Health) -> Vec<WorkerId> {
        health.sick(Instant::now(), |_| false).into_iter().map(|(worker, _)| worker).collect()
    }

    fn fails(health: &mut Health, builds: std::ops::Range<i64>) {
        for build in builds {
            health.failed(WORKER, BuildId::new(build), AttemptClass::Daemon);
        }
    }

    fn otherwise(health: &mut Health, builds: std::ops::Range<i64>) {
        for build in builds {
            health.did_otherwise(BuildId::new(build), &[WORKER]);
        }
    }

    #[test]
    fn three_builds_in_a_row_that_did_otherwise_elsewhere_make_a_worker_sick() {
        let mut health = health();
        fails(&mut health, 1..4);
        assert!(sick(&mut health).is_empty(), "perhaps they fail everywhere");
        otherwise(&mut health, 1..3);
        assert!(sick(&mut health).is_empty());
        otherwise(&mut health, 3..4);
        let now = Instant::now();
        assert!(health.sick(now, |worker| worker == WORKER).is_empty(), "the last of its kind stays");
        let found = health.sick(now, |_| false);
        assert_eq!(found.len(), 1);
        assert!(found[0].1.contains("3 builds in a row") && found[0].1.contains("daemon"), "{}", found[0].1);
        // Said once, and again when nothing came of it.
        assert!(health.sick(now, |_| false).is_empty());
        assert_eq!(health.sick(now + SAID_AGAIN, |_| false).len(), 1);
    }

    #[test]
    fn a_poisoned_build_and_repeated_failures_of_one_make_nobody_sick() {
        let mut health = health();
        for _ in 0..10 {
            fails(&mut health, 1..2);
            health.failed(OTHER, BuildId::new(1), AttemptClass::DiskFull);
        }
        otherwise(&mut health, 1..2);
        assert!(sick(&mut health).is_empty());
    }

    #[test]
    fn a_build_that_is_done_ends_the_row() {
        let mut health = health();
        fails(&mut health, 1..3);
        otherwise(&mut health, 1..3);
        assert!(!health.did(WORKER));
        fails(&mut health, 3..5);
        otherwise(&mut health, 3..5);
        assert!(sick(&mut health).is_empty());
    }

    #[test]
    fn what_is_not_of_the_machine_does_not_count() {
        let mut health = health();
        for class in AttemptClass::ALL.iter().filter(|class| !is_of_the_machine(**class)) {
            for build in 1..9 {
                health.failed(WORKER, BuildId::new(build), *class);
            }
        }
        otherwise(&mut health, 1..9);
        assert!(sick(&mut health).is_empty());
        let mut never = Health::new(HealthPolicy { sick_after: 0, ..HealthPolicy::default() });
        fails(&mut never, 1..9);
        otherwise(&mut never, 1..9);
        assert!(sick(&mut never).is_empty());
    }

    #[test]
    fn what_is_set_aside_is_probed_ever_more_seldom_until_it_does_a_build() {
        let mut health = health();
        let mut now = Instant::now();
        let pause = HealthPolicy::default().probe_pause;
        health.set_aside(WORKER, true);
        for doublings in 0..3 {
            assert!(health.due_probes(now).is_empty());
            now += pause * (1 << doublings) - Duration::from_secs(1);
            assert!(health.due_probes(now).is_empty());
            now += Duration::from_secs(1);
            assert_eq!(health.due_probes(now), [WORKER]);
            fails(&mut health, 1..2);
        }
        assert!(health.did(WORKER));
        health.set_aside(WORKER, false);
        now += 100 * pause;
        assert!(health.due_probes(now).is_empty());
    }
}
