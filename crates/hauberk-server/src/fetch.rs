//! The fetcher: brings the outputs of finished attempts into the farm's cache, from where their workers serve them, or from the inbox where
//! a worker that cannot be reached has to put them.
//!
//! An attempt's outputs come together or not at all: each narinfo must carry the signature of the worker's pinned key and
//! the hash the worker reported, each nar is verified while it streams, and whatever the outputs refer to must be in the cache, the
//! local store or a substitute server outside the farm, or comes along. Finished downloads of several attempts are made durable and visible together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use hauberk_daemon::Pool;
use hauberk_database::attempts;
use hauberk_database::dispatch::{self, BuiltOutput, KnownPath};
use hauberk_database::{AttemptId, Database, DatabaseError, Epoch};
use hauberk_protocol::proto::Upload;
use hauberk_publish::cache::{CacheError, Committed, Pending};
use hauberk_publish::client::{
    AskError, BaseUrl, Closure, ClosureError, ClosureLimits, FetchError, MissingPath, Source,
    SubstituteClient, ValidPaths,
};
use hauberk_publish::inbox::{InboxError, Reception};
use hauberk_publish::{Cache, Inbox, Signer, TrustedKeys};
use hauberk_store::signature::PublicKey;
use hauberk_store::{StoreDirectory, StorePath};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::metrics::{FetchMetrics, Fetched};
use crate::sink::StoreSink;
use crate::sources::{Source as ResultSource, Sources, Way};
use crate::step::{FetchJob, UploadRequest};
use crate::upstreams::Upstreams;

/// Times that outputs are tried to be fetched before the attempt is given up.
const TRIES: u32 = 5;
/// The pause after the first try that failed, multiplied by four each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A fetch that takes longer than this is shown as a state of its own.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// Others that come within this time are shown together, at most so many.
const SHOWN_TOGETHER: Duration = Duration::from_millis(100);
const SHOWN: usize = 1000;
/// Nars of one attempt that are taken in at once. For fetching, the client has its own bound.
const NARS: usize = 8;
/// Nars of one attempt that are checked at once while they are uploaded: each holds a thread.
const UPLOADED_NARS: usize = 4;
/// Attempts whose outputs are uploaded at once. They wait for networks that are slow, so they have a bound of their own.
pub(crate) const RECEPTIONS: usize = 32;
/// Paths that may be uploaded for one attempt: as many as one message names.
const MOST_UPLOADED: usize = 50_000;
/// Attempts whose downloads are made visible together at most.
const BATCH: usize = 64;

/// Why the outputs of an attempt could not be fetched.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error("the database is away")]
    Database(#[from] DatabaseError),
    #[error("attempt {0} is not in the database")]
    NoAttempt(AttemptId),
    #[error("{worker} gave {given}, and {expected} were expected")]
    WrongOutputs { worker: String, given: String, expected: String },
    #[error("{worker} has no publish server that can be reached")]
    NoPublishUrl { worker: String },
    #[error("{worker} has a publish URL or signing key that cannot be used")]
    BadSource {
        worker: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{worker} publishes {path} with another hash than it reported")]
    OtherHash { worker: String, path: StorePath },
    #[error("{worker} does not have {}", list(.paths))]
    Absent { worker: String, paths: Vec<StorePath> },
    #[error("cannot take uploads")]
    Inbox(#[from] InboxError),
    #[error("cannot fetch from {worker}")]
    Fetch {
        worker: String,
        #[source]
        source: Box<FetchError>,
    },
    #[error("the outputs of attempt {0} belong to a store that this server does not hold")]
    OtherStore(AttemptId),
    #[error("cannot find what the outputs refer to")]
    Closure(#[source] Box<ClosureError>),
    #[error("cannot store the outputs")]
    Cache(#[source] Arc<CacheError>),
    #[error("the server is ending")]
    Ending,
}

impl JobError {
    /// Whether the same job may succeed in a while.
    fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => error.is_transient(),
            Self::Fetch { source, .. } => source.is_transient(),
            Self::Cache(_) | Self::Inbox(_) | Self::Ending => true,
            Self::Closure(error) => matches!(**error, ClosureError::Ask(_)),
            Self::NoAttempt(_)
            | Self::WrongOutputs { .. }
            | Self::NoPublishUrl { .. }
            | Self::BadSource { .. }
            | Self::OtherHash { .. }
            | Self::OtherStore(_)
            | Self::Absent { .. } => false,
        }
    }
}

impl JobError {
    /// Whether the worker's publish server was not reached.
    fn is_unreachable(&self) -> bool {
        let unreachable =
            |error: &FetchError| matches!(error, FetchError::Unreachable { .. } | FetchError::Late { .. });
        matches!(self, Self::Fetch { source, .. } if unreachable(source))
    }
}

fn list(paths: &[StorePath]) -> String {
    paths.iter().map(StorePath::to_string).collect::<Vec<_>>().join(", ")
}

/// Tells an error with all its causes in a line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// See the module's description.
pub(crate) struct Fetcher {
    /// Knows what is to be fetched, and from where.
    pub(crate) database: Database,
    /// The start of the server that fetches.
    pub(crate) epoch: Epoch,
    /// Where workers' results are.
    pub(crate) sources: Sources,
    /// Where outputs go, by their store directory.
    pub(crate) shelves: HashMap<StoreDirectory, Shelf>,
    /// Attempts whose outputs are fetched at once.
    pub(crate) parallel: usize,
    /// Asked for whatever was fetched.
    pub(crate) trigger: Option<BaseUrl>,
    /// To tell workers what they are to upload.
    pub(crate) ask_upload: UnboundedSender<UploadRequest>,
    /// Room for attempts whose outputs are uploaded, [`RECEPTIONS`] of them.
    pub(crate) receptions: Semaphore,
    /// Counts them.
    pub(crate) metrics: FetchMetrics,
}

/// Where the outputs of one store directory go.
pub(crate) struct Shelf {
    /// Speaks to workers' publish servers.
    pub(crate) client: SubstituteClient,
    /// Keeps outputs.
    pub(crate) cache: Cache,
    /// Receives those that cannot be fetched.
    pub(crate) inbox: Inbox,
    /// Signs them.
    pub(crate) signer: Signer,
    /// The local store, if the server has one.
    pub(crate) store: Option<Pool>,
    /// Substitute servers that users of the farm have as well.
    pub(crate) upstreams: Upstreams,
    /// Adds them to that store as well, if that is wanted.
    pub(crate) sink: Option<StoreSink>,
}

type Done = (FetchJob, Result<Vec<KnownPath>, String>);
/// The ways to those who make downloads durable, by store directory.
type Committers = HashMap<StoreDirectory, UnboundedSender<ToStore>>;
type Stored = Result<Vec<Committed>, Arc<CacheError>>;

impl Fetcher {
    /// Fetches until nobody sends jobs any more.
    pub(crate) async fn run(self, mut jobs: UnboundedReceiver<FetchJob>, done: UnboundedSender<Done>) {
        let (show, shown) = unbounded_channel();
        tokio::spawn(show_together(self.database.clone(), self.epoch, shown));
        let permits = Arc::new(Semaphore::new(self.parallel));
        let mut committers = HashMap::new();
        for (directory, shelf) in &self.shelves {
            let (store, to_store) = unbounded_channel();
            tokio::spawn(commit_together(shelf.cache.clone(), shelf.signer.clone(), to_store));
            committers.insert(directory.clone(), store);
        }
        let committers = Arc::new(committers);
        let fetcher = Arc::new(self);
        while let Some(job) = jobs.recv().await {
            let (fetcher, permits) = (Arc::clone(&fetcher), Arc::clone(&permits));
            let (committers, show, done) = (Arc::clone(&committers), show.clone(), done.clone());
            tokio::spawn(async move {
                fetcher.metrics.opened();
                let result = fetcher.persist(&job, &permits, &committers, &show).await;
                fetcher.metrics.closed();
                // Nobody listens any more when the server is ending; the next start finds the job again.
                let _ = done.send((job, result));
            });
        }
    }

    /// Tries until it works, or will not work any more.
    async fn persist(
        &self,
        job: &FetchJob,
        permits: &Semaphore,
        committers: &Committers,
        show: &UnboundedSender<AttemptId>,
    ) -> Result<Vec<KnownPath>, String> {
        let mut tries = 0;
        let mut pause = FIRST_PAUSE;
        loop {
            let permit = permits.acquire().await;
            let began = Instant::now();
            let result = match permit {
                Ok(permit) => self.shown(job, committers, show, permit).await,
                Err(_) => Err(JobError::Ending),
            };
            let error = match result {
                Ok(outputs) => {
                    self.metrics.tried(Fetched::Done, began.elapsed());
                    return Ok(outputs);
                }
                Err(error) => error,
            };
            // What the farm's own database or disk lacks is no reason to give a good result up.
            let ours = matches!(
                error,
                JobError::Database(_) | JobError::Cache(_) | JobError::Inbox(_) | JobError::Ending
            );
            let counts = !ours;
            tries += u32::from(counts);
            let text = chain(&error);
            if !error.is_transient() || tries >= TRIES {
                self.metrics.tried(Fetched::Failed, began.elapsed());
                self.discard_uploads(job);
                return Err(text);
            }
            self.metrics.tried(Fetched::Again, began.elapsed());
            warn!(
                build.id = %job.build, attempt.id = %job.attempt,
                "cannot fetch the outputs of {} yet: {text}", job.name
            );
            if counts && let Err(error) = self.note_failure(job, pause, &text).await {
                debug!(error = &error as &dyn std::error::Error, "cannot record a failed fetch");
            }
            if error.is_unreachable() {
                self.sources.look(job.worker);
            }
            sleep(pause).await;
            if counts {
                pause *= 4;
            }
        }
    }

    async fn note_failure(&self, job: &FetchJob, pause: Duration, text: &str) -> Result<(), DatabaseError> {
        let client = self.database.client().await?;
        dispatch::fetch_failed(&client, job.attempt, self.epoch, pause.as_secs_f64(), text).await
    }

    /// Fetches, and shows that it does if it takes a while.
    async fn shown(
        &self,
        job: &FetchJob,
        committers: &Committers,
        show: &UnboundedSender<AttemptId>,
        permit: SemaphorePermit<'_>,
    ) -> Result<Vec<KnownPath>, JobError> {
        let mut fetch = Box::pin(self.fetch(job, committers, permit));
        tokio::select! {
            result = &mut fetch => return result,
            () = sleep(SHOWN_AFTER) => {}
        }
        // Nobody listens any more when the server is ending.
        let _ = show.send(job.attempt);
        fetch.await
    }

    async fn fetch(
        &self,
        job: &FetchJob,
        committers: &Committers,
        permit: SemaphorePermit<'_>,
    ) -> Result<Vec<KnownPath>, JobError> {
        let Facts { source, expected, reported } = self.facts(job).await?;
        let worker = source.worker.clone();
        check_outputs(&worker, &expected, &reported)?;

        let key = source.signing_key.as_deref().unwrap_or_default();
        let key: PublicKey = key
            .parse()
            .map_err(|error| JobError::BadSource { worker: worker.clone(), source: Box::new(error) })?;
        let trusted = TrustedKeys::one(key);
        // Of one directory all, as they are those of one derivation.
        let directory = reported.first().map(|output| output.path.directory().clone());
        let place = directory
            .and_then(|directory| Some((self.shelves.get(&directory)?, committers.get(&directory)?)));
        let (shelf, store) = place.ok_or(JobError::OtherStore(job.attempt))?;
        let wanted = Wanted { worker, trusted, reported, shelf };

        let pending = match self.sources.way(job.worker).await {
            Some(Way::Uploaded) => {
                drop(permit);
                self.receive(job, &wanted).await?
            }
            Some(Way::Fetched | Way::Looking) | None => tokio::select! {
                biased;
                fetched = self.fetch_from(&source, &wanted) => {
                    let pending = fetched?;
                    // Others may fetch while this one waits for the disk: the more come together there, the less each waits.
                    drop(permit);
                    pending
                }
                // It has just joined, or joined again, and cannot be reached.
                () = self.sources.uploads(job.worker) => {
                    drop(permit);
                    self.receive(job, &wanted).await?
                }
            },
        };
        let committed = store_together(store, pending).await?;
        let outputs = shelf.outputs_in_cache(&wanted.reported, &committed);
        shelf.add_to_store(&outputs).await;
        self.trigger(shelf, &outputs);
        Ok(outputs)
    }

    /// Takes the outputs from the worker's publish server.
    async fn fetch_from(&self, source: &ResultSource, wanted: &Wanted<'_>) -> Result<Vec<Pending>, JobError> {
        let worker = || wanted.worker.clone();
        let url = source.publish_url.as_ref().ok_or_else(|| JobError::NoPublishUrl { worker: worker() })?;
        let url = BaseUrl::parse(url)
            .map_err(|error| JobError::BadSource { worker: worker(), source: error.into() })?;
        self.take(wanted, &Origin::Worker(url)).await
    }

    /// Asks a substitute server for outputs, so that it prepares them. Nobody waits for it.
    fn trigger(&self, shelf: &Shelf, outputs: &[KnownPath]) {
        let Some(url) = &self.trigger else { return };
        let (url, client) = (url.clone(), shelf.client.clone());
        let paths: Vec<StorePath> = outputs.iter().map(|output| output.path.clone()).collect();
        tokio::spawn(async move {
            for path in paths {
                if let Err(error) = client.narinfo(&url, &path.hash()).await {
                    warn!(
                        store.path = %path, error = &error as &dyn std::error::Error,
                        "cannot ask {url} for {path}"
                    );
                }
            }
        });
    }

    /// Has the outputs uploaded, and takes them while they come.
    async fn receive(&self, job: &FetchJob, wanted: &Wanted<'_>) -> Result<Vec<Pending>, JobError> {
        let _room = self.receptions.acquire().await.map_err(|_| JobError::Ending)?;
        let inbox = &wanted.shelf.inbox;
        let number = upload_number(job);
        let pending = {
            let reception = Origin::Upload(inbox.receive(number, wanted.trusted.clone())?);
            let Origin::Upload(waiting) = &reception else { return Err(JobError::Ending) };
            tokio::select! {
                taken = self.take(wanted, &reception) => taken?,
                () = self.keep_asking(job, waiting) => return Err(JobError::Ending),
            }
        };
        inbox.discard(number)?;
        Ok(pending)
    }

    /// Tells the worker what is waited for, again whenever that grows. Ends when nobody listens.
    async fn keep_asking(&self, job: &FetchJob, reception: &Reception) {
        let mut changes = reception.changes();
        let mut asked = BTreeSet::new();
        loop {
            changes.borrow_and_update();
            let wanted = reception.asked();
            if wanted.len() > asked.len() {
                let upload = Upload {
                    token: reception.token().to_owned(),
                    path: reception.place(),
                    attempt: job.attempt.get(),
                    store_paths: wanted.iter().map(StorePath::to_string).collect(),
                };
                asked = wanted;
                if self.ask_upload.send(UploadRequest { worker: job.worker, upload }).is_err() {
                    return;
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Removes what was uploaded of a job that is given up.
    fn discard_uploads(&self, job: &FetchJob) {
        for shelf in self.shelves.values() {
            if let Err(error) = shelf.inbox.discard(upload_number(job)) {
                warn!(error = &error as &dyn std::error::Error, "cannot remove an upload");
            }
        }
    }

    /// Takes outputs, and all they refer to that is not there, into files of the cache that nobody sees yet.
    async fn take(&self, wanted: &Wanted<'_>, from: &Origin) -> Result<Vec<Pending>, JobError> {
        let Wanted { worker, reported, shelf, .. } = wanted;
        let mut known = Known {
            cache: &shelf.cache,
            store: shelf.store.as_ref(),
            upstreams: &shelf.upstreams,
            outputs: reported,
        };
        let roots: Vec<_> = reported.iter().map(|output| output.path.clone()).collect();
        let closure = from.closure(wanted, roots, &mut known).await;
        let closure = closure.map_err(|error| JobError::Closure(Box::new(error)))?;
        if let Some((_, error)) = closure.failed.into_iter().next() {
            return Err(JobError::Fetch { worker: worker.clone(), source: Box::new(error) });
        }
        if !closure.absent.is_empty() {
            return Err(JobError::Absent { worker: worker.clone(), paths: closure.absent });
        }
        for output in reported {
            let other = closure.missing.iter().find(|missing| {
                missing.narinfo.store_path == output.path
                    && missing.narinfo.nar_hash.as_bytes().as_slice() != output.nar_hash
            });
            if other.is_some() {
                return Err(JobError::OtherHash { worker: worker.clone(), path: output.path.clone() });
            }
        }
        let mut nars: Vec<BoxFuture<'_, Result<Pending, FetchError>>> = Vec::new();
        for missing in &closure.missing {
            nars.push(Box::pin(from.nar(wanted, missing)));
        }
        let pending = stream::iter(nars).buffered(from.parallel()).try_collect().await;
        let pending: Vec<Pending> =
            pending.map_err(|source| JobError::Fetch { worker: worker.clone(), source: Box::new(source) })?;
        self.metrics.downloaded(pending.iter().map(|pending| pending.narinfo().nar_size).sum());
        Ok(pending)
    }

    /// What is to be fetched, and from where: by what the job says and workers have said, and where that is not all, by the database.
    async fn facts(&self, job: &FetchJob) -> Result<Facts, JobError> {
        let source = self.sources.get(job.worker);
        if let (Some(source), Some(expected), Some(reported)) = (&source, &job.expected, &job.reported) {
            return Ok(Facts {
                source: Arc::clone(source),
                expected: expected.clone(),
                reported: reported.clone(),
            });
        }
        let client = self.database.client().await?;
        // All three travel together.
        let (row, expected, recorded) = tokio::try_join!(
            attempts::result_source(&client, job.attempt),
            attempts::expected_outputs(&client, job.attempt),
            attempts::outputs(&client, job.attempt),
        )?;
        let row = row.ok_or(JobError::NoAttempt(job.attempt))?;
        let read = || {
            Arc::new(ResultSource {
                worker: row.worker,
                publish_url: row.publish_url,
                signing_key: row.signing_key,
            })
        };
        Ok(Facts {
            source: source.unwrap_or_else(read),
            expected,
            // What the worker has just said may not be recorded yet.
            reported: job.reported.clone().unwrap_or(recorded),
        })
    }
}

impl Shelf {
    /// Adds outputs to the store, if that is wanted. The cache has them: a result is not given up because the store does not take it.
    async fn add_to_store(&self, outputs: &[KnownPath]) {
        let Some(sink) = &self.sink else { return };
        for output in outputs {
            match sink.add(&output.path).await {
                Ok(()) => debug!(store.path = %output.path, "added {} to the store", output.path),
                Err(error) => {
                    warn!(
                        store.path = %output.path, error = &error as &dyn std::error::Error,
                        "cannot add {} to the store of this machine (--add-to-store); its daemon must trust this server's signing key",
                        output.path
                    );
                }
            }
        }
    }

    /// What the cache has of the outputs; where it had one before, that one stays.
    fn outputs_in_cache(&self, reported: &[BuiltOutput], committed: &[Committed]) -> Vec<KnownPath> {
        let new: BTreeMap<_, _> =
            committed.iter().map(|item| (&item.narinfo.store_path, &item.narinfo)).collect();
        reported
            .iter()
            .map(|output| {
                let cached = match new.get(&output.path) {
                    Some(narinfo) => Some((*narinfo).clone()),
                    None => self.cache.narinfo(&output.path.hash()).ok().flatten(),
                };
                let (nar_hash, nar_size) = match cached {
                    Some(narinfo) => (
                        narinfo.nar_hash.as_bytes().to_vec(),
                        i64::try_from(narinfo.nar_size).unwrap_or(i64::MAX),
                    ),
                    None => (output.nar_hash.clone(), output.nar_size),
                };
                KnownPath { path: output.path.clone(), nar_hash, nar_size }
            })
            .collect()
    }
}

/// What is to be taken in, and where it goes.
struct Wanted<'a> {
    /// The worker's name.
    worker: String,
    /// The key that must have signed it.
    trusted: TrustedKeys,
    /// The outputs, as the worker reported them.
    reported: Vec<BuiltOutput>,
    shelf: &'a Shelf,
}

/// Where results come from.
enum Origin {
    /// The worker's publish server.
    Worker(BaseUrl),
    /// The inbox.
    Upload(Reception),
}

impl Origin {
    fn parallel(&self) -> usize {
        match self {
            Self::Worker(_) => NARS,
            Self::Upload(_) => UPLOADED_NARS,
        }
    }

    async fn closure(
        &self,
        wanted: &Wanted<'_>,
        roots: Vec<StorePath>,
        known: &mut Known<'_>,
    ) -> Result<Closure, ClosureError> {
        match self {
            Self::Worker(url) => {
                let sources = [Source { url: url.clone(), trusted: Some(wanted.trusted.clone()) }];
                wanted.shelf.client.closure(roots, &sources, known, ClosureLimits::default()).await
            }
            Self::Upload(reception) => {
                // All at once, so that few messages ask for them.
                let limits = ClosureLimits { paths: MOST_UPLOADED, parallel: MOST_UPLOADED };
                reception.closure(roots, known, limits).await
            }
        }
    }

    async fn nar(&self, wanted: &Wanted<'_>, missing: &MissingPath) -> Result<Pending, FetchError> {
        let (trusted, cache) = (&wanted.trusted, &wanted.shelf.cache);
        match self {
            Self::Worker(url) => wanted.shelf.client.fetch(url, &missing.narinfo, trusted, cache).await,
            Self::Upload(reception) => reception.fetch(&missing.narinfo, trusted, cache).await,
        }
    }
}

/// The number that an attempt's uploads go by.
fn upload_number(job: &FetchJob) -> u64 {
    job.attempt.get().unsigned_abs()
}

/// What a fetch must know.
struct Facts {
    source: Arc<ResultSource>,
    /// Names and paths.
    expected: Vec<(String, StorePath)>,
    reported: Vec<BuiltOutput>,
}

fn check_outputs(
    worker: &str,
    expected: &[(String, StorePath)],
    reported: &[BuiltOutput],
) -> Result<(), JobError> {
    let wanted: BTreeSet<_> = expected.iter().map(|(name, path)| (name, path)).collect();
    let given: BTreeSet<_> = reported.iter().map(|output| (&output.name, &output.path)).collect();
    if wanted == given && !wanted.is_empty() {
        return Ok(());
    }
    let text = |set: &BTreeSet<(&String, &StorePath)>| {
        let words: Vec<_> = set.iter().map(|(name, path)| format!("{name}={path}")).collect();
        if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
    };
    Err(JobError::WrongOutputs { worker: worker.to_owned(), given: text(&given), expected: text(&wanted) })
}

/// What need not be fetched: what the cache has, and what the local store and upstreams have besides the outputs themselves.
struct Known<'a> {
    cache: &'a Cache,
    store: Option<&'a Pool>,
    upstreams: &'a Upstreams,
    outputs: &'a [BuiltOutput],
}

#[async_trait]
impl ValidPaths for Known<'_> {
    async fn valid(&mut self, paths: BTreeSet<StorePath>) -> Result<BTreeSet<StorePath>, AskError> {
        let (mut known, rest): (BTreeSet<_>, BTreeSet<_>) =
            paths.into_iter().partition(|path| self.cache.contains(&path.hash()));
        let mut rest: BTreeSet<_> =
            rest.into_iter().filter(|path| self.outputs.iter().all(|output| output.path != *path)).collect();
        if let Some(store) = self.store
            && !rest.is_empty()
        {
            let valid = store.get().await?.query_valid_paths(&rest).await?;
            rest.retain(|path| !valid.contains(path));
            known.extend(valid);
        }
        known.extend(self.upstreams.have(rest).await);
        Ok(known)
    }
}

struct ToStore {
    items: Vec<Pending>,
    answer: oneshot::Sender<Stored>,
}

async fn store_together(
    store: &UnboundedSender<ToStore>,
    items: Vec<Pending>,
) -> Result<Vec<Committed>, JobError> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let (answer, stored) = oneshot::channel();
    store.send(ToStore { items, answer }).map_err(|_| JobError::Ending)?;
    stored.await.map_err(|_| JobError::Ending)?.map_err(JobError::Cache)
}

/// Shows that fetches take a while: on a server that has too much to do these are many, and have one transaction while the last is made.
async fn show_together(database: Database, epoch: Epoch, mut slow: UnboundedReceiver<AttemptId>) {
    let mut batch = Vec::new();
    while slow.recv_many(&mut batch, SHOWN).await > 0 {
        let show = async { dispatch::fetching(&database.client().await?, &batch, epoch).await };
        if let Err(error) = show.await {
            debug!(error = &error as &dyn std::error::Error, "cannot show {} fetches", batch.len());
        }
        batch.clear();
        sleep(SHOWN_TOGETHER).await;
    }
}

/// Makes downloads durable and visible, those of several attempts with one wait for the disk.
async fn commit_together(cache: Cache, signer: Signer, mut jobs: UnboundedReceiver<ToStore>) {
    let mut batch = Vec::new();
    while jobs.recv_many(&mut batch, BATCH).await > 0 {
        let mut items = Vec::new();
        let mut waiting = Vec::new();
        for job in batch.drain(..) {
            waiting.push((job.items.len(), job.answer));
            items.extend(job.items);
        }
        match cache.commit(items, &signer).await {
            Ok(committed) => {
                let mut committed = committed.into_iter();
                for (count, answer) in waiting {
                    let _ = answer.send(Ok(committed.by_ref().take(count).collect()));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for (_, answer) in waiting {
                    let _ = answer.send(Err(Arc::clone(&error)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(name: &str, path: &str) -> BuiltOutput {
        BuiltOutput {
            name: name.to_owned(),
            path: StorePath::parse(path).unwrap(),
            nar_hash: vec![0; 32],
            nar_size: 1,
            references: Vec::new(),
        }
    }

    #[test]
    fn a_worker_must_report_just_the_outputs_it_was_asked_for() {
        let path = "/nix/store/00000000000000000000000000000000-a";
        let other = "/nix/store/11111111111111111111111111111111-b";
        let expected = [("out".to_owned(), StorePath::parse(path).unwrap())];
        assert!(check_outputs("w", &expected, &[output("out", path)]).is_ok());
        for wrong in [
            vec![],
            vec![output("out", other)],
            vec![output("dev", path)],
            vec![output("out", path), output("dev", other)],
        ] {
            let error = check_outputs("w", &expected, &wrong).unwrap_err();
            assert!(!error.is_transient());
            assert!(error.to_string().contains(path), "{error}");
        }
    }
}
