//! The order over everything that waits.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::ledger::{Ledger, LedgerPolicy};
use crate::queue::{Heads, Queue, Rank, Waiting};
use crate::seats::Seats;
use crate::{Capabilities, Ids, Moment, PathStep, Requirement};

/// Builds of one specification that the same workers can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane<I: Ids> {
    /// Names it.
    pub id: I::Lane,
    /// The specification.
    pub specification: I::Specification,
    /// What its builds require of a worker.
    pub requirement: Requirement,
}

/// What the farm's operator decides about the order.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Policy {
    /// Whatever became ready longer ago than this goes before all that is not in the emergency lane, the oldest first. So no build is
    /// overtaken by one that became ready later than this after it. `None`: priorities alone decide, and what is less urgent
    /// may wait for ever.
    pub ageing: Option<Duration>,
    /// How the fair share remembers.
    pub ledger: LedgerPolicy,
    /// Leaves paths and shares aside: emergencies, priority, and the order of recording. What the rest of the order costs is measured
    /// against this.
    pub priority_and_age_alone: bool,
}

/// A build and the worker it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement<I: Ids> {
    /// The build.
    pub build: I::Build,
    /// The lane it was taken from: its specification pays for it.
    pub lane: I::Lane,
    /// The worker's session.
    pub session: I::Session,
}

#[derive(Debug)]
struct KnownLane<I: Ids> {
    specification: I::Specification,
    requirement: usize,
}

/// A lane, and a session with room for it.
type Seat<I> = (<I as Ids>::Lane, <I as Ids>::Session);

/// Why a build goes before others, the strongest reason first.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Claim<B> {
    Emergency(Rank<B>),
    Aged(Moment, B),
    /// Urgency, what the specification has used for its shares, then the rank in the lane.
    Ordinary(crate::Urgency, f64, Rank<B>),
}

impl<B: Copy + Ord> Claim<B> {
    fn build(&self) -> B {
        match self {
            Self::Emergency(rank) | Self::Ordinary(_, _, rank) => rank.build,
            Self::Aged(_, build) => *build,
        }
    }
}

/// The order over everything that waits. See the crate's description.
#[derive(Debug)]
pub struct Order<I: Ids> {
    policy: Policy,
    queue: Queue<I>,
    seats: Seats<I::Session>,
    ledger: Ledger<I::Specification, I::Build>,
    lanes: HashMap<I::Lane, KnownLane<I>>,
    /// Lanes in which something waits.
    busy: HashSet<I::Lane>,
    /// Specifications that had nothing to do, and take their place among the others at the next choice.
    joining: HashSet<I::Specification>,
    /// Slots that the farm has at least, whoever of the workers is there already.
    slots: u64,
    /// What is on its way or runs, where shares are left aside; else the ledger knows.
    running: HashSet<I::Build>,
}

impl<I: Ids> Order<I> {
    /// Makes one in which nothing waits.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            queue: Queue::new(policy.ageing.is_some()),
            seats: Seats::default(),
            ledger: Ledger::new(policy.ledger),
            lanes: HashMap::new(),
            busy: HashSet::new(),
            joining: HashSet::new(),
            slots: 0,
            running: HashSet::new(),
        }
    }

    /// Makes a lane known, or takes what is newer about it.
    pub fn set_lane(&mut self, lane: &Lane<I>) {
        let requirement = self.seats.requirement(&lane.requirement);
        self.lanes.insert(lane.id, KnownLane { specification: lane.specification, requirement });
    }

    /// What the builds of a lane require, if it is known.
    pub fn requirement(&self, lane: I::Lane) -> Option<&Requirement> {
        self.seats.required(self.lanes.get(&lane)?.requirement)
    }

    /// Tells whether a lane is known.
    pub fn has_lane(&self, lane: I::Lane) -> bool {
        self.lanes.contains_key(&lane)
    }

    /// Adds a build that waits in a lane, or takes what is newer about it. A build that several specifications want may wait in
    /// several lanes. False when the lane is not known, or the build is on its way to a worker or there already.
    pub fn add(&mut self, lane: I::Lane, mut waiting: Waiting<I::Build>) -> bool {
        let Some(known) = self.lanes.get(&lane) else { return false };
        let specification = known.specification;
        if self.policy.priority_and_age_alone {
            waiting.path = PathStep::default();
        }
        if self.is_running(waiting.build) || !self.queue.add(lane, waiting) {
            return false;
        }
        if self.busy.insert(lane) && !self.policy.priority_and_age_alone {
            let others = self.busy.iter().filter(|other| **other != lane);
            if !others
                .filter_map(|other| self.lanes.get(other))
                .any(|other| other.specification == specification)
            {
                self.joining.insert(specification);
            }
        }
        true
    }

    /// Tells what specifications used before this order was begun, decayed to `now`, and how many slots the farm had then. Those that have
    /// something to do take their places by it, as if they came one after the other.
    pub fn remember(&mut self, used: impl Iterator<Item = (I::Specification, f64)>, slots: u64, now: Moment) {
        self.slots = slots;
        for (specification, slot_seconds) in used {
            self.ledger.add_used(specification, slot_seconds, now);
        }
        let busy = self.busy.iter().filter_map(|lane| Some(self.lanes.get(lane)?.specification));
        self.joining.extend(busy);
    }

    /// Tells what specifications have used of slots that others give out, decayed to `now`.
    pub fn set_elsewhere(&mut self, used: impl Iterator<Item = (I::Specification, f64)>, now: Moment) {
        for (specification, slot_seconds) in used {
            self.ledger.set_elsewhere(specification, slot_seconds, now);
        }
    }

    /// Gives those their places that have something to do again. Not as soon as they have: how many slots there are is known when one is free.
    fn join(&mut self, now: Moment) {
        if self.joining.is_empty() {
            return;
        }
        let busy: HashSet<I::Specification> =
            self.busy.iter().filter_map(|lane| Some(self.lanes.get(lane)?.specification)).collect();
        let (joining, mut there): (Vec<_>, Vec<_>) =
            busy.into_iter().partition(|specification| self.joining.contains(specification));
        self.joining.clear();
        let mut joining: Vec<(f64, I::Specification)> = joining
            .into_iter()
            .map(|specification| (self.ledger.burden(specification, now), specification))
            .collect();
        // Who has used the most first: the others have a claim against it, and none of them more than they may.
        joining.sort_unstable_by(|one, other| other.0.total_cmp(&one.0));
        let slots = self.seats.slots().max(self.slots);
        for (_, specification) in joining {
            self.ledger.join(specification, there.iter().copied(), slots, now);
            there.push(specification);
        }
    }

    /// Forgets a build that does not wait any more.
    pub fn remove(&mut self, build: I::Build) {
        self.queue.remove(build);
        self.tidy();
    }

    /// Forgets the builds that do not wait any more, by the word of `still`.
    pub fn retain(&mut self, still: impl Fn(I::Build) -> bool) {
        let gone: Vec<_> = self.queue.builds().filter(|build| !still(*build)).collect();
        for build in gone {
            self.queue.remove(build);
        }
        self.tidy();
    }

    /// What is known of a build that waits.
    pub fn waiting(&self, build: I::Build) -> Option<&Waiting<I::Build>> {
        self.queue.get(build)
    }

    /// Builds that wait in a lane.
    pub fn len(&self, lane: I::Lane) -> usize {
        self.queue.len(lane)
    }

    /// Tells whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.builds().next().is_none()
    }

    /// Notes what a session can build and how many of its slots are free.
    pub fn set_seat(&mut self, session: I::Session, capabilities: &Capabilities, free: u64, slots: u64) {
        self.seats.set(session, capabilities, free, slots);
    }

    /// Forgets a session.
    pub fn remove_seat(&mut self, session: I::Session) {
        self.seats.remove(session);
    }

    /// Decides what goes where next. Nothing when no slot is free for anything that waits. The slot counts as taken from
    /// now on, and the specification pays for it; the build is on its way until [`Self::granted`] or [`Self::lost`].
    pub fn next(&mut self, now: Moment) -> Option<Placement<I>> {
        self.next_avoiding(now, |_| Vec::new())
    }

    /// Decides as [`Self::next`] does; `avoided` gives the sessions that a build goes to only if no other has room.
    pub fn next_avoiding(
        &mut self,
        now: Moment,
        avoided: impl FnOnce(I::Build) -> Vec<I::Session>,
    ) -> Option<Placement<I>> {
        if !self.seats.any() || self.busy.is_empty() {
            return None;
        }
        if !self.policy.priority_and_age_alone {
            self.ledger.advance(now);
            self.join(now);
        }
        let seats: Vec<_> = (0..self.seats.requirements()).map(|number| self.seats.choose(number)).collect();
        let mut best: Option<(Claim<I::Build>, Seat<I>, usize)> = None;
        for lane in &self.busy {
            let Some(known) = self.lanes.get(lane) else { continue };
            let Some(session) = seats.get(known.requirement).copied().flatten() else { continue };
            let Some(heads) = self.queue.heads(*lane) else { continue };
            let claim = self.claim(&heads, known.specification, now);
            if best.as_ref().is_none_or(|(other, _, _)| claim < *other) {
                best = Some((claim, (*lane, session), known.requirement));
            }
        }
        let (claim, (lane, session), requirement) = best?;
        let build = claim.build();
        let avoided = avoided(build);
        let session = if avoided.contains(&session) {
            self.seats.choose_avoiding(requirement, &avoided).unwrap_or(session)
        } else {
            session
        };
        if let Some(waiting) = self.queue.take(build)
            && let Some(known) = self.lanes.get(&lane)
        {
            let specification = known.specification;
            self.begin(specification, build, waiting.expected, now);
        }
        self.seats.occupy(session);
        if self.queue.len(lane) == 0 {
            self.tidy();
        }
        Some(Placement { build, lane, session })
    }

    /// The claim of a lane's best build.
    fn claim(
        &self,
        heads: &Heads<I::Build>,
        specification: I::Specification,
        now: Moment,
    ) -> Claim<I::Build> {
        let first = heads.first;
        if first.urgency.is_emergency() {
            return Claim::Emergency(first);
        }
        match (self.policy.ageing, heads.oldest) {
            (Some(bound), Some((since, oldest))) if now.saturating_sub(since) >= bound => {
                Claim::Aged(since, oldest)
            }
            _ if self.policy.priority_and_age_alone => Claim::Ordinary(first.urgency, 0.0, first),
            _ => Claim::Ordinary(first.urgency, self.ledger.burden(specification, now), first),
        }
    }

    fn begin(&mut self, specification: I::Specification, build: I::Build, expected: Duration, began: Moment) {
        if self.policy.priority_and_age_alone {
            self.running.insert(build);
        } else {
            self.ledger.begin(specification, build, expected, began);
        }
    }

    fn is_running(&self, build: I::Build) -> bool {
        self.running.contains(&build) || self.ledger.is_running(build)
    }

    /// A placement is recorded: the build may wait again once it has ended.
    pub fn granted(&mut self, build: I::Build) {
        self.queue.decided(build);
    }

    /// A build runs already, since `began`, as an earlier start of the caller gave it out.
    pub fn resume(
        &mut self,
        specification: I::Specification,
        build: I::Build,
        expected: Duration,
        began: Moment,
    ) {
        self.queue.remove(build);
        self.tidy();
        self.begin(specification, build, expected, began);
    }

    /// A placement came to nothing: the build did not wait any more. Its slot is told anew by [`Self::set_seat`].
    pub fn lost(&mut self, build: I::Build) {
        self.queue.decided(build);
        self.running.remove(&build);
        self.ledger.forget(build);
    }

    /// The slot of a build is free again.
    pub fn ended(&mut self, build: I::Build, now: Moment) {
        self.running.remove(&build);
        self.ledger.end(build, now);
    }

    /// What specifications have used.
    pub fn ledger(&self) -> &Ledger<I::Specification, I::Build> {
        &self.ledger
    }

    /// What specifications have used, to be changed.
    pub fn ledger_mut(&mut self) -> &mut Ledger<I::Specification, I::Build> {
        &mut self.ledger
    }

    fn tidy(&mut self) {
        let queue = &self.queue;
        self.busy.retain(|lane| queue.len(*lane) > 0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hauberk_store::StoreDirectory;

    use super::*;
    use crate::Urgency;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    struct Test;

    impl Ids for Test {
        type Build = u32;
        type Lane = u8;
        type Specification = char;
        type Session = u8;
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lane(id: u8, specification: char, system: &str) -> Lane<Test> {
        Lane {
            id,
            specification,
            requirement: Requirement {
                store_directory: StoreDirectory::nix(),
                system: system.to_owned(),
                features: BTreeSet::new(),
            },
        }
    }

    fn build(build: u32, urgency: i16, path: u64, since: u64) -> Waiting<u32> {
        let urgency = if urgency < 0 { Urgency::EMERGENCY } else { Urgency::of_priority(urgency) };
        Waiting {
            build,
            urgency,
            path: PathStep::from(seconds(path)),
            expected: seconds(20),
            since: seconds(since),
        }
    }

    fn order(policy: Policy, systems: &[&str], slots: u64) -> Order<Test> {
        let mut order = Order::new(policy);
        let capabilities = Capabilities {
            store_directory: StoreDirectory::nix(),
            systems: systems.iter().map(|system| (*system).to_owned()).collect(),
            features: BTreeSet::new(),
            mandatory_features: BTreeSet::new(),
        };
        order.set_seat(1, &capabilities, slots, slots);
        order.set_lane(&lane(1, 'a', "x86_64-linux"));
        order.set_lane(&lane(2, 'a', "i686-linux"));
        order.set_lane(&lane(3, 'b', "x86_64-linux"));
        order.set_lane(&lane(4, 'b', "aarch64-linux"));
        order
    }

    fn drain(order: &mut Order<Test>, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| order.next(seconds(now)).map(|placement| placement.build)).collect()
    }

    #[test]
    fn urgency_then_path_then_age_across_lanes() {
        let mut order = order(Policy::default(), &["x86_64-linux", "i686-linux"], 9);
        for (lane, waiting) in [
            (1, build(10, 99, 0, 0)),
            (1, build(11, 50, 0, 0)),
            (1, build(12, 50, 900, 0)),
            (2, build(9, 50, 0, 0)),
            (2, build(8, 0, 0, 0)),
            (2, build(7, -1, 0, 0)),
            (1, build(6, -1, 4, 0)),
        ] {
            assert!(order.add(lane, waiting));
        }
        assert!(!order.add(9, build(1, 0, 0, 0)));
        assert_eq!(order.len(1), 4);
        assert_eq!(drain(&mut order, 0), [6, 7, 8, 12, 9, 11, 10]);
        assert!(order.is_empty());
    }

    #[test]
    fn what_no_free_slot_can_build_holds_nothing_up() {
        let mut order = order(Policy::default(), &["x86_64-linux"], 1);
        order.add(4, build(1, 0, 0, 0));
        order.add(1, build(2, 99, 0, 0));
        order.add(1, build(3, 99, 0, 0));
        assert_eq!(drain(&mut order, 0), [2]);
        assert_eq!(order.len(1), 1);
        assert_eq!(order.len(4), 1);
    }

    #[test]
    fn a_build_on_its_way_is_not_given_out_again_until_that_is_decided() {
        let mut order = order(Policy::default(), &["x86_64-linux"], 9);
        order.add(1, build(1, 5, 0, 0));
        assert_eq!(drain(&mut order, 0), [1]);
        assert!(!order.add(1, build(1, 5, 0, 0)));
        order.lost(1);
        assert!(order.add(1, build(1, 5, 0, 0)));
        // A changed urgency moves it.
        order.add(1, build(2, 4, 0, 0));
        order.add(1, build(1, 3, 0, 0));
        assert_eq!(order.len(1), 2);
        assert_eq!(drain(&mut order, 0), [1, 2]);
    }

    #[test]
    fn nothing_is_overtaken_by_what_came_later_than_the_bound() {
        let policy = Policy { ageing: Some(seconds(100)), ..Policy::default() };
        let mut order = order(policy, &["x86_64-linux"], 1);
        order.add(1, build(1, 99, 0, 10));
        order.add(1, build(2, 98, 0, 5));
        let mut given = Vec::new();
        for (now, next) in (10..).zip(3..200) {
            order.add(1, build(next, 0, 0, now));
            given.extend(drain(&mut order, now));
            order.set_seat(1, &order_capabilities(), 1, 1);
        }
        // One at a second, and the two old ones as soon as they are a hundred seconds old, the older first.
        assert_eq!(given.iter().position(|build| *build == 2), Some(95));
        assert_eq!(given.iter().position(|build| *build == 1), Some(100));
        order.add(1, build(1000, -1, 0, 300));
        assert_eq!(drain(&mut order, 10_000), [1000]);
    }

    fn order_capabilities() -> Capabilities {
        Capabilities {
            store_directory: StoreDirectory::nix(),
            systems: BTreeSet::from(["x86_64-linux".to_owned()]),
            features: BTreeSet::new(),
            mandatory_features: BTreeSet::new(),
        }
    }

    #[test]
    fn a_shared_build_is_paid_by_whose_turn_it_was() {
        let mut order = order(Policy::default(), &["x86_64-linux"], 2);
        order.add(1, build(1, 50, 0, 0));
        order.add(1, build(2, 50, 0, 0));
        order.ledger_mut().add_used('a', 10_000.0, seconds(0));
        order.add(3, build(2, 50, 0, 0));
        let placement = order.next(seconds(0)).unwrap();
        assert_eq!((placement.build, placement.lane), (2, 3));
        order.granted(2);
        assert_eq!(order.len(1), 1);
        assert_eq!(order.len(3), 0);
        order.ended(2, seconds(40));
        assert!(order.ledger().used_by('b', seconds(40)) >= 40.0);
    }

    #[test]
    fn what_was_used_before_counts_whenever_it_is_told_and_whoever_is_there_already() {
        // Four slots for two specifications of 100 shares: an hour's credit is 72 s a share.
        for (used, lead) in [(6000.0, 60.0), (1e6, 72.0)] {
            for told_first in [true, false] {
                let mut order = order(Policy::default(), &["x86_64-linux"], 0);
                if told_first {
                    order.remember([('a', used)].into_iter(), 4, seconds(0));
                }
                order.add(1, build(1, 50, 0, 0));
                order.add(3, build(2, 50, 0, 0));
                assert_eq!(order.next(seconds(0)), None);
                if !told_first {
                    order.remember([('a', used)].into_iter(), 4, seconds(0));
                }
                // The first of the workers is there.
                order.set_seat(0, &order_capabilities(), 1, 1);
                assert_eq!(order.next(seconds(0)).unwrap().build, 2, "who has used less");
                order.lost(2);
                let behind = order.ledger().burden('a', seconds(0)) - order.ledger().burden('b', seconds(0));
                assert!((behind - lead).abs() < 0.01, "{used} {told_first}: {behind}");
            }
        }
    }

    #[test]
    fn priority_and_age_alone_know_no_paths_and_no_shares() {
        let policy = Policy { priority_and_age_alone: true, ..Policy::default() };
        let mut order = order(policy, &["x86_64-linux"], 9);
        order.ledger_mut().add_used('a', 10_000.0, seconds(0));
        for (lane, waiting) in [
            (3, build(4, 50, 900, 0)),
            (1, build(3, 50, 0, 0)),
            (1, build(5, 50, 950, 0)),
            (3, build(9, 20, 0, 0)),
        ] {
            assert!(order.add(lane, waiting));
        }
        assert_eq!(drain(&mut order, 0), [9, 3, 4, 5]);
        order.granted(3);
        assert!(!order.add(1, build(3, 50, 0, 0)));
        order.ended(3, seconds(5));
        assert!(order.add(1, build(3, 50, 0, 0)));
    }

    #[test]
    fn slots_are_shared_as_the_shares_say_whatever_the_builds_take() {
        let mut order = order(Policy::default(), &["x86_64-linux"], 8);
        order.ledger_mut().set_shares('a', 100);
        order.ledger_mut().set_shares('b', 300);
        for number in 0..8000 {
            let lane = if number % 2 == 0 { 1 } else { 3 };
            order.add(lane, build(number, 50, 0, 0));
        }
        // Builds of `a` take ten times as long as those of `b`, and nobody expected it.
        let mut running: Vec<(u64, u32)> = Vec::new();
        let mut used = [0_u64; 2];
        for now in 0..2000 {
            running.retain(|(end, build)| {
                let over = *end <= now;
                if over {
                    order.ended(*build, seconds(now));
                }
                !over
            });
            order.set_seat(1, &order_capabilities(), 8 - running.len() as u64, 8);
            while let Some(placement) = order.next(seconds(now)) {
                order.granted(placement.build);
                let takes = if placement.lane == 1 { 50 } else { 5 };
                running.push((now + takes, placement.build));
                used[usize::from(placement.lane == 3)] += takes;
            }
        }
        let share = used[0] as f64 / (used[0] + used[1]) as f64;
        assert!((share - 0.25).abs() < 0.0125, "{share}");
    }
}
