//! The cache directory itself.

use std::{
    collections::{HashMap, hash_map},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use hauberk_store::{
    NarInfo, StoreDirectory, StorePathHash,
    cache_info::{self, CacheInfo},
    narinfo::{Compression, NarUrl},
};

use tracing::warn;

use super::{
    error::CacheError,
    nar_file::{FinishedNar, NarFile},
    pending::Pending,
    reader::{CacheReader, read_bounded},
    scratch::Scratch,
};
use crate::{describe::item_nar_url, signer::Signer};

/// Files that are brought to the disk one by one: to bring all there is there at once waits for whatever else is being written to that disk, builds
/// above all, and pays for many.
const FEW: usize = 8;

/// A stock Nix binary cache on disk: `nix-cache-info`, `HASH.narinfo`, `nar/…`. Clones are the same cache.
///
/// What is visible is whole and durable: nars are written under temporary names, synced, renamed, and only then the
/// narinfo that names them appears. A killed process leaves temporary files that the next opening removes; several
/// processes may have the same cache open.
#[derive(Debug, Clone)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reader: CacheReader,
    nars: PathBuf,
    scratch: Scratch,
    /// Held by the one commit that runs.
    committing: Mutex<()>,
}

/// What became of an item given to [`Cache::commit`].
#[derive(Debug)]
pub struct Committed {
    /// What the cache says of it now.
    pub narinfo: NarInfo,
    /// False where the cache had the path already: then that one stays, and `narinfo` is its.
    pub inserted: bool,
}

impl Cache {
    /// Opens the cache in `directory`, which is made if it does not exist, and removes what killed processes left.
    ///
    /// # Errors
    /// A directory that cannot be made or written, or whose `nix-cache-info` names another store.
    pub fn open(directory: &Path, store_directory: &StoreDirectory) -> Result<Self, CacheError> {
        let nars = directory.join("nar");
        fs::create_dir_all(&nars).map_err(CacheError::io("make the directory", &nars))?;
        let temporary = directory.join("tmp");
        let scratch =
            Scratch::open(&temporary).map_err(CacheError::io("prepare the directory", &temporary))?;
        let info_path = directory.join("nix-cache-info");
        let read = read_bounded(&info_path, cache_info::MAX_SIZE);
        match read.map_err(CacheError::io("read", &info_path))? {
            Some(text) => {
                let info = CacheInfo::parse(&text)
                    .map_err(|source| CacheError::CacheInfo { path: info_path.clone(), source })?;
                if info.store_directory != *store_directory {
                    let (path, wanted) = (directory.to_owned(), store_directory.clone());
                    return Err(CacheError::OtherStore { path, found: info.store_directory, wanted });
                }
            }
            None => {
                let info = CacheInfo {
                    store_directory: store_directory.clone(),
                    want_mass_query: true,
                    priority: None,
                };
                write_whole(&scratch, info.to_string().as_bytes(), &info_path)
                    .map_err(CacheError::io("write", &info_path))?;
            }
        }
        let reader = CacheReader::new(directory, store_directory);
        Ok(Self(Arc::new(Inner { reader, nars, scratch, committing: Mutex::new(()) })))
    }

    /// Opens a cache that exists, of whichever store.
    ///
    /// # Errors
    /// A directory that is no cache, and as [`Self::open`].
    pub fn open_existing(directory: &Path) -> Result<Self, CacheError> {
        Self::open(directory, CacheReader::open(directory)?.store_directory())
    }

    /// Gives the store whose items the cache holds.
    pub fn store_directory(&self) -> &StoreDirectory {
        self.0.reader.store_directory()
    }

    /// Gives the directory.
    pub fn directory(&self) -> &Path {
        self.0.reader.directory()
    }

    /// Gives the side of it that only reads.
    pub fn reader(&self) -> &CacheReader {
        &self.0.reader
    }

    /// Gives the name of the file that holds a narinfo, if the cache has it.
    pub(crate) fn narinfo_path(&self, hash: &StorePathHash) -> PathBuf {
        self.0.reader.narinfo_path(hash)
    }

    /// Tells whether the cache has the item. One look at the file system.
    pub fn contains(&self, hash: &StorePathHash) -> bool {
        self.0.reader.contains(hash)
    }

    /// Gives the narinfo as it is stored.
    ///
    /// # Errors
    /// A file that is there and cannot be read, or is larger than a narinfo may be.
    pub fn narinfo_text(&self, hash: &StorePathHash) -> Result<Option<String>, CacheError> {
        self.0.reader.narinfo_text(hash)
    }

    /// Gives what the cache says of the item.
    ///
    /// # Errors
    /// As [`Self::narinfo_text`], and a text that is no narinfo.
    pub fn narinfo(&self, hash: &StorePathHash) -> Result<Option<NarInfo>, CacheError> {
        self.0.reader.narinfo(hash)
    }

    /// Opens a file of `nar/`; the name must be a plain one, and no symlink is followed.
    ///
    /// # Errors
    /// What the operating system says, `NotFound` for a name that is not plain or not a file.
    pub(crate) fn open_nar(&self, name: &str) -> io::Result<(File, fs::Metadata)> {
        self.0.reader.open_nar(name)
    }

    /// Begins a nar file.
    ///
    /// # Errors
    /// A temporary file that cannot be made.
    pub fn begin(&self) -> Result<NarFile, CacheError> {
        let made = self.0.scratch.file();
        let (file, scratch) = made.map_err(CacheError::io("make a temporary file in", self.directory()))?;
        Ok(NarFile::new(file, scratch))
    }

    /// Gives what the cache says of an item, unless that is malformed or names a nar that is not there.
    pub(super) fn intact(&self, hash: &StorePathHash) -> Result<Option<NarInfo>, CacheError> {
        let narinfo = match self.narinfo(hash) {
            Err(error @ CacheError::NarInfo { .. }) => {
                warn!(error = &error as &dyn std::error::Error, "replacing a malformed narinfo");
                return Ok(None);
            }
            other => other?,
        };
        let Some(narinfo) = narinfo else { return Ok(None) };
        let there = narinfo.urls.iter().any(|url| {
            url.url.strip_prefix("nar/").is_some_and(|name| match self.open_nar(name) {
                Ok((_, metadata)) => url.file_size.is_none_or(|size| size == metadata.len()),
                Err(_) => false,
            })
        });
        if !there {
            warn!(store.path = %narinfo.store_path, "replacing a narinfo of the cache whose nar is lost");
        }
        Ok(there.then_some(narinfo))
    }

    /// Keeps other processes from bringing items in or removing them.
    pub(super) fn alone(&self) -> Result<File, CacheError> {
        self.locked(File::lock)
    }

    /// Keeps other processes from removing items.
    pub(super) fn shared(&self) -> Result<File, CacheError> {
        self.locked(File::lock_shared)
    }

    /// Takes the lock between those who bring items in, who may do so together, and those who remove some.
    fn locked(&self, lock: impl FnOnce(&File) -> io::Result<()>) -> Result<File, CacheError> {
        let nars = &self.0.nars;
        let locked = File::open(nars).and_then(|directory| lock(&directory).map(|()| directory));
        locked.map_err(CacheError::io("lock", nars))
    }

    /// Writes narinfos in the place of those that the cache has, each at once, and durable when it returns.
    ///
    /// # Errors
    /// A disk that is full or fails; some may have been replaced then.
    pub(super) fn replace_narinfos(&self, narinfos: &[NarInfo]) -> Result<(), CacheError> {
        let inner = &*self.0;
        let _one_at_a_time = inner.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let _nothing_goes = self.shared()?;
        let mut written = Vec::with_capacity(narinfos.len());
        for narinfo in narinfos {
            let path = self.narinfo_path(&narinfo.store_path.hash());
            let (mut file, scratch) = inner.scratch.file().map_err(CacheError::io("write", &path))?;
            file.write_all(narinfo.to_string().as_bytes()).map_err(CacheError::io("write", &path))?;
            written.push((scratch, path));
        }
        let directory = File::open(self.directory()).map_err(CacheError::io("open", self.directory()))?;
        let synced = nix::unistd::syncfs(&directory).map_err(io::Error::from);
        synced.map_err(CacheError::io("sync", self.directory()))?;
        for (scratch, path) in written {
            // What was removed meanwhile stays so.
            if path.symlink_metadata().is_err() {
                continue;
            }
            scratch.rename(&path).map_err(CacheError::io("rename to", &path))?;
        }
        directory.sync_all().map_err(CacheError::io("sync", self.directory()))
    }

    /// Makes the items of `batch` visible, signed by `signer` too, and durable when it returns: one syncfs for all
    /// nars and narinfos, or for a few a sync of each, then the renames, nars first. A path the cache has already keeps the narinfo it has. After
    /// an error or a crash some items may be visible, each of them whole.
    ///
    /// # Errors
    /// A disk that is full or fails.
    pub async fn commit(&self, batch: Vec<Pending>, signer: &Signer) -> Result<Vec<Committed>, CacheError> {
        let (cache, signer) = (self.clone(), signer.clone());
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(|| cache.commit_blocking(batch, &signer)))
            .await
            .map_err(|_| CacheError::Stopped)?
    }

    /// Does as [`Self::commit`] on this thread.
    pub(crate) fn commit_blocking(
        &self,
        batch: Vec<Pending>,
        signer: &Signer,
    ) -> Result<Vec<Committed>, CacheError> {
        let inner = &*self.0;
        let _one_at_a_time = inner.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let _nothing_goes = self.shared()?;
        let mut committed: Vec<Committed> = Vec::with_capacity(batch.len());
        let mut first: HashMap<StorePathHash, usize> = HashMap::new();
        let mut fresh = Vec::new();
        for mut item in batch {
            let store_path = &item.narinfo.store_path;
            if store_path.directory() != inner.reader.store_directory() {
                let (path, wanted) = (store_path.clone(), inner.reader.store_directory().clone());
                return Err(CacheError::OtherStorePath { path, wanted });
            }
            let hash = store_path.hash();
            let before = match first.entry(hash) {
                hash_map::Entry::Occupied(index) => Some(committed[*index.get()].narinfo.clone()),
                hash_map::Entry::Vacant(slot) => {
                    slot.insert(committed.len());
                    self.intact(&hash)?
                }
            };
            if let Some(narinfo) = before {
                committed.push(Committed { narinfo, inserted: false });
                continue;
            }
            if !signer.is_guix() {
                // Clients of Nix refuse a narinfo with a choice.
                item.narinfo.urls.truncate(1);
                item.nars.truncate(1);
            } else if item.nars.iter().all(|nar| nar.compression == Compression::Zstd) {
                offer_gzip(&mut item.narinfo);
            }
            signer.sign(&mut item.narinfo);
            let path = self.narinfo_path(&hash);
            let (mut file, scratch) = inner.scratch.file().map_err(CacheError::io("write", &path))?;
            file.write_all(item.narinfo.to_string().as_bytes()).map_err(CacheError::io("write", &path))?;
            fresh.push((item.nars, scratch, path));
            committed.push(Committed { narinfo: item.narinfo, inserted: true });
        }
        if fresh.is_empty() {
            return Ok(committed);
        }
        let directory =
            File::open(inner.reader.directory()).map_err(CacheError::io("open", inner.reader.directory()))?;
        let unsynced = |nars: &[FinishedNar]| nars.iter().filter(|nar| !nar.durable).count() + 1;
        let synced = match fresh.iter().map(|(nars, ..)| unsynced(nars)).sum::<usize>() {
            0..=FEW => fresh.iter().try_for_each(|(nars, narinfo, _)| {
                nars.iter().filter(|nar| !nar.durable).try_for_each(|nar| nar.scratch.sync())?;
                narinfo.sync()
            }),
            _ => nix::unistd::syncfs(&directory).map_err(io::Error::from),
        };
        synced.map_err(CacheError::io("sync", inner.reader.directory()))?;
        let mut narinfos = Vec::with_capacity(fresh.len());
        for (nars, narinfo, path) in fresh {
            for nar in nars {
                let to = inner.nars.join(nar.file_name());
                nar.scratch.rename(&to).map_err(CacheError::io("rename to", &to))?;
            }
            narinfos.push((narinfo, path));
        }
        sync_directory(&inner.nars)?;
        for (narinfo, path) in narinfos {
            narinfo.rename(&path).map_err(CacheError::io("rename to", &path))?;
        }
        directory.sync_all().map_err(CacheError::io("sync", inner.reader.directory()))?;
        Ok(committed)
    }
}

/// Writes a file that is there whole or not at all, and durable.
fn write_whole(scratch: &Scratch, bytes: &[u8], path: &Path) -> io::Result<()> {
    let (mut file, temporary) = scratch.file()?;
    file.write_all(bytes)?;
    file.sync_all()?;
    temporary.rename(path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn sync_directory(path: &Path) -> Result<(), CacheError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(CacheError::io("sync", path))
}

/// Adds the place where the server packs an item anew while it is fetched, as not every Guix can unpack zstd.
///
/// What that place gives has no size beforehand. Guix 1.2 pairs places with sizes by their order and forgets those that are left over,
/// so no place has one; Guix then takes the compression it deems the best of those it can unpack.
fn offer_gzip(narinfo: &mut NarInfo) {
    for place in &mut narinfo.urls {
        (place.file_size, place.file_hash) = (None, None);
    }
    narinfo.urls.push(NarUrl {
        url: item_nar_url(&Compression::Gzip, &narinfo.store_path),
        compression: Compression::Gzip,
        file_size: None,
        file_hash: None,
    });
}
