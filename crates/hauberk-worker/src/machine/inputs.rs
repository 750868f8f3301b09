//! Brings what an attempt needs into the store, as a step of its own, before the build.
//!
//! A Nix daemon fetches nothing: what it asks its substitute servers by itself it remembers for hours when it is not there, and a server
//! that is down fails the build. Narinfos come from the farm's server, or from the caches that the operator named; each nar is
//! added with the signature of its narinfo, which the daemon checks. A Guix daemon is served differently, see [`GuixInputs`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hauberk_daemon::{
    BuildDaemon, ClientOptions, ConnectOptions, DaemonAddress, DaemonError, Dialect, PathInfo, Pool,
};
use hauberk_publish::client::{
    AskError, BaseUrl, Closure, ClosureError, ClosureLimits, FetchError, MissingPath, NarDownload, Source,
    SubstituteClient, ValidPaths,
};
use hauberk_store::{Sha256, StorePath};
use tracing::{debug, info, warn};

use super::guix_inputs::GuixInputs;
use super::relay::Relay;
use super::silence::Silence;

/// Connections by which inputs are added, for all attempts together.
const ADDERS: usize = 8;

/// Nars fetched at once for one attempt.
const PARALLEL: usize = 4;

/// Most paths that a message lists.
const LISTED: usize = 5;

/// Why inputs are not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// Nobody has these.
    #[error("nobody has {}", List(.0))]
    Missing(Vec<StorePath>),
    /// Somebody may have it, but could not be asked, or gave something else.
    #[error("cannot fetch {path}")]
    Transfer {
        /// The first of them.
        path: StorePath,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The daemon does not answer, or does not take a path.
    #[error("the build daemon does not take {path}")]
    Daemon {
        /// The path.
        path: StorePath,
        /// What it said.
        #[source]
        source: DaemonError,
    },
    /// The daemon cannot tell what is valid.
    #[error("cannot ask the build daemon what is valid")]
    Ask(#[source] AskError),
    /// The closure cannot be walked.
    #[error("cannot walk the inputs")]
    Closure(#[source] ClosureError),
}

struct List<'a>(&'a [StorePath]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, path) in self.0.iter().take(LISTED).enumerate() {
            write!(f, "{}{path}", if place == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Where inputs may be had.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// Where narinfos are asked for: the farm's server first.
    pub(crate) narinfos: Vec<Source>,
    /// Where nars of the farm may be had before the server, in this order: from those who built them.
    pub(crate) nars: BTreeMap<StorePath, Vec<BaseUrl>>,
}

/// Brings paths into the store. Attempts of one worker that need the same path fetch it once.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    client: SubstituteClient,
    neighbours: SubstituteClient,
    /// Other workers that could not be reached.
    silence: Silence,
    /// By what a Guix daemon gets what other workers have; started when it is needed first, nothing where it cannot be.
    relay: Arc<OnceLock<Option<Relay>>>,
    pool: Pool,
    address: DaemonAddress,
    connect: ConnectOptions,
    flights: Arc<Mutex<HashMap<StorePath, Weak<tokio::sync::Mutex<()>>>>>,
}

/// What was fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// Paths.
    pub(crate) paths: usize,
    /// Bytes of their nars.
    pub(crate) bytes: u64,
}

impl Fetcher {
    /// Fetches by `client`, from other workers by `neighbours`, and adds by connections to the daemon at `address`.
    pub(crate) fn new(
        client: SubstituteClient,
        neighbours: SubstituteClient,
        address: DaemonAddress,
        connect: ConnectOptions,
    ) -> Self {
        let pool = Pool::to_socket(address.clone(), connect.clone(), ClientOptions::default(), ADDERS);
        let (silence, relay, flights) = (Silence::default(), Arc::default(), Arc::default());
        Self { client, neighbours, silence, relay, pool, address, connect, flights }
    }

    /// Makes `roots` and their closures valid. `keeper` keeps everything from being collected for as long as it stands;
    /// `plan` hears what will be fetched.
    pub(crate) async fn ensure(
        &self,
        roots: impl IntoIterator<Item = StorePath>,
        sources: &Sources,
        keeper: &mut dyn BuildDaemon,
        plan: impl FnOnce(Fetched),
    ) -> Result<Fetched, InputError> {
        let dialect = keeper.info().dialect;
        let mut store = Kept(keeper);
        let closure = self
            .client
            .closure(roots, &sources.narinfos, &mut store, ClosureLimits::default())
            .await
            .map_err(|error| match error {
                ClosureError::Ask(source) => InputError::Ask(source),
                other => InputError::Closure(other),
            })?;
        if !closure.absent.is_empty() {
            return Err(InputError::Missing(closure.absent));
        }
        let Closure { missing, failed, .. } = closure;
        if let Some((path, error)) = failed.into_iter().next() {
            return Err(InputError::Transfer { path, source: Box::new(error) });
        }
        let planned =
            Fetched { paths: missing.len(), bytes: missing.iter().map(|item| item.narinfo.nar_size).sum() };
        if planned.paths > 0 {
            plan(planned);
            match dialect {
                Dialect::Nix => self.add_all(missing, sources).await?,
                Dialect::Guix => {
                    let (client, address, connect) = (&self.client, &self.address, &self.connect);
                    let relay = self.relay(&missing, sources);
                    GuixInputs { client, address, connect, sources, relay }.add_all(&missing).await?;
                }
            }
        }
        Ok(planned)
    }

    /// Adds paths, each after those it refers to.
    async fn add_all(&self, missing: Vec<MissingPath>, sources: &Sources) -> Result<(), InputError> {
        let mut unmet: BTreeMap<StorePath, usize> = BTreeMap::new();
        let mut referrers: BTreeMap<StorePath, Vec<StorePath>> = BTreeMap::new();
        let mut items: BTreeMap<StorePath, MissingPath> =
            missing.into_iter().map(|item| (item.narinfo.store_path.clone(), item)).collect();
        for (path, item) in &items {
            let others =
                item.narinfo.references.iter().filter(|other| *other != path && items.contains_key(*other));
            let mut count = 0;
            for other in others {
                referrers.entry(other.clone()).or_default().push(path.clone());
                count += 1;
            }
            unmet.insert(path.clone(), count);
        }
        let mut ready: Vec<StorePath> =
            unmet.iter().filter(|(_, count)| **count == 0).map(|(path, _)| path.clone()).collect();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < PARALLEL
                && let Some(path) = ready.pop()
            {
                if let Some(item) = items.remove(&path) {
                    running.push(self.add(item, sources));
                }
            }
            let Some(added) = running.next().await else { return Ok(()) };
            for referrer in referrers.remove(&added?).unwrap_or_default() {
                if let Some(count) = unmet.get_mut(&referrer) {
                    *count -= 1;
                    if *count == 0 {
                        ready.push(referrer);
                    }
                }
            }
        }
    }

    /// Adds one path and gives it back.
    async fn add(&self, item: MissingPath, sources: &Sources) -> Result<StorePath, InputError> {
        let path = item.narinfo.store_path.clone();
        let flight = self.flight(&path);
        let _alone = flight.lock().await;
        let daemon_error = |source| InputError::Daemon { path: path.clone(), source };
        let mut daemon = self.pool.get().await.map_err(daemon_error)?;
        if daemon.is_valid_path(&path).await.map_err(daemon_error)? {
            return Ok(path);
        }
        let info = PathInfo::from(&item.narinfo);
        let mut failure: Option<FetchError> = None;
        for base in self.places(&item, sources) {
            let mut nar = match self.open(&base, &item, sources).await {
                Ok(Some(nar)) => nar,
                Ok(None) => continue,
                Err(error) => {
                    debug!(store.path = %path, error = &error as &dyn std::error::Error, "{base} does not give {path}");
                    self.silence.note(&base, &error);
                    failure = Some(error);
                    continue;
                }
            };
            match daemon.add_nar(&info, &mut nar, false).await {
                Ok(()) => {
                    info!(store.path = %path, "fetched {path} from {base}");
                    return Ok(path);
                }
                Err(DaemonError::Source { source, .. }) => {
                    debug!(store.path = %path, %source, "{base} does not give {path} whole");
                    let error = match source.into_inner().map(|inner| inner.downcast::<FetchError>()) {
                        Some(Ok(error)) => *error,
                        _ => FetchError::Abandoned { path: path.clone() },
                    };
                    self.silence.note(&base, &error);
                    failure = Some(error);
                    if !daemon.is_usable() {
                        daemon.discard();
                        daemon = self.pool.get().await.map_err(daemon_error)?;
                    }
                }
                Err(source) => return Err(InputError::Daemon { path, source }),
            }
        }
        let source = failure.unwrap_or(FetchError::Abandoned { path: path.clone() });
        Err(InputError::Transfer { path, source: Box::new(source) })
    }

    /// Replaces a path that is valid here by the farm's, whose nar has this hash. Nobody may be building meanwhile. False when the
    /// server has no such path either, or the daemon does not replace what is valid.
    pub(crate) async fn repair(&self, path: &StorePath, hash: Sha256, sources: &Sources) -> bool {
        match self.try_repair(path, hash, sources).await {
            Ok(repaired) => repaired,
            Err(error) => {
                warn!(store.path = %path, error = &error as &dyn std::error::Error, "cannot repair {path}");
                false
            }
        }
    }

    async fn try_repair(
        &self,
        path: &StorePath,
        hash: Sha256,
        sources: &Sources,
    ) -> Result<bool, InputError> {
        let Some(server) = sources.narinfos.first() else { return Ok(false) };
        let transfer = |source| InputError::Transfer { path: path.clone(), source: Box::new(source) };
        let daemon_error = |source| InputError::Daemon { path: path.clone(), source };
        let flight = self.flight(path);
        let _alone = flight.lock().await;
        let found = self.client.narinfo(&server.url, &path.hash()).await.map_err(transfer)?;
        let Some(narinfo) = found.filter(|found| found.store_path == *path && found.nar_hash == hash) else {
            return Ok(false);
        };
        let mut nar = self.client.nar(&server.url, &narinfo).await.map_err(transfer)?;
        let mut daemon = self.pool.get().await.map_err(daemon_error)?;
        daemon.add_nar(&PathInfo::from(&narinfo), &mut nar, true).await.map_err(daemon_error)?;
        let here = daemon.query_path_info(path).await.map_err(daemon_error)?;
        Ok(here.is_some_and(|here| here.nar_hash == hash))
    }

    /// Where the nar may be had, the server that named it last.
    fn places(&self, item: &MissingPath, sources: &Sources) -> Vec<BaseUrl> {
        let mut places = Vec::new();
        // Only for what the farm's own server vouches for: others name their own nars.
        if item.source == 0 {
            let others = sources.nars.get(&item.narinfo.store_path).into_iter().flatten();
            places.extend(others.filter(|base| !self.silence.holds(base)).cloned());
        }
        places.extend(sources.narinfos.get(item.source).map(|source| source.url.clone()));
        places
    }

    async fn open(
        &self,
        base: &BaseUrl,
        item: &MissingPath,
        sources: &Sources,
    ) -> Result<Option<NarDownload>, FetchError> {
        let named_here = sources.narinfos.get(item.source).is_some_and(|source| source.url == *base);
        if named_here {
            return self.client.nar(base, &item.narinfo).await.map(Some);
        }
        // Another place has the nar under a name of its own; what it gives must be what the server vouches for.
        let Some(theirs) = self.neighbours.narinfo(base, &item.narinfo.store_path.hash()).await? else {
            return Ok(None);
        };
        let same = theirs.store_path == item.narinfo.store_path
            && theirs.nar_hash == item.narinfo.nar_hash
            && theirs.nar_size == item.narinfo.nar_size;
        if !same {
            debug!(store.path = %theirs.store_path, "{base} has another {}", theirs.store_path);
            return Ok(None);
        }
        self.neighbours.nar(base, &theirs).await.map(Some)
    }

    /// Gives what passes on to a Guix daemon what other workers have, if any of `missing` is such.
    fn relay(&self, missing: &[MissingPath], sources: &Sources) -> Option<&Relay> {
        if !missing.iter().any(|item| self.places(item, sources).len() > 1) {
            return None;
        }
        let start = || {
            let started = Relay::start(self.client.clone(), self.neighbours.clone(), self.silence.clone());
            started
                .inspect_err(|error| {
                    warn!(
                        error = error as &dyn std::error::Error,
                        "cannot pass inputs on to the build daemon"
                    );
                })
                .ok()
        };
        self.relay.get_or_init(start).as_ref()
    }

    fn flight(&self, path: &StorePath) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(path).and_then(Weak::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::default();
        flights.insert(path.clone(), Arc::downgrade(&flight));
        flight
    }
}

/// Asks a daemon what is valid, after it was told to keep it.
struct Kept<'a>(&'a mut dyn BuildDaemon);

#[async_trait]
impl ValidPaths for Kept<'_> {
    async fn valid(&mut self, paths: BTreeSet<StorePath>) -> Result<BTreeSet<StorePath>, AskError> {
        for path in &paths {
            self.0.add_temp_root(path).await?;
        }
        Ok(self.0.query_valid_paths(&paths).await?)
    }
}
