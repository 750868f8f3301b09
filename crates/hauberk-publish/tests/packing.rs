//! Items of the store get into the cache by being asked for.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    fs,
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use hauberk_publish::{
    Cache, PublishConfig, Signer,
    cache::Method,
    server::{Meanwhile, Packing},
};
use hauberk_store::{NarInfo, StoreDirectory, StorePath, narinfo::Compression, signature::guix};
use support::{Answer, PlainStore, Server, key, tree};

fn serve(store: &PlainStore, signer: &Signer, directory: &Path, packing: Packing) -> Server {
    let stores =
        if signer.public_text().starts_with('(') { StoreDirectory::guix() } else { StoreDirectory::nix() };
    let mut config = PublishConfig::new(stores.clone());
    config.signer = signer.clone();
    config.store = Some(store.source());
    config.cache = Some(Cache::open(directory, &stores).unwrap());
    config.packing = Some(packing);
    Server::start(config)
}

fn ask(server: &Server, item: &StorePath) -> Answer {
    server.get(&format!("/{}.narinfo", item.hash_part()))
}

/// Asks until the answer is out of the cache.
fn ask_until_packed(server: &Server, item: &StorePath) -> NarInfo {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = ask(server, item);
        if answer.status == 200 {
            let narinfo = NarInfo::parse(item.directory(), &answer.text()).unwrap();
            if narinfo.urls[0].file_size.is_some() && narinfo.urls[0].compression != Compression::None {
                return narinfo;
            }
        }
        assert!(Instant::now() < deadline, "{}", answer.text());
    }
}

#[test]
fn the_first_client_is_served_at_once_and_later_ones_from_the_cache() {
    let (store, directory) = (PlainStore::new(), tempfile::tempdir().unwrap());
    let (signer, trusted) = key("k-1");
    let item = store.add("item", &[], tree);
    let tiny = store.add("tiny", &[], |file| fs::write(file, "x").unwrap());
    let server =
        serve(&store, &signer, directory.path(), Packing::new(vec![Method::Zstd(1), Method::Gzip(1)]));
    let first = NarInfo::parse(&StoreDirectory::nix(), &ask(&server, &item).text()).unwrap();
    assert_eq!(first.urls[0].compression, Compression::None);
    let packed = ask_until_packed(&server, &item);
    assert!(trusted.vouch_for(&packed));
    assert_eq!((packed.nar_hash, packed.nar_size), (first.nar_hash, first.nar_size));
    let [place] = &packed.urls[..] else { panic!("clients of Nix know no choice: {packed}") };
    let nar = server.get(&format!("/{}", place.url));
    assert_eq!(Some(nar.body.len() as u64), place.file_size);
    assert_eq!(zstd::decode_all(&nar.body[..]).unwrap(), store.nar(&item));
    // Who remembers the first narinfo gets what it says.
    assert_eq!(server.get(&format!("/{}", first.urls[0].url)).body, store.nar(&item));
    // Not worth a file of its own.
    assert!(ask(&server, &tiny).text().contains("\nCompression: none\n"));
    assert_eq!(fs::read_dir(directory.path().join("nar")).unwrap().count(), 1);
    // What the cache alone has is listed just as the store's items are.
    let mut config = PublishConfig::new(StoreDirectory::nix());
    config.cache = Some(Cache::open(directory.path(), &StoreDirectory::nix()).unwrap());
    let without_store = Server::start(config);
    let path = format!("/{}.ls", item.hash_part());
    let listing = server.get(&path).text();
    assert!(listing.contains("narOffset"), "{listing}");
    for _ in 0..2 {
        assert_eq!(without_store.get(&path).text(), listing);
    }
    assert_eq!(without_store.get(&format!("/{}.ls", tiny.hash_part())).status, 404);
}

#[test]
fn clients_can_be_told_to_come_again() {
    let (store, directory) = (PlainStore::new(), tempfile::tempdir().unwrap());
    let item = store.add("item", &[], tree);
    let mut packing = Packing::new(vec![Method::default()]);
    packing.meanwhile = Meanwhile::NotYet(Duration::from_secs(7));
    let server = serve(&store, &key("k-1").0, directory.path(), packing);
    let first = ask(&server, &item);
    assert_eq!((first.status, first.header("cache-control").as_deref()), (404, Some("max-age=7")));
    ask_until_packed(&server, &item);
}

#[test]
fn what_is_not_what_the_store_says_is_not_packed() {
    let (store, directory) = (PlainStore::new(), tempfile::tempdir().unwrap());
    let item = store.add("item", &[], tree);
    let good = store.add("good", &[], tree);
    fs::write(store.file(&item).join("bytes"), "other").unwrap();
    let mut packing = Packing::new(vec![Method::default()]);
    packing.threads = 1;
    packing.meanwhile = Meanwhile::NotYet(Duration::ZERO);
    let server = serve(&store, &key("k-1").0, directory.path(), packing);
    assert_eq!(ask(&server, &item).status, 404);
    // It comes after the other.
    ask_until_packed(&server, &good);
    // It is left to the clients, who will see what it is.
    assert_eq!(ask(&server, &item).status, 200);
    assert!(ask(&server, &item).text().contains("\nCompression: none\n"));
    assert_eq!(fs::read_dir(directory.path().join("nar")).unwrap().count(), 1);
    // Those who watch are told; what the directory holds is counted from the first time they ask on.
    let deadline = Instant::now() + Duration::from_secs(30);
    let size = fs::read_dir(directory.path().join("nar"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .metadata()
        .unwrap()
        .len();
    let lines = [
        "hauberk_publish_packing 0\n",
        "hauberk_publish_packed_total{result=\"done\"} 1\n",
        "hauberk_publish_packed_total{result=\"failed\"} 1\n",
        "hauberk_publish_cache_items 1\n",
        &format!("hauberk_publish_cache_nars_bytes {size}\n"),
    ];
    loop {
        let text = server.get("/metrics").text();
        assert!(text.ends_with("# EOF\n"), "{text}");
        if lines.iter().all(|line| text.contains(line)) {
            break;
        }
        assert!(Instant::now() < deadline, "{text}");
    }
}

#[test]
fn clients_of_guix_have_a_choice() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/guix-vectors/keys");
    let read = |name: &str| fs::read(vectors.join(name)).unwrap();
    let key = guix::SecretKey::parse_pair(&read("signing-key.pub"), &read("signing-key.sec")).unwrap();
    let (store, directory) = (PlainStore::guix(), tempfile::tempdir().unwrap());
    let item = store.add("item", &[], tree);
    let packing = Packing::new(vec![Method::Zstd(1), Method::Gzip(1)]);
    let server = serve(&store, &Signer::guix("vm", key), directory.path(), packing);
    let packed = ask_until_packed(&server, &item);
    let kinds: Vec<_> = packed.urls.iter().map(|place| place.compression.clone()).collect();
    assert_eq!(kinds, [Compression::Zstd, Compression::Gzip]);
    for place in &packed.urls {
        let answer = server.get(&format!("/{}", place.url));
        assert_eq!(Some(answer.body.len() as u64), place.file_size);
        let mut nar = Vec::new();
        match place.compression {
            Compression::Gzip => {
                flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut nar).unwrap()
            }
            _ => zstd::Decoder::new(&answer.body[..]).unwrap().read_to_end(&mut nar).unwrap(),
        };
        assert!(nar == store.nar(&item));
    }
}
