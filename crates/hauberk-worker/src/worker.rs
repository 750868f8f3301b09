//! The worker: one task that owns the session, and carries out what it decides.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hauberk_protocol::proto::{self, Hello, Machine, Welcome, hello, welcome};
use hauberk_protocol::socket::{ConnectionEvent, DealerEvent, SendError};
use hauberk_protocol::{PROTOCOL_VERSION, ServerMessage};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, info, warn};

use crate::builder::{AttemptContext, Builder, Progress, Server, TrustProbe, Unaccepted};
use crate::config::{PublishAddress, Security, SessionConfig, SpoolPlace, TrustCheck};
use crate::error::WorkerError;
use crate::finder::{Connection, Finder};
use crate::log::{AttemptLog, Courier};
use crate::machine::Shortage;
use crate::metrics::WorkerMetrics;
use crate::neighbours::Neighbours;
use crate::runner::{self, Stop, Workshop};
use crate::session::{Effect, Ending, Session, Timing};
use crate::spool::{Leftover, Spool};
use crate::upload::{UploadOrder, Uploads};
use crate::{Assignment, AttemptId};

/// The pause before frames are sent again that the socket did not take.
const FULL: Duration = Duration::from_millis(10);

/// Frames that may wait for the socket before the connection is given up.
const LONGEST_OUTBOX: usize = 16_384;

/// The pause before the server's key is tried again when it could not be found out.
const TRUST_RETRY: Duration = Duration::from_secs(5);

/// A connection that was lost sooner than this is made again after as long.
const HASTY: Duration = Duration::from_millis(500);

/// How long the logs of a drained worker may take to leave.
const LAST_LOGS: Duration = Duration::from_secs(30);

/// How long the last frames may take to leave.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs a worker whose attempts are run by `builder`, until `stop` or a reason to end. Many can run in one process.
///
/// `ready` is called when the spool is open and the search for the server begins. After `stop`, running attempts have
/// [`SessionConfig::grace`] to end; what then still runs is given back to the server.
///
/// # Errors
/// [`WorkerError`]: the spool is taken, the server refuses the worker for good, or its key is not accepted.
pub async fn run_with_builder(
    config: SessionConfig,
    builder: Arc<dyn Builder>,
    stop: CancellationToken,
    ready: impl FnOnce() + Send,
) -> Result<(), WorkerError> {
    run_counted(config, builder, stop, ready, WorkerMetrics::default()).await
}

/// Does as [`run_with_builder`], and counts.
pub(crate) async fn run_counted(
    config: SessionConfig,
    builder: Arc<dyn Builder>,
    stop: CancellationToken,
    ready: impl FnOnce() + Send,
    metrics: WorkerMetrics,
) -> Result<(), WorkerError> {
    let span = tracing::info_span!("worker", worker.name = %config.name);
    Box::pin(run(config, builder, stop, ready, metrics)).instrument(span).await
}

async fn run(
    config: SessionConfig,
    builder: Arc<dyn Builder>,
    stop: CancellationToken,
    ready: impl FnOnce() + Send,
    metrics: WorkerMetrics,
) -> Result<(), WorkerError> {
    let (courier, courier_task) = Courier::new();
    metrics.begin(config.slots.get(), courier.spooled_gauge());
    let (spool, leftover) = match &config.spool {
        SpoolPlace::Directory(directory) => {
            let (directory, name, limits, wake) =
                (directory.clone(), config.name.clone(), config.log_limits, courier.wake());
            let open = move || Spool::open(&directory, &name, limits, &wake);
            tokio::task::spawn_blocking(open)
                .await
                .unwrap_or(Err(crate::spool::SpoolError::Ending))
                .map_err(WorkerError::Spool)?
        }
        SpoolPlace::Memory => (Spool::in_memory(config.log_limits), Leftover::default()),
    };
    let served: Vec<AttemptId> = leftover
        .kept
        .iter()
        .copied()
        .chain(leftover.results.iter().filter(|(_, result)| !result.outputs.is_empty()).map(|(id, _)| *id))
        .collect();
    builder.restore(&served).await;
    for log in leftover.logs {
        courier.add(log);
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(courier_task.run(config.context.0.clone(), config.security.clone()));

    let session = Session::new(
        identity(&config),
        usize::try_from(config.ahead).unwrap_or(usize::MAX),
        Timing::default(),
        leftover.results,
        leftover.kept,
    );
    let pinned = config.security.pinned().copied();
    let neighbours = Arc::new(match &config.spool {
        SpoolPlace::Directory(directory) => Neighbours::kept_in(directory, pinned),
        SpoolPlace::Memory => Neighbours::nobody(pinned),
    });
    let finder = Finder::new(
        &config.name,
        config.server.clone(),
        config.security.clone(),
        config.context.0.clone(),
        Arc::clone(&neighbours),
    )?;
    let (progress, progressed) = mpsc::unbounded_channel();
    let shortage = builder.shortage();
    let mut worker = Worker {
        link: Link::Searching(Box::pin(finder.clone().find(Duration::ZERO))),
        finder,
        neighbours,
        session,
        workshop: Workshop { builder, spool, courier },
        grace: config.grace,
        trust_check: config.trust_check,
        store_directory: config.store_directory.to_string(),
        outbox: VecDeque::new(),
        connected: None,
        server: None,
        accepted: None,
        trust: None,
        running: BTreeMap::new(),
        shortage,
        uploads: Uploads::default(),
        metrics,
        attempts: JoinSet::new(),
        progress,
        progressed,
    };
    worker.look();
    ready();
    let result = worker.run(stop).await;
    tasks.shutdown().await;
    result
}

fn identity(config: &SessionConfig) -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        name: config.name.clone(),
        machine: config.machine.clone(),
        version: config.version.clone(),
        store_directory: config.store_directory.to_string(),
        systems: config.systems.clone(),
        features: config.features.clone(),
        mandatory_features: config.mandatory_features.clone(),
        slots: config.slots.get(),
        publish: match &config.publish {
            PublishAddress::Url(url) => Some(hello::Publish::PublishUrl(url.clone())),
            PublishAddress::Port(port) => Some(hello::Publish::PublishPort((*port).into())),
            PublishAddress::Nowhere => None,
        },
        signing_key: config.signing_key.clone(),
        resources: Some(Machine {
            cores: config.cores,
            memory_bytes: config.memory_bytes,
            daemon: config.daemon.clone(),
        }),
        ..Hello::default()
    }
}

type Search = Pin<Box<dyn Future<Output = Result<Connection, WorkerError>> + Send>>;
type TrustVerdict = Pin<Box<dyn Future<Output = Result<(), Unaccepted>> + Send>>;

enum Link {
    Searching(Search),
    Connected(Connection),
}

enum LinkEvent {
    Found(Result<Connection, WorkerError>),
    Socket(DealerEvent),
    Broken,
}

struct Worker {
    link: Link,
    finder: Arc<Finder>,
    neighbours: Arc<Neighbours>,
    session: Session,
    workshop: Workshop,
    grace: Duration,
    trust_check: TrustCheck,
    store_directory: String,
    outbox: VecDeque<Bytes>,
    /// When the connection that stands was made.
    connected: Option<Instant>,
    server: Option<Arc<Server>>,
    /// The keys that the build daemon accepts, as far as was tried.
    accepted: Option<Vec<String>>,
    trust: Option<TrustVerdict>,
    running: BTreeMap<AttemptId, oneshot::Sender<Stop>>,
    /// What the machine lacks, if somebody looks.
    shortage: Option<watch::Receiver<Shortage>>,
    uploads: Uploads,
    metrics: WorkerMetrics,
    attempts: JoinSet<Option<(AttemptId, Ending)>>,
    progress: mpsc::UnboundedSender<Progress>,
    progressed: mpsc::UnboundedReceiver<Progress>,
}

/// Whether the worker goes on.
enum Next {
    GoOn,
    /// It has left as the server asked.
    Left,
}

impl Worker {
    /// Takes what the machine lacks now, before the first Hello.
    fn look(&mut self) {
        if let Some(shortage) = &mut self.shortage {
            let short = !shortage.borrow_and_update().is_empty();
            self.session.short(Instant::now(), short, &mut Vec::new());
        }
    }

    async fn run(mut self, stop: CancellationToken) -> Result<(), WorkerError> {
        let mut effects = Vec::new();
        loop {
            let full = self.post()?;
            let deadline = self.session.deadline().map(tokio::time::Instant::from_std);
            let due = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let verdict = async {
                match &mut self.trust {
                    Some(trust) => trust.await,
                    None => std::future::pending().await,
                }
            };
            let shortage = async {
                match &mut self.shortage {
                    Some(shortage) => match shortage.changed().await {
                        Ok(()) => !shortage.borrow_and_update().is_empty(),
                        // Nobody looks any more: what was seen last holds.
                        Err(_) => std::future::pending().await,
                    },
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return self.leave().await,
                short = shortage => self.session.short(Instant::now(), short, &mut effects),
                Some(progress) = self.progressed.recv() => self.advance(progress, &mut effects),
                Some(ended) = self.attempts.join_next() => self.end(ended, &mut effects),
                event = self.link.next() => self.link_event(event, &mut effects)?,
                verdict = verdict => {
                    self.trust = None;
                    self.judge(verdict, &mut effects)?;
                }
                () = due => {
                    let builder = &self.workshop.builder;
                    self.session.tick(Instant::now(), || builder.load(), &mut effects);
                }
                () = tokio::time::sleep(FULL), if full => {}
            }
            if let Next::Left = self.carry_out(&mut effects).await? {
                let courier = self.workshop.courier.clone();
                // What is not sent in time stays in the spool, for the next start.
                let _ = tokio::time::timeout(LAST_LOGS, courier.all_sent()).await;
                return self.farewell().await;
            }
        }
    }

    /// Sends what waits. Tells whether the socket was full.
    fn post(&mut self) -> Result<bool, WorkerError> {
        let Link::Connected(Connection { socket, .. }) = &mut self.link else { return Ok(false) };
        while let Some(frame) = self.outbox.front() {
            match socket.try_send(frame) {
                Ok(()) => drop(self.outbox.pop_front()),
                Err(SendError::Full) => {
                    if self.outbox.len() > LONGEST_OUTBOX {
                        warn!("the server takes no messages, connecting anew");
                        self.reconnect(Duration::from_secs(1));
                        return Ok(false);
                    }
                    return Ok(true);
                }
                Err(SendError::Socket(error)) => return Err(WorkerError::Socket(error)),
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "cannot send a message to the server");
                    self.outbox.pop_front();
                }
            }
        }
        Ok(false)
    }

    fn reconnect(&mut self, pause: Duration) {
        self.outbox.clear();
        self.metrics.lost();
        self.session.lost();
        self.link = Link::Searching(Box::pin(self.finder.clone().find(pause)));
    }

    fn link_event(&mut self, event: LinkEvent, effects: &mut Vec<Effect>) -> Result<(), WorkerError> {
        match event {
            LinkEvent::Found(found) => {
                let connection = found?;
                let endpoint = connection.socket.endpoint();
                info!(server.endpoint = %endpoint, "connected to {endpoint}");
                self.link = Link::Connected(connection);
                self.connected = Some(Instant::now());
                self.session.connected(Instant::now(), effects);
            }
            LinkEvent::Socket(DealerEvent::Frame(frame)) => match ServerMessage::decode(&frame) {
                Ok(message) => self.session.received(Instant::now(), message, effects),
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "ignored what the server sent");
                }
            },
            LinkEvent::Socket(DealerEvent::Connection(ConnectionEvent::Connected)) => {
                self.session.connected(Instant::now(), effects);
            }
            LinkEvent::Socket(DealerEvent::Connection(change)) => {
                warn!("{change}; what runs goes on");
                // A server that hangs up at once is not asked again at once.
                let hasty = self.connected.is_some_and(|since| since.elapsed() < HASTY);
                self.reconnect(if hasty { HASTY } else { Duration::ZERO });
            }
            LinkEvent::Broken => self.reconnect(Duration::from_secs(1)),
        }
        Ok(())
    }

    fn advance(&mut self, progress: Progress, effects: &mut Vec<Effect>) {
        match progress {
            Progress::Started { attempt, inputs } => self.session.started(attempt, inputs, effects),
            Progress::Phase { attempt, phase } => self.session.reached(attempt, phase),
        }
    }

    fn end(
        &mut self,
        ended: Result<Option<(AttemptId, Ending)>, tokio::task::JoinError>,
        effects: &mut Vec<Effect>,
    ) {
        match ended {
            Ok(Some((attempt, ending))) => {
                self.running.remove(&attempt);
                self.metrics.ended(&ending);
                self.metrics.busy(self.attempts.len());
                // What it told before its end comes first.
                while let Ok(progress) = self.progressed.try_recv() {
                    self.advance(progress, effects);
                }
                self.session.ended(Instant::now(), attempt, ending, effects);
            }
            Ok(None) => self.metrics.busy(self.attempts.len()),
            Err(error) => error!(%error, "a task that ran an attempt broke"),
        }
    }

    async fn carry_out(&mut self, effects: &mut Vec<Effect>) -> Result<Next, WorkerError> {
        let mut next = Next::GoOn;
        for effect in effects.drain(..) {
            match effect {
                Effect::Send(message) => match message.encode() {
                    Ok(frame) => self.outbox.push_back(frame),
                    Err(error) => error!(error = &error as &dyn std::error::Error, "cannot send a message"),
                },
                Effect::Begin(assignment) => self.begin(assignment),
                Effect::Abort(attempt, reason) => {
                    info!(attempt.id = %attempt, "attempt {attempt} is canceled: {reason}");
                    if let Some(stop) = self.running.remove(&attempt) {
                        // If it has just ended, its result says so.
                        let _ = stop.send(Stop::Canceled(reason));
                    }
                }
                Effect::Acknowledged { attempts, kept } => {
                    if let Err(error) = self.workshop.spool.acknowledge(attempts, kept).await {
                        warn!(error = &error as &dyn std::error::Error, "cannot tidy the spool");
                    }
                }
                Effect::Upload(upload) => self.upload(upload),
                Effect::Released(attempts) => {
                    self.uploads.end(&attempts);
                    self.workshop.builder.release(&attempts).await;
                    if let Err(error) = self.workshop.spool.release(attempts).await {
                        warn!(error = &error as &dyn std::error::Error, "cannot tidy the spool");
                    }
                }
                Effect::Welcomed(welcome) => self.welcomed(*welcome),
                Effect::Reconnect(pause) => self.reconnect(pause),
                Effect::Refused(refused) => {
                    return Err(WorkerError::Refused { reason: refused.reason(), message: refused.message });
                }
                Effect::Left => next = Next::Left,
            }
        }
        // A Welcome of a server whose keys were tried before asks for work at once.
        if self.trust.is_none() && self.session.is_joined() && !self.session.is_admitted() {
            let mut admitted = Vec::new();
            self.session.admit(Instant::now(), &mut admitted);
            for effect in admitted {
                if let Effect::Send(message) = effect
                    && let Ok(frame) = message.encode()
                {
                    self.outbox.push_back(frame);
                }
            }
        }
        Ok(next)
    }

    fn begin(&mut self, assignment: Arc<Assignment>) {
        let Some(server) = self.server.clone() else { return };
        let attempt = assignment.attempt;
        let log: AttemptLog = self.workshop.spool.begin_log(
            attempt,
            self.workshop.courier.spooled(),
            self.workshop.courier.wake(),
        );
        self.workshop.courier.add(log.clone());
        let (stop, stopped) = oneshot::channel();
        self.running.insert(attempt, stop);
        let context = AttemptContext { log, server, attempt, events: self.progress.clone() };
        let span = tracing::info_span!(
            "attempt",
            attempt.id = %attempt,
            build.id = assignment.build,
            build.drv = %assignment.derivation
        );
        debug!(parent: &span, "attempt {attempt} of build {}: {}", assignment.build, assignment.derivation);
        self.attempts
            .spawn(runner::run(self.workshop.clone(), assignment, context, stopped).instrument(span));
        self.metrics.busy(self.attempts.len());
    }

    fn welcomed(&mut self, welcome: Welcome) {
        let Link::Connected(Connection { socket, security }) = &self.link else { return };
        let host = socket.endpoint();
        self.neighbours.learn((host, security.pinned().copied()), &welcome.others);
        let publish_url = match welcome.publish {
            Some(welcome::Publish::PublishUrl(url)) => url,
            Some(welcome::Publish::PublishPort(port)) => {
                format!("http://{}", at_port(host, u16::try_from(port).unwrap_or_default()))
            }
            None => String::new(),
        };
        let signing_keys: Vec<String> = welcome
            .signing_keys
            .into_iter()
            .filter(|key| key.store_directory == self.store_directory)
            .map(|key| key.key)
            .collect();
        let trust_probe = welcome.trust_probe.map(|probe| TrustProbe {
            narinfo: probe.narinfo,
            nar: probe.nar,
            export: probe.export,
        });
        self.metrics.joined();
        info!(server.name = welcome.server, server.epoch = welcome.epoch, "joined {}", welcome.server);
        match u16::try_from(welcome.log_port) {
            Ok(port) if port != 0 => {
                self.workshop.courier.target(at_port(host, port), Security::clone(security));
            }
            _ => warn!("the server names no log port: logs wait in the spool"),
        }
        let server = Arc::new(Server { name: welcome.server, publish_url, signing_keys, trust_probe });
        self.server = Some(Arc::clone(&server));
        self.trust = None;
        if self.accepted.as_ref() != Some(&server.signing_keys) {
            self.trust = Some(self.ask(server, Duration::ZERO));
        }
    }

    /// Begins to upload what the server asks for, or begins anew with more.
    fn upload(&mut self, upload: proto::Upload) {
        let Some(server) = &self.server else { return };
        match UploadOrder::read(upload, &server.publish_url) {
            Ok(order) => self.uploads.begin(order, &self.workshop.builder),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the server asks for an upload that cannot be"
                );
            }
        }
    }

    fn ask(&self, server: Arc<Server>, pause: Duration) -> TrustVerdict {
        let builder = Arc::clone(&self.workshop.builder);
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            builder.accept(&server).await
        })
    }

    fn judge(
        &mut self,
        verdict: Result<(), Unaccepted>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), WorkerError> {
        match verdict {
            Ok(()) => {}
            Err(Unaccepted::Refused { message }) => match self.trust_check {
                // It has worked for another: what runs goes on, and may be told there.
                TrustCheck::Require if self.accepted.is_some() => {
                    error!("{message}; until then another server is looked for");
                    self.finder.shun();
                    self.reconnect(Duration::ZERO);
                    return Ok(());
                }
                TrustCheck::Require => return Err(WorkerError::Untrusted { message }),
                TrustCheck::Warn => warn!("{message}"),
            },
            Err(error @ Unaccepted::Unknown { .. }) => {
                warn!(error = &error as &dyn std::error::Error, "no work is asked for yet, trying again");
                self.trust = self.server.clone().map(|server| self.ask(server, TRUST_RETRY));
                return Ok(());
            }
        }
        self.accepted = self.server.as_ref().map(|server| server.signing_keys.clone());
        self.session.admit(Instant::now(), effects);
        Ok(())
    }

    /// Ends in order: takes no more, lets what runs end within the grace, gives the rest back.
    async fn leave(mut self) -> Result<(), WorkerError> {
        self.session.stop_taking();
        let courier = self.workshop.courier.clone();
        let running = self.session.active().len();
        info!(
            attempts.running = running,
            "stopping: {running} attempts run, and have {} s to end",
            self.grace.as_secs()
        );
        let over = tokio::time::Instant::now() + self.grace;
        let mut effects = Vec::new();
        let mut sent = false;
        while self.session.is_joined() || !self.session.active().is_empty() {
            if self.session.is_settled() && sent {
                break;
            }
            let full = self.post()?;
            let deadline = self.session.deadline().map_or(over, tokio::time::Instant::from_std).min(over);
            tokio::select! {
                Some(progress) = self.progressed.recv() => self.advance(progress, &mut effects),
                Some(ended) = self.attempts.join_next() => self.end(ended, &mut effects),
                event = self.link.next() => self.link_event(event, &mut effects)?,
                () = courier.all_sent(), if !sent => sent = true,
                () = sleep_until(deadline) => {
                    if tokio::time::Instant::now() >= over {
                        break;
                    }
                    let builder = &self.workshop.builder;
                    self.session.tick(Instant::now(), || builder.load(), &mut effects);
                }
                () = tokio::time::sleep(FULL), if full => {}
            }
            // A log that was ended just now is still to be sent.
            sent = sent && self.session.is_settled();
            self.carry_out(&mut effects).await?;
        }
        for (_, stop) in std::mem::take(&mut self.running) {
            let _ = stop.send(Stop::Leaving);
        }
        self.session.goodbye("the worker is stopped", &mut effects);
        self.carry_out(&mut effects).await?;
        self.farewell().await
    }

    /// Sends the last frames and waits for the builders to be gone.
    async fn farewell(mut self) -> Result<(), WorkerError> {
        let over = tokio::time::Instant::now() + FAREWELL;
        while self.post()? && tokio::time::Instant::now() < over {
            tokio::time::sleep(FULL).await;
        }
        let ended = async { while self.attempts.join_next().await.is_some() {} };
        if tokio::time::timeout_at(over, ended).await.is_err() {
            self.attempts.shutdown().await;
        }
        Ok(())
    }
}

impl Link {
    /// Waits for the next thing to happen. Cancel-safe.
    async fn next(&mut self) -> LinkEvent {
        match self {
            Self::Searching(search) => LinkEvent::Found(search.await),
            Self::Connected(Connection { socket, .. }) => match socket.next().await {
                Ok(event) => LinkEvent::Socket(event),
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "the connection to the server broke");
                    LinkEvent::Broken
                }
            },
        }
    }
}

fn at_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}
