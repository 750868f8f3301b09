//! The client against our server, and against servers that lie.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hauberk_publish::{
    BaseUrl, Cache, PublishConfig, Signer, SubstituteClient, TrustedKeys,
    client::{ClientConfig, FetchError},
};
use hauberk_store::{NarInfo, Sha256, StoreDirectory, narinfo::Compression, signature::guix};
use support::{PlainStore, Server, key, pattern, raw_server, respond, respond_not_found, tree};
use tokio::io::AsyncReadExt;

fn client_with(patience: Duration) -> SubstituteClient {
    let config =
        ClientConfig { stall_timeout: patience, narinfo_timeout: patience * 2, ..ClientConfig::farm() };
    SubstituteClient::new(StoreDirectory::nix(), config).unwrap()
}

fn client() -> SubstituteClient {
    client_with(Duration::from_secs(60))
}

/// A client that takes a server for silent soon, which a busy machine can make of an honest one.
fn hasty() -> SubstituteClient {
    client_with(Duration::from_secs(2))
}

fn serve(store: &PlainStore, signer: &Signer) -> Server {
    let mut config = PublishConfig::new(StoreDirectory::nix());
    config.signer = signer.clone();
    config.store = Some(store.source());
    Server::start(config)
}

fn cache() -> (tempfile::TempDir, Cache) {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), &StoreDirectory::nix()).unwrap();
    (directory, cache)
}

/// Counts the files of a cache that are not its description.
fn files(directory: &Path) -> usize {
    let count = |directory: &Path| -> usize {
        fs::read_dir(directory).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file()).count()
    };
    let scratch = fs::read_dir(directory.join("tmp")).unwrap().map(|entry| count(&entry.unwrap().path()));
    count(directory) - 1 + count(&directory.join("nar")) + scratch.sum::<usize>()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_one_server_to_the_next() {
    let store = PlainStore::new();
    let (worker, worker_trusted) = key("worker-1");
    let (farm, farm_trusted) = key("farm-1");
    let item = store.add("item", &[], tree);
    let first = serve(&store, &worker);
    let client = client();
    let (directory, cache) = cache();

    assert!(
        client
            .narinfo(&first.url(), &"x73mwwgn48z7flxzwmsfk9d0fnjcbcj0".parse().unwrap())
            .await
            .unwrap()
            .is_none()
    );
    let narinfo = client.trusted_narinfo(&first.url(), &item, &worker_trusted).await.unwrap().unwrap();
    assert!(matches!(
        client.trusted_narinfo(&first.url(), &item, &farm_trusted).await,
        Err(FetchError::BadSignature { .. })
    ));

    // As a reader, and into the cache, where it is packed.
    let mut nar = Vec::new();
    client.nar(&first.url(), &narinfo).await.unwrap().read_to_end(&mut nar).await.unwrap();
    assert_eq!(nar, store.nar(&item));
    let pending = client.fetch(&first.url(), &narinfo, &worker_trusted, &cache).await.unwrap();
    assert!(!cache.contains(&item.hash()), "nothing is visible before the commit");
    let committed = cache.commit(vec![pending], &farm).await.unwrap();
    assert!(committed[0].inserted);
    assert_eq!(committed[0].narinfo.urls[0].compression, Compression::Zstd);
    assert!(farm_trusted.vouch_for(&committed[0].narinfo));

    // From that cache on to another, where the bytes stay as they are.
    let mut config = PublishConfig::new(StoreDirectory::nix());
    config.cache = Some(cache.clone());
    let second = Server::start(config);
    let narinfo = client.trusted_narinfo(&second.url(), &item, &farm_trusted).await.unwrap().unwrap();
    let mut nar = Vec::new();
    client.nar(&second.url(), &narinfo).await.unwrap().read_to_end(&mut nar).await.unwrap();
    assert_eq!(nar, store.nar(&item));
    let (_other_directory, other) = self::cache();
    let pending = client.fetch(&second.url(), &narinfo, &farm_trusted, &other).await.unwrap();
    assert_eq!(pending.narinfo().urls, narinfo.urls);
    other.commit(vec![pending], &farm).await.unwrap();
    assert_eq!(other.narinfo(&item.hash()).unwrap().unwrap().urls, narinfo.urls);

    // A second result for the same path changes nothing.
    let pending = client.fetch(&second.url(), &narinfo, &farm_trusted, &cache).await.unwrap();
    assert!(!cache.commit(vec![pending], &worker).await.unwrap()[0].inserted);
    assert_eq!(files(directory.path()), 2);
}

/// Sends a part of `nar` with what a client needs to ask for the rest of it.
fn send_part(stream: &mut TcpStream, nar: &[u8], first: usize, end: usize) {
    let (length, total, last) = (nar.len() - first, nar.len(), nar.len() - 1);
    let head = match first {
        0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n"),
        _ => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\nContent-Range: bytes {first}-{last}/{total}\r\n"
        ),
    };
    let head = format!("{head}ETag: \"x\"\r\nAccept-Ranges: bytes\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&nar[first..end]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nar_that_is_cut_is_gone_on_with() {
    let store = PlainStore::new();
    let (worker, trusted) = key("worker-1");
    let item = store.add("item", &[], tree);
    let nar = store.nar(&item);
    let (client, (directory, cache)) = (client(), cache());
    let narinfo = client.narinfo(&serve(&store, &worker).url(), &item.hash()).await.unwrap().unwrap();
    // Cut twice, the second time at once, and refused once in between.
    let cuts = [(0, 100_000), (100_000, 100_000), (0, 0), (100_000, nar.len())];
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, sent) = (Arc::clone(&asked), nar.clone());
    let server = raw_server(move |_, stream| match cuts.get(count.fetch_add(1, Ordering::SeqCst)) {
        Some((0, 0)) | None => respond_not_found(stream),
        Some((first, end)) => send_part(stream, &sent, *first, *end),
    });
    let pending = client.fetch(&server, &narinfo, &trusted, &cache).await.unwrap();
    assert_eq!((asked.load(Ordering::SeqCst), pending.narinfo().nar_size), (4, nar.len() as u64));
    drop(pending);

    // What comes instead of the rest must be the rest.
    let sent = nar.clone();
    let server = raw_server(move |_, stream| send_part(stream, &sent, 0, 100_000));
    let error = client.fetch(&server, &narinfo, &trusted, &cache).await.unwrap_err();
    assert!(matches!(error, FetchError::Truncated { received: 100_000, .. }), "{error:?}");
    assert_eq!(files(directory.path()), 0);
}

/// Reads a request's head.
fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Passes one connection on to `server`, `count` bytes of its answer at most.
fn pass_on(server: SocketAddr, client: &mut TcpStream, request: &str, count: u64) -> u64 {
    let mut upstream = TcpStream::connect(server).unwrap();
    upstream.write_all(request.as_bytes()).unwrap();
    upstream.shutdown(Shutdown::Write).unwrap();
    std::io::copy(&mut upstream.take(count), client).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nar_that_is_packed_while_it_is_sent_is_gone_on_with() {
    let store = PlainStore::new();
    let (worker, trusted) = key("worker-1");
    let item = store.add("item", &[], |file| fs::write(file, pattern(20_000_000)).unwrap());
    let mut config = PublishConfig::new(StoreDirectory::nix());
    config.signer = worker.clone();
    config.store = Some(store.source());
    config.compression = Compression::Zstd;
    let server = Server::start(config);
    let (client, (_directory, cache)) = (client(), cache());
    let narinfo = client.trusted_narinfo(&server.url(), &item, &trusted).await.unwrap().unwrap();
    // Cut after some bytes, twice; then the rest.
    let cuts = [3_000_000, 5_000_000, u64::MAX];
    let (address, asked) = (server.address, Arc::new(std::sync::Mutex::new(Vec::new())));
    let noted = Arc::clone(&asked);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let between = BaseUrl::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    std::thread::spawn(move || {
        for (stream, cut) in listener.incoming().zip(cuts) {
            let mut stream = stream.unwrap();
            let head = read_head(&mut stream);
            let passed = pass_on(address, &mut stream, &head, cut);
            noted.lock().unwrap().push((head, passed));
        }
    });
    let pending = client.fetch(&between, &narinfo, &trusted, &cache).await.unwrap();
    {
        let asked = asked.lock().unwrap();
        assert!(asked.len() >= 2, "{asked:?}");
        assert!(asked[1].0.contains("-9007199254740991\r\n"), "{asked:?}");
    }
    // What was put together of three parts is what comes at once.
    let whole = client.fetch(&server.url(), &narinfo, &trusted, &cache).await.unwrap();
    assert_eq!(pending.narinfo().urls, whole.narinfo().urls);
    let committed = cache.commit(vec![pending], &worker).await.unwrap();
    assert!(committed[0].inserted);
}

#[tokio::test(flavor = "multi_thread")]
async fn guix_keys_count_too() {
    let store = PlainStore::guix();
    let item = store.add("item", &[], tree);
    let secret = guix::SecretKey::generate().unwrap();
    let mut acl = guix::Acl::default();
    let nobody = TrustedKeys::guix(acl.clone());
    acl.authorize(secret.public_key());
    let (trusted, signer) = (TrustedKeys::guix(acl), Signer::guix("host", secret));
    let client = SubstituteClient::new(StoreDirectory::guix(), ClientConfig::farm()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), &StoreDirectory::guix()).unwrap();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let mut config = PublishConfig::new(StoreDirectory::guix());
        config.signer = signer.clone();
        config.store = Some(store.source());
        config.compression = compression;
        let server = Server::start(config);
        let refused = client.trusted_narinfo(&server.url(), &item, &nobody).await;
        assert!(matches!(refused, Err(FetchError::BadSignature { .. })));
        let narinfo = client.trusted_narinfo(&server.url(), &item, &trusted).await.unwrap().unwrap();
        let pending = client.fetch(&server.url(), &narinfo, &trusted, &cache).await.unwrap();
        let committed = cache.commit(vec![pending], &signer).await.unwrap();
        assert!(trusted.vouch_for(&committed[0].narinfo));
        let mut nar = Vec::new();
        client.nar(&server.url(), &narinfo).await.unwrap().read_to_end(&mut nar).await.unwrap();
        assert_eq!(nar, store.nar(&item));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_there_can_be_told() {
    let store = PlainStore::new();
    let (signer, trusted) = key("worker-1");
    let (_, other) = key("worker-1");
    let secret = guix::SecretKey::generate().unwrap();
    let mut acl = guix::Acl::default();
    acl.authorize(secret.public_key());
    let client = client();
    let nix = serve(&store, &signer);
    assert!(client.proves_identity(&nix.url(), &trusted).await.unwrap());
    assert!(!client.proves_identity(&nix.url(), &other).await.unwrap());
    let guix = serve(&store, &Signer::guix("host", secret));
    assert!(client.proves_identity(&guix.url(), &TrustedKeys::guix(acl)).await.unwrap());
    assert!(!client.proves_identity(&guix.url(), &trusted).await.unwrap());
    // An old proof proves nothing.
    let old = nix.get(&format!("/identity/{}", "0".repeat(32))).text();
    assert!(old.starts_with("worker-1:"));
    let replay = raw_server(move |_, stream| respond(stream, old.as_bytes()));
    assert!(!client.proves_identity(&replay, &trusted).await.unwrap());
    assert!(
        !client.proves_identity(&raw_server(|_, stream| respond_not_found(stream)), &trusted).await.unwrap()
    );
}

/// A server of one item whose narinfo and nar are what `lie` makes of the true ones.
struct Liar {
    url: BaseUrl,
    narinfo: NarInfo,
    trusted: TrustedKeys,
}

fn liar(
    lie: impl FnOnce(&mut NarInfo, &mut Vec<u8>, &Signer),
    send: impl Fn(&mut TcpStream, &[u8]) + Send + Sync + 'static,
) -> Liar {
    let store = PlainStore::new();
    let (signer, trusted) = key("liar-1");
    let item = store.add("item", &[], tree);
    let mut nar = store.nar(&item);
    let text = format!(
        "StorePath: {item}\nURL: nar/x.nar\nCompression: none\nNarHash: {}\nNarSize: {}\nReferences: \n",
        Sha256::digest(&nar),
        nar.len()
    );
    let mut narinfo = NarInfo::parse(&StoreDirectory::nix(), &text).unwrap();
    signer.sign(&mut narinfo);
    lie(&mut narinfo, &mut nar, &signer);
    let text = narinfo.to_string();
    let url = raw_server(move |path, stream| match path.ends_with(".narinfo") {
        true => respond(stream, text.as_bytes()),
        false => send(stream, &nar),
    });
    Liar { url, narinfo, trusted }
}

/// Fetches from a liar in both ways and checks what comes of it; nothing may reach the cache.
async fn caught(liar: Liar, expected: impl Fn(&FetchError) -> bool) {
    caught_by(client(), liar, expected).await;
}

async fn caught_by(client: SubstituteClient, liar: Liar, expected: impl Fn(&FetchError) -> bool) {
    let (directory, cache) = cache();
    match client.fetch(&liar.url, &liar.narinfo, &liar.trusted, &cache).await {
        Ok(_) => panic!("the cache took it"),
        Err(error) => assert!(expected(&error), "{error:?}"),
    }
    assert_eq!(files(directory.path()), 0);
    if liar.trusted.vouch_for(&liar.narinfo) {
        let read = async {
            let mut bytes = Vec::new();
            let mut nar = client.nar(&liar.url, &liar.narinfo).await?;
            match nar.read_to_end(&mut bytes).await {
                Ok(_) => panic!("the reader took it"),
                Err(error) => {
                    assert!(
                        (bytes.len() as u64) < liar.narinfo.nar_size,
                        "the last bytes were given before the check"
                    );
                    Err::<(), _>(error.downcast::<FetchError>().expect("a typed error"))
                }
            }
        };
        let error = read.await.unwrap_err();
        assert!(expected(&error), "{error:?}");
    }
}

fn packed(narinfo: &mut NarInfo, nar: &mut Vec<u8>, compression: Compression) {
    *nar = match compression {
        Compression::Zstd => zstd::encode_all(&nar[..], 1).unwrap(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(nar).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Xz => {
            let mut encoder =
                lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
            encoder.write_all(nar).unwrap();
            encoder.finish().unwrap()
        }
        _ => nar.clone(),
    };
    let place = &mut narinfo.urls[0];
    place.compression = compression;
    place.file_size = Some(nar.len() as u64);
    place.file_hash = Some(Sha256::digest(nar).into());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_bit_is_found() {
    for compression in [Compression::None, Compression::Zstd, Compression::Gzip, Compression::Xz] {
        // Spread over the whole file: framing, contents, padding, trailer.
        for part in 0..12_usize {
            let compression = compression.clone();
            let lie = move |narinfo: &mut NarInfo, nar: &mut Vec<u8>, _: &Signer| {
                packed(narinfo, nar, compression);
                let at = (nar.len() - 1) * part / 11;
                nar[at] ^= 1 << (part % 8);
            };
            caught(liar(lie, respond), |error| {
                matches!(
                    error,
                    FetchError::HashMismatch { .. }
                        | FetchError::FileHashMismatch { .. }
                        | FetchError::NotANar { .. }
                        | FetchError::Corrupt { .. }
                        | FetchError::SizeMismatch { .. }
                        | FetchError::Truncated { .. }
                )
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_true_item_passes_with_each_compression() {
    for compression in [Compression::None, Compression::Zstd, Compression::Gzip, Compression::Xz] {
        let found = compression.clone();
        let honest = liar(|narinfo, nar, _| packed(narinfo, nar, compression), respond);
        let (_directory, cache) = cache();
        let pending = client().fetch(&honest.url, &honest.narinfo, &honest.trusted, &cache).await.unwrap();
        let expected = if found == Compression::None { Compression::Zstd } else { found };
        assert_eq!(pending.narinfo().urls[0].compression, expected);
        assert_eq!(pending.narinfo().nar_hash, honest.narinfo.nar_hash);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_count() {
    let is_bad_signature = |error: &FetchError| matches!(error, FetchError::BadSignature { .. });
    caught(liar(|narinfo, _, _| narinfo.signatures.clear(), respond), is_bad_signature).await;
    caught(liar(|narinfo, _, _| narinfo.nar_size += 8, respond), is_bad_signature).await;
    caught(liar(|narinfo, _, _| narinfo.nar_hash = Sha256::digest(b""), respond), is_bad_signature).await;
    let other = |narinfo: &mut NarInfo, _: &mut Vec<u8>, _: &Signer| {
        narinfo.signatures.clear();
        key("liar-1").0.sign(narinfo);
    };
    caught(liar(other, respond), is_bad_signature).await;
    // A true signature on a claim that the bytes do not keep.
    let longer = |narinfo: &mut NarInfo, _: &mut Vec<u8>, signer: &Signer| {
        narinfo.nar_size += 8;
        signer.sign(narinfo);
    };
    caught(liar(longer, respond), |error| matches!(error, FetchError::SizeMismatch { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_endless_and_stalling_nars() {
    let nothing = |_: &mut NarInfo, _: &mut Vec<u8>, _: &Signer| {};
    let cut = |stream: &mut TcpStream, nar: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", nar.len());
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&nar[..nar.len() / 2]));
    };
    caught(liar(nothing, cut), |error| matches!(error, FetchError::Truncated { .. }) && error.is_transient())
        .await;
    let short = |stream: &mut TcpStream, nar: &[u8]| respond(stream, &nar[..nar.len() - 8]);
    caught(liar(nothing, short), |error| matches!(error, FetchError::Truncated { .. })).await;
    let endless = |stream: &mut TcpStream, nar: &[u8]| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").and_then(|()| stream.write_all(nar));
        while stream.write_all(&[0; 65536]).is_ok() {}
    };
    caught(liar(nothing, endless), |error| matches!(error, FetchError::SizeMismatch { .. })).await;
    let stalling = |stream: &mut TcpStream, nar: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", nar.len());
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&nar[..100]));
        let _ = stream.read(&mut [0]);
    };
    caught_by(hasty(), liar(nothing, stalling), |error| {
        matches!(error, FetchError::Stalled { .. }) && error.is_transient()
    })
    .await;
    let silent = |stream: &mut TcpStream, _: &[u8]| {
        let _ = stream.read(&mut [0]);
    };
    caught_by(hasty(), liar(nothing, silent), |error| matches!(error, FetchError::Late { .. })).await;
    let missing = |stream: &mut TcpStream, _: &[u8]| respond_not_found(stream);
    caught(liar(nothing, missing), |error| {
        matches!(error, FetchError::Refused { status: 404, .. }) && !error.is_transient()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_not_unpacked() {
    // Megabytes of zeros in a few hundred bytes, and frames that unpack to nothing for ever.
    for compression in [Compression::Zstd, Compression::Gzip, Compression::Xz] {
        let lie = move |narinfo: &mut NarInfo, nar: &mut Vec<u8>, _: &Signer| {
            *nar = vec![0; 8 << 20];
            packed(narinfo, nar, compression);
        };
        caught(liar(lie, respond), |error| {
            matches!(error, FetchError::SizeMismatch { .. } | FetchError::NotANar { .. })
        })
        .await;
    }
    let lie = |narinfo: &mut NarInfo, _: &mut Vec<u8>, _: &Signer| {
        narinfo.urls[0].compression = Compression::Zstd;
    };
    let empty_frames = |stream: &mut TcpStream, _: &[u8]| {
        let frames = zstd::encode_all(&b""[..], 1).unwrap().repeat(4096);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&frames).is_ok() {}
    };
    caught(liar(lie, empty_frames), |error| matches!(error, FetchError::SizeMismatch { .. })).await;
    let unknown = |narinfo: &mut NarInfo, _: &mut Vec<u8>, _: &Signer| {
        narinfo.urls[0].compression = Compression::parse("bzip2");
    };
    let liar = liar(unknown, respond);
    let (_directory, cache) = cache();
    let fetched = client().fetch(&liar.url, &liar.narinfo, &liar.trusted, &cache).await;
    assert!(matches!(fetched, Err(FetchError::Unsupported { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_places_are_not_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let victim = raw_server(move |_, stream| {
        counter.fetch_add(1, Ordering::Relaxed);
        respond(stream, b"");
    });
    for place in [format!("{victim}/x.nar"), format!("//{}/x", &victim.to_string()[7..]), "../x.nar".into()] {
        let liar = liar(|narinfo, _, _| narinfo.urls[0].url = place, respond);
        let fetched = client().nar(&liar.url, &liar.narinfo).await;
        assert!(matches!(fetched, Err(FetchError::ForeignUrl { .. })));
    }
    let redirect = format!("HTTP/1.1 302 Found\r\nLocation: {victim}/\r\nContent-Length: 0\r\n\r\n");
    let redirecting = liar(
        |_, _, _| {},
        move |stream, _| {
            let _ = stream.write_all(redirect.as_bytes());
        },
    );
    let fetched = client().nar(&redirecting.url, &redirecting.narinfo).await;
    assert!(matches!(fetched, Err(FetchError::Refused { status: 302, .. })));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_narinfos() {
    let hash = "x73mwwgn48z7flxzwmsfk9d0fnjcbcj0".parse().unwrap();
    let check_by = async |client: SubstituteClient, url: BaseUrl, expected: fn(&FetchError) -> bool| {
        let error = client.narinfo(&url, &hash).await.unwrap_err();
        assert!(expected(&error), "{error:?}");
    };
    let check = async |url, expected| check_by(client(), url, expected).await;
    let huge = raw_server(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 65536]).is_ok() {}
    });
    check(huge, |error| matches!(error, FetchError::NarInfoTooLarge { .. })).await;
    let slow = raw_server(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nStorePath: ");
        let _ = stream.read(&mut [0]);
    });
    check_by(hasty(), slow, |error| matches!(error, FetchError::Late { .. }) && error.is_transient()).await;
    check(raw_server(|_, stream| respond(stream, b"\xff\xfe")), |error| {
        matches!(error, FetchError::NarInfo { .. })
    })
    .await;
    let other = liar(|_, _, _| {}, |_, _| {});
    check(other.url, |error| matches!(error, FetchError::OtherPath { .. })).await;
    let gone = raw_server(|_, _| {});
    check(gone, |error| matches!(error, FetchError::Unreachable { .. }) && error.is_transient()).await;
    let busy = raw_server(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    });
    check(busy, |error| matches!(error, FetchError::Refused { status: 503, .. }) && error.is_transient())
        .await;
}
