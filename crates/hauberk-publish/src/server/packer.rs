//! Packing store items into the cache while clients wait for nothing.

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use hauberk_store::StorePathHash;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::store_source::StoreItem;
use crate::{
    cache::{Cache, CacheError, Method},
    recent::Recent,
    signer::Signer,
};

/// How store items that clients ask for get into the cache.
#[derive(Debug, Clone)]
pub struct Packing {
    /// How they are packed. Narinfos for Nix name the first alone, as its clients know no choice; those for Guix all of them.
    pub methods: Vec<Method>,
    /// Items packed at once, each by a thread of its own.
    pub threads: usize,
    /// Items that wait, at most. Beyond them, items are served from the store, and packed when they are asked for again.
    pub queue: usize,
    /// Items whose nar is smaller are served from the store.
    pub least: u64,
    /// What clients get in the meantime.
    pub meanwhile: Meanwhile,
}

/// What clients get while an item is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    /// The item as it comes from the store.
    Stream,
    /// The answer that it is not here, good for this time.
    NotYet(Duration),
}

impl Packing {
    /// Packs with these methods, two items at once, whatever is not tiny, and serves from the store meanwhile.
    pub fn new(methods: Vec<Method>) -> Self {
        Self { methods, threads: 2, queue: 4096, least: 16 * 1024, meanwhile: Meanwhile::Stream }
    }
}

/// How long an item that could not be packed is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(600);

/// Items that could not be packed and are remembered, at most twice as many.
const FAILURES: usize = 1024;

/// Packs items, one after the other, on threads that end with it.
pub(super) struct Packer {
    packing: Packing,
    queue: SyncSender<Arc<StoreItem>>,
    state: Arc<State>,
}

struct State {
    /// Items that wait or are being packed.
    waiting: Mutex<HashSet<StorePathHash>>,
    failed: Recent<StorePathHash, Instant>,
    packed: Family<Outcome, Counter>,
}

/// How packing an item ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

impl Packer {
    /// Starts its threads. On `stop` they leave what they are at.
    pub(super) fn start(
        packing: Packing,
        cache: &Cache,
        signer: &Signer,
        stop: &CancellationToken,
    ) -> io::Result<Self> {
        let (queue, items) = sync_channel(packing.queue.max(1));
        let items = Arc::new(Mutex::new(items));
        let state = Arc::new(State {
            waiting: Mutex::default(),
            failed: Recent::new(FAILURES),
            packed: Family::default(),
        });
        for number in 0..packing.threads.max(1) {
            let worker = Worker {
                items: Arc::clone(&items),
                state: Arc::clone(&state),
                cache: cache.clone(),
                signer: signer.clone(),
                methods: packing.methods.clone(),
                stop: stop.clone(),
            };
            let span = tracing::Span::current();
            thread::Builder::new()
                .name(format!("pack-{number}"))
                .spawn(move || span.in_scope(|| worker.run()))?;
        }
        Ok(Self { packing, queue, state })
    }

    /// Adds what waits, and what was done, to `registry`.
    pub(super) fn register(&self, registry: &mut Registry) {
        let waiting: Gauge = Gauge::default();
        let count = self.state.waiting.lock().unwrap_or_else(PoisonError::into_inner).len();
        waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
        registry.register(
            "packing",
            "Items of the store that wait to be packed, or are being packed",
            waiting,
        );
        let help = "Items of the store that were packed into the cache, or could not be";
        registry.register("packed", help, self.state.packed.clone());
    }

    /// Has an item packed, unless it is too small or cannot be. Says what the client gets meanwhile.
    pub(super) fn ask(&self, item: &Arc<StoreItem>) -> Meanwhile {
        let hash = item.info.path.hash();
        let failed = self.state.failed.get(&hash).is_some_and(|at| at.elapsed() < LEFT_ALONE);
        if failed || item.nar_size().is_some_and(|size| size < self.packing.least) {
            return Meanwhile::Stream;
        }
        let mut waiting = self.state.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.contains(&hash) {
            return self.packing.meanwhile;
        }
        match self.queue.try_send(Arc::clone(item)) {
            Ok(()) => {
                waiting.insert(hash);
                self.packing.meanwhile
            }
            Err(TrySendError::Full(_)) => {
                debug!(store.path = %item.info.path, "too many items wait to be packed");
                Meanwhile::Stream
            }
            Err(TrySendError::Disconnected(_)) => Meanwhile::Stream,
        }
    }
}

struct Worker {
    items: Arc<Mutex<Receiver<Arc<StoreItem>>>>,
    state: Arc<State>,
    cache: Cache,
    signer: Signer,
    methods: Vec<Method>,
    stop: CancellationToken,
}

impl Worker {
    fn run(self) {
        loop {
            // Those who wait for the lock wait for the same.
            let next = self.items.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(item) = next else { return };
            if self.stop.is_cancelled() {
                return;
            }
            let (path, hash) = (&item.info.path, item.info.path.hash());
            let began = Instant::now();
            match self.pack(&item) {
                Ok(()) => {
                    self.state.packed.get_or_create(&Outcome { result: "done" }).inc();
                    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                    debug!(store.path = %path, duration_ms, "packed {path} into the cache");
                }
                Err(CacheError::Stopped) => return,
                Err(failure) => {
                    let failure_ref = &failure as &dyn std::error::Error;
                    match &failure {
                        CacheError::Damaged { .. } => error!(error = failure_ref, "cannot pack {path}"),
                        _ => warn!(error = failure_ref, "cannot pack {path}"),
                    }
                    self.state.packed.get_or_create(&Outcome { result: "failed" }).inc();
                    self.state.failed.insert(hash, Instant::now());
                }
            }
            self.state.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash);
        }
    }

    fn pack(&self, item: &StoreItem) -> Result<(), CacheError> {
        let go_on = || !self.stop.is_cancelled();
        let pending = self.cache.pack_blocking(&item.info, &item.file, &self.methods, &go_on)?;
        self.cache.commit_blocking(vec![pending], &self.signer).map(drop)
    }
}
