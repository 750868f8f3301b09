//! Every answer of a recorded `guix publish`, and ours to the same question.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use hauberk_publish::{
    Cache, PublishConfig, Signer,
    server::{LogBody, LogSource, Packing},
};
use hauberk_store::{
    NarInfo, Sha256, StoreDirectory, StorePath,
    nar::{Limits, restore},
    narinfo::Compression,
    signature::guix,
};
use support::{Answer, PlainStore, Server};

/// The item that was asked for, and what was built as `simple`.
const ITEM: &str = "d10yrpw90mb7dsr07gsh57zhjzxiqdlj-chain";
const SIMPLE: &str = "x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-simple";
const SIMPLE_DRV: &str = "45rrqddcql46lzs8nma7hncjl4cvy7df-simple.drv";
const ABSENT: &str = "00000000000000000000000000000000";

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/guix-vectors")
}

fn read(name: &str) -> Vec<u8> {
    fs::read(vectors().join(name)).unwrap()
}

/// A recorded answer.
fn recorded(name: &str) -> Answer {
    let head = String::from_utf8(read(&format!("http/{name}.headers"))).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: read(&format!("http/{name}.body")) }
}

/// The log of `simple`, by its derivation and its output.
struct Logs(PathBuf);

#[async_trait]
impl LogSource for Logs {
    async fn open(&self, item: &StorePath) -> std::io::Result<Option<LogBody>> {
        let known = [SIMPLE, SIMPLE_DRV].contains(&item.base_name());
        Ok(known.then(|| LogBody { path: self.0.clone(), complete: true }))
    }

    async fn attempt(&self, _: u64) -> std::io::Result<Option<LogBody>> {
        Ok(None)
    }
}

fn signer() -> Signer {
    let (public, secret) = (read("keys/signing-key.pub"), read("keys/signing-key.sec"));
    Signer::guix("vm", guix::SecretKey::parse_pair(&public, &secret).unwrap())
}

/// The store that the recorded server had.
fn store() -> PlainStore {
    let store = PlainStore::guix();
    let text = String::from_utf8(read("http/narinfo-200.body")).unwrap();
    let narinfo = NarInfo::parse(&StoreDirectory::guix(), &text).unwrap();
    store.know(&narinfo);
    let file = store.file(&narinfo.store_path);
    fs::remove_file(&file).unwrap();
    restore(&read(&format!("nar/{ITEM}.nar"))[..], file, Limits::default()).unwrap();
    let fixed = b"fixed content\n";
    let hash = Sha256::digest(fixed).into();
    let path = StorePath::of_fixed_output(&StoreDirectory::guix(), "fixed-flat.txt", false, &hash).unwrap();
    fs::write(store.file(&path), fixed).unwrap();
    store.register(&path, &[]);
    store
}

fn config(compression: Compression) -> PublishConfig {
    let mut config = PublishConfig::new(StoreDirectory::guix());
    config.signer = signer();
    config.compression = compression;
    config.ttl = Some(Duration::from_secs(3600));
    config.logs = Some(std::sync::Arc::new(Logs(vectors().join("http/log.body"))));
    config
}

fn ask(server: &Server, line: &str) -> Answer {
    server.request(&format!("{line}\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n"))
}

fn unpacked(compression: &str, body: &[u8]) -> Vec<u8> {
    let mut nar = Vec::new();
    match compression {
        "gzip" => drop(flate2::read::GzDecoder::new(body).read_to_end(&mut nar).unwrap()),
        "zstd" => nar = zstd::decode_all(body).unwrap(),
        _ => nar.extend_from_slice(body),
    }
    nar
}

#[test]
fn every_answer_has_its_equal() {
    let mut left: BTreeSet<String> = fs::read_dir(vectors().join("http"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".headers").map(str::to_owned))
        .collect();
    let mut theirs = |name: &str| {
        assert!(left.remove(name), "{name} is not recorded");
        recorded(name)
    };
    let store = store();
    let mut of_store = config(Compression::Gzip);
    of_store.store = Some(store.source());
    let server = Server::start(of_store);
    let get = |path: &str| ask(&server, &format!("GET {path} HTTP/1.1"));

    // Narinfos, byte for byte, and for how long they may be remembered.
    let path = format!("/{}.narinfo", &ITEM[..32]);
    for name in ["narinfo-200", "narinfo-connection-close"] {
        let (theirs, ours) = (theirs(name), get(&path));
        assert_eq!((ours.status, &ours.body), (theirs.status, &theirs.body), "{name}");
        for field in ["content-length", "cache-control"] {
            assert_eq!(ours.header(field), theirs.header(field), "{name}: {field}");
        }
        assert_eq!(ours.header("connection").as_deref(), Some("close"));
    }
    // It has no answers to HEAD; ours are those to GET.
    assert_eq!(theirs("head-narinfo").status, 404);
    let head = ask(&server, &format!("HEAD {path} HTTP/1.1"));
    let length = get(&path).header("content-length");
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, length));

    // What is not there, or is nothing that could be; it has an error of its own for one of them.
    for (name, path) in [
        ("narinfo-404", format!("/{ABSENT}.narinfo")),
        ("narinfo-bad-chars", "/eeee.narinfo".to_owned()),
        ("nar-404", format!("/nar/{ABSENT}-x")),
        ("nar-xz-unsupported", format!("/nar/xz/{ITEM}")),
        ("log-404", format!("/log/{ABSENT}-x")),
        (
            "file-by-hash-404",
            format!("/file/other.txt/sha256/{}", Sha256::digest(b"fixed content\n").to_base32()),
        ),
        ("narinfo-short", "/x.narinfo".to_owned()),
    ] {
        let (theirs, ours) = (theirs(name), get(&path));
        let expected = if name == "narinfo-short" { 500 } else { 404 };
        assert_eq!((theirs.status, ours.status), (expected, 404), "{name}");
        assert_eq!(ours.header("content-length"), Some(ours.body.len().to_string()), "{name}");
        // Guix would remember for as long as it likes.
        assert_eq!(ours.header("cache-control").as_deref(), Some("max-age=0"), "{name}");
    }
    let mut lasting = config(Compression::Gzip);
    lasting.negative_ttl = Duration::from_secs(3600);
    let remembered = ask(&Server::start(lasting), &format!("GET /{ABSENT}.narinfo HTTP/1.1"));
    let cached = theirs("narinfo-404-cached");
    assert_eq!(
        (remembered.status, remembered.header("cache-control")),
        (cached.status, cached.header("cache-control"))
    );

    // Nars, which are read to their announced end or to that of the connection.
    for (name, compression) in [("nar-none", "none"), ("nar-gzip", "gzip"), ("nar-zstd", "zstd")] {
        let (theirs, ours) = (theirs(name), get(&format!("/nar/{compression}/{ITEM}")));
        assert_eq!(ours.status, theirs.status, "{name}");
        assert_eq!(unpacked(compression, &ours.body), unpacked(compression, &theirs.body), "{name}");
    }
    let (theirs_closed, ours) = (theirs("nar-none-connection-close"), get(&format!("/nar/{ITEM}")));
    assert_eq!((ours.status, &ours.body), (200, &theirs_closed.body));
    assert_eq!(ours.header("connection").as_deref(), Some("close"));
    assert_eq!(ours.header("content-length"), Some(ours.body.len().to_string()));
    // lzip is not offered, so nobody is led to it.
    for name in ["nar-lzip", "nar-multi-prefix-lzip", "nar-cached-lzip"] {
        assert_eq!((theirs(name).status, get(&format!("/nar/lzip/{ITEM}")).status), (200, 404));
    }
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), &StoreDirectory::guix()).unwrap();
    let mut packing = Packing::new(vec!["gzip".parse().unwrap(), "zstd".parse().unwrap()]);
    packing.least = 0;
    let mut of_cache = config(Compression::None);
    of_cache.store = Some(store.source());
    of_cache.cache = Some(cache.clone());
    of_cache.packing = Some(packing);
    let caching = Server::start(of_cache);
    let item = StorePath::from_base_name(&StoreDirectory::guix(), ITEM).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !cache.contains(&item.hash()) {
        assert_eq!(ask(&caching, &format!("GET {path} HTTP/1.1")).status, 200);
        assert!(Instant::now() < deadline, "it is not packed");
        std::thread::sleep(Duration::from_millis(10));
    }
    for (name, method) in [("nar-cached-gzip", "gzip"), ("nar-cached-zstd", "zstd")] {
        let theirs = theirs(name);
        let ours = ask(&caching, &format!("GET /nar/{method}/{ITEM} HTTP/1.1"));
        assert_eq!(ours.status, theirs.status, "{name}");
        assert_eq!(unpacked(method, &ours.body), unpacked(method, &theirs.body), "{name}");
        assert_eq!(ours.header("content-length"), Some(ours.body.len().to_string()), "{name}");
        assert!(ours.header("cache-control").unwrap().contains("max-age="), "{name}");
    }

    // Logs by derivation and by output, as they are on the disk.
    for (name, item) in [("log", SIMPLE), ("log-of-drv", SIMPLE_DRV)] {
        let (theirs, ours) = (theirs(name), get(&format!("/log/{item}")));
        assert_eq!((ours.status, &ours.body), (theirs.status, &theirs.body), "{name}");
        for field in ["content-encoding", "content-length"] {
            assert_eq!(ours.header(field), theirs.header(field), "{name}: {field}");
        }
    }

    // The rest.
    let file = theirs("file-by-hash");
    let ours = get(&format!("/file/fixed-flat.txt/sha256/{}", Sha256::digest(&file.body).to_base32()));
    assert_eq!((ours.status, &ours.body), (file.status, &file.body));
    assert_eq!(ours.header("content-length"), file.header("content-length"));
    let (key, ours) = (theirs("signing-key"), get("/signing-key.pub"));
    assert_eq!((ours.status, &ours.body), (key.status, &key.body));
    for (name, version) in [("nix-cache-info", "1.1"), ("http10", "1.0")] {
        let (theirs, ours) = (theirs(name), ask(&server, &format!("GET /nix-cache-info HTTP/{version}")));
        assert_eq!(ours.status, theirs.status, "{name}");
        assert_eq!(ours.text().lines().next(), theirs.text().lines().next(), "{name}");
        assert_eq!(ours.header("content-length"), Some(ours.body.len().to_string()), "{name}");
    }
    assert_eq!((get("/").status, theirs("home").status), (200, 200));
    // What changes things is refused, by what says so.
    let post = ask(&server, "POST /nix-cache-info HTTP/1.1");
    assert_eq!((post.status, theirs("post").status), (405, 404));
    assert!(left.is_empty(), "nobody asked for {left:?}");
}
