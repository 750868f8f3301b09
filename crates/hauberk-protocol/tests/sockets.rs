//! The sockets over loopback: who gets in, who is noticed, and that nothing is lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hauberk_protocol::keys::{CurveKeyPair, CurvePublicKey};
use hauberk_protocol::socket::{
    Admission, ClientSecurity, ConnectionEvent, Context, DealerEvent, DealerOptions, DealerSocket,
    HandshakeFailure, Incoming, RaceError, RouterOptions, RouterSocket, SendError, ServerSecurity,
    SocketError, connect_first,
};

/// Fails a test that hangs; generous, because the machine may be busy.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it takes far too long")
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn router(context: &Context, keys: &CurveKeyPair) -> RouterSocket {
    RouterSocket::bind(context, loopback(), ServerSecurity::Curve(keys), &RouterOptions::backend()).unwrap()
}

fn dealer(context: &Context, to: SocketAddr, keys: &CurveKeyPair, server: &CurvePublicKey) -> DealerSocket {
    let security = ClientSecurity::Curve { keys, server };
    DealerSocket::connect(context, to, security, &DealerOptions::backend()).unwrap()
}

async fn next_frame(dealer: &mut DealerSocket) -> Bytes {
    loop {
        if let DealerEvent::Frame(frame) = dealer.next().await.unwrap() {
            return frame;
        }
    }
}

async fn next_event(dealer: &mut DealerSocket) -> ConnectionEvent {
    loop {
        if let DealerEvent::Connection(event) = dealer.next().await.unwrap() {
            return event;
        }
    }
}

async fn wait_for(dealer: &mut DealerSocket, wanted: ConnectionEvent) {
    while next_event(dealer).await != wanted {}
}

/// Lets an honest worker through, so that whatever came before has been seen.
async fn an_honest_worker_is_served(
    context: &Context,
    router: &mut RouterSocket,
    server: &CurvePublicKey,
) -> Incoming {
    let keys = CurveKeyPair::generate();
    let mut honest = dealer(context, router.endpoint(), &keys, server);
    soon(honest.send(b"honest")).await.unwrap();
    let incoming = soon(router.recv()).await.unwrap();
    assert_eq!(&incoming.frame[..], b"honest");
    assert_eq!(incoming.user.as_ref(), Some(keys.public()));
    router.send(incoming.routing_id, b"served").unwrap();
    assert_eq!(&soon(next_frame(&mut honest)).await[..], b"served");
    incoming
}

#[tokio::test]
async fn a_worker_is_known_by_its_key_and_address() {
    let context = Context::new();
    let keys = CurveKeyPair::generate();
    let mut router = router(&context, &keys);
    assert_ne!(router.endpoint().port(), 0);
    let incoming = an_honest_worker_is_served(&context, &mut router, keys.public()).await;
    assert_eq!(incoming.peer_address, Some(IpAddr::from([127, 0, 0, 1])));
}

#[tokio::test]
async fn ipv6_and_both_families_at_once_are_served() {
    let context = Context::new();
    let (server, worker) = (CurveKeyPair::generate(), CurveKeyPair::generate());
    let any = "[::]:0".parse().unwrap();
    let mut router =
        RouterSocket::bind(&context, any, ServerSecurity::Curve(&server), &RouterOptions::backend()).unwrap();
    for host in ["::1", "127.0.0.1"] {
        let host: IpAddr = host.parse().unwrap();
        let mut dealer =
            dealer(&context, SocketAddr::new(host, router.endpoint().port()), &worker, server.public());
        soon(dealer.send(b"hello")).await.unwrap();
        assert_eq!(soon(router.recv()).await.unwrap().peer_address, Some(host));
    }
}

#[tokio::test]
async fn without_encryption_nobody_has_a_key() {
    let context = Context::new();
    let mut router =
        RouterSocket::bind(&context, loopback(), ServerSecurity::Insecure, &RouterOptions::backend())
            .unwrap();
    let mut dealer = DealerSocket::connect(
        &context,
        router.endpoint(),
        ClientSecurity::Insecure,
        &DealerOptions::backend(),
    )
    .unwrap();
    soon(dealer.send(b"hello")).await.unwrap();
    let incoming = soon(router.recv()).await.unwrap();
    assert_eq!((incoming.user, &incoming.frame[..]), (None, &b"hello"[..]));
    router.send(incoming.routing_id, b"").unwrap();
    assert_eq!(soon(next_frame(&mut dealer)).await.len(), 0);
}

#[tokio::test]
async fn a_server_with_another_key_is_noticed() {
    let context = Context::new();
    let (server, other, worker) =
        (CurveKeyPair::generate(), CurveKeyPair::generate(), CurveKeyPair::generate());
    let mut router = router(&context, &server);
    let mut dealer = dealer(&context, router.endpoint(), &worker, other.public());
    let event = soon(next_event(&mut dealer)).await;
    assert_eq!(event, ConnectionEvent::HandshakeFailed(HandshakeFailure::HungUp));
    assert!(event.to_string().contains("another key"), "{event}");
    assert!(!dealer.is_connected());
    assert!(matches!(dealer.try_send(b"secret"), Err(SendError::Full)));
    an_honest_worker_is_served(&context, &mut router, server.public()).await;
}

#[tokio::test]
async fn a_revoked_key_is_refused_and_told_so() {
    let revoked = CurveKeyPair::generate();
    let public = *revoked.public();
    let seen_address = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&seen_address);
    let context = Context::with_admission(move |key: &CurvePublicKey, address: Option<IpAddr>| {
        seen.fetch_or(address == Some(IpAddr::from([127, 0, 0, 1])), Ordering::Relaxed);
        if *key == public { Admission::Refuse } else { Admission::Admit }
    });
    let server = CurveKeyPair::generate();
    let mut router = router(&context, &server);
    let mut dealer = dealer(&context, router.endpoint(), &revoked, server.public());
    assert_eq!(soon(next_event(&mut dealer)).await, ConnectionEvent::Refused { status: 400 });
    assert!(seen_address.load(Ordering::Relaxed));
    an_honest_worker_is_served(&context, &mut router, server.public()).await;
}

#[tokio::test]
async fn plain_peers_and_encrypting_ones_never_meet() {
    let context = Context::new();
    let server = CurveKeyPair::generate();
    let mut encrypting = router(&context, &server);
    let mut plain = DealerSocket::connect(
        &context,
        encrypting.endpoint(),
        ClientSecurity::Insecure,
        &DealerOptions::backend(),
    )
    .unwrap();
    let event = soon(next_event(&mut plain)).await;
    assert!(matches!(event, ConnectionEvent::HandshakeFailed(_)), "{event}");
    an_honest_worker_is_served(&context, &mut encrypting, server.public()).await;

    let open = RouterSocket::bind(&context, loopback(), ServerSecurity::Insecure, &RouterOptions::backend())
        .unwrap();
    let mut worker = dealer(&context, open.endpoint(), &CurveKeyPair::generate(), server.public());
    let event = soon(next_event(&mut worker)).await;
    assert!(matches!(event, ConnectionEvent::HandshakeFailed(_)), "{event}");
}

#[tokio::test]
async fn strangers_on_the_port_do_no_harm() {
    let context = Context::new();
    let server = CurveKeyPair::generate();
    let mut router = router(&context, &server);
    let greeting = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0CURVE\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let junk: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", b"", &[0xff; 500], greeting];
    let mut held = Vec::new();
    for bytes in junk {
        let mut stream = TcpStream::connect(router.endpoint()).unwrap();
        stream.write_all(bytes).unwrap();
        held.push(stream);
    }
    an_honest_worker_is_served(&context, &mut router, server.public()).await;
}

#[tokio::test]
async fn what_is_not_one_frame_is_discarded() {
    let context = Context::new();
    let server = CurveKeyPair::generate();
    let mut router = router(&context, &server);
    let theirs = zmq::Context::new();
    let endpoint = router.endpoint();
    let connect = |routing_id: Option<&[u8]>| {
        let keys = zmq::CurveKeyPair::new().unwrap();
        let socket = theirs.socket(zmq::DEALER).unwrap();
        socket.set_curve_serverkey(server.public().as_bytes()).unwrap();
        socket.set_curve_publickey(&keys.public_key).unwrap();
        socket.set_curve_secretkey(&keys.secret_key).unwrap();
        socket.set_linger(0).unwrap();
        if let Some(id) = routing_id {
            socket.set_identity(id).unwrap();
        }
        socket.connect(&format!("tcp://{endpoint}")).unwrap();
        socket
    };
    let parts = connect(None);
    parts.send_multipart([&b"one"[..], b"two", b"three"], 0).unwrap();
    parts.send("whole", 0).unwrap();
    let named = connect(Some(b"chosen"));
    named.send("named", 0).unwrap();
    let mut whole = soon(router.recv()).await.unwrap();
    assert_eq!(&whole.frame[..], b"whole");
    // A frame beyond the limit ends its connection.
    let large = connect(None);
    large.send(vec![0; RouterOptions::backend().frame_limit + 1000], 0).unwrap();
    soon(async {
        while router.discarded() < 2 {
            whole = an_honest_worker_is_served(&context, &mut router, server.public()).await;
        }
    })
    .await;
    assert_eq!(router.discarded(), 2);
}

#[tokio::test]
async fn the_largest_frame_passes_and_a_larger_one_is_not_sent() {
    let context = Context::new();
    let (server, worker) = (CurveKeyPair::generate(), CurveKeyPair::generate());
    let mut router = router(&context, &server);
    let mut dealer = dealer(&context, router.endpoint(), &worker, server.public());
    let limit = RouterOptions::backend().frame_limit;
    let frame: Vec<u8> = (0..limit).map(|index| index as u8).collect();
    assert!(matches!(dealer.try_send(&vec![0; limit + 1]), Err(SendError::TooLarge { .. })));
    soon(dealer.send(&frame)).await.unwrap();
    let incoming = soon(router.recv()).await.unwrap();
    assert!(incoming.frame == frame);
    assert!(matches!(router.send(incoming.routing_id, &vec![0; limit + 1]), Err(SendError::TooLarge { .. })));
    router.send(incoming.routing_id, &frame).unwrap();
    assert!(soon(next_frame(&mut dealer)).await == frame);
}

#[tokio::test]
async fn a_peer_that_is_gone_is_told_apart() {
    let context = Context::new();
    let (server, worker) = (CurveKeyPair::generate(), CurveKeyPair::generate());
    let mut router = router(&context, &server);
    let mut dealer = dealer(&context, router.endpoint(), &worker, server.public());
    soon(dealer.send(b"hello")).await.unwrap();
    let incoming = soon(router.recv()).await.unwrap();
    drop(dealer);
    soon(async {
        while router.send(incoming.routing_id, b"still there?").is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(matches!(router.send(incoming.routing_id, b"still there?"), Err(SendError::PeerGone)));
}

#[tokio::test]
async fn a_port_in_use_and_a_foreign_address_are_named() {
    let context = Context::new();
    let keys = CurveKeyPair::generate();
    let first = router(&context, &keys);
    let taken = TcpListener::bind(loopback()).unwrap();
    for endpoint in [first.endpoint(), taken.local_addr().unwrap()] {
        let error =
            RouterSocket::bind(&context, endpoint, ServerSecurity::Curve(&keys), &RouterOptions::backend())
                .unwrap_err();
        assert!(matches!(error, SocketError::InUse { .. }), "{error}");
        assert_eq!(error.to_string(), format!("cannot listen on tcp://{endpoint}: the port is in use"));
    }
    let foreign = "192.0.2.1:0".parse().unwrap();
    let error =
        RouterSocket::bind(&context, foreign, ServerSecurity::Curve(&keys), &RouterOptions::backend())
            .unwrap_err();
    assert_eq!(error.to_string(), "cannot listen on tcp://192.0.2.1:0");
}

#[tokio::test]
async fn a_worker_reconnects_to_a_server_that_starts_again() {
    let workers = Context::new();
    let (server, worker) = (CurveKeyPair::generate(), CurveKeyPair::generate());
    let options = RouterOptions::backend();
    let mut endpoint = loopback();
    let mut dealer = None;
    for round in 0..5_u8 {
        let context = Context::new();
        let mut router =
            RouterSocket::bind(&context, endpoint, ServerSecurity::Curve(&server), &options).unwrap();
        endpoint = router.endpoint();
        let dealer = dealer.get_or_insert_with(|| self::dealer(&workers, endpoint, &worker, server.public()));
        soon(wait_for(dealer, ConnectionEvent::Connected)).await;
        soon(dealer.send(&[round])).await.unwrap();
        let incoming = soon(router.recv()).await.unwrap();
        assert_eq!(&incoming.frame[..], &[round]);
        router.send(incoming.routing_id, &[round, round]).unwrap();
        assert_eq!(&soon(next_frame(dealer)).await[..], &[round, round]);
        drop(router);
        soon(context.close()).await;
        soon(wait_for(dealer, ConnectionEvent::Disconnected)).await;
        assert!(!dealer.is_connected());
        assert!(matches!(soon(next_event(dealer)).await, ConnectionEvent::Unreachable { .. }));
        assert!(matches!(dealer.try_send(b"nobody there"), Err(SendError::Full)));
    }
}

#[tokio::test]
async fn a_slow_server_holds_the_worker_back_and_loses_nothing() {
    let context = Context::new();
    let (server, worker) = (CurveKeyPair::generate(), CurveKeyPair::generate());
    let options = RouterOptions { receive_queue: 10, ..RouterOptions::backend() };
    let mut router =
        RouterSocket::bind(&context, loopback(), ServerSecurity::Curve(&server), &options).unwrap();
    let options = DealerOptions { send_queue: 10, ..DealerOptions::backend() };
    let security = ClientSecurity::Curve { keys: &worker, server: server.public() };
    let mut dealer = DealerSocket::connect(&context, router.endpoint(), security, &options).unwrap();
    let frame = |index: u32| [&index.to_be_bytes()[..], &[0; 100_000]].concat();
    soon(dealer.ready_to_send()).await.unwrap();
    let mut sent = 0;
    // Until the queues and the system's buffers are full; nobody receives.
    loop {
        match tokio::time::timeout(Duration::from_secs(2), dealer.send(&frame(sent))).await {
            Ok(result) => result.unwrap(),
            Err(_) => break,
        }
        sent += 1;
        assert!(sent < 5_000, "nothing holds the sender back");
    }
    assert!(sent >= 20);
    for expected in 0..sent {
        assert_eq!(soon(router.recv()).await.unwrap().frame[..4], expected.to_be_bytes());
    }
    soon(dealer.send(&frame(sent))).await.unwrap();
    assert_eq!(soon(router.recv()).await.unwrap().frame[..4], sent.to_be_bytes());
}

#[tokio::test]
async fn a_slow_worker_fills_its_own_queue_only() {
    let context = Context::new();
    let server = CurveKeyPair::generate();
    let options = RouterOptions { send_queue: 10, ..RouterOptions::backend() };
    let mut router =
        RouterSocket::bind(&context, loopback(), ServerSecurity::Curve(&server), &options).unwrap();
    let worker = CurveKeyPair::generate();
    let options = DealerOptions { receive_queue: 10, ..DealerOptions::backend() };
    let security = ClientSecurity::Curve { keys: &worker, server: server.public() };
    let mut slow = DealerSocket::connect(&context, router.endpoint(), security, &options).unwrap();
    soon(slow.send(b"hello")).await.unwrap();
    let incoming = soon(router.recv()).await.unwrap();
    let frame = |index: u32| [&index.to_be_bytes()[..], &[0; 100_000]].concat();
    let (mut sent, mut refused) = (0_u32, 0);
    while refused < 100 {
        match router.send(incoming.routing_id, &frame(sent)) {
            Ok(()) => (sent, refused) = (sent + 1, 0),
            Err(SendError::Full) => {
                refused += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 5_000, "nothing holds the sender back");
    }
    an_honest_worker_is_served(&context, &mut router, server.public()).await;
    for expected in 0..sent {
        assert_eq!(soon(next_frame(&mut slow)).await[..4], expected.to_be_bytes());
    }
    soon(async {
        while router.send(incoming.routing_id, &frame(sent)).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(soon(next_frame(&mut slow)).await[..4], sent.to_be_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canceled_receives_lose_nothing() {
    const FRAMES: u32 = 20_000;
    let context = Context::new();
    let (server, worker) = (CurveKeyPair::generate(), CurveKeyPair::generate());
    let mut router = router(&context, &server);
    let endpoint = router.endpoint();
    let public = *server.public();
    let workers = context.clone();
    let echo = tokio::spawn(async move {
        let mut dealer = dealer(&workers, endpoint, &worker, &public);
        let (mut sent, mut echoed, mut canceled) = (0_u32, 0_u32, 0_u64);
        while echoed < FRAMES {
            // Both directions in one task: what the socket does for one must not hide a change for the other.
            tokio::select! {
                biased;
                () = tokio::task::yield_now() => canceled += 1,
                event = dealer.next() => {
                    if let DealerEvent::Frame(frame) = event.unwrap() {
                        assert_eq!(frame[..], echoed.to_be_bytes());
                        echoed += 1;
                    }
                }
            }
            tokio::select! {
                biased;
                event = dealer.next() => {
                    if let DealerEvent::Frame(frame) = event.unwrap() {
                        assert_eq!(frame[..], echoed.to_be_bytes());
                        echoed += 1;
                    }
                }
                () = tokio::task::yield_now() => canceled += 1,
            }
            if sent < FRAMES && sent < echoed + 500 && dealer.try_send(&sent.to_be_bytes()).is_ok() {
                sent += 1;
            }
        }
        canceled
    });
    let mut expected = 0_u32;
    let mut canceled = 0_u64;
    soon(async {
        while expected < FRAMES {
            tokio::select! {
                biased;
                incoming = router.recv() => {
                    let incoming = incoming.unwrap();
                    assert_eq!(incoming.frame[..], expected.to_be_bytes());
                    expected += 1;
                    router.send(incoming.routing_id, &incoming.frame).unwrap();
                }
                () = tokio::task::yield_now() => canceled += 1,
            }
        }
    })
    .await;
    let theirs = soon(echo).await.unwrap();
    assert!(canceled + theirs > 1_000, "only {canceled} and {theirs} receives were canceled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_workers_are_served() {
    const WORKERS: usize = 1_000;
    let context = Context::new();
    let server = CurveKeyPair::generate();
    let mut router = router(&context, &server);
    let (endpoint, public) = (router.endpoint(), *server.public());
    let workers: Vec<Context> = (0..5).map(|_| Context::new()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..WORKERS {
        let context = workers[number % workers.len()].clone();
        tasks.spawn(async move {
            let keys = CurveKeyPair::generate();
            let mut dealer = dealer(&context, endpoint, &keys, &public);
            for round in 0..3_u8 {
                dealer.send(&[round]).await.unwrap();
                let answer = next_frame(&mut dealer).await;
                assert_eq!(&answer[..], [&[round], &keys.public().as_bytes()[..]].concat());
            }
        });
    }
    let mut seen = HashSet::new();
    soon(async {
        for _ in 0..3 * WORKERS {
            let incoming = router.recv().await.unwrap();
            let user = incoming.user.unwrap();
            seen.insert((user, incoming.routing_id));
            router.send(incoming.routing_id, &[&incoming.frame[..], user.as_bytes()].concat()).unwrap();
        }
    })
    .await;
    assert_eq!(seen.len(), WORKERS);
    soon(async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn the_last_word_arrives_after_the_socket_is_dropped() {
    let (servers, workers) = (Context::new(), Context::new());
    let (server, worker) = (CurveKeyPair::generate(), CurveKeyPair::generate());
    let mut router = router(&servers, &server);
    let mut dealer = dealer(&workers, router.endpoint(), &worker, server.public());
    for number in 0..100_u8 {
        soon(dealer.send(&[number])).await.unwrap();
    }
    drop(dealer);
    soon(workers.close()).await;
    for number in 0..100_u8 {
        assert_eq!(soon(router.recv()).await.unwrap().frame[..], [number]);
    }
}

#[tokio::test]
async fn sockets_that_come_and_go_leave_nothing_behind() {
    let context = Context::new();
    let server = CurveKeyPair::generate();
    let mut router = router(&context, &server);
    // More than a context could hold at once.
    for _ in 0..600 {
        let mut dealer = dealer(&context, router.endpoint(), &CurveKeyPair::generate(), server.public());
        soon(dealer.send(b"x")).await.unwrap();
        soon(router.recv()).await.unwrap();
    }
    an_honest_worker_is_served(&context, &mut router, server.public()).await;
    drop(router);
    soon(context.close()).await;
}

#[tokio::test]
async fn the_first_address_that_works_is_taken() {
    let context = Context::new();
    let (server, other, worker) =
        (CurveKeyPair::generate(), CurveKeyPair::generate(), CurveKeyPair::generate());
    let mut router = router(&context, &server);
    let impostor = self::router(&context, &other);
    let silent = TcpListener::bind(loopback()).unwrap();
    let closed = TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let security = ClientSecurity::Curve { keys: &worker, server: server.public() };
    let options = DealerOptions { handshake_timeout: Duration::from_secs(1), ..DealerOptions::backend() };
    let head_start = Duration::from_millis(50);
    let endpoints = [closed, silent.local_addr().unwrap(), impostor.endpoint(), router.endpoint()];
    let mut dealer = soon(connect_first(&context, &endpoints, security, &options, head_start)).await.unwrap();
    assert_eq!(dealer.endpoint(), router.endpoint());
    assert!(dealer.is_connected());
    soon(dealer.send(b"hello")).await.unwrap();
    assert_eq!(&soon(router.recv()).await.unwrap().frame[..], b"hello");

    let error =
        soon(connect_first(&context, &endpoints[..3], security, &options, head_start)).await.unwrap_err();
    let RaceError::Failed(failures) = &error else { panic!("{error}") };
    let failed: HashSet<SocketAddr> = failures.iter().map(|(endpoint, _)| *endpoint).collect();
    assert_eq!(failed, endpoints[..3].iter().copied().collect());
    assert!(error.to_string().contains("another key"), "{error}");
    let error = soon(connect_first(&context, &[], security, &options, head_start)).await.unwrap_err();
    assert_eq!(error.to_string(), "no address of the server works: it has none");
}

#[test]
fn sockets_outside_a_runtime_can_be_dropped() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (context, socket) = runtime.block_on(async {
        let context = Context::new();
        let keys = CurveKeyPair::generate();
        let socket = router(&context, &keys);
        (context, socket)
    });
    drop(runtime);
    drop(socket);
    drop(context);
}

/// Futures of sockets may move between threads.
#[expect(dead_code, reason = "it is enough that it compiles")]
fn futures_are_send(mut router: RouterSocket, mut dealer: DealerSocket) {
    fn check(_: impl Send) {}
    check(async move { router.recv().await.map(|_| ()) });
    check(async move {
        dealer.send(b"x").await.map(|_| ())?;
        dealer.next().await.map(|_| ())?;
        Ok::<(), SendError>(())
    });
}
