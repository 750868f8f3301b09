//! Why an operator's deed was not done.

use crate::{BuildId, DatabaseError, EvaluationId, TokenId};

/// Why an operator's deed was not done. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Some builds do not exist.
    #[error("there is no build {}; `hauberk build list` shows what there is", list(.0))]
    NoBuilds(Vec<BuildId>),
    /// There is no such build, or it has succeeded, so that its urgency means nothing.
    #[error(
        "there is no build {0}, or it has succeeded; `hauberk build list --state unfinished` shows what waits"
    )]
    NotUnfinished(BuildId),
    /// The evaluation does not exist.
    #[error("there is no evaluation {0}; `hauberk evaluation list` shows what there is")]
    NoEvaluation(EvaluationId),
    /// The specification does not exist.
    #[error(
        "there is no specification `{0}`; the registered ones stand on the first page and in `hauberk status`"
    )]
    NoSpecification(String),
    /// The specification is not looked at any more.
    #[error("specification `{0}` is disabled: it is not in the register's file any more")]
    Disabled(String),
    /// No worker of that name is enrolled.
    #[error("no worker named `{0}` is enrolled; `hauberk worker list` shows those that are")]
    NoWorker(String),
    /// The name is another worker's.
    #[error("a worker named `{0}` is enrolled with another key; `hauberk worker remove {0}` first")]
    NameTaken(String),
    /// The key is another worker's.
    #[error("another worker is enrolled with the key {0}")]
    KeyTaken(String),
    /// No server has a key that a token could name.
    #[error("no server with a key has started yet: start it, or give --server-key")]
    NoServerKey,
    /// The farm's servers have different keys, so that nobody knows which a token is for.
    #[error("the servers {} have different keys: say by --server-key which one new machines are to ask", .0.join(", "))]
    DifferentServerKeys(Vec<String>),
    /// There is no such token that could be taken back.
    #[error("there is no token {0}, or it was revoked already; `hauberk worker token list` shows all")]
    NoToken(TokenId),
    /// A newer evaluation has taken its place.
    #[error(
        "evaluation {evaluation} is not the newest of {specification}, and only that is evaluated again: \
         `hauberk evaluation retry {newest}`"
    )]
    NotNewest {
        /// The evaluation that was named.
        evaluation: EvaluationId,
        /// Its specification.
        specification: String,
        /// The newest of that.
        newest: EvaluationId,
    },
    /// It has no end yet.
    #[error("evaluation {0} still runs; cancel it first with `hauberk evaluation cancel {0}`")]
    Running(EvaluationId),
    /// It gave no jobs, so there is nothing to restart.
    #[error("evaluation {0} gave no jobs; to evaluate it again: `hauberk evaluation retry {0}`")]
    NoJobs(EvaluationId),
}

impl OperatorError {
    /// Tells whether PostgreSQL ended the transaction in favour of another: the same one may succeed at once.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_conflict())
    }
}

fn list(builds: &[BuildId]) -> String {
    let listed: Vec<String> = builds.iter().map(BuildId::to_string).collect();
    listed.join(", ")
}
