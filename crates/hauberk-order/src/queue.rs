//! What waits, by lane.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::{Ids, Moment, PathStep, Urgency};

/// A build that waits for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting<B> {
    /// The build.
    pub build: B,
    /// How urgent it is.
    pub urgency: Urgency,
    /// How long the longest chain of builds takes that begins with it.
    pub path: PathStep,
    /// How long it should take itself.
    pub expected: Duration,
    /// When it became ready.
    pub since: Moment,
}

/// The order within a lane: urgency, then the longest path, then the order of recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank<B> {
    pub(crate) urgency: Urgency,
    pub(crate) path: Reverse<PathStep>,
    pub(crate) build: B,
}

impl<B: Copy> Rank<B> {
    fn of(waiting: &Waiting<B>) -> Self {
        Self { urgency: waiting.urgency, path: Reverse(waiting.path), build: waiting.build }
    }
}

/// The builds of one lane, by rank and, where that matters, by age.
#[derive(Debug)]
struct InLane<B> {
    by_rank: BTreeSet<Rank<B>>,
    by_age: BTreeSet<(Moment, B)>,
}

impl<B> Default for InLane<B> {
    fn default() -> Self {
        Self { by_rank: BTreeSet::new(), by_age: BTreeSet::new() }
    }
}

/// Where a build waits: one lane mostly, several when specifications share it.
#[derive(Debug)]
struct Entry<I: Ids> {
    waiting: Waiting<I::Build>,
    first_lane: I::Lane,
    other_lanes: Vec<I::Lane>,
}

impl<I: Ids> Entry<I> {
    fn lanes(&self) -> impl Iterator<Item = I::Lane> {
        std::iter::once(self.first_lane).chain(self.other_lanes.iter().copied())
    }
}

/// The first builds of a lane: by age and by rank.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads<B> {
    /// None where age does not matter.
    pub(crate) oldest: Option<(Moment, B)>,
    pub(crate) first: Rank<B>,
}

/// What waits, by lane, and what is on its way from here to a worker.
#[derive(Debug)]
pub(crate) struct Queue<I: Ids> {
    lanes: HashMap<I::Lane, InLane<I::Build>>,
    entries: HashMap<I::Build, Entry<I>>,
    /// Taken, and not yet known to be granted or lost: the database may still show them as ready.
    taken: HashSet<I::Build>,
    /// Whether age matters.
    ages: bool,
}

impl<I: Ids> Queue<I> {
    /// Makes an empty one; `ages` tells whether age matters.
    pub(crate) fn new(ages: bool) -> Self {
        Self { lanes: HashMap::new(), entries: HashMap::new(), taken: HashSet::new(), ages }
    }

    /// What is known of a build that waits.
    pub(crate) fn get(&self, build: I::Build) -> Option<&Waiting<I::Build>> {
        self.entries.get(&build).map(|entry| &entry.waiting)
    }

    /// The builds that wait, in no order.
    pub(crate) fn builds(&self) -> impl Iterator<Item = I::Build> {
        self.entries.keys().copied()
    }

    /// Adds a build to a lane, or takes what is newer about it. False when it has just been taken.
    pub(crate) fn add(&mut self, lane: I::Lane, waiting: Waiting<I::Build>) -> bool {
        if self.taken.contains(&waiting.build) {
            return false;
        }
        match self.entries.get_mut(&waiting.build) {
            None => {
                let entry = Entry { waiting, first_lane: lane, other_lanes: Vec::new() };
                self.entries.insert(waiting.build, entry);
                self.insert_into(lane, &waiting);
            }
            Some(entry) => {
                let before = entry.waiting;
                entry.waiting = waiting;
                let known = entry.lanes().any(|other| other == lane);
                if !known {
                    entry.other_lanes.push(lane);
                }
                if before == waiting {
                    if !known {
                        self.insert_into(lane, &waiting);
                    }
                } else {
                    let lanes: Vec<_> = entry.lanes().collect();
                    for lane in lanes {
                        self.remove_from(lane, &before);
                        self.insert_into(lane, &waiting);
                    }
                }
            }
        }
        true
    }

    /// Takes a build out of every lane it waits in, to be given to a worker.
    pub(crate) fn take(&mut self, build: I::Build) -> Option<Waiting<I::Build>> {
        let waiting = self.remove(build)?;
        self.taken.insert(build);
        Some(waiting)
    }

    /// Forgets a build that does not wait any more.
    pub(crate) fn remove(&mut self, build: I::Build) -> Option<Waiting<I::Build>> {
        let entry = self.entries.remove(&build)?;
        let lanes: Vec<_> = entry.lanes().collect();
        for lane in lanes {
            self.remove_from(lane, &entry.waiting);
        }
        Some(entry.waiting)
    }

    /// What was taken has been granted or lost: from now on it may wait again.
    pub(crate) fn decided(&mut self, build: I::Build) {
        self.taken.remove(&build);
    }

    /// The first builds of a lane.
    pub(crate) fn heads(&self, lane: I::Lane) -> Option<Heads<I::Build>> {
        let waiting = self.lanes.get(&lane)?;
        Some(Heads { oldest: waiting.by_age.first().copied(), first: *waiting.by_rank.first()? })
    }

    /// Builds that wait in a lane.
    pub(crate) fn len(&self, lane: I::Lane) -> usize {
        self.lanes.get(&lane).map_or(0, |waiting| waiting.by_rank.len())
    }

    fn insert_into(&mut self, lane: I::Lane, waiting: &Waiting<I::Build>) {
        let place = self.lanes.entry(lane).or_default();
        place.by_rank.insert(Rank::of(waiting));
        if self.ages {
            place.by_age.insert((waiting.since, waiting.build));
        }
    }

    fn remove_from(&mut self, lane: I::Lane, waiting: &Waiting<I::Build>) {
        if let Some(place) = self.lanes.get_mut(&lane) {
            place.by_rank.remove(&Rank::of(waiting));
            place.by_age.remove(&(waiting.since, waiting.build));
        }
    }
}
