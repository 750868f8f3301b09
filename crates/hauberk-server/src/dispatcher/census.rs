//! What there is of workers, slots and attempts, for metrics.

use std::collections::HashMap;

use hauberk_database::{AttemptId, WorkerId};

use super::Dispatcher;
use crate::metrics::Census;

impl Dispatcher {
    /// The attempts that are in the slots of workers, in the order of their number.
    pub(crate) fn seats(&self) -> Vec<(AttemptId, WorkerId)> {
        let with_worker = self.attempts.iter().filter(|(_, attempt)| attempt.phase.is_with_worker());
        let mut seats: Vec<_> = with_worker.map(|(id, attempt)| (id, attempt.worker)).collect();
        seats.sort_unstable();
        seats
    }

    /// Counts sessions, slots and attempts.
    pub(crate) fn census(&self) -> Census {
        let mut busy: HashMap<WorkerId, u64> = HashMap::new();
        for (_, attempt) in self.attempts.iter().filter(|(_, attempt)| attempt.phase.is_with_worker()) {
            *busy.entry(attempt.worker).or_default() += 1;
        }
        let mut census = Census { attempts: self.attempts.len() as u64, ..Census::default() };
        for session in self.sessions.values() {
            let state = match (session.draining, session.paused) {
                (false, false) if !session.shortage.is_empty() => &mut census.short,
                (true, _) => &mut census.draining,
                (false, true) if self.health.is_set_aside(session.worker) => &mut census.set_aside,
                (false, true) => &mut census.paused,
                (false, false) => &mut census.working,
            };
            *state += 1;
            let busy = busy.get(&session.worker).copied().unwrap_or(0);
            census.add(&session.system, session.slots.into(), busy);
        }
        census
    }
}
