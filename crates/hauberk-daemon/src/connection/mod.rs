//! One connection to a build daemon.

mod build;
mod call;
mod export;
mod garbage;
mod greeting;
mod missing;
mod nar;
mod options;
mod queries;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use hauberk_store::{DrvPath, OutputName, StoreDirectory, StorePath, StorePathHash};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf},
    net::UnixStream,
};

use crate::{
    address::DaemonAddress,
    build::{BuildMode, BuildResult, BuildTarget},
    daemon::{BuildDaemon, DaemonInfo},
    error::DaemonError,
    garbage::{GarbageReport, GarbageRequest, Root},
    log::LogSink,
    missing::Missing,
    operation::Operation,
    options::ClientOptions,
    path_info::{PathInfo, SubstitutablePathInfo},
    version::Dialect,
    wire::{Incoming, Outgoing},
};
use call::Call;

/// How to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The store the daemon keeps; the usual one of its dialect if not given.
    pub store_directory: Option<StoreDirectory>,
    /// The time the daemon has to greet.
    pub timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { store_directory: None, timeout: Duration::from_secs(10) }
    }
}

/// The two halves of a stream.
#[derive(Debug)]
pub(crate) struct Link<S> {
    pub(crate) incoming: Incoming<ReadHalf<S>>,
    pub(crate) outgoing: Outgoing<WriteHalf<S>>,
}

/// A connection to a build daemon over any stream; [`Connection::connect`] gives one over its Unix socket.
pub struct Connection<S> {
    info: DaemonInfo,
    options: Option<ClientOptions>,
    /// The process that opened the daemon's socket, where it can be seen.
    listener: Option<u32>,
    /// Nothing while an operation has it, and for ever after one broke it or was dropped.
    link: Option<Link<S>>,
}

impl<S> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("info", &self.info)
            .field("broken", &self.link.is_none())
            .finish_non_exhaustive()
    }
}

impl Connection<UnixStream> {
    /// Connects to the daemon at `address` and greets it.
    ///
    /// # Errors
    /// [`DaemonError::Connect`] if nobody listens there, [`DaemonError::TimedOut`], and what the greeting can give.
    pub async fn connect(address: &DaemonAddress, options: &ConnectOptions) -> Result<Self, DaemonError> {
        let greeting = async {
            let stream = UnixStream::connect(address.path())
                .await
                .map_err(|source| DaemonError::Connect { address: address.clone(), source })?;
            let listener = stream.peer_cred().ok().and_then(|peer| u32::try_from(peer.pid()?).ok());
            let connection = Self::greet(stream, options.store_directory.clone()).await?;
            Ok(Self { listener: listener.filter(|pid| *pid > 0), ..connection })
        };
        tokio::time::timeout(options.timeout, greeting).await.unwrap_or_else(|_| {
            Err(DaemonError::TimedOut { operation: Operation::Handshake, seconds: options.timeout.as_secs() })
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    /// Greets the daemon at the other end of `stream`. `store_directory` is the store it keeps; the usual one of its dialect if
    /// not given.
    ///
    /// # Errors
    /// A peer that is no build daemon, speaks an unsupported version or hangs up.
    pub async fn greet(stream: S, store_directory: Option<StoreDirectory>) -> Result<Self, DaemonError> {
        let (info, link) = greeting::greet(stream, store_directory).await?;
        Ok(Self { info, options: None, listener: None, link: Some(link) })
    }

    /// Gives the process that opened the daemon's socket: the daemon itself, or the supervisor that started it. Unknown where that is not in
    /// a process namespace that can be seen from here. What serves the connection is as a rule a child of the daemon.
    pub fn listener(&self) -> Option<u32> {
        self.listener
    }

    /// Begins an operation.
    fn call(&mut self, operation: Operation) -> Result<Call<'_, S>, DaemonError> {
        let multiplexed = self.options.as_ref().is_some_and(|options| options.guix.multiplexed_output);
        Call::begin(operation, &self.info, multiplexed, &mut self.link)
    }

    fn is_guix(&self) -> bool {
        self.info.dialect == Dialect::Guix
    }
}

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Send + Unpin> BuildDaemon for Connection<S> {
    fn info(&self) -> &DaemonInfo {
        &self.info
    }

    fn options(&self) -> Option<&ClientOptions> {
        self.options.as_ref()
    }

    fn is_usable(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        let mut byte = [0; 1];
        // A daemon that is not asked says nothing: whatever can be read is an end of file, an error or nonsense.
        let poll = Pin::new(link.incoming.reader_mut())
            .poll_read(&mut Context::from_waker(Waker::noop()), &mut ReadBuf::new(&mut byte));
        if matches!(poll, Poll::Ready(_)) {
            self.link = None;
        }
        self.link.is_some()
    }

    async fn set_options(&mut self, options: &ClientOptions) -> Result<(), DaemonError> {
        self.do_set_options(options).await
    }

    async fn query_valid_paths(
        &mut self,
        paths: &BTreeSet<StorePath>,
    ) -> Result<BTreeSet<StorePath>, DaemonError> {
        self.do_query_valid_paths(paths).await
    }

    async fn is_valid_path(&mut self, path: &StorePath) -> Result<bool, DaemonError> {
        self.do_is_valid_path(path).await
    }

    async fn query_path_info(&mut self, path: &StorePath) -> Result<Option<PathInfo>, DaemonError> {
        self.do_query_path_info(path).await
    }

    async fn query_path_from_hash_part(
        &mut self,
        hash: &StorePathHash,
    ) -> Result<Option<StorePath>, DaemonError> {
        self.do_query_path_from_hash_part(hash).await
    }

    async fn query_referrers(&mut self, path: &StorePath) -> Result<BTreeSet<StorePath>, DaemonError> {
        self.do_query_referrers(path).await
    }

    async fn query_valid_derivers(&mut self, path: &StorePath) -> Result<BTreeSet<DrvPath>, DaemonError> {
        self.do_query_valid_derivers(path).await
    }

    async fn query_derivation_outputs(
        &mut self,
        derivation: &DrvPath,
    ) -> Result<BTreeMap<OutputName, StorePath>, DaemonError> {
        self.do_query_derivation_outputs(derivation).await
    }

    async fn query_substitutable_paths(
        &mut self,
        paths: &BTreeSet<StorePath>,
    ) -> Result<BTreeSet<StorePath>, DaemonError> {
        self.do_query_substitutable_paths(paths).await
    }

    async fn query_substitutable_path_infos(
        &mut self,
        paths: &BTreeSet<StorePath>,
    ) -> Result<Vec<SubstitutablePathInfo>, DaemonError> {
        self.do_query_substitutable_path_infos(paths).await
    }

    async fn query_missing(&mut self, targets: &[BuildTarget]) -> Result<Missing, DaemonError> {
        self.do_query_missing(targets).await
    }

    async fn ensure_path(&mut self, path: &StorePath, log: &mut dyn LogSink) -> Result<(), DaemonError> {
        self.do_ensure_path(path, log).await
    }

    async fn build(
        &mut self,
        targets: &[BuildTarget],
        mode: BuildMode,
        log: &mut dyn LogSink,
    ) -> Result<Vec<BuildResult>, DaemonError> {
        self.do_build(targets, mode, log).await
    }

    async fn add_text(
        &mut self,
        name: &str,
        contents: &[u8],
        references: &BTreeSet<StorePath>,
    ) -> Result<StorePath, DaemonError> {
        self.do_add_text(name, contents, references).await
    }

    async fn add_source(
        &mut self,
        name: &str,
        nar: &mut (dyn AsyncRead + Send + Unpin),
        references: &BTreeSet<StorePath>,
    ) -> Result<StorePath, DaemonError> {
        self.do_add_source(name, nar, references).await
    }

    async fn add_nar(
        &mut self,
        info: &PathInfo,
        nar: &mut (dyn AsyncRead + Send + Unpin),
        repair: bool,
    ) -> Result<(), DaemonError> {
        self.do_add_nar(info, nar, repair).await
    }

    async fn nar_from_path(
        &mut self,
        path: &StorePath,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<u64, DaemonError> {
        self.do_nar_from_path(path, to).await
    }

    async fn export_paths(
        &mut self,
        paths: &[StorePath],
        sign: bool,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<(), DaemonError> {
        self.do_export_paths(paths, sign, to).await
    }

    async fn import_paths(
        &mut self,
        from: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<Vec<StorePath>, DaemonError> {
        self.do_import_paths(from).await
    }

    async fn add_temp_root(&mut self, path: &StorePath) -> Result<(), DaemonError> {
        self.do_add_temp_root(path).await
    }

    async fn add_indirect_root(&mut self, link: &Path) -> Result<(), DaemonError> {
        self.do_add_indirect_root(link).await
    }

    async fn find_roots(&mut self) -> Result<Vec<Root>, DaemonError> {
        self.do_find_roots().await
    }

    async fn verify_store(&mut self, check_contents: bool, repair: bool) -> Result<bool, DaemonError> {
        self.do_verify_store(check_contents, repair).await
    }

    async fn optimise_store(&mut self) -> Result<(), DaemonError> {
        self.do_optimise_store().await
    }

    async fn built_in_builders(&mut self) -> Result<BTreeSet<String>, DaemonError> {
        self.do_built_in_builders().await
    }

    async fn substitute_urls(&mut self) -> Result<Vec<String>, DaemonError> {
        self.do_substitute_urls().await
    }

    async fn collect_garbage(&mut self, request: &GarbageRequest) -> Result<GarbageReport, DaemonError> {
        self.do_collect_garbage(request).await
    }
}
