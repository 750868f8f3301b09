//! Evaluations under way, and how to end one of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hauberk_database::EvaluationId;
use tokio_util::sync::CancellationToken;

/// The evaluations that run now.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<HashMap<EvaluationId, CancellationToken>>);

impl Running {
    /// Notes that an evaluation runs, for as long as what this gives lives.
    pub(crate) fn begin(&self, evaluation: EvaluationId, stop: &CancellationToken) -> Run<'_> {
        let stop = stop.child_token();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(evaluation, stop.clone());
        Run { running: self, evaluation, stop }
    }

    /// Ends an evaluation, if it runs here.
    pub(crate) fn cancel(&self, evaluation: EvaluationId) {
        if let Some(stop) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&evaluation) {
            tracing::info!(evaluation.id = %evaluation, "evaluation {evaluation} was canceled, ending its evaluator");
            stop.cancel();
        }
    }

    /// Gives all that run.
    pub(crate) fn all(&self) -> Vec<EvaluationId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

/// An evaluation that runs.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    running: &'a Running,
    evaluation: EvaluationId,
    /// Cancelled when it is to end, or the register is.
    pub(crate) stop: CancellationToken,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.running.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.evaluation);
    }
}
