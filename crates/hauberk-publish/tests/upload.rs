//! Results that are uploaded: whole, in pieces, gone on with, and by those who mean harm.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};

use hauberk_publish::{
    Cache, Inbox, PublishConfig, Signer, TrustedKeys,
    cache::Pending,
    client::{ClientConfig, ClosureLimits, FetchError, UploadError, UploadTarget, Uploader},
    inbox::Reception,
};
use hauberk_store::{NarInfo, StoreDirectory, StorePath, signature::guix};
use support::{Answer, NothingValid, PlainStore, Server, key, pattern, tree};
use tempfile::TempDir;

/// A server with a cache and an inbox, a worker's store, and the worker's key.
struct Farm {
    server: Server,
    cache: Cache,
    inbox: Inbox,
    directory: TempDir,
    store: PlainStore,
    signer: Signer,
    trusted: TrustedKeys,
}

impl Farm {
    fn new() -> Self {
        let (signer, trusted) = key("worker-1");
        Self::of(PlainStore::new(), &StoreDirectory::nix(), signer, trusted)
    }

    fn of(store: PlainStore, store_directory: &StoreDirectory, signer: Signer, trusted: TrustedKeys) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), store_directory).unwrap();
        let inbox = Inbox::open(&directory.path().join("inbox"), store_directory).unwrap();
        let server = Server::start(serving(&inbox, store_directory));
        Self { server, cache, inbox, directory, store, signer, trusted }
    }

    fn receive(&self, number: u64) -> Reception {
        self.inbox.receive(number, self.trusted.clone()).unwrap()
    }

    fn target(&self, reception: &Reception) -> UploadTarget {
        UploadTarget {
            base: self.server.url(),
            place: reception.place(),
            token: reception.token().to_owned(),
        }
    }

    fn uploader(&self) -> Uploader {
        let directory = self.store.source();
        Uploader::new(
            self.cache.store_directory().clone(),
            directory,
            self.signer.clone(),
            ClientConfig::farm(),
        )
        .unwrap()
    }

    /// Takes one path while `upload` goes on.
    async fn take(&self, reception: &Reception, path: &StorePath) -> Result<Pending, FetchError> {
        let narinfo = reception.narinfo(path).await?.expect("it is to be had");
        reception.fetch(&narinfo, &self.trusted, &self.cache).await
    }

    /// Gives a path of `size` bytes.
    fn add(&self, name: &str, size: usize) -> StorePath {
        self.store.add(name, &[], |file| std::fs::write(file, pattern(size)).unwrap())
    }

    fn narinfo(&self, path: &StorePath) -> NarInfo {
        self.signed(path, &self.signer)
    }

    fn signed(&self, path: &StorePath, signer: &Signer) -> NarInfo {
        let info = self.store.info(path);
        let text = format!(
            "StorePath: {path}\nURL: nar/x\nCompression: none\nNarHash: sha256:{}\nNarSize: {}\nReferences: \n",
            info.nar_hash.to_base32(),
            info.nar_size
        );
        let mut narinfo = NarInfo::parse(self.cache.store_directory(), &text).unwrap();
        signer.sign(&mut narinfo);
        narinfo
    }

    fn put(&self, reception: &Reception, file: &str, at: usize, last: bool, bytes: &[u8]) -> Answer {
        self.put_with(reception.token(), &reception.place(), file, at, last, bytes)
    }

    fn put_with(&self, token: &str, place: &str, file: &str, at: usize, last: bool, bytes: &[u8]) -> Answer {
        let head = format!(
            "PATCH /{place}/{file} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Upload-Offset: {at}\r\nUpload-Complete: {}\r\nContent-Length: {}\r\n\r\n",
            if last { "?1" } else { "?0" },
            bytes.len()
        );
        let mut stream = self.server.connect();
        // Whoever is refused may not be listened to any more.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(bytes));
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        Answer::parse(&answer)
    }

    fn offset(&self, reception: &Reception, file: &str) -> Answer {
        self.server.request(&format!(
            "HEAD /{}/{file} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            reception.place(),
            reception.token()
        ))
    }

    async fn commit(&self, pending: Vec<Pending>) {
        let (signer, _) = key("farm-1");
        self.cache.commit(pending, &signer).await.unwrap();
    }

    /// Says that nothing reached the cache.
    fn expect_nothing(&self) {
        let narinfos = std::fs::read_dir(self.directory.path()).unwrap();
        let narinfos = narinfos
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".narinfo"));
        assert_eq!(narinfos.count(), 0);
        assert_eq!(std::fs::read_dir(self.directory.path().join("nar")).unwrap().count(), 0);
    }
}

fn serving(inbox: &Inbox, store_directory: &StoreDirectory) -> PublishConfig {
    let mut config = PublishConfig::new(store_directory.clone());
    config.inbox = Some(inbox.clone());
    config
}

fn nar_of(path: &StorePath) -> String {
    format!("{}.nar", path.hash())
}

fn narinfo_of(path: &StorePath) -> String {
    format!("{}.narinfo", path.hash())
}

async fn a_closure_is_uploaded(farm: Farm) {
    let base = farm.store.add("base", &[], tree);
    let top = farm.store.add("top", &[&base], |file| std::fs::write(file, pattern(3_000_000)).unwrap());
    let reception = farm.receive(7);
    let (uploader, target) = (farm.uploader(), farm.target(&reception));
    let mut changes = reception.changes();
    let asked = async {
        // As the server does: all that is asked for, again whenever that is more.
        loop {
            let paths: Vec<_> = reception.asked().into_iter().collect();
            uploader.upload(&target, &paths).await.unwrap();
            while reception.asked().len() == paths.len() {
                changes.changed().await.unwrap();
            }
        }
    };
    let taken = async {
        let limits = ClosureLimits::default();
        let closure = reception.closure([top.clone()], &mut NothingValid, limits).await.unwrap();
        assert!(closure.is_complete());
        let mut pending = Vec::new();
        for missing in &closure.missing {
            pending.push(reception.fetch(&missing.narinfo, &farm.trusted, &farm.cache).await.unwrap());
        }
        pending
    };
    let pending = tokio::select! {
        pending = taken => pending,
        () = asked => unreachable!("it goes on for ever"),
    };
    assert_eq!(pending.len(), 2);
    farm.commit(pending).await;
    for path in [&base, &top] {
        let narinfo = farm.cache.narinfo(&path.hash()).unwrap().unwrap();
        assert_eq!(narinfo.nar_hash, farm.store.info(path).nar_hash);
        assert!(narinfo.urls[0].url.ends_with(".zst"), "{:?}", narinfo.urls);
    }
    drop(reception);
    farm.inbox.discard(7).unwrap();
    assert_eq!(std::fs::read_dir(farm.directory.path().join("inbox")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_asked_for_arrives_with_all_it_refers_to() {
    a_closure_is_uploaded(Farm::new()).await;
}

#[tokio::test]
async fn guix_workers_upload_as_well() {
    let key = guix::SecretKey::generate().unwrap();
    let trusted = TrustedKeys::guix([key.public_key().clone()].into_iter().collect());
    let store = PlainStore::guix();
    a_closure_is_uploaded(Farm::of(store, &StoreDirectory::guix(), Signer::guix("worker", key), trusted))
        .await;
}

#[tokio::test]
async fn a_path_that_is_gone_is_told() {
    let farm = Farm::new();
    let path = farm.add("gone", 10);
    farm.store.forget(&path);
    let reception = farm.receive(1);
    let (uploader, target) = (farm.uploader(), farm.target(&reception));
    let told = async { reception.narinfo(&path).await.unwrap() };
    let (told, uploaded) = tokio::join!(told, uploader.upload(&target, std::slice::from_ref(&path)));
    uploaded.unwrap();
    assert_eq!(told, None);
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_cut_and_after_another_start() {
    let farm = Farm::new();
    let path = farm.add("large", 5_000_000);
    let reception = farm.receive(3);
    let (uploader, mut target) = (farm.uploader(), farm.target(&reception));
    let taking = farm.take(&reception, &path);
    // The worker hangs up after some of it.
    let some = async {
        let nar = nar_of(&path);
        tokio::select! {
            uploaded = uploader.upload(&target, std::slice::from_ref(&path)) => uploaded.unwrap(),
            () = async {
                let mut changes = reception.changes();
                while farm.offset(&reception, &nar).header("upload-offset").is_none_or(|at| at == "0") {
                    changes.changed().await.unwrap();
                }
            } => {}
        }
    };
    tokio::select! {
        _ = taking => panic!("it cannot be whole yet"),
        () = some => {}
    }
    let here: u64 = farm.offset(&reception, &nar_of(&path)).header("upload-offset").unwrap().parse().unwrap();
    assert!((1..5_000_000).contains(&here), "{here}");
    drop(reception);

    // Another process of the server: nothing of it is in memory.
    let inbox = Inbox::open(&farm.directory.path().join("inbox"), &StoreDirectory::nix()).unwrap();
    let server = Server::start(serving(&inbox, &StoreDirectory::nix()));
    target.base = server.url();
    let late = uploader.upload(&target, std::slice::from_ref(&path)).await.unwrap_err();
    assert!(matches!(late, UploadError::Refused { status: 403, .. }), "{late:?}");
    let farm = Farm { inbox, server, ..farm };
    let reception = farm.receive(3);
    let target = farm.target(&reception);
    let (pending, uploaded) =
        tokio::join!(farm.take(&reception, &path), uploader.upload(&target, std::slice::from_ref(&path)));
    uploaded.unwrap();
    farm.commit(vec![pending.unwrap()]).await;
    assert!(farm.cache.contains(&path.hash()));
}

#[tokio::test]
async fn what_does_not_join_begins_anew() {
    let farm = Farm::new();
    let path = farm.add("item", 2_000_000);
    let narinfo = farm.narinfo(&path).to_string();
    let reception = farm.receive(3);
    // What a worker of another version had packed, or a disk has lost.
    {
        let asked = async { reception.narinfo(&path).await };
        let put = async { farm.put(&reception, &narinfo_of(&path), 0, true, narinfo.as_bytes()) };
        let (asked, _) = tokio::join!(asked, put);
        asked.unwrap();
    }
    assert_eq!(farm.put(&reception, &nar_of(&path), 0, false, &[0; 1000]).status, 204);
    drop(reception);
    let reception = farm.receive(3);
    let (uploader, target) = (farm.uploader(), farm.target(&reception));
    let (taken, uploaded) =
        tokio::join!(farm.take(&reception, &path), uploader.upload(&target, std::slice::from_ref(&path)));
    let error = taken.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    drop(uploaded);
    drop(reception);
    let reception = farm.receive(3);
    let target = farm.target(&reception);
    let (taken, uploaded) =
        tokio::join!(farm.take(&reception, &path), uploader.upload(&target, std::slice::from_ref(&path)));
    uploaded.unwrap();
    taken.unwrap();
}

/// Begins to take a path, and gives what came of it when `put` is done.
async fn hostile(farm: &Farm, path: &StorePath, put: impl FnOnce(&Reception) + Send) -> FetchError {
    let reception = Arc::new(farm.receive(9).with_patience(Duration::from_secs(3)));
    let waiting = Arc::clone(&reception);
    let take = farm.take(&waiting, path);
    let put = async {
        // Only what is asked for is taken.
        let mut changes = reception.changes();
        while reception.asked().is_empty() {
            changes.changed().await.unwrap();
        }
        put(&reception);
    };
    let (taken, ()) = tokio::join!(take, put);
    let error = taken.unwrap_err();
    farm.expect_nothing();
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_wrong_gets_in() {
    let farm = Farm::new();
    let path = farm.add("item", 200_000);
    let other = farm.add("other", 1000);
    let (foreign, _) = key("worker-2");
    let nar = farm.store.nar(&path);
    let (file, info) = (nar_of(&path), narinfo_of(&path));
    let narinfo = farm.narinfo(&path).to_string();

    // A narinfo of another path, of another key, and none.
    for wrong in [
        farm.narinfo(&other).to_string(),
        farm.signed(&path, &foreign).to_string(),
        farm.signed(&path, &Signer::default()).to_string(),
        narinfo.replace("NarSize: ", "NarSize: 1"),
        "nonsense".to_owned(),
        "x".repeat(100_000),
    ] {
        let error = hostile(&farm, &path, |reception| {
            assert_eq!(farm.put(reception, &info, 0, true, wrong.as_bytes()).status, 422);
            assert_eq!(farm.put(reception, &info, 0, true, narinfo.as_bytes()).status, 422);
        });
        let error = error.await;
        assert!(matches!(error, FetchError::Uploaded { .. }) && !error.is_transient(), "{error:?}");
    }

    // Flipped bits, at both ends and in between.
    for at in [0, 9, 100, 1000, 150_000, nar.len() - 1] {
        let mut flipped = nar.clone();
        flipped[at] ^= 0x10;
        let error = hostile(&farm, &path, |reception| {
            assert_eq!(farm.put(reception, &info, 0, true, narinfo.as_bytes()).status, 204);
            let status = farm.put(reception, &file, 0, true, &flipped).status;
            assert!(matches!(status, 204 | 422), "{status}");
        });
        let error = error.await;
        assert!(!error.is_transient(), "{at}: {error:?}");
    }

    // One that ends early, and says so.
    let error = hostile(&farm, &path, |reception| {
        farm.put(reception, &info, 0, true, narinfo.as_bytes());
        assert_eq!(farm.put(reception, &file, 0, true, &nar[..nar.len() - 8]).status, 204);
    });
    let error = error.await;
    assert!(matches!(error, FetchError::Uploaded { .. }), "{error:?}");

    // One that ends early, and does not.
    let error = hostile(&farm, &path, |reception| {
        farm.put(reception, &info, 0, true, narinfo.as_bytes());
        assert_eq!(farm.put(reception, &file, 0, false, &nar[..100_000]).status, 204);
    });
    assert!(matches!(error.await, FetchError::Stalled { received: 100_000, .. }));
    farm.inbox.discard(9).unwrap();

    // One that does not end.
    let error = hostile(&farm, &path, |reception| {
        farm.put(reception, &info, 0, true, narinfo.as_bytes());
        assert_eq!(farm.put(reception, &file, 0, false, &nar).status, 204);
        let status = farm.put(reception, &file, nar.len(), false, b"x").status;
        assert!(matches!(status, 413 | 422), "{status}");
        assert_eq!(farm.put(reception, &file, nar.len() + 1, false, b"x").status, 422);
    });
    let error = error.await;
    assert!(matches!(error, FetchError::Uploaded { .. }), "{error:?}");

    // In spite of all that.
    let reception = farm.receive(9);
    let target = farm.target(&reception);
    let uploader = farm.uploader();
    let (taken, uploaded) =
        tokio::join!(farm.take(&reception, &path), uploader.upload(&target, std::slice::from_ref(&path)));
    uploaded.unwrap();
    taken.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_puts_what_was_not_asked_for() {
    let farm = Farm::new();
    let path = farm.add("item", 1000);
    let other = farm.add("other", 1000);
    let narinfo = farm.narinfo(&path).to_string();
    let info = narinfo_of(&path);
    let (reception, elsewhere) = (farm.receive(1), farm.receive(2));
    let waiting = async { tokio::time::timeout(Duration::from_millis(100), reception.narinfo(&path)).await };
    waiting.await.unwrap_err();

    // No token, a wrong one, one of another attempt, and no attempt.
    let put =
        |token: &str, place: &str| farm.put_with(token, place, &info, 0, true, narinfo.as_bytes()).status;
    for token in ["", "x", elsewhere.token(), &reception.token()[1..]] {
        assert_eq!(put(token, "upload/1"), 403, "{token}");
    }
    assert_eq!(put(reception.token(), "upload/2"), 403);
    assert_eq!(put(reception.token(), "upload/3"), 403);
    let bare = format!("PATCH /upload/1/{info} HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(farm.server.request(&bare).status, 403);
    let look = format!("HEAD /upload/1/{info} HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_eq!(farm.server.request(&look).status, 403);
    // It cannot be read back.
    assert_eq!(farm.server.get(&format!("/upload/1/{info}")).status, 405);

    // A path that nobody asked for; a nar before its narinfo.
    assert_eq!(farm.put(&reception, &narinfo_of(&other), 0, true, narinfo.as_bytes()).status, 404);
    assert_eq!(farm.put(&reception, &nar_of(&path), 0, false, b"x").status, 409);
    // Not at its beginning, not whole, too large, of no told length.
    assert_eq!(farm.put(&reception, &info, 5, true, narinfo.as_bytes()).status, 409);
    assert_eq!(farm.put(&reception, &info, 0, false, narinfo.as_bytes()).status, 409);
    let large = vec![b'x'; hauberk_store::narinfo::MAX_SIZE + 1];
    assert_eq!(farm.put(&reception, &info, 0, true, &large).status, 413);
    for (fields, status) in [
        ("Transfer-Encoding: chunked", 411),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 411),
        ("Content-Length: 5\r\nContent-Length: 6", 411),
        ("Content-Length: +5", 411),
        ("Content-Length: 99999999999999999999", 411),
        ("Content-Length: 5\r\nUpload-Offset: -1", 400),
        ("Content-Length: 5\r\nUpload-Complete: yes", 400),
    ] {
        let request = format!(
            "PATCH /upload/1/{info} HTTP/1.1\r\nConnection: close\r\nAuthorization: Bearer {}\r\n{fields}\r\n\r\n",
            reception.token()
        );
        assert_eq!(farm.server.request(&request).status, status, "{fields}");
    }
    assert_eq!(farm.put(&reception, &info, 0, true, narinfo.as_bytes()).status, 204);
    assert!(reception.narinfo(&path).await.unwrap().is_some());
    farm.expect_nothing();

    // Two requests on a connection, the content of the first between them.
    let nar = farm.store.nar(&path);
    let token = reception.token();
    let mut both = format!(
        "PATCH /upload/1/{file} HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        nar.len(),
        file = nar_of(&path)
    )
    .into_bytes();
    both.extend_from_slice(&nar);
    both.extend_from_slice(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n");
    let mut stream = farm.server.connect();
    stream.write_all(&both).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert!(answers.starts_with("HTTP/1.1 204") && answers.ends_with("ok\n"), "{answers}");
}
