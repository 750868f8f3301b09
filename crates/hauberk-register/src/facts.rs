//! What the register asks its store, its database and substitute servers about paths.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use futures::{StreamExt, stream};
use hauberk_daemon::{BuildDaemon, DaemonError};
use hauberk_database::{Client, DatabaseError, registration};
use hauberk_publish::{BaseUrl, SubstituteClient};
use hauberk_store::derivation::ParseError;
use hauberk_store::nar::{Limits, NarError, Node};
use hauberk_store::{Derivation, DrvPath, StorePath};

use crate::closure::Facts;
use crate::daemon::NixDaemon;
use crate::stores::{Delivery, StoresError};

/// Largest derivation that is read.
const MAX_DERIVATION: u64 = 64 * 1024 * 1024;
/// Files read by one thread at a time.
const BATCH: usize = 512;
/// Substitute servers are asked for so many paths at a time.
const PARALLEL: usize = 16;

/// Why something about a path could not be learnt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FactsError {
    /// The build daemon.
    #[error("cannot ask the build daemon about the jobs' derivations")]
    Daemon(#[from] DaemonError),
    /// The database.
    #[error("cannot ask the database about the jobs' outputs")]
    Database(#[from] DatabaseError),
    /// The servers, which share no store with the register.
    #[error(transparent)]
    Stores(#[from] StoresError),
    /// A derivation's file.
    #[error("cannot read {path}")]
    Read {
        /// The derivation.
        path: DrvPath,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A derivation's archive.
    #[error("the build daemon gave no file for {path}")]
    Archive {
        /// The derivation.
        path: DrvPath,
        /// What is wrong with it, unless it is something else than a file.
        #[source]
        source: Option<NarError>,
    },
    /// A derivation's text.
    #[error("{path} is not a derivation")]
    Parse {
        /// The derivation.
        path: DrvPath,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
}

impl FactsError {
    /// Whether a path is not in the store that was there a moment ago: a collector has been faster.
    pub(crate) fn is_collected(&self) -> bool {
        matches!(self, Self::Daemon(DaemonError::NotValid { .. }))
    }
}

/// The store, the database and the substitute servers.
pub(crate) struct World<'a> {
    pub(crate) location: &'a NixDaemon,
    pub(crate) daemon: Box<dyn BuildDaemon>,
    pub(crate) client: Client,
    pub(crate) substitutes: &'a SubstituteClient,
    pub(crate) urls: &'a [BaseUrl],
    pub(crate) delivery: &'a Delivery<'a>,
}

impl Facts for World<'_> {
    type Error = FactsError;

    async fn derivations(&mut self, paths: &[DrvPath]) -> Result<Vec<Derivation>, FactsError> {
        let mut all = Vec::with_capacity(paths.len());
        for batch in paths.chunks(BATCH) {
            let files: Vec<(DrvPath, PathBuf)> =
                batch.iter().map(|path| (path.clone(), self.location.file(path))).collect();
            let read = tokio::task::spawn_blocking(move || files.into_iter().map(read_file).collect());
            let read: Vec<Result<Option<Derivation>, FactsError>> =
                read.await.expect("reading files does not panic");
            for (path, derivation) in batch.iter().zip(read) {
                all.push(match derivation? {
                    Some(derivation) => derivation,
                    None => self.read_through_daemon(path).await?,
                });
            }
        }
        Ok(all)
    }

    async fn built(&mut self, paths: &BTreeSet<StorePath>) -> Result<HashSet<StorePath>, FactsError> {
        let paths: Vec<&StorePath> = paths.iter().collect();
        Ok(registration::succeeded_outputs(&self.client, &paths).await?)
    }

    async fn available(&mut self, paths: &BTreeSet<StorePath>) -> Result<HashSet<StorePath>, FactsError> {
        if paths.is_empty() {
            return Ok(HashSet::new());
        }
        let asked: Vec<StorePath> = paths.iter().cloned().collect();
        let mut available: HashSet<StorePath> = match self.delivery.available(&asked).await? {
            Some(available) => available,
            None => self.daemon.query_valid_paths(paths).await?.into_iter().collect(),
        };
        if !self.urls.is_empty() {
            let asked: Vec<StorePath> =
                paths.iter().filter(|path| !available.contains(*path)).cloned().collect();
            let (substitutes, urls) = (self.substitutes, self.urls);
            let found: Vec<StorePath> = stream::iter(asked)
                .map(|path| async move { is_substitutable(substitutes, urls, &path).await.then_some(path) })
                .buffer_unordered(PARALLEL)
                .filter_map(std::future::ready)
                .collect()
                .await;
            available.extend(found);
        }
        Ok(available)
    }
}

impl World<'_> {
    /// Reads a derivation whose file we do not see.
    async fn read_through_daemon(&mut self, path: &DrvPath) -> Result<Derivation, FactsError> {
        let archive = |source| FactsError::Archive { path: path.clone(), source };
        let mut nar = Vec::new();
        self.daemon.nar_from_path(path, &mut nar).await?;
        let node = Node::from_nar(&nar, Limits::with_size(MAX_DERIVATION))
            .map_err(|source| archive(Some(source)))?;
        match node {
            Node::File { contents, .. } => parse(path, &contents),
            _ => Err(archive(None)),
        }
    }
}

/// Tells whether a substitute server has the path. One that does not answer has nothing: the farm can build it.
async fn is_substitutable(substitutes: &SubstituteClient, urls: &[BaseUrl], path: &StorePath) -> bool {
    for url in urls {
        match substitutes.narinfo(url, &path.hash()).await {
            Ok(Some(narinfo)) if narinfo.store_path == *path => return true,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    store.path = %path,
                    "cannot ask {url} for {path}"
                );
            }
        }
    }
    false
}

fn parse(path: &DrvPath, bytes: &[u8]) -> Result<Derivation, FactsError> {
    Derivation::parse(path.directory(), bytes)
        .map_err(|source| FactsError::Parse { path: path.clone(), source })
}

/// Reads a derivation's file; `None` when it is not there.
fn read_file((path, file): (DrvPath, PathBuf)) -> Result<Option<Derivation>, FactsError> {
    use std::io::Read;
    let unreadable = |source| FactsError::Read { path: path.clone(), source };
    let opened = match std::fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut bytes = Vec::new();
    opened.take(MAX_DERIVATION).read_to_end(&mut bytes).map_err(unreadable)?;
    parse(&path, &bytes).map(Some)
}
