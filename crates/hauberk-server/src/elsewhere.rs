//! What other servers of the farm have and this one does not: fetched when somebody asks for it, checked against the keys that the
//! database names for that server, and kept in this server's cache, signed with its own key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hauberk_database::servers::{self, Publisher};
use hauberk_database::{Database, DatabaseError, ServerId};
use hauberk_publish::cache::CacheError;
use hauberk_publish::client::{BaseUrl, ClientConfig, ClientError, FetchError, SubstituteClient};
use hauberk_publish::server::{Brought, Elsewhere};
use hauberk_publish::{Cache, Signer, TrustedKeys};
use hauberk_store::signature::PublicKey;
use hauberk_store::{StoreDirectory, StorePathHash};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// What the database says of other servers is asked for anew after so long.
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// What no server had is not asked for again for so long.
const ABSENT_FOR: Duration = Duration::from_secs(5);
/// A server that could not be asked is left alone for so long.
const SILENT_FOR: Duration = Duration::from_secs(30);
/// Absent items that are remembered at most.
const REMEMBERED: usize = 1 << 16;
/// Items that are looked for at once; more wait.
const AT_ONCE: usize = 64;
/// Who asks for an item waits so long for it: less than a client waits for a narinfo.
const PATIENCE: Duration = Duration::from_secs(20);
/// After this an item that is still coming is worth asking for again.
const COME_BACK: Duration = Duration::from_secs(5);

/// Why an item could not be taken from another server.
#[derive(Debug, thiserror::Error)]
enum BringError {
    #[error("cannot fetch it")]
    Fetch(#[from] FetchError),
    #[error("cannot store it")]
    Cache(#[from] CacheError),
}

/// Brings items of one store from the farm's other servers. Clones are the same.
#[derive(Clone)]
pub(crate) struct OtherCaches(Arc<Shared>);

struct Shared {
    database: Database,
    server: ServerId,
    directory: StoreDirectory,
    client: SubstituteClient,
    cache: Cache,
    signer: Signer,
    /// Where items are fetched: those who ask for them may go.
    runtime: Handle,
    places: Semaphore,
    known: tokio::sync::Mutex<Option<(Instant, Arc<Vec<Other>>)>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    coming: HashMap<StorePathHash, watch::Receiver<Option<Brought>>>,
    absent: HashMap<StorePathHash, Instant>,
    silent: HashMap<String, Instant>,
}

/// Another server.
struct Other {
    name: String,
    url: BaseUrl,
    trusted: TrustedKeys,
}

impl OtherCaches {
    /// Takes what a server has of one store. Items are fetched on the runtime that this is called on.
    ///
    /// # Errors
    /// A system that cannot give what connections need.
    pub(crate) fn new(
        database: Database,
        server: ServerId,
        directory: StoreDirectory,
        cache: Cache,
        signer: Signer,
    ) -> Result<Self, ClientError> {
        let client = SubstituteClient::new(directory.clone(), ClientConfig::peer())?;
        Ok(Self(Arc::new(Shared {
            database,
            server,
            directory,
            client,
            cache,
            signer,
            runtime: Handle::current(),
            places: Semaphore::new(AT_ONCE),
            known: tokio::sync::Mutex::new(None),
            state: Mutex::default(),
        })))
    }
}

#[async_trait]
impl Elsewhere for OtherCaches {
    async fn bring(&self, hash: &StorePathHash) -> Brought {
        let mut coming = match self.0.begin(hash, Instant::now()) {
            Begun::Absent => return Brought::Nowhere,
            Begun::Coming(coming) => coming,
            Begun::New(sender, coming) => {
                let (shared, hash) = (Arc::clone(&self.0), *hash);
                self.0.runtime.spawn(async move {
                    let brought = shared.look(&hash).await;
                    shared.end(&hash, brought, Instant::now());
                    // Nobody may wait any more.
                    let _ = sender.send(Some(brought));
                });
                coming
            }
        };
        match timeout(PATIENCE, coming.wait_for(Option::is_some)).await {
            Ok(Ok(brought)) => brought.unwrap_or(Brought::Nowhere),
            // The one that looked is gone with the server.
            Ok(Err(_)) => Brought::Nowhere,
            Err(_) => Brought::Coming(COME_BACK),
        }
    }
}

/// What there is to do for who asks.
enum Begun {
    /// Nothing: nobody has it.
    Absent,
    /// Somebody looks for it already.
    Coming(watch::Receiver<Option<Brought>>),
    /// It has to be looked for.
    New(watch::Sender<Option<Brought>>, watch::Receiver<Option<Brought>>),
}

impl Shared {
    fn begin(&self, hash: &StorePathHash, now: Instant) -> Begun {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.absent.get(hash).is_some_and(|since| now.saturating_duration_since(*since) < ABSENT_FOR) {
            return Begun::Absent;
        }
        if let Some(coming) = state.coming.get(hash) {
            return Begun::Coming(coming.clone());
        }
        let (sender, receiver) = watch::channel(None);
        state.coming.insert(*hash, receiver.clone());
        Begun::New(sender, receiver)
    }

    fn end(&self, hash: &StorePathHash, brought: Brought, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.coming.remove(hash);
        if brought == Brought::Nowhere {
            if state.absent.len() >= REMEMBERED {
                state.absent.retain(|_, since| now.saturating_duration_since(*since) < ABSENT_FOR);
            }
            if state.absent.len() < REMEMBERED {
                state.absent.insert(*hash, now);
            }
        }
    }

    async fn look(&self, hash: &StorePathHash) -> Brought {
        let Ok(_place) = self.places.acquire().await else { return Brought::Nowhere };
        let others = match self.others().await {
            Ok(others) => others,
            Err(error) => {
                debug!(error = &error as &dyn std::error::Error, "cannot learn of other servers now");
                return Brought::Nowhere;
            }
        };
        for other in others.iter() {
            if self.is_silent(&other.name) {
                continue;
            }
            match self.bring_from(other, hash).await {
                Ok(true) => return Brought::Here,
                Ok(false) => {}
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error, server.name = %other.name,
                        "cannot take what {} has: {hash}", other.name
                    );
                    if matches!(&error, BringError::Fetch(error) if error.is_transient()) {
                        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                        state.silent.insert(other.name.clone(), Instant::now());
                    }
                }
            }
        }
        Brought::Nowhere
    }

    fn is_silent(&self, name: &str) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.silent.get(name).is_some_and(|since| since.elapsed() < SILENT_FOR)
    }

    /// Takes an item from another server. False when that does not have it, or does not sign it with one of its keys.
    async fn bring_from(&self, other: &Other, hash: &StorePathHash) -> Result<bool, BringError> {
        let Some(narinfo) = self.client.narinfo(&other.url, hash).await? else { return Ok(false) };
        let path = &narinfo.store_path;
        if !other.trusted.vouch_for(&narinfo) {
            warn!(
                server.name = %other.name, store.path = %path,
                "{} offers {path} without a signature of its own: it is not taken", other.name
            );
            return Ok(false);
        }
        let pending = self.client.fetch(&other.url, &narinfo, &other.trusted, &self.cache).await?;
        self.cache.commit(vec![pending], &self.signer).await?;
        info!(server.name = %other.name, store.path = %path, "took {path} from {}", other.name);
        Ok(true)
    }

    /// The other servers, as the database has them.
    async fn others(&self) -> Result<Arc<Vec<Other>>, DatabaseError> {
        let mut known = self.known.lock().await;
        if let Some((since, others)) = &*known
            && since.elapsed() < KNOWN_FOR
        {
            return Ok(Arc::clone(others));
        }
        let client = self.database.client().await?;
        let publishers = servers::publishers(&client, self.server, self.directory.as_str()).await?;
        let others = Arc::new(publishers.into_iter().filter_map(other).collect::<Vec<_>>());
        *known = Some((Instant::now(), Arc::clone(&others)));
        Ok(others)
    }
}

/// Reads what the database says of a server; one that cannot be read is passed over.
fn other(publisher: Publisher) -> Option<Other> {
    let Publisher { name, url, keys } = publisher;
    let url = BaseUrl::parse(&url)
        .inspect_err(|error| warn!(error = error as &dyn std::error::Error, "{name} cannot be asked"))
        .ok()?;
    let (mut nix, mut guix) = (Vec::new(), Vec::new());
    for key in keys {
        match key.parse() {
            Ok(PublicKey::Nix(key)) => nix.push(key),
            Ok(PublicKey::Guix(key)) => guix.push(key),
            Err(error) => warn!(%error, "a key of server {name} cannot be read"),
        }
    }
    let trusted = match (nix.is_empty(), guix.is_empty()) {
        (true, true) => return None,
        (false, _) => TrustedKeys::nix(nix),
        (true, false) => TrustedKeys::guix(guix.into_iter().collect()),
    };
    Some(Other { name, url, trusted })
}
