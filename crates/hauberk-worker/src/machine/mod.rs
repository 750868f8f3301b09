//! The real builder: the build daemon of the machine, asked over its socket.

mod attempt;
mod collector;
mod guix_inputs;
mod health;
mod inputs;
mod lookout;
mod memory;
mod oom;
mod processes;
mod relay;
mod reserve;
mod roots;
mod silence;
mod sink;
mod trust;
mod verdict;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use hauberk_daemon::{
    BuildDaemon, ConnectOptions, Connection, DaemonAddress, DaemonError, DaemonInfo, Keeper,
};
use hauberk_protocol::proto::Load;
use hauberk_publish::client::{BaseUrl, SubstituteClient, Uploader};
use hauberk_store::StoreDirectory;
use tokio::net::UnixStream;
use tokio::sync::{RwLock, watch};

use crate::AttemptId;
use crate::assignment::Assignment;
use crate::builder::{AttemptContext, Builder, Report, Server, Unaccepted};
use crate::error::WorkerError;
use crate::metrics::CollectionMetrics;
use crate::upload::UploadOrder;
use collector::Collector;
use health::Disks;
pub(crate) use health::memory_bytes;
use inputs::Fetcher;
pub(crate) use lookout::Lookout;
use memory::Memory;
use reserve::Places;
pub(crate) use reserve::in_words;
pub use reserve::{Lack, PressureLimits, Reserve, Shortage};
use roots::{RootError, Roots};

/// Builds through the daemon of the machine.
pub(crate) struct Machine {
    name: String,
    address: DaemonAddress,
    connect: ConnectOptions,
    store_directory: StoreDirectory,
    cores: u32,
    fetcher: Fetcher,
    uploader: Uploader,
    substitutes: Vec<BaseUrl>,
    roots: Roots,
    keeper: Keeper,
    disks: Disks,
    shortage: watch::Receiver<Shortage>,
    memory: Memory,
    /// Held by every build that runs, and alone by whoever replaces a path that a build may be reading.
    building: RwLock<()>,
}

/// What a [`Machine`] is made of.
pub(crate) struct MachineParts {
    pub(crate) name: String,
    pub(crate) address: DaemonAddress,
    pub(crate) store_directory: StoreDirectory,
    pub(crate) slots: NonZeroU32,
    pub(crate) cores: u32,
    /// Cores for each builder; none: the machine's, divided by its slots.
    pub(crate) cores_per_build: Option<NonZeroU32>,
    pub(crate) client: SubstituteClient,
    pub(crate) neighbours: SubstituteClient,
    pub(crate) uploader: Uploader,
    pub(crate) substitutes: Vec<BaseUrl>,
    pub(crate) roots: PathBuf,
    pub(crate) store: PathBuf,
    pub(crate) build_directory: PathBuf,
    pub(crate) spool: PathBuf,
    pub(crate) reserve: Reserve,
    /// Bytes that are collected at a time when the store's disk runs low.
    pub(crate) collect_bytes: Option<u64>,
    pub(crate) collections: CollectionMetrics,
}

impl Machine {
    /// Takes the parts, and gives the lookout that is to run beside it; the directory of the roots is made if needed.
    ///
    /// # Errors
    /// [`WorkerError::Config`]: the directory cannot be made, or the kernel does not tell a pressure that is limited.
    pub(crate) fn new(parts: MachineParts) -> Result<(Self, Lookout), WorkerError> {
        parts.reserve.check().map_err(|(resource, error)| {
            WorkerError::Config(format!(
                "the {resource} pressure cannot be limited, as the kernel does not tell it in /proc/pressure/{resource} ({error}): \
                 boot Linux 4.20 or newer with psi=1, or leave {resource} out of --maximum-pressure"
            ))
        })?;
        let connect = ConnectOptions {
            store_directory: Some(parts.store_directory.clone()),
            ..ConnectOptions::default()
        };
        let collector = parts.collect_bytes.map(|bytes| Collector {
            address: parts.address.clone(),
            connect: connect.clone(),
            bytes,
            metrics: parts.collections,
        });
        let roots = Roots::open(&parts.roots).map_err(|error| {
            let directory = parts.roots.display();
            WorkerError::Config(format!("cannot make the directory {directory}: {error}"))
        })?;
        let places =
            Places { store: parts.store.clone(), build: parts.build_directory.clone(), spool: parts.spool };
        let lookout = Lookout::new(parts.reserve, places, collector);
        let fetcher = Fetcher::new(parts.client, parts.neighbours, parts.address.clone(), connect.clone());
        let machine = Self {
            name: parts.name,
            keeper: Keeper::to_socket(parts.address.clone(), connect.clone()),
            address: parts.address,
            connect,
            store_directory: parts.store_directory,
            cores: parts
                .cores_per_build
                .map_or_else(|| (parts.cores / parts.slots.get()).max(1), NonZeroU32::get),
            fetcher,
            uploader: parts.uploader,
            substitutes: parts.substitutes,
            roots,
            disks: Disks { store: parts.store, build: parts.build_directory },
            shortage: lookout.told(),
            memory: Memory::default(),
            building: RwLock::new(()),
        };
        Ok((machine, lookout))
    }

    /// Asks the daemon who it is.
    pub(crate) async fn daemon_info(
        address: &DaemonAddress,
        store_directory: &StoreDirectory,
    ) -> Result<DaemonInfo, DaemonError> {
        let connect =
            ConnectOptions { store_directory: Some(store_directory.clone()), ..ConnectOptions::default() };
        Ok(Connection::connect(address, &connect).await?.info().clone())
    }

    /// Keeps the outputs of an attempt until they are released, without a moment in which a collector could take them.
    async fn keep(&self, assignment: &Assignment, daemon: &mut dyn BuildDaemon) -> Result<(), RootError> {
        let outputs: Vec<_> = assignment.outputs.values().cloned().collect();
        self.keeper.keep(&outputs).await.map_err(RootError::Keep)?;
        self.roots.keep(assignment.attempt, &outputs, daemon).await
    }

    async fn connect(&self) -> Result<Connection<UnixStream>, DaemonError> {
        Connection::connect(&self.address, &self.connect).await
    }
}

#[async_trait]
impl Builder for Machine {
    async fn accept(&self, server: &Server) -> Result<(), Unaccepted> {
        let mut daemon =
            self.connect().await.map_err(|source| Unaccepted::Unknown { source: Box::new(source) })?;
        trust::check(server, &self.store_directory, &mut daemon).await
    }

    async fn build(&self, assignment: &Assignment, context: &AttemptContext) -> Report {
        Box::pin(attempt::run(self, assignment, context)).await
    }

    async fn release(&self, attempts: &[AttemptId]) {
        let (roots, attempts) = (self.roots.clone(), attempts.to_vec());
        in_background(move || roots.release(&attempts)).await;
    }

    async fn restore(&self, kept: &[AttemptId]) {
        let (roots, kept) = (self.roots.clone(), kept.to_vec());
        in_background(move || roots.retain(&kept)).await;
    }

    async fn upload(&self, order: &UploadOrder) {
        order.carry_out(&self.uploader).await;
    }

    fn load(&self) -> Load {
        Load { shortage: in_words(&self.shortage.borrow()), ..self.disks.load() }
    }

    fn shortage(&self) -> Option<watch::Receiver<Shortage>> {
        Some(self.shortage.clone())
    }
}

async fn in_background(work: impl FnOnce() + Send + 'static) {
    let span = tracing::Span::current();
    // A failure is a panic, which has been told, or the end of the program.
    let _ = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
}

/// The server's publish server and the caches the operator named, as sources of one attempt.
fn sources(
    server: &Arc<Server>,
    assignment: &Assignment,
    substitutes: &[BaseUrl],
) -> Result<inputs::Sources, hauberk_publish::client::BaseUrlError> {
    use hauberk_publish::TrustedKeys;
    use hauberk_publish::client::Source;
    use hauberk_store::signature::PublicKey;

    let (mut nix, mut guix) = (Vec::new(), Vec::new());
    for key in &server.signing_keys {
        match key.parse() {
            Ok(PublicKey::Nix(key)) => nix.push(key),
            Ok(PublicKey::Guix(key)) => guix.push(key),
            Err(error) => tracing::warn!(%error, "a key of server {} cannot be read", server.name),
        }
    }
    let trusted = match (nix.is_empty(), guix.is_empty()) {
        (true, true) => None,
        (false, _) => Some(TrustedKeys::nix(nix)),
        (true, false) => Some(TrustedKeys::guix(guix.into_iter().collect())),
    };
    let mut narinfos = vec![Source { url: BaseUrl::parse(&server.publish_url)?, trusted }];
    // What comes from elsewhere is checked by the daemon, against the keys its operator trusts.
    narinfos.extend(substitutes.iter().map(|url| Source { url: url.clone(), trusted: None }));
    let builders: Vec<_> = assignment.sources.iter().map(|url| BaseUrl::parse(url).ok()).collect();
    let mut nars = BTreeMap::new();
    for (path, input) in &assignment.inputs {
        let places: Vec<_> =
            input.sources.iter().filter_map(|place| builders.get(*place).cloned().flatten()).collect();
        if !places.is_empty() {
            nars.insert(path.clone(), places);
        }
    }
    Ok(inputs::Sources { narinfos, nars })
}
