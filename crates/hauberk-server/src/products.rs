//! The keeper of build products: takes files that specifications name out of outputs that the cache has.
//!
//! What is wanted are rows, written when an evaluation is published, so nothing is lost with a server, and what was built long before is treated
//! as what has just succeeded. One output is read at a time, beside everything else; no build waits for its products.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hauberk_database::products::{self, Decision, ProductRequest, TakenProduct};
use hauberk_database::{
    AttemptId, BuildId, Database, DatabaseError, ProductRequestId, ServerId, begin, commit,
};
use hauberk_publish::products::{
    ExtractError, Extracted, Limits, Pattern, ProductsError, ProductsLock, Refused, Unmet, download_name,
    extract,
};
use hauberk_publish::{Cache, Products};
use hauberk_store::{Sha256, StoreDirectory, StorePath};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::fetch::chain;

/// How often it looks without being told.
const SWEEP: Duration = Duration::from_secs(30);
/// Builds that have succeeded are asked about together: so long, more may come.
const GATHER: Duration = Duration::from_millis(100);
/// Attempts asked about at once.
const BATCH: usize = 4096;
/// Requests read at once.
const REQUESTS: i64 = 500;
/// The pause after the first try that failed, multiplied by four each time.
const FIRST_PAUSE: f64 = 10.0;
/// The longest pause.
const LONGEST_PAUSE: f64 = 3600.0;
/// Of so many files that were not taken it is said why.
const TOLD: usize = 3;

/// What the keeper is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProductEvent {
    /// An attempt has succeeded, and its build with it.
    Succeeded(AttemptId),
    /// Products are wanted, perhaps of builds that have succeeded.
    Wanted,
}

/// See the module's description.
pub(crate) struct ProductKeeper {
    /// Knows what is wanted.
    pub(crate) database: Database,
    /// The server whose caches they are.
    pub(crate) server: ServerId,
    /// Has the outputs.
    pub(crate) caches: HashMap<StoreDirectory, Cache>,
    /// Keeps the files.
    pub(crate) products: Products,
    /// How much is taken.
    pub(crate) limits: Limits,
    /// Whence it is told.
    pub(crate) events: UnboundedReceiver<ProductEvent>,
}

/// Why the products of an output could not be taken now.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error("this server has no cache for {0}")]
    OtherStore(StorePath),
    #[error(transparent)]
    Extract(#[from] ExtractError),
    #[error(transparent)]
    Keep(#[from] ProductsError),
    #[error("the program ends")]
    Stopped,
}

/// What was taken out of an output, and is where it stays.
struct Kept {
    /// Which of those wanted each file is, by their places, and under which paths.
    files: Vec<(Vec<(usize, String)>, KeptFile)>,
    unmet: BTreeMap<usize, Unmet>,
    refused: Vec<(usize, Refused)>,
    /// Nobody removes the files before they are recorded.
    lock: Option<ProductsLock>,
}

#[derive(Clone, Copy)]
struct KeptFile {
    directory: bool,
    size: u64,
    sha256: [u8; 32],
}

impl ProductKeeper {
    /// Takes products until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = Vec::new();
        // As long as nothing is wanted, builds need not be asked about.
        let (mut awaited, mut checked) = (true, false);
        loop {
            events.clear();
            let sweeps = tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => true,
                count = self.events.recv_many(&mut events, BATCH) => {
                    if count == 0 {
                        stop.cancelled().await;
                        return;
                    }
                    false
                }
            };
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = self.look(sweeps, &mut events, &mut awaited, &mut checked, &stop) => looked,
            };
            if let Err(error) = looked {
                let error: &dyn std::error::Error = &error;
                warn!(error, "cannot learn or record which build products are wanted: trying again");
                awaited = true;
            }
        }
    }

    async fn look(
        &mut self,
        sweeps: bool,
        events: &mut Vec<ProductEvent>,
        awaited: &mut bool,
        checked: &mut bool,
        stop: &CancellationToken,
    ) -> Result<(), DatabaseError> {
        if !*checked {
            self.check().await?;
            *checked = true;
        }
        if sweeps || events.contains(&ProductEvent::Wanted) {
            *awaited = products::any_wanted(&self.database.client().await?).await?;
            if !*awaited {
                return Ok(());
            }
            loop {
                let client = self.database.client().await?;
                let due = products::due(&client, self.server, REQUESTS).await?;
                drop(client);
                let full = due.len() as i64 == REQUESTS;
                self.take(due, stop).await?;
                if !full {
                    return Ok(());
                }
            }
        }
        if !*awaited {
            return Ok(());
        }
        sleep(GATHER).await;
        while events.len() < BATCH
            && let Ok(event) = self.events.try_recv()
        {
            events.push(event);
        }
        if events.contains(&ProductEvent::Wanted) {
            *awaited = true;
        }
        let attempts: Vec<AttemptId> = events
            .iter()
            .filter_map(|event| match event {
                ProductEvent::Succeeded(attempt) => Some(*attempt),
                ProductEvent::Wanted => None,
            })
            .collect();
        let client = self.database.client().await?;
        let due = products::due_of_attempts(&client, self.server, &attempts).await?;
        drop(client);
        self.take(due, stop).await
    }

    /// Looks whether all products are there that are recorded. Those that somebody has removed are wanted again.
    async fn check(&self) -> Result<(), DatabaseError> {
        let client = self.database.client().await?;
        let held = products::held(&client, self.server).await?;
        let directory = self.products.clone();
        let lost = spawn_blocking(move || -> Vec<[u8; 32]> {
            held.into_iter().filter(|sha256| !directory.contains(&Sha256::from_bytes(*sha256))).collect()
        });
        // It ends early only with the program.
        let lost = lost.await.unwrap_or_default();
        if !lost.is_empty() {
            let count = products::lost(&client, self.server, &lost).await?;
            warn!(
                products.lost = lost.len(),
                "{} build products are not in {} any more: taking {count} of them again",
                lost.len(),
                self.products.directory().display()
            );
        }
        Ok(())
    }

    /// Takes what is due, output by output.
    async fn take(&self, due: Vec<ProductRequest>, stop: &CancellationToken) -> Result<(), DatabaseError> {
        let mut outputs: BTreeMap<(BuildId, Option<StorePath>), Vec<ProductRequest>> = BTreeMap::new();
        for request in due {
            outputs.entry((request.build, request.output_path.clone())).or_default().push(request);
        }
        for ((_, output), requests) in outputs {
            match output {
                Some(output) => self.take_from(&output, &requests, stop).await?,
                None => {
                    let decisions: Vec<_> = requests
                        .iter()
                        .map(|request| {
                            let message = format!("the build has no output `{}`", request.output);
                            (request, Decision::Missing(message))
                        })
                        .collect();
                    self.record(&decisions).await?;
                }
            }
        }
        Ok(())
    }

    async fn take_from(
        &self,
        output: &StorePath,
        requests: &[ProductRequest],
        stop: &CancellationToken,
    ) -> Result<(), DatabaseError> {
        let taken = match self.caches.get(output.directory()) {
            Some(cache) => {
                let patterns: Vec<Option<Pattern>> =
                    requests.iter().map(|request| request.path.parse().ok()).collect();
                let (cache, products) = (cache.clone(), self.products.clone());
                let (output, limits, stop) = (output.clone(), self.limits, stop.clone());
                let work = move || keep(&cache, &products, &output, &patterns, limits, &stop);
                spawn_blocking(work).await.unwrap_or(Err(TakeError::Stopped))
            }
            None => Err(TakeError::OtherStore(output.clone())),
        };
        let kept = match taken {
            Ok(kept) => kept,
            Err(TakeError::Stopped) => return Ok(()),
            Err(error) => return self.postpone(output, requests, &error).await,
        };
        let decisions: Vec<_> = requests
            .iter()
            .enumerate()
            .map(|(place, request)| (request, decision(output, place, request, &kept)))
            .collect();
        self.record(&decisions).await?;
        drop(kept.lock);
        let bytes: u64 = kept.files.iter().map(|(_, file)| file.size).sum();
        if !kept.files.is_empty() {
            info!(
                store.path = %output, products.files = kept.files.len(), products.bytes = bytes,
                "took {} build products out of {output}", kept.files.len()
            );
        }
        Ok(())
    }

    async fn postpone(
        &self,
        output: &StorePath,
        requests: &[ProductRequest],
        error: &TakeError,
    ) -> Result<(), DatabaseError> {
        let tries = requests.iter().map(|request| request.tries).max().unwrap_or(0);
        let pause = (FIRST_PAUSE * 4_f64.powi(tries.into())).min(LONGEST_PAUSE);
        warn!(
            store.path = %output, error = error as &dyn std::error::Error,
            "cannot take build products out of {output}: trying again in {pause} s"
        );
        let ids: Vec<ProductRequestId> = requests.iter().map(|request| request.id).collect();
        let client = self.database.client().await?;
        products::postpone(&client, &ids, pause, &chain(error)).await
    }

    async fn record(&self, decisions: &[(&ProductRequest, Decision)]) -> Result<(), DatabaseError> {
        let mut client = self.database.client().await?;
        let transaction = begin(&mut client).await?;
        products::decide(&transaction, self.server, decisions).await?;
        commit(transaction).await
    }
}

/// Takes what is wanted out of an output, and keeps it. `None` is wanted by nobody: a pattern that this version cannot read.
fn keep(
    cache: &Cache,
    products: &Products,
    output: &StorePath,
    patterns: &[Option<Pattern>],
    limits: Limits,
    stop: &CancellationToken,
) -> Result<Kept, TakeError> {
    let places: Vec<usize> = (0..patterns.len()).filter(|&place| patterns[place].is_some()).collect();
    let wanted: Vec<Pattern> = patterns.iter().flatten().cloned().collect();
    let taken = extract(cache.reader(), products, output, &wanted, limits, &|| !stop.is_cancelled());
    let Extracted { found, unmet, refused } = match taken {
        Err(_) if stop.is_cancelled() => return Err(TakeError::Stopped),
        taken => taken?,
    };
    let mut kept = Kept {
        files: Vec::with_capacity(found.len()),
        unmet: unmet.into_iter().map(|(place, unmet)| (places[place], unmet)).collect(),
        refused: refused.into_iter().map(|(place, refused)| (places[place], refused)).collect(),
        lock: None,
    };
    let mut files = Vec::with_capacity(found.len());
    for one in found {
        let names = one.names.into_iter().map(|(place, name)| (places[place], name)).collect();
        let file =
            KeptFile { directory: one.directory, size: one.file.size, sha256: *one.file.sha256.as_bytes() };
        kept.files.push((names, file));
        files.push(one.file);
    }
    if !files.is_empty() {
        kept.lock = Some(products.keep(files)?);
    }
    Ok(kept)
}

/// Says what became of the request at `place`.
fn decision(output: &StorePath, place: usize, request: &ProductRequest, kept: &Kept) -> Decision {
    match kept.unmet.get(&place) {
        Some(Unmet::Missing) => {
            return Decision::Missing(format!("there is no `{}` in it", request.path));
        }
        Some(Unmet::Refused(refused)) => return Decision::Refused(refused.to_string()),
        None => {}
    }
    let mut products: Vec<TakenProduct> = Vec::new();
    for (names, file) in &kept.files {
        for (_, path) in names.iter().filter(|(wanted, _)| *wanted == place) {
            let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(output.name());
            products.push(TakenProduct {
                name: download_name(name, file.directory),
                path: if path.is_empty() { output.to_string() } else { format!("{output}/{path}") },
                directory: file.directory,
                file_size: file.size,
                sha256: file.sha256,
            });
        }
    }
    if products.is_empty() {
        return Decision::Refused("this version of the server cannot read its path".to_owned());
    }
    products.sort_by(|a, b| a.path.cmp(&b.path));
    let refused: Vec<String> = kept
        .refused
        .iter()
        .filter(|(wanted, _)| *wanted == place)
        .take(TOLD)
        .map(|(_, refused)| refused.to_string())
        .collect();
    let message = (!refused.is_empty()).then(|| refused.join("; "));
    Decision::Taken { products, message }
}
