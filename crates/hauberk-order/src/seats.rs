//! Free slots, by what their workers can build.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use crate::{Capabilities, Id, Requirement};

/// How full a worker would be: the part of its slots that is free, the largest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Room(Reverse<u64>);

impl Room {
    /// Slots are far fewer than what this leaves.
    const WHOLE: u64 = 1 << 20;

    fn of(free: u64, slots: u64) -> Self {
        Self(Reverse(free.saturating_mul(Self::WHOLE) / slots.max(1)))
    }
}

#[derive(Debug)]
struct Seat {
    group: usize,
    free: u64,
    slots: u64,
}

#[derive(Debug)]
struct Group<S> {
    capabilities: Capabilities,
    /// Sessions with room, the emptiest first.
    sessions: BTreeSet<(Room, S)>,
}

/// Which sessions have room, grouped by what they can build, so that a choice costs a look at each group and not at each worker.
#[derive(Debug)]
pub(crate) struct Seats<S: Id> {
    groups: Vec<Group<S>>,
    requirements: Vec<Requirement>,
    /// For each requirement and group: whether the one is met by the other.
    meets: Vec<Vec<bool>>,
    seats: HashMap<S, Seat>,
    with_room: usize,
    slots: u64,
}

impl<S: Id> Default for Seats<S> {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            requirements: Vec::new(),
            meets: Vec::new(),
            seats: HashMap::new(),
            with_room: 0,
            slots: 0,
        }
    }
}

impl<S: Id> Seats<S> {
    /// Gives the number of a requirement, for [`Self::choose`].
    pub(crate) fn requirement(&mut self, requirement: &Requirement) -> usize {
        if let Some(known) = self.requirements.iter().position(|other| other == requirement) {
            return known;
        }
        self.meets.push(self.groups.iter().map(|group| group.capabilities.meet(requirement)).collect());
        self.requirements.push(requirement.clone());
        self.requirements.len() - 1
    }

    /// The requirement of a number.
    pub(crate) fn required(&self, number: usize) -> Option<&Requirement> {
        self.requirements.get(number)
    }

    /// Requirements that are known, which are numbered from 0.
    pub(crate) fn requirements(&self) -> usize {
        self.requirements.len()
    }

    /// Notes how many of a session's slots are free.
    pub(crate) fn set(&mut self, session: S, capabilities: &Capabilities, free: u64, slots: u64) {
        if let Some(seat) = self.seats.get(&session)
            && seat.free == free
            && seat.slots == slots
            && self.groups[seat.group].capabilities == *capabilities
        {
            return;
        }
        self.remove(session);
        let group = self.group(capabilities);
        if free > 0 {
            self.groups[group].sessions.insert((Room::of(free, slots), session));
            self.with_room += 1;
        }
        self.slots += slots;
        self.seats.insert(session, Seat { group, free, slots });
    }

    /// Takes one free slot of a session.
    pub(crate) fn occupy(&mut self, session: S) {
        let Some(seat) = self.seats.get_mut(&session).filter(|seat| seat.free > 0) else { return };
        let sessions = &mut self.groups[seat.group].sessions;
        sessions.remove(&(Room::of(seat.free, seat.slots), session));
        seat.free -= 1;
        if seat.free > 0 {
            sessions.insert((Room::of(seat.free, seat.slots), session));
        } else {
            self.with_room -= 1;
        }
    }

    /// Forgets a session.
    pub(crate) fn remove(&mut self, session: S) {
        let Some(seat) = self.seats.remove(&session) else { return };
        self.slots -= seat.slots;
        if seat.free > 0 {
            self.groups[seat.group].sessions.remove(&(Room::of(seat.free, seat.slots), session));
            self.with_room -= 1;
        }
    }

    /// Chooses a session that meets a requirement: the one with the largest part of its slots free, so that a burst spreads over
    /// the machines.
    pub(crate) fn choose(&self, requirement: usize) -> Option<S> {
        let meets = self.meets.get(requirement)?;
        self.groups
            .iter()
            .zip(meets)
            .filter(|(_, meets)| **meets)
            .filter_map(|(group, _)| group.sessions.first())
            .min()
            .map(|(_, session)| *session)
    }

    /// Chooses as [`Self::choose`] does, one of `avoided` only if no other has room.
    pub(crate) fn choose_avoiding(&self, requirement: usize, avoided: &[S]) -> Option<S> {
        let meets = self.meets.get(requirement)?;
        let others = self
            .groups
            .iter()
            .zip(meets)
            .filter(|(_, meets)| **meets)
            .filter_map(|(group, _)| group.sessions.iter().find(|(_, session)| !avoided.contains(session)))
            .min()
            .map(|(_, session)| *session);
        others.or_else(|| self.choose(requirement))
    }

    /// Tells whether any session has room.
    pub(crate) fn any(&self) -> bool {
        self.with_room > 0
    }

    /// Slots of all sessions together, free or not.
    pub(crate) fn slots(&self) -> u64 {
        self.slots
    }

    fn group(&mut self, capabilities: &Capabilities) -> usize {
        if let Some(known) = self.groups.iter().position(|group| group.capabilities == *capabilities) {
            return known;
        }
        for (requirement, meets) in self.requirements.iter().zip(&mut self.meets) {
            meets.push(capabilities.meet(requirement));
        }
        self.groups.push(Group { capabilities: capabilities.clone(), sessions: BTreeSet::new() });
        self.groups.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use hauberk_store::StoreDirectory;

    use super::*;

    fn capabilities(system: &str) -> Capabilities {
        Capabilities {
            store_directory: StoreDirectory::nix(),
            systems: BTreeSet::from([system.to_owned()]),
            features: BTreeSet::new(),
            mandatory_features: BTreeSet::new(),
        }
    }

    fn requirement(system: &str) -> Requirement {
        Requirement {
            store_directory: StoreDirectory::nix(),
            system: system.to_owned(),
            features: BTreeSet::new(),
        }
    }

    #[test]
    fn the_emptiest_worker_of_the_right_system_is_chosen() {
        let (x86, arm) = (capabilities("x86_64-linux"), capabilities("aarch64-linux"));
        let mut seats = Seats::default();
        let on_x86 = seats.requirement(&requirement("x86_64-linux"));
        seats.set(1, &x86, 2, 4);
        seats.set(2, &x86, 4, 4);
        seats.set(3, &arm, 9, 9);
        let builtin = seats.requirement(&requirement("builtin"));
        assert_eq!(seats.requirement(&requirement("x86_64-linux")), on_x86);
        assert_eq!(seats.choose(on_x86), Some(2));
        assert_eq!(seats.choose(builtin), Some(2));
        assert_eq!(seats.choose_avoiding(on_x86, &[2]), Some(1));
        assert_eq!(seats.choose_avoiding(on_x86, &[1, 2]), Some(2));
        seats.occupy(2);
        assert_eq!(seats.choose(builtin), Some(3));
        seats.set(2, &x86, 1, 4);
        assert_eq!(seats.choose(on_x86), Some(1));
        seats.set(1, &x86, 0, 4);
        seats.remove(2);
        assert_eq!(seats.choose(on_x86), None);
        assert!(seats.any());
        assert_eq!(seats.slots(), 13);
        seats.remove(3);
        assert!(!seats.any());
    }

    #[test]
    fn large_and_small_workers_fill_in_step() {
        let x86 = capabilities("x86_64-linux");
        let mut seats = Seats::default();
        let on_x86 = seats.requirement(&requirement("x86_64-linux"));
        seats.set('l', &x86, 64, 64);
        seats.set('s', &x86, 4, 4);
        let mut given = HashMap::new();
        for _ in 0..34 {
            let session = seats.choose(on_x86).unwrap();
            seats.occupy(session);
            *given.entry(session).or_insert(0) += 1;
        }
        assert_eq!((given[&'l'], given[&'s']), (32, 2));
    }
}
