//! What operators ask for: attempts to be stopped, workers to be paused or to leave.

use std::time::Instant;

use hauberk_database::dispatch::{AttemptClass, Measures};
use hauberk_database::workers::Order;
use hauberk_database::{AttemptId, WorkerId};
use hauberk_protocol::ServerMessage;
use hauberk_protocol::proto::{Cancel, Drain, Pause, Refused, RefusedReason};
use tracing::info;

use super::attempt::{By, Early, Phase};
use super::{Dispatcher, Effect};

impl Dispatcher {
    /// Stops attempts that operators want stopped. Those that their workers have been told about are left to them.
    pub(crate) fn stop(&mut self, unwanted: &[AttemptId], now: Instant) {
        for id in unwanted {
            let Some(attempt) = self.attempts.get_mut(id) else {
                // Perhaps it is being recorded now.
                self.early.entry(*id).or_insert(Early::Stopped);
                continue;
            };
            if attempt.stop_by.is_none() && attempt.phase.is_with_worker() {
                attempt.stop_by = Some(now + self.policy.stop_patience);
                let worker = attempt.worker;
                info!(build.id = %attempt.build, attempt.id = %id, "{} is to be stopped", attempt.name);
                self.send_to_worker(worker, cancel(*id));
            }
        }
    }

    /// Gives up what workers were told to stop and did not.
    pub(super) fn enforce_stops(&mut self, now: Instant) {
        let overdue: Vec<_> = self
            .attempts
            .iter()
            .filter(|(_, attempt)| attempt.phase.is_with_worker())
            .filter(|(_, attempt)| attempt.stop_by.is_some_and(|by| by <= now))
            .map(|(id, _)| id)
            .collect();
        let seconds = self.policy.stop_patience.as_secs();
        for id in overdue {
            // The slot stays taken: the worker grants credit only once it has stopped.
            let message = format!("its worker did not stop it within {seconds} s");
            self.end(id, AttemptClass::Canceled, message, Measures::default(), By::Server);
        }
    }

    /// Forgets what was decided about attempts that never came; called now and then.
    pub(crate) fn forget_early(&mut self) {
        self.early.clear();
    }

    /// Pauses workers, gives them work again, or asks them to leave.
    pub(crate) fn govern(&mut self, orders: &[Order]) {
        for order in orders {
            if order.revoked {
                self.revoke(order.worker);
                continue;
            }
            self.health.set_aside(order.worker, order.set_aside);
            let Some(id) = self.by_worker.get(&order.worker).copied() else { continue };
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            let pause = session.paused != order.paused;
            let drain = order.draining && !session.draining;
            // One that was asked to leave leaves; if it comes back, it gets work.
            session.draining |= order.draining;
            session.paused = order.paused;
            session.probed &= order.set_aside;
            if pause {
                info!(worker.name = %session.name, "{} is {}", session.name, if order.paused { "paused" } else { "resumed" });
                let reason = order.reason.clone().unwrap_or_else(|| "asked by an operator".to_owned());
                self.send(id, Pause { paused: order.paused, reason });
            }
            if drain {
                self.send(id, self::drain());
            }
            self.update_slots(id);
        }
    }

    /// Ends the session of a worker that was removed from the farm. What it has is given back, and what it says of it no longer counts;
    /// nor do outputs that are still being fetched from it.
    fn revoke(&mut self, worker: WorkerId) {
        let message = "its worker was removed from the farm";
        if let Some(session) = self.by_worker.get(&worker).and_then(|id| self.sessions.get(id)) {
            info!(worker.name = %session.name, "{} was removed from the farm: its session ends", session.name);
            let refused = Refused {
                reason: RefusedReason::Revoked.into(),
                message: format!("`{}` was removed from the farm", session.name),
                retry_after_s: 0,
            };
            self.effects.push(Effect::Send(session.routing, ServerMessage::new(0, 0, refused)));
            let id = session.id;
            self.drop_session(id);
        }
        let counted = |phase: Phase| match phase {
            Phase::Assigned { .. }
            | Phase::Running
            | Phase::Unheard { .. }
            | Phase::Concluding
            | Phase::Fetching => true,
            Phase::GivingUp | Phase::Ending => false,
        };
        let its: Vec<_> =
            self.attempts.of(worker).filter(|(_, a)| counted(a.phase)).map(|(id, _)| id).collect();
        for id in its {
            self.end(id, AttemptClass::Canceled, message.to_owned(), Measures::default(), By::Server);
        }
    }
}

/// Asks a worker to stop an attempt.
pub(super) fn cancel(id: AttemptId) -> Cancel {
    Cancel { attempt: id.get(), reason: "an operator canceled the build".to_owned() }
}

/// Asks a worker to finish what it runs and to leave.
pub(super) fn drain() -> Drain {
    Drain { reason: "an operator asked it to leave; `hauberk worker resume` takes that back".to_owned() }
}
