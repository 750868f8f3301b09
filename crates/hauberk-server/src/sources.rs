//! Where the results of workers are: what each last said at its Hello, so that a fetch need not ask the database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hauberk_database::WorkerId;

/// Where a worker's results are, and how they are signed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The worker's name.
    pub(crate) worker: String,
    /// Its publish server.
    pub(crate) publish_url: Option<String>,
    /// The key its narinfos must be signed with.
    pub(crate) signing_key: Option<String>,
}

/// The sources of all workers that have joined since the server's start. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources(Arc<Mutex<HashMap<WorkerId, Arc<Source>>>>);

impl Sources {
    /// A worker joined, and says that its results are here from now on.
    pub(crate) fn put(&self, worker: WorkerId, source: Source) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(worker, Arc::new(source));
    }

    /// Tells where a worker's results are; nothing if it has not joined since the server's start.
    pub(crate) fn get(&self, worker: WorkerId) -> Option<Arc<Source>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&worker).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hello_counts() {
        let sources = Sources::default();
        let source = |url: &str| Source {
            worker: "w".to_owned(),
            publish_url: Some(url.to_owned()),
            signing_key: None,
        };
        let (worker, shared) = (WorkerId::new(1), sources.clone());
        assert_eq!(sources.get(worker), None);
        shared.put(worker, source("http://a"));
        shared.put(worker, source("http://b"));
        assert_eq!(*sources.get(worker).unwrap(), source("http://b"));
    }
}
