//! Attempts that were given up, and whose workers come back with them.
//!
//! The dispatcher forgets an attempt when its end is recorded. What a worker says of one that is not known here is therefore a
//! question to the database, which decides by its rows (`hauberk_database::late`); until the answer is there, nothing is told to
//! the worker, and what it says meanwhile waits.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use hauberk_database::late::{Reopened, Report, Returned, Verdict, Word};
use hauberk_database::{AttemptId, WorkerId};
use hauberk_protocol::ServerMessage;
use hauberk_protocol::proto::{Ack, Cancel, Finished, HelloAgain, Outcome, Release};
use tracing::{info, warn};

use super::attempt::{Attempt, Early, Phase};
use super::{Dispatcher, Effect, Late};
use crate::outcome::{Fault, class_of, fault};
use crate::session::SessionId;
use crate::wording::{built_outputs, measures, one_line, result_message};

/// Attempts of one worker about which the database is asked at once. More are for its next Hello or heartbeat: whoever speaks of what
/// was never its own keeps itself waiting, and nobody else.
const ASKED: usize = 1024;

/// What a worker came back with, by attempt. Each worker's stands by itself: one may speak of another's attempts.
pub(super) type Returns = HashMap<WorkerId, HashMap<AttemptId, Return>>;

/// An attempt that a worker came back with, until it is decided what becomes of it.
#[derive(Debug)]
pub(super) struct Return {
    /// What the database was asked about.
    word: Word,
    /// Its result, if that is known.
    said: Option<Box<Finished>>,
}

impl Dispatcher {
    /// Looks at what a worker runs although the server does not know of it, or believes it to be elsewhere.
    pub(super) fn compare_unknown(
        &mut self,
        worker: WorkerId,
        session: SessionId,
        running: HashSet<AttemptId>,
    ) {
        let mut running: Vec<_> = running.into_iter().collect();
        running.sort_unstable();
        for id in running {
            match self.attempts.get(&id) {
                None => self.returned(worker, id, None),
                // Either it is as it should be, or its end is being recorded: the next heartbeat tells about it again.
                Some(attempt) if attempt.worker == worker => {}
                Some(_) => {
                    let reason = "the attempt is another worker's".to_owned();
                    self.send(session, Cancel { attempt: id.get(), reason });
                }
            }
        }
    }

    /// A worker has the result of an attempt that is not known here.
    pub(super) fn returned_with_result(&mut self, worker: WorkerId, finished: &Finished) {
        let id = AttemptId::new(finished.attempt);
        if word(finished) == Word::Nothing && !self.is_asked_about(worker, id) {
            self.forget_result(worker, id);
        } else {
            self.returned(worker, id, Some(Box::new(finished.clone())));
        }
    }

    /// A worker still serves the outputs of an attempt that is not known here.
    pub(super) fn kept(&mut self, worker: WorkerId, id: AttemptId) {
        self.ask_back(worker, id, Word::Kept, None);
    }

    /// An attempt is another server's: whoever has it now decides about it. If its worker is here, it brings it back by its Hello.
    pub(super) fn moved(&mut self, id: AttemptId) {
        let Some(attempt) = self.attempts.remove(&id) else { return };
        info!(build.id = %attempt.build, attempt.id = %id, "{}: attempt {id} is another server's now", attempt.name);
        let session = self.by_worker.get(&attempt.worker).and_then(|id| self.sessions.get(id));
        if let Some(session) = session {
            let again = ServerMessage::new(0, 0, HelloAgain {});
            self.effects.push(Effect::Send(session.routing, again));
        }
    }

    fn returned(&mut self, worker: WorkerId, id: AttemptId, said: Option<Box<Finished>>) {
        let asked = self.returns.entry(worker).or_default();
        if let Some(known) = asked.get_mut(&id) {
            if said.is_some() {
                known.said = said;
            }
            return;
        }
        let word = said.as_deref().map_or(Word::Running, word);
        self.ask_back(worker, id, word, said);
    }

    /// Asks the database what becomes of an attempt that it is not asked about yet.
    fn ask_back(&mut self, worker: WorkerId, id: AttemptId, word: Word, said: Option<Box<Finished>>) {
        let asked = self.returns.entry(worker).or_default();
        if asked.len() >= ASKED {
            return;
        }
        let report = said.as_deref().map(report);
        let returned = Returned { attempt: id, worker, word, report };
        asked.insert(id, Return { word, said });
        self.effects.push(Effect::Late(Late::TakeBack(Box::new(returned))));
    }

    /// Tells whether the database is asked about an attempt that a worker came back with.
    pub(super) fn is_asked_about(&self, worker: WorkerId, id: AttemptId) -> bool {
        self.returns.get(&worker).is_some_and(|asked| asked.contains_key(&id))
    }

    /// It is decided what becomes of an attempt that a worker came back with.
    pub(super) fn taken_back(
        &mut self,
        worker: WorkerId,
        id: AttemptId,
        verdict: Option<Verdict>,
        now: Instant,
    ) {
        let Some(asked) = self.returns.get_mut(&worker) else { return };
        let Some(returned) = asked.remove(&id) else { return };
        if asked.is_empty() {
            self.returns.remove(&worker);
        }
        match verdict {
            Some(Verdict::Reopened(reopened)) => self.reopened(worker, (id, reopened), returned, false, now),
            Some(Verdict::Beside(reopened)) => self.reopened(worker, (id, reopened), returned, true, now),
            Some(Verdict::History) => match returned.said {
                // It ended while the database was asked about it as running.
                Some(said) if returned.word == Word::Running => self.returned_with_result(worker, &said),
                Some(_) => self.forget_result(worker, id),
                None if returned.word == Word::Kept => self.forget_result(worker, id),
                None => {
                    let reason = "the attempt was given up, and is not wanted any more".to_owned();
                    self.send_to_worker(worker, Cancel { attempt: id.get(), reason });
                }
            },
            Some(Verdict::NotTheirs) => {
                warn!(attempt.id = %id, worker.id = %worker, "worker {worker} speaks of attempt {id}, which is not its own");
                if returned.said.is_some() || returned.word == Word::Kept {
                    self.forget_result(worker, id);
                } else {
                    let reason = "the attempt is not this worker's".to_owned();
                    self.send_to_worker(worker, Cancel { attempt: id.get(), reason });
                }
            }
            // The worker says it again, to this server or to another.
            Some(Verdict::NotOurs) | None => {}
        }
    }

    fn reopened(
        &mut self,
        worker: WorkerId,
        (id, reopened): (AttemptId, Reopened),
        returned: Return,
        late: bool,
        now: Instant,
    ) {
        let Reopened { build, name, farm_faults, superseded, built } = reopened;
        info!(
            build.id = %build, attempt.id = %id,
            "{name}: attempt {id} had been given up or was another server's, and is taken back{}",
            if late { " beside another" } else { "" }
        );
        if let Some(other) = superseded {
            self.superseded(other);
        }
        let phase = if self.by_worker.contains_key(&worker) {
            Phase::Running
        } else {
            Phase::Unheard { until: now + self.policy.lease }
        };
        let (stop_by, said, outputs) = (None, None, None);
        let mut attempt = Attempt { build, worker, name, farm_faults, late, stop_by, said, outputs, phase };
        if built {
            // All that is missing are its outputs, and its worker may not have heard that its word is recorded.
            attempt.phase = Phase::Fetching;
            let job = attempt.fetch(id, None);
            self.attempts.insert(id, attempt);
            self.effects.push(Effect::Fetch(job));
            self.send_to_worker(worker, Ack { attempts: vec![id.get()] });
            return;
        }
        self.attempts.insert(id, attempt);
        if let Some(said) = returned.said {
            self.conclude(id, &said);
        }
    }

    /// An attempt was ended in favour of another of its build.
    pub(super) fn superseded(&mut self, id: AttemptId) {
        let Some(attempt) = self.attempts.remove(&id) else {
            self.early.insert(id, Early::Superseded);
            return;
        };
        self.window.ended(attempt.build);
        info!(build.id = %attempt.build, attempt.id = %id, "{}: attempt {id} is superseded", attempt.name);
        if attempt.phase.is_with_worker() {
            let reason = "another attempt of the same build counts".to_owned();
            self.send_to_worker(attempt.worker, Cancel { attempt: id.get(), reason });
        } else {
            self.forget_result(attempt.worker, id);
        }
    }

    /// Tells a worker that it need not keep the result of an attempt.
    pub(super) fn forget_result(&mut self, worker: WorkerId, id: AttemptId) {
        self.send_to_worker(worker, Ack { attempts: vec![id.get()] });
        self.send_to_worker(worker, Release { attempts: vec![id.get()] });
    }
}

/// What a result means to an attempt that was given up.
fn word(finished: &Finished) -> Word {
    let outcome = finished.outcome();
    match class_of(outcome) {
        None if outcome == Outcome::Succeeded && built_outputs(finished).is_ok() => Word::Succeeded,
        None => Word::Nothing,
        Some(class) => match fault(class) {
            Fault::Package => Word::Failed,
            Fault::Farm | Fault::Nobody | Fault::None => Word::Nothing,
        },
    }
}

/// What is kept of a result that changes nothing.
fn report(finished: &Finished) -> Report {
    let message = match class_of(finished.outcome()) {
        None => "its result came late: succeeded".to_owned(),
        Some(class) => {
            one_line(&format!("its result came late: {class}: {}", result_message(finished, class)))
        }
    };
    Report { message, outputs: built_outputs(finished).unwrap_or_default(), measures: measures(finished) }
}
