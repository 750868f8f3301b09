//! Clients that ask one thing after another, alone and beside others.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use hauberk_publish::{Cache, PublishConfig};
use hauberk_store::StoreDirectory;
use support::Server;

/// More requests than a conversation takes to begin.
const MANY: usize = 100;

/// Longer than a conversation waits for the client.
const PAUSE: Duration = Duration::from_millis(20);

/// A cache with one narinfo and one nar.
struct Served {
    server: Server,
    name: String,
    narinfo: String,
    nar: Vec<u8>,
    _directory: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = StoreDirectory::nix();
        let mut config = PublishConfig::new(store.clone());
        config.cache = Some(Cache::open(directory.path(), &store).unwrap());
        let (name, narinfo, nar) = ("0".repeat(32), "x".repeat(441), support::pattern(700_000));
        fs::write(directory.path().join(format!("{name}.narinfo")), &narinfo).unwrap();
        fs::write(directory.path().join("nar/one.nar"), &nar).unwrap();
        Self { server: Server::start(config), name, narinfo, nar, _directory: directory }
    }

    fn client(&self) -> Client {
        Client { stream: BufReader::new(self.server.connect()) }
    }

    fn request(&self) -> String {
        request("GET", &format!("/{}.narinfo", self.name))
    }

    /// Has a client ask until it is the only one that does.
    fn talk(&self, client: &mut Client) {
        for _ in 0..MANY {
            client.send(&self.request());
            assert_eq!(client.answer(true), (200, self.narinfo.clone().into_bytes()));
        }
    }
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn send(&mut self, bytes: &str) {
        self.stream.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    /// Reads one answer, to a HEAD without its content.
    fn answer(&mut self, content: bool) -> (u16, Vec<u8>) {
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "the server has closed the connection");
            if let Some(line) = line.strip_prefix("HTTP/1.1 ") {
                status = line[..3].parse().unwrap();
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            } else if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; if content { length } else { 0 }];
        self.stream.read_exact(&mut body).unwrap();
        (status, body)
    }
}

#[test]
fn whatever_comes_in_a_conversation_is_answered() {
    let served = Served::start();
    let mut client = served.client();
    let narinfo = (200, served.narinfo.clone().into_bytes());
    served.talk(&mut client);
    client.send(&request("GET", "/nar/one.nar"));
    assert_eq!(client.answer(true), (200, served.nar.clone()));
    served.talk(&mut client);
    client.send(&request("HEAD", &format!("/{}.narinfo", served.name)));
    assert_eq!(client.answer(false), (200, Vec::new()));
    client.send(&request("GET", &format!("/{}.narinfo", "1".repeat(32))));
    assert_eq!(client.answer(true).0, 404);
    served.talk(&mut client);
    client.send(&request("POST", "/x"));
    assert_eq!(client.answer(true).0, 405);
    served.talk(&mut client);
    // Several at once, the last in two parts with a pause between.
    let three = served.request().repeat(3);
    let (most, rest) = three.split_at(three.len() - 10);
    client.send(most);
    assert_eq!(client.answer(true), narinfo);
    assert_eq!(client.answer(true), narinfo);
    thread::sleep(PAUSE);
    client.send(rest);
    assert_eq!(client.answer(true), narinfo);
    served.talk(&mut client);
    thread::sleep(PAUSE);
    served.talk(&mut client);
    client.send("nonsense\r\n\r\n");
    assert_eq!(client.answer(true).0, 400);
}

#[test]
fn the_last_request_of_a_conversation_ends_the_connection() {
    let served = Served::start();
    let mut client = served.client();
    served.talk(&mut client);
    client.send(&format!("GET /{}.narinfo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", served.name));
    assert_eq!(client.answer(true).1, served.narinfo.as_bytes());
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn others_are_answered_during_a_conversation() {
    let served = Served::start();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = served.client();
                for _ in 0..10 {
                    served.talk(&mut client);
                }
            });
        }
    });
    // One that talks, and one that comes now and then.
    let (mut one, mut other) = (served.client(), served.client());
    for _ in 0..10 {
        served.talk(&mut one);
        other.send(&served.request());
        assert_eq!(other.answer(true).1, served.narinfo.as_bytes());
    }
}

#[test]
fn a_conversation_ends_with_the_server() {
    let mut served = Served::start();
    let mut client = served.client();
    served.talk(&mut client);
    served.server.stop.cancel();
    let running = served.server.running.take().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(running.join()).unwrap();
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
}
