//! The attempts a worker has in hand, and every lawful step of each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use hauberk_protocol::proto::{AttemptPhase, Finished, RunningAttempt};

use crate::{Assignment, AttemptId};

/// The attempts a worker has in hand.
#[derive(Debug)]
pub(crate) struct Roster {
    slots: usize,
    ahead: usize,
    attempts: BTreeMap<AttemptId, State>,
    queue: VecDeque<Arc<Assignment>>,
}

/// What is known of one attempt.
#[derive(Debug, PartialEq)]
enum State {
    /// It waits for a slot.
    Queued { since: Instant },
    /// It runs.
    Running { since: Instant, phase: AttemptPhase },
    /// It has been told to stop, and has not yet.
    Stopping { since: Instant },
    /// It has ended, and the server has not said that it knows.
    Unacknowledged(Finished),
    /// Its result is recorded, and its outputs are served.
    Kept,
}

/// What comes of an assignment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It begins now.
    Begin(Arc<Assignment>),
    /// It waits for a slot.
    Queued,
    /// It is here already.
    Known,
    /// It has ended already, with this result still to be acknowledged.
    Ended,
    /// More came than was granted.
    NoSlot,
}

/// What comes of a cancellation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Canceled {
    /// It runs and must be stopped.
    Stop,
    /// It waited for a slot and is gone.
    Dropped,
    /// Nothing to do: it stops already, or has ended.
    Nothing,
    /// There is no such attempt.
    Unknown,
}

impl Roster {
    /// A roster for `slots` attempts at a time and `ahead` more that wait, with what an earlier process left.
    pub(crate) fn new(
        slots: usize,
        ahead: usize,
        unacknowledged: BTreeMap<AttemptId, Finished>,
        kept: Vec<AttemptId>,
    ) -> Self {
        let mut attempts: BTreeMap<_, _> = kept.into_iter().map(|attempt| (attempt, State::Kept)).collect();
        attempts.extend(unacknowledged.into_iter().map(|(id, result)| (id, State::Unacknowledged(result))));
        Self { slots, ahead, attempts, queue: VecDeque::new() }
    }

    /// How many attempts more could be taken now.
    pub(crate) fn free(&self) -> usize {
        (self.slots + self.ahead).saturating_sub(self.occupied())
    }

    fn occupied(&self) -> usize {
        self.queue.len() + self.in_slots()
    }

    fn in_slots(&self) -> usize {
        let holds_slot = |state: &&State| matches!(state, State::Running { .. } | State::Stopping { .. });
        self.attempts.values().filter(holds_slot).count()
    }

    /// Takes an assignment.
    pub(crate) fn assign(&mut self, assignment: Assignment, now: Instant) -> Taken {
        let attempt = assignment.attempt;
        match self.attempts.get(&attempt) {
            Some(State::Queued { .. } | State::Running { .. } | State::Stopping { .. } | State::Kept) => {
                return Taken::Known;
            }
            Some(State::Unacknowledged(_)) => return Taken::Ended,
            None => {}
        }
        if self.free() == 0 {
            return Taken::NoSlot;
        }
        let assignment = Arc::new(assignment);
        if self.in_slots() < self.slots {
            self.attempts.insert(attempt, State::Running { since: now, phase: AttemptPhase::FetchingInputs });
            Taken::Begin(assignment)
        } else {
            self.attempts.insert(attempt, State::Queued { since: now });
            self.queue.push_back(assignment);
            Taken::Queued
        }
    }

    /// Takes the next waiting attempt when a slot is free.
    pub(crate) fn next(&mut self) -> Option<Arc<Assignment>> {
        if self.in_slots() >= self.slots {
            return None;
        }
        let assignment = self.queue.pop_front()?;
        if let Some(state) = self.attempts.get_mut(&assignment.attempt)
            && let State::Queued { since } = *state
        {
            *state = State::Running { since, phase: AttemptPhase::FetchingInputs };
        }
        Some(assignment)
    }

    /// Forgets the attempts that wait for a slot.
    pub(crate) fn drop_queue(&mut self) {
        for assignment in self.queue.drain(..) {
            self.attempts.remove(&assignment.attempt);
        }
    }

    /// Takes note of how far a running attempt has come.
    pub(crate) fn reach(&mut self, attempt: AttemptId, reached: AttemptPhase) {
        if let Some(State::Running { phase, .. }) = self.attempts.get_mut(&attempt) {
            *phase = reached;
        }
    }

    /// Cancels an attempt.
    pub(crate) fn cancel(&mut self, attempt: AttemptId) -> Canceled {
        match self.attempts.get_mut(&attempt) {
            Some(state @ State::Running { .. }) => {
                if let State::Running { since, .. } = *state {
                    *state = State::Stopping { since };
                }
                Canceled::Stop
            }
            Some(State::Queued { .. }) => {
                self.attempts.remove(&attempt);
                self.queue.retain(|assignment| assignment.attempt != attempt);
                Canceled::Dropped
            }
            Some(State::Stopping { .. } | State::Unacknowledged(_) | State::Kept) => Canceled::Nothing,
            None => Canceled::Unknown,
        }
    }

    /// Ends an attempt with a result that the server must hear.
    pub(crate) fn finish(&mut self, attempt: AttemptId, result: Finished) {
        self.attempts.insert(attempt, State::Unacknowledged(result));
    }

    /// Ends an attempt without a result.
    pub(crate) fn forget(&mut self, attempt: AttemptId) {
        self.attempts.remove(&attempt);
    }

    /// Takes an Ack. Tells those of `attempts` it was news for, and which of them have outputs that are served on.
    pub(crate) fn acknowledge(&mut self, attempts: &[i64]) -> (Vec<AttemptId>, Vec<AttemptId>) {
        let (mut known, mut kept) = (Vec::new(), Vec::new());
        for attempt in attempts.iter().filter_map(|number| AttemptId::new(*number)) {
            let Some(State::Unacknowledged(result)) = self.attempts.get(&attempt) else { continue };
            known.push(attempt);
            if result.outputs.is_empty() {
                self.attempts.remove(&attempt);
            } else {
                kept.push(attempt);
                self.attempts.insert(attempt, State::Kept);
            }
        }
        (known, kept)
    }

    /// Takes a Release. What still runs is left alone: a Release of it is an answer to something else.
    pub(crate) fn release(&mut self, attempts: &[i64]) -> Vec<AttemptId> {
        let mut released = Vec::new();
        for attempt in attempts.iter().filter_map(|number| AttemptId::new(*number)) {
            if let Some(State::Unacknowledged(_) | State::Kept) = self.attempts.get(&attempt) {
                self.attempts.remove(&attempt);
                released.push(attempt);
            }
        }
        released
    }

    /// What runs, as heartbeats tell it.
    pub(crate) fn running(&self, now: Instant) -> Vec<RunningAttempt> {
        let tell = |(attempt, state): (&AttemptId, &State)| {
            let (since, phase) = match state {
                State::Queued { since } => (since, AttemptPhase::Queued),
                State::Running { since, phase } => (since, *phase),
                State::Stopping { since } => (since, AttemptPhase::Finishing),
                State::Unacknowledged(_) | State::Kept => return None,
            };
            let elapsed = now.saturating_duration_since(*since).as_millis();
            Some(RunningAttempt {
                attempt: attempt.get(),
                phase: phase.into(),
                elapsed_ms: u64::try_from(elapsed).unwrap_or(u64::MAX),
            })
        };
        self.attempts.iter().filter_map(tell).collect()
    }

    /// The attempts that hold or wait for a slot.
    pub(crate) fn active(&self) -> Vec<AttemptId> {
        let active = |state: &State| {
            matches!(state, State::Queued { .. } | State::Running { .. } | State::Stopping { .. })
        };
        self.attempts.iter().filter(|(_, state)| active(state)).map(|(attempt, _)| *attempt).collect()
    }

    /// The results that are not acknowledged.
    pub(crate) fn unacknowledged(&self) -> impl Iterator<Item = (AttemptId, &Finished)> {
        self.attempts.iter().filter_map(|(attempt, state)| match state {
            State::Unacknowledged(result) => Some((*attempt, result)),
            _ => None,
        })
    }

    /// The attempts whose outputs are served, acknowledged or not.
    pub(crate) fn unreleased(&self) -> impl Iterator<Item = AttemptId> {
        self.attempts.iter().filter_map(|(attempt, state)| match state {
            State::Kept => Some(*attempt),
            State::Unacknowledged(result) if !result.outputs.is_empty() => Some(*attempt),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use hauberk_protocol::proto::OutputInfo;

    use super::*;
    use crate::session::tests_support::assignment;

    fn id(number: i64) -> AttemptId {
        AttemptId::new(number).unwrap()
    }

    fn success(number: i64) -> Finished {
        Finished { attempt: number, outputs: vec![OutputInfo::default()], ..Finished::default() }
    }

    fn failure(number: i64) -> Finished {
        Finished { attempt: number, ..Finished::default() }
    }

    /// Attempts 1 to 6 in the states running, queued, stopping, succeeded, failed, kept.
    fn every_state() -> Roster {
        let now = Instant::now();
        let mut roster =
            Roster::new(2, 1, BTreeMap::from([(id(4), success(4)), (id(5), failure(5))]), vec![id(6)]);
        assert!(matches!(roster.assign(assignment(1), now), Taken::Begin(_)));
        assert!(matches!(roster.assign(assignment(3), now), Taken::Begin(_)));
        assert_eq!(roster.assign(assignment(2), now), Taken::Queued);
        assert_eq!(roster.cancel(id(3)), Canceled::Stop);
        assert_eq!(roster.free(), 0);
        roster
    }

    #[test]
    fn every_state_decides_about_an_assignment() {
        let now = Instant::now();
        let check = |number, expected| {
            assert_eq!(every_state().assign(assignment(number), now), expected, "attempt {number}");
        };
        check(1, Taken::Known);
        check(2, Taken::Known);
        check(3, Taken::Known);
        check(4, Taken::Ended);
        check(5, Taken::Ended);
        check(6, Taken::Known);
        check(7, Taken::NoSlot);
    }

    #[test]
    fn every_state_decides_about_a_cancellation() {
        let check =
            |number, expected| assert_eq!(every_state().cancel(id(number)), expected, "attempt {number}");
        check(1, Canceled::Stop);
        check(2, Canceled::Dropped);
        check(3, Canceled::Nothing);
        check(4, Canceled::Nothing);
        check(5, Canceled::Nothing);
        check(6, Canceled::Nothing);
        check(7, Canceled::Unknown);
    }

    #[test]
    fn every_state_decides_about_an_ack_and_a_release() {
        let all = [1, 2, 3, 4, 5, 6, 7, 0, -1];
        let mut roster = every_state();
        assert_eq!(roster.acknowledge(&all), (vec![id(4), id(5)], vec![id(4)]));
        assert_eq!(roster.acknowledge(&all), (vec![], vec![]));
        assert_eq!(roster.release(&all), [id(4), id(6)]);
        assert_eq!(roster.release(&all), []);
        assert_eq!(every_state().release(&all), [id(4), id(5), id(6)]);
        assert_eq!(roster.active(), [id(1), id(2), id(3)]);
    }

    #[test]
    fn a_slot_is_free_only_when_its_attempt_has_stopped() {
        let mut roster = every_state();
        assert_eq!(roster.next(), None, "the stopping attempt holds its slot");
        roster.finish(id(3), failure(3));
        assert_eq!(roster.next().map(|next| next.attempt), Some(id(2)));
        assert_eq!((roster.next(), roster.free()), (None, 1));
        roster.forget(id(1));
        assert_eq!((roster.next(), roster.free()), (None, 2));
    }

    #[test]
    fn what_runs_and_what_is_owed_is_told_apart() {
        let roster = every_state();
        let told: Vec<_> =
            roster.running(Instant::now()).iter().map(|one| (one.attempt, one.phase())).collect();
        assert_eq!(
            told,
            [(1, AttemptPhase::FetchingInputs), (2, AttemptPhase::Queued), (3, AttemptPhase::Finishing)]
        );
        assert_eq!(roster.unacknowledged().map(|(id, _)| id.get()).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(roster.unreleased().map(AttemptId::get).collect::<Vec<_>>(), [4, 6]);
    }
}
