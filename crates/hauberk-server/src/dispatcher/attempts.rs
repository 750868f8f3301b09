//! The attempts that are open, by number and by worker.

use std::collections::{BTreeSet, HashMap};

use hauberk_database::{AttemptId, WorkerId};

use super::attempt::Attempt;

/// All open attempts. What a worker has is found without a look at those of the others: each Hello and each heartbeat asks for it.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    by_id: HashMap<AttemptId, Attempt>,
    /// No worker without any.
    of: HashMap<WorkerId, BTreeSet<AttemptId>>,
}

impl Attempts {
    /// Tells whether an attempt is open.
    pub(super) fn contains_key(&self, id: &AttemptId) -> bool {
        self.by_id.contains_key(id)
    }

    /// What is known of an attempt.
    pub(super) fn get(&self, id: &AttemptId) -> Option<&Attempt> {
        self.by_id.get(id)
    }

    /// What is known of an attempt, to be changed; not its worker.
    pub(super) fn get_mut(&mut self, id: &AttemptId) -> Option<&mut Attempt> {
        self.by_id.get_mut(id)
    }

    /// Adds an attempt.
    pub(super) fn insert(&mut self, id: AttemptId, attempt: Attempt) {
        self.remove(&id);
        self.of.entry(attempt.worker).or_default().insert(id);
        self.by_id.insert(id, attempt);
    }

    /// Takes an attempt out.
    pub(super) fn remove(&mut self, id: &AttemptId) -> Option<Attempt> {
        let attempt = self.by_id.remove(id)?;
        if let Some(ids) = self.of.get_mut(&attempt.worker) {
            ids.remove(id);
            if ids.is_empty() {
                self.of.remove(&attempt.worker);
            }
        }
        Some(attempt)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (AttemptId, &Attempt)> {
        self.by_id.iter().map(|(id, attempt)| (*id, attempt))
    }

    /// All of them, to be changed; not their workers.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Attempt> {
        self.by_id.values_mut()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Those of a worker, the oldest first.
    pub(super) fn of(&self, worker: WorkerId) -> impl Iterator<Item = (AttemptId, &Attempt)> {
        let ids = self.of.get(&worker).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.by_id.get(id)?)))
    }

    /// Does something to those of a worker, the oldest first; it does not change the worker.
    pub(super) fn for_each_of(&mut self, worker: WorkerId, mut each: impl FnMut(AttemptId, &mut Attempt)) {
        for id in self.of.get(&worker).into_iter().flatten() {
            if let Some(attempt) = self.by_id.get_mut(id) {
                each(*id, attempt);
            }
        }
    }

    /// Tells whether none is open.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.of.is_empty()
    }
}
