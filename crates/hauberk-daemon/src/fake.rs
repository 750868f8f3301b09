//! A build daemon in memory, for tests of those who use one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use hauberk_store::{
    DrvPath, NarHash, OutputName, StoreDirectory, StorePath, StorePathHash,
    nar::{Limits, Node},
    narinfo::fingerprint,
    signature::nix::{PublicKey, Signature},
    store_path::check_name,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
};

use crate::{
    build::{BuildMode, BuildResult, BuildStatus, BuildTarget},
    daemon::{BuildDaemon, DaemonInfo},
    error::DaemonError,
    failure::FailureReason,
    garbage::{GarbageAction, GarbageReport, GarbageRequest, Root},
    log::{LogEvent, LogSink},
    missing::Missing,
    operation::Operation,
    options::ClientOptions,
    path_info::{PathInfo, SubstitutablePathInfo},
    pool::Connector,
    version::{Dialect, ProtocolVersion},
};

/// Largest NAR a fake store takes, in bytes.
const LARGEST: u64 = 1 << 30;

/// What a fake daemon does when it is asked to build a derivation.
#[derive(Debug, Clone)]
pub struct FakeBuild {
    /// Paths that must be valid before.
    pub inputs: BTreeSet<StorePath>,
    /// What the builder prints, in pieces.
    pub log: Vec<Vec<u8>>,
    /// The build goes on after its log when this holds `true`; at once if there is none.
    pub release: Option<watch::Receiver<bool>>,
    /// How it ends.
    pub status: BuildStatus,
    /// Why, if it fails.
    pub reason: Option<FailureReason>,
    /// The outputs, which become valid if it ends well; they refer to the inputs.
    pub outputs: BTreeMap<OutputName, (StorePath, Node)>,
}

impl FakeBuild {
    /// Makes a build that gives one output, a file that holds its own path.
    pub fn success(output: StorePath) -> Self {
        let contents = Node::file(output.to_string());
        Self {
            inputs: BTreeSet::new(),
            log: vec![b"building\n".to_vec()],
            release: None,
            status: BuildStatus::Built,
            reason: None,
            outputs: BTreeMap::from([(OutputName::OUT, (output, contents))]),
        }
    }

    /// Makes a build that fails with an exit code.
    pub fn failure(output: StorePath, code: i32) -> Self {
        Self {
            status: BuildStatus::PermanentFailure,
            reason: Some(FailureReason::ExitCode(code)),
            ..Self::success(output)
        }
    }
}

#[derive(Default)]
struct State {
    valid: BTreeMap<StorePath, (PathInfo, Vec<u8>)>,
    builds: BTreeMap<DrvPath, FakeBuild>,
    substitutable: BTreeMap<StorePath, (PathInfo, Vec<u8>)>,
    trusted: Vec<PublicKey>,
    roots: Vec<PathBuf>,
    started: Vec<DrvPath>,
    cancelled: Vec<DrvPath>,
    refusing: bool,
}

/// A store in memory and the daemon that keeps it. It connects like a real one, and its connections break the same way: when an
/// operation is dropped half-way. Cloning gives another handle of the same store.
#[derive(Clone)]
pub struct FakeStore {
    dialect: Dialect,
    directory: StoreDirectory,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for FakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeStore").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

impl FakeStore {
    /// Makes an empty store of that world, in its usual directory.
    pub fn new(dialect: Dialect) -> Self {
        let directory = match dialect {
            Dialect::Nix => StoreDirectory::nix(),
            Dialect::Guix => StoreDirectory::guix(),
        };
        Self { dialect, directory, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a path valid.
    ///
    /// # Panics
    /// If `contents` has names no NAR can hold.
    pub fn add(&self, path: &StorePath, references: BTreeSet<StorePath>, contents: &Node) {
        let item = item(path, references, contents);
        self.state().valid.insert(path.clone(), item);
    }

    /// Lets substitute servers have a path.
    ///
    /// # Panics
    /// If `contents` has names no NAR can hold.
    pub fn add_substitute(&self, path: &StorePath, references: BTreeSet<StorePath>, contents: &Node) {
        let item = item(path, references, contents);
        self.state().substitutable.insert(path.clone(), item);
    }

    /// Makes a derivation valid and tells what building it does.
    ///
    /// # Panics
    /// Never: the text of a derivation is a plain file.
    pub fn add_build(&self, derivation: &DrvPath, build: FakeBuild) {
        self.add(derivation, BTreeSet::new(), &Node::file("Derive(…)"));
        self.state().builds.insert(derivation.clone(), build);
    }

    /// Demands a signature of one of the keys given so far with each NAR.
    pub fn trust(&self, key: PublicKey) {
        self.state().trusted.push(key);
    }

    /// Lets further attempts to connect fail, or not.
    pub fn refuse_connections(&self, refusing: bool) {
        self.state().refusing = refusing;
    }

    /// Gives the derivations whose builders were started, in order.
    pub fn started(&self) -> Vec<DrvPath> {
        self.state().started.clone()
    }

    /// Gives the derivations whose builders were killed as their client hung up, in order.
    pub fn cancelled(&self) -> Vec<DrvPath> {
        self.state().cancelled.clone()
    }

    /// Gives the links registered as roots.
    pub fn roots(&self) -> Vec<PathBuf> {
        self.state().roots.clone()
    }

    /// Makes a connection.
    pub fn open(&self) -> FakeConnection {
        let version = match self.dialect {
            Dialect::Nix => ProtocolVersion::NIX_NEWEST,
            Dialect::Guix => ProtocolVersion::GUIX_NEWEST,
        };
        let info = DaemonInfo {
            dialect: self.dialect,
            version,
            program_version: None,
            trusted: None,
            store_directory: self.directory.clone(),
        };
        FakeConnection { store: self.clone(), info, options: None, usable: true }
    }
}

fn item(path: &StorePath, references: BTreeSet<StorePath>, contents: &Node) -> (PathInfo, Vec<u8>) {
    let nar = contents.to_nar().expect("the names are those of files");
    let info = PathInfo {
        path: path.clone(),
        deriver: None,
        nar_hash: NarHash::digest(&nar),
        references,
        registration_time: 1,
        nar_size: nar.len() as u64,
        ultimate: true,
        signatures: BTreeSet::new(),
        content_address: None,
    };
    (info, nar)
}

#[async_trait]
impl Connector for FakeStore {
    async fn connect(&self) -> Result<Box<dyn BuildDaemon>, DaemonError> {
        if self.state().refusing {
            let source = std::io::ErrorKind::ConnectionRefused.into();
            let address = crate::address::DaemonAddress::from_path("/fake");
            return Err(DaemonError::Connect { address, source });
        }
        Ok(Box::new(self.open()))
    }
}

/// A connection to a [`FakeStore`].
#[derive(Debug)]
pub struct FakeConnection {
    store: FakeStore,
    info: DaemonInfo,
    options: Option<ClientOptions>,
    usable: bool,
}

/// Notes a builder that is dropped before its end.
struct Running<'r> {
    store: &'r FakeStore,
    derivation: Option<DrvPath>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(derivation) = self.derivation.take() {
            self.store.state().cancelled.push(derivation);
        }
    }
}

impl FakeConnection {
    fn state(&self) -> MutexGuard<'_, State> {
        self.store.state()
    }

    fn check(&self, operation: Operation) -> Result<(), DaemonError> {
        if self.usable { Ok(()) } else { Err(DaemonError::Broken { operation }) }
    }

    fn refuse<T>(operation: Operation, message: String) -> Result<T, DaemonError> {
        Err(DaemonError::Daemon { operation, message, status: 1 })
    }

    /// Adds what follows from a name and bytes, under a path that does so too, though not as a real daemon computes it.
    fn add_content(
        &self,
        operation: Operation,
        name: &str,
        nar: Vec<u8>,
        references: &BTreeSet<StorePath>,
    ) -> Result<StorePath, DaemonError> {
        if check_name(name).is_err() {
            return Self::refuse(operation, format!("`{name}` is not a name"));
        }
        let nar_hash = NarHash::digest(&nar);
        let mut digest = [0; 20];
        digest.copy_from_slice(
            &NarHash::digest(format!("{nar_hash}{name}{references:?}").as_bytes()).as_bytes()[..20],
        );
        let path = StorePath::from_digest(&self.info.store_directory, &digest, name);
        let Ok(path) = path else { return Self::refuse(operation, format!("`{name}` is not a name")) };
        let info = PathInfo {
            path: path.clone(),
            deriver: None,
            nar_hash,
            references: references.clone(),
            registration_time: 1,
            nar_size: nar.len() as u64,
            ultimate: false,
            signatures: BTreeSet::new(),
            content_address: None,
        };
        self.state().valid.insert(path.clone(), (info, nar));
        Ok(path)
    }

    async fn build_one(
        &self,
        target: &BuildTarget,
        mode: BuildMode,
        log: &mut dyn LogSink,
    ) -> Result<BuildResult, DaemonError> {
        let operation = Operation::BuildPathsWithResults;
        let mut result = BuildResult::new(target.clone(), BuildStatus::AlreadyValid);
        let derivation = match target {
            BuildTarget::Derivation { derivation, .. } => derivation,
            BuildTarget::Path(path) => {
                result.outputs.insert(OutputName::OUT, path.clone());
                if !self.state().valid.contains_key(path) {
                    result.status = self.substitute(path);
                }
                return Ok(result);
            }
        };
        let Some(build) = self.state().builds.get(derivation).cloned() else {
            return Self::refuse(operation, format!("path '{derivation}' is not valid"));
        };
        let outputs: BTreeMap<OutputName, StorePath> =
            build.outputs.iter().map(|(name, (path, _))| (name.clone(), path.clone())).collect();
        if mode == BuildMode::Normal && outputs.values().all(|path| self.state().valid.contains_key(path)) {
            result.outputs = outputs;
            return Ok(result);
        }
        if let Some(lacking) = build.inputs.iter().find(|path| !self.state().valid.contains_key(path)) {
            result.status = BuildStatus::DependencyFailed;
            result.reason = Some(FailureReason::Dependency);
            result.message = format!("{lacking} is not valid");
            return Ok(result);
        }
        self.state().started.push(derivation.clone());
        let mut running = Running { store: &self.store, derivation: Some(derivation.clone()) };
        log.event(LogEvent::BuildStarted { derivation, machine: None, log_file: None }).await;
        for bytes in &build.log {
            log.event(LogEvent::BuildOutput { derivation: Some(derivation), bytes }).await;
        }
        if let Some(mut release) = build.release {
            // A sender that is gone releases as well.
            let _ = release.wait_for(|&released| released).await;
        }
        running.derivation = None;
        result.status = build.status;
        result.times_built = 1;
        if build.status.is_success() {
            for (path, contents) in build.outputs.values() {
                let (mut info, nar) = item(path, build.inputs.clone(), contents);
                info.deriver = Some(derivation.as_path().clone());
                self.state().valid.insert(path.clone(), (info, nar));
            }
            result.outputs = outputs;
            log.event(LogEvent::BuildSucceeded { derivation }).await;
        } else {
            let reason = build.reason.unwrap_or(FailureReason::Other);
            result.message = format!("builder for '{derivation}' failed: {reason}");
            log.event(LogEvent::BuildFailed { derivation, reason: &reason, message: &result.message }).await;
            result.reason = Some(reason);
        }
        Ok(result)
    }

    /// Fetches `path` and what it refers to.
    fn substitute(&self, path: &StorePath) -> BuildStatus {
        let mut wanted = vec![path.clone()];
        let mut state = self.state();
        while let Some(path) = wanted.pop() {
            if state.valid.contains_key(&path) {
                continue;
            }
            let Some(item) = state.substitutable.get(&path).cloned() else {
                return BuildStatus::NoSubstituters;
            };
            wanted.extend(item.0.references.iter().filter(|reference| **reference != path).cloned());
            state.valid.insert(path, item);
        }
        BuildStatus::Substituted
    }

    async fn read_all(
        operation: Operation,
        from: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<Vec<u8>, DaemonError> {
        let mut bytes = Vec::new();
        from.take(LARGEST)
            .read_to_end(&mut bytes)
            .await
            .map_err(|source| DaemonError::Source { operation, source })?;
        Ok(bytes)
    }
}

#[async_trait]
impl BuildDaemon for FakeConnection {
    fn info(&self) -> &DaemonInfo {
        &self.info
    }

    fn options(&self) -> Option<&ClientOptions> {
        self.options.as_ref()
    }

    fn is_usable(&mut self) -> bool {
        self.usable
    }

    async fn set_options(&mut self, options: &ClientOptions) -> Result<(), DaemonError> {
        self.check(Operation::SetOptions)?;
        self.options = Some(options.clone());
        Ok(())
    }

    async fn query_valid_paths(
        &mut self,
        paths: &BTreeSet<StorePath>,
    ) -> Result<BTreeSet<StorePath>, DaemonError> {
        self.check(Operation::QueryValidPaths)?;
        let state = self.state();
        Ok(paths.iter().filter(|path| state.valid.contains_key(path)).cloned().collect())
    }

    async fn query_path_info(&mut self, path: &StorePath) -> Result<Option<PathInfo>, DaemonError> {
        self.check(Operation::QueryPathInfo)?;
        Ok(self.state().valid.get(path).map(|(info, _)| info.clone()))
    }

    async fn query_path_from_hash_part(
        &mut self,
        hash: &StorePathHash,
    ) -> Result<Option<StorePath>, DaemonError> {
        self.check(Operation::QueryPathFromHashPart)?;
        Ok(self.state().valid.keys().find(|path| path.hash() == *hash).cloned())
    }

    async fn query_referrers(&mut self, path: &StorePath) -> Result<BTreeSet<StorePath>, DaemonError> {
        self.check(Operation::QueryReferrers)?;
        let state = self.state();
        let referring = state.valid.values().filter(|(info, _)| info.references.contains(path));
        Ok(referring.map(|(info, _)| info.path.clone()).collect())
    }

    async fn query_valid_derivers(&mut self, path: &StorePath) -> Result<BTreeSet<DrvPath>, DaemonError> {
        self.check(Operation::QueryValidDerivers)?;
        let state = self.state();
        let gives = |build: &FakeBuild| build.outputs.values().any(|(output, _)| output == path);
        let derivers = state.builds.iter().filter(|(_, build)| gives(build));
        Ok(derivers.map(|(derivation, _)| derivation.clone()).collect())
    }

    async fn query_derivation_outputs(
        &mut self,
        derivation: &DrvPath,
    ) -> Result<BTreeMap<OutputName, StorePath>, DaemonError> {
        self.check(Operation::QueryDerivationOutputs)?;
        match self.state().builds.get(derivation) {
            Some(build) => {
                Ok(build.outputs.iter().map(|(name, (path, _))| (name.clone(), path.clone())).collect())
            }
            None => {
                Self::refuse(Operation::QueryDerivationOutputs, format!("path '{derivation}' is not valid"))
            }
        }
    }

    async fn query_substitutable_paths(
        &mut self,
        paths: &BTreeSet<StorePath>,
    ) -> Result<BTreeSet<StorePath>, DaemonError> {
        self.check(Operation::QuerySubstitutablePaths)?;
        let state = self.state();
        Ok(paths.iter().filter(|path| state.substitutable.contains_key(path)).cloned().collect())
    }

    async fn query_substitutable_path_infos(
        &mut self,
        paths: &BTreeSet<StorePath>,
    ) -> Result<Vec<SubstitutablePathInfo>, DaemonError> {
        self.check(Operation::QuerySubstitutablePathInfos)?;
        let state = self.state();
        let known = paths.iter().filter_map(|path| state.substitutable.get(path));
        Ok(known
            .map(|(info, _)| SubstitutablePathInfo {
                path: info.path.clone(),
                deriver: info.deriver.clone(),
                references: info.references.clone(),
                download_size: info.nar_size,
                nar_size: info.nar_size,
            })
            .collect())
    }

    async fn query_missing(&mut self, targets: &[BuildTarget]) -> Result<Missing, DaemonError> {
        self.check(Operation::QueryMissing)?;
        let substitutes = self.options.as_ref().is_none_or(|options| options.use_substitutes);
        let state = self.state();
        let mut missing = Missing::default();
        let mut look = |path: &StorePath| {
            if state.valid.contains_key(path) {
                return;
            }
            match state.substitutable.get(path) {
                Some((info, _)) if substitutes => {
                    missing.will_substitute.insert(path.clone());
                    missing.download_size += info.nar_size;
                    missing.nar_size += info.nar_size;
                }
                Some(_) | None => {
                    missing.unknown.insert(path.clone());
                }
            }
        };
        let mut building = BTreeSet::new();
        for target in targets {
            match target {
                BuildTarget::Path(path) => look(path),
                BuildTarget::Derivation { derivation, .. } => match state.builds.get(derivation) {
                    None => look(derivation),
                    Some(build) => {
                        let valid = |(path, _): &(StorePath, Node)| state.valid.contains_key(path);
                        if !build.outputs.values().all(valid) {
                            building.insert(derivation.clone());
                            build.inputs.iter().for_each(&mut look);
                        }
                    }
                },
            }
        }
        missing.will_build = building;
        Ok(missing)
    }

    async fn ensure_path(&mut self, path: &StorePath, log: &mut dyn LogSink) -> Result<(), DaemonError> {
        let operation = Operation::EnsurePath;
        self.check(operation)?;
        if self.state().valid.contains_key(path) {
            return Ok(());
        }
        log.event(LogEvent::SubstitutionStarted { path, from: None }).await;
        match self.substitute(path) {
            BuildStatus::Substituted => {
                log.event(LogEvent::SubstitutionSucceeded { path }).await;
                Ok(())
            }
            _ => Self::refuse(operation, format!("path '{path}' does not exist and cannot be created")),
        }
    }

    async fn build(
        &mut self,
        targets: &[BuildTarget],
        mode: BuildMode,
        log: &mut dyn LogSink,
    ) -> Result<Vec<BuildResult>, DaemonError> {
        self.check(Operation::BuildPathsWithResults)?;
        // Broken if this future is dropped half-way, as the real one.
        self.usable = false;
        let mut results = Vec::with_capacity(targets.len());
        for target in targets {
            let result = self.build_one(target, mode, log).await;
            match result {
                Ok(result) => results.push(result),
                Err(error) => {
                    self.usable = true;
                    return Err(error);
                }
            }
        }
        self.usable = true;
        Ok(results)
    }

    async fn add_text(
        &mut self,
        name: &str,
        contents: &[u8],
        references: &BTreeSet<StorePath>,
    ) -> Result<StorePath, DaemonError> {
        let operation = Operation::AddTextToStore;
        self.check(operation)?;
        let nar = Node::file(contents).to_nar();
        let nar = nar.or_else(|error| Self::refuse(operation, error.to_string()))?;
        self.add_content(operation, name, nar, references)
    }

    async fn add_source(
        &mut self,
        name: &str,
        nar: &mut (dyn AsyncRead + Send + Unpin),
        references: &BTreeSet<StorePath>,
    ) -> Result<StorePath, DaemonError> {
        let operation = Operation::AddToStore;
        self.check(operation)?;
        let nar = Self::read_all(operation, nar).await?;
        if let Err(error) = Node::from_nar(&nar, Limits::with_size(LARGEST)) {
            return Self::refuse(operation, error.to_string());
        }
        self.add_content(operation, name, nar, references)
    }

    async fn add_nar(
        &mut self,
        info: &PathInfo,
        nar: &mut (dyn AsyncRead + Send + Unpin),
        repair: bool,
    ) -> Result<(), DaemonError> {
        let operation = Operation::AddToStoreNar;
        self.check(operation)?;
        let nar = Self::read_all(operation, nar).await?;
        let path = &info.path;
        if NarHash::digest(&nar) != info.nar_hash || nar.len() as u64 != info.nar_size {
            return Self::refuse(operation, format!("hash mismatch importing path '{path}'"));
        }
        let mut state = self.state();
        if !repair && state.valid.contains_key(path) {
            return Ok(());
        }
        let text = fingerprint(path, &info.nar_hash, info.nar_size, &info.references);
        let signed = info
            .signatures
            .iter()
            .filter_map(|text| Signature::parse(text).ok())
            .any(|signature| state.trusted.iter().any(|key| key.verify(&text, &signature)));
        if !signed && !state.trusted.is_empty() {
            return Self::refuse(
                operation,
                format!("cannot add path '{path}' because it lacks a valid signature"),
            );
        }
        let lacking = info.references.iter().find(|other| *other != path && !state.valid.contains_key(other));
        if let Some(lacking) = lacking {
            return Self::refuse(operation, format!("path '{lacking}' is not valid"));
        }
        state.valid.insert(path.clone(), (PathInfo { ultimate: false, ..info.clone() }, nar));
        Ok(())
    }

    async fn nar_from_path(
        &mut self,
        path: &StorePath,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<u64, DaemonError> {
        let operation = Operation::NarFromPath;
        self.check(operation)?;
        let nar = self.state().valid.get(path).map(|(_, nar)| nar.clone());
        let nar = nar.ok_or_else(|| DaemonError::NotValid { path: path.clone() })?;
        to.write_all(&nar).await.map_err(|source| DaemonError::Sink { operation, source })?;
        Ok(nar.len() as u64)
    }

    async fn export_paths(
        &mut self,
        _: &[StorePath],
        _: bool,
        _: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<(), DaemonError> {
        Err(DaemonError::Unsupported { operation: Operation::ExportPath, reason: "this daemon is a fake" })
    }

    async fn import_paths(
        &mut self,
        _: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<Vec<StorePath>, DaemonError> {
        Err(DaemonError::Unsupported { operation: Operation::ImportPaths, reason: "this daemon is a fake" })
    }

    async fn add_temp_root(&mut self, _: &StorePath) -> Result<(), DaemonError> {
        self.check(Operation::AddTempRoot)
    }

    async fn add_indirect_root(&mut self, link: &Path) -> Result<(), DaemonError> {
        self.check(Operation::AddIndirectRoot)?;
        self.state().roots.push(link.to_owned());
        Ok(())
    }

    async fn find_roots(&mut self) -> Result<Vec<Root>, DaemonError> {
        self.check(Operation::FindRoots)?;
        let links = self.store.roots();
        let target = |link: &Path| StorePath::parse(std::fs::read_link(link).ok()?.to_str()?).ok();
        Ok(links.into_iter().filter_map(|link| Some(Root { target: target(&link)?, link })).collect())
    }

    async fn verify_store(&mut self, _: bool, _: bool) -> Result<bool, DaemonError> {
        self.check(Operation::VerifyStore)?;
        Ok(false)
    }

    async fn optimise_store(&mut self) -> Result<(), DaemonError> {
        self.check(Operation::OptimiseStore)
    }

    async fn built_in_builders(&mut self) -> Result<BTreeSet<String>, DaemonError> {
        self.check(Operation::BuiltInBuilders)?;
        Ok(BTreeSet::new())
    }

    async fn substitute_urls(&mut self) -> Result<Vec<String>, DaemonError> {
        self.check(Operation::SubstituteUrls)?;
        Ok(Vec::new())
    }

    async fn collect_garbage(&mut self, request: &GarbageRequest) -> Result<GarbageReport, DaemonError> {
        self.check(Operation::CollectGarbage)?;
        let GarbageAction::Delete(paths) = &request.action else { return Ok(GarbageReport::default()) };
        let mut state = self.state();
        let deleted = paths.iter().filter_map(|path| state.valid.remove(path)).collect::<Vec<_>>();
        Ok(GarbageReport {
            bytes_freed: deleted.iter().map(|(info, _)| info.nar_size).sum(),
            paths: deleted.into_iter().map(|(info, _)| info.path.to_string()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        log::{Collect, Discard},
        pool::Pool,
    };

    fn path(name: &str) -> StorePath {
        StorePath::from_base_name(&StoreDirectory::nix(), &format!("45rrqddcql46lzs8nma7hncjl4cvy7df-{name}"))
            .unwrap()
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn builds_and_adds() {
        let store = FakeStore::new(Dialect::Nix);
        let good = DrvPath::try_from(path("good.drv")).unwrap();
        let bad = DrvPath::try_from(path("bad.drv")).unwrap();
        store.add_build(&good, FakeBuild::success(path("good")));
        store.add_build(&bad, FakeBuild::failure(path("bad"), 2));
        let targets = [BuildTarget::all(good.clone()), BuildTarget::all(bad.clone())];
        runtime().block_on(async {
            let mut daemon = store.open();
            assert_eq!(daemon.query_missing(&targets).await.unwrap().will_build.len(), 2);
            let mut log = Collect::new(100);
            let results = daemon.build(&targets, BuildMode::Normal, &mut log).await.unwrap();
            assert_eq!(results[0].status, BuildStatus::Built);
            assert_eq!(results[1].reason, Some(FailureReason::ExitCode(2)));
            assert_eq!(log.bytes(), b"building\nbuilding\n");
            let again = daemon.build(&targets[..1], BuildMode::Normal, &mut Discard).await.unwrap();
            assert_eq!(again[0].status, BuildStatus::AlreadyValid);
            let mut nar = Vec::new();
            let size = daemon.nar_from_path(&path("good"), &mut nar).await.unwrap();
            let info = daemon.query_path_info(&path("good")).await.unwrap().unwrap();
            assert_eq!((size, NarHash::digest(&nar)), (info.nar_size, info.nar_hash));
            let mut other = FakeStore::new(Dialect::Nix).open();
            other.add_nar(&info, &mut nar.as_slice(), false).await.unwrap();
            assert!(other.is_valid_path(&path("good")).await.unwrap());
        });
        assert_eq!(store.started(), [good, bad]);
    }

    #[test]
    fn a_dropped_build_is_cancelled_and_its_connection_replaced() {
        let store = FakeStore::new(Dialect::Nix);
        let long = DrvPath::try_from(path("long.drv")).unwrap();
        let (sender, release) = watch::channel(false);
        store.add_build(&long, FakeBuild { release: Some(release), ..FakeBuild::success(path("long")) });
        let pool = Pool::new(store.clone(), ClientOptions::default(), 1);
        let targets = [BuildTarget::all(long.clone())];
        runtime().block_on(async {
            let mut daemon = pool.get().await.unwrap();
            let mut log = Discard;
            let building = daemon.build(&targets, BuildMode::Normal, &mut log);
            assert!(tokio::time::timeout(Duration::from_millis(10), building).await.is_err());
            assert_eq!(store.cancelled(), [long]);
            assert!(!daemon.is_usable());
            drop(daemon);
            sender.send(true).unwrap();
            let mut daemon = pool.get().await.unwrap();
            let results = daemon.build(&targets, BuildMode::Normal, &mut Discard).await.unwrap();
            assert_eq!(results[0].status, BuildStatus::Built);
            store.refuse_connections(true);
            daemon.discard();
            assert!(pool.get().await.unwrap_err().is_connection());
        });
    }
}
