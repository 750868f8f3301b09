//! Outputs on their way into the store of the server's machine.

use std::collections::BTreeSet;

use async_trait::async_trait;
use hauberk_daemon::{
    ClientOptions, ConnectOptions, DaemonAddress, DaemonError, Dialect, LogEvent, LogSink, PathInfo, Pool,
};
use hauberk_publish::Cache;
use hauberk_publish::cache::CacheError;
use hauberk_publish::client::FetchError;
use hauberk_store::{NarInfo, StoreDirectory, StorePath};

/// Connections by which outputs are added.
const ADDERS: usize = 4;
/// Most paths of a closure that is added.
const MOST: usize = 100_000;

/// Why an output is not in the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SinkError {
    /// The daemon does not answer, or does not take it.
    #[error("the build daemon does not take {path}")]
    Daemon {
        /// The path.
        path: StorePath,
        /// What it said.
        #[source]
        source: DaemonError,
    },
    /// The cache cannot be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The nar is not what the cache says.
    #[error(transparent)]
    Nar(#[from] FetchError),
    /// Something that is referred to is neither in the cache nor in the store.
    #[error("{0} is neither in the cache nor in the store")]
    Absent(StorePath),
    /// Too much is referred to.
    #[error("{0} refers to too many paths")]
    TooMany(StorePath),
}

/// Adds outputs, with all they refer to, to a store.
pub(crate) struct StoreSink {
    pool: Pool,
    cache: Cache,
}

impl StoreSink {
    /// Adds what `cache` has by the daemon at `address`. A daemon of Guix is told to fetch it from `publish_url`, as it takes no nar that is not
    /// named by a substitute server.
    pub(crate) fn new(
        cache: Cache,
        store_directory: &StoreDirectory,
        address: DaemonAddress,
        publish_url: String,
    ) -> Self {
        let connect =
            ConnectOptions { store_directory: Some(store_directory.clone()), ..ConnectOptions::default() };
        let guix = *store_directory == StoreDirectory::guix();
        let options = ClientOptions {
            use_substitutes: guix,
            substitute_urls: guix.then(|| vec![publish_url]),
            ..ClientOptions::default()
        };
        Self { pool: Pool::to_socket(address, connect, options, ADDERS), cache }
    }

    /// Makes an output valid there.
    pub(crate) async fn add(&self, output: &StorePath) -> Result<(), SinkError> {
        let failed = |path: &StorePath| {
            let path = path.clone();
            move |source| SinkError::Daemon { path, source }
        };
        let mut daemon = self.pool.get().await.map_err(failed(output))?;
        if daemon.info().dialect == Dialect::Guix {
            return daemon.ensure_path(output, &mut Nobody).await.map_err(failed(output));
        }
        // Each after what it refers to.
        let mut seen = BTreeSet::new();
        let mut waiting: Vec<(StorePath, Option<NarInfo>)> = vec![(output.clone(), None)];
        while let Some((path, found)) = waiting.pop() {
            if let Some(narinfo) = found {
                let mut nar = self.cache.unpacked(&narinfo)?;
                daemon.add_nar(&PathInfo::from(&narinfo), &mut nar, false).await.map_err(failed(&path))?;
                continue;
            }
            if !seen.insert(path.clone()) || daemon.is_valid_path(&path).await.map_err(failed(&path))? {
                continue;
            }
            if seen.len() > MOST {
                return Err(SinkError::TooMany(output.clone()));
            }
            let narinfo = self.cache.narinfo(&path.hash())?;
            let narinfo = narinfo.filter(|found| found.store_path == path);
            let narinfo = narinfo.ok_or_else(|| SinkError::Absent(path.clone()))?;
            let references = narinfo.references.clone();
            waiting.push((path.clone(), Some(narinfo)));
            waiting.extend(references.into_iter().filter(|other| *other != path).map(|other| (other, None)));
        }
        Ok(())
    }
}

/// Listens to nothing.
struct Nobody;

#[async_trait]
impl LogSink for Nobody {
    async fn event(&mut self, _: LogEvent<'_>) {}
}
