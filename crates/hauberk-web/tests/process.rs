//! The process: how it starts, serves and ends.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use hauberk_database::DatabaseError;
use hauberk_database::testing::TestDatabase;
use hauberk_web::{Config, Operators, WebError, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("a listener has an address")
}

fn config(farm: &TestDatabase, listen: SocketAddr) -> Config {
    Config { database: farm.location().clone(), listen, cache: None, operators: Operators::default() }
}

#[tokio::test]
async fn it_serves_and_ends_with_a_stream_open() {
    let farm = TestDatabase::new().await;
    let address = free_address();
    let stop = CancellationToken::new();
    let (sender, ready) = oneshot::channel();
    let serving = tokio::spawn(run(config(&farm, address), stop.clone(), move || sender.send(()).unwrap()));
    ready.await.unwrap();

    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    plain.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("ok\n"), "{text}");

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 17];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK\r\n");
    let idle = TcpStream::connect(address).await.unwrap();

    stop.cancel();
    let began = Instant::now();
    serving.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"\r\n0\r\n\r\n"), "the stream is ended in order");
    drop(idle);
}

#[tokio::test]
async fn half_a_request_is_not_waited_for() {
    let farm = TestDatabase::new().await;
    let address = free_address();
    let stop = CancellationToken::new();
    let (sender, ready) = oneshot::channel();
    let serving = tokio::spawn(run(config(&farm, address), stop.clone(), move || sender.send(()).unwrap()));
    ready.await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), slow.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection is still open");
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let farm = TestDatabase::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let result = run(config(&farm, address), CancellationToken::new(), || panic!("not ready")).await;
    let Err(WebError::Listen { address: named, .. }) = result else { panic!("{result:?}") };
    assert_eq!(named, address);
}

#[tokio::test]
async fn a_database_that_is_not_ours_is_refused() {
    let farm = TestDatabase::empty().await;
    let result = run(config(&farm, free_address()), CancellationToken::new(), || panic!("not ready")).await;
    assert!(matches!(result, Err(WebError::Database(DatabaseError::NoSchema { .. }))), "{result:?}");

    let mut nowhere = config(&farm, free_address());
    nowhere.database = "host=/nowhere user=farm dbname=farm".parse().unwrap();
    let result = run(nowhere, CancellationToken::new(), || panic!("not ready")).await;
    assert!(matches!(result, Err(WebError::Database(DatabaseError::Unreachable { .. }))), "{result:?}");
}
