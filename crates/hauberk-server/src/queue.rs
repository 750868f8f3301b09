//! The window: the most urgent ready builds of every lane, in memory.
//!
//! PostgreSQL is the truth; a build that is here and no longer ready there costs a claim that is not granted. A lane holds at most
//! as many builds as a refill brings, and what becomes ready in the meantime.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use hauberk_database::dispatch::{Lane, ReadyBuild};
use hauberk_database::{BuildId, LaneId};

/// The order within a lane and between lanes: urgency, then the longest path behind it, then age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    priority: i16,
    remaining_path: Reverse<i64>,
    id: BuildId,
}

impl Rank {
    /// The build.
    pub(crate) fn build(self) -> BuildId {
        self.id
    }

    fn of(build: &ReadyBuild) -> Self {
        Self { priority: build.priority, remaining_path: Reverse(build.remaining_path), id: build.id }
    }
}

#[derive(Debug)]
struct Waiting {
    lane: Lane,
    builds: BTreeSet<Rank>,
    /// The last refill brought as many as it may: there is more in the database.
    more: bool,
}

/// The ready builds that the dispatcher knows of.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    lanes: HashMap<LaneId, Waiting>,
    /// Claimed, and not yet known to be granted or lost: a refill may still show them as ready.
    claimed: HashSet<BuildId>,
}

impl Queue {
    /// Takes what a refill of `per_lane` builds for each lane brought. Builds that are known already stay.
    pub(crate) fn refill(&mut self, rows: Vec<(Lane, ReadyBuild)>, per_lane: usize) {
        for waiting in self.lanes.values_mut() {
            waiting.more = false;
        }
        let mut counts: HashMap<LaneId, usize> = HashMap::new();
        for (lane, build) in rows {
            *counts.entry(lane.id).or_default() += 1;
            let waiting = self.lanes.entry(lane.id).or_insert_with(|| Waiting {
                lane,
                builds: BTreeSet::new(),
                more: false,
            });
            if !self.claimed.contains(&build.id) {
                waiting.builds.insert(Rank::of(&build));
            }
        }
        for (lane, count) in counts {
            if let Some(waiting) = self.lanes.get_mut(&lane) {
                waiting.more = count >= per_lane;
            }
        }
    }

    /// Adds a build that has just become ready. False when its lane is not known: a refill is needed.
    pub(crate) fn add(&mut self, build: &ReadyBuild) -> bool {
        let Some(waiting) = self.lanes.get_mut(&build.lane) else { return false };
        if !self.claimed.contains(&build.id) {
            waiting.builds.insert(Rank::of(build));
        }
        true
    }

    /// The lanes that have something to do, each with the rank of its first build.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (&Lane, Rank)> {
        self.lanes.values().filter_map(|waiting| waiting.builds.first().map(|first| (&waiting.lane, *first)))
    }

    /// Takes the first build of a lane, to be claimed.
    pub(crate) fn take_first(&mut self, lane: LaneId) -> Option<BuildId> {
        let rank = self.lanes.get_mut(&lane)?.builds.pop_first()?;
        self.claimed.insert(rank.id);
        Some(rank.id)
    }

    /// The claim of a build is decided, one way or the other.
    pub(crate) fn decided(&mut self, build: BuildId) {
        self.claimed.remove(&build);
    }

    /// Tells whether a lane has run down to fewer than `low` builds while the database has more.
    pub(crate) fn wants_refill(&self, low: usize) -> bool {
        self.lanes.values().any(|waiting| waiting.more && waiting.builds.len() < low)
    }
}

#[cfg(test)]
mod tests {
    use hauberk_database::SpecificationId;
    use hauberk_store::StoreDirectory;

    use super::*;

    fn lane(id: i32) -> Lane {
        Lane {
            id: LaneId::new(id),
            specification: SpecificationId::new(1),
            store_directory: StoreDirectory::nix(),
            system: "x86_64-linux".to_owned(),
            features: BTreeSet::new(),
        }
    }

    fn build(lane: i32, id: i64, priority: i16, remaining_path: i64) -> ReadyBuild {
        ReadyBuild { id: BuildId::new(id), lane: LaneId::new(lane), priority, remaining_path }
    }

    fn len(queue: &Queue) -> usize {
        queue.lanes.values().map(|waiting| waiting.builds.len()).sum()
    }

    fn drain(queue: &mut Queue) -> Vec<i64> {
        std::iter::from_fn(|| {
            let (lane, _) =
                queue.heads().min_by_key(|(_, rank)| *rank).map(|(lane, rank)| (lane.id, rank))?;
            queue.take_first(lane).map(BuildId::get)
        })
        .collect()
    }

    #[test]
    fn urgency_then_path_then_age_across_lanes() {
        let mut queue = Queue::default();
        let rows = vec![
            (lane(1), build(1, 10, 99, 0)),
            (lane(1), build(1, 11, 50, 0)),
            (lane(1), build(1, 12, 50, 900)),
            (lane(2), build(2, 9, 50, 0)),
            (lane(2), build(2, 8, 0, 0)),
        ];
        queue.refill(rows, 100);
        assert_eq!(len(&queue), 5);
        assert_eq!(drain(&mut queue), [8, 12, 9, 11, 10]);
    }

    #[test]
    fn a_refill_does_not_bring_back_what_is_being_claimed() {
        let mut queue = Queue::default();
        queue.refill(vec![(lane(1), build(1, 1, 0, 0))], 1);
        assert!(queue.wants_refill(2));
        assert_eq!(queue.take_first(LaneId::new(1)), Some(BuildId::new(1)));
        queue.refill(vec![(lane(1), build(1, 1, 0, 0))], 1);
        assert_eq!(len(&queue), 0);
        queue.decided(BuildId::new(1));
        assert!(queue.add(&build(1, 1, 0, 0)));
        assert_eq!(len(&queue), 1);
        queue.refill(Vec::new(), 1);
        assert!(!queue.wants_refill(2));
        assert!(!queue.add(&build(7, 2, 0, 0)));
    }
}
