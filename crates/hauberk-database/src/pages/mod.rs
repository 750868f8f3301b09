//! What pages and the JSON API read. Nothing here writes.
//!
//! Each statement lives in `sql/pages/`; every one reads its rows through an index, so that none gets slower as the farm's history
//! grows. Lists are bounded by a limit that the caller gives.

mod attempt;
mod build;
mod evaluation;
mod product;
mod queue;
mod specification;
mod summary;
mod worker;

pub use attempt::{Attempt, LogOwner, attempt, attempts, log_attempt};
pub use build::{
    Build, BuildLine, EdgeCounts, Output, Wanted, build, build_of_derivation, dependencies, dependents,
    edge_counts, outputs, wanted_by,
};
pub use evaluation::{
    Checkout, Evaluation, EvaluationStatus, Job, JobFilter, JobStatus, Neighbours, StatusCounts, checkouts,
    evaluation, evaluation_counts, evaluation_jobs, evaluations, evaluations_of_all, job_errors,
    job_statuses,
};
pub use product::{
    LatestFilter, MissingProduct, PlacedProduct, Product, latest_product, missing_products, product, products,
};
pub use queue::{
    ActiveBuild, QueuedBuild, ReadyPosition, WaitingPosition, queue_active, queue_counts, queue_ready,
    queue_waiting,
};
pub use specification::{LatestEvaluation, Specification, specification, specifications};
pub use summary::{
    BuildSummary, FinishedFilter, OutputSummary, build_summaries, finished_builds, output, queued_builds,
};
pub use worker::{OpenAttempt, Worker, WorkerAttempt, open_attempts, worker_attempts, workers};

#[cfg(test)]
mod tests;
