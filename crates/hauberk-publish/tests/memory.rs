//! Memory of a server whose clients are slow; alone in its process, for it looks at the whole of it.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
};

use hauberk_publish::PublishConfig;
use hauberk_store::StoreDirectory;
use support::{PlainStore, Server};

const READERS: usize = 64;
const SIZE: u64 = 300 << 20;

fn anonymous_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn slow_readers_cost_two_buffers_each() {
    let store = PlainStore::new();
    let item = store.add("large", &[], |file| File::create(file).unwrap().set_len(SIZE).unwrap());
    let mut config = PublishConfig::new(StoreDirectory::nix());
    config.store = Some(store.source());
    let server = Server::start(config);
    let before = anonymous_mib();
    let read_some = |stream: &mut TcpStream, length: usize| {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).unwrap();
    };
    let mut readers: Vec<TcpStream> = (0..READERS)
        .map(|_| {
            let mut stream = server.connect();
            let request = format!("GET /nar/{} HTTP/1.1\r\nHost: x\r\n\r\n", item.base_name());
            stream.write_all(request.as_bytes()).unwrap();
            read_some(&mut stream, 4096);
            stream
        })
        .collect();
    // All are under way now; each takes a little more, while the server is ahead of all of them.
    for _ in 0..4 {
        readers.iter_mut().for_each(|stream| read_some(stream, 64 * 1024));
    }
    let used = anonymous_mib() - before;
    println!("{used} MiB for {READERS} slow readers of {} MiB", SIZE >> 20);
    assert!(used <= 64, "{used} MiB");
}
