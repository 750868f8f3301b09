//! A server that does what a test tells it, over the real sockets, and a builder that does what a test tells it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "shared by several test programs")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hauberk_protocol::keys::CurveKeyPair;
use hauberk_protocol::proto::{self, LogAck, LogRefused};
use hauberk_protocol::socket::{Context, Incoming, RouterOptions, RouterSocket, RoutingId, ServerSecurity};
use hauberk_protocol::{
    LogBody, LogMessage, LogReply, LogReplyBody, ServerBody, ServerMessage, WorkerBody, WorkerMessage,
};
use hauberk_store::StoreDirectory;
use hauberk_worker::{
    Assignment, AttemptContext, AttemptId, Builder, Load, LogLimits, PublishAddress, Report, Security,
    Server, ServerLocation, SessionConfig, SharedContext, SpoolPlace, TrustCheck, Unaccepted, WorkerError,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A log as a server has it.
#[derive(Default, Debug, Clone)]
pub(crate) struct ReceivedLog {
    pub(crate) stream: Vec<u8>,
    pub(crate) end: Option<proto::LogEnd>,
    pub(crate) opened: usize,
}

impl ReceivedLog {
    /// The text so far, through the real gzip once the log has ended.
    pub(crate) fn text(&self) -> String {
        let mut inflate = flate2::Decompress::new(false);
        let mut text = Vec::with_capacity(16 << 20);
        inflate.decompress_vec(&self.stream, &mut text, flate2::FlushDecompress::Sync).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The gzip file a server makes.
    pub(crate) fn gzip(&self) -> Vec<u8> {
        let end = self.end.as_ref().unwrap();
        let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
        file.extend_from_slice(&self.stream);
        file.extend_from_slice(&[3, 0]);
        file.extend_from_slice(&end.crc32.to_le_bytes());
        file.extend_from_slice(&(end.text_bytes as u32).to_le_bytes());
        file
    }
}

/// A server that keeps logs by itself and else says what it is told.
pub(crate) struct ScriptedServer {
    pub(crate) context: Context,
    pub(crate) keys: CurveKeyPair,
    pub(crate) backend: RouterSocket,
    pub(crate) logs: RouterSocket,
    pub(crate) received: BTreeMap<i64, ReceivedLog>,
    pub(crate) window: u64,
    /// Answers nothing on the log port.
    pub(crate) deaf_to_logs: bool,
    pub(crate) publish_port: u32,
    pub(crate) signing_keys: Vec<proto::SigningKey>,
    pub(crate) trust_probe: Option<proto::TrustProbe>,
    pub(crate) heartbeat_ms: u32,
    peer: Option<RoutingId>,
    session: u64,
    sequence: u64,
}

impl ScriptedServer {
    pub(crate) fn start() -> Self {
        Self::start_with(CurveKeyPair::generate(), "127.0.0.1:0", "127.0.0.1:0")
    }

    pub(crate) fn start_with(keys: CurveKeyPair, backend: &str, logs: &str) -> Self {
        let context = Context::new();
        let bind = |endpoint: &str, options: &RouterOptions| {
            let endpoint: SocketAddr = endpoint.parse().unwrap();
            RouterSocket::bind(&context, endpoint, ServerSecurity::Curve(&keys), options).unwrap()
        };
        let (backend, logs) = (bind(backend, &RouterOptions::backend()), bind(logs, &RouterOptions::logs()));
        Self {
            context,
            keys,
            backend,
            logs,
            received: BTreeMap::new(),
            window: 1 << 20,
            deaf_to_logs: false,
            publish_port: 9,
            signing_keys: Vec::new(),
            trust_probe: None,
            heartbeat_ms: 200,
            peer: None,
            session: 100,
            sequence: 0,
        }
    }

    /// Goes away, and gives what is needed to come back at the same place.
    pub(crate) async fn stop(self) -> (CurveKeyPair, String, String, BTreeMap<i64, ReceivedLog>) {
        let places = (self.backend.endpoint().to_string(), self.logs.endpoint().to_string());
        drop((self.backend, self.logs));
        self.context.close().await;
        (self.keys, places.0, places.1, self.received)
    }

    pub(crate) fn send(&mut self, body: impl Into<ServerBody>) {
        self.sequence += 1;
        let message = ServerMessage::new(self.session, self.sequence, body);
        self.backend.send(self.peer.unwrap(), &message.encode().unwrap()).unwrap();
    }

    pub(crate) fn send_without_session(&mut self, body: impl Into<ServerBody>) {
        let message = ServerMessage::new(0, 0, body);
        self.backend.send(self.peer.unwrap(), &message.encode().unwrap()).unwrap();
    }

    pub(crate) fn send_frame(&mut self, frame: &[u8]) {
        self.backend.send(self.peer.unwrap(), frame).unwrap();
    }

    pub(crate) fn welcome(&mut self) {
        self.session += 1;
        self.sequence = 0;
        let welcome = proto::Welcome {
            protocol: 1,
            session: self.session,
            server: "scripted".to_owned(),
            epoch: 1,
            log_port: self.logs.endpoint().port().into(),
            publish: Some(proto::welcome::Publish::PublishPort(self.publish_port)),
            signing_keys: self.signing_keys.clone(),
            heartbeat_interval_ms: self.heartbeat_ms,
            lease_ms: 60_000,
            trust_probe: self.trust_probe.clone(),
            ..proto::Welcome::default()
        };
        self.send(welcome);
    }

    pub(crate) fn ack(&mut self, attempt: i64) {
        self.send(proto::Ack { attempts: vec![attempt] });
    }

    pub(crate) fn release(&mut self, attempt: i64) {
        self.send(proto::Release { attempts: vec![attempt] });
    }

    /// The next message of the worker, heartbeats too; logs are received meanwhile.
    pub(crate) async fn next(&mut self) -> WorkerMessage {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            tokio::select! {
                incoming = self.backend.recv() => {
                    let Incoming { routing_id, frame, .. } = incoming.unwrap();
                    self.peer = Some(routing_id);
                    return WorkerMessage::decode(&frame).unwrap();
                }
                incoming = self.logs.recv() => self.log_message(&incoming.unwrap()),
                () = tokio::time::sleep_until(deadline) => panic!("the worker said nothing for {DEADLINE:?}"),
            }
        }
    }

    /// The next message that is no heartbeat.
    pub(crate) async fn hear(&mut self) -> WorkerBody {
        loop {
            let message = self.next().await;
            if !matches!(message.body, WorkerBody::Heartbeat(_)) {
                return message.body;
            }
        }
    }

    /// Receives logs until `done`.
    pub(crate) async fn receive_logs(&mut self, done: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !done(self) {
            tokio::select! {
                incoming = self.logs.recv() => self.log_message(&incoming.unwrap()),
                incoming = self.backend.recv() => drop(incoming.unwrap()),
                () = tokio::time::sleep_until(deadline) => panic!("the log did not come: {:?}", self.received),
            }
        }
    }

    pub(crate) async fn receive_whole_log(&mut self, attempt: i64) -> ReceivedLog {
        self.receive_logs(|server| server.received.get(&attempt).is_some_and(|log| log.end.is_some())).await;
        self.received[&attempt].clone()
    }

    fn log_message(&mut self, incoming: &Incoming) {
        let message = LogMessage::decode(&incoming.frame).unwrap();
        let reply = |body: LogReplyBody| LogReply { attempt: message.attempt, body };
        if self.deaf_to_logs {
            return;
        }
        if message.attempt == 666 {
            let refused = LogRefused { message: "no such attempt".to_owned(), forget: true };
            let frame = reply(refused.into()).encode().unwrap();
            self.logs.send(incoming.routing_id, &frame).unwrap();
            return;
        }
        let log = self.received.entry(message.attempt).or_default();
        let mut complete = false;
        match message.body {
            LogBody::Open(_) => log.opened += 1,
            LogBody::Chunk(chunk) => {
                if chunk.offset == log.stream.len() as u64 {
                    log.stream.extend_from_slice(&chunk.data);
                }
            }
            LogBody::End(end) => {
                if end.stream_bytes == log.stream.len() as u64 {
                    log.end = Some(end);
                    complete = true;
                }
            }
            LogBody::Unknown { tag } => panic!("unknown log message {tag}"),
        }
        let ack = LogAck { offset: log.stream.len() as u64, window: self.window, complete };
        let frame = reply(ack.into()).encode().unwrap();
        self.logs.send(incoming.routing_id, &frame).unwrap();
    }

    /// Hello, Welcome, Credit.
    pub(crate) async fn join(&mut self) -> proto::Hello {
        let WorkerBody::Hello(hello) = self.hear().await else { panic!("no hello") };
        self.welcome();
        hello
    }

    pub(crate) async fn join_with_credit(&mut self, granted: u64) -> proto::Hello {
        let hello = self.join().await;
        self.expect_credit(granted).await;
        hello
    }

    pub(crate) async fn expect_credit(&mut self, granted: u64) {
        match self.hear().await {
            WorkerBody::Credit(credit) => assert_eq!(credit.granted, granted),
            other => panic!("expected credit {granted}, got {other:?}"),
        }
    }

    pub(crate) async fn expect_started(&mut self, attempt: i64) {
        match self.hear().await {
            WorkerBody::Started(started) => assert_eq!(started.attempt, attempt),
            other => panic!("expected the start of {attempt}, got {other:?}"),
        }
    }

    pub(crate) async fn expect_finished(&mut self, attempt: i64) -> proto::Finished {
        match self.hear().await {
            WorkerBody::Finished(finished) => {
                assert_eq!(finished.attempt, attempt, "{finished:?}");
                finished
            }
            other => panic!("expected the end of {attempt}, got {other:?}"),
        }
    }
}

pub(crate) fn assign(attempt: i64) -> proto::Assign {
    proto::Assign {
        attempt,
        build: attempt,
        kind: proto::AttemptKind::First.into(),
        derivation: "/nix/store/00000000000000000000000000000000-x.drv".to_owned(),
        system: "x86_64-linux".to_owned(),
        outputs: vec![proto::ExpectedOutput {
            name: "out".to_owned(),
            path: "/nix/store/00000000000000000000000000000001-x".to_owned(),
        }],
        ..proto::Assign::default()
    }
}

/// What a simulated build does, in this order.
pub(crate) enum Step {
    Log(Vec<u8>),
    Started,
    End(Report),
    Panic,
}

/// A builder whose attempts do what the test sends them.
#[derive(Default)]
pub(crate) struct ScriptedBuilder {
    scripts: Mutex<BTreeMap<AttemptId, mpsc::UnboundedReceiver<Step>>>,
    pub(crate) released: Mutex<Vec<i64>>,
    pub(crate) restored: Mutex<Vec<i64>>,
    pub(crate) dropped: Arc<Mutex<Vec<i64>>>,
    pub(crate) unaccepted: Mutex<Option<Unaccepted>>,
}

impl ScriptedBuilder {
    pub(crate) fn script(&self, attempt: i64) -> mpsc::UnboundedSender<Step> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.scripts.lock().unwrap().insert(AttemptId::new(attempt).unwrap(), receiver);
        sender
    }
}

struct Dropped(i64, Arc<Mutex<Vec<i64>>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

#[async_trait]
impl Builder for ScriptedBuilder {
    async fn accept(&self, _: &Server) -> Result<(), Unaccepted> {
        self.unaccepted.lock().unwrap().take().map_or(Ok(()), Err)
    }

    async fn build(&self, assignment: &Assignment, context: &AttemptContext) -> Report {
        let mut script = self.scripts.lock().unwrap().remove(&assignment.attempt).expect("a script");
        let _dropped = Dropped(assignment.attempt.get(), Arc::clone(&self.dropped));
        loop {
            match script.recv().await {
                Some(Step::Log(text)) => context.log.write(&text),
                Some(Step::Started) => context.building(Duration::from_millis(3)),
                Some(Step::End(report)) => return report,
                Some(Step::Panic) => panic!("told to"),
                None => std::future::pending().await,
            }
        }
    }

    async fn release(&self, attempts: &[AttemptId]) {
        self.released.lock().unwrap().extend(attempts.iter().map(|id| id.get()));
    }

    async fn restore(&self, kept: &[AttemptId]) {
        self.restored.lock().unwrap().extend(kept.iter().map(|id| id.get()));
    }

    fn load(&self) -> Load {
        Load { load1_centi: 42, ..Load::default() }
    }
}

/// A worker in a task.
pub(crate) struct TestWorker {
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), WorkerError>>,
}

impl TestWorker {
    pub(crate) fn start(config: SessionConfig, builder: Arc<ScriptedBuilder>) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(hauberk_worker::run_with_builder(config, builder, stop.clone(), || {}));
        Self { stop, task }
    }

    pub(crate) async fn ended(self) -> Result<(), WorkerError> {
        tokio::time::timeout(DEADLINE, self.task).await.expect("the worker ends").unwrap()
    }

    /// Ends it without a chance to tidy up.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

pub(crate) fn security(server: &ScriptedServer) -> Security {
    Security::Curve { keys: CurveKeyPair::generate(), server: *server.keys.public() }
}

pub(crate) fn session_config(server: &ScriptedServer, spool: Option<&Path>) -> SessionConfig {
    SessionConfig {
        name: "w1".to_owned(),
        machine: "here".to_owned(),
        version: "1".to_owned(),
        store_directory: StoreDirectory::nix(),
        systems: vec!["x86_64-linux".to_owned()],
        features: vec!["big".to_owned()],
        mandatory_features: Vec::new(),
        slots: 2.try_into().unwrap(),
        ahead: 0,
        publish: PublishAddress::Port(5558),
        signing_key: "w1:key".to_owned(),
        cores: 2,
        memory_bytes: 1 << 30,
        daemon: "simulated".to_owned(),
        security: security(server),
        server: ServerLocation::Addresses(vec![server.backend.endpoint().to_string().parse().unwrap()]),
        spool: spool.map_or(SpoolPlace::Memory, |path| SpoolPlace::Directory(path.to_owned())),
        log_limits: LogLimits::default(),
        trust_check: TrustCheck::Require,
        grace: Duration::from_secs(20),
        context: SharedContext::default(),
    }
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
