//! Sick workers: set aside, tried now and then, and given work again.

use std::time::Instant;

use hauberk_database::{BuildId, WorkerId};
use hauberk_order::Capabilities;
use tracing::{info, warn};

use super::{Dispatcher, Effect};
use crate::session::SessionId;
use crate::wording::one_line;

impl Dispatcher {
    /// A worker has brought a build to the package's own end.
    pub(super) fn did(&mut self, worker: WorkerId, build: BuildId) {
        if let Some(tried) = self.tried.get(&build) {
            let others: Vec<_> = tried.iter().copied().filter(|other| *other != worker).collect();
            self.health.did_otherwise(build, &others);
        }
        if self.health.did(worker) {
            self.effects.push(Effect::Recovered(worker));
        }
    }

    /// Takes what a worker says it lacks to take work.
    pub(super) fn short(&mut self, id: SessionId, shortage: &str) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let shortage = one_line(shortage);
        match (session.shortage.is_empty(), shortage.is_empty()) {
            (true, false) => {
                warn!(worker.name = %session.name, "{} takes no work now: {shortage}", session.name);
            }
            (false, true) => info!(worker.name = %session.name, "{} takes work again", session.name),
            _ => {}
        }
        session.shortage = shortage;
        self.update_slots(id);
    }

    /// Looks who is sick, and who is to be tried again.
    pub(super) fn look_after_workers(&mut self, now: Instant) {
        let Self { health, sessions, by_worker, colleagues, .. } = self;
        // A worker that is not here cannot be the last, and need not be set aside. What is known of other servers may be out of date: the
        // database looks again.
        let is_needed = |worker: WorkerId| {
            let Some(own) = by_worker.get(&worker).and_then(|id| sessions.get(id)) else { return true };
            own.capabilities.systems.iter().any(|system| {
                let stands_in = |other: &Capabilities| {
                    other.store_directory == own.capabilities.store_directory
                        && other.systems.contains(system)
                        && other.features.is_superset(&own.capabilities.features)
                        && other.mandatory_features.is_subset(&own.capabilities.mandatory_features)
                };
                let here = sessions.values().filter(|other| other.worker != worker && other.takes_work());
                !here.map(|other| &other.capabilities).chain(colleagues.kinds()).any(stands_in)
            })
        };
        // One at a time: the next is judged by who is left.
        for (worker, reason) in health.sick(now, is_needed).into_iter().take(1) {
            warn!(worker.id = %worker, "worker {worker} is {reason}");
            self.effects.push(Effect::SetAside(worker, reason));
        }
        for worker in self.health.due_probes(now) {
            let Some(id) = self.by_worker.get(&worker).copied() else { continue };
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if self.attempts.of(worker).next().is_some() {
                continue;
            }
            info!(worker.name = %session.name, "{}, which is set aside, is tried with one build", session.name);
            session.probed = true;
            self.update_slots(id);
        }
    }
}
