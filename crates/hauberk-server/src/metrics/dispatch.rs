//! Sessions, slots and attempts.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use hauberk_database::BuildId;
use hauberk_database::dispatch::AttemptClass;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::durations;

/// Systems that are told apart; what workers say beyond them is one more, `other`.
const SYSTEMS: usize = 32;
/// Builds whose readiness is remembered at most.
const REMEMBERED: usize = 1 << 17;
/// A build that was ready so long and was not given out by this server is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySystem {
    system: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByClass {
    class: String,
}

/// What the dispatcher shows now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// Slots of the workers that are here and of those that are busy, by the worker's own system.
    pub(crate) slots: BTreeMap<String, (u64, u64)>,
    /// Workers that take work.
    pub(crate) working: u64,
    /// Workers that get no work for now, because an operator wants it so.
    pub(crate) paused: u64,
    /// Workers that are sick, and get no work but now and then a build to be tried with.
    pub(crate) set_aside: u64,
    /// Workers that lack something to take work now, as free space.
    pub(crate) short: u64,
    /// Workers that finish what they run and leave.
    pub(crate) draining: u64,
    /// Attempts that are not over, those whose outputs are fetched and those of workers that are away included.
    pub(crate) attempts: u64,
}

impl Census {
    /// Counts the slots of a worker.
    pub(crate) fn add(&mut self, system: &str, slots: u64, busy: u64) {
        let known = self.slots.contains_key(system) || self.slots.len() < SYSTEMS;
        let here = self.slots.entry(if known { system } else { "other" }.to_owned()).or_default();
        here.0 += slots;
        here.1 += busy;
    }
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct DispatchMetrics {
    latency: Histogram,
    sessions: Family<ByState, Gauge>,
    slots: Family<BySystem, Gauge>,
    busy: Family<BySystem, Gauge>,
    open: Gauge,
    ended: Family<ByClass, Counter>,
    lapsed: Counter,
    claims: Family<ByResult, Counter>,
}

impl Default for DispatchMetrics {
    fn default() -> Self {
        Self {
            latency: Histogram::new(durations()),
            sessions: Family::default(),
            slots: Family::default(),
            busy: Family::default(),
            open: Gauge::default(),
            ended: Family::default(),
            lapsed: Counter::default(),
            claims: Family::default(),
        }
    }
}

impl DispatchMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "dispatch_latency",
            "Time from when this server learned that a build is ready until its Assign left, with the wait for a slot",
            Unit::Seconds,
            self.latency.clone(),
        );
        registry.register("sessions", "Workers that are here, by what they take", self.sessions.clone());
        registry.register("slots", "Slots of the workers that are here", self.slots.clone());
        registry.register("slots_busy", "Slots of them in which an attempt is", self.busy.clone());
        let help = "Attempts that are not over, until their outputs are recorded";
        registry.register("attempts_open", help, self.open.clone());
        registry.register("attempts_ended", "Attempts that ended, by how they did", self.ended.clone());
        let help = "Sessions that ended because nothing was heard of their workers for a lease";
        registry.register("leases_lapsed", help, self.lapsed.clone());
        let help = "Builds that this server wanted to give out: granted, or lost to another server or to an operator";
        registry.register("claims", help, self.claims.clone());
    }

    /// Shows what there is now; of systems that only were there `before` nothing is told any more.
    pub(crate) fn show(&self, census: &Census, before: &Census) {
        let set = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        for (state, count) in [
            ("working", census.working),
            ("paused", census.paused),
            ("set_aside", census.set_aside),
            ("short", census.short),
            ("draining", census.draining),
        ] {
            set(&self.sessions.get_or_create(&ByState { state }), count);
        }
        for system in before.slots.keys().filter(|system| !census.slots.contains_key(*system)) {
            let gone = BySystem { system: system.clone() };
            self.slots.remove(&gone);
            self.busy.remove(&gone);
        }
        for (system, (slots, busy)) in &census.slots {
            let system = BySystem { system: system.clone() };
            set(&self.slots.get_or_create(&system), *slots);
            set(&self.busy.get_or_create(&system), *busy);
        }
        set(&self.open, census.attempts);
    }

    /// Counts attempts that ended so.
    pub(crate) fn ended(&self, class: AttemptClass, count: usize) {
        if count > 0 {
            self.ended.get_or_create(&ByClass { class: class.to_string() }).inc_by(count as u64);
        }
    }

    /// Counts builds that were granted to this server, and those that were not.
    pub(crate) fn claimed(&self, granted: usize, lost: usize) {
        for (result, count) in [("granted", granted), ("lost", lost)] {
            self.claims.get_or_create(&ByResult { result }).inc_by(count as u64);
        }
    }

    /// Counts workers of which nothing was heard for a lease.
    pub(crate) fn lapsed(&self, count: usize) {
        self.lapsed.inc_by(count as u64);
    }
}

/// Remembers since when builds are known to be ready, until they are given out.
#[derive(Debug, Default)]
pub(crate) struct ReadyClock(HashMap<BuildId, Instant>);

impl ReadyClock {
    /// These builds are ready; those that are known already have been so for longer.
    pub(crate) fn ready(&mut self, builds: impl Iterator<Item = BuildId>, now: Instant) {
        for build in builds {
            if self.0.len() >= REMEMBERED {
                return;
            }
            self.0.entry(build).or_insert(now);
        }
    }

    /// The Assign of a build leaves.
    pub(crate) fn assigned(&mut self, build: BuildId, now: Instant, metrics: &DispatchMetrics) {
        if let Some(since) = self.0.remove(&build) {
            metrics.latency.observe(now.saturating_duration_since(since).as_secs_f64());
        }
    }

    /// Forgets what somebody else has probably given out.
    pub(crate) fn tidy(&mut self, now: Instant) {
        self.0.retain(|_, since| now.saturating_duration_since(*since) < FORGOTTEN_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &DispatchMetrics) -> String {
        let (mut registry, mut text) = (Registry::with_prefix("hauberk"), String::new());
        metrics.register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn latency_is_measured_once_from_the_first_word_of_it() {
        let (mut clock, metrics, now) = (ReadyClock::default(), DispatchMetrics::default(), Instant::now());
        let later = now + Duration::from_secs(2);
        clock.ready([1, 2].map(BuildId::new).into_iter(), now);
        clock.ready([2, 3].map(BuildId::new).into_iter(), later);
        clock.assigned(BuildId::new(2), later, &metrics);
        clock.assigned(BuildId::new(2), later, &metrics);
        clock.assigned(BuildId::new(9), later, &metrics);
        let text = text(&metrics);
        for line in ["hauberk_dispatch_latency_seconds_sum 2.0", "hauberk_dispatch_latency_seconds_count 1"] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        clock.tidy(now + FORGOTTEN_AFTER);
        assert_eq!(clock.0.len(), 1);
    }

    #[test]
    fn of_workers_that_left_nothing_is_told() {
        let (metrics, mut before) = (DispatchMetrics::default(), Census::default());
        before.add("arm", 2, 1);
        metrics.show(&before, &Census::default());
        let mut after = Census::default();
        after.add("x86", 4, 3);
        metrics.show(&after, &before);
        let text = text(&metrics);
        for line in ["hauberk_slots{system=\"x86\"} 4", "hauberk_slots_busy{system=\"x86\"} 3"] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("arm"), "{text}");
    }

    #[test]
    fn no_number_of_systems_makes_the_answer_long() {
        let mut census = Census::default();
        for number in 0..100 {
            census.add(&format!("cpu{number:03}-linux"), 2, 1);
        }
        census.add("cpu001-linux", 4, 0);
        assert_eq!(census.slots.len(), SYSTEMS + 1);
        assert_eq!(census.slots["cpu001-linux"], (6, 1));
        assert_eq!(census.slots["other"], (2 * (100 - SYSTEMS as u64), 100 - SYSTEMS as u64));
    }
}
