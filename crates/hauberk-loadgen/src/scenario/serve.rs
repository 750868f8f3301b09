//! `serve`: substitutes out of the server's cache and its store.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use hauberk_loadgen::simulated::SharedOutput;
use hauberk_publish::cache::Pending;
use hauberk_publish::{Cache, Signer};
use hauberk_store::narinfo::Compression;
use hauberk_store::signature::nix::SecretKey;
use hauberk_store::{NarInfo, Sha256, StoreDirectory, StorePath};
use serde_json::{Map, Value};

use crate::figure::{Figure, quantile, rounded};
use crate::http::{BlockingClient, Crowd, Echo, request};
use crate::lab::{Lab, LabOptions, Nginx, RealStore, Server};

/// Clients that ask at once.
const CROWD: usize = 16;
/// Clients that take a nar slowly.
const SLOW: usize = 64;
/// Bytes a slow client takes at a time.
const SIP: usize = 64 * 1024;

/// Substitutes, asked for by clients that cost less than what they ask for: how fast they come
///
/// narinfo_1_over_pingpong, narinfo_16_over_nginx: narinfos of the cache, on one connection against a TCP echo of as many bytes, and on 16
/// against nginx sending the same files.
///
/// nar_tree_mib_per_second, nar_file_mib_per_second: nars made from the store, on one connection.
///
/// cached_zstd_over_nginx: a packed nar of the cache, against nginx with sendfile.
///
/// rss_anon_mb: most memory of the server under all of this; rss_anon_mb_slow_readers: with 64 clients that take a nar slowly.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Narinfos in the cache
    #[arg(long, default_value_t = 1000)]
    narinfos: usize,

    /// Files in the tree, of 16,000 bytes each
    #[arg(long, default_value_t = 5000)]
    files: usize,

    /// Size of the one large file, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    file_mib: u64,

    /// Length of each measurement, of which there are three for each figure and peer
    #[arg(long, value_name = "MS", default_value_t = 700)]
    span_ms: u64,

    /// Measure only these figures (the beginning of their names)
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
}

/// Bytes of each file of the tree.
const TREE_FILE: usize = 16_000;
/// Measurements of each figure, interleaved with those of its peer.
const ROUNDS: usize = 3;

/// What is served.
struct Stock {
    narinfos: Vec<Vec<u8>>,
    narinfo_path: String,
    tree: StorePath,
    file: StorePath,
    zstd_path: String,
    zstd_bytes: u64,
}

/// Measures all figures on one server.
pub(crate) async fn run(options: &Options, lab_options: &LabOptions) -> Result<Vec<Figure>> {
    crate::progress(format_args!("starting PostgreSQL and nix-daemon"));
    let lab = Lab::start(lab_options).await?;
    let root = lab.directory().join("machine");
    fs::create_dir(&root).context("making a directory for the store")?;
    let store = RealStore::start(&root)?;
    let stock = Stock::fill(options, &lab, &store).await?;
    let server = lab.serve_store(Some(store.socket())).await?;
    let own = lab.directory().join("nginx");
    fs::create_dir(&own).context("making a directory for nginx")?;
    let nginx = Nginx::start(&lab.cache(), &own)?;
    if nginx.is_none() {
        crate::progress(format_args!(
            "nginx is not installed (Debian: nginx-light): what is measured against it is left out"
        ));
    }
    let mut bench = Bench { options: options.clone(), lab, server, nginx, stock, figures: Vec::new() };
    let bench = tokio::task::spawn_blocking(move || bench.measure().map(|()| bench)).await??;
    bench.server.stop().await?;
    drop(store);
    Ok(bench.figures)
}

impl Stock {
    async fn fill(options: &Options, lab: &Lab, store: &RealStore) -> Result<Self> {
        crate::progress(format_args!("filling cache and store"));
        let paths: Vec<StorePath> = (0..options.narinfos.max(1))
            .map(|index| path(&format!("narinfo-{index:08}")))
            .collect::<Result<_>>()?;
        SharedOutput::fill(&lab.cache(), paths.clone(), lab.signing_key()).await?;
        let (cache, key) = (lab.cache(), lab.signing_key().clone());
        let zstd = packed(&cache, &key, options.file_mib).await?;
        let from = lab.directory().join("from");
        fs::create_dir(&from).context("making a directory for what is served")?;
        let tree = from.join("tree");
        fs::create_dir(&tree).context("making the tree")?;
        for index in 0..options.files {
            let directory = tree.join(format!("{:02}", index % 50));
            fs::create_dir_all(&directory).context("making the tree")?;
            fs::write(directory.join(format!("{index:06}")), noise(index as u64, TREE_FILE))
                .context("making the tree")?;
        }
        let tree = store.add(&tree)?;
        let file = from.join("file");
        let mut writer = fs::File::create(&file).context("making the large file")?;
        for mib in 0..options.file_mib {
            writer.write_all(&noise(mib, 1 << 20)).context("making the large file")?;
        }
        let file = store.add(&file)?;
        fs::remove_dir_all(&from).context("removing what was copied")?;
        let url = |path: &StorePath| format!("/{}.narinfo", path.hash());
        let place = zstd.urls.first().context("the cache named no place")?;
        Ok(Self {
            narinfos: paths.iter().map(|path| request(&url(path))).collect(),
            narinfo_path: url(&paths[0]),
            tree,
            file,
            zstd_path: format!("/{}", place.url),
            zstd_bytes: place.file_size.unwrap_or(0),
        })
    }
}

fn path(name: &str) -> Result<StorePath> {
    let digest = Sha256::digest(name.as_bytes());
    let digest = digest.as_bytes()[..20].try_into().context("cutting a hash")?;
    Ok(StorePath::from_digest(&StoreDirectory::nix(), digest, name)?)
}

/// Makes bytes that cannot be compressed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Puts a file that zstd makes little smaller into the cache.
async fn packed(directory: &Path, key: &SecretKey, mib: u64) -> Result<NarInfo> {
    let (directory, signer) = (directory.to_owned(), Signer::nix([key.clone()]));
    let cache = Cache::open(&directory, &StoreDirectory::nix())?;
    let mut encoder = zstd::Encoder::new(cache.begin()?, 1).context("making an encoder")?;
    for block in 0..mib {
        encoder.write_all(&noise(!block, 1 << 20)).context("writing the packed nar")?;
    }
    let file = encoder.finish().context("writing the packed nar")?;
    let narinfo = NarInfo {
        store_path: path("packed")?,
        urls: Vec::new(),
        // Nobody unpacks it here.
        nar_hash: Sha256::digest(b""),
        nar_size: mib << 20,
        references: [].into(),
        deriver: None,
        system: None,
        signatures: Vec::new(),
        ca: None,
        unknown: Vec::new(),
        guix_signature: None,
    };
    let pending = Pending::new(file.finish(Compression::Zstd), narinfo);
    let committed = cache.commit(vec![pending], &signer).await?;
    Ok(committed.into_iter().next().context("the cache took nothing")?.narinfo)
}

struct Bench {
    options: Options,
    lab: Lab,
    server: Server,
    nginx: Option<Nginx>,
    stock: Stock,
    figures: Vec<Figure>,
}

impl Bench {
    fn measure(&mut self) -> Result<()> {
        let memory = Memory::watch(self.server.process());
        if self.wants("narinfo_1") {
            self.narinfo_alone()?;
        }
        if self.wants("narinfo_16") {
            self.narinfo_crowd()?;
        }
        if self.wants("nar_tree") {
            let path = self.stock.tree.clone();
            self.nar("nar_tree_mib_per_second", &path)?;
        }
        if self.wants("nar_file") {
            let path = self.stock.file.clone();
            self.nar("nar_file_mib_per_second", &path)?;
        }
        if self.wants("cached_zstd") {
            self.cached()?;
        }
        let most = memory.end()?;
        self.note("rss_anon_mb", most, "MB", Map::new());
        if self.wants("rss_anon_mb_slow") {
            self.slow_readers()?;
        }
        Ok(())
    }

    fn wants(&self, figure: &str) -> bool {
        self.options.only.is_empty()
            || self
                .options
                .only
                .iter()
                .any(|name| figure.starts_with(name.as_str()) || name.starts_with(figure))
    }

    fn span(&self) -> Duration {
        Duration::from_millis(self.options.span_ms)
    }

    fn note(
        &mut self,
        figure: &'static str,
        value: f64,
        unit: &'static str,
        mut parameters: Map<String, Value>,
    ) {
        self.lab.note(&mut parameters);
        parameters.remove("postgres_settings");
        crate::progress(format_args!("{figure}: {value:.3} {unit}"));
        self.figures.push(Figure { scenario: "serve", figure, value, unit, parameters });
    }

    /// Narinfos on one connection, and an echo of as many bytes.
    fn narinfo_alone(&mut self) -> Result<()> {
        let (requests, span) = (self.stock.narinfos.clone(), self.span());
        let mut ours = BlockingClient::connect(self.server.publish_port())?;
        let size = ours.answer_size(&self.stock.narinfo_path)?;
        let process = Echo::start(requests[0].len(), size)?;
        let mut echo = BlockingClient::connect(process.port())?;
        let both =
            rounds(|| ours.ask_again(&requests, size, span), || echo.ask_again(&requests, size, span))?;
        let mut parameters = both.parameters("narinfos_per_second", "pingpong_per_second");
        parameters.insert("answer_bytes".to_owned(), size.into());
        parameters.insert("narinfos".to_owned(), requests.len().into());
        self.note("narinfo_1_over_pingpong", both.ratio(), "", parameters);
        Ok(())
    }

    /// Narinfos on many connections, and nginx sending the same files.
    fn narinfo_crowd(&mut self) -> Result<()> {
        let (requests, span) = (self.stock.narinfos.clone(), self.span());
        let narinfo = self.stock.narinfo_path.clone();
        let crowd = |port| -> Result<(Crowd, usize)> {
            let size = BlockingClient::connect(port)?.answer_size(&narinfo)?;
            Ok((Crowd::connect(port, CROWD)?, size))
        };
        let (mut ours, size) = crowd(self.server.publish_port())?;
        let Some(port) = self.nginx.as_ref().map(Nginx::port) else {
            let rate = ours.ask_again(&requests, size, span)?;
            let parameters = Map::from_iter([("connections".to_owned(), CROWD.into())]);
            self.note("narinfo_16_per_second", rate, "1/s", parameters);
            return Ok(());
        };
        let (mut nginx, nginx_size) = crowd(port)?;
        let both = rounds(
            || ours.ask_again(&requests, size, span),
            || nginx.ask_again(&requests, nginx_size, span),
        )?;
        let mut parameters = both.parameters("narinfos_per_second", "nginx_per_second");
        parameters.insert("answer_bytes".to_owned(), size.into());
        parameters.insert("nginx_answer_bytes".to_owned(), nginx_size.into());
        self.note("narinfo_16_over_nginx", both.ratio(), "", parameters);
        Ok(())
    }

    /// A nar made from the store.
    fn nar(&mut self, figure: &'static str, item: &StorePath) -> Result<()> {
        let mut client = BlockingClient::connect(self.server.publish_port())?;
        let path = format!("/nar/{}", item.base_name());
        let bytes = client.get(&path)?;
        let span = self.span();
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            rates.push(mib_per_second(&mut client, &path, span)?);
        }
        let rate = quantile(&mut rates, 0.5).context("nothing was measured")?;
        let mut parameters = Map::from_iter([("bytes".to_owned(), bytes.into())]);
        if figure.starts_with("nar_tree") {
            parameters.insert("files".to_owned(), self.options.files.into());
        }
        self.note(figure, rate, "MiB/s", parameters);
        Ok(())
    }

    /// A packed nar of the cache, and nginx sending the same file.
    fn cached(&mut self) -> Result<()> {
        let (path, span) = (self.stock.zstd_path.clone(), self.span());
        let mut ours = BlockingClient::connect(self.server.publish_port())?;
        let parameters = Map::from_iter([("bytes".to_owned(), self.stock.zstd_bytes.into())]);
        let Some(port) = self.nginx.as_ref().map(Nginx::port) else {
            let rate = mib_per_second(&mut ours, &path, span)?;
            self.note("cached_zstd_mib_per_second", rate, "MiB/s", parameters);
            return Ok(());
        };
        let mut nginx = BlockingClient::connect(port)?;
        let both =
            rounds(|| mib_per_second(&mut ours, &path, span), || mib_per_second(&mut nginx, &path, span))?;
        let mut parameters = parameters;
        parameters.extend(both.parameters("mib_per_second", "nginx_mib_per_second"));
        self.note("cached_zstd_over_nginx", both.ratio(), "", parameters);
        Ok(())
    }

    /// Memory while many clients take a nar slowly.
    fn slow_readers(&mut self) -> Result<()> {
        use std::io::Read;
        let path = format!("/nar/{}", self.stock.file.base_name());
        let memory = Memory::watch(self.server.process());
        let mut clients = Vec::new();
        for _ in 0..SLOW {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.server.publish_port()))
                .context("connecting")?;
            stream.set_read_timeout(Some(Duration::from_secs(30))).context("setting a timeout")?;
            stream.write_all(&request(&path)).context("asking")?;
            clients.push(stream);
        }
        let mut sip = vec![0; SIP];
        let deadline = Instant::now() + self.span() * 3;
        while Instant::now() < deadline {
            for client in &mut clients {
                if client.read(&mut sip).context("receiving")? == 0 {
                    bail!("a nar ended early");
                }
            }
            thread::sleep(Duration::from_millis(10));
        }
        let most = memory.end()?;
        let parameters = Map::from_iter([
            ("readers".to_owned(), SLOW.into()),
            ("mib".to_owned(), self.options.file_mib.into()),
        ]);
        self.note("rss_anon_mb_slow_readers", most, "MB", parameters);
        Ok(())
    }
}

/// Takes a file over and over for `span`.
fn mib_per_second(client: &mut BlockingClient, path: &str, span: Duration) -> Result<f64> {
    let (began, mut bytes) = (Instant::now(), 0);
    while began.elapsed() < span {
        bytes += client.get(path)?;
    }
    Ok(bytes as f64 / (1 << 20) as f64 / began.elapsed().as_secs_f64())
}

/// What two peers gave in turns.
struct Both {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

fn rounds(mut ours: impl FnMut() -> Result<f64>, mut theirs: impl FnMut() -> Result<f64>) -> Result<Both> {
    let mut both = Both { ours: Vec::new(), theirs: Vec::new() };
    // Once for nothing, so that both are warm.
    ours()?;
    theirs()?;
    for _ in 0..ROUNDS {
        both.ours.push(ours()?);
        both.theirs.push(theirs()?);
    }
    Ok(both)
}

impl Both {
    /// Gives the median of the rounds' ratios.
    fn ratio(&self) -> f64 {
        let mut ratios: Vec<f64> =
            self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs).collect();
        rounded(quantile(&mut ratios, 0.5).unwrap_or(0.0), 3)
    }

    fn parameters(&self, ours: &str, theirs: &str) -> Map<String, Value> {
        let median = |values: &[f64]| rounded(quantile(&mut values.to_vec(), 0.5).unwrap_or(0.0), 1).into();
        Map::from_iter([(ours.to_owned(), median(&self.ours)), (theirs.to_owned(), median(&self.theirs))])
    }
}

/// Watches the anonymous memory of a process.
struct Memory {
    stop: Arc<AtomicBool>,
    most_kib: Arc<AtomicU64>,
    watcher: JoinHandle<()>,
}

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(50);

impl Memory {
    fn watch(process: u32) -> Self {
        let (stop, most_kib) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let watcher = {
            let (stop, most) = (Arc::clone(&stop), Arc::clone(&most_kib));
            let status = PathBuf::from(format!("/proc/{process}/status"));
            thread::spawn(move || {
                loop {
                    most.fetch_max(anonymous_kib(&status).unwrap_or(0), Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    thread::sleep(LOOK);
                }
            })
        };
        Self { stop, most_kib, watcher }
    }

    /// Gives the most that was seen, in MB.
    fn end(self) -> Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        if self.watcher.join().is_err() {
            bail!("the watcher of memory broke");
        }
        match self.most_kib.load(Ordering::Relaxed) {
            0 => bail!("the server's memory cannot be read"),
            kib => Ok(rounded(kib as f64 * 1024.0 / 1e6, 1)),
        }
    }
}

fn anonymous_kib(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
