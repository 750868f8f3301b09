//! Gives a Guix daemon what other workers have built.
//!
//! The daemon's substituter takes a nar from whom it has the narinfo from, and a narinfo only with a signature that it trusts: the farm's server's. So the worker
//! serves, to its own machine alone, the server's narinfos word by word, and under the names in them the nars of those who built them, or else the server's.
//! The daemon checks what it gets as ever.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use hauberk_publish::client::{BaseUrl, SubstituteClient};
use hauberk_publish::{PublishConfig, PublishServer, item_nar_url};
use hauberk_store::narinfo::Compression;
use hauberk_store::{NarInfo, StorePathHash};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info};

use super::silence::Silence;

/// Serves this machine's daemon.
#[derive(Debug)]
pub(crate) struct Relay {
    url: String,
    shelf: Arc<Shelf>,
    _stop: DropGuard,
}

/// What is passed on.
#[derive(Debug)]
struct Shelf {
    /// Asks the farm's server.
    client: SubstituteClient,
    /// Asks other workers.
    neighbours: SubstituteClient,
    silence: Silence,
    items: Mutex<HashMap<StorePathHash, Item>>,
}

#[derive(Debug)]
struct Item {
    passed: Passed,
    /// Attempts that want it.
    users: usize,
    /// Workers that its nar was taken from.
    givers: BTreeSet<BaseUrl>,
}

/// An item that is to be passed on.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    /// What the server says of it.
    pub(crate) narinfo: NarInfo,
    /// The server.
    pub(crate) server: BaseUrl,
    /// Who built it.
    pub(crate) places: Vec<BaseUrl>,
}

/// Has items passed on until it is dropped.
#[derive(Debug)]
pub(crate) struct Passing<'r> {
    relay: &'r Relay,
    hashes: Vec<StorePathHash>,
}

impl Relay {
    /// Starts on a port that the system chooses.
    ///
    /// # Errors
    /// No port, or no thread.
    pub(crate) fn start(
        client: SubstituteClient,
        neighbours: SubstituteClient,
        silence: Silence,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let url = format!("http://{}", listener.local_addr()?);
        let directory = client.store_directory().clone();
        let shelf = Arc::new(Shelf { client, neighbours, silence, items: Mutex::default() });
        let relay: Arc<dyn hauberk_publish::Relay> = Arc::clone(&shelf) as _;
        let config = PublishConfig { relay: Some(relay), ..PublishConfig::new(directory) };
        let stop = CancellationToken::new();
        // Nobody waits for its end: it has nothing to lose.
        drop(PublishServer::new(listener, config).spawn_on_own_runtime(1, stop.clone())?);
        Ok(Self { url, shelf, _stop: stop.drop_guard() })
    }

    /// Gives its URL, for the daemon.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Passes on these items.
    pub(crate) fn pass_on(&self, all: Vec<Passed>) -> Passing<'_> {
        let mut items = self.shelf.items();
        let mut hashes = Vec::with_capacity(all.len());
        for passed in all {
            let hash = passed.narinfo.store_path.hash();
            hashes.push(hash);
            match items.get_mut(&hash) {
                Some(item) => {
                    item.passed = passed;
                    item.users += 1;
                }
                None => {
                    items.insert(hash, Item { passed, users: 1, givers: BTreeSet::new() });
                }
            }
        }
        drop(items);
        Passing { relay: self, hashes }
    }
}

impl Passing<'_> {
    /// Gives the URL at which the items are.
    pub(crate) fn url(&self) -> &str {
        self.relay.url()
    }

    /// Has those not be asked for a while that gave any of the items, as the daemon did not take one.
    pub(crate) fn avoid_givers(&self) {
        let items = self.relay.shelf.items();
        let givers = self.hashes.iter().filter_map(|hash| items.get(hash)).flat_map(|item| &item.givers);
        givers.for_each(|base| self.relay.shelf.silence.avoid(base));
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        let mut items = self.relay.shelf.items();
        for hash in &self.hashes {
            let Some(item) = items.get_mut(hash) else { continue };
            item.users -= 1;
            if item.users == 0 {
                items.remove(hash);
            }
        }
    }
}

impl Shelf {
    fn items(&self) -> MutexGuard<'_, HashMap<StorePathHash, Item>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds what has this name in a narinfo, and how that is packed.
    fn named(&self, name: &str) -> Option<(Passed, Compression)> {
        let items = self.items();
        items.values().find_map(|item| {
            let place = item.passed.narinfo.urls.iter().find(|place| place.url == name)?;
            Some((item.passed.clone(), place.compression.clone()))
        })
    }
}

#[async_trait]
impl hauberk_publish::Relay for Shelf {
    fn narinfo(&self, hash: &StorePathHash) -> Option<Bytes> {
        self.items().get(hash).map(|item| item.passed.narinfo.to_string().into())
    }

    async fn nar(&self, name: &str) -> Option<Box<dyn Read + Send>> {
        let (Passed { narinfo, server, places }, compression) = self.named(name)?;
        let path = &narinfo.store_path;
        let theirs = item_nar_url(&compression, path);
        for base in places.iter().filter(|base| !self.silence.holds(base)) {
            match self.neighbours.unchecked_nar(base, path, &theirs).await {
                Ok(nar) => {
                    info!(store.path = %path, "the build daemon gets {path} from {base}");
                    if let Some(item) = self.items().get_mut(&path.hash()) {
                        item.givers.insert(base.clone());
                    }
                    return Some(Box::new(nar));
                }
                Err(error) => {
                    debug!(store.path = %path, error = &error as &dyn std::error::Error, "{base} does not give {path}");
                    self.silence.note(base, &error);
                }
            }
        }
        match self.client.unchecked_nar(&server, path, name).await {
            Ok(nar) => Some(Box::new(nar)),
            Err(error) => {
                debug!(store.path = %path, error = &error as &dyn std::error::Error, "{server} does not give {path}");
                None
            }
        }
    }
}
