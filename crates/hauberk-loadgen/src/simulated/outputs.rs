//! The outputs that simulated builders give.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use async_trait::async_trait;
use hauberk_daemon::PathInfo;
use hauberk_publish::cache::Pending;
use hauberk_publish::server::{PathInfos, Running};
use hauberk_publish::{Cache, PublishConfig, PublishServer, Signer, StoreSource};
use hauberk_store::nar::Node;
use hauberk_store::narinfo::Compression;
use hauberk_store::signature::nix::SecretKey;
use hauberk_store::{NarHash, NarInfo, Sha256, StoreDirectory, StorePath, StorePathHash};
use tokio_util::sync::CancellationToken;

/// Bytes of each output's file.
pub(crate) const OUTPUT_SIZE: usize = 1024;

/// Where a builder's outputs come from.
#[derive(Clone, Debug)]
pub(crate) enum Outputs {
    /// All of them have the same contents, which the server's cache has already.
    Shared(SharedOutput),
    /// Each is a file of its own, published until the server has fetched it.
    Fresh(Arc<OutputStore>),
}

/// One content under many store paths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedOutput {
    /// SHA-256 of the nar.
    pub(crate) nar_hash: NarHash,
    /// Bytes of the nar.
    pub(crate) nar_size: u64,
}

impl SharedOutput {
    /// Puts an item for each of `paths` into the server's cache before the server starts: all name the same small nar.
    pub(crate) async fn fill(directory: &Path, paths: Vec<StorePath>, key: &SecretKey) -> Result<Self> {
        let cache = Cache::open(directory, &StoreDirectory::nix())?;
        let nar = Node::file("An output that was built before.\n").to_nar()?;
        let output = Self { nar_hash: Sha256::digest(&nar), nar_size: nar.len() as u64 };
        let Some(first) = paths.first().cloned() else { return Ok(output) };
        let mut file = cache.begin()?;
        std::io::Write::write_all(&mut file, &nar).context("writing the shared nar")?;
        let narinfo = NarInfo {
            store_path: first,
            urls: Vec::new(),
            nar_hash: output.nar_hash,
            nar_size: output.nar_size,
            references: BTreeSet::new(),
            deriver: None,
            system: None,
            signatures: Vec::new(),
            ca: None,
            unknown: Vec::new(),
            guix_signature: None,
        };
        let pending = Pending::new(file.finish(Compression::None), narinfo);
        let committed = cache.commit(vec![pending], &Signer::nix([key.clone()])).await?;
        let mut narinfo = committed.into_iter().next().context("the cache took nothing")?.narinfo;
        let (directory, key) = (directory.to_owned(), key.clone());
        let write = move || {
            for path in paths.into_iter().skip(1) {
                let file = directory.join(format!("{}.narinfo", path.hash()));
                narinfo.store_path = path;
                narinfo.sign(&key);
                fs::write(&file, narinfo.to_string())
                    .with_context(|| format!("writing {}", file.display()))?;
            }
            anyhow::Ok(output)
        };
        tokio::task::spawn_blocking(write).await?
    }
}

/// The store of the simulated machines: small files, and what a build daemon would know of them.
#[derive(Debug)]
pub(crate) struct OutputStore {
    root: PathBuf,
    infos: Mutex<HashMap<StorePathHash, PathInfo>>,
}

impl OutputStore {
    /// Makes an empty store whose files are below `root`, which exists.
    pub(crate) fn create(root: PathBuf) -> Result<Arc<Self>> {
        let store = root.join(StoreDirectory::nix().as_str().trim_start_matches('/'));
        fs::create_dir_all(&store).with_context(|| format!("making {}", store.display()))?;
        Ok(Arc::new(Self { root, infos: Mutex::new(HashMap::new()) }))
    }

    /// Makes the output: a file whose contents follow from its path and cannot be compressed.
    pub(crate) fn make(&self, path: &StorePath) -> Result<PathInfo> {
        let contents = contents_of(path);
        let file = self.root.join(path.to_string().trim_start_matches('/'));
        fs::write(&file, &contents).with_context(|| format!("writing {}", file.display()))?;
        let nar = Node::file(contents).to_nar()?;
        let info = PathInfo {
            path: path.clone(),
            deriver: None,
            nar_hash: Sha256::digest(&nar),
            references: BTreeSet::new(),
            registration_time: 0,
            nar_size: nar.len() as u64,
            ultimate: true,
            signatures: BTreeSet::new(),
            content_address: None,
        };
        let mut infos = self.infos.lock().unwrap_or_else(PoisonError::into_inner);
        infos.insert(path.hash(), info.clone());
        Ok(info)
    }
}

fn contents_of(path: &StorePath) -> Vec<u8> {
    let mut contents = Vec::with_capacity(OUTPUT_SIZE);
    let mut block = Sha256::digest(path.to_string().as_bytes());
    while contents.len() < OUTPUT_SIZE {
        contents.extend_from_slice(block.as_bytes());
        block = Sha256::digest(block.as_bytes());
    }
    contents.truncate(OUTPUT_SIZE);
    contents
}

struct Infos(Arc<OutputStore>);

#[async_trait]
impl PathInfos for Infos {
    async fn find(
        &self,
        hash: &StorePathHash,
    ) -> Result<Option<PathInfo>, Box<dyn std::error::Error + Send + Sync>> {
        let infos = self.0.infos.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(infos.get(hash).cloned())
    }
}

/// The publish server of the simulated machines: the one that real workers run. It ends when dropped.
#[derive(Debug)]
pub(crate) struct Publication {
    port: u16,
    stop: CancellationToken,
    running: Running,
}

impl Publication {
    /// Serves what is in `store`, signed by `key`, on a free port of loopback.
    pub(crate) fn start(store: Arc<OutputStore>, key: &SecretKey) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening for the server's fetches")?;
        let port = listener.local_addr().context("asking for the port of the publish server")?.port();
        let root = store.root.clone();
        let config = PublishConfig {
            signer: Signer::nix([key.clone()]),
            store: Some(StoreSource::new(Infos(store), &root)),
            ..PublishConfig::new(StoreDirectory::nix())
        };
        let stop = CancellationToken::new();
        let running = PublishServer::new(listener, config)
            .spawn_on_own_runtime(1, stop.clone())
            .context("starting the publish server")?;
        Ok(Self { port, stop, running })
    }

    /// Gives its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends it in order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.running.join().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_differ_and_are_always_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let store = OutputStore::create(directory.path().to_owned()).unwrap();
        let path = |digit: char| {
            StorePath::parse(&format!("/nix/store/{}-x", digit.to_string().repeat(32))).unwrap()
        };
        let (one, two) = (store.make(&path('1')).unwrap(), store.make(&path('2')).unwrap());
        assert_ne!(one.nar_hash, two.nar_hash);
        assert_eq!(store.make(&path('1')).unwrap(), one);
        let file = directory.path().join(format!("nix/store/{}-x", "1".repeat(32)));
        assert_eq!(fs::read(file).unwrap().len(), OUTPUT_SIZE);
    }

    #[tokio::test]
    async fn a_filled_cache_has_every_path_signed() {
        let directory = tempfile::tempdir().unwrap();
        let key = SecretKey::generate("k").unwrap();
        let paths: Vec<StorePath> = (0..5_u8)
            .map(|i| StorePath::from_digest(&StoreDirectory::nix(), &[i; 20], "x").unwrap())
            .collect();
        let output = SharedOutput::fill(directory.path(), paths.clone(), &key).await.unwrap();
        let cache = Cache::open(directory.path(), &StoreDirectory::nix()).unwrap();
        for path in paths {
            let narinfo = cache.narinfo(&path.hash()).unwrap().unwrap();
            assert_eq!((narinfo.nar_hash, narinfo.nar_size), (output.nar_hash, output.nar_size));
            assert_eq!(narinfo.store_path, path);
            assert!(narinfo.verify(&[key.public_key()]).is_some());
        }
    }
}
