//! Derivations and sources that are pushed: whole, cut, by those who mean harm, and collected.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    collections::BTreeSet,
    error::Error,
    fs,
    io::{Read, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use hauberk_publish::{
    Cache, PublishConfig, PushDoor, Signer,
    cache::StoredItem,
    client::{ClientConfig, Pusher, Sent, UploadError, UploadTarget},
    push::{PushGate, PushLimits, PushedItem},
};
use hauberk_store::{
    NarHash, NarInfo, Sha256, StoreDirectory, StorePath,
    nar::Node,
    narinfo::{Compression, NarUrl},
    store_path::References,
};
use support::{Answer, PlainStore, Server, key, pattern};
use tempfile::TempDir;

const TOKEN: &str = "the token of evaluation 7";
const MIB: usize = 1 << 20;

/// Admits one token for evaluation 7, as long as it is open.
struct Gate(Arc<AtomicBool>);

#[async_trait]
impl PushGate for Gate {
    async fn admits(&self, evaluation: u64, token: &Sha256) -> Result<bool, Box<dyn Error + Send + Sync>> {
        Ok(evaluation == 7 && *token == Sha256::digest(TOKEN.as_bytes()) && self.0.load(Ordering::Relaxed))
    }
}

/// A server with a cache, and a register's store.
struct Stores {
    server: Server,
    cache: Cache,
    directory: TempDir,
    store: PlainStore,
    store_directory: StoreDirectory,
    signer: Signer,
    open: Arc<AtomicBool>,
}

impl Stores {
    fn new() -> Self {
        Self::with(PushLimits::default())
    }

    fn with(limits: PushLimits) -> Self {
        Self::of(PlainStore::new(), &StoreDirectory::nix(), key("farm-1").0, limits)
    }

    fn of(store: PlainStore, store_directory: &StoreDirectory, signer: Signer, limits: PushLimits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), store_directory).unwrap();
        let open = Arc::new(AtomicBool::new(true));
        let server = Server::start(serving(&directory, &cache, &signer, &open, limits));
        Self { server, cache, directory, store, store_directory: store_directory.clone(), signer, open }
    }

    /// Starts the server again, as after it was killed.
    fn restart(&mut self, limits: PushLimits) {
        let config = serving(&self.directory, &self.cache, &self.signer, &self.open, limits);
        self.server = Server::start(config);
    }

    fn target(&self) -> UploadTarget {
        self.target_with(TOKEN)
    }

    fn target_with(&self, token: &str) -> UploadTarget {
        UploadTarget { base: self.server.url(), place: "push/7".to_owned(), token: token.to_owned() }
    }

    fn text(&self, name: &str, contents: &str, references: &[&StorePath]) -> StorePath {
        let others = references.iter().map(|path| (*path).clone()).collect();
        let path = StorePath::of_text(&self.store_directory, name, contents.as_bytes(), &others).unwrap();
        fs::write(self.store.file(&path), contents).unwrap();
        self.store.register(&path, references);
        path
    }

    fn source(&self, name: &str, bytes: &[u8]) -> StorePath {
        let nar = Node::file(bytes).to_nar().unwrap();
        let hash = NarHash::digest(&nar);
        let path = StorePath::of_source(&self.store_directory, name, &hash, &References::default()).unwrap();
        fs::write(self.store.file(&path), bytes).unwrap();
        self.store.register(&path, &[]);
        path
    }

    fn items(&self, paths: &[&StorePath]) -> Vec<PushedItem> {
        paths
            .iter()
            .map(|path| PushedItem { info: self.store.info(path), file: self.store.file(path) })
            .collect()
    }

    async fn send(&self, paths: &[&StorePath]) -> Result<Sent, UploadError> {
        pusher().send(&self.target(), self.items(paths)).await
    }

    async fn missing(&self, paths: &[&StorePath]) -> Vec<StorePath> {
        let paths: Vec<StorePath> = paths.iter().map(|path| (*path).clone()).collect();
        let missing = pusher().missing(&self.target(), &paths).await.unwrap();
        paths.into_iter().filter(|path| missing.contains(path)).collect()
    }

    /// Sends content by hand.
    fn request(&self, head: &str, content: &[u8]) -> Answer {
        let mut stream = self.server.connect();
        let length = content.len();
        let head = format!(
            "{head} HTTP/1.1\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {length}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(b"Upload-Complete: ?1\r\n\r\n").unwrap();
        // One that is refused by its head may be gone before all is written.
        let _ = stream.write_all(content);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Answer::parse(&answer)
    }

    /// Sends a whole parcel by hand.
    fn parcel(&self, content: &[u8]) -> Answer {
        self.request(&format!("PATCH /push/7/parcel/{}", "0".repeat(64)), content)
    }

    /// Nothing is in the cache, and nothing of parcels is left.
    fn expect_nothing(&self) {
        assert_eq!(self.cache.reader().inventory().unwrap().len(), 0);
        assert_eq!(self.waiting().len(), 0);
        let nars: Vec<_> = fs::read_dir(self.directory.path().join("nar")).unwrap().collect();
        assert_eq!(nars.len(), 0);
    }

    fn waiting(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.path().join("pushes")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

fn serving(
    directory: &TempDir,
    cache: &Cache,
    signer: &Signer,
    open: &Arc<AtomicBool>,
    limits: PushLimits,
) -> PublishConfig {
    let gate = Gate(Arc::clone(open));
    let pushes = directory.path().join("pushes");
    let mut config = PublishConfig::new(cache.store_directory().clone());
    config.cache = Some(cache.clone());
    config.signer = signer.clone();
    config.pushes = Some(PushDoor::open(&pushes, gate, cache.clone(), signer.clone(), limits).unwrap());
    config
}

fn pusher() -> Pusher {
    Pusher::new(ClientConfig::farm(), Duration::ZERO).unwrap()
}

/// What is said of an item, by whoever lies.
fn narinfo(path: &StorePath, nar: &[u8], references: &[&StorePath]) -> NarInfo {
    NarInfo {
        store_path: path.clone(),
        urls: vec![NarUrl {
            url: "nar".to_owned(),
            compression: Compression::None,
            file_size: None,
            file_hash: None,
        }],
        nar_hash: NarHash::digest(nar),
        nar_size: nar.len() as u64,
        references: references.iter().map(|path| (*path).clone()).collect(),
        deriver: None,
        system: None,
        signatures: Vec::new(),
        ca: None,
        unknown: Vec::new(),
        guix_signature: None,
    }
}

/// Packs items by hand.
fn packed(items: &[(NarInfo, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (narinfo, nar) in items {
        let text = narinfo.to_string();
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(nar);
    }
    zstd::encode_all(bytes.as_slice(), 3).unwrap()
}

fn status(result: Result<impl std::fmt::Debug, UploadError>) -> u16 {
    match result {
        Err(UploadError::Refused { status, .. }) => status,
        other => panic!("not refused: {other:?}"),
    }
}

async fn a_closure_is_pushed(stores: Stores) {
    let source = stores.source("source", b"a source\n");
    let text = stores.text("builder.sh", "echo $out\n", &[]);
    let first = stores.text("first.drv", "Derive(first)", &[&source, &text]);
    let second = stores.text("second.drv", "Derive(second)", &[&first]);
    let all = [&source, &text, &first, &second];
    assert_eq!(stores.missing(&all).await.len(), 4);

    let sent = stores.send(&all).await.unwrap();
    assert_eq!(sent.items, 4);
    assert_eq!(stores.missing(&all).await, []);
    assert_eq!(stores.waiting().len(), 0);
    for path in all {
        let answer = stores.server.get(&format!("/{}.narinfo", path.hash()));
        let served = NarInfo::parse(&stores.store_directory, &answer.text()).unwrap();
        let info = stores.store.info(path);
        assert_eq!((served.nar_hash, served.nar_size), (info.nar_hash, info.nar_size));
        assert_eq!(served.references, info.references);
        assert!(served.ca.is_some(), "{answer:?}", answer = answer.text());
        let (signer, mut again) = (&stores.signer, served.clone());
        signer.sign(&mut again);
        assert_eq!(again, served, "it is signed by the server");
        let nar = stores.server.get(&format!("/nar/{}", path.base_name()));
        assert_eq!(nar.body, stores.store.nar(path));
    }
    let items = stores.cache.reader().inventory().unwrap();
    assert!(items.len() == 4 && items.iter().all(|item| item.pushed));

    // What comes later refers to what is there.
    let third = stores.text("third.drv", "Derive(third)", &[&second]);
    let later = [&source, &text, &first, &second, &third];
    assert_eq!(stores.missing(&later).await, std::slice::from_ref(&third));
    stores.send(&[&third]).await.unwrap();
    assert_eq!(stores.missing(&later).await, []);
}

#[tokio::test]
async fn a_closure_of_nix_is_pushed() {
    a_closure_is_pushed(Stores::new()).await;
}

#[tokio::test]
async fn a_closure_of_guix_is_pushed() {
    let key = hauberk_store::signature::guix::SecretKey::generate().unwrap();
    let signer = Signer::guix("farm", key);
    let (store, directory) = (PlainStore::guix(), StoreDirectory::guix());
    a_closure_is_pushed(Stores::of(store, &directory, signer, PushLimits::default())).await;
}

#[tokio::test]
async fn what_has_lost_something_below_it_is_missing() {
    let stores = Stores::new();
    let source = stores.source("source", b"a source\n");
    let first = stores.text("first.drv", "Derive(first)", &[&source]);
    let second = stores.text("second.drv", "Derive(second)", &[&first]);
    let all = [&source, &first, &second];
    stores.send(&all).await.unwrap();
    stores.cache.remove(&[source.hash()]).unwrap();
    assert_eq!(stores.missing(&[&second]).await, std::slice::from_ref(&second));
    assert_eq!(stores.missing(&all).await.len(), 3);
    stores.send(&all).await.unwrap();
    assert_eq!(stores.missing(&all).await, []);
}

#[tokio::test]
async fn only_whoever_has_the_token_pushes_and_asks() {
    let stores = Stores::new();
    let path = stores.text("a.drv", "Derive(a)", &[]);
    let asked = std::slice::from_ref(&path);
    for token in ["", "another", "the token of evaluation 8"] {
        let target = stores.target_with(token);
        assert_eq!(status(pusher().missing(&target, asked).await), 403);
        assert_eq!(status(pusher().available(&target, asked).await), 403);
        assert_eq!(status(pusher().send(&target, stores.items(&[&path])).await), 403);
    }
    let other = UploadTarget { place: "push/8".to_owned(), ..stores.target() };
    assert_eq!(status(pusher().missing(&other, asked).await), 403);
    // It is good until it expires.
    assert_eq!(stores.missing(&[&path]).await.len(), 1);
    stores.open.store(false, Ordering::Relaxed);
    assert_eq!(status(stores.send(&[&path]).await), 403);
    stores.expect_nothing();

    let closed = Server::start(PublishConfig::new(StoreDirectory::nix()));
    let target = UploadTarget { base: closed.url(), ..stores.target() };
    assert_eq!(status(pusher().missing(&target, asked).await), 403);
}

#[tokio::test]
async fn only_what_follows_from_its_contents_is_taken() {
    let stores = Stores::new();
    let (nar, other) = (Node::file("true").to_nar().unwrap(), Node::file("evil").to_nar().unwrap());
    let none = BTreeSet::new();
    let text = StorePath::of_text(&StoreDirectory::nix(), "t.drv", b"true", &none).unwrap();
    let built: StorePath = "/nix/store/00000000000000000000000000000000-bash".parse().unwrap();
    let guix: StorePath = "/gnu/store/00000000000000000000000000000000-bash".parse().unwrap();
    let long = [nar.clone(), vec![0; 8]].concat();
    for (what, item, nar) in [
        ("another content", narinfo(&text, &other, &[]), &other),
        ("a hash that is not its own", narinfo(&text, &nar, &[]), &other),
        ("an output", narinfo(&built, &nar, &[]), &nar),
        ("another store", narinfo(&guix, &nar, &[]), &nar),
        ("references that it lacks", narinfo(&text, &nar, &[&built]), &nar),
        ("a reference to itself", narinfo(&text, &nar, &[&text]), &nar),
        ("bytes behind its nar", narinfo(&text, &long, &[]), &long),
        ("no nar", narinfo(&text, b"true", &[]), &b"true".to_vec()),
    ] {
        let answer = stores.parcel(&packed(&[(item, nar)]));
        assert_eq!(answer.status, 422, "{what}: {}", answer.text());
        stores.expect_nothing();
    }
    // The same, honestly.
    let item = narinfo(&text, &nar, &[]);
    assert_eq!(stores.parcel(&packed(&[(item, &nar)])).status, 204);
    // What is there is not replaced, whatever comes.
    let before = stores.cache.narinfo_text(&text.hash()).unwrap();
    assert_eq!(stores.parcel(&packed(&[(narinfo(&text, &other, &[]), &other)])).status, 422);
    assert_eq!(stores.cache.narinfo_text(&text.hash()).unwrap(), before);
}

#[tokio::test]
async fn what_is_no_parcel_leaves_nothing() {
    let stores = Stores::new();
    let nar = Node::file("true").to_nar().unwrap();
    let text = StorePath::of_text(&StoreDirectory::nix(), "t", b"true", &BTreeSet::new()).unwrap();
    let good = packed(&[(narinfo(&text, &nar, &[]), &nar)]);
    let huge = zstd::encode_all([u32::MAX.to_le_bytes().as_slice(), b"x"].concat().as_slice(), 3).unwrap();
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("junk", b"this is no parcel".to_vec()),
        ("a part", good[..good.len() - 5].to_vec()),
        ("a huge narinfo", huge),
    ] {
        let answer = stores.parcel(&bytes);
        assert_eq!(answer.status, 422, "{what}: {}", answer.text());
        stores.expect_nothing();
    }
    // What is whole before the junk counts.
    let answer = stores.parcel(&[good.as_slice(), b"junk"].concat());
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert_eq!(stores.waiting().len(), 0);
    for (head, status) in [
        ("POST /push/7/missing", 400),
        ("PATCH /push/7/missing", 405),
        ("POST /push/7/other", 405),
        (&format!("POST /push/7/parcel/{}", "0".repeat(64)), 405),
    ] {
        assert_eq!(stores.request(head, b"no store path\n").status, status, "{head}");
    }
    let long = vec![b'x'; MIB + 1];
    assert_eq!(stores.request("POST /push/7/missing", &long).status, 413);
    assert_eq!(stores.parcel(&long).status, 413);
}

#[tokio::test]
async fn a_bomb_is_stopped() {
    let limits = PushLimits { bytes: 8 << 20, ..PushLimits::default() };
    let stores = Stores::with(limits);
    // A large nar of zeros packs well.
    let nar = Node::file(vec![0; 20 * MIB]).to_nar().unwrap();
    let hash = NarHash::digest(&nar);
    let path = StorePath::of_source(&StoreDirectory::nix(), "zeros", &hash, &References::default()).unwrap();
    let bomb = packed(&[(narinfo(&path, &nar, &[]), &nar)]);
    assert!(bomb.len() < 64 * 1024);
    assert_eq!(stores.parcel(&bomb).status, 413);
    stores.expect_nothing();

    // One that is said to be small is cut where it is to end.
    let stores = Stores::with(limits);
    let small = NarInfo { nar_size: 112, ..narinfo(&path, &nar, &[]) };
    assert_eq!(stores.parcel(&packed(&[(small, &nar)])).status, 422);
    stores.expect_nothing();

    // Endless pieces of what never becomes a parcel.
    let stores = Stores::with(limits);
    let source = stores.source("noise", &noise(12 * MIB));
    assert_eq!(status(stores.send(&[&source]).await), 413);
    stores.expect_nothing();
}

/// Bytes that do not pack.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    let mut block = *Sha256::digest(b"noise").as_bytes();
    while bytes.len() < length {
        bytes.extend_from_slice(&block);
        block = *Sha256::digest(&block).as_bytes();
    }
    bytes
}

#[tokio::test]
async fn a_cut_push_goes_on() {
    let mut stores = Stores::new();
    let bytes = noise(12 * MIB);
    let source = stores.source("large", &bytes);
    // What a pusher that was cut has sent: the beginning of what it packs.
    let nar = stores.store.nar(&source);
    let text = narinfo(&source, &nar, &[]).to_string();
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    let parts = [length.as_slice(), text.as_bytes(), &nar].concat();
    let mut file = Vec::new();
    zstd::stream::read::Encoder::new(parts.as_slice(), 3).unwrap().read_to_end(&mut file).unwrap();
    let at = 9 * MIB;
    let digits: String = Sha256::digest(format!("{}\n", source.base_name()).as_bytes()).to_base16();
    let parcel = stores.directory.path().join("pushes").join(&digits);
    fs::write(&parcel, &file[..at]).unwrap();
    // There is room for the rest, and for unpacking it, and not for all.
    stores.restart(PushLimits { bytes: 17 << 20, ..PushLimits::default() });
    assert_eq!(stores.missing(&[&source]).await.len(), 1);
    stores.send(&[&source]).await.unwrap();
    assert_eq!(stores.missing(&[&source]).await, []);
    assert_eq!(stores.waiting().len(), 0);

    // What somebody else had begun otherwise is begun anew.
    stores.cache.remove(&[source.hash()]).unwrap();
    fs::write(&parcel, &bytes[..3 * MIB]).unwrap();
    stores.restart(PushLimits::default());
    stores.send(&[&source]).await.unwrap();
    assert_eq!(stores.missing(&[&source]).await, []);
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() {
    let mut stores = Stores::new();
    let path = stores.text("a.drv", "Derive(a)", &[]);
    let asked = std::slice::from_ref(&path);
    let (target, address) = (stores.target(), stores.server.address);
    drop(std::mem::replace(&mut stores.server, Server::start(PublishConfig::new(StoreDirectory::nix()))));
    // Not for ever.
    let error = pusher().missing(&target, asked).await.unwrap_err();
    assert!(matches!(error, UploadError::Unreachable { .. }), "{error}");

    let patient = Pusher::new(ClientConfig::farm(), Duration::from_secs(60)).unwrap();
    let (items, waiting) = (stores.items(&[&path]), target.clone());
    let sending = tokio::spawn(async move { patient.send(&waiting, items).await });
    tokio::task::yield_now().await;
    let config =
        serving(&stores.directory, &stores.cache, &stores.signer, &stores.open, PushLimits::default());
    let listener = std::net::TcpListener::bind(address).unwrap();
    let stop = stores.server.stop.clone();
    let running =
        hauberk_publish::PublishServer::new(listener, config).spawn_on_own_runtime(1, stop).unwrap();
    assert_eq!(sending.await.unwrap().unwrap().items, 1);
    assert_eq!(pusher().missing(&target, asked).await.unwrap().len(), 0);
    stores.server.stop.cancel();
    running.join().await.unwrap();
}

#[tokio::test]
async fn many_are_asked_about_and_sent() {
    let stores = Stores::new();
    let mut paths = Vec::new();
    for number in 0..5000 {
        let below: Vec<&StorePath> = paths.last().into_iter().collect();
        let path = stores.text(&format!("d{number}.drv"), &format!("Derive({number})"), &below);
        paths.push(path);
    }
    let all: Vec<&StorePath> = paths.iter().collect();
    assert_eq!(stores.missing(&all).await.len(), 5000);
    stores.send(&all).await.unwrap();
    assert_eq!(stores.missing(&all).await, []);
    let available = pusher().available(&stores.target(), &paths).await.unwrap();
    assert_eq!(available.len(), 5000);
}

#[tokio::test]
async fn what_is_looked_for_is_not_collected() {
    let stores = Stores::new();
    let source = stores.source("source", &pattern(1000));
    let first = stores.text("first.drv", "Derive(first)", &[&source]);
    let other = stores.text("other.drv", "Derive(other)", &[&source]);
    stores.send(&[&source, &first, &other]).await.unwrap();
    let items = stores.cache.reader().inventory().unwrap();
    let item = |path: &StorePath| items.iter().find(|item| item.path == *path).unwrap();
    // A collection that has decided to remove all, as a register begins to look.
    let going: Vec<&StoredItem> = [&other, &first, &source].map(item).into();
    assert_eq!(stores.missing(&[&first]).await, []);
    assert_eq!(stores.cache.remove_unused(&going).unwrap().0, 1);
    assert!(!stores.cache.contains(&other.hash()));
    assert_eq!(stores.missing(&[&first]).await, [], "its source stays, too");
    // Nobody has looked since.
    let items = stores.cache.reader().inventory().unwrap();
    let item = |path: &StorePath| items.iter().find(|item| item.path == *path).unwrap();
    let going: Vec<&StoredItem> = [&first, &source].map(item).into();
    assert_eq!(stores.cache.remove_unused(&going).unwrap().0, 2);
    assert_eq!(stores.cache.reader().inventory().unwrap().len(), 0);
}
