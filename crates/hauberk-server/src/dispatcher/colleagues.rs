//! Workers of other servers: what fails here by the farm's fault may do better with them.
//!
//! What they can build is known from their rows, and some seconds old. Of builds that failed here, the end may be recorded by another
//! server, so the database is asked for it now and then.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hauberk_database::{BuildId, LaneId, WorkerId};
use hauberk_order::Capabilities;

use super::Dispatcher;
use crate::session::SessionId;

/// A build that failed wherever it could go here is left to others for so long, before it is tried here again.
const LEFT_FOR: Duration = Duration::from_secs(5);
/// What was left is forgotten after this.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// Builds whose end is asked for at once.
const ASKED: usize = 1000;

/// What is known of the workers of other servers, and what is left to them.
#[derive(Debug, Default)]
pub(super) struct Colleagues {
    kinds: Vec<Capabilities>,
    left: HashMap<BuildId, Left>,
    /// The build up to which was asked.
    asked: Option<BuildId>,
}

/// A build that is left to others.
#[derive(Debug)]
struct Left {
    since: Instant,
    /// Its time is over, and it has been asked for again.
    is_over: bool,
}

impl Colleagues {
    /// What workers of other servers can build, that take work.
    pub(super) fn kinds(&self) -> &[Capabilities] {
        &self.kinds
    }

    /// A build has been given out.
    pub(super) fn forget(&mut self, build: BuildId) {
        self.left.remove(&build);
    }
}

impl Dispatcher {
    /// Takes what the workers of other servers can build.
    pub(crate) fn set_colleagues(&mut self, kinds: Vec<Capabilities>) {
        self.colleagues.kinds = kinds;
    }

    /// Tells whether a build that would go to a session is left to other servers for now, as its worker has failed it, and no other here
    /// has room.
    pub(super) fn leaves_to_others(
        &mut self,
        build: BuildId,
        lane: LaneId,
        session: SessionId,
        now: Instant,
    ) -> bool {
        let Self { tried, colleagues, sessions, window, .. } = self;
        let Some(tried) = tried.get(&build).filter(|_| !colleagues.kinds.is_empty()) else { return false };
        let Some(requirement) = window.requirement(lane) else { return false };
        if !sessions.get(&session).is_some_and(|session| tried.contains(&session.worker))
            || !colleagues.kinds.iter().any(|kind| kind.meet(requirement))
        {
            return false;
        }
        let left = colleagues.left.entry(build).or_insert(Left { since: now, is_over: false });
        now.saturating_duration_since(left.since) < LEFT_FOR
    }

    /// Asks for what was left to others for long enough, if they have not taken it.
    pub(super) fn look_after_left(&mut self, now: Instant) {
        let left = &mut self.colleagues.left;
        left.retain(|_, left| now.saturating_duration_since(left.since) < REMEMBERED_FOR);
        let mut is_over = false;
        for left in left.values_mut() {
            if !left.is_over && now.saturating_duration_since(left.since) >= LEFT_FOR {
                (left.is_over, is_over) = (true, true);
            }
        }
        if is_over {
            self.want_refill();
        }
    }

    /// Tells whether [`Self::failed_here`] would give any.
    pub(crate) fn has_failed_here(&self) -> bool {
        !self.tried.is_empty()
    }

    /// Gives builds that failed by the farm's fault, and whose end may have been another server's or an operator's; others the next time.
    pub(crate) fn failed_here(&mut self) -> Vec<BuildId> {
        let mut builds: Vec<_> = self.tried.keys().copied().collect();
        builds.sort_unstable();
        let from = self.colleagues.asked.map_or(0, |last| builds.partition_point(|build| *build <= last));
        let asked: Vec<_> = builds.into_iter().skip(from).take(ASKED).collect();
        self.colleagues.asked = asked.last().copied().filter(|_| asked.len() == ASKED);
        asked
    }

    /// Takes which builds are over, and the workers that brought them to an end of their own.
    pub(crate) fn are_over(&mut self, ended: &[(BuildId, Option<WorkerId>)]) {
        for (build, worker) in ended {
            let Some(tried) = self.tried.get(build) else { continue };
            if let Some(worker) = worker {
                let others: Vec<_> = tried.iter().copied().filter(|other| other != worker).collect();
                self.health.did_otherwise(*build, &others);
            }
        }
        for (build, _) in ended {
            self.tried.remove(build);
            self.colleagues.forget(*build);
        }
    }

    /// Tells whether a slot is free.
    pub(crate) fn has_room(&self) -> bool {
        self.sessions.values().any(|session| session.free() > 0)
    }
}
