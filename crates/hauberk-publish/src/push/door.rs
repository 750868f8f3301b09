//! The side of a server that takes pushes.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use hauberk_store::{NarInfo, Sha256, StoreDirectory, StorePath, StorePathHash, nar::NarError};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::{
    MARK,
    contents::Contents,
    parcel::{Parcel, ParcelError, ParcelName},
};
use crate::{
    Cache, Signer,
    cache::{CacheError, Encoder, Method, Pending},
    inbox::Offset,
};

/// Tokens that are looked up at once: those who guess wait for each other.
const LOOKUPS: usize = 2;

/// Parcels that are begun and not complete, at most.
const PARCELS: usize = 64;

/// Items made visible with one wait for the disk.
const BATCH: usize = 2048;

/// Bytes of nars after which items are made visible before there are so many.
const BATCH_BYTES: u64 = 256 << 20;

/// Bytes that an item counts for besides its nar.
const ITEM: u64 = 1024;

/// Knows who may push.
#[async_trait]
pub trait PushGate: Send + Sync {
    /// Tells whether this is the digest of a token by which things may be pushed now for an evaluation.
    ///
    /// # Errors
    /// What keeps it from looking; the client gets a 503.
    async fn admits(&self, evaluation: u64, token: &Sha256) -> Result<bool, Box<dyn Error + Send + Sync>>;
}

/// Bounds on what is pushed.
#[derive(Debug, Clone, Copy)]
pub struct PushLimits {
    /// Bytes for one evaluation, those of nars as they come and unpacked.
    pub bytes: u64,
    /// How long a part of a parcel waits for the rest.
    pub patience: Duration,
}

impl Default for PushLimits {
    /// Gives 64 GiB, and two days.
    fn default() -> Self {
        Self { bytes: 64 << 30, patience: Duration::from_secs(2 * 24 * 3600) }
    }
}

/// What is asked about paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Which the cache lacks, or something that they refer to.
    Missing,
    /// Which need no build.
    Available,
}

/// Why something is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushRefusal {
    /// It does not join what is here.
    #[error("{} bytes are here", .0.at)]
    Elsewhere(Offset),
    /// There is more of it than there may be.
    #[error("for one evaluation {limit} bytes are taken")]
    TooMuch {
        /// Bytes that may come.
        limit: u64,
    },
    /// Others send too much at this moment.
    #[error("too many parcels are under way")]
    Crowded,
    /// It cannot be unpacked.
    #[error(transparent)]
    Parcel(#[from] ParcelError),
    /// It is no nar.
    #[error("what came for {path} is no nar")]
    NotANar {
        /// The item.
        path: StorePath,
        /// What is wrong with it.
        source: NarError,
    },
    /// Its nar is another.
    #[error("the nar of {path} is not the one announced")]
    OtherNar {
        /// The item.
        path: StorePath,
    },
    /// It may have been made by a build, or be anything.
    #[error("{path} does not follow from what it holds: only derivations, texts and sources can be pushed")]
    NotAddressed {
        /// The item.
        path: StorePath,
    },
    /// What it refers to is not here.
    #[error("{path} refers to {reference}, which is not here")]
    Dangling {
        /// The item.
        path: StorePath,
        /// What it refers to.
        reference: StorePath,
    },
    /// The cache cannot take it.
    #[error("it cannot be kept")]
    Cache(#[from] CacheError),
    /// What came of the parcel cannot be kept.
    #[error("it cannot be kept")]
    Io(#[source] io::Error),
}

/// Takes pushes into a cache. Clones are the same.
#[derive(Clone)]
pub struct PushDoor(Arc<Inner>);

struct Inner {
    gate: Box<dyn PushGate>,
    lookups: Semaphore,
    cache: Cache,
    signer: Signer,
    limits: PushLimits,
    /// What has come of parcels.
    directory: PathBuf,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// The parcels that are written to at this moment.
    busy: HashSet<ParcelName>,
    /// Bytes that each evaluation has brought since the process began.
    brought: HashMap<u64, u64>,
}

impl PushDoor {
    /// Takes what those whom `gate` admits push into `cache`, signed by `signer`. What comes of parcels lies in `directory` meanwhile, which is
    /// made if it does not exist.
    ///
    /// # Errors
    /// A directory that cannot be made or read.
    pub fn open(
        directory: &Path,
        gate: impl PushGate + 'static,
        cache: Cache,
        signer: Signer,
        limits: PushLimits,
    ) -> Result<Self, CacheError> {
        fs::create_dir_all(directory).map_err(CacheError::io("make the directory", directory))?;
        let door = Self(Arc::new(Inner {
            gate: Box::new(gate),
            lookups: Semaphore::new(LOOKUPS),
            cache,
            signer,
            limits,
            directory: directory.to_owned(),
            open: Mutex::default(),
        }));
        door.tidy()?;
        Ok(door)
    }

    /// Tells whether somebody may push for an evaluation.
    pub(crate) async fn admits(
        &self,
        evaluation: u64,
        token: &str,
    ) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let _turn = self.0.lookups.acquire().await?;
        self.0.gate.admits(evaluation, &Sha256::digest(token.as_bytes())).await
    }

    /// Gives the store whose items are taken.
    pub(crate) fn store_directory(&self) -> &StoreDirectory {
        self.0.cache.store_directory()
    }

    /// Tells which of these the cache has with all they refer to. They count as used now, so that they are not collected before they are
    /// wanted.
    pub(crate) fn complete(&self, paths: &[StorePath]) -> Result<Vec<bool>, CacheError> {
        let hashes: Vec<StorePathHash> = paths.iter().map(StorePath::hash).collect();
        self.0.cache.keep_closures(&hashes)
    }

    /// Tells which of these the cache has.
    pub(crate) fn has(&self, paths: &[StorePath]) -> Vec<bool> {
        paths.iter().map(|path| self.0.cache.contains(&path.hash())).collect()
    }

    /// Tells how much of a parcel is here.
    pub(crate) fn offset(&self, name: &ParcelName) -> Offset {
        Offset { at: self.length(name), complete: false }
    }

    /// Takes a piece of a parcel. With the last one, all that the parcel holds is in the cache and durable when it returns; blocks until then.
    pub(crate) fn append(
        &self,
        evaluation: u64,
        name: &ParcelName,
        at: u64,
        bytes: &[u8],
        last: bool,
    ) -> Result<Offset, PushRefusal> {
        let _alone = self.alone(name)?;
        let here = self.length(name);
        if at != here {
            return Err(PushRefusal::Elsewhere(Offset { at: here, complete: false }));
        }
        self.charge(evaluation, bytes.len() as u64).inspect_err(|_| self.forget(name))?;
        if here == 0 {
            self.make_room()?;
        }
        let path = self.file(name);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(PushRefusal::Io)?;
        if let Err(error) = file.write_all_at(bytes, here) {
            // Half a piece would be of no harm; the disk may be full, though.
            let _ = file.set_len(here);
            return Err(PushRefusal::Io(error));
        }
        let length = here + bytes.len() as u64;
        if !last {
            return Ok(Offset { at: length, complete: false });
        }
        let unpacked = self.unpack(evaluation, file);
        match &unpacked {
            // The disk may have room for it later.
            Err(PushRefusal::Cache(_) | PushRefusal::Io(_)) => {}
            Ok(_) | Err(_) => self.forget(name),
        }
        let (items, bytes) = unpacked?;
        info!(
            evaluation.id = evaluation,
            "took {items} derivations and sources of evaluation {evaluation}, {bytes} bytes"
        );
        Ok(Offset { at: length, complete: true })
    }

    /// Takes all items of a parcel into the cache. Gives their number and bytes.
    fn unpack(&self, evaluation: u64, file: File) -> Result<(usize, u64), PushRefusal> {
        let inner = &*self.0;
        let mut parcel = Parcel::new(Rewound { file, at: 0 })?;
        let (mut batch, mut fresh) = (Vec::new(), HashSet::new());
        let (mut items, mut bytes, mut waiting) = (0, 0, 0);
        let taken = loop {
            if batch.len() >= BATCH || waiting >= BATCH_BYTES {
                items += inner.cache.commit_blocking(std::mem::take(&mut batch), &inner.signer)?.len();
                fresh.clear();
                waiting = 0;
            }
            let narinfo = match parcel.next(inner.cache.store_directory()) {
                Ok(Some(narinfo)) => narinfo,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            };
            if let Err(refusal) = self.charge(evaluation, narinfo.nar_size.saturating_add(ITEM)) {
                break Err(refusal);
            }
            match self.take(&mut parcel, narinfo, &fresh) {
                Ok(pending) => {
                    fresh.insert(pending.narinfo().store_path.hash());
                    bytes += pending.narinfo().nar_size;
                    waiting += pending.narinfo().nar_size;
                    batch.push(pending);
                }
                Err(refusal) => break Err(refusal),
            }
        };
        // What came whole before something wrong is as good as any.
        items += inner.cache.commit_blocking(batch, &inner.signer)?.len();
        taken.map(|()| (items, bytes))
    }

    /// Takes one item into a file of the cache.
    fn take(
        &self,
        parcel: &mut Parcel<Rewound>,
        narinfo: NarInfo,
        fresh: &HashSet<StorePathHash>,
    ) -> Result<Pending, PushRefusal> {
        let cache = &self.0.cache;
        let path = narinfo.store_path.clone();
        let lost = |reference: &&StorePath| {
            **reference != path && !fresh.contains(&reference.hash()) && !cache.contains(&reference.hash())
        };
        if let Some(reference) = narinfo.references.iter().find(lost) {
            return Err(PushRefusal::Dangling { path, reference: reference.clone() });
        }
        let write = |error| PushRefusal::Cache(CacheError::Write(error));
        let mut packed = Encoder::new(Method::default(), cache.begin()?).map_err(write)?;
        let mut contents = Contents::new(narinfo.nar_size);
        parcel.nar(narinfo.nar_size, |bytes| {
            contents.push(bytes).map_err(|source| PushRefusal::NotANar { path: path.clone(), source })?;
            packed.write_all(bytes).map_err(write)
        })?;
        let found =
            contents.finish().map_err(|source| PushRefusal::NotANar { path: path.clone(), source })?;
        if found.nar_hash != narinfo.nar_hash || found.nar_size != narinfo.nar_size {
            return Err(PushRefusal::OtherNar { path });
        }
        let Some(address) = found.address(&path, &narinfo.references) else {
            return Err(PushRefusal::NotAddressed { path });
        };
        let described = NarInfo {
            deriver: None,
            system: None,
            signatures: Vec::new(),
            guix_signature: None,
            ca: Some(address),
            unknown: vec![(MARK.to_owned(), "1".to_owned())],
            ..narinfo
        };
        Ok(Pending::new(packed.finish().map_err(write)?, described))
    }

    /// Counts bytes of an evaluation, of which there may be so many only.
    fn charge(&self, evaluation: u64, bytes: u64) -> Result<(), PushRefusal> {
        let limit = self.0.limits.bytes;
        let mut open = self.open_parcels();
        let brought = open.brought.entry(evaluation).or_default();
        *brought = brought.saturating_add(bytes);
        if *brought > limit { Err(PushRefusal::TooMuch { limit }) } else { Ok(()) }
    }

    /// Keeps others from a parcel until it is dropped.
    fn alone(&self, name: &ParcelName) -> Result<Alone<'_>, PushRefusal> {
        let free = self.open_parcels().busy.insert(name.clone());
        if free { Ok(Alone { door: self, name: name.clone() }) } else { Err(PushRefusal::Crowded) }
    }

    /// Removes old parcels, and looks whether another one may begin.
    fn make_room(&self) -> Result<(), PushRefusal> {
        if self.tidy()? < PARCELS { Ok(()) } else { Err(PushRefusal::Crowded) }
    }

    /// Removes what of parcels has waited for too long. Gives the number of those that wait.
    fn tidy(&self) -> Result<usize, CacheError> {
        let inner = &*self.0;
        let failed = || CacheError::io("read", &inner.directory);
        let mut waiting = 0;
        for entry in fs::read_dir(&inner.directory).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            let changed = path.metadata().and_then(|metadata| metadata.modified());
            if changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > inner.limits.patience)) {
                fs::remove_file(&path).map_err(CacheError::io("remove", &path))?;
            } else {
                waiting += 1;
            }
        }
        Ok(waiting)
    }

    fn file(&self, name: &ParcelName) -> PathBuf {
        self.0.directory.join(name.as_str())
    }

    fn length(&self, name: &ParcelName) -> u64 {
        self.file(name).metadata().map_or(0, |metadata| metadata.len())
    }

    fn forget(&self, name: &ParcelName) {
        let path = self.file(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(error = &error as &dyn Error, "cannot remove {}", path.display());
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn open_parcels(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for PushDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushDoor").field("directory", &self.0.directory).finish_non_exhaustive()
    }
}

/// The only one who writes to a parcel.
struct Alone<'a> {
    door: &'a PushDoor,
    name: ParcelName,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.door.open_parcels().busy.remove(&self.name);
    }
}

/// Reads a file from its beginning, wherever it was written to.
struct Rewound {
    file: File,
    at: u64,
}

impl io::Read for Rewound {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
