//! The server, seen by raw HTTP.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    fs,
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use hauberk_publish::{
    Cache, PublishConfig, Signer,
    cache::Pending,
    server::{Limits, LogBody, LogSource},
};
use hauberk_store::{NarInfo, Sha256, StoreDirectory, StorePath, narinfo::Compression, signature::guix};
use support::{PlainStore, Server, key, pattern, tree};

fn config(store: &PlainStore, signer: &Signer) -> PublishConfig {
    let mut config = PublishConfig::new(StoreDirectory::nix());
    config.signer = signer.clone();
    config.store = Some(store.source());
    config
}

fn narinfo_of(server: &Server, path: &StorePath) -> NarInfo {
    let answer = server.get(&format!("/{}.narinfo", path.hash_part()));
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(answer.header("content-type").as_deref(), Some("text/x-nix-narinfo"));
    NarInfo::parse(&StoreDirectory::nix(), &answer.text()).unwrap()
}

#[test]
fn a_store_item_is_signed_and_archived_on_the_fly() {
    let store = PlainStore::new();
    let (signer, trusted) = key("k-1");
    let leaf = store.add("leaf.drv", &[], |file| fs::write(file, "Derive()").unwrap());
    let item = store.add("item", &[&leaf], tree);
    let server = Server::start(config(&store, &signer));

    let info = server.get("/nix-cache-info");
    assert_eq!(info.text(), "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n");

    for path in [&item, &leaf] {
        let narinfo = narinfo_of(&server, path);
        assert!(trusted.vouch_for(&narinfo));
        let [place] = &narinfo.urls[..] else { panic!("{narinfo}") };
        assert_eq!(place.compression, Compression::None);
        let nar = server.get(&format!("/{}", place.url));
        assert_eq!(nar.status, 200);
        assert_eq!(nar.header("content-length"), Some(narinfo.nar_size.to_string()));
        assert_eq!(nar.body, store.nar(path));
    }
    assert_eq!(narinfo_of(&server, &item).references, [leaf].into());
    assert_eq!(store.asked(), 2, "what is remembered is not asked for again");

    let key = server.get("/signing-key.pub").text();
    assert!(key.starts_with("k-1:"), "{key}");
    assert_eq!(server.get("/health").text(), "ok\n");
    assert!(server.get("/version").text().starts_with("hauberk "));
}

#[test]
fn what_the_store_loses_or_changes_is_noticed() {
    let store = PlainStore::new();
    let (signer, _) = key("k-1");
    let item = store.add("item", &[], |file| fs::write(file, "one").unwrap());
    let server = Server::start(config(&store, &signer));
    let first = narinfo_of(&server, &item);
    fs::remove_file(store.file(&item)).unwrap();
    fs::write(store.file(&item), "two").unwrap();
    store.register(&item, &[]);
    let second = narinfo_of(&server, &item);
    assert_ne!(first.nar_hash, second.nar_hash);
    assert_eq!(server.get(&format!("/{}", first.urls[0].url)).status, 404);
    store.forget(&item);
    fs::remove_file(store.file(&item)).unwrap();
    assert_eq!(server.get(&format!("/{}.narinfo", item.hash_part())).status, 404);
    assert_eq!(server.get(&format!("/{}", second.urls[0].url)).status, 404);
}

#[test]
fn conditional_requests_and_ranges() {
    let store = PlainStore::new();
    let (signer, _) = key("k-1");
    let item = store.add("item", &[], |file| fs::write(file, pattern(1_000_000)).unwrap());
    let server = Server::start(config(&store, &signer));
    let url = format!("/{}", narinfo_of(&server, &item).urls[0].url);
    let nar = store.nar(&item);
    let ask = |method: &str, headers: &str| {
        server.request(&format!("{method} {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"))
    };

    let head = ask("HEAD", "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(nar.len().to_string()));
    let etag = head.header("etag").unwrap();
    assert!(head.header("cache-control").unwrap().contains("immutable"));

    assert_eq!(ask("GET", &format!("If-None-Match: \"x\", W/{etag}\r\n")).status, 304);
    assert_eq!(ask("GET", "If-None-Match: \"x\"\r\n").status, 200);

    for (range, first, last) in [
        ("600000-600009", 600_000, 600_009),
        ("999000-", 999_000, nar.len() - 1),
        ("-5", nar.len() - 5, nar.len() - 1),
    ] {
        let part = ask("GET", &format!("Range: bytes={range}\r\n"));
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(part.body, nar[first..=last], "{range}");
        assert_eq!(part.header("content-range"), Some(format!("bytes {first}-{last}/{}", nar.len())));
    }
    let beyond = ask("GET", "Range: bytes=99999999999-\r\n");
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.header("content-range"), Some(format!("bytes */{}", nar.len())));
    assert_eq!(ask("GET", "If-Range: \"x\"\r\nRange: bytes=0-1\r\n").status, 200);
    assert_eq!(ask("GET", &format!("If-Range: {etag}\r\nRange: bytes=0-1\r\n")).status, 206);

    let post = ask("POST", "Content-Length: 0\r\n");
    assert_eq!((post.status, post.header("allow").as_deref()), (405, Some("GET, HEAD")));
}

#[test]
fn both_url_layouts_with_each_compression() {
    let store = PlainStore::new();
    let (signer, _) = key("k-1");
    let item = store.add("item?=+x", &[], tree);
    let server = Server::start(config(&store, &signer));
    let nar = store.nar(&item);
    let name = item.base_name().replace('?', "%3F");
    assert_eq!(server.get(&format!("/nar/{name}")).body, nar);
    assert_eq!(server.get(&format!("/nar/none/{name}")).body, nar);
    let mut plain = Vec::new();
    let gzip = server.get(&format!("/nar/gzip/{name}"));
    flate2::read::GzDecoder::new(&gzip.body[..]).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, nar);
    let zstd = server.get(&format!("/nar/zstd/{name}"));
    assert_eq!(zstd::decode_all(&zstd.body[..]).unwrap(), nar);
}

#[test]
fn what_is_packed_while_it_is_sent_can_be_gone_on_with() {
    let store = PlainStore::new();
    let (signer, _) = key("k-1");
    let item = store.add("item", &[], |file| fs::write(file, pattern(3_000_000)).unwrap());
    let server = Server::start(config(&store, &signer));
    let ask = |method: &str, headers: &str| {
        let url = format!("/nar/zstd/{}", item.base_name());
        server.request(&format!("{method} {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"))
    };
    let whole = ask("GET", "");
    assert_eq!(zstd::decode_all(&whole.body[..]).unwrap(), store.nar(&item));
    let etag = whole.header("etag").unwrap();
    assert_eq!(whole.header("accept-ranges"), None, "a stock client could not do it");
    assert_eq!(ask("GET", &format!("If-None-Match: {etag}\r\n")).status, 304);
    let head = ask("HEAD", "");
    assert_eq!((head.status, head.header("etag"), head.body.len()), (200, Some(etag.clone()), 0));

    // A range to the end, which is not known, is told with a last byte that is far away (RFC 8673).
    let rest = |first: usize, tag: &str| {
        ask("GET", &format!("If-Range: {tag}\r\nRange: bytes={first}-9007199254740991\r\n"))
    };
    for first in [1, 131_072, 1_000_001, whole.body.len() - 1, whole.body.len()] {
        let part = rest(first, &etag);
        assert_eq!((part.status, part.body == whole.body[first..]), (206, true), "{first}");
        assert_eq!(part.header("content-range"), Some(format!("bytes {first}-9007199254740991/*")));
    }
    // Who does not say what it has, has something else, or asks for a part, gets the whole.
    assert_eq!(rest(7, "\"other\"").body, whole.body);
    assert_eq!(ask("GET", "Range: bytes=7-9007199254740991\r\n").body, whole.body);
    for range in ["7-", "7-9", "-9"] {
        let answer = ask("GET", &format!("If-Range: {etag}\r\nRange: bytes={range}\r\n"));
        assert_eq!((answer.status, answer.body.len()), (200, whole.body.len()), "{range}");
    }
}

/// As `guix publish` answered, recorded.
#[test]
fn files_are_found_by_their_content() {
    let store = PlainStore::guix();
    let hash = Sha256::digest(b"fixed content\n");
    let path = StorePath::of_fixed_output(&StoreDirectory::guix(), "fixed.txt", false, &hash.into()).unwrap();
    fs::write(store.file(&path), "fixed content\n").unwrap();
    store.register(&path, &[]);
    let mut config = PublishConfig::new(StoreDirectory::guix());
    config.store = Some(store.source());
    let server = Server::start(config);
    for digits in [hash.to_base32(), hash.to_base16()] {
        let answer = server.get(&format!("/file/fixed.txt/sha256/{digits}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "fixed content\n"));
        assert_eq!(answer.header("content-length").as_deref(), Some("14"));
    }
    let base32 = hash.to_base32();
    for other in [
        format!("/file/other.txt/sha256/{base32}"),
        format!("/file/fixed.txt/sha1/{base32}"),
        format!("/file/fixed.txt/sha256/{}", &base32[1..]),
        format!("/file/..%2ffixed.txt/sha256/{base32}"),
        "/file/fixed.txt".to_owned(),
    ] {
        assert_eq!(server.get(&other).status, 404, "{other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_built_are_found_by_their_content() {
    let store = PlainStore::guix();
    let content = pattern(1_000_000);
    let hash = Sha256::digest(&content);
    let path = StorePath::of_fixed_output(&StoreDirectory::guix(), "fixed", false, &hash.into()).unwrap();
    fs::write(store.file(&path), &content).unwrap();
    store.register(&path, &[]);
    // What has the place of a file and is none.
    let other = Sha256::digest(b"other");
    let directory_item =
        StorePath::of_fixed_output(&StoreDirectory::guix(), "tree", false, &other.into()).unwrap();
    tree(&store.file(&directory_item));
    store.register(&directory_item, &[]);
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), &StoreDirectory::guix()).unwrap();
    let signer = Signer::guix("vm", guix::SecretKey::generate().unwrap());
    for item in [&path, &directory_item] {
        let pending = cache.pack(&store.info(item), store.root()).await.unwrap();
        cache.commit(vec![pending], &signer).await.unwrap();
    }
    let mut config = PublishConfig::new(StoreDirectory::guix());
    config.cache = Some(cache);
    let server = Server::start(config);
    let place = format!("/file/fixed/sha256/{}", hash.to_base32());
    let ask = |method: &str, headers: &str| {
        server.request(&format!("{method} {place} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"))
    };
    let whole = ask("GET", "");
    assert_eq!((whole.status, whole.header("content-length").as_deref()), (200, Some("1000000")));
    assert!(whole.body == content);
    let rest = ask("GET", "Range: bytes=999990-\r\n");
    assert_eq!((rest.status, &rest.body[..]), (206, &content[999_990..]));
    let head = ask("HEAD", "");
    assert_eq!((head.status, head.header("content-length").as_deref()), (200, Some("1000000")));
    let tag = whole.header("etag").unwrap();
    assert_eq!(ask("GET", &format!("If-None-Match: {tag}\r\n")).status, 304);
    for absent in [
        format!("/file/tree/sha256/{}", other.to_base32()),
        format!("/file/fixed2/sha256/{}", hash.to_base32()),
    ] {
        assert_eq!(server.get(&absent).status, 404, "{absent}");
    }
}

#[test]
fn what_is_not_here_is_not_remembered_either() {
    let store = PlainStore::new();
    let (signer, _) = key("k-1");
    fs::write(store.root().join("nix/store/secret"), "x").unwrap();
    fs::write(store.root().join("secret"), "x").unwrap();
    let cache_directory = tempfile::tempdir().unwrap();
    let mut config = config(&store, &signer);
    config.cache = Some(Cache::open(cache_directory.path(), &StoreDirectory::nix()).unwrap());
    std::os::unix::fs::symlink("/etc/passwd", cache_directory.path().join("nar/link.nar")).unwrap();
    fs::create_dir(cache_directory.path().join("nar/directory.nar")).unwrap();
    let server = Server::start(config);
    for path in [
        "/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0.narinfo",
        "/nar/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-item",
        "/nar/zstd/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-item",
        "/nar/1impfw8zdgisxkghq9a3q7cn7jb9zyzgxdydiamp8z2nlyyl0h5h.nar.zst",
        "/nar/../nix-cache-info",
        "/nar/..%2fnix-cache-info",
        "/nar/%2e%2e/%2e%2e/etc/passwd",
        "/nar/.",
        "/nar/..",
        "/nar/",
        "/nar/link.nar",
        "/nar/directory.nar",
        "/../../etc/passwd",
        "//etc/passwd",
        "/nix-cache-info/",
        "/log/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-item.drv",
        "/secret",
        "/short.narinfo",
    ] {
        let answer = server.get(path);
        assert_eq!(answer.status, 404, "{path}: {}", answer.head);
        assert_eq!(answer.header("cache-control").as_deref(), Some("max-age=0"), "{path}");
    }
}

#[test]
fn a_cached_nar_is_sent_as_a_file() {
    let store = PlainStore::new();
    let (signer, trusted) = key("cache-1");
    let item = store.add("item", &[], tree);
    let nar = store.nar(&item);
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), &StoreDirectory::nix()).unwrap();
    let mut store_config = config(&store, &signer);
    let narinfo = narinfo_of(&Server::start(store_config.clone()), &item);

    let mut file = cache.begin().unwrap();
    file.write_all(&zstd::encode_all(&nar[..], 3).unwrap()).unwrap();
    let pending = Pending::new(file.finish(Compression::Zstd), narinfo.clone());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let committed = runtime.block_on(cache.commit(vec![pending], &signer)).unwrap();
    assert!(committed[0].inserted);

    store_config.cache = Some(cache);
    let server = Server::start(store_config);
    let cached = narinfo_of(&server, &item);
    assert!(trusted.vouch_for(&cached));
    assert_eq!(cached, committed[0].narinfo);
    let answer = server.get(&format!("/{}", cached.urls[0].url));
    assert_eq!(answer.header("content-length"), cached.urls[0].file_size.map(|size| size.to_string()));
    assert_eq!(zstd::decode_all(&answer.body[..]).unwrap(), nar);
    let part = server.request(&format!(
        "GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: bytes=5-9\r\n\r\n",
        cached.urls[0].url
    ));
    assert_eq!((part.status, &part.body[..]), (206, &answer.body[5..10]));

    // The store loses it: the address its narinfo had is still good, out of the cache.
    store.forget(&item);
    fs::remove_dir_all(store.file(&item)).unwrap();
    assert_eq!(server.get(&format!("/{}", narinfo.urls[0].url)).body, nar);
    assert_eq!(server.get(&format!("/nar/{}", item.base_name())).body, nar);
    assert_eq!(server.get(&format!("/nar/zstd/{}", item.base_name())).body, answer.body);
}

#[test]
fn json_listings_and_metrics() {
    let store = PlainStore::new();
    let (signer, _) = key("k-1");
    let leaf = store.add("leaf", &[], |file| fs::write(file, "x").unwrap());
    let item = store.add("item", &[&leaf], tree);
    let server = Server::start(config(&store, &signer));
    let narinfo = narinfo_of(&server, &item);

    let json = server.request(&format!(
        "GET /{}.narinfo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: text/html, application/json;q=1\r\n\r\n",
        item.hash_part()
    ));
    assert_eq!(json.header("content-type").as_deref(), Some("application/json"));
    let json: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!(json["path"], item.to_string());
    assert_eq!(json["narHash"], narinfo.nar_hash.to_sri());
    assert_eq!(json["references"], serde_json::json!([leaf.to_string()]));
    assert_eq!(json["url"], narinfo.urls[0].url);
    assert_eq!(json["signatures"], serde_json::json!([narinfo.signatures[0].to_string()]));

    let listing = server.get(&format!("/{}.ls", item.hash_part()));
    let listing: serde_json::Value = serde_json::from_slice(&listing.body).unwrap();
    assert_eq!(listing["version"], 1);
    let entries = &listing["root"]["entries"];
    assert_eq!(entries["link"], serde_json::json!({ "type": "symlink", "target": "/etc/passwd" }));
    assert_eq!(entries["bin"]["entries"]["run"]["executable"], true);
    assert_eq!(entries["bin"]["entries"]["empty"]["entries"], serde_json::json!({}));
    // Each offset is where the contents are in the nar.
    let nar = store.nar(&item);
    for name in ["bytes", "eight888", "Upper"] {
        let at = usize::try_from(entries[name]["narOffset"].as_u64().unwrap()).unwrap();
        let contents = fs::read(store.file(&item).join(name)).unwrap();
        assert_eq!(entries[name]["size"], contents.len());
        assert!(nar[at..].starts_with(&contents), "{name}");
    }
    assert_eq!(server.get("/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0.ls").status, 404);

    // The connections before are counted as closed a moment after their client saw the end.
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut metrics = server.get("/metrics").text();
    while !metrics.contains("\nhauberk_publish_connections 1\n") && Instant::now() < deadline {
        metrics = server.get("/metrics").text();
    }
    for line in [
        "hauberk_publish_requests_total{kind=\"narinfo\",outcome=\"ok\"} 2",
        "hauberk_publish_requests_total{kind=\"other\",outcome=\"not_found\"} 1",
        "hauberk_publish_connections 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
}

/// Real narinfos of `guix publish` come out byte for byte, with its key and what its store knew.
#[test]
fn narinfos_are_those_guix_publish_gives() {
    let vectors = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/guix-vectors");
    let read = |name: &str| fs::read(vectors.join("keys").join(name)).unwrap();
    let key = guix::SecretKey::parse_pair(&read("signing-key.pub"), &read("signing-key.sec")).unwrap();
    let mut seen = 0;
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let store = PlainStore::guix();
        let mut config = PublishConfig::new(StoreDirectory::guix());
        config.signer = Signer::guix("vm", key.clone());
        config.store = Some(store.source());
        config.compression = compression.clone();
        let server = Server::start(config);
        for entry in fs::read_dir(vectors.join("narinfo")).unwrap() {
            let file = entry.unwrap().path();
            let name = file.file_name().unwrap().to_str().unwrap();
            if !name.starts_with(&format!("{compression}-")) {
                continue;
            }
            let recorded = fs::read_to_string(&file).unwrap();
            let narinfo = NarInfo::parse(&StoreDirectory::guix(), &recorded).unwrap();
            store.know(&narinfo);
            let answer = server.get(&format!("/{}.narinfo", narinfo.store_path.hash_part()));
            assert_eq!(answer.text(), recorded, "{name}");
            seen += 1;
        }
        assert_eq!(server.get("/signing-key.pub").body, read("signing-key.pub"));
        assert!(server.get("/nix-cache-info").text().starts_with("StoreDir: /gnu/store\n"));
    }
    assert_eq!(seen, 36);
}

/// What the client of GNU Guix sent, recorded, is answered one by one and in its order.
#[test]
fn the_recorded_guix_client_is_answered() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data/guix-vectors/substitute-client");
    for name in ["narinfo-requests.bin", "nar-requests.bin"] {
        let requests = fs::read(directory.join(name)).unwrap();
        let store = PlainStore::new();
        let mut config = PublishConfig::new(StoreDirectory::guix());
        config.store = Some(store.source());
        let server = Server::start(config);
        let mut stream = server.connect();
        stream.write_all(&requests).unwrap();
        let expected = String::from_utf8_lossy(&requests).matches("GET /").count();
        assert!(expected > 0);
        let mut answers = Vec::new();
        let mut buffer = [0; 4096];
        while String::from_utf8_lossy(&answers).matches("HTTP/1.1 ").count() < expected {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "{name}: {}", String::from_utf8_lossy(&answers));
            answers.extend_from_slice(&buffer[..count]);
        }
    }
}

struct OneLog(tempfile::NamedTempFile, AtomicBool);

#[async_trait]
impl LogSource for OneLog {
    async fn open(&self, item: &StorePath) -> std::io::Result<Option<LogBody>> {
        let log = LogBody { path: self.0.path().to_owned(), complete: self.1.load(Ordering::Relaxed) };
        Ok((item.name() == "item.drv").then_some(log))
    }

    async fn attempt(&self, attempt: u64) -> std::io::Result<Option<LogBody>> {
        let log = LogBody { path: self.0.path().to_owned(), complete: self.1.load(Ordering::Relaxed) };
        Ok((attempt == 7).then_some(log))
    }
}

#[test]
fn a_log_is_followed_by_what_is_new_of_it() {
    let store = PlainStore::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    let log = Arc::new(OneLog(file, AtomicBool::new(false)));
    let mut config = config(&store, &Signer::default());
    config.logs = Some(Arc::clone(&log) as _);
    let server = Server::start(config);
    let ask = |attempt: u64, headers: &str| {
        server.request(&format!(
            "GET /log/attempt/{attempt} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: gzip\r\n{headers}\r\n"
        ))
    };
    let mut followed = Vec::new();
    let mut follow = |expected: Option<&str>| {
        let answer = ask(7, &format!("Range: bytes={}-\r\n", followed.len()));
        assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
        match expected {
            None => assert_eq!(answer.status, 416),
            Some(range) => {
                assert_eq!((answer.status, answer.header("content-range").as_deref()), (206, Some(range)));
                assert_eq!(answer.header("content-encoding").as_deref(), Some("gzip"));
                assert_eq!(answer.header("x-content-type-options").as_deref(), Some("nosniff"));
                followed.extend_from_slice(&answer.body);
            }
        }
    };
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    follow(None);
    encoder.write_all(b"first\n").unwrap();
    encoder.flush().unwrap();
    let first = encoder.get_ref().len();
    log.0.as_file().write_all(encoder.get_ref()).unwrap();
    follow(Some(&format!("bytes 0-{}/*", first - 1)));
    follow(None);
    encoder.write_all(b"second\n").unwrap();
    let whole = encoder.finish().unwrap();
    log.0.as_file().write_all(&whole[first..]).unwrap();
    // It is sealed in between.
    log.1.store(true, Ordering::Relaxed);
    follow(Some(&format!("bytes {first}-{}/{}", whole.len() - 1, whole.len())));
    follow(None);
    assert_eq!(followed, whole);
    // Who names no range, or has a validator, which there are none of, gets all of it.
    for headers in ["", "Range: bytes=5-\r\nIf-Range: \"x\"\r\n"] {
        let answer = ask(7, headers);
        assert_eq!((answer.status, &answer.body[..]), (200, &whole[..]));
    }
    let plain = server
        .request("GET /log/attempt/7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: bytes=3-\r\n\r\n");
    assert_eq!((plain.status, &plain.body[..]), (200, &b"first\nsecond\n"[..]));
    assert_eq!(ask(8, "Range: bytes=0-\r\n").status, 404);
}

#[test]
fn logs_are_shown_while_they_grow() {
    const TEXT: &[u8] = b"<script>building</script>\n";
    let store = PlainStore::new();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(TEXT).unwrap();
    encoder.flush().unwrap();
    let flushed = encoder.get_ref().len();
    let whole = encoder.finish().unwrap();
    file.write_all(&whole[..flushed]).unwrap();
    let log = Arc::new(OneLog(file, AtomicBool::new(false)));
    let mut config = config(&store, &Signer::default());
    config.logs = Some(Arc::clone(&log) as _);
    let server = Server::start(config);
    let ask = |headers: &str| {
        server.request(&format!(
            "GET /log/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-item.drv HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"
        ))
    };
    let check = |complete: bool| {
        for plain in ["", "Accept-Encoding: br, gzip;q=0\r\n"] {
            let answer = ask(plain);
            assert_eq!((answer.status, &answer.body[..]), (200, TEXT));
            assert_eq!(answer.header("content-encoding"), None);
            assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
            assert_eq!(answer.header("x-content-type-options").as_deref(), Some("nosniff"));
        }
        let answer = ask("Accept-Encoding: deflate, gzip\r\n");
        assert_eq!(answer.header("content-encoding").as_deref(), Some("gzip"));
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut text).unwrap();
        assert_eq!(text, TEXT, "it has an end, though the file has none");
        assert_eq!(answer.body == whole, complete, "a file with its end is sent as it is");
    };
    check(false);
    log.0.as_file().write_all(&whole[flushed..]).unwrap();
    log.1.store(true, Ordering::Relaxed);
    check(true);
    assert_eq!(server.get("/log/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-other.drv").status, 404);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let store = PlainStore::new();
    let (signer, _) = key("k-1");
    let items: Vec<StorePath> = (0..200)
        .map(|number| store.add(&format!("item-{number}"), &[], |file| fs::write(file, "x").unwrap()))
        .collect();
    let server = Server::start(config(&store, &signer));
    let mut stream = server.connect();
    let requests: String = items
        .iter()
        .map(|item| {
            format!("GET /{}.narinfo HTTP/1.1\r\nHost: x\r\nUser-Agent: GNU Guile\r\n\r\n", item.hash_part())
        })
        .chain(["GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned()])
        .collect();
    stream.write_all(requests.as_bytes()).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let paths: Vec<&str> = answers.lines().filter_map(|line| line.strip_prefix("StorePath: ")).collect();
    assert_eq!(paths, items.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert!(answers.ends_with("ok\n"));
}

#[test]
fn a_head_that_never_ends_is_not_waited_for() {
    let store = PlainStore::new();
    let mut config = config(&store, &Signer::default());
    config.limits = Limits { header_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = Server::start(config);
    let (mut half, mut huge, mut idle) = (server.connect(), server.connect(), server.connect());
    half.write_all(b"GET /health HTTP/1.1\r\nX: ").unwrap();
    // Refused as soon as it is too large; the rest may already meet a closed connection.
    let _ = huge.write_all(&vec![b'x'; 1 << 20]);
    let started = Instant::now();
    for stream in [&mut half, &mut huge, &mut idle] {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_client_that_takes_nothing_is_left() {
    let store = PlainStore::new();
    let item = store.add("large", &[], |file| fs::write(file, vec![7; 64 << 20]).unwrap());
    let mut config = config(&store, &Signer::default());
    config.limits = Limits { stall_timeout: Duration::from_millis(300), connections: 4, ..Limits::default() };
    let server = Server::start(config);
    // More of them than there are places: others are served only because the first are left.
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = server.connect();
            let request = format!("GET /nar/{} HTTP/1.1\r\nHost: x\r\n\r\n", item.base_name());
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert_eq!(server.get("/health").status, 200);
    let mut all = Vec::new();
    let ended = (&slow[0]).read_to_end(&mut all);
    assert!(ended.is_err() || all.len() < 64 << 20, "a stalled answer must not look whole");
}

#[test]
fn idle_connections_keep_nobody_out() {
    let store = PlainStore::new();
    let item = store.add("large", &[], |file| fs::write(file, vec![7; 32 << 20]).unwrap());
    let mut config = config(&store, &Signer::default());
    config.limits =
        Limits { crowded_timeout: Duration::from_millis(300), connections: 8, ..Limits::default() };
    let server = Server::start(config);
    // One that is used, if slowly, and then a crowd: silent, with half a request, and with one behind it.
    let mut used = server.connect();
    used.write_all(format!("GET /nar/{} HTTP/1.1\r\nHost: x\r\n\r\n", item.base_name()).as_bytes()).unwrap();
    let _crowd: Vec<_> = (0..24)
        .map(|number| {
            let mut stream = server.connect();
            let start = ["", "GET /health HT", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"][number % 3];
            stream.write_all(start.as_bytes()).unwrap();
            stream
        })
        .collect();
    let mut received = 0;
    let mut read_on = |used: &mut std::net::TcpStream| {
        let mut buffer = vec![0; 64 * 1024];
        let count = used.read(&mut buffer).unwrap();
        assert!(count > 0, "a connection in use was closed after {received} bytes");
        received += count;
    };
    let answered = std::thread::scope(|scope| {
        let asking = scope.spawn(|| server.get("/health").status);
        while !asking.is_finished() {
            read_on(&mut used);
            std::thread::sleep(Duration::from_millis(20));
        }
        asking.join().unwrap()
    });
    assert_eq!(answered, 200);
}

#[test]
fn the_end_waits_for_answers_in_hand() {
    let store = PlainStore::new();
    let item = store.add("large", &[], |file| fs::write(file, vec![7; 32 << 20]).unwrap());
    let mut server = Server::start(config(&store, &Signer::default()));
    let mut stream = server.connect();
    let mut idle = server.connect();
    stream
        .write_all(format!("GET /nar/{} HTTP/1.1\r\nHost: x\r\n\r\n", item.base_name()).as_bytes())
        .unwrap();
    let mut first = [0; 15];
    stream.read_exact(&mut first).unwrap();
    server.stop.cancel();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(first.len() + rest.len() - Answer::head_length(&first, &rest), store.nar(&item).len());
    idle.read_to_end(&mut rest).unwrap();
    let running = server.running.take().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(running.join()).unwrap();
    assert!(std::net::TcpStream::connect(server.address).is_err());
}

struct Answer;

impl Answer {
    fn head_length(first: &[u8], rest: &[u8]) -> usize {
        let all = [first, &rest[..1024]].concat();
        all.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4
    }
}
