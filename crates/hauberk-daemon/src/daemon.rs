//! What a build daemon can do.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use async_trait::async_trait;
use hauberk_store::{DrvPath, OutputName, StoreDirectory, StorePath, StorePathHash};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    build::{BuildMode, BuildResult, BuildTarget},
    error::DaemonError,
    garbage::{GarbageReport, GarbageRequest, Root},
    log::LogSink,
    missing::Missing,
    options::ClientOptions,
    path_info::{PathInfo, SubstitutablePathInfo},
    version::{Dialect, ProtocolVersion},
};

/// Who a daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonInfo {
    /// Its world.
    pub dialect: Dialect,
    /// The version spoken with it: the newest both know.
    pub version: ProtocolVersion,
    /// The version of the program itself, if it tells (`2.8.0`).
    pub program_version: Option<String>,
    /// Whether it trusts this client, if it tells.
    pub trusted: Option<bool>,
    /// The store it keeps. The protocol does not tell it; it is what the client was told, or the one usual for the dialect.
    pub store_directory: StoreDirectory,
}

/// What a build daemon can do for the farm. One value is one connection.
///
/// Operations follow one another; each ends with a result or an error. After [`DaemonError::Daemon`],
/// [`DaemonError::NotValid`] and [`DaemonError::Unsupported`] the connection can be used on, unless the daemon itself hung up;
/// after [`DaemonError::Source`] and [`DaemonError::Damaged`] it can where the exchange could be ended in order;
/// [`BuildDaemon::is_usable`] tells. After any other error it is closed and every further operation is
/// [`DaemonError::Broken`].
///
/// **Cancelling**: an operation's future that is dropped before its end closes the connection, and with it the daemon ends
/// what it did for this client: a running builder is killed.
#[async_trait]
pub trait BuildDaemon: Send {
    /// Tells who the daemon is.
    fn info(&self) -> &DaemonInfo;

    /// Gives the options set last, if any were.
    fn options(&self) -> Option<&ClientOptions>;

    /// Tells whether the connection stands and is in order, as far as can be seen without asking the daemon.
    fn is_usable(&mut self) -> bool;

    /// Sets the options of this session. Without it the daemon's own configuration holds.
    async fn set_options(&mut self, options: &ClientOptions) -> Result<(), DaemonError>;

    /// Tells which of `paths` are valid. Nothing is substituted.
    async fn query_valid_paths(
        &mut self,
        paths: &BTreeSet<StorePath>,
    ) -> Result<BTreeSet<StorePath>, DaemonError>;

    /// Tells whether `path` is valid.
    async fn is_valid_path(&mut self, path: &StorePath) -> Result<bool, DaemonError> {
        Ok(!self.query_valid_paths(&BTreeSet::from([path.clone()])).await?.is_empty())
    }

    /// Gives what is known of `path`, or nothing if it is not valid.
    async fn query_path_info(&mut self, path: &StorePath) -> Result<Option<PathInfo>, DaemonError>;

    /// Finds the valid path with a hash part.
    async fn query_path_from_hash_part(
        &mut self,
        hash: &StorePathHash,
    ) -> Result<Option<StorePath>, DaemonError>;

    /// Gives the valid paths that refer to `path`.
    async fn query_referrers(&mut self, path: &StorePath) -> Result<BTreeSet<StorePath>, DaemonError>;

    /// Gives the valid derivations that have `path` among their outputs.
    async fn query_valid_derivers(&mut self, path: &StorePath) -> Result<BTreeSet<DrvPath>, DaemonError>;

    /// Gives the outputs of a valid derivation. Outputs whose path is not known before they are built are left out.
    async fn query_derivation_outputs(
        &mut self,
        derivation: &DrvPath,
    ) -> Result<BTreeMap<OutputName, StorePath>, DaemonError>;

    /// Tells which of `paths` substitute servers have.
    async fn query_substitutable_paths(
        &mut self,
        paths: &BTreeSet<StorePath>,
    ) -> Result<BTreeSet<StorePath>, DaemonError>;

    /// Gives what substitute servers know of those of `paths` they have.
    async fn query_substitutable_path_infos(
        &mut self,
        paths: &BTreeSet<StorePath>,
    ) -> Result<Vec<SubstitutablePathInfo>, DaemonError>;

    /// Tells what would have to be built and fetched for `targets`. With a Guix daemon, which has no such operation, it is
    /// found by walking the derivations, which are read through the daemon.
    async fn query_missing(&mut self, targets: &[BuildTarget]) -> Result<Missing, DaemonError>;

    /// Makes `path` valid by substitution, if it is not.
    async fn ensure_path(&mut self, path: &StorePath, log: &mut dyn LogSink) -> Result<(), DaemonError>;

    /// Makes `targets` valid and gives one result for each, in their order. A build that fails is a result, not an error;
    /// an error is a request the daemon refused as a whole, such as one for another system (which newer versions of Nix take for
    /// a failed build, [`FailureReason::Platform`](crate::FailureReason::Platform)).
    async fn build(
        &mut self,
        targets: &[BuildTarget],
        mode: BuildMode,
        log: &mut dyn LogSink,
    ) -> Result<Vec<BuildResult>, DaemonError>;

    /// Adds a text (a derivation, for one), whose path follows from its name, contents and references.
    async fn add_text(
        &mut self,
        name: &str,
        contents: &[u8],
        references: &BTreeSet<StorePath>,
    ) -> Result<StorePath, DaemonError>;

    /// Adds a file or directory given as a NAR, whose path follows from its name, contents and references. A Guix daemon takes
    /// no references here.
    async fn add_source(
        &mut self,
        name: &str,
        nar: &mut (dyn AsyncRead + Send + Unpin),
        references: &BTreeSet<StorePath>,
    ) -> Result<StorePath, DaemonError>;

    /// Adds a path from its metadata and NAR. Signatures are always checked: one of `info` must be of a key the daemon
    /// trusts, unless the path follows from its contents. `repair` replaces a valid path. A path that is valid already is no
    /// error. A Guix daemon takes only paths that [`BuildDaemon::add_source`] would give; others enter its store by
    /// [`BuildDaemon::ensure_path`] and [`BuildDaemon::import_paths`].
    async fn add_nar(
        &mut self,
        info: &PathInfo,
        nar: &mut (dyn AsyncRead + Send + Unpin),
        repair: bool,
    ) -> Result<(), DaemonError>;

    /// Writes the NAR of `path` to `to` and gives its size in bytes.
    async fn nar_from_path(
        &mut self,
        path: &StorePath,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<u64, DaemonError>;

    /// Writes `paths`, which should be in closure order, as an export stream (`guix archive --export`, `nix-store --export`).
    /// A Guix daemon can sign it; for a Nix one `sign` must be false.
    async fn export_paths(
        &mut self,
        paths: &[StorePath],
        sign: bool,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<(), DaemonError>;

    /// Imports an export stream and gives the paths in it. A Guix daemon demands that each is signed by an authorised key;
    /// a Nix daemon takes unsigned ones from trusted clients only, and newer versions take none at all
    /// ([`DaemonError::Unsupported`]). Items before a bad one stay imported.
    async fn import_paths(
        &mut self,
        from: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<Vec<StorePath>, DaemonError>;

    /// Keeps `path` from being collected for as long as this connection stands.
    async fn add_temp_root(&mut self, path: &StorePath) -> Result<(), DaemonError>;

    /// Registers `link`, an absolute path of a symbolic link to a store path made by the caller, as a lasting root: what it
    /// points to is kept until it is removed.
    async fn add_indirect_root(&mut self, link: &Path) -> Result<(), DaemonError>;

    /// Lists the roots.
    async fn find_roots(&mut self) -> Result<Vec<Root>, DaemonError>;

    /// Checks that valid paths exist and, if asked, that their contents are what they were; repairs them if asked. Gives
    /// whether errors were found and remain.
    async fn verify_store(&mut self, check_contents: bool, repair: bool) -> Result<bool, DaemonError>;

    /// Replaces equal files by hard links.
    async fn optimise_store(&mut self) -> Result<(), DaemonError>;

    /// Names the builders that are part of the daemon, without `builtin:`. Nix does not tell; the ones every supported version
    /// has are given.
    async fn built_in_builders(&mut self) -> Result<BTreeSet<String>, DaemonError>;

    /// Names the substitute servers the daemon uses by itself (Guix from 0x164 on).
    async fn substitute_urls(&mut self) -> Result<Vec<String>, DaemonError>;

    /// Collects garbage, or tells what is garbage.
    async fn collect_garbage(&mut self, request: &GarbageRequest) -> Result<GarbageReport, DaemonError>;
}
