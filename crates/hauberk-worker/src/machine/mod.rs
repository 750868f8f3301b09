//! The real builder: the build daemon of the machine, asked over its socket.

mod attempt;
mod guix_inputs;
mod health;
mod inputs;
mod roots;
mod sink;
mod trust;
mod verdict;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use hauberk_daemon::{
    BuildDaemon, ConnectOptions, Connection, DaemonAddress, DaemonError, DaemonInfo, Keeper,
};
use hauberk_protocol::proto::Load;
use hauberk_publish::client::{BaseUrl, SubstituteClient};
use hauberk_store::StoreDirectory;
use tokio::net::UnixStream;
use tokio::sync::RwLock;

use crate::AttemptId;
use crate::assignment::Assignment;
use crate::builder::{AttemptContext, Builder, Report, Server, Unaccepted};
use health::Disks;
pub(crate) use health::memory_bytes;
use inputs::Fetcher;
use roots::{RootError, Roots};

/// Builds through the daemon of the machine.
pub(crate) struct Machine {
    name: String,
    address: DaemonAddress,
    connect: ConnectOptions,
    store_directory: StoreDirectory,
    cores: u32,
    fetcher: Fetcher,
    substitutes: Vec<BaseUrl>,
    roots: Roots,
    keeper: Keeper,
    disks: Disks,
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
    pub(crate) client: SubstituteClient,
    pub(crate) substitutes: Vec<BaseUrl>,
    pub(crate) roots: PathBuf,
    pub(crate) store: PathBuf,
    pub(crate) build_directory: PathBuf,
}

impl Machine {
    /// Takes the parts; the directory of the roots is made if needed.
    pub(crate) fn new(parts: MachineParts) -> std::io::Result<Self> {
        let connect = ConnectOptions {
            store_directory: Some(parts.store_directory.clone()),
            ..ConnectOptions::default()
        };
        let fetcher = Fetcher::new(parts.client, parts.address.clone(), connect.clone());
        Ok(Self {
            name: parts.name,
            keeper: Keeper::to_socket(parts.address.clone(), connect.clone()),
            address: parts.address,
            connect,
            store_directory: parts.store_directory,
            cores: (parts.cores / parts.slots.get()).max(1),
            fetcher,
            substitutes: parts.substitutes,
            roots: Roots::open(&parts.roots)?,
            disks: Disks { store: parts.store, build: parts.build_directory },
            building: RwLock::new(()),
        })
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

    fn load(&self) -> Load {
        self.disks.load()
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
    let nars = assignment.sources.iter().filter_map(|url| BaseUrl::parse(url).ok()).collect();
    Ok(inputs::Sources { narinfos, nars })
}
