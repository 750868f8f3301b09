//! The worker with real nix-daemons, each with a store of its own, and a scripted server that serves one of the stores.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test program")]

#[path = "../common/mod.rs"]
mod common;
mod machine;
mod shortage;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{DEADLINE, ScriptedServer, security, until};
use hauberk_daemon::{BuildDaemon as _, ClientOptions, ConnectOptions, Connection, Pool};
use hauberk_protocol::WorkerBody;
use hauberk_protocol::proto::{self, AttemptKind, DeclineReason, Origin, Outcome};
use hauberk_publish::client::ClientConfig;
use hauberk_publish::{
    BaseUrl, PublishConfig, PublishServer, Signer, StoreSource, SubstituteClient, TrustedKeys,
};
use hauberk_store::nar::Node;
use hauberk_store::narinfo::{Compression, NarUrl};
use hauberk_store::signature::{self, nix::SecretKey};
use hauberk_store::{DrvPath, NarInfo, Sha256, StoreDirectory, StorePath};
use hauberk_worker::{Config, LogLimits, ServerLocation, TrustCheck, WorkerError, native_system};
use machine::{Machine, processes_with, script};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A farm of one server and one worker, each with its own store.
struct Farm {
    store: Machine,
    machine: Machine,
    server: ScriptedServer,
    config: Config,
    stop: CancellationToken,
    worker: Option<JoinHandle<Result<(), WorkerError>>>,
    publishing: CancellationToken,
    worker_port: u16,
    _spool: TempDir,
    next: i64,
}

fn publish(store: &Machine, key: &SecretKey, stop: &CancellationToken) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let pool = Pool::to_socket(store.address(), ConnectOptions::default(), ClientOptions::default(), 4);
    let config = PublishConfig {
        signer: Signer::nix([key.clone()]),
        store: Some(StoreSource::new(pool, store.path())),
        ..PublishConfig::new(StoreDirectory::nix())
    };
    drop(PublishServer::new(listener, config).spawn_on_own_runtime(1, stop.clone()).unwrap());
    port
}

/// A text in the store, signed.
fn trust_probe(key: &SecretKey) -> proto::TrustProbe {
    let nar = Node::file("nobody needs this").to_nar().unwrap();
    let hash = Sha256::digest(&nar);
    let mut narinfo = NarInfo {
        store_path: StorePath::parse("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hauberk-trust-probe")
            .unwrap(),
        urls: vec![NarUrl {
            url: "nar/probe.nar".to_owned(),
            compression: Compression::None,
            file_size: None,
            file_hash: None,
        }],
        nar_hash: hash,
        nar_size: nar.len() as u64,
        references: Default::default(),
        deriver: None,
        system: None,
        signatures: Vec::new(),
        ca: None,
        unknown: Vec::new(),
        guix_signature: None,
    };
    narinfo.sign(key);
    proto::TrustProbe { narinfo: narinfo.to_string(), nar: nar.into(), export: Default::default() }
}

impl Farm {
    async fn start() -> Self {
        let mut farm = Self::set_up(true, TrustCheck::Require).await;
        farm.start_worker();
        farm.server.join_with_credit(2).await;
        farm
    }

    async fn set_up(trusted: bool, trust_check: TrustCheck) -> Self {
        Self::set_up_with(trusted, trust_check, machine::Disks::default()).await
    }

    async fn set_up_with(trusted: bool, trust_check: TrustCheck, disks: machine::Disks<'_>) -> Self {
        let key = SecretKey::generate("farm-1").unwrap();
        let settings = match trusted {
            true => format!("trusted-public-keys = {}\n", key.public_key()),
            false => "trusted-public-keys =\n".to_owned(),
        };
        let (store, machine) = tokio::join!(Machine::start(""), Machine::start_with(&settings, disks));
        let publishing = CancellationToken::new();
        let mut server = ScriptedServer::start();
        server.publish_port = publish(&store, &key, &publishing).into();
        server.signing_keys = vec![proto::SigningKey {
            store_directory: "/nix/store".to_owned(),
            key: key.public_key().to_string(),
        }];
        server.trust_probe = Some(trust_probe(&key));
        let spool = tempfile::tempdir().unwrap();
        let worker_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = Config {
            name: "w1".to_owned(),
            version: "test".to_owned(),
            slots: 2.try_into().unwrap(),
            systems: vec![native_system()],
            features: Vec::new(),
            mandatory_features: Vec::new(),
            store_directory: StoreDirectory::nix(),
            signing_key: signature::SecretKey::Nix(SecretKey::generate("w1-1").unwrap()),
            security: security(&server),
            server: ServerLocation::Addresses(vec![server.backend.endpoint().to_string().parse().unwrap()]),
            publish_listen: [127, 0, 0, 1].into(),
            publish_compression: Compression::Zstd,
            publish_threads: 2,
            publish_port: worker_port,
            publish_url: None,
            upload: false,
            spool: spool.path().to_owned(),
            log_limits: LogLimits::default(),
            daemon: machine.address(),
            build_directory: machine.path().join("tmp"),
            substitute_urls: Vec::new(),
            trust_check,
            grace: Duration::from_secs(10),
            reserve: hauberk_worker::Reserve::default(),
            collect_bytes: None,
            cores: None,
        };
        let stop = CancellationToken::new();
        Self {
            store,
            machine,
            server,
            config,
            stop,
            worker: None,
            publishing,
            worker_port,
            _spool: spool,
            next: 0,
        }
    }

    fn start_worker(&mut self) {
        self.stop = CancellationToken::new();
        self.worker = Some(tokio::spawn(hauberk_worker::run(self.config.clone(), self.stop.clone(), || {})));
    }

    async fn worker_ended(&mut self) -> Result<(), WorkerError> {
        tokio::time::timeout(DEADLINE, self.worker.take().unwrap()).await.unwrap().unwrap()
    }

    fn outputs(&self, drv: &DrvPath) -> Vec<(String, StorePath)> {
        let paths = self.store.run("nix-store", &["-q", "--outputs", &drv.to_string()]);
        paths.lines().map(|path| ("out".to_owned(), StorePath::parse(path).unwrap())).collect()
    }

    fn assignment(&mut self, drv: &DrvPath) -> proto::Assign {
        self.next += 1;
        let outputs = self.outputs(drv);
        proto::Assign {
            attempt: self.next,
            build: self.next,
            kind: AttemptKind::First.into(),
            derivation: drv.to_string(),
            system: native_system(),
            outputs: outputs
                .into_iter()
                .map(|(name, path)| proto::ExpectedOutput { name, path: path.to_string() })
                .collect(),
            ..proto::Assign::default()
        }
    }

    /// Assigns and waits for the result; acknowledges and takes the credit.
    async fn build(&mut self, assign: proto::Assign) -> proto::Finished {
        let attempt = assign.attempt;
        self.server.send(assign);
        let result = loop {
            match self.server.hear().await {
                WorkerBody::Started(started) => assert_eq!(started.attempt, attempt),
                WorkerBody::Finished(finished) => break finished,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(result.attempt, attempt);
        self.server.ack(attempt);
        let WorkerBody::Credit(_) = self.server.hear().await else { panic!("no credit") };
        result
    }

    async fn build_script(
        &mut self,
        name: &str,
        text: &str,
        change: impl FnOnce(&mut proto::Assign),
    ) -> proto::Finished {
        let drv = self.store.instantiate(&script(name, text, ""));
        let mut assign = self.assignment(&drv);
        change(&mut assign);
        self.build(assign).await
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.stop.cancel();
        self.publishing.cancel();
    }
}

/// A script whose process has so many MiB for some seconds: it fills a buffer, and cannot write it for as long.
fn hungry(mebibytes: u32) -> String {
    format!("dd if=/dev/zero bs={mebibytes}M count=1 | {{ sleep 4; cat > /dev/null; }}; echo done > $out")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_builds_side_by_side_is_told_apart() {
    const MIB: u64 = 1 << 20;
    let mut farm = Farm::start().await;
    let mut sent = BTreeMap::new();
    for mebibytes in [200, 64] {
        let drv = farm.store.instantiate(&script(&format!("hungry-{mebibytes}"), &hungry(mebibytes), ""));
        let assign = farm.assignment(&drv);
        sent.insert(assign.attempt, u64::from(mebibytes));
        farm.server.send(assign);
    }
    let mut begun = 0;
    while !sent.is_empty() {
        match farm.server.hear().await {
            WorkerBody::Started(_) => begun += 1,
            WorkerBody::Finished(finished) => {
                assert_eq!(begun, 2, "they did not run side by side");
                assert_eq!(finished.outcome(), Outcome::Succeeded, "{finished:?}");
                let allocated = sent.remove(&finished.attempt).unwrap() * MIB;
                let peak = finished.peak_memory_bytes;
                assert!((allocated..allocated + 24 * MIB).contains(&peak), "{allocated}: {finished:?}");
                farm.server.ack(finished.attempt);
            }
            WorkerBody::Credit(_) | WorkerBody::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // What was valid already used nothing that could be told.
    let drv = farm.store.instantiate(&script("hungry-64", &hungry(64), ""));
    let again = farm.assignment(&drv);
    farm.server.send(again);
    let finished = loop {
        if let WorkerBody::Finished(finished) = farm.server.hear().await {
            break finished;
        }
    };
    assert_eq!((finished.origin(), finished.peak_memory_bytes), (Origin::AlreadyValid, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_whose_input_comes_from_the_server() {
    let mut farm = Farm::start().await;
    let dependency = script("dependency", "echo data > $out", "");
    let expression = script(
        "user",
        "echo start; cat $dep; read line < $dep; echo \"got $line $dep\" > $out",
        &format!("dep = {dependency};"),
    );
    let drv = farm.store.instantiate(&expression);
    let dependency =
        StorePath::parse(&farm.store.run("nix-build", &["--no-out-link", "-E", &dependency])).unwrap();
    let assign = farm.assignment(&drv);
    let output = assign.outputs[0].path.clone();
    let finished = farm.build(assign.clone()).await;
    assert_eq!((finished.outcome(), finished.origin()), (Outcome::Succeeded, Origin::Built), "{finished:?}");
    let info = &finished.outputs[0];
    assert_eq!((info.name.as_str(), info.path.as_str()), ("out", output.as_str()));
    assert_eq!(info.references, [dependency.to_string()]);
    assert!(farm.machine.is_valid(&dependency).await);
    let log = farm.server.receive_whole_log(1).await.text();
    assert!(log.contains("hauberk: worker w1, attempt 1 of build 1"), "{log}");
    assert!(log.contains("\nstart\ndata\n"), "{log}");
    assert!(log.contains("hauberk: fetching inputs: 1 paths"), "{log}");

    // It serves what it made, signed with its key, and a client that believes the key takes it.
    let client = SubstituteClient::new(StoreDirectory::nix(), ClientConfig::farm()).unwrap();
    let base = BaseUrl::parse(&format!("http://127.0.0.1:{}", farm.worker_port)).unwrap();
    let trusted = TrustedKeys::one(farm.config.signing_key.public_key());
    let path = StorePath::parse(&output).unwrap();
    let narinfo = client.trusted_narinfo(&base, &path, &trusted).await.unwrap().unwrap();
    assert_eq!(narinfo.nar_hash.as_bytes().as_slice(), info.nar_hash.as_ref());

    // Its output outlives a garbage collection until it is released.
    farm.machine.run("nix-store", &["--gc"]);
    assert!(farm.machine.is_valid(&path).await);
    farm.server.release(1);
    let roots = farm.config.spool.join("roots");
    until("the root goes", || std::fs::read_dir(&roots).unwrap().next().is_none()).await;
    // Temporary roots stand for a minute at most.
    let deadline = Instant::now() + Duration::from_secs(180);
    while farm.machine.is_valid(&path).await {
        assert!(Instant::now() < deadline, "{path} is never collected");
        tokio::time::sleep(Duration::from_millis(200)).await;
        farm.machine.run("nix-store", &["--gc"]);
    }

    // And what is there already is not built again, but for a check.
    let finished = farm.build(proto::Assign { attempt: 2, ..assign.clone() }).await;
    assert_eq!(finished.origin(), Origin::Built);
    let finished = farm.build(proto::Assign { attempt: 3, ..assign.clone() }).await;
    assert_eq!((finished.outcome(), finished.origin()), (Outcome::Succeeded, Origin::AlreadyValid));
    let check = proto::Assign { attempt: 4, kind: AttemptKind::Check.into(), ..assign };
    let finished = farm.build(check).await;
    assert_eq!((finished.outcome(), finished.origin()), (Outcome::Succeeded, Origin::Built));
    farm.stop.cancel();
    farm.worker_ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_fail() {
    let mut farm = Farm::start().await;
    let failed = farm.build_script("fails", "echo No space left on device; exit 3", |_| {}).await;
    assert_eq!((failed.outcome(), failed.exit_status), (Outcome::BuildFailed, Some(3)), "{failed:?}");
    let failed = farm.build_script("killed", "kill -SEGV $$", |_| {}).await;
    assert_eq!((failed.outcome(), failed.exit_status), (Outcome::BuildFailed, Some(139)), "{failed:?}");
    let failed = farm.build_script("forgets", "true", |_| {}).await;
    assert_eq!(failed.outcome(), Outcome::BuildFailed, "{failed:?}");
    let slow = "while true; do echo tick; sleep 0.2; done";
    let failed = farm.build_script("slow", slow, |assign| assign.timeout_s = 1).await;
    assert_eq!(failed.outcome(), Outcome::TimedOut, "{failed:?}");
    let failed = farm.build_script("silent", "echo once; sleep 7777", |assign| assign.max_silent_s = 1).await;
    assert_eq!(failed.outcome(), Outcome::Silent, "{failed:?}");
    let chatty = "while true; do echo chatter 7778; done";
    let failed = farm.build_script("chatty", chatty, |assign| assign.log_limit_bytes = 10_000).await;
    assert_eq!(failed.outcome(), Outcome::LogLimit, "{failed:?}");
    let log = farm.server.receive_whole_log(farm.next).await.text();
    assert_eq!(log.matches("chatter 7778\n").count(), 10_000 / 13);
    let big = farm
        .build_script("big", "head -c 100000 /dev/zero > $out", |assign| assign.output_limit_bytes = 50_000)
        .await;
    assert_eq!(big.outcome(), Outcome::OutputLimit, "{big:?}");
    until("no builder is left", || processes_with("sleep 7777") + processes_with("chatter 7778") == 0).await;
    // None of it was the machine's fault, and the worker still works.
    let fine = farm.build_script("fine", "echo > $out", |_| {}).await;
    assert_eq!(fine.outcome(), Outcome::Succeeded, "{fine:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_the_machines_fault() {
    let mut farm = Farm::set_up_with(
        true,
        TrustCheck::Require,
        machine::Disks { build: Some("64m"), ..Default::default() },
    )
    .await;
    farm.start_worker();
    farm.server.join_with_credit(2).await;
    let file = farm.config.build_directory.join("file");
    let text = format!("head -c 200000000 /dev/zero > {0} || {{ rm {0}; exit 1; }}", file.display());
    let failed = farm.build_script("greedy", &text, |_| {}).await;
    assert_eq!(failed.outcome(), Outcome::DiskFull, "{failed:?}");
    let failed = farm.build_script("complains", "echo No space left on device; exit 1", |_| {}).await;
    assert_eq!(failed.outcome(), Outcome::BuildFailed, "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_has_is_told_quickly() {
    let mut farm = Farm::start().await;
    let dependency = script("never-built", "echo x > $out", "");
    let drv = farm.store.instantiate(&script("user", "cat $dep > $out", &format!("dep = {dependency};")));
    let missing = farm.outputs(&farm.store.instantiate(&dependency)).remove(0).1;
    let begun = Instant::now();
    let assign = farm.assignment(&drv);
    let finished = farm.build(assign).await;
    assert_eq!(finished.outcome(), Outcome::MissingInputs, "{finished:?}");
    assert_eq!(finished.missing, [missing.to_string()]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // A derivation that nobody has.
    let mut assign = farm.assignment(&drv);
    assign.derivation = "/nix/store/00000000000000000000000000000000-gone.drv".to_owned();
    let finished = farm.build(assign.clone()).await;
    assert_eq!((finished.outcome(), finished.missing), (Outcome::MissingInputs, vec![assign.derivation]));
    // A publish server that is away is another matter.
    farm.publishing.cancel();
    let url = format!("127.0.0.1:{}", farm.server.publish_port);
    until("the publish server ends", || std::net::TcpStream::connect(&url).is_err()).await;
    let another = farm.store.instantiate(&script("another", "echo > $out", ""));
    let assign = farm.assignment(&another);
    assert_eq!(farm.build(assign).await.outcome(), Outcome::Transfer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_differs_is_declined_and_so_are_other_outputs() {
    let mut farm = Farm::start().await;
    let dependency = script("dependency", "echo data > $out", "");
    let drv = farm.store.instantiate(&script("user", "cat $dep > $out", &format!("dep = {dependency};")));
    let dependency = farm.store.run("nix-build", &["--no-out-link", "-E", &dependency]);
    let assign = farm.assignment(&drv);
    assert_eq!(farm.build(assign).await.outcome(), Outcome::Succeeded);
    let mut assign = farm.assignment(&drv);
    assign.kind = AttemptKind::Check.into();
    assign.inputs = vec![proto::Input {
        path: dependency.clone(),
        nar_hash: vec![7; 32].into(),
        nar_size: 1,
        ..proto::Input::default()
    }];
    farm.server.send(assign);
    match farm.server.hear().await {
        WorkerBody::Declined(declined) => {
            assert_eq!((declined.reason(), declined.paths), (DeclineReason::InputDiffers, vec![dependency]));
        }
        other => panic!("{other:?}"),
    }
    farm.server.expect_credit(4).await;
    let mut assign = farm.assignment(&drv);
    assign.outputs[0].path = "/nix/store/00000000000000000000000000000000-other".to_owned();
    farm.server.send(assign);
    match farm.server.hear().await {
        WorkerBody::Declined(declined) => assert_eq!(declined.reason(), DeclineReason::Unsupported),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_differs_is_replaced_by_the_farms() {
    let mut farm = Farm::start().await;
    // Another one each time it is built.
    let dependency = script("dependency", "cat /proc/sys/kernel/random/uuid > $out", "");
    let drv = farm.store.instantiate(&script("user", "cat $dep > $out", &format!("dep = {dependency};")));
    let dependency_drv = farm.store.instantiate(&dependency);
    let assign = farm.assignment(&dependency_drv);
    let own = farm.build(assign).await;
    assert_eq!(own.outcome(), Outcome::Succeeded, "{own:?}");
    let path = farm.store.run("nix-build", &["--no-out-link", "-E", &dependency]);
    let hash = farm.store.run("nix-store", &["--query", "--hash", &path]);
    let hash = Sha256::parse(&hash).unwrap();
    assert_ne!(own.outputs[0].nar_hash.as_ref(), hash.as_bytes());

    let mut assign = farm.assignment(&drv);
    let nar_hash = hash.as_bytes().to_vec().into();
    assign.inputs =
        vec![proto::Input { path: path.clone(), nar_hash, nar_size: 1, ..proto::Input::default() }];
    let finished = farm.build(assign).await;
    assert_eq!(finished.outcome(), Outcome::Succeeded, "{finished:?}");
    // It was made of the farm's.
    let farms = farm.store.run(
        "nix-build",
        &["--no-out-link", "-E", &script("user", "cat $dep > $out", &format!("dep = {dependency};"))],
    );
    let farms = farm.store.run("nix-store", &["--query", "--hash", &farms]);
    assert_eq!(finished.outputs[0].nar_hash.as_ref(), Sha256::parse(&farms).unwrap().as_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canceled_build_leaves_no_builder() {
    let mut farm = Farm::start().await;
    let drv = farm.store.instantiate(&script("endless", "echo begun; sleep 7779", ""));
    let assign = farm.assignment(&drv);
    farm.server.send(assign);
    farm.server.expect_started(1).await;
    until("the builder runs", || processes_with("sleep 7779") > 0).await;
    farm.server.send(proto::Cancel { attempt: 1, reason: "changed my mind".to_owned() });
    assert_eq!(farm.server.expect_finished(1).await.outcome(), Outcome::Canceled);
    until("the builder is gone", || processes_with("sleep 7779") == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_worker_leaves_no_builder() {
    let mut farm = Farm::set_up(true, TrustCheck::Require).await;
    farm.config.grace = Duration::from_millis(100);
    farm.start_worker();
    farm.server.join_with_credit(2).await;
    let drv = farm.store.instantiate(&script("endless", "echo begun; sleep 7780", ""));
    let assign = farm.assignment(&drv);
    farm.server.send(assign);
    farm.server.expect_started(1).await;
    until("the builder runs", || processes_with("sleep 7780") > 0).await;
    farm.stop.cancel();
    let goodbye = loop {
        if let WorkerBody::Goodbye(goodbye) = farm.server.hear().await {
            break goodbye;
        }
    };
    assert!(!goodbye.reason.is_empty());
    farm.worker_ended().await.unwrap();
    until("the builder is gone", || processes_with("sleep 7780") == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_ends_while_the_server_is_away() {
    let mut farm = Farm::start().await;
    let gate = farm.machine.path().join("tmp/gate");
    let wait = format!("while ! test -e {}; do sleep 0.05; done; echo > $out", gate.display());
    let drv = farm.store.instantiate(&script("waits", &wait, ""));
    let assign = farm.assignment(&drv);
    farm.server.send(assign);
    farm.server.expect_started(1).await;
    let placeholder = ScriptedServer::start();
    let old = std::mem::replace(&mut farm.server, placeholder);
    let (publish_port, signing_keys) = (old.publish_port, old.signing_keys.clone());
    let (keys, backend, logs, received) = old.stop().await;
    std::fs::write(&gate, "").unwrap();
    let roots = farm.config.spool.join("results");
    until("the result is recorded", || std::fs::read_dir(&roots).unwrap().next().is_some()).await;
    farm.server = ScriptedServer::start_with(keys, &backend, &logs);
    farm.server.received = received;
    (farm.server.publish_port, farm.server.signing_keys) = (publish_port, signing_keys);
    let hello = farm.server.join().await;
    assert_eq!((hello.unacknowledged, hello.unreleased), (vec![1], vec![1]));
    assert_eq!(farm.server.expect_finished(1).await.outcome(), Outcome::Succeeded);
    assert!(farm.server.receive_whole_log(1).await.text().contains("succeeded"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_does_not_know_the_servers_key_is_found_out() {
    let mut farm = Farm::set_up(false, TrustCheck::Require).await;
    farm.start_worker();
    farm.server.join().await;
    let error = farm.worker_ended().await.unwrap_err().to_string();
    let key = farm.server.signing_keys[0].key.clone();
    assert!(error.contains(&format!("extra-trusted-public-keys = {key}")), "{error}");
    assert!(error.contains("/etc/nix/nix.conf"), "{error}");
    farm.config.trust_check = TrustCheck::Warn;
    farm.start_worker();
    farm.server.join_with_credit(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_a_daemon_or_with_a_taken_port_says_so() {
    let mut farm = Farm::set_up(true, TrustCheck::Require).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = farm.config.publish_port;
    farm.config.publish_port = taken.local_addr().unwrap().port();
    farm.start_worker();
    let error = farm.worker_ended().await.unwrap_err();
    assert!(
        matches!(&error, WorkerError::Listen { message } if message.contains("--publish-port")),
        "{error}"
    );
    farm.config.publish_port = free;
    farm.config.daemon = hauberk_daemon::DaemonAddress::from_path("/nonexistent/socket");
    farm.start_worker();
    let error = farm.worker_ended().await.unwrap_err();
    assert!(matches!(error, WorkerError::Daemon { .. }));
    assert!(error.to_string().contains("/nonexistent/socket"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_builds_run_at_once_and_share_their_inputs() {
    let mut farm = Farm::start().await;
    let dependency = script("dependency", "head -c 3000000 /dev/urandom > $out", "");
    let gates: BTreeMap<i64, _> =
        (1..=2).map(|n| (n, farm.machine.path().join(format!("tmp/gate{n}")))).collect();
    let path = farm.store.run("nix-build", &["--no-out-link", "-E", &dependency]);
    for (number, gate) in &gates {
        let other = &gates[&(3 - number)];
        let text = format!(
            "test -e $dep; touch {}; while ! test -e {}; do sleep 0.05; done; echo > $out",
            gate.display(),
            other.display()
        );
        let drv =
            farm.store.instantiate(&script(&format!("twin{number}"), &text, &format!("dep = {dependency};")));
        let assign = farm.assignment(&drv);
        farm.server.send(assign);
    }
    let mut ended = 0;
    while ended < 2 {
        if let WorkerBody::Finished(finished) = farm.server.hear().await {
            assert_eq!(finished.outcome(), Outcome::Succeeded, "{finished:?}");
            ended += 1;
        }
    }
    let mut daemon = Connection::connect(&farm.machine.address(), &ConnectOptions::default()).await.unwrap();
    assert!(daemon.is_valid_path(&StorePath::parse(&path).unwrap()).await.unwrap());
}
