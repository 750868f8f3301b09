//! The window: the most urgent ready builds of every lane, in memory, in the order in which they are given out.
//!
//! PostgreSQL is the truth; a build that is here and no longer ready there costs a claim that is not granted. A lane holds at most
//! as many builds as a refill brings, and what becomes ready in the meantime. What goes first, and where, is `hauberk-order`'s
//! decision; here its clock is kept, and what a refill says is compared with what became known while it was under way.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use hauberk_database::attempts::OpenAttempt;
use hauberk_database::dispatch::{Reached, ReadyBuild, Window as Refill};
use hauberk_database::{BuildId, LaneId, SpecificationId};
use hauberk_order::{
    Capabilities, Ids, Lane, Moment, Order, PathStep, Placement, Policy, Requirement, Urgency, Waiting,
};

use crate::session::SessionId;

/// The identifiers of a farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Farm {}

impl Ids for Farm {
    type Build = BuildId;
    type Lane = LaneId;
    type Specification = SpecificationId;
    type Session = SessionId;
}

/// The order's clock begins so long before the server, so that what is older has a place in it. What is older still counts as so old.
const PAST: Duration = Duration::from_secs(366 * 24 * 3600);

/// What the window lacks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// What follows in these lanes.
    More(Vec<Reached>),
    /// All anew.
    Anew,
}

/// The ready builds that the dispatcher knows of, and the slots that are free.
#[derive(Debug)]
pub(crate) struct Window {
    order: Order<Farm>,
    /// The server's start, and the latest moment that was told.
    started: Instant,
    now: Moment,
    /// Lanes of which the database has more than the last refill brought, and the last build of each that one did.
    more: HashMap<LaneId, Reached>,
    /// Builds in several lanes, and whether the database has more of them.
    shared: HashSet<BuildId>,
    more_shared: bool,
    /// Became ready while a refill is under way, which may not show them.
    fresh: HashSet<BuildId>,
}

impl Window {
    /// Makes an empty one.
    pub(crate) fn new(policy: Policy, now: Instant) -> Self {
        Self {
            order: Order::new(policy),
            started: now,
            now: PAST,
            more: HashMap::new(),
            shared: HashSet::new(),
            more_shared: false,
            fresh: HashSet::new(),
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, now: Instant) {
        self.now = self.now.max(PAST + now.saturating_duration_since(self.started));
    }

    /// A refill is asked for.
    pub(crate) fn refilling(&mut self) {
        self.fresh.clear();
    }

    /// Takes what a refill of `per_lane` builds for each lane brought. What it does not show waits no longer, or is far from its turn.
    pub(crate) fn refill(&mut self, refill: Refill, per_lane: usize) {
        for lane in refill.lanes {
            self.order.ledger_mut().set_shares(lane.specification, lane.shares);
            if !self.order.has_lane(lane.id) {
                let requirement = Requirement {
                    store_directory: lane.store_directory,
                    system: lane.system,
                    features: lane.features,
                };
                self.order.set_lane(&Lane { id: lane.id, specification: lane.specification, requirement });
            }
        }
        let mut shown: HashSet<BuildId> = HashSet::with_capacity(refill.builds.len());
        let mut shared = 0;
        for build in &refill.builds {
            shared += usize::from(!build.other_lanes.is_empty());
            shown.insert(build.id);
        }
        let fresh = std::mem::take(&mut self.fresh);
        self.order.retain(|build| shown.contains(&build) || fresh.contains(&build));
        self.shared.retain(|build| shown.contains(build) || fresh.contains(build));
        for build in &refill.builds {
            self.insert(build);
        }
        self.more = reached(&refill.builds, |_| true, per_lane);
        self.more_shared = shared >= per_lane;
    }

    /// Takes what was asked for as [`Want::More`], of `after` these and up to `per_lane` builds of each lane.
    pub(crate) fn extend(&mut self, after: &[Reached], refill: &Refill, per_lane: usize) {
        for build in &refill.builds {
            self.insert(build);
        }
        let after: HashMap<LaneId, Reached> = after.iter().map(|last| (last.lane, *last)).collect();
        let follows =
            |build: &ReadyBuild| after.get(&build.lane).is_some_and(|last| rank_of(build) > rank(last));
        let mut now = reached(&refill.builds, follows, per_lane);
        for (lane, last) in after {
            // A refill of everything may have begun anew meanwhile.
            if self.more.get(&lane) == Some(&last) {
                match now.remove(&lane) {
                    Some(next) => self.more.insert(lane, next),
                    None => self.more.remove(&lane),
                };
            }
        }
    }

    /// Adds a build that has just become ready. False when one of its lanes is not known: a refill is needed.
    pub(crate) fn add(&mut self, build: &ReadyBuild) -> bool {
        self.fresh.insert(build.id);
        self.insert(build)
    }

    fn insert(&mut self, build: &ReadyBuild) -> bool {
        let age = millis(build.age_ms);
        let mut waiting = Waiting {
            build: build.id,
            urgency: urgency(build.urgency),
            path: PathStep::new(build.path_step),
            expected: millis(build.expected_ms),
            since: self.now.saturating_sub(age),
        };
        if let Some(known) = self.order.waiting(build.id) {
            // The same moment, by another clock.
            waiting.since = known.since;
        }
        if !build.other_lanes.is_empty() {
            self.shared.insert(build.id);
        }
        let mut known = true;
        for lane in std::iter::once(build.lane).chain(build.other_lanes.iter().copied()) {
            if self.order.has_lane(lane) {
                self.order.add(lane, waiting);
            } else {
                known = false;
            }
        }
        known
    }

    /// Notes how many of a session's slots are free.
    pub(crate) fn set_seat(
        &mut self,
        session: SessionId,
        capabilities: &Capabilities,
        free: u64,
        slots: u64,
    ) {
        self.order.set_seat(session, capabilities, free, slots);
    }

    /// Forgets a session.
    pub(crate) fn remove_seat(&mut self, session: SessionId) {
        self.order.remove_seat(session);
    }

    /// Decides what goes where next; `avoided` gives the sessions that a build goes to only if no other has room. The slot counts as
    /// taken, and the build is on its way until [`Self::granted`] or [`Self::lost`].
    pub(crate) fn next(
        &mut self,
        avoided: impl FnOnce(BuildId) -> Vec<SessionId>,
    ) -> Option<Placement<Farm>> {
        let placement = self.order.next_avoiding(self.now, avoided)?;
        self.shared.remove(&placement.build);
        Some(placement)
    }

    /// What the builds of a lane require.
    pub(crate) fn requirement(&self, lane: LaneId) -> Option<&Requirement> {
        self.order.requirement(lane)
    }

    /// The claim of a build was granted.
    pub(crate) fn granted(&mut self, build: BuildId) {
        self.order.granted(build);
    }

    /// The claim of a build was not granted.
    pub(crate) fn lost(&mut self, build: BuildId) {
        self.order.lost(build);
    }

    /// A build has left its slot.
    pub(crate) fn ended(&mut self, build: BuildId) {
        self.order.ended(build, self.now);
    }

    /// Takes over an attempt that an earlier start of the server gave out.
    pub(crate) fn resume(&mut self, open: &OpenAttempt) {
        let began = self.now.saturating_sub(millis(open.age_ms));
        self.order.resume(open.specification, open.build, millis(open.expected_ms), began);
    }

    /// Takes what specifications used before, in slot-seconds decayed to now, and how many slots there were then.
    pub(crate) fn remember(&mut self, used: &[(SpecificationId, f64)], slots: u64) {
        self.order.remember(used.iter().copied(), slots, self.now);
    }

    /// Takes what specifications have used at other servers, in slot-seconds decayed to now.
    pub(crate) fn set_elsewhere(&mut self, used: &[(SpecificationId, f64)]) {
        self.order.set_elsewhere(used.iter().copied(), self.now);
    }

    /// What specifications have used, in slot-seconds decayed to now.
    pub(crate) fn used(&mut self) -> Vec<(SpecificationId, f64)> {
        let now = self.now;
        self.order.ledger_mut().advance(now);
        let ledger = self.order.ledger();
        ledger.specifications().map(|id| (id, ledger.used_by(id, now))).collect()
    }

    /// Tells what is lacking: when lanes have run down to fewer than `low` builds while the database has more.
    pub(crate) fn wants(&self, low: usize) -> Option<Want> {
        if self.more_shared && self.shared.len() < low {
            return Some(Want::Anew);
        }
        let more = self.more.iter().filter(|(lane, _)| self.order.len(**lane) < low);
        let more: Vec<_> = more.map(|(_, last)| *last).collect();
        (!more.is_empty()).then_some(Want::More(more))
    }
}

/// The order within a lane, as `hauberk-order` and the database have it.
type Rank = (i16, Reverse<i16>, BuildId);

fn rank(last: &Reached) -> Rank {
    (last.urgency, Reverse(last.path_step), last.build)
}

fn rank_of(build: &ReadyBuild) -> Rank {
    (build.urgency, Reverse(build.path_step), build.id)
}

/// How far a refill reached in the lanes of which it brought all it may. It may also have brought builds from farther behind, which
/// have waited for long or are wanted by several specifications: they do not count.
fn reached(
    builds: &[ReadyBuild],
    counts: impl Fn(&ReadyBuild) -> bool,
    per_lane: usize,
) -> HashMap<LaneId, Reached> {
    let mut ranks: HashMap<LaneId, Vec<Rank>> = HashMap::new();
    for build in builds.iter().filter(|build| counts(build)) {
        ranks.entry(build.lane).or_default().push(rank_of(build));
    }
    let mut reached = HashMap::new();
    for (lane, mut ranks) in ranks {
        ranks.sort_unstable();
        ranks.dedup();
        if let Some((urgency, Reverse(path_step), build)) =
            per_lane.checked_sub(1).and_then(|last| ranks.get(last))
        {
            let (urgency, path_step, build) = (*urgency, *path_step, *build);
            reached.insert(lane, Reached { lane, urgency, path_step, build });
        }
    }
    reached
}

fn millis(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn urgency(number: i16) -> Urgency {
    if number < 0 { Urgency::EMERGENCY } else { Urgency::of_priority(number) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hauberk_database::dispatch;
    use hauberk_store::StoreDirectory;

    use super::*;

    fn session() -> SessionId {
        SessionId::from_random(2)
    }

    fn capabilities() -> Capabilities {
        Capabilities {
            store_directory: StoreDirectory::nix(),
            systems: BTreeSet::from(["x86_64-linux".to_owned()]),
            features: BTreeSet::new(),
            mandatory_features: BTreeSet::new(),
        }
    }

    fn lane(id: i32) -> dispatch::Lane {
        dispatch::Lane {
            id: LaneId::new(id),
            specification: SpecificationId::new(id),
            store_directory: StoreDirectory::nix(),
            system: "x86_64-linux".to_owned(),
            features: BTreeSet::new(),
            shares: 100,
        }
    }

    fn build(lane: i32, id: i64, urgency: i16) -> ReadyBuild {
        ReadyBuild {
            id: BuildId::new(id),
            lane: LaneId::new(lane),
            other_lanes: Vec::new(),
            urgency,
            path_step: 0,
            expected_ms: 1000,
            age_ms: 0,
            failed_on: Vec::new(),
        }
    }

    fn window(builds: Vec<ReadyBuild>, per_lane: usize) -> Window {
        let mut window = Window::new(Policy::default(), Instant::now());
        window.set_seat(session(), &capabilities(), 100, 100);
        window.refill(Refill { lanes: vec![lane(1), lane(2)], builds }, per_lane);
        window
    }

    fn at(lane: i32, build: i64, urgency: i16) -> Reached {
        Reached { lane: LaneId::new(lane), urgency, path_step: 0, build: BuildId::new(build) }
    }

    #[test]
    fn what_follows_is_asked_for_from_where_the_last_refill_ended() {
        // The last one of lane 1 was shown for its age only.
        let mut window = window(vec![build(1, 1, 50), build(1, 2, 60), build(2, 3, 40), build(1, 9, 90)], 2);
        assert_eq!(window.wants(5), Some(Want::More(vec![at(1, 2, 60)])));
        assert_eq!(window.wants(3), None);
        let after = [at(1, 2, 60)];
        let more = |ids: &[i64]| Refill {
            lanes: Vec::new(),
            builds: ids.iter().map(|id| build(1, *id, 70)).collect(),
        };
        window.extend(&after, &more(&[4, 5]), 2);
        assert_eq!(window.wants(9), Some(Want::More(vec![at(1, 5, 70)])));
        // An answer to a question that was asked before counts no more.
        window.extend(&after, &more(&[4]), 2);
        assert_eq!(window.wants(9), Some(Want::More(vec![at(1, 5, 70)])));
        window.extend(&[at(1, 5, 70)], &more(&[6]), 2);
        assert_eq!(window.wants(9), None);
        assert_eq!(drain(&mut window), [3, 1, 2, 4, 5, 6, 9]);
    }

    fn next(window: &mut Window) -> Option<i64> {
        window.next(|_| Vec::new()).map(|placement| placement.build.get())
    }

    fn drain(window: &mut Window) -> Vec<i64> {
        std::iter::from_fn(|| next(window)).collect()
    }

    #[test]
    fn a_refill_says_what_waits_and_how_urgent_it_is_now() {
        let mut window = window(vec![build(1, 1, 50), build(1, 2, 50), build(2, 3, 40)], 9);
        window.refilling();
        assert!(window.add(&build(1, 4, 60)));
        let builds = vec![build(1, 2, -1), build(2, 3, 99)];
        window.refill(Refill { lanes: vec![lane(1), lane(2)], builds }, 9);
        // The first waits no longer, the second was put before everything, and the last came too late to be shown.
        assert_eq!(drain(&mut window), [2, 4, 3]);
    }

    #[test]
    fn a_refill_does_not_bring_back_what_is_being_claimed_or_runs() {
        let mut window = window(vec![build(1, 1, 0)], 1);
        assert_eq!(window.wants(2), Some(Want::More(vec![at(1, 1, 0)])));
        assert_eq!(next(&mut window), Some(1));
        let again = || Refill { lanes: vec![lane(1)], builds: vec![build(1, 1, 0)] };
        window.refill(again(), 1);
        assert_eq!(next(&mut window), None);
        window.granted(BuildId::new(1));
        window.refill(again(), 1);
        assert_eq!(next(&mut window), None);
        window.ended(BuildId::new(1));
        assert!(window.add(&build(1, 1, 0)));
        assert_eq!(next(&mut window), Some(1));
        window.lost(BuildId::new(1));
        window.refill(again(), 1);
        assert_eq!(next(&mut window), Some(1));
        window.refill(Refill::default(), 1);
        assert_eq!(window.wants(2), None);
        assert!(!window.add(&build(7, 2, 0)));
    }

    #[test]
    fn what_two_specifications_want_waits_in_both_lanes() {
        let mut shared = build(1, 9, 50);
        shared.other_lanes = vec![LaneId::new(2)];
        let builds = vec![build(1, 1, 50), build(1, 2, 50), build(2, 3, 50), shared];
        let mut window = window(builds, 1);
        window.remember(&[(SpecificationId::new(1), 1e6)], 1);
        assert!(window.more_shared && window.shared.len() == 1);
        // The second has used nothing: its turns come first, and the build of both is paid by it.
        assert_eq!(next(&mut window), Some(3));
        let placement = window.next(|_| Vec::new()).unwrap();
        assert_eq!((placement.build.get(), placement.lane.get()), (9, 2));
        assert!(window.shared.is_empty());
        assert_eq!(drain(&mut window), [1, 2]);
        let used = window.used();
        assert_eq!(used.len(), 2);
        assert!(used.iter().any(|(id, used)| id.get() == 2 && (used - 2.0).abs() < 0.1), "{used:?}");
    }
}
