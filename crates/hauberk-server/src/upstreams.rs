//! Substitute servers outside the farm that its users have as well: what outputs refer to and these have need not be in the farm's cache.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use hauberk_publish::client::{BaseUrl, ClientConfig, ClientError, FetchError, SubstituteClient};
use hauberk_store::{StoreDirectory, StorePath, StorePathHash};
use tracing::warn;

/// Paths that are asked for at once.
const AT_ONCE: usize = 16;
/// What one has is believed to stay there for so long.
const KNOWN_FOR: Duration = Duration::from_secs(60 * 60);
/// Paths that are remembered at most.
const REMEMBERED: usize = 1 << 16;
/// One that could not be asked is left alone for so long.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// Time in which one must answer: what it does not say it has is fetched from the worker.
const PATIENCE: Duration = Duration::from_secs(5);

/// The substitute servers outside the farm for one store.
pub(crate) struct Upstreams {
    client: SubstituteClient,
    urls: Vec<BaseUrl>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashMap<StorePathHash, Instant>,
    /// By place among the URLs.
    silent: HashMap<usize, Instant>,
}

impl Upstreams {
    /// Asks the servers at `urls`, in this order, for paths of a store.
    ///
    /// # Errors
    /// A system that cannot give what connections need.
    pub(crate) fn new(directory: StoreDirectory, urls: Vec<BaseUrl>) -> Result<Self, ClientError> {
        let config =
            ClientConfig { connect_timeout: PATIENCE, narinfo_timeout: PATIENCE, ..ClientConfig::internet() };
        Ok(Self { client: SubstituteClient::new(directory, config)?, urls, state: Mutex::default() })
    }

    /// Gives those of `paths` that one of them has. Signatures are not looked at: nothing is taken from there, and whoever fetches such a path judges.
    pub(crate) async fn have(&self, paths: BTreeSet<StorePath>) -> BTreeSet<StorePath> {
        if self.urls.is_empty() {
            return BTreeSet::new();
        }
        let asked = stream::iter(paths).map(|path| async move { self.has(&path).await.then_some(path) });
        asked.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
    }

    async fn has(&self, path: &StorePath) -> bool {
        let hash = path.hash();
        if self.state().known.get(&hash).is_some_and(|since| since.elapsed() < KNOWN_FOR) {
            return true;
        }
        for (place, url) in self.urls.iter().enumerate() {
            if self.state().silent.get(&place).is_some_and(|since| since.elapsed() < SILENT_FOR) {
                continue;
            }
            match self.client.narinfo(url, &hash).await {
                Ok(Some(narinfo)) if narinfo.store_path == *path => {
                    self.remember(hash);
                    return true;
                }
                Ok(_) => {}
                Err(error) => self.pass_over(place, url, path, &error),
            }
        }
        false
    }

    fn remember(&self, hash: StorePathHash) {
        let mut state = self.state();
        if state.known.len() >= REMEMBERED {
            state.known.retain(|_, since| since.elapsed() < KNOWN_FOR);
        }
        if state.known.len() < REMEMBERED {
            state.known.insert(hash, Instant::now());
        }
    }

    /// Leaves a server alone that does not answer, and says so once in a while.
    fn pass_over(&self, place: usize, url: &BaseUrl, path: &StorePath, error: &FetchError) {
        let now = Instant::now();
        let mut state = self.state();
        let fresh = state.silent.get(&place).is_none_or(|since| since.elapsed() >= SILENT_FOR);
        if error.is_transient() {
            state.silent.insert(place, now);
        }
        drop(state);
        if fresh {
            warn!(
                error = error as &dyn std::error::Error, store.path = %path,
                "{url} (--substitute-urls) cannot be asked: what outputs refer to is fetched from workers meanwhile"
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
