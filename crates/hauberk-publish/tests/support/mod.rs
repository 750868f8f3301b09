//! What several tests need: a store of plain files, a server of it, and raw HTTP.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use hauberk_daemon::PathInfo;
use hauberk_publish::{
    BaseUrl, PublishConfig, PublishServer, Signer, StoreSource, TrustedKeys,
    client::{AskError, ValidPaths},
    server::{PathInfos, Running},
    stream::NarReader,
};
use hauberk_store::{
    NarHash, NarInfo, Sha256, StoreDirectory, StorePath, StorePathHash, signature::nix::SecretKey,
};
use tokio_util::sync::CancellationToken;

/// A store directory below a temporary root, and what a daemon would say of it.
#[derive(Clone)]
pub(crate) struct PlainStore {
    root: Arc<tempfile::TempDir>,
    directory: StoreDirectory,
    infos: Arc<Mutex<HashMap<StorePathHash, PathInfo>>>,
    asked: Arc<Mutex<usize>>,
}

impl PlainStore {
    pub(crate) fn new() -> Self {
        Self::of(StoreDirectory::nix())
    }

    pub(crate) fn guix() -> Self {
        Self::of(StoreDirectory::guix())
    }

    fn of(directory: StoreDirectory) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(&directory.as_str()[1..])).unwrap();
        Self { root: Arc::new(root), directory, infos: Arc::default(), asked: Arc::default() }
    }

    /// Makes the daemon believe what a narinfo says, of an empty file.
    pub(crate) fn know(&self, narinfo: &NarInfo) {
        fs::write(self.file(&narinfo.store_path), "").unwrap();
        let info = PathInfo {
            path: narinfo.store_path.clone(),
            deriver: narinfo.deriver.clone(),
            nar_hash: narinfo.nar_hash,
            references: narinfo.references.clone(),
            registration_time: 1,
            nar_size: narinfo.nar_size,
            ultimate: false,
            signatures: BTreeSet::new(),
            content_address: None,
        };
        self.infos.lock().unwrap().insert(narinfo.store_path.hash(), info);
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// How often the daemon was asked.
    pub(crate) fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }

    /// Makes an item by `make`, which gets the path of the file to be made.
    pub(crate) fn add(&self, name: &str, references: &[&StorePath], make: impl FnOnce(&Path)) -> StorePath {
        let path = path_in(&self.directory, name);
        make(&self.file(&path));
        self.register(&path, references);
        path
    }

    /// Makes the daemon believe in what is there now.
    pub(crate) fn register(&self, path: &StorePath, references: &[&StorePath]) {
        let nar = self.nar(path);
        let info = PathInfo {
            path: path.clone(),
            deriver: None,
            nar_hash: NarHash::digest(&nar),
            references: references.iter().map(|&path| path.clone()).collect::<BTreeSet<_>>(),
            registration_time: 1,
            nar_size: nar.len() as u64,
            ultimate: true,
            signatures: BTreeSet::new(),
            content_address: None,
        };
        self.infos.lock().unwrap().insert(path.hash(), info);
    }

    /// Gives what the daemon would say.
    pub(crate) fn info(&self, path: &StorePath) -> PathInfo {
        self.infos.lock().unwrap()[&path.hash()].clone()
    }

    pub(crate) fn forget(&self, path: &StorePath) {
        self.infos.lock().unwrap().remove(&path.hash());
    }

    pub(crate) fn file(&self, path: &StorePath) -> PathBuf {
        self.root.path().join(&path.to_string()[1..])
    }

    pub(crate) fn nar(&self, path: &StorePath) -> Vec<u8> {
        let mut nar = Vec::new();
        NarReader::open(&self.file(path)).unwrap().read_to_end(&mut nar).unwrap();
        nar
    }

    pub(crate) fn source(&self) -> StoreSource {
        StoreSource::new(self.clone(), self.root())
    }
}

#[async_trait]
impl PathInfos for PlainStore {
    async fn find(
        &self,
        hash: &StorePathHash,
    ) -> Result<Option<PathInfo>, Box<dyn std::error::Error + Send + Sync>> {
        *self.asked.lock().unwrap() += 1;
        Ok(self.infos.lock().unwrap().get(hash).cloned())
    }
}

/// Gives the path that has this name in all tests.
pub(crate) fn path_in(directory: &StoreDirectory, name: &str) -> StorePath {
    let digest = Sha256::digest(name.as_bytes());
    let digest = digest.as_bytes()[..20].try_into().unwrap();
    StorePath::from_digest(directory, digest, name).unwrap()
}

/// A store that has nothing.
pub(crate) struct NothingValid;

#[async_trait]
impl ValidPaths for NothingValid {
    async fn valid(&mut self, _: BTreeSet<StorePath>) -> Result<BTreeSet<StorePath>, AskError> {
        Ok(BTreeSet::new())
    }
}

/// Makes a tree with one of everything.
pub(crate) fn tree(at: &Path) {
    fs::create_dir_all(at.join("bin/empty")).unwrap();
    fs::write(at.join("bin/run"), b"#!/bin/sh\n").unwrap();
    fs::set_permissions(at.join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at.join("Upper"), b"").unwrap();
    fs::write(at.join("eight888"), b"12345678").unwrap();
    fs::write(at.join("bytes"), pattern(300_001)).unwrap();
    symlink("/etc/passwd", at.join("link")).unwrap();
    symlink("bin", at.join("directory")).unwrap();
}

/// Makes bytes that do not compress to nothing and repeat only after a while.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state & 0x3f) as u8 + b' '
    };
    (0..length).map(|_| next()).collect()
}

/// A server that ends with the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) running: Option<Running>,
}

impl Server {
    pub(crate) fn start(config: PublishConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let running = PublishServer::new(listener, config).spawn_on_own_runtime(2, stop.clone()).unwrap();
        Self { address, stop, running: Some(running) }
    }

    pub(crate) fn url(&self) -> BaseUrl {
        BaseUrl::parse(&format!("http://{}", self.address)).unwrap()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends one request and gives the answer's head and body.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    pub(crate) fn request(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::parse(&bytes)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = &bytes[end + 4..];
        let mut answer = Self { status, head, body: body.to_vec() };
        // An answer to HEAD has none.
        if !body.is_empty() && answer.header("transfer-encoding").as_deref() == Some("chunked") {
            answer.body = unchunk(body);
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let mut found = lines.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim().to_owned())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 2 + size + 2..];
    }
}

/// A key and the parties that sign with it and believe it.
pub(crate) fn key(name: &str) -> (Signer, TrustedKeys) {
    let key = SecretKey::generate(name).unwrap();
    let trusted = TrustedKeys::nix([key.public_key()]);
    (Signer::nix([key]), trusted)
}

/// Answers each connection to a port with what `answer` makes of the request's path, as raw bytes.
pub(crate) fn raw_server(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> BaseUrl {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = BaseUrl::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), Arc::clone(&answer));
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                if let Some(path) = head.split(' ').nth(1) {
                    answer(path, &mut stream);
                }
            });
        }
    });
    url
}

/// Writes a whole answer with status 200.
pub(crate) fn respond(stream: &mut TcpStream, body: &[u8]) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// Writes a 404.
pub(crate) fn respond_not_found(stream: &mut TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}
