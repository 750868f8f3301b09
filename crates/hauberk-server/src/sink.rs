//! Outputs on their way into the store of the server's machine.

use std::collections::BTreeSet;

use async_trait::async_trait;
use hauberk_daemon::{
    ClientOptions, ConnectOptions, DaemonAddress, DaemonError, Dialect, LogEvent, LogSink, PathInfo, Pool,
};
use hauberk_publish::cache::CacheError;
use hauberk_publish::client::FetchError;
use hauberk_publish::{BaseUrl, Cache};
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
    /// Something that is referred to is neither in the cache nor in the store, and cannot be had from elsewhere.
    #[error(
        "{path} is neither in the cache nor in the store, and the build daemon does not get it from its substituters"
    )]
    Absent {
        /// The path.
        path: StorePath,
        /// What the daemon said.
        #[source]
        source: DaemonError,
    },
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
    /// named by a substitute server. What outputs refer to and the cache lacks is had from `upstreams`, those of Nix by the daemon's own configuration.
    pub(crate) fn new(
        cache: Cache,
        store_directory: &StoreDirectory,
        address: DaemonAddress,
        publish_url: String,
        upstreams: &[BaseUrl],
    ) -> Self {
        let connect =
            ConnectOptions { store_directory: Some(store_directory.clone()), ..ConnectOptions::default() };
        let guix = *store_directory == StoreDirectory::guix();
        let options = ClientOptions {
            use_substitutes: guix || !upstreams.is_empty(),
            substitute_urls: guix
                .then(|| [publish_url].into_iter().chain(upstreams.iter().map(BaseUrl::to_string)).collect()),
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
            let ensured = daemon.ensure_path(output, &mut Nobody).await.map_err(failed(output));
            if ensured.is_err() {
                // What asks servers for a connection knows the trusted keys of when it began: the next one may know that of this server.
                daemon.discard();
            }
            return ensured;
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
            let Some(narinfo) = narinfo.filter(|found| found.store_path == path) else {
                let absent = |source| SinkError::Absent { path: path.clone(), source };
                daemon.ensure_path(&path, &mut Nobody).await.map_err(absent)?;
                continue;
            };
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
