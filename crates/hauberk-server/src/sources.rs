//! Where the results of workers are: what each last said at its Hello, so that a fetch need not ask the database, and whether it
//! is there.
//!
//! The publish server at the address that a worker gave must sign a nonce with the worker's key. Where none answers, as behind a translation of
//! addresses, or somebody else does, the worker is asked to upload its results. Nobody waits for this to join.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hauberk_database::WorkerId;
use hauberk_publish::client::{BaseUrl, ClientConfig, ClientError};
use hauberk_publish::{SubstituteClient, TrustedKeys};
use hauberk_store::StoreDirectory;
use hauberk_store::signature::PublicKey;
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};

/// Workers that are looked for at once.
const LOOKS: usize = 64;
/// Time to connect to a worker when it is looked for, and for its answer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

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

/// How the results of a worker come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// That is being found out.
    Looking,
    /// They are fetched.
    Fetched,
    /// It uploads them.
    Uploaded,
}

/// The sources of all workers that have joined since the server's start. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: Mutex<HashMap<WorkerId, Known>>,
    changes: watch::Sender<u64>,
    scout: Option<Scout>,
}

#[derive(Debug)]
struct Known {
    source: Arc<Source>,
    way: Way,
    /// Tells one look at it from a later one.
    look: u64,
}

/// Looks for workers.
#[derive(Debug)]
struct Scout {
    client: SubstituteClient,
    looks: Semaphore,
}

impl Sources {
    /// Sources that are looked for. Without, all are believed to be where they say.
    ///
    /// # Errors
    /// A system that cannot give what connections need.
    pub(crate) fn looking() -> Result<Self, ClientError> {
        let config =
            ClientConfig { connect_timeout: PATIENCE, narinfo_timeout: PATIENCE, ..ClientConfig::farm() };
        // No item is asked for, so the store does not matter.
        let client = SubstituteClient::new(StoreDirectory::nix(), config)?;
        let scout = Some(Scout { client, looks: Semaphore::new(LOOKS) });
        Ok(Self(Arc::new(Inner { scout, ..Inner::default() })))
    }

    /// A worker joined, and says that its results are here from now on.
    pub(crate) fn put(&self, worker: WorkerId, source: Source) {
        let source = Arc::new(source);
        {
            let mut known = self.known();
            let look = known.get(&worker).map_or(0, |known| known.look + 1);
            let way = if source.publish_url.is_some() { Way::Fetched } else { Way::Uploaded };
            known.insert(worker, Known { source, way, look });
        }
        self.look(worker);
    }

    /// Tells where a worker's results are; nothing if it has not joined since the server's start.
    pub(crate) fn get(&self, worker: WorkerId) -> Option<Arc<Source>> {
        self.known().get(&worker).map(|known| Arc::clone(&known.source))
    }

    /// Finds out anew whether a worker that gave an address is there.
    pub(crate) fn look(&self, worker: WorkerId) {
        let look = {
            let mut known = self.known();
            let Some(known) = known.get_mut(&worker) else { return };
            let there = known.source.publish_url.is_some() && self.0.scout.is_some();
            if there {
                known.way = Way::Looking;
                known.look += 1;
            }
            there.then(|| (Arc::clone(&known.source), known.look))
        };
        self.changed();
        let Some((source, look)) = look else { return };
        let sources = self.clone();
        tokio::spawn(async move {
            let way = sources.way_of(&source).await;
            if let Some(known) = sources.known().get_mut(&worker).filter(|known| known.look == look) {
                known.way = way;
            }
            sources.changed();
        });
    }

    /// Finds out how the results of a worker come.
    async fn way_of(&self, source: &Source) -> Way {
        let Some(scout) = &self.0.scout else { return Way::Fetched };
        let (name, address) = (&source.worker, source.publish_url.as_deref().unwrap_or_default());
        let key: Option<PublicKey> = source.signing_key.as_deref().and_then(|key| key.parse().ok());
        let (Ok(base), Some(key)) = (BaseUrl::parse(address), key) else {
            warn!(worker.name = %name, "{name} has a publish URL or signing key that cannot be used, it is to upload");
            return Way::Uploaded;
        };
        let _permit = scout.looks.acquire().await;
        match scout.client.proves_identity(&base, &TrustedKeys::one(key)).await {
            Ok(true) => Way::Fetched,
            Ok(false) => {
                warn!(worker.name = %name, "what answers at {base} is not {name}, which is to upload its results");
                Way::Uploaded
            }
            Err(error) => {
                info!(
                    worker.name = %name, error = &error as &dyn std::error::Error,
                    "{name} cannot be reached at {base}, it is to upload its results"
                );
                Way::Uploaded
            }
        }
    }

    /// Follows what is found out.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Tells of each worker of which it is known whether it uploads, and a number that changes when it joins anew.
    pub(crate) fn found(&self) -> HashMap<WorkerId, (u64, bool)> {
        let known = self.known();
        let found = known.iter().filter(|(_, known)| known.way != Way::Looking);
        found.map(|(worker, known)| (*worker, (known.look, known.way == Way::Uploaded))).collect()
    }

    /// Gives the publish server of a worker, if it was there when it was looked for.
    pub(crate) fn reached(&self, worker: WorkerId) -> Option<String> {
        let known = self.known();
        let known = known.get(&worker).filter(|known| known.way == Way::Fetched)?;
        known.source.publish_url.clone()
    }

    /// Waits until it is known how the results of a worker come; nothing if it has not joined since the server's start.
    pub(crate) async fn way(&self, worker: WorkerId) -> Option<Way> {
        let mut changes = self.0.changes.subscribe();
        loop {
            match self.known().get(&worker).map(|known| known.way) {
                Some(Way::Looking) => {}
                way => return way,
            }
            // The sender lives as long as this.
            let _ = changes.changed().await;
        }
    }

    /// Waits until a worker is one that uploads.
    pub(crate) async fn uploads(&self, worker: WorkerId) {
        let mut changes = self.0.changes.subscribe();
        while self.known().get(&worker).is_none_or(|known| known.way != Way::Uploaded) {
            let _ = changes.changed().await;
        }
    }

    fn changed(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<WorkerId, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use hauberk_publish::{PublishConfig, PublishServer, Signer};
    use hauberk_store::signature::nix::SecretKey;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn source(url: Option<&str>, key: Option<&SecretKey>) -> Source {
        Source {
            worker: "w".to_owned(),
            publish_url: url.map(str::to_owned),
            signing_key: key.map(|key| key.public_key().to_string()),
        }
    }

    #[test]
    fn the_last_hello_counts() {
        let sources = Sources::default();
        let (worker, shared) = (WorkerId::new(1), sources.clone());
        assert_eq!(sources.get(worker), None);
        shared.put(worker, source(Some("http://a"), None));
        shared.put(worker, source(Some("http://b"), None));
        assert_eq!(*sources.get(worker).unwrap(), source(Some("http://b"), None));
    }

    #[tokio::test]
    async fn whoever_is_not_there_uploads() {
        let [ours, theirs] = ["w-1", "x-1"].map(|name| SecretKey::generate(name).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut config = PublishConfig::new(StoreDirectory::nix());
        config.signer = Signer::nix([ours.clone()]);
        let stop = CancellationToken::new();
        let running = PublishServer::new(listener, config).spawn_on_own_runtime(1, stop.clone()).unwrap();

        let sources = Sources::looking().unwrap();
        let worker = WorkerId::new(1);
        assert_eq!(sources.way(worker).await, None);
        for (url, key, expected) in [
            (Some(url.as_str()), Some(&ours), Way::Fetched),
            (Some(&url), Some(&theirs), Way::Uploaded),
            (Some(&url), None, Way::Uploaded),
            (None, Some(&ours), Way::Uploaded),
            (Some("nonsense"), Some(&ours), Way::Uploaded),
            // Nobody listens there.
            (Some("http://127.0.0.1:1"), Some(&ours), Way::Uploaded),
        ] {
            sources.put(worker, source(url, key));
            assert_eq!(sources.way(worker).await, Some(expected), "{url:?}");
        }
        sources.uploads(worker).await;

        sources.put(worker, source(Some(&url), Some(&ours)));
        assert_eq!(sources.way(worker).await, Some(Way::Fetched));
        stop.cancel();
        running.join().await.unwrap();
        sources.look(worker);
        sources.uploads(worker).await;
    }
}
