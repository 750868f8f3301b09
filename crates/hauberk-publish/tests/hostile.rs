//! Clients that do what no good client does.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use hauberk_publish::{PublishConfig, server::Limits};
use hauberk_store::{StoreDirectory, StorePath};
use support::{Answer, PlainStore, Server, pattern, tree};

fn serve(limits: Limits) -> (PlainStore, StorePath, Server) {
    let store = PlainStore::new();
    let item = store.add("item", &[], |file| fs::write(file, pattern(5_000_000)).unwrap());
    let mut config = PublishConfig::new(StoreDirectory::nix());
    config.store = Some(store.source());
    config.limits = limits;
    let server = Server::start(config);
    (store, item, server)
}

/// Gives all that comes until the server ends the connection, whichever way it does.
fn rest_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

#[test]
fn requests_that_are_none_are_refused_and_their_connection_ends() {
    let (_store, _, server) = serve(Limits::default());
    let many_fields = format!("GET /health HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
    let long_target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000));
    let long_field = format!("GET /health HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(20_000));
    for (request, status) in [
        ("\u{16}\u{3}\u{1}\r\n\r\n", 400),
        ("GET\r\n\r\n", 400),
        ("GET  HTTP/1.1\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nno field\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nA\0: b\r\n\r\n", 400),
        ("GET /health HTTP/3.0\r\n\r\n", 505),
        (many_fields.as_str(), 431),
        (long_target.as_str(), 431),
        (long_field.as_str(), 431),
    ] {
        let mut stream = server.connect();
        // What follows must not be taken for a request.
        stream.write_all(request.as_bytes()).unwrap();
        let _ = stream.write_all(b"GET /health HTTP/1.1\r\n\r\n");
        let bytes = rest_of(&mut stream);
        let answer = Answer::parse(&bytes);
        assert_eq!(answer.status, status, "{}", &request[..request.len().min(60)]);
        assert_eq!(answer.header("connection").as_deref(), Some("close"));
        assert_eq!(String::from_utf8_lossy(&bytes).matches("HTTP/1.1 ").count(), 1);
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn content_that_is_sent_is_not_taken_for_requests() {
    let (_store, _, server) = serve(Limits::default());
    let smuggled = "GET /metrics HTTP/1.1\r\n\r\n";
    for fields in [
        format!("Content-Length: {}\r\n", smuggled.len()),
        "Transfer-Encoding: chunked\r\n".to_owned(),
        format!("Content-Length: 0\r\nContent-Length: {}\r\n", smuggled.len()),
        "Content-Length: +0\r\n".to_owned(),
    ] {
        let mut stream = server.connect();
        stream.write_all(format!("POST /health HTTP/1.1\r\n{fields}\r\n{smuggled}").as_bytes()).unwrap();
        let bytes = rest_of(&mut stream);
        assert_eq!(Answer::parse(&bytes).status, 405, "{fields}");
        assert_eq!(String::from_utf8_lossy(&bytes).matches("HTTP/1.1 ").count(), 1, "{fields}");
    }
}

#[test]
fn absurd_ranges() {
    let (store, item, server) = serve(Limits::default());
    let nar = store.nar(&item);
    let ask = |range: &str| {
        server.request(&format!(
            "GET /nar/{} HTTP/1.1\r\nConnection: close\r\nRange: {range}\r\n\r\n",
            item.base_name()
        ))
    };
    for range in [
        "bytes=18446744073709551615-18446744073709551616",
        "bytes=99999999999999999999999999999999-",
        "bytes=-0",
    ] {
        assert_eq!(ask(range).status, 416, "{range}");
    }
    let many = format!("bytes={}", vec!["0-"; 2000].join(","));
    for range in [many.as_str(), "bytes=5-4", "bytes=--5", "bytes=0-0,1-1", "lines=1-2", "bytes=0x1-2"] {
        let answer = ask(range);
        assert_eq!((answer.status, answer.body.len()), (200, nar.len()), "{}", &range[..range.len().min(20)]);
    }
    let last = ask("bytes=-99999999999999999999999999");
    assert_eq!((last.status, last.body == nar), (200, true), "all of it is no part");
}

#[test]
fn names_lead_nowhere_else() {
    let (store, item, server) = serve(Limits::default());
    fs::write(store.root().join("secret"), "secret").unwrap();
    fs::write(store.root().join("nix/secret"), "secret").unwrap();
    let name = item.base_name();
    for path in [
        "/../secret".to_owned(),
        "/nar/../../secret".to_owned(),
        "/nar/..%2F..%2Fsecret".to_owned(),
        "/nar/%2e%2e/%2e%2e/secret".to_owned(),
        "/nar/%252e%252e%252fsecret".to_owned(),
        format!("/nar/{name}/../../../secret"),
        format!("/nar/{name}%2f..%2f..%2f..%2fsecret"),
        format!("/nar/{name}%00"),
        format!("/nar/{name}%"),
        format!("/nar//{name}"),
        format!("/nar/none/none/{name}"),
        format!("/nar/GZIP/{name}"),
        "/nar/\\..\\secret".to_owned(),
        "/log/..%2fsecret".to_owned(),
        "http://x/../secret".to_owned(),
        "http://x".to_owned() + "/nar/..%2fsecret",
        "*".to_owned(),
        "x:443".to_owned(),
    ] {
        let answer = server.get(&path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text().contains("secret"), "{path}");
    }
    assert_eq!(server.get(&format!("http://other.example/nar/{name}?x=y")).status, 200);
}

#[test]
fn slow_senders_do_not_hold_others_up() {
    let limits = Limits { header_timeout: Duration::from_millis(600), ..Limits::default() };
    let (_store, _, server) = serve(limits);
    // A byte now and then does not make it last longer.
    let mut slow: Vec<TcpStream> = (0..50).map(|_| server.connect()).collect();
    let began = Instant::now();
    let request = b"GET /health HTTP/1.1\r\nA: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    for byte in request.iter().take(20) {
        for stream in &mut slow {
            let _ = stream.write_all(&[*byte]);
        }
        assert_eq!(server.get("/health").status, 200);
        thread::sleep(Duration::from_millis(20));
    }
    for stream in &mut slow {
        let bytes = rest_of(stream);
        assert!(
            bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 408 "),
            "{}",
            String::from_utf8_lossy(&bytes)
        );
    }
    assert!(began.elapsed() < Duration::from_secs(15));
    // One whose head is slow, but in time, is served.
    let mut stream = server.connect();
    for part in ["GET /hea", "lth HTTP/1.1\r\nConn", "ection: close\r\n\r", "\n"] {
        stream.write_all(part.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(30));
    }
    assert!(rest_of(&mut stream).ends_with(b"ok\n"));
}

#[test]
fn clients_that_go_in_the_middle_leave_nothing_behind() {
    let (store, item, server) = serve(Limits::default());
    let tree = store.add("tree", &[], tree);
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    for round in 0..100_usize {
        let mut stream = server.connect();
        let name = [&item, &tree][round % 2].base_name();
        let compression = ["", "gzip/", "zstd/"][round % 3];
        let request = format!("GET /nar/{compression}{name} HTTP/1.1\r\n\r\n");
        stream.write_all(&request.as_bytes()[..request.len() - round % 5]).unwrap();
        if round % 4 == 0 {
            let mut some = [0; 100];
            let _ = stream.shutdown(Shutdown::Write).and_then(|()| stream.read(&mut some).map(drop));
        }
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while descriptors() > before && Instant::now() < deadline {
        assert_eq!(server.get("/health").status, 200);
    }
    assert!(descriptors() <= before, "{} descriptors more", descriptors() - before);
}

/// A client that shuts its own side down, as some do after their last request, still gets all it asked for.
#[test]
fn half_closed_connections_are_answered() {
    let (store, item, server) = serve(Limits::default());
    let mut stream = server.connect();
    let request = format!("GET /nar/{} HTTP/1.1\r\nHost: x\r\n\r\n", item.base_name());
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(Answer::parse(&rest_of(&mut stream)).body == store.nar(&item));
}

#[test]
fn clients_of_http_1_0_are_answered() {
    let (store, _, server) = serve(Limits::default());
    let tree = store.add("tree", &[], tree);
    let zstd = server.request(&format!("GET /nar/zstd/{} HTTP/1.0\r\n\r\n", tree.base_name()));
    assert_eq!(zstd.header("transfer-encoding"), None);
    assert!(zstd::decode_all(&zstd.body[..]).unwrap() == store.nar(&tree));
    let mut stream = server.connect();
    for _ in 0..2 {
        stream.write_all(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert_eq!(Answer::parse(&answer).header("connection").as_deref(), Some("keep-alive"));
    }
}
