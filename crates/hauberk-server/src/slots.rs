//! Free slots, by what their workers can build.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use hauberk_database::dispatch::Lane;

use crate::session::{Capabilities, SessionId};

/// Which sessions have room, grouped by what they can build, so that a choice costs a look at each group and not at each worker.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    groups: HashMap<Capabilities, BTreeSet<(Reverse<u64>, SessionId)>>,
    entries: HashMap<SessionId, (Capabilities, u64)>,
}

impl Slots {
    /// Notes how many attempts a session can take now.
    pub(crate) fn set(&mut self, session: SessionId, capabilities: &Capabilities, free: u64) {
        if self.entries.get(&session).is_some_and(|(of, was)| *was == free && of == capabilities) {
            return;
        }
        self.remove(session);
        if free > 0 {
            self.groups.entry(capabilities.clone()).or_default().insert((Reverse(free), session));
            self.entries.insert(session, (capabilities.clone(), free));
        }
    }

    /// Forgets a session.
    pub(crate) fn remove(&mut self, session: SessionId) {
        let Some((capabilities, free)) = self.entries.remove(&session) else { return };
        if let Some(group) = self.groups.get_mut(&capabilities) {
            group.remove(&(Reverse(free), session));
            if group.is_empty() {
                self.groups.remove(&capabilities);
            }
        }
    }

    /// Chooses a session for a build of a lane: the one with the most room, so that a burst spreads over the machines. One of
    /// `avoided` only if no other has room.
    pub(crate) fn choose(&self, lane: &Lane, avoided: &[SessionId]) -> Option<SessionId> {
        let best = |avoided: &[SessionId]| {
            self.groups
                .iter()
                .filter(|(capabilities, _)| capabilities.can_run(lane))
                .filter_map(|(_, sessions)| sessions.iter().find(|(_, session)| !avoided.contains(session)))
                .min()
                .map(|(_, session)| *session)
        };
        best(avoided).or_else(|| if avoided.is_empty() { None } else { best(&[]) })
    }

    /// Tells whether any session has room.
    pub(crate) fn any(&self) -> bool {
        !self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use hauberk_database::{LaneId, SpecificationId};
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

    fn lane(system: &str) -> Lane {
        Lane {
            id: LaneId::new(1),
            specification: SpecificationId::new(1),
            store_directory: StoreDirectory::nix(),
            system: system.to_owned(),
            features: BTreeSet::new(),
        }
    }

    #[test]
    fn the_emptiest_worker_of_the_right_system_is_chosen() {
        let (x86, arm) = (capabilities("x86_64-linux"), capabilities("aarch64-linux"));
        let id = |number: u64| SessionId::from_random(number << 1);
        let mut slots = Slots::default();
        slots.set(id(1), &x86, 2);
        slots.set(id(2), &x86, 4);
        slots.set(id(3), &arm, 9);
        assert_eq!(slots.choose(&lane("x86_64-linux"), &[]), Some(id(2)));
        assert_eq!(slots.choose(&lane("builtin"), &[]), Some(id(3)));
        assert_eq!(slots.choose(&lane("x86_64-linux"), &[id(2)]), Some(id(1)));
        assert_eq!(slots.choose(&lane("x86_64-linux"), &[id(2), id(1)]), Some(id(2)));
        slots.set(id(2), &x86, 1);
        assert_eq!(slots.choose(&lane("x86_64-linux"), &[]), Some(id(1)));
        slots.set(id(1), &x86, 0);
        slots.remove(id(2));
        assert_eq!(slots.choose(&lane("x86_64-linux"), &[]), None);
        assert!(slots.any());
        slots.remove(id(3));
        assert!(!slots.any());
    }
}
