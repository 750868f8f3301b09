//! What there is of workers, slots and attempts, for metrics.

use std::collections::HashMap;

use hauberk_database::WorkerId;

use super::Dispatcher;
use crate::metrics::Census;

impl Dispatcher {
    /// Counts sessions, slots and attempts.
    pub(crate) fn census(&self) -> Census {
        let mut busy: HashMap<WorkerId, u64> = HashMap::new();
        for attempt in self.attempts.values().filter(|attempt| attempt.phase.is_with_worker()) {
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
