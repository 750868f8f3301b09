//! The outputs that simulated builders give.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use async_trait::async_trait;
use hauberk_daemon::PathInfo;
use hauberk_publish::cache::Pending;
use hauberk_publish::client::{ClientConfig, Uploader};
use hauberk_publish::server::{PathInfos, Running};
use hauberk_publish::{Cache, PublishConfig, PublishServer, Signer, StoreSource};
use hauberk_store::nar::Node;
use hauberk_store::narinfo::Compression;
use hauberk_store::signature::nix::SecretKey;
use hauberk_store::{NarHash, NarInfo, Sha256, StoreDirectory, StorePath, StorePathHash};
use tokio_util::sync::CancellationToken;

/// Bytes of each output's file.
pub const OUTPUT_SIZE: usize = 1024;

/// Where a builder's outputs come from.
#[derive(Clone, Debug)]
pub enum Outputs {
    /// All of them have the same contents, which the server's cache has already.
    Shared(SharedOutput),
    /// Each is a file of its own, published until the server has fetched it.
    Fresh(Arc<OutputStore>),
}

/// One content under many store paths.
#[derive(Clone, Copy, Debug)]
pub struct SharedOutput {
    /// SHA-256 of the nar.
    pub nar_hash: NarHash,
    /// Bytes of the nar.
    pub nar_size: u64,
}

impl SharedOutput {
    /// Puts an item for each of `paths` into the server's cache before the server starts: all name the same small nar.
    pub async fn fill(directory: &Path, paths: Vec<StorePath>, key: &SecretKey) -> Result<Self> {
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

/// What the file of each output has in it; it follows from the output's path.
#[derive(Clone, Debug)]
pub struct Contents {
    size: usize,
    filling: Filling,
}

#[derive(Clone, Debug)]
enum Filling {
    Noise,
    Program(Arc<[u8]>),
}

impl Contents {
    /// Gives files of `size` bytes that cannot be compressed.
    pub fn noise(size: usize) -> Self {
        Self { size, filling: Filling::Noise }
    }

    /// Gives files of `size` bytes that compress as programs do: they are this one, again and again.
    ///
    /// # Errors
    /// A program that cannot be read.
    pub fn program(size: usize) -> Result<Self> {
        let file = std::env::current_exe().context("looking for this program")?;
        let program = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok(Self { size, filling: Filling::Program(program.into()) })
    }

    /// Gives the number of bytes of each file.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Makes the contents of the file at `path`.
    fn of(&self, path: &StorePath) -> Vec<u8> {
        match &self.filling {
            Filling::Noise => noise(path, self.size),
            Filling::Program(program) => {
                let head = path.to_string().into_bytes();
                head.iter().chain(program.iter().cycle()).copied().take(self.size).collect()
            }
        }
    }
}

impl Default for Contents {
    /// Gives noise of [`OUTPUT_SIZE`] bytes.
    fn default() -> Self {
        Self::noise(OUTPUT_SIZE)
    }
}

/// The store of the simulated machines: small files, and what a build daemon would know of them.
#[derive(Debug)]
pub struct OutputStore {
    root: PathBuf,
    contents: Contents,
    infos: Mutex<HashMap<StorePathHash, PathInfo>>,
}

impl OutputStore {
    /// Opens the store whose files are below `root`, which exists; what an earlier process made is there again.
    pub fn open(root: PathBuf) -> Result<Arc<Self>> {
        Self::open_with(root, Contents::default())
    }

    /// Does as [`Self::open`] with other contents.
    pub fn open_with(root: PathBuf, contents: Contents) -> Result<Arc<Self>> {
        let directory = StoreDirectory::nix();
        let store = root.join(directory.as_str().trim_start_matches('/'));
        fs::create_dir_all(&store).with_context(|| format!("making {}", store.display()))?;
        let mut infos = HashMap::new();
        for entry in fs::read_dir(&store).with_context(|| format!("listing {}", store.display()))? {
            let entry = entry?;
            // One that was begun when the process was killed is made again with its attempt.
            if entry.metadata()?.len() != contents.size as u64 {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = StorePath::parse(&format!("{directory}/{name}"))
                .with_context(|| format!("reading the name of {}", entry.path().display()))?;
            let info = info_of(&path, contents.of(&path))?;
            infos.insert(path.hash(), info);
        }
        Ok(Arc::new(Self { root, contents, infos: Mutex::new(infos) }))
    }

    /// Makes what uploads the outputs, signed by `key`.
    pub fn uploader(self: &Arc<Self>, key: &SecretKey) -> Result<Uploader> {
        let source = StoreSource::new(Infos(Arc::clone(self)), &self.root);
        let signer = Signer::nix([key.clone()]);
        Ok(Uploader::new(StoreDirectory::nix(), source, signer, ClientConfig::farm())?)
    }

    /// Tells whether making an output takes no time to speak of.
    pub(super) fn is_quick(&self) -> bool {
        self.contents.size <= 64 << 10
    }

    /// Makes the output: a file whose contents follow from its path.
    pub fn make(&self, path: &StorePath) -> Result<PathInfo> {
        let file = self.root.join(path.to_string().trim_start_matches('/'));
        let contents = self.contents.of(path);
        fs::write(&file, &contents).with_context(|| format!("writing {}", file.display()))?;
        let info = info_of(path, contents)?;
        let mut infos = self.infos.lock().unwrap_or_else(PoisonError::into_inner);
        infos.insert(path.hash(), info.clone());
        Ok(info)
    }
}

/// What a build daemon would know of the output at `path` with these contents.
fn info_of(path: &StorePath, contents: Vec<u8>) -> Result<PathInfo> {
    let nar = Node::file(contents).to_nar()?;
    Ok(PathInfo {
        path: path.clone(),
        deriver: None,
        nar_hash: Sha256::digest(&nar),
        references: BTreeSet::new(),
        registration_time: 0,
        nar_size: nar.len() as u64,
        ultimate: true,
        signatures: BTreeSet::new(),
        content_address: None,
    })
}

/// Gives the contents that the file of an output has.
pub fn contents_of(path: &StorePath) -> Vec<u8> {
    noise(path, OUTPUT_SIZE)
}

fn noise(path: &StorePath, size: usize) -> Vec<u8> {
    let mut contents = Vec::with_capacity(size + 32);
    let mut block = Sha256::digest(path.to_string().as_bytes());
    while contents.len() < size {
        contents.extend_from_slice(block.as_bytes());
        block = Sha256::digest(block.as_bytes());
    }
    contents.truncate(size);
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
pub struct Publication {
    port: u16,
    stop: CancellationToken,
    running: Running,
}

impl Publication {
    /// Serves what is in `store`, signed by `key`, on a free port of `address`.
    pub fn start(address: IpAddr, store: Arc<OutputStore>, key: &SecretKey) -> Result<Self> {
        let listener = TcpListener::bind((address, 0)).context("listening for the server's fetches")?;
        let port = listener.local_addr().context("asking for the port of the publish server")?.port();
        let root = store.root.clone();
        let config = PublishConfig {
            signer: Signer::nix([key.clone()]),
            store: Some(StoreSource::new(Infos(store), &root)),
            // As real workers do.
            compression: Compression::Zstd,
            packing_threads: 4,
            ..PublishConfig::new(StoreDirectory::nix())
        };
        let stop = CancellationToken::new();
        let running = PublishServer::new(listener, config)
            .spawn_on_own_runtime(1, stop.clone())
            .context("starting the publish server")?;
        Ok(Self { port, stop, running })
    }

    /// Gives its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it in order.
    pub async fn stop(self) -> Result<()> {
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
        let store = OutputStore::open(directory.path().to_owned()).unwrap();
        let path = |digit: char| {
            StorePath::parse(&format!("/nix/store/{}-x", digit.to_string().repeat(32))).unwrap()
        };
        let (one, two) = (store.make(&path('1')).unwrap(), store.make(&path('2')).unwrap());
        assert_ne!(one.nar_hash, two.nar_hash);
        assert_eq!(store.make(&path('1')).unwrap(), one);
        let file = directory.path().join(format!("nix/store/{}-x", "1".repeat(32)));
        assert_eq!(fs::read(file).unwrap().len(), OUTPUT_SIZE);
        let again = OutputStore::open(directory.path().to_owned()).unwrap();
        assert_eq!(*again.infos.lock().unwrap(), *store.infos.lock().unwrap());
    }

    #[test]
    fn contents_have_their_size() {
        let path = StorePath::parse("/nix/store/00000000000000000000000000000000-x").unwrap();
        for contents in [Contents::noise(100_000), Contents::program(100_000).unwrap()] {
            let made = contents.of(&path);
            assert_eq!((made.len(), contents.size()), (100_000, 100_000));
            assert_eq!(contents.of(&path), made);
        }
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
