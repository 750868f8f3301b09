//! The task around the dispatcher: hands it events, and does what it wants done.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use hauberk_database::attempts::{self, OpenAttempt};
use hauberk_database::dispatch::{self, AttemptClass, KnownPath, Reached, ReadyBuild, Window};
use hauberk_database::listen::{self, Event as Heard, Listener};
use hauberk_database::{
    AttemptId, BuildId, Client, Database, DatabaseError, Epoch, ServerId, SpecificationId, WorkerId, control,
    seats, servers, upkeep, usage, workers,
};
use hauberk_order::{Capabilities, LedgerPolicy};
use hauberk_protocol::socket::RoutingId;
use hauberk_protocol::{ServerBody, ServerMessage, WorkerBody};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::aftermath::Aftermath;
use crate::backend::{FromBackend, Received};
use crate::committer::Committers;
use crate::dispatcher::{Dispatcher, WINDOW};
use crate::enrolment::Guest;
use crate::greeting::Join;
use crate::heart::Company;
use crate::herald::Herald;
use crate::metrics::{Census, Metrics, ReadyClock};
use crate::origins::Origins;
use crate::outcome::{Fault, farm_faults, fault};
use crate::products::ProductEvent;
use crate::ration::Ration;
use crate::registry::{Answer, Request};
use crate::session::SessionId;
use crate::sources::Sources;
use crate::step::{Committed, Effect, FetchJob, Late, Policy, UploadRequest};

/// Leases are looked at so often.
const TICK: Duration = Duration::from_secs(1);
/// Waiting builds that a sweep recounts.
const SLICE: i64 = 2000;
/// What specifications have used is written down so often, while something happens.
const KEEP_USAGE: Duration = Duration::from_secs(10);
/// Messages handled before builds are given out, and before anything else gets its turn.
const BURST: usize = 512;

/// The ends of the channels that the dispatcher's task holds.
pub(crate) struct Channels {
    /// From the backend port.
    pub(crate) backend: Receiver<FromBackend>,
    /// To the backend port.
    pub(crate) outgoing: UnboundedSender<(RoutingId, ServerMessage)>,
    /// To the committers.
    pub(crate) ops: Committers,
    /// To the settler.
    pub(crate) late: UnboundedSender<Late>,
    /// From the committers and the settler.
    pub(crate) committed: UnboundedReceiver<Vec<Committed>>,
    /// To the registry.
    pub(crate) registry: UnboundedSender<Request>,
    /// From the registry.
    pub(crate) answers: Receiver<Vec<Answer>>,
    /// To the fetcher.
    pub(crate) fetches: UnboundedSender<FetchJob>,
    /// From the fetcher.
    pub(crate) fetched: UnboundedReceiver<(FetchJob, Result<Vec<KnownPath>, String>)>,
    /// From the fetcher, too: what workers are to upload.
    pub(crate) uploads: UnboundedReceiver<UploadRequest>,
    /// To the keeper of products.
    pub(crate) products: UnboundedSender<ProductEvent>,
    /// From the database.
    pub(crate) listener: Listener,
    /// To the herald.
    pub(crate) herald: Herald,
    /// To what decides anew after failures.
    pub(crate) aftermath: Aftermath,
    /// From the heart: attempts of other servers that are this one's now.
    pub(crate) inherited: UnboundedReceiver<Vec<OpenAttempt>>,
}

/// What queries in the background bring.
enum Answered {
    Window(Option<Vec<Reached>>, Result<Window, DatabaseError>),
    Used(Result<Used, DatabaseError>),
    /// What was used here is written down; this was used elsewhere.
    UsageKept(Result<Vec<(SpecificationId, f64)>, DatabaseError>),
    SeatsKept(Result<(), DatabaseError>),
    Woken(Result<Vec<ReadyBuild>, DatabaseError>),
    NextDeferred(Result<Option<f64>, DatabaseError>),
    Swept(Result<upkeep::Swept, DatabaseError>),
    Strays(Result<Vec<OpenAttempt>, DatabaseError>),
    Control(Result<(Vec<AttemptId>, Vec<workers::Order>), DatabaseError>),
    Elsewhere(Result<Elsewhere, DatabaseError>),
}

/// What was used before this start.
struct Used {
    /// By attempts of this server.
    here: Vec<(SpecificationId, f64)>,
    /// By those of others.
    elsewhere: Vec<(SpecificationId, f64)>,
    /// How many slots there were.
    slots: u64,
}

/// How it stands at other servers.
struct Elsewhere {
    /// What their workers can build.
    kinds: Vec<workers::Kind>,
    /// Builds that failed here and are over, and who brought them to an end of their own.
    over: Vec<(BuildId, Option<WorkerId>)>,
}

/// How a question stands that is asked once at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Idle,
    Asked,
    /// Something happened since it was asked.
    AskAgain,
}

/// See the module's description.
pub(crate) struct Task {
    dispatcher: Dispatcher,
    database: Database,
    channels: Channels,
    answered: (UnboundedSender<Answered>, UnboundedReceiver<Answered>),
    server: ServerId,
    epoch: Epoch,
    /// Whether operators' orders are being asked for, and whether to ask again then: many workers that join at once, as after a
    /// start, must not take every connection for the same question.
    control: Question,
    /// The waiting build up to which the sweep has recounted.
    swept: i64,
    /// When the next deferred build is due, as far as is known.
    deferred_at: Option<tokio::time::Instant>,
    /// What workers are to upload, to be told again in their next session.
    uploads: HashMap<AttemptId, UploadRequest>,
    /// Who built what, and where they are.
    origins: Origins,
    sources: Sources,
    /// Connections whose Hello the registry has.
    joining: HashSet<RoutingId>,
    unknown: Ration,
    metrics: Metrics,
    /// What was counted last.
    census: Census,
    /// Whether there may be other servers.
    company: Company,
    /// Another server has said that builds became ready, while there was no room for any.
    said_ready: bool,
    /// Since when builds are known to be ready.
    ready: ReadyClock,
    /// What has been ready for longer is asked for as well.
    ageing: Option<Duration>,
    /// When it was last written down what specifications have used, and whether something has happened since.
    usage_kept: Instant,
    usage_changed: bool,
    /// What was written down last of what workers have, if that is known, and whether it is still being written.
    seats: Option<Vec<(AttemptId, WorkerId)>>,
    keeping_seats: bool,
    /// When leases were last looked at.
    ticked: Instant,
    /// A longer pause between two looks is the server's own.
    standstill: Duration,
    /// No build is deferred for longer, in seconds.
    longest_delay: f64,
}

impl Task {
    /// Makes the task; `open` is what the database shows of attempts that an earlier start of the server left.
    pub(crate) fn new(
        policy: Policy,
        database: Database,
        (server, epoch): (ServerId, Epoch),
        channels: Channels,
        sources: Sources,
        open: Vec<OpenAttempt>,
        metrics: Metrics,
    ) -> Self {
        let standstill = (policy.lease / 2).max(2 * TICK);
        let longest_delay = policy.retry.longest_delay();
        let ageing = policy.order.ageing;
        let company = policy.company.clone();
        let mut dispatcher = Dispatcher::new(policy, Instant::now());
        if !open.is_empty() {
            info!(attempts.open = open.len(), "took over {} open attempts", open.len());
        }
        dispatcher.adopt(open, Instant::now());
        Self {
            dispatcher,
            database,
            server,
            epoch,
            control: Question::Idle,
            swept: 0,
            channels,
            answered: tokio::sync::mpsc::unbounded_channel(),
            deferred_at: None,
            uploads: HashMap::new(),
            origins: Origins::default(),
            sources,
            joining: HashSet::new(),
            unknown: Ration::default(),
            metrics,
            census: Census::default(),
            company,
            said_ready: false,
            ready: ReadyClock::default(),
            ageing,
            usage_kept: Instant::now(),
            usage_changed: false,
            seats: Some(Vec::new()),
            keeping_seats: false,
            ticked: Instant::now(),
            standstill,
            longest_delay,
        }
    }

    /// Dispatches until `stop`, or until one of the other tasks is gone. A lost wake-up costs one `sweep` at most.
    pub(crate) async fn run(mut self, sweep: Duration, stop: CancellationToken) {
        self.ask_used();
        let mut tick = interval(TICK);
        let mut sweep = interval(sweep);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = deadline(self.deferred_at);
            tokio::select! {
                () = stop.cancelled() => break,
                message = self.channels.backend.recv() => {
                    let Some(message) = message else { break };
                    self.backend(message);
                    for _ in 1..BURST {
                        let Ok(message) = self.channels.backend.try_recv() else { break };
                        self.backend(message);
                    }
                }
                done = self.channels.committed.recv() => {
                    let Some(done) = done else { break };
                    self.committed(done);
                }
                answers = self.channels.answers.recv() => {
                    let Some(answers) = answers else { break };
                    for answer in answers {
                        self.answer(answer);
                    }
                }
                fetched = self.channels.fetched.recv() => {
                    let Some((job, result)) = fetched else { break };
                    self.uploads.remove(&job.attempt);
                    if let Ok(outputs) = &result {
                        self.origins.note(job.worker, outputs);
                    }
                    self.dispatcher.fetched(&job, result);
                }
                wanted = self.channels.uploads.recv() => {
                    let Some(request) = wanted else { break };
                    self.dispatcher.ask_upload(&request);
                    self.uploads.insert(AttemptId::new(request.upload.attempt), request);
                }
                heard = self.channels.listener.next() => self.heard(&heard),
                Some(open) = self.channels.inherited.recv() => {
                    self.dispatcher.adopt(open, Instant::now());
                    // Operators may have asked for something while nobody had them.
                    self.ask_control();
                }
                Some(answered) = self.answered.1.recv() => self.take(answered),
                _ = tick.tick() => self.tick(Instant::now()),
                _ = sweep.tick() => self.sweep(),
                () = due => {
                    self.deferred_at = None;
                    self.wake_deferred();
                }
            }
            self.dispatcher.dispatch(Instant::now());
            if !self.act() {
                break;
            }
        }
    }

    /// Looks at leases. A server that stood still itself (it was stopped, or its machine slept) has not read what workers sent
    /// meanwhile; while the database is away, it cannot let anybody join who comes back. Nobody is declared lost for that.
    fn tick(&mut self, now: Instant) {
        let pause = now.saturating_duration_since(self.ticked);
        self.ticked = now;
        if pause > self.standstill {
            warn!("this server stood still for {} s; workers have another lease", pause.as_secs());
            self.dispatcher.grace(now);
        } else if !self.channels.listener.is_connected() {
            self.dispatcher.grace(now);
        }
        self.metrics.dispatch.lapsed(self.dispatcher.tick(now));
        if std::mem::take(&mut self.said_ready) {
            self.dispatcher.want_refill();
        }
        let census = self.dispatcher.census();
        self.metrics.dispatch.show(&census, &self.census);
        self.census = census;
        let Channels { backend, committed, answers, fetched, .. } = &self.channels;
        for (queue, count) in [
            ("from_workers", backend.len()),
            ("recorded", committed.len()),
            ("admitted", answers.len()),
            ("fetched", fetched.len()),
        ] {
            self.metrics.wire.waiting(queue, count);
        }
        self.keep_seats();
        if self.usage_changed && now.saturating_duration_since(self.usage_kept) >= KEEP_USAGE {
            (self.usage_kept, self.usage_changed) = (now, false);
            let (used, server) = (self.dispatcher.used(), self.server);
            self.ask(move |database| async move {
                let kept = async {
                    let client = database.client().await?;
                    usage::keep(&client, server, &used).await?;
                    usage::used_elsewhere(&client, LedgerPolicy::default().half_life, server).await
                };
                Answered::UsageKept(kept.await)
            });
        }
    }

    /// Writes down what workers have in their slots, when it has changed.
    fn keep_seats(&mut self) {
        let seats = self.dispatcher.seats();
        if self.keeping_seats || self.seats.as_ref() == Some(&seats) {
            return;
        }
        self.keeping_seats = true;
        self.seats = Some(seats.clone());
        let epoch = self.epoch;
        self.ask(move |database| async move {
            let kept = async { seats::keep(&database.client().await?, epoch, &seats).await };
            Answered::SeatsKept(kept.await)
        });
    }

    fn backend(&mut self, event: FromBackend) {
        match event {
            FromBackend::Received(received) => self.received(*received),
            FromBackend::Undelivered(routing) => self.dispatcher.undelivered(routing, Instant::now()),
        }
    }

    fn received(&mut self, received: Received) {
        let Received { routing, user, peer_address, message } = received;
        let body = match message.body {
            WorkerBody::Hello(hello) => {
                // One at a time: whoever repeats its Hello is answered once.
                if self.joining.insert(routing) {
                    let join = Join { routing, user, peer_address, hello: Box::new(hello) };
                    // The registry ends only with the server.
                    let _ = self.channels.registry.send(Request::Join(join));
                }
                return;
            }
            WorkerBody::Enrol(enrol) => {
                if self.joining.insert(routing) {
                    let guest = Guest { user, peer_address };
                    let request = Request::Enrol { routing, guest, enrol: Box::new(enrol) };
                    let _ = self.channels.registry.send(request);
                }
                return;
            }
            body => body,
        };
        if let WorkerBody::Unknown { tag } = body {
            let what = format_args!("a message of kind {tag}, which is not known here");
            self.metrics.wire.ignored("backend", "unknown").inc();
            self.unknown.count(peer_address, Instant::now(), &what);
        }
        let session = SessionId::from_wire(message.session);
        if !self.dispatcher.heard(session, routing, message.sequence, Instant::now()) {
            return;
        }
        let Some(session) = session else { return };
        match body {
            WorkerBody::Credit(credit) => self.dispatcher.credit(session, credit.granted),
            WorkerBody::Heartbeat(heartbeat) => {
                self.dispatcher.heartbeat(session, &heartbeat);
                if let Some(worker) = self.dispatcher.worker_of(session) {
                    let _ = self.channels.registry.send(Request::Seen(worker, heartbeat.load));
                }
            }
            WorkerBody::Started(started) => self.dispatcher.started(session, &started),
            WorkerBody::Finished(finished) => self.dispatcher.finished(session, &finished),
            WorkerBody::Declined(declined) => self.dispatcher.declined(session, &declined),
            WorkerBody::Goodbye(goodbye) => self.dispatcher.goodbye(session, &goodbye.reason),
            // These were taken above.
            WorkerBody::Hello(_) | WorkerBody::Enrol(_) | WorkerBody::Unknown { .. } => {}
        }
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Admitted(admitted, hello) => {
                self.joining.remove(&admitted.routing);
                let worker = admitted.worker;
                self.dispatcher.hello(*admitted, &hello, Instant::now());
                for request in self.uploads.values().filter(|request| request.worker == worker) {
                    self.dispatcher.ask_upload(request);
                }
                // The window has the head of every lane, whoever is there; but what others said became ready was not asked for while there was no room.
                if std::mem::take(&mut self.said_ready) {
                    self.dispatcher.want_refill();
                }
                // What was said of it while it joined was not for a worker with a session.
                self.ask_control();
            }
            Answer::Refused(routing, refused) => {
                self.joining.remove(&routing);
                let _ = self.channels.outgoing.send((routing, ServerMessage::new(0, 0, refused)));
            }
            Answer::Enrolled(routing, enrolled) => {
                self.joining.remove(&routing);
                let _ = self.channels.outgoing.send((routing, ServerMessage::new(0, 0, enrolled)));
            }
        }
    }

    fn committed(&mut self, done: Vec<Committed>) {
        let now = Instant::now();
        self.usage_changed = true;
        for committed in done {
            if let Committed::Settled(_, settled) = &committed
                && !settled.effects.ready.is_empty()
            {
                self.channels.herald.tell();
            }
            if let Committed::Succeeded(attempt) | Committed::Settled(attempt, _) = &committed {
                // Nobody listens any more only when the server is ending.
                let _ = self.channels.products.send(ProductEvent::Succeeded(*attempt));
            }
            if let Committed::Effects(effects) = &committed {
                if !effects.ready.is_empty() {
                    self.channels.herald.tell();
                }
                self.ready.ready(effects.ready.iter().map(|build| build.id), now);
                if effects.deferred {
                    self.ask_next_deferred();
                }
            }
            self.dispatcher.committed(committed, now);
        }
    }

    fn heard(&mut self, heard: &Heard) {
        match heard {
            Heard::Notification { channel, .. } if channel == listen::CONTROL => self.ask_control(),
            Heard::Notification { channel, .. } if channel == listen::PRODUCTS => {
                let _ = self.channels.products.send(ProductEvent::Wanted);
            }
            Heard::Notification { payload, .. } if payload.is_empty() => {
                self.dispatcher.want_refill();
                // What began anew may be needed as urgently as before.
                self.channels.aftermath.tell();
            }
            // It is in the window.
            Heard::Notification { payload, .. } if *payload == self.epoch.to_string() => {}
            Heard::Notification { .. } => {
                self.company.heard();
                // Whoever said so gives it out itself if its workers can build it.
                if self.dispatcher.has_room() {
                    self.dispatcher.want_refill();
                } else {
                    self.said_ready = true;
                }
            }
            Heard::Reconnected => {
                info!("the database is there again");
                self.dispatcher.grace(Instant::now());
                self.sweep();
            }
        }
    }

    fn sweep(&mut self) {
        self.dispatcher.want_refill();
        self.dispatcher.forget_early();
        self.ready.tidy(Instant::now());
        self.wake_deferred();
        self.ask_strays();
        self.ask_control();
        self.ask_upkeep();
        if self.company.is_there() || self.dispatcher.has_failed_here() {
            self.ask_elsewhere();
        }
    }

    fn take(&mut self, answered: Answered) {
        match answered {
            Answered::Window(after, Ok(window)) => {
                debug!(builds.ready = window.builds.len(), "the window was filled");
                self.ready.ready(window.builds.iter().map(|build| build.id), Instant::now());
                self.dispatcher.refilled(after.as_deref(), window);
            }
            Answered::Used(Ok(used)) => {
                self.dispatcher.set_elsewhere(&used.elsewhere);
                self.dispatcher.remember(&used.here, used.slots);
            }
            Answered::Used(Err(error)) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot read what specifications have used; all begin alike"
                );
            }
            Answered::UsageKept(Ok(elsewhere)) => self.dispatcher.set_elsewhere(&elsewhere),
            Answered::SeatsKept(kept) => {
                self.keeping_seats = false;
                if let Err(error) = kept {
                    self.seats = None;
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot write down what workers have in their slots"
                    );
                }
            }
            Answered::UsageKept(Err(error)) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot write down what specifications have used"
                );
            }
            Answered::Window(_, Err(error)) => {
                self.dispatcher.refill_failed();
                warn!(error = &error as &dyn std::error::Error, "cannot read the queue now");
            }
            Answered::Woken(Ok(builds)) => {
                if !builds.is_empty() {
                    self.channels.herald.tell();
                }
                self.ready.ready(builds.iter().map(|build| build.id), Instant::now());
                self.dispatcher.ready(&builds);
                self.ask_next_deferred();
            }
            Answered::Woken(Err(error)) | Answered::NextDeferred(Err(error)) => {
                warn!(error = &error as &dyn std::error::Error, "cannot look for deferred builds now");
            }
            Answered::Swept(Ok(swept)) => {
                self.swept = swept.last;
                if swept.mended > 0 {
                    warn!(
                        builds.mended = swept.mended,
                        "{} builds did not wait for exactly what they need; `hauberk database verify` tells more",
                        swept.mended
                    );
                    self.dispatcher.ready(&swept.ready);
                    self.channels.herald.tell();
                }
            }
            Answered::Swept(Err(error)) => {
                warn!(error = &error as &dyn std::error::Error, "cannot look after waiting builds now");
            }
            Answered::Strays(Ok(strays)) => {
                if !strays.is_empty() {
                    warn!(
                        attempts.open = strays.len(),
                        "took over {} attempts of an older start",
                        strays.len()
                    );
                    self.dispatcher.adopt(strays, Instant::now());
                }
            }
            Answered::Strays(Err(error)) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot look for attempts of older starts now"
                );
            }
            Answered::Control(answer) => {
                match answer {
                    Ok((unwanted, orders)) => {
                        self.dispatcher.stop(&unwanted, Instant::now());
                        self.dispatcher.govern(&orders);
                    }
                    Err(error) => {
                        warn!(
                            error = &error as &dyn std::error::Error,
                            "cannot look for operators' orders now"
                        );
                    }
                }
                if std::mem::replace(&mut self.control, Question::Idle) == Question::AskAgain {
                    self.ask_control();
                }
            }
            Answered::Elsewhere(Ok(Elsewhere { kinds, over })) => {
                self.dispatcher.set_colleagues(kinds.into_iter().filter_map(capabilities).collect());
                self.dispatcher.are_over(&over);
            }
            Answered::Elsewhere(Err(error)) => {
                warn!(error = &error as &dyn std::error::Error, "cannot look at other servers now");
            }
            Answered::NextDeferred(Ok(seconds)) => {
                self.deferred_at = seconds.map(|seconds| {
                    // A moment later, so that the database agrees that it is due.
                    tokio::time::Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 1e6) + 0.01)
                });
            }
        }
    }

    /// Reads what specifications used before this start.
    fn ask_used(&self) {
        let server = self.server;
        self.ask(move |database| async move {
            let half_life = LedgerPolicy::default().half_life;
            let asked = async {
                let client = database.client().await?;
                Ok(Used {
                    here: usage::used(&client, half_life, server).await?,
                    elsewhere: usage::used_elsewhere(&client, half_life, server).await?,
                    slots: usage::slots(&client).await?,
                })
            };
            Answered::Used(asked.await)
        });
    }

    fn wake_deferred(&self) {
        let longest = self.longest_delay;
        self.ask(move |database| async move {
            let woken =
                async { dispatch::wake_deferred(&database.client().await?, longest, &farm_faults()).await };
            Answered::Woken(woken.await)
        });
    }

    /// Recounts what some of the waiting builds wait for.
    fn ask_upkeep(&self) {
        let after = self.swept;
        self.ask(move |database| async move {
            Answered::Swept(async { upkeep::sweep(&mut database.client().await?, after, SLICE).await }.await)
        });
    }

    /// Takes over what an older start of the server, which did not know yet that it was over, has given out.
    fn ask_strays(&self) {
        let (server, epoch) = (self.server, self.epoch);
        self.ask(move |database| async move {
            let asked = async {
                let client = database.client().await?;
                let adopted = servers::adopt(&client, server, epoch).await?;
                if adopted.is_empty() {
                    return Ok(Vec::new());
                }
                let mut open = attempts::open(&client, epoch, &farm_faults()).await?;
                open.retain(|open| adopted.contains(&open.attempt));
                Ok(open)
            };
            Answered::Strays(asked.await)
        });
    }

    /// Reads what operators want of attempts and workers.
    fn ask_control(&mut self) {
        if self.control != Question::Idle {
            self.control = Question::AskAgain;
            return;
        }
        self.control = Question::Asked;
        let epoch = self.epoch;
        self.ask(move |database| async move {
            let asked = async {
                let client = database.client().await?;
                Ok((control::to_stop(&client, epoch).await?, workers::orders(&client, epoch).await?))
            };
            Answered::Control(asked.await)
        });
    }

    /// Reads what the workers of other servers can build, and what became of what failed here.
    fn ask_elsewhere(&mut self) {
        let (epoch, failed) = (self.epoch, self.dispatcher.failed_here());
        self.ask(move |database| async move {
            let asked = async {
                let client = database.client().await?;
                let kinds = workers::elsewhere(&client, epoch).await?;
                let over = match failed.is_empty() {
                    true => Vec::new(),
                    false => dispatch::over(&client, &failed, &own_ends()).await?,
                };
                Ok(Elsewhere { kinds, over })
            };
            Answered::Elsewhere(asked.await)
        });
    }

    fn ask_next_deferred(&self) {
        let longest = self.longest_delay;
        self.ask(move |database| async move {
            let next = async { dispatch::next_deferred(&database.client().await?, longest).await };
            Answered::NextDeferred(next.await)
        });
    }

    fn ask<F>(&self, question: impl FnOnce(Database) -> F)
    where
        F: Future<Output = Answered> + Send + 'static,
    {
        let answer = question(self.database.clone());
        let answers = self.answered.0.clone();
        tokio::spawn(async move {
            // Nobody listens any more when the server is ending.
            let _ = answers.send(answer.await);
        });
    }

    /// Writes about a worker, in the background; what comes of it is heard as an order.
    fn change<F>(&self, worker: WorkerId, write: impl FnOnce(Client) -> F + Send + 'static)
    where
        F: Future<Output = Result<(), DatabaseError>> + Send + 'static,
    {
        let database = self.database.clone();
        tokio::spawn(async move {
            if let Err(error) = async { write(database.client().await?).await }.await {
                let error = &error as &dyn std::error::Error;
                warn!(error, worker.id = %worker, "cannot record how worker {worker} is");
            }
        });
    }

    /// Does what the dispatcher wants done. False when another task is gone.
    fn act(&mut self) -> bool {
        for effect in self.dispatcher.take_effects() {
            let sent = match effect {
                Effect::Send(routing, mut message) => {
                    if let ServerBody::Assign(assign) = &mut message.body {
                        self.origins.name(assign, &self.sources);
                        let build = BuildId::new(assign.build);
                        self.ready.assigned(build, Instant::now(), &self.metrics.dispatch);
                    }
                    self.channels.outgoing.send((routing, message)).is_ok()
                }
                Effect::Commit(op) => self.channels.ops.send(op),
                Effect::Late(step) => self.channels.late.send(step).is_ok(),
                Effect::Fetch(job) => self.channels.fetches.send(job).is_ok(),
                Effect::SessionEnded(worker, session) => {
                    self.channels.registry.send(Request::Left(worker, session)).is_ok()
                }
                Effect::SetAside(worker, reason) => {
                    let epoch = self.epoch;
                    self.change(worker, move |mut client| async move {
                        workers::set_aside(&mut client, worker, epoch, &reason).await
                    });
                    true
                }
                Effect::Recovered(worker) => {
                    let epoch = self.epoch;
                    self.change(worker, move |client| async move {
                        workers::recover(&client, worker, epoch).await
                    });
                    true
                }
                Effect::Refill(after) => {
                    let aged = self.ageing.map(|bound| bound.as_secs_f64());
                    self.ask(move |database| async move {
                        let per_lane = i64::try_from(WINDOW).unwrap_or(i64::MAX);
                        let rows = async {
                            let client = database.client().await?;
                            let faults = farm_faults();
                            match &after {
                                None => dispatch::window(&client, per_lane, aged, &faults).await,
                                Some(after) => {
                                    dispatch::window_more(&client, per_lane, aged, after, &faults).await
                                }
                            }
                        };
                        let rows = rows.await;
                        Answered::Window(after, rows)
                    });
                    true
                }
            };
            if !sent {
                return false;
            }
        }
        true
    }
}

/// The ends of attempts that are the package's own, success or failure.
fn own_ends() -> Vec<AttemptClass> {
    let is_own = |class: &AttemptClass| matches!(fault(*class), Fault::None | Fault::Package);
    AttemptClass::ALL.iter().copied().filter(is_own).collect()
}

/// What a worker's row says that it can build; nothing of a row that cannot be read.
fn capabilities(kind: workers::Kind) -> Option<Capabilities> {
    Some(Capabilities {
        store_directory: kind.store_directory.parse().ok()?,
        systems: kind.systems.into_iter().collect(),
        features: kind.features.into_iter().collect(),
        mandatory_features: kind.mandatory_features.into_iter().collect(),
    })
}

async fn deadline(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
