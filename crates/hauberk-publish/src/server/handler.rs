//! From requests to responses.

use std::{
    error::Error,
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::OpenOptionsExt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hauberk_store::{
    NarHash, NarInfo, Sha256, StorePath, StorePathHash, cache_info::CacheInfo, narinfo::Compression,
};

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::{
    body::{Body, Source},
    cached_narinfos::CachedNarInfos,
    config::PublishConfig,
    elsewhere::Brought,
    failure::Failure,
    flat_file,
    holdings::Holdings,
    json,
    listings::Listings,
    log_source::{Growing, LogBody, LogName, LogSource},
    metrics::{Kind, Metrics},
    packer::{Meanwhile, Packer},
    push::{PushDesk, Pushed},
    reply::{self, Endless, Immutable, Reply, Wanted},
    request::{Field, Method, Request},
    route::Route,
    status::Status,
    store_source::StoreItem,
    upload::{Piece, UploadDesk},
};
use crate::{
    products::media_type,
    stream::{BufferPool, NarReader, Packed, decoder, list},
};

/// Level of gzip for what is compressed while it is sent.
const GZIP_LEVEL: u32 = 1;

/// Bytes read at a time from a file that is unpacked.
const FILE_BUFFER: usize = 128 * 1024;

/// What `/version` answers.
const VERSION: &str = concat!("hauberk ", env!("CARGO_PKG_VERSION"), "\n");

/// Answers requests.
pub(super) struct Handler {
    config: PublishConfig,
    cache_info: Bytes,
    cached_narinfos: Option<CachedNarInfos>,
    signing_keys: Bytes,
    packer: Option<Packer>,
    holdings: Option<Holdings>,
    listings: Listings,
    pool: BufferPool,
    packed: Packed,
    metrics: Arc<Metrics>,
    desk: UploadDesk,
    pushes: PushDesk,
}

/// Content that may come.
pub(super) enum Intake {
    /// A piece of an upload.
    Upload(Piece),
    /// Something of a push.
    Push(Pushed),
}

impl Intake {
    /// Bytes it has.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Upload(piece) => piece.length(),
            Self::Push(pushed) => pushed.length(),
        }
    }

    /// Takes it.
    pub(super) async fn take(self, content: Vec<u8>) -> Reply {
        match self {
            Self::Upload(piece) => piece.write(content).await,
            Self::Push(pushed) => pushed.take(content).await,
        }
    }
}

/// The nar of an item, wherever it lies.
enum Nar {
    /// In the store.
    Store(Arc<StoreItem>),
    /// In the cache, as a file.
    Cache { name: String, compression: Compression, nar_hash: NarHash, nar_size: u64 },
}

impl Handler {
    /// Starts what runs beside the answers, until `stop`.
    pub(super) fn start(
        config: PublishConfig,
        metrics: Arc<Metrics>,
        stop: &CancellationToken,
    ) -> io::Result<Self> {
        let cache_info = CacheInfo {
            store_directory: config.store_directory.clone(),
            want_mass_query: true,
            priority: Some(config.priority),
        };
        let signing_keys = config.signer.public_text();
        let packer = match (&config.packing, &config.cache) {
            (Some(packing), Some(cache)) => {
                Some(Packer::start(packing.clone(), cache, &config.signer, stop)?)
            }
            _ => None,
        };
        Ok(Self {
            cache_info: cache_info.to_string().into(),
            cached_narinfos: config.cache.clone().map(CachedNarInfos::new),
            holdings: config.cache.clone().map(Holdings::new),
            signing_keys: signing_keys.into(),
            listings: Listings::new(),
            pool: BufferPool::default(),
            packed: Packed::by(config.packing_threads),
            packer,
            desk: UploadDesk::new(config.inbox.clone()),
            pushes: PushDesk::new(config.pushes.clone(), config.store.clone()),
            metrics,
            config,
        })
    }

    /// Answers one request.
    pub(super) async fn handle(&self, request: &Request) -> Reply {
        let reply = match request.method {
            Method::Get | Method::Head => {
                let answered = self.answer(request).await;
                answered.unwrap_or_else(|failure| failure.into_reply(&request.path, self.config.negative_ttl))
            }
            // Content is taken after `admit`.
            Method::Patch | Method::Post | Method::Other => reply::method_not_allowed(),
        };
        self.metrics.answered(Kind::of(&request.path), reply.status);
        reply
    }

    /// Decides by its head whether a request's content is taken.
    pub(super) async fn admit(&self, request: &Request) -> Result<Intake, Reply> {
        match Route::parse(&self.config.store_directory, &request.path) {
            Route::Upload(name) => self.desk.admit(request, name).await.map(Intake::Upload),
            Route::Push(evaluation, part) => {
                self.pushes.admit(request, evaluation, part).await.map(Intake::Push)
            }
            _ => Err(reply::method_not_allowed()),
        }
    }

    /// Counts the answer to a request that brought content.
    pub(super) fn count(&self, request: &Request, reply: &Reply) {
        self.metrics.answered(Kind::of(&request.path), reply.status);
    }

    /// Counts what was no request.
    pub(super) fn count_nonsense(&self, status: Status) {
        self.metrics.answered(Kind::Other, status);
    }

    /// Gives the buffers that bodies go through.
    pub(super) fn pool(&self) -> &BufferPool {
        &self.pool
    }

    async fn answer(&self, request: &Request) -> Result<Reply, Failure> {
        if let Some(passed) = self.passed_on(request).await {
            return Ok(passed);
        }
        match Route::parse(&self.config.store_directory, &request.path) {
            Route::Home => Ok(reply::bytes(reply::TEXT, self.home())),
            Route::CacheInfo => Ok(reply::bytes(reply::CACHE_INFO, self.cache_info.clone())),
            Route::NarInfo(hash) => self.narinfo(request, &hash).await,
            Route::Listing(hash) => self.listing(&hash).await,
            Route::StoreNar(hash, nar_hash) => self.store_nar(request, &hash, nar_hash).await,
            Route::ItemNar(compression, item) => self.item_nar(request, &compression, &item).await,
            Route::CachedNar(name) => self.cached_nar(request, &name),
            Route::Log(item) => match self.logs()?.open(&item).await.map_err(Failure::Log)? {
                Some(found) => log(request, &found),
                None => self.log_elsewhere(request, LogName::Item(&item)).await,
            },
            Route::AttemptLog(attempt) => {
                let Some(found) = self.logs()?.attempt(attempt).await.map_err(Failure::Log)? else {
                    return self.log_elsewhere(request, LogName::Attempt(attempt)).await;
                };
                match request.takes_gzip().then(|| reply::growing(request, &found)).transpose()?.flatten() {
                    Some(part) => Ok(part),
                    None => log(request, &found),
                }
            }
            Route::Product(sha256, name) => self.product(request, &sha256, &name),
            Route::Upload(name) if request.method == Method::Head => Ok(self.desk.offset(request, &name)),
            Route::Push(evaluation, part) if request.method == Method::Head => {
                Ok(self.pushes.offset(request, evaluation, &part).await)
            }
            Route::Upload(_) | Route::Push(..) => Ok(reply::method_not_allowed()),
            Route::File(path, hash) => self.fixed_file(request, &path, &hash).await,
            Route::Identity(nonce) => {
                let lines = self.config.signer.sign_nonce(&nonce);
                Ok(reply::never_kept(reply::bytes(reply::TEXT, lines.into())))
            }
            Route::Metrics => {
                let mut text = match &self.config.metrics {
                    Some(more) => more.render().await,
                    None => String::new(),
                };
                self.metrics.render(&mut text, &self.figures());
                Ok(reply::never_kept(reply::bytes(reply::METRICS, text.into())))
            }
            Route::Health => Ok(reply::bytes(reply::TEXT, Bytes::from_static(b"ok\n"))),
            Route::Version => Ok(reply::bytes(reply::TEXT, Bytes::from_static(VERSION.as_bytes()))),
            Route::SigningKey => Ok(reply::bytes(reply::TEXT, self.signing_keys.clone())),
            Route::Unknown => Err(Failure::NotFound("nothing has this name here")),
        }
    }

    /// Gives figures of cache and packer.
    fn figures(&self) -> Registry {
        let mut registry = Registry::with_prefix("hauberk_publish");
        if let Some(holdings) = &self.holdings {
            holdings.register(&mut registry);
        }
        if let Some(packer) = &self.packer {
            packer.register(&mut registry);
        }
        registry
    }

    /// Answers with what is passed on.
    async fn passed_on(&self, request: &Request) -> Option<Reply> {
        let relay = self.config.relay.as_ref()?;
        match Route::parse(&self.config.store_directory, &request.path) {
            Route::NarInfo(hash) => {
                relay.narinfo(&hash).map(|text| reply::narinfo(reply::NARINFO, text, self.config.ttl))
            }
            Route::StoreNar(..) | Route::ItemNar(..) | Route::CachedNar(_) => {
                let source = match request.method {
                    Method::Get => relay.nar(request.path.trim_start_matches('/')).await?,
                    _ => Box::new(io::empty()),
                };
                Some(reply::stream(reply::NAR, Body::Read { source, length: None }))
            }
            _ => None,
        }
    }

    fn home(&self) -> Bytes {
        let directory = &self.config.store_directory;
        let keys = String::from_utf8_lossy(&self.signing_keys);
        format!("Substitutes for {directory}, signed by\n{keys}").into()
    }

    async fn narinfo(&self, request: &Request, hash: &StorePathHash) -> Result<Reply, Failure> {
        let cached = match &self.cached_narinfos {
            // A look at the file system, at most a small file: a hop to another thread would cost more.
            Some(narinfos) => narinfos.text(hash)?,
            None => None,
        };
        let text = match cached {
            Some(text) => text,
            None => match self.in_store(hash).await? {
                Some(item) => {
                    if let Some(Meanwhile::NotYet(ttl)) = self.packer.as_ref().map(|packer| packer.ask(&item))
                    {
                        return Err(Failure::NotYet(ttl));
                    }
                    item.narinfo(&self.config.signer, &self.config.compression)
                }
                None => self.brought(request, hash).await?,
            },
        };
        if !request.takes_json() {
            return Ok(reply::narinfo(reply::NARINFO, text, self.config.ttl));
        }
        let unreadable = |error: Box<dyn Error + Send + Sync>| Failure::Open(io::Error::other(error));
        let narinfo = NarInfo::parse(&self.config.store_directory, &String::from_utf8_lossy(&text))
            .map_err(|error| unreadable(error.into()))?;
        let json = json::of(&narinfo).map_err(|error| unreadable(error.into()))?;
        Ok(reply::narinfo(reply::JSON, json, self.config.ttl))
    }

    /// Gives the narinfo of an item that another server of the farm has, once it is here.
    async fn brought(&self, request: &Request, hash: &StorePathHash) -> Result<Bytes, Failure> {
        const ABSENT: Failure = Failure::NotFound("no such path");
        let (Some(elsewhere), Some(narinfos)) = (&self.config.elsewhere, &self.cached_narinfos) else {
            return Err(ABSENT);
        };
        if request.values(Field::Peer).next().is_some() {
            return Err(ABSENT);
        }
        match elsewhere.bring(hash).await {
            Brought::Here => narinfos.text(hash)?.ok_or(ABSENT),
            Brought::Nowhere => Err(ABSENT),
            Brought::Coming(wait) => Err(Failure::Coming(wait)),
        }
    }

    /// Lists what is inside an item. What only the cache has is unpacked for it.
    async fn listing(&self, hash: &StorePathHash) -> Result<Reply, Failure> {
        let Some(item) = self.in_store(hash).await? else {
            let nar = self.in_cache(hash)?.ok_or(Failure::NotFound("no listing of this path"))?;
            let (nar_hash, size) = (nar.hash(), nar.size().unwrap_or(u64::MAX));
            let listing = match self.listings.known(hash, &nar_hash) {
                Some(listing) => listing,
                None => self.listings.make(*hash, nar_hash, self.open(&nar).await?, size).await?,
            };
            return Ok(reply::bytes(reply::JSON, listing));
        };
        let listed = tokio::task::spawn_blocking(move || list(&item.file)).await;
        Ok(reply::bytes(reply::JSON, listed.map_err(io::Error::other).flatten()?.into()))
    }

    async fn in_store(&self, hash: &StorePathHash) -> Result<Option<Arc<StoreItem>>, Failure> {
        match &self.config.store {
            Some(store) => Ok(store.find(&self.config.store_directory, hash).await?),
            None => Ok(None),
        }
    }

    fn in_cache(&self, hash: &StorePathHash) -> Result<Option<Nar>, Failure> {
        self.in_cache_as(hash, &Compression::None)
    }

    /// Finds the file of an item that is packed in this way, else any of its files.
    fn in_cache_as(&self, hash: &StorePathHash, wanted: &Compression) -> Result<Option<Nar>, Failure> {
        let Some(cache) = &self.config.cache else { return Ok(None) };
        let Some(mut narinfo) = cache.narinfo(hash)? else { return Ok(None) };
        let (nar_hash, nar_size) = (narinfo.nar_hash, narinfo.nar_size);
        narinfo.urls.sort_by_key(|place| place.compression != *wanted);
        Ok(narinfo.urls.into_iter().find_map(|url| {
            // What is packed while it is sent, as for clients of Guix, is no file.
            let name = url.url.strip_prefix("nar/").filter(|name| !name.contains('/'))?.to_owned();
            Some(Nar::Cache { name, compression: url.compression, nar_hash, nar_size })
        }))
    }

    /// Serves what the narinfo of a store item names. When the store has lost it, the cache may still have the same
    /// nar, so that a narinfo remembered by a client stays true.
    async fn store_nar(
        &self,
        request: &Request,
        hash: &StorePathHash,
        nar_hash: NarHash,
    ) -> Result<Reply, Failure> {
        let nar = match self.in_store(hash).await? {
            Some(item) if item.info.nar_hash == nar_hash => Nar::Store(item),
            _ => self
                .in_cache(hash)?
                .filter(|nar| nar.hash() == nar_hash)
                .ok_or(Failure::NotFound("no such nar"))?,
        };
        self.plain(request, nar).await
    }

    async fn item_nar(
        &self,
        request: &Request,
        compression: &Compression,
        item: &StorePath,
    ) -> Result<Reply, Failure> {
        let nar = match self.in_cache_as(&item.hash(), compression)? {
            Some(nar) => nar,
            None => match self.in_store(&item.hash()).await? {
                Some(found) if found.info.path == *item => Nar::Store(found),
                _ => return Err(Failure::NotFound("no such path")),
            },
        };
        if let Nar::Cache { name, compression: found, .. } = &nar
            && found == compression
        {
            return self.cached_nar(request, name);
        }
        match compression {
            Compression::None => self.plain(request, nar).await,
            Compression::Zstd => self.packed(request, nar).await,
            _ => {
                let source = gzip_reader(self.open(&nar).await?);
                Ok(reply::stream(reply::NAR, Body::Read { source, length: None }))
            }
        }
    }

    /// Sends a nar packed with zstd, whose length is known when it has been sent. A client that was cut off gets the rest: it is packed anew
    /// from the start, which comes out the same, and what the client has is passed over.
    async fn packed(&self, request: &Request, nar: Nar) -> Result<Reply, Failure> {
        let content = Endless { tag: self.packed.tag(&nar.hash(), nar.size()), kind: reply::NAR };
        match content.wanted(request) {
            Some(from) if request.method != Method::Head => {
                let mut source: Source = Box::new(self.packed.pack(self.open(&nar).await?, nar.size())?);
                if from.first > 0 {
                    source = Box::new(Skipping { inner: source, skip: from.first });
                }
                Ok(content.with_body(from, Body::Read { source, length: None }))
            }
            Some(from) => {
                Ok(content.with_body(from, Body::Read { source: Box::new(io::empty()), length: None }))
            }
            None => Ok(content.not_modified()),
        }
    }

    /// Sends a nar uncompressed.
    async fn plain(&self, request: &Request, nar: Nar) -> Result<Reply, Failure> {
        let Some(length) = nar.size() else {
            let source = self.open(&nar).await?;
            return Ok(reply::stream(reply::NAR, Body::Read { source, length: None }));
        };
        let content = Immutable { tag: nar.hash().to_base32(), kind: reply::NAR, length };
        match content.wanted(request) {
            Wanted::Bytes { .. } if request.method != Method::Head => {
                Ok(part(request, &content, self.open(&nar).await?))
            }
            wanted => Ok(content.without_bytes(wanted)),
        }
    }

    /// Opens the uncompressed bytes of a nar.
    async fn open(&self, nar: &Nar) -> Result<Source, Failure> {
        match nar {
            Nar::Store(item) => {
                let item = Arc::clone(item);
                let opened = tokio::task::spawn_blocking(move || NarReader::open(&item.file)).await;
                Ok(Box::new(opened.map_err(io::Error::other).flatten()?))
            }
            Nar::Cache { name, compression, .. } => {
                let (file, _) = self.open_cached(name)?;
                let file = BufReader::with_capacity(FILE_BUFFER, file);
                Ok(decoder(compression, file).map_err(io::Error::other)?)
            }
        }
    }

    fn open_cached(&self, name: &str) -> Result<(File, u64), Failure> {
        let cache = self.config.cache.as_ref().ok_or(Failure::NotFound("no such nar"))?;
        let (file, metadata) = cache.open_nar(name)?;
        Ok((file, metadata.len()))
    }

    /// Sends a file of the cache as it is.
    fn cached_nar(&self, request: &Request, name: &str) -> Result<Reply, Failure> {
        let (file, length) = self.open_cached(name)?;
        if request.method == Method::Get {
            note_use(&file);
        }
        let content = Immutable { tag: name.to_owned(), kind: reply::NAR, length };
        Ok(content.file(request, file))
    }

    /// Sends a file that is named by its content, out of the store or, as one that was built, out of its nar.
    async fn fixed_file(&self, request: &Request, path: &StorePath, hash: &Sha256) -> Result<Reply, Failure> {
        const NOT_HERE: Failure = Failure::NotFound("no such file");
        let found = self.in_store(&path.hash()).await?.filter(|item| item.info.path == *path);
        let Some(item) = found else {
            let nar = self.in_cache(&path.hash())?.ok_or(NOT_HERE)?;
            let mut source = self.open(&nar).await?;
            let opened = tokio::task::spawn_blocking(move || {
                let length = flat_file::open(&mut source)?;
                io::Result::Ok(length.map(|length| (length, source)))
            });
            let (length, source) = opened.await.map_err(io::Error::other).flatten()?.ok_or(NOT_HERE)?;
            let content = Immutable { tag: hash.to_base32(), kind: reply::FILE, length };
            return Ok(part(request, &content, Box::new(source.take(length))));
        };
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let file = File::options().read(true).custom_flags(flags).open(&item.file)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(NOT_HERE);
        }
        let content = Immutable { tag: hash.to_base32(), kind: reply::FILE, length: metadata.len() };
        Ok(content.file(request, file))
    }

    /// Names the server that has a log, if there is one: it is below the same name there.
    async fn log_elsewhere(&self, request: &Request, name: LogName<'_>) -> Result<Reply, Failure> {
        let server = self.logs()?.elsewhere(name).await.map_err(Failure::Log)?;
        let server = server.ok_or(Failure::NotFound("no such log"))?;
        Ok(reply::elsewhere(format!("{}{}", server.trim_end_matches('/'), request.path)))
    }

    /// Sends a build product, to be kept and not to be shown: it comes from a build, and is none of this server's pages.
    fn product(&self, request: &Request, sha256: &Sha256, name: &str) -> Result<Reply, Failure> {
        const NOT_HERE: Failure = Failure::NotFound("no such product");
        let products = self.config.products.as_ref().ok_or(NOT_HERE)?;
        let (file, metadata) = products.open_file(sha256)?;
        if request.method == Method::Get {
            note_use(&file);
        }
        let content = Immutable { tag: sha256.to_base32(), kind: media_type(name), length: metadata.len() };
        Ok(reply::to_keep(content.file(request, file), name))
    }

    fn logs(&self) -> Result<&dyn LogSource, Failure> {
        self.config.logs.as_deref().ok_or(Failure::NotFound("no logs are kept here"))
    }
}

/// Sends what is wanted of content that begins where `source` is.
fn part(request: &Request, content: &Immutable, mut source: Source) -> Reply {
    match content.wanted(request) {
        Wanted::Bytes { first, count } if request.method != Method::Head => {
            if count < content.length {
                source = Box::new(Skipping { inner: source, skip: first }.take(count));
            }
            content.with_body(first, count, Body::Read { source, length: Some(count) })
        }
        wanted => content.without_bytes(wanted),
    }
}

/// Sends a log as far as it goes.
fn log(request: &Request, found: &LogBody) -> Result<Reply, Failure> {
    let file = File::open(&found.path)?;
    let count = file.metadata()?.len();
    let gzip = request.takes_gzip();
    if gzip && found.complete {
        return Ok(reply::log(true, Body::File { file, first: 0, count }));
    }
    let file = BufReader::with_capacity(FILE_BUFFER, file.take(count));
    let mut text: Source = Box::new(Growing(flate2::bufread::MultiGzDecoder::new(file)));
    if gzip {
        text = gzip_reader(text);
    }
    Ok(reply::log(gzip, Body::Read { source: text, length: None }))
}

impl Nar {
    fn hash(&self) -> NarHash {
        match self {
            Self::Store(item) => item.info.nar_hash,
            Self::Cache { nar_hash, .. } => *nar_hash,
        }
    }

    fn size(&self) -> Option<u64> {
        match self {
            Self::Store(item) => item.nar_size(),
            Self::Cache { nar_size, .. } => Some(*nar_size),
        }
    }
}

/// Marks a file as used, once an hour: what was not used for longest goes first when there is no room. The time of access would not do, as
/// every look at the cache changes it, or on some file systems none.
fn note_use(file: &File) {
    const HOUR: Duration = Duration::from_secs(3600);
    let now = SystemTime::now();
    let used = file.metadata().and_then(|metadata| metadata.modified());
    if used.is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age > HOUR)) {
        // In a cache of somebody else's it cannot be, and need not.
        let _ = file.set_modified(now);
    }
}

/// Packs what is read with gzip.
fn gzip_reader(source: Source) -> Source {
    Box::new(flate2::read::GzEncoder::new(source, flate2::Compression::new(GZIP_LEVEL)))
}

/// Passes over the first bytes of a reader.
struct Skipping {
    inner: Source,
    skip: u64,
}

impl Read for Skipping {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.skip > 0 {
            let wanted = usize::try_from(self.skip).unwrap_or(usize::MAX).min(buffer.len());
            match self.inner.read(&mut buffer[..wanted])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.skip -= count as u64,
            }
        }
        self.inner.read(buffer)
    }
}
