//! What every request may use.

use std::sync::Arc;

use hauberk_database::pages::StatusCounts;
use hauberk_database::{BuildState, Database, EvaluationId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::changes::Changes;
use crate::log::LogDirectory;
use crate::operators::Operators;
use crate::product::ProductDirectory;

/// How many logs are decoded for pages at a time; a long one takes a core for a second.
const DECODERS: usize = 4;

/// Pages that are followed live at a time; more are told to come again, and are as old as their last load until then.
const FOLLOWERS: usize = 256;

/// What every request may use. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) database: Database,
    pub(crate) logs: LogDirectory,
    pub(crate) products: ProductDirectory,
    pub(crate) changes: Changes,
    /// Open streams end when it is cancelled.
    pub(crate) stop: CancellationToken,
    pub(crate) decoders: Arc<Semaphore>,
    pub(crate) counts: Arc<Cache<EvaluationId, StatusCounts>>,
    pub(crate) queue: Arc<Cache<(), Vec<(BuildState, i64)>>>,
    pub(crate) followers: Arc<Semaphore>,
    pub(crate) operators: Operators,
    /// Tokens are tried one at a time.
    pub(crate) logins: Arc<Semaphore>,
}

impl App {
    pub(crate) fn new(
        database: Database,
        (logs, products): (LogDirectory, ProductDirectory),
        changes: Changes,
        stop: CancellationToken,
        operators: Operators,
    ) -> Self {
        Self {
            database,
            logs,
            products,
            changes,
            stop,
            decoders: Arc::new(Semaphore::new(DECODERS)),
            counts: Arc::new(Cache::new(1024)),
            queue: Arc::new(Cache::new(1)),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
            operators,
            logins: Arc::new(Semaphore::new(1)),
        }
    }
}
