//! The local store as a source of substitutes.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use bytes::Bytes;
use hauberk_daemon::{PathInfo, Pool};
use hauberk_store::{
    NarInfo, StoreDirectory, StorePath, StorePathHash,
    narinfo::{Compression, NarUrl},
};

use super::route::store_nar_url;
use crate::describe::item_nar_url;
use crate::{describe::describe, recent::Recent, signer::Signer};

/// Store items remembered, at most twice as many; about a kilobyte each.
const REMEMBERED: usize = 16 * 1024;

/// Why the store could not say whether it has a path.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The build daemon did not answer.
    #[error("cannot ask the build daemon about {hash}")]
    Daemon {
        /// The path's hash part.
        hash: StorePathHash,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The item's file cannot be looked at.
    #[error("cannot look at {path}")]
    Look {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Knows which paths a store has.
#[async_trait]
pub trait PathInfos: Send + Sync {
    /// Gives what is known of the valid path with this hash part.
    ///
    /// # Errors
    /// A daemon that does not answer, or not in its protocol.
    async fn find(
        &self,
        hash: &StorePathHash,
    ) -> Result<Option<PathInfo>, Box<dyn std::error::Error + Send + Sync>>;
}

#[async_trait]
impl PathInfos for Pool {
    async fn find(
        &self,
        hash: &StorePathHash,
    ) -> Result<Option<PathInfo>, Box<dyn std::error::Error + Send + Sync>> {
        let mut daemon = self.get().await?;
        let Some(path) = daemon.query_path_from_hash_part(hash).await? else { return Ok(None) };
        Ok(daemon.query_path_info(&path).await?)
    }
}

/// A local store: path infos from its daemon, contents from the file system. Clones share what they remember.
#[derive(Clone)]
pub struct StoreSource(Arc<Inner>);

struct Inner {
    infos: Box<dyn PathInfos>,
    /// What stands before the store directory in real paths.
    root: PathBuf,
    remembered: Recent<StorePathHash, Arc<StoreItem>>,
}

/// An item of the store.
pub(crate) struct StoreItem {
    /// What the daemon says of it.
    pub(super) info: PathInfo,
    /// Where it is.
    pub(crate) file: PathBuf,
    stamp: Stamp,
    narinfo: OnceLock<Bytes>,
}

/// What changes when a path is removed, made again or repaired.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl StoreSource {
    /// Takes the store that `infos` knows and whose files are under `root`, usually `/`.
    pub fn new(infos: impl PathInfos + 'static, root: &Path) -> Self {
        let remembered = Recent::new(REMEMBERED);
        Self(Arc::new(Inner { infos: Box::new(infos), root: root.to_owned(), remembered }))
    }

    /// Finds a valid path. What is remembered is taken only while its file is the one that was seen before, so that a
    /// path collected or repaired meanwhile is asked for again.
    pub(crate) async fn find(
        &self,
        directory: &StoreDirectory,
        hash: &StorePathHash,
    ) -> Result<Option<Arc<StoreItem>>, StoreError> {
        let inner = &*self.0;
        if let Some(item) = inner.remembered.get(hash) {
            if stamp(&item.file)? == Some(item.stamp) {
                return Ok(Some(item));
            }
            inner.remembered.remove(hash);
        }
        let found = inner.infos.find(hash).await;
        let info = match found.map_err(|source| StoreError::Daemon { hash: *hash, source })? {
            Some(info) if info.path.directory() == directory && info.path.hash() == *hash => info,
            _ => return Ok(None),
        };
        let file = inner.root.join(info.path.to_string().trim_start_matches('/'));
        let Some(stamp) = stamp(&file)? else { return Ok(None) };
        let item = Arc::new(StoreItem { info, file, stamp, narinfo: OnceLock::new() });
        inner.remembered.insert(*hash, Arc::clone(&item));
        Ok(Some(item))
    }
}

fn stamp(file: &Path) -> Result<Option<Stamp>, StoreError> {
    match file.symlink_metadata() {
        Ok(metadata) => Ok(Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Look { path: file.to_owned(), source }),
    }
}

impl StoreItem {
    /// Gives its narinfo, signed once and then remembered. The nar it names is packed with `compression`.
    pub(super) fn narinfo(&self, signer: &Signer, compression: &Compression) -> Bytes {
        self.narinfo.get_or_init(|| self.make_narinfo(signer, compression).to_string().into()).clone()
    }

    /// Tells whether it is the item at `path`.
    pub(crate) fn is(&self, path: &StorePath) -> bool {
        self.info.path == *path
    }

    /// Makes its narinfo for somebody who gets the nar packed with `compression`.
    pub(crate) fn packed_narinfo(&self, signer: &Signer, compression: &Compression) -> NarInfo {
        self.make_narinfo(signer, compression)
    }

    /// Gives its size as a NAR, where the store knows it.
    pub(crate) fn nar_size(&self) -> Option<u64> {
        Some(self.info.nar_size).filter(|&size| size > 0)
    }

    fn make_narinfo(&self, signer: &Signer, compression: &Compression) -> NarInfo {
        let info = &self.info;
        let packed = *compression != Compression::None;
        let place = NarUrl {
            url: match packed || signer.is_guix() {
                true => item_nar_url(compression, &info.path),
                false => store_nar_url(&info.path.hash(), &info.nar_hash),
            },
            compression: compression.clone(),
            // How long it will be when it is packed is not known before.
            file_size: self.nar_size().filter(|_| !packed),
            file_hash: (!packed && !signer.is_guix()).then(|| info.nar_hash.into()),
        };
        let mut narinfo = describe(info);
        narinfo.urls = vec![place];
        signer.sign(&mut narinfo);
        narinfo
    }
}
