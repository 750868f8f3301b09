//! Evaluators: child programs that make jobs of checkouts.

mod nix;

use std::path::PathBuf;

use hauberk_database::Level;
use hauberk_database::evaluations::JobError;
use hauberk_store::DrvPath;

use crate::child::ChildError;

pub(crate) use nix::Nix;

/// What an evaluator gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Evaluated {
    pub(crate) jobs: Vec<EvaluatedJob>,
    pub(crate) errors: Vec<JobError>,
}

/// A job, as its evaluator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EvaluatedJob {
    pub(crate) name: String,
    pub(crate) derivation: DrvPath,
    pub(crate) priority: Level,
    /// Seconds; 0 = no limit.
    pub(crate) timeout: Option<u32>,
    /// Seconds; 0 = no limit.
    pub(crate) max_silent: Option<u32>,
}

/// Why an evaluation gave no jobs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvaluatorError {
    /// The evaluator did not come to its end.
    #[error("the evaluation did not come to its end")]
    Child(#[source] ChildError),
    /// The expression has an error.
    #[error("{message}")]
    Expression {
        /// What the evaluator said, in a line.
        message: String,
    },
    /// The store could not be reached.
    #[error("the evaluator cannot use the build daemon: {message}")]
    Daemon {
        /// What the evaluator said, in a line.
        message: String,
    },
    /// What it printed is not what was agreed.
    #[error("the evaluator printed something that is no list of jobs")]
    Output(#[source] serde_json::Error),
    /// A file of the register could not be written.
    #[error("cannot write {}", path.display())]
    File {
        /// It.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}
