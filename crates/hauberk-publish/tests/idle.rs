//! Thousands of idle connections; alone in its process, for it looks at the whole of it.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use hauberk_publish::PublishConfig;
use hauberk_store::StoreDirectory;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{PlainStore, Server};

/// As many as there may be; both ends of each are in this process.
const WANTED: u64 = 10_000;

fn anonymous_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn idle_connections_cost_little_and_keep_nobody_waiting() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Both ends are in this process; who may not raise the limit does with fewer.
    let needed = 2 * WANTED + 1_000;
    let most = if setrlimit(Resource::RLIMIT_NOFILE, needed, needed).is_ok() { needed } else { most };
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let count = WANTED.min(most.saturating_sub(200) / 2);
    let store = PlainStore::new();
    let item = store.add("item", &[], |file| fs::write(file, "x").unwrap());
    let mut config = PublishConfig::new(StoreDirectory::nix());
    config.store = Some(store.source());
    config.limits.connections = 20_000;
    config.limits.header_timeout = Duration::from_secs(300);
    let server = Server::start(config);
    let request = format!("GET /{}.narinfo HTTP/1.1\r\nHost: x\r\n\r\n", item.hash_part());
    let ask = |stream: &mut TcpStream| {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200 "));
    };
    ask(&mut server.connect());
    let before = anonymous_kib();
    let mut idle: Vec<TcpStream> = (0..count).map(|_| server.connect()).collect();
    // Each was of use once.
    idle.iter_mut().for_each(ask);
    let used = anonymous_kib().saturating_sub(before);
    println!("{used} KiB for {count} idle connections, {} bytes each", used * 1024 / count);
    assert!(used < 64 * 1024, "{used} KiB");
    // All are there still, and newcomers are served.
    idle.iter_mut().step_by(97).for_each(ask);
    assert_eq!(server.get("/health").status, 200);
}
