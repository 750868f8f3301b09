//! The worker's session and log connection against a server over real sockets on loopback, with builds that do as told.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test program")]

mod common;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{ScriptedBuilder, ScriptedServer, Step, TestWorker, assign, security, session_config, until};
use hauberk_discovery::{Advertisement, Advertiser, Interfaces};
use hauberk_protocol::WorkerBody;
use hauberk_protocol::keys::CurveKeyPair;
use hauberk_protocol::proto::{self, AttemptPhase, Outcome};
use hauberk_worker::{
    BuildReport, DeclineReason, DeclineReport, Origin, OutputInfo, Report, Security, ServerLocation,
    SessionConfig, Unaccepted, WorkerError,
};

fn built() -> Report {
    let outputs = vec![OutputInfo { name: "out".to_owned(), nar_size: 7, ..OutputInfo::default() }];
    Report::Finished(BuildReport::success(outputs, Origin::Built))
}

fn failed(message: &str) -> Report {
    Report::Finished(BuildReport::failure(Outcome::BuildFailed, message))
}

struct Stage {
    server: ScriptedServer,
    builder: Arc<ScriptedBuilder>,
    worker: TestWorker,
    config: SessionConfig,
    spool: tempfile::TempDir,
}

impl Stage {
    fn start() -> Self {
        Self::with(|_, _| {})
    }

    fn with(change: impl FnOnce(&mut SessionConfig, &mut ScriptedServer)) -> Self {
        let spool = tempfile::tempdir().unwrap();
        let mut server = ScriptedServer::start();
        let mut config = session_config(&server, Some(spool.path()));
        change(&mut config, &mut server);
        let builder = Arc::new(ScriptedBuilder::default());
        let worker = TestWorker::start(config.clone(), Arc::clone(&builder));
        Self { server, builder, worker, config, spool }
    }

    async fn restart_worker(self) -> Self {
        let Self { server, worker, config, spool, .. } = self;
        worker.kill().await;
        // What the killed tasks held goes a moment later; in a killed process the kernel sees to it.
        let lock = spool.path().join("lock");
        until("the spool is free", || {
            let file = std::fs::File::open(&lock).unwrap();
            nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).is_ok()
        })
        .await;
        let builder = Arc::new(ScriptedBuilder::default());
        let worker = TestWorker::start(config.clone(), Arc::clone(&builder));
        Self { server, builder, worker, config, spool }
    }
}

#[tokio::test]
async fn a_build_from_hello_to_release_with_its_log() {
    let mut stage = Stage::start();
    let hello = stage.server.join_with_credit(2).await;
    assert_eq!((hello.name.as_str(), hello.slots, hello.protocol), ("w1", 2, 1));
    assert_eq!(hello.publish, Some(proto::hello::Publish::PublishPort(5558)));
    let script = stage.builder.script(7);
    stage.server.send(assign(7));
    script.send(Step::Started).unwrap();
    stage.server.expect_started(7).await;
    script.send(Step::Log(b"compiling\n".to_vec())).unwrap();
    stage
        .server
        .receive_logs(|server| server.received.get(&7).is_some_and(|log| log.text() == "compiling\n"))
        .await;
    script.send(Step::Log(b"linking \xff\n".to_vec())).unwrap();
    script.send(Step::End(built())).unwrap();
    let finished = stage.server.expect_finished(7).await;
    assert_eq!((finished.outcome(), finished.origin()), (Outcome::Succeeded, Origin::Built));
    let totals = finished.log.unwrap();
    assert_eq!((totals.text_bytes, totals.truncated), (20, false));
    stage.server.expect_credit(3).await;
    stage.server.ack(7);
    let log = stage.server.receive_whole_log(7).await;
    assert_eq!(log.stream.len() as u64, totals.stream_bytes);
    let mut gzip = Command::new("gzip").arg("-t").stdin(Stdio::piped()).spawn().unwrap();
    gzip.stdin.take().unwrap().write_all(&log.gzip()).unwrap();
    assert!(gzip.wait().unwrap().success());
    stage.server.release(7);
    until("the release", || *stage.builder.released.lock().unwrap() == [7]).await;
    stage.worker.stop.cancel();
    assert!(matches!(stage.server.hear().await, WorkerBody::Goodbye(_)));
    stage.worker.ended().await.unwrap();
}

#[tokio::test]
async fn heartbeats_tell_what_runs() {
    let mut stage = Stage::start();
    stage.server.join_with_credit(2).await;
    let script = stage.builder.script(7);
    stage.server.send(assign(7));
    script.send(Step::Started).unwrap();
    stage.server.expect_started(7).await;
    let beat = loop {
        if let WorkerBody::Heartbeat(beat) = stage.server.next().await.body
            && !beat.running.is_empty()
        {
            break beat;
        }
    };
    assert_eq!((beat.running[0].attempt, beat.running[0].phase()), (7, AttemptPhase::Building));
    assert_eq!((beat.last_assign_seen, beat.granted), (2, 2));
    assert_eq!(beat.load.unwrap().load1_centi, 42);
}

#[tokio::test]
async fn a_canceled_build_is_dropped_and_told() {
    let mut stage = Stage::start();
    stage.server.join_with_credit(2).await;
    let script = stage.builder.script(7);
    stage.server.send(assign(7));
    script.send(Step::Started).unwrap();
    stage.server.expect_started(7).await;
    stage.server.send(proto::Cancel { attempt: 7, reason: "not wanted".to_owned() });
    let finished = stage.server.expect_finished(7).await;
    assert_eq!((finished.outcome(), finished.message.as_str()), (Outcome::Canceled, "canceled: not wanted"));
    assert_eq!(*stage.builder.dropped.lock().unwrap(), [7]);
    stage.server.expect_credit(3).await;
}

#[tokio::test]
async fn a_declined_attempt_and_a_panicking_builder_free_their_slots() {
    let mut stage = Stage::start();
    stage.server.join_with_credit(2).await;
    let script = stage.builder.script(7);
    stage.server.send(assign(7));
    let paths = vec!["/nix/store/x".to_owned()];
    let message = "an input\ndiffers".to_owned();
    let report = DeclineReport { reason: DeclineReason::InputDiffers, message, paths: paths.clone() };
    script.send(Step::End(Report::Declined(report))).unwrap();
    match stage.server.hear().await {
        WorkerBody::Declined(declined) => {
            assert_eq!((declined.attempt, declined.reason()), (7, DeclineReason::InputDiffers));
            assert_eq!((declined.message.as_str(), declined.paths), ("an input differs", paths));
        }
        other => panic!("{other:?}"),
    }
    stage.server.expect_credit(3).await;
    let script = stage.builder.script(8);
    stage.server.send(assign(8));
    script.send(Step::Panic).unwrap();
    assert_eq!(stage.server.expect_finished(8).await.outcome(), Outcome::Daemon);
    stage.server.expect_credit(4).await;
}

#[tokio::test]
async fn a_build_goes_on_while_the_server_is_away_and_its_result_is_repeated() {
    let mut stage = Stage::start();
    stage.server.join_with_credit(2).await;
    let (first, second) = (stage.builder.script(7), stage.builder.script(8));
    stage.server.send(assign(7));
    stage.server.send(assign(8));
    first.send(Step::Log(b"before\n".to_vec())).unwrap();
    first.send(Step::Started).unwrap();
    second.send(Step::Started).unwrap();
    let mut started = Vec::new();
    while started.len() < 2 {
        if let WorkerBody::Started(one) = stage.server.hear().await {
            started.push(one.attempt);
        }
    }
    let (keys, backend, logs, received) = stage.server.stop().await;
    first.send(Step::Log(b"while the server was away\n".to_vec())).unwrap();
    first.send(Step::End(built())).unwrap();
    until("the end of the first build", || *stage.builder.dropped.lock().unwrap() == [7]).await;
    let mut server = ScriptedServer::start_with(keys, &backend, &logs);
    server.received = received;
    let hello = server.join().await;
    assert_eq!(hello.running.iter().map(|one| one.attempt).collect::<Vec<_>>(), [8]);
    assert_eq!((hello.unacknowledged, hello.unreleased), (vec![7], vec![7]));
    assert_eq!(server.expect_finished(7).await.outcome(), Outcome::Succeeded);
    server.expect_credit(1).await;
    assert_eq!(server.receive_whole_log(7).await.text(), "before\nwhile the server was away\n");
    server.ack(7);
    second.send(Step::End(failed("it broke"))).unwrap();
    assert_eq!(server.expect_finished(8).await.message, "it broke");
    server.expect_credit(2).await;
}

#[tokio::test]
async fn a_killed_worker_tells_its_results_and_logs_when_it_is_back() {
    let mut stage = Stage::with(|_, server| server.deaf_to_logs = true);
    stage.server.join_with_credit(2).await;
    let (first, second) = (stage.builder.script(7), stage.builder.script(8));
    stage.server.send(assign(7));
    stage.server.send(assign(8));
    second.send(Step::Log(b"half of it\n".repeat(10_000))).unwrap();
    second.send(Step::Started).unwrap();
    stage.server.expect_started(8).await;
    first.send(Step::Log(b"all of it\n".to_vec())).unwrap();
    first.send(Step::End(built())).unwrap();
    stage.server.expect_finished(7).await;
    let mut stage = stage.restart_worker().await;
    stage.server.deaf_to_logs = false;
    let hello = loop {
        if let WorkerBody::Hello(hello) = stage.server.hear().await {
            break hello;
        }
    };
    stage.server.welcome();
    assert_eq!((hello.running, hello.unacknowledged, hello.unreleased), (vec![], vec![7], vec![7]));
    assert_eq!(*stage.builder.restored.lock().unwrap(), [7]);
    assert_eq!(stage.server.expect_finished(7).await.outcome(), Outcome::Succeeded);
    stage.server.expect_credit(2).await;
    stage.server.ack(7);
    assert_eq!(stage.server.receive_whole_log(7).await.text(), "all of it\n");
    let log = stage.server.receive_whole_log(8).await.text();
    assert!(log.starts_with("half of it\n"), "{}", &log[..100]);
    assert!(log.ends_with("hauberk: the worker was restarted, and the attempt ended with it\n"), "{log}");
    // Acknowledged but not released: it is told again, and only that.
    let spool = stage.spool.path();
    until("the ack is recorded", || spool.join("kept/7").exists() && !spool.join("results/7").exists()).await;
    let mut stage = stage.restart_worker().await;
    let hello = loop {
        if let WorkerBody::Hello(hello) = stage.server.hear().await {
            break hello;
        }
    };
    assert_eq!((hello.unacknowledged, hello.unreleased), (vec![], vec![7]));
}

#[tokio::test]
async fn hello_again_begins_a_new_session_on_the_same_connection() {
    let mut stage = Stage::start();
    stage.server.join_with_credit(2).await;
    let script = stage.builder.script(7);
    stage.server.send(assign(7));
    script.send(Step::Started).unwrap();
    stage.server.expect_started(7).await;
    stage.server.send_without_session(proto::HelloAgain {});
    let hello = stage.server.join().await;
    assert_eq!(hello.running.len(), 1);
    stage.server.expect_credit(1).await;
    script.send(Step::End(built())).unwrap();
    stage.server.expect_finished(7).await;
    stage.server.expect_credit(2).await;
}

#[tokio::test]
async fn what_the_server_says_is_survived() {
    let mut stage = Stage::start();
    stage.server.join_with_credit(2).await;
    stage.server.send(proto::Pause { paused: true, reason: "test".to_owned() });
    stage.server.send_frame(b"\xff\xff no message");
    stage.server.send_frame(b"");
    stage.server.send(proto::Assign { derivation: "no path".to_owned(), ..assign(9) });
    match stage.server.hear().await {
        WorkerBody::Declined(declined) => assert_eq!(declined.reason(), DeclineReason::Unsupported),
        other => panic!("{other:?}"),
    }
    stage.server.expect_credit(3).await;
}

#[tokio::test]
async fn final_refusals_end_the_worker_and_others_do_not() {
    let mut stage = Stage::start();
    let WorkerBody::Hello(_) = stage.server.hear().await else { panic!("no hello") };
    stage.server.send_without_session(proto::Refused {
        reason: proto::RefusedReason::NotReady.into(),
        message: "the database is away".to_owned(),
        retry_after_s: 1,
    });
    let WorkerBody::Hello(_) = stage.server.hear().await else { panic!("no hello") };
    stage.server.send_without_session(proto::Refused {
        reason: proto::RefusedReason::NotEnrolled.into(),
        message: "key unknown".to_owned(),
        retry_after_s: 0,
    });
    let error = stage.worker.ended().await.unwrap_err();
    assert!(matches!(error, WorkerError::Refused { .. }));
    assert!(error.to_string().contains("hauberk worker add"), "{error}");
}

#[tokio::test]
async fn a_server_whose_key_the_daemon_refuses_gets_no_work_done() {
    let stage = Stage::start();
    *stage.builder.unaccepted.lock().unwrap() =
        Some(Unaccepted::Refused { message: "add the key".to_owned() });
    let mut server = stage.server;
    server.join().await;
    let error = stage.worker.ended().await.unwrap_err();
    assert!(matches!(&error, WorkerError::Untrusted { message } if message == "add the key"), "{error}");
}

#[tokio::test]
async fn a_server_with_another_key_is_not_joined() {
    let mut stage = Stage::with(|config, _| {
        let other = *CurveKeyPair::generate().public();
        config.security = Security::Curve { keys: CurveKeyPair::generate(), server: other };
    });
    let said = tokio::time::timeout(Duration::from_secs(2), stage.server.hear()).await;
    assert!(said.is_err(), "nothing is said to a server that cannot prove its key");
    stage.worker.stop.cancel();
    stage.worker.ended().await.unwrap();
}

#[tokio::test]
async fn a_stopped_worker_lets_builds_end_within_the_grace() {
    let mut stage = Stage::start();
    stage.server.join_with_credit(2).await;
    let script = stage.builder.script(7);
    stage.server.send(assign(7));
    script.send(Step::Started).unwrap();
    stage.server.expect_started(7).await;
    stage.worker.stop.cancel();
    // An assignment that crosses with the stop is given back.
    until("the stop", || stage.worker.stop.is_cancelled()).await;
    script.send(Step::Log(b"the last line\n".to_vec())).unwrap();
    script.send(Step::End(built())).unwrap();
    stage.server.expect_finished(7).await;
    stage.server.ack(7);
    stage.server.receive_whole_log(7).await;
    stage.worker.ended().await.unwrap();
}

#[tokio::test]
async fn what_does_not_end_within_the_grace_is_given_back() {
    let mut stage = Stage::with(|config, _| config.grace = Duration::from_millis(200));
    stage.server.join_with_credit(2).await;
    let script = stage.builder.script(7);
    stage.server.send(assign(7));
    script.send(Step::Log(b"half\n".to_vec())).unwrap();
    script.send(Step::Started).unwrap();
    stage.server.expect_started(7).await;
    stage.worker.stop.cancel();
    assert!(matches!(stage.server.hear().await, WorkerBody::Goodbye(_)), "and no result");
    stage.worker.ended().await.unwrap();
    assert_eq!(*stage.builder.dropped.lock().unwrap(), [7], "the build is dropped");
}

#[tokio::test]
async fn a_drained_worker_finishes_and_ends() {
    let mut stage = Stage::start();
    stage.server.join_with_credit(2).await;
    let script = stage.builder.script(7);
    stage.server.send(assign(7));
    script.send(Step::Started).unwrap();
    stage.server.expect_started(7).await;
    stage.server.send(proto::Drain { reason: "maintenance".to_owned() });
    script.send(Step::End(built())).unwrap();
    stage.server.expect_finished(7).await;
    stage.server.ack(7);
    stage.server.release(7);
    assert!(matches!(stage.server.hear().await, WorkerBody::Goodbye(_)));
    stage.worker.ended().await.unwrap();
}

#[tokio::test]
async fn a_log_the_server_does_not_want_is_forgotten() {
    let mut stage = Stage::start();
    stage.server.join_with_credit(2).await;
    let script = stage.builder.script(666);
    stage.server.send(assign(666));
    script.send(Step::Log(b"text\n".to_vec())).unwrap();
    script.send(Step::End(failed("no"))).unwrap();
    stage.server.expect_finished(666).await;
    stage.server.ack(666);
    stage.worker.stop.cancel();
    // The worker leaves as soon as no log waits: long before the grace is over.
    let leaving = stage.worker.ended();
    let serving = stage.server.receive_logs(|_| false);
    tokio::select! {
        ended = leaving => ended.unwrap(),
        () = serving => {}
    }
}

#[tokio::test]
async fn the_server_with_the_pinned_key_is_found_by_mdns_and_found_again_elsewhere() {
    let decoy = ScriptedServer::start();
    let _decoy_told = Advertiser::start(&advertisement("decoy", &decoy), &Interfaces::Loopback).unwrap();
    let spool = tempfile::tempdir().unwrap();
    let mut server = ScriptedServer::start();
    let told = Advertiser::start(&advertisement("farm", &server), &Interfaces::Loopback).unwrap();
    let mut config = session_config(&server, Some(spool.path()));
    config.server = ServerLocation::Discover(Interfaces::Loopback);
    let builder = Arc::new(ScriptedBuilder::default());
    let worker = TestWorker::start(config, builder);
    server.join_with_credit(2).await;
    told.stop().await;
    let (keys, ..) = server.stop().await;
    // The same server, at another port.
    let mut server = ScriptedServer::start_with(keys, "127.0.0.1:0", "127.0.0.1:0");
    let _told = Advertiser::start(&advertisement("farm", &server), &Interfaces::Loopback).unwrap();
    server.join_with_credit(2).await;
    worker.stop.cancel();
    worker.ended().await.unwrap();
}

fn advertisement(instance: &str, server: &ScriptedServer) -> Advertisement {
    Advertisement {
        instance: format!("{instance}-{}", std::process::id()),
        farm: "test".to_owned(),
        version: "1".to_owned(),
        backend_port: server.backend.endpoint().port(),
        log_port: Some(server.logs.endpoint().port()),
        publish_port: None,
        store_directories: vec!["/nix/store".to_owned()],
        server_key: Some(*server.keys.public()),
    }
}

#[tokio::test]
async fn many_workers_share_a_process() {
    const WORKERS: usize = 40;
    const BUILDS: i64 = 5;
    let mut server = ScriptedServer::start();
    let context = session_config(&server, None).context;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..WORKERS {
        let config = SessionConfig {
            name: format!("w{number}"),
            slots: 1.try_into().unwrap(),
            context: context.clone(),
            security: security(&server),
            ..session_config(&server, None)
        };
        tasks.spawn(hauberk_worker::run_with_builder(config, Arc::new(Immediate), stop.clone(), || {}));
    }
    // A little server of many sessions: every credit is an assignment at once.
    let (mut next, mut finished) = (0i64, 0i64);
    let mut sessions = std::collections::HashMap::new();
    let wanted = WORKERS as i64 * BUILDS;
    while finished < wanted {
        let incoming = tokio::time::timeout(common::DEADLINE, server.backend.recv()).await.unwrap().unwrap();
        let message = hauberk_protocol::WorkerMessage::decode(&incoming.frame).unwrap();
        let mut send = |session: u64, sequence: &mut u64, body: hauberk_protocol::ServerBody| {
            *sequence += 1;
            let frame = hauberk_protocol::ServerMessage::new(session, *sequence, body).encode().unwrap();
            server.backend.send(incoming.routing_id, &frame).unwrap();
        };
        let count = sessions.len() as u64 + 1;
        let (session, sequence) = sessions.entry(incoming.routing_id).or_insert((count, 0u64));
        match message.body {
            WorkerBody::Hello(_) => {
                let welcome = proto::Welcome {
                    session: *session,
                    log_port: 1,
                    heartbeat_interval_ms: 15_000,
                    lease_ms: 60_000,
                    ..proto::Welcome::default()
                };
                send(*session, sequence, welcome.into());
            }
            WorkerBody::Credit(_) if next < wanted => {
                next += 1;
                send(*session, sequence, assign(next).into());
            }
            WorkerBody::Finished(result) => {
                finished += 1;
                send(*session, sequence, proto::Ack { attempts: vec![result.attempt] }.into());
            }
            _ => {}
        }
    }
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap().unwrap();
    }
}

/// A builder whose builds take no time.
struct Immediate;

#[async_trait::async_trait]
impl hauberk_worker::Builder for Immediate {
    async fn accept(&self, _: &hauberk_worker::Server) -> Result<(), Unaccepted> {
        Ok(())
    }

    async fn build(&self, _: &hauberk_worker::Assignment, _: &hauberk_worker::AttemptContext) -> Report {
        failed("quick")
    }

    async fn release(&self, _: &[hauberk_worker::AttemptId]) {}

    async fn restore(&self, _: &[hauberk_worker::AttemptId]) {}

    fn load(&self) -> hauberk_worker::Load {
        hauberk_worker::Load::default()
    }
}
