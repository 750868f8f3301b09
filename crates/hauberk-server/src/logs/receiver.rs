//! The log port: takes chunks from workers and writes them to their files.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hauberk_database::attempts::LogOwner;
use hauberk_database::{AttemptId, Database, DatabaseError, ServerId};
use hauberk_protocol::keys::CurvePublicKey;
use hauberk_protocol::proto::{LogAck, LogEnd, LogRefused};
use hauberk_protocol::socket::{Incoming, RouterSocket, RoutingId, SendError, SocketError};
use hauberk_protocol::{LogBody, LogMessage, LogReply, LogReplyBody};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant as Moment, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::file::LogFile;
use super::owners::{Found, find_in_background};
use super::sealer::{Sealed, Whole, seal_in_background};
use crate::metrics::{Kinds, LogMetrics, Metrics};
use crate::ration::{Chain, Ration};

/// How this port is called in metrics.
const PORT: &str = "logs";

/// Bytes of a log that may be under way without an answer.
const WINDOW: u64 = 1 << 20;
/// What may come of a log before it is acknowledged at once: the sender's window never closes meanwhile.
const SOON: u64 = WINDOW / 4;
/// How long less than that waits for its acknowledgement.
const LATER: Duration = Duration::from_millis(250);
/// A file to which nothing was written for so long is closed; the next chunk opens it again.
const IDLE: Duration = Duration::from_secs(300);
/// Messages that wait for the database to say whose a log is, for each attempt.
const WAITING: usize = 64;

/// See the module's description.
pub(crate) struct LogReceiver {
    socket: RouterSocket,
    directory: PathBuf,
    logs: HashMap<AttemptId, State>,
    looked_up: UnboundedReceiver<LookedUp>,
    wanted: UnboundedSender<AttemptId>,
    whole: UnboundedSender<Whole>,
    ignored: Ration,
    /// Logs of which something came that was not acknowledged yet.
    owed: HashSet<AttemptId>,
    received: Kinds,
    unknown: Counter,
    malformed: Counter,
    metrics: LogMetrics,
}

enum State {
    /// The database is being asked whose it is; these messages wait.
    Asked(Vec<(RoutingId, Option<CurvePublicKey>, LogBody)>),
    Open(Open),
    /// It has all come and is being made durable: nothing is written to it any more.
    Sealing(Sealing),
}

struct Sealing {
    owner: LogOwner,
    /// Who is told when it is done: its sender may have come back on another connection.
    from: RoutingId,
}

struct Open {
    owner: LogOwner,
    file: LogFile,
    written: Instant,
    /// What its sender knows to be there.
    acknowledged: u64,
    /// Where it comes from.
    from: RoutingId,
}

enum LookedUp {
    Owner(Found),
    Sealed(Sealed),
}

impl LogReceiver {
    /// Takes the socket, and the directory that logs go to.
    pub(crate) fn new(
        socket: RouterSocket,
        database: Database,
        server: ServerId,
        directory: PathBuf,
        metrics: &Metrics,
    ) -> Self {
        let (answers, answered) = unbounded_channel();
        let whole = seal_in_background(database.clone(), server, {
            let answers = answers.clone();
            move |sealed| answers.send(LookedUp::Sealed(sealed)).is_ok()
        });
        let wanted =
            find_in_background(database, server, move |found| answers.send(LookedUp::Owner(found)).is_ok());
        Self {
            socket,
            directory,
            logs: HashMap::new(),
            looked_up: answered,
            wanted,
            whole,
            ignored: Ration::default(),
            owed: HashSet::new(),
            received: metrics.wire.received(PORT),
            unknown: metrics.wire.ignored(PORT, "unknown"),
            malformed: metrics.wire.ignored(PORT, "malformed"),
            metrics: metrics.logs.clone(),
        }
    }

    /// Receives until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), SocketError> {
        let mut sweep = interval(IDLE);
        let mut settle_at = Moment::now();
        loop {
            let settled = self.owed.is_empty();
            tokio::select! {
                incoming = self.socket.recv() => {
                    self.receive(incoming?);
                    if settled && !self.owed.is_empty() {
                        settle_at = Moment::now() + LATER;
                    }
                }
                Some(looked_up) = self.looked_up.recv() => self.looked_up(looked_up),
                () = sleep_until(settle_at), if !settled => self.settle(),
                _ = sweep.tick() => self.close_idle(),
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    fn receive(&mut self, incoming: Incoming) {
        let Incoming { routing_id, user, peer_address, frame } = incoming;
        match LogMessage::decode(&frame) {
            Ok(LogMessage { body: LogBody::Unknown { tag }, .. }) => {
                let what = format_args!("a log message of kind {tag}, which is not known here");
                self.unknown.inc();
                self.ignored.count(peer_address, Instant::now(), &what);
            }
            Ok(LogMessage { attempt, body }) => {
                self.received.count(body.kind());
                if let LogBody::Chunk(chunk) = &body {
                    self.metrics.received(chunk.data.len());
                }
                self.handle(AttemptId::new(attempt), routing_id, user, body);
            }
            Err(error) => {
                self.malformed.inc();
                self.ignored.count(peer_address, Instant::now(), &Chain(&error));
            }
        }
    }

    fn handle(&mut self, id: AttemptId, from: RoutingId, user: Option<CurvePublicKey>, body: LogBody) {
        match self.logs.get_mut(&id) {
            None => {
                self.logs.insert(id, State::Asked(vec![(from, user, body)]));
                // Nobody listens any more only when the server is ending.
                let _ = self.wanted.send(id);
            }
            Some(State::Asked(waiting)) => {
                if waiting.len() < WAITING {
                    waiting.push((from, user, body));
                }
            }
            Some(State::Sealing(sealing)) => {
                if is_owner(&sealing.owner, user) {
                    sealing.from = from;
                } else {
                    self.refuse(id, from, "the log is another worker's".to_owned(), true);
                }
            }
            Some(State::Open(open)) => {
                if !is_owner(&open.owner, user) {
                    self.refuse(id, from, "the log is another worker's".to_owned(), true);
                    return;
                }
                open.from = from;
                match take(open, &body) {
                    Ok(Taken::Acknowledge) => {
                        let offset = open.file.offset();
                        open.acknowledged = offset;
                        self.owed.remove(&id);
                        self.acknowledge(id, from, offset, false);
                    }
                    Ok(Taken::Written) => {
                        self.owed.insert(id);
                    }
                    Ok(Taken::Finished { file, text_bytes }) => {
                        let whole = Whole { attempt: id, file, offset: open.file.offset(), text_bytes };
                        let owner = open.owner.clone();
                        self.logs.insert(id, State::Sealing(Sealing { owner, from }));
                        self.owed.remove(&id);
                        // The sealer ends only with the receiver.
                        let _ = self.whole.send(whole);
                    }
                    Err(error) => {
                        let path = open.file.path().display().to_string();
                        warn!(
                            error = &error as &dyn std::error::Error, attempt.id = %id,
                            "cannot write the log of attempt {id} to {path}"
                        );
                        self.logs.remove(&id);
                        self.refuse(id, from, "the server cannot write the log now".to_owned(), false);
                    }
                }
            }
        }
    }

    fn looked_up(&mut self, looked_up: LookedUp) {
        match looked_up {
            LookedUp::Owner(Found { attempt, owner }) => self.owner_found(attempt, owner),
            LookedUp::Sealed(Sealed { attempt, offset, text_bytes, durable }) => {
                let Some(State::Sealing(Sealing { from: to, .. })) = self.logs.remove(&attempt) else {
                    return;
                };
                self.metrics.open(self.logs.len());
                if durable {
                    self.metrics.complete(text_bytes);
                    self.acknowledge(attempt, to, offset, true);
                } else {
                    // It is opened and ended again.
                    self.refuse(attempt, to, "the server cannot record the log now".to_owned(), false);
                }
            }
        }
    }

    fn owner_found(&mut self, id: AttemptId, owner: Result<Option<LogOwner>, Arc<DatabaseError>>) {
        let Some(State::Asked(waiting)) = self.logs.remove(&id) else { return };
        let refusal = match owner {
            Ok(Some(owner)) if owner.complete => {
                for (to, user, body) in waiting {
                    if is_owner(&owner, user) {
                        self.acknowledge(id, to, stream_end(&body), true);
                    } else {
                        self.refuse(id, to, "the log is another worker's".to_owned(), true);
                    }
                }
                return;
            }
            Ok(Some(owner)) => match self.open(&owner) {
                Ok(file) => {
                    let Some((from, _, _)) = waiting.first() else { return };
                    let (acknowledged, from) = (file.offset(), *from);
                    let open = Open { owner, file, written: Instant::now(), acknowledged, from };
                    self.logs.insert(id, State::Open(open));
                    self.metrics.open(self.logs.len());
                    for (from, user, body) in waiting {
                        self.handle(id, from, user, body);
                    }
                    return;
                }
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error, attempt.id = %id,
                        "cannot open the log of attempt {id} below {}", self.directory.display()
                    );
                    ("the server cannot write the log now", false)
                }
            },
            Ok(None) => ("there is no such attempt", true),
            Err(error) => {
                warn!(
                    error = &*error as &dyn std::error::Error, attempt.id = %id,
                    "cannot find out whose log of attempt {id} is"
                );
                ("the server's database is away", false)
            }
        };
        let mut told = Vec::new();
        for (to, _, _) in waiting {
            if !told.contains(&to) {
                told.push(to);
                self.refuse(id, to, refusal.0.to_owned(), refusal.1);
            }
        }
    }

    fn open(&self, owner: &LogOwner) -> io::Result<LogFile> {
        let path = owner.path.as_deref().ok_or_else(|| io::Error::other("the attempt has no log path"))?;
        LogFile::open(&self.directory.join(path))
    }

    /// Acknowledges what has come in small pieces.
    fn settle(&mut self) {
        for id in std::mem::take(&mut self.owed) {
            let Some(State::Open(open)) = self.logs.get_mut(&id) else { continue };
            let (offset, from) = (open.file.offset(), open.from);
            open.acknowledged = offset;
            self.acknowledge(id, from, offset, false);
        }
    }

    fn acknowledge(&mut self, id: AttemptId, to: RoutingId, offset: u64, complete: bool) {
        self.reply(id, to, LogAck { offset, window: WINDOW, complete });
    }

    fn refuse(&mut self, id: AttemptId, to: RoutingId, message: String, forget: bool) {
        self.reply(id, to, LogRefused { message, forget });
    }

    fn reply(&mut self, id: AttemptId, to: RoutingId, body: impl Into<LogReplyBody>) {
        let frame = match LogReply::new(id.get(), body).encode() {
            Ok(frame) => frame,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "cannot answer about a log");
                return;
            }
        };
        match self.socket.send(to, &frame) {
            Ok(()) => {}
            // It asks again when it is there again.
            Err(SendError::PeerGone) => debug!(attempt.id = %id, "the sender of a log is gone"),
            Err(error) => warn!(error = &error as &dyn std::error::Error, "cannot answer about a log"),
        }
    }

    fn close_idle(&mut self) {
        self.logs.retain(|_, state| match state {
            State::Asked(_) | State::Sealing(_) => true,
            State::Open(open) => open.written.elapsed() < IDLE,
        });
        self.metrics.open(self.logs.len());
    }
}

enum Taken {
    /// Its sender is to know now what is there.
    Acknowledge,
    /// There is a little more than before.
    Written,
    Finished {
        file: File,
        text_bytes: u64,
    },
}

/// Does to a log what its worker asks for. Writing goes to the page cache.
fn take(open: &mut Open, body: &LogBody) -> io::Result<Taken> {
    open.written = Instant::now();
    match body {
        LogBody::Open(_) | LogBody::Unknown { .. } => Ok(Taken::Acknowledge),
        LogBody::Chunk(chunk) => {
            let before = open.file.offset();
            open.file.write(chunk.offset, &chunk.data)?;
            let offset = open.file.offset();
            // What brings nothing new leaves a hole or is a repetition: its sender is somewhere else than it should be.
            let little = offset > before && offset < open.acknowledged.saturating_add(SOON);
            Ok(if little { Taken::Written } else { Taken::Acknowledge })
        }
        LogBody::End(LogEnd { stream_bytes, text_bytes, crc32, .. }) => {
            let whole = open.file.finish(*stream_bytes, *text_bytes, *crc32)?;
            Ok(whole.map_or(Taken::Acknowledge, |file| Taken::Finished { file, text_bytes: *text_bytes }))
        }
    }
}

/// Whether a log may be written by whoever has proved to own `user`. Without encryption nobody proves anything.
fn is_owner(owner: &LogOwner, user: Option<CurvePublicKey>) -> bool {
    owner.public_key == user.map(|user| user.to_string())
}

/// The offset to acknowledge for a log that is complete already.
fn stream_end(body: &LogBody) -> u64 {
    match body {
        LogBody::End(end) => end.stream_bytes,
        LogBody::Chunk(chunk) => chunk.offset.saturating_add(chunk.data.len() as u64),
        LogBody::Open(_) | LogBody::Unknown { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::Path;

    use flate2::read::GzDecoder;
    use flate2::{Compress, Compression, Crc, FlushCompress};
    use hauberk_database::testing::TestDatabase;
    use hauberk_protocol::proto::{LogChunk, LogOpen};
    use hauberk_protocol::socket::{
        ClientSecurity, ConnectionEvent, Context, DealerEvent, DealerOptions, DealerSocket, RouterOptions,
        ServerSecurity,
    };

    use super::*;

    const TEXT: &[u8] = b"checking for gcc... yes\n";

    /// Two running attempts of a worker that joined without encryption.
    const ROWS: &str = "
set session_replication_role = replica;
insert into workers (id, name) overriding system value values (1, 'kettle');
insert into attempts (id, build_id, derivation_id, generation, number, kind, worker_id, session, epoch, log_server_id, log_path)
overriding system value
select id, id, 1, 1, 1, 'first', 1, 1, 1, 1, '00/' || id || '.gz' from generate_series(1, 2) as t (id);
";

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(60), future).await.expect("it takes far too long")
    }

    async fn connect(context: &Context, to: std::net::SocketAddr) -> DealerSocket {
        let mut dealer =
            DealerSocket::connect(context, to, ClientSecurity::Insecure, &DealerOptions::logs()).unwrap();
        while soon(dealer.next()).await.unwrap() != DealerEvent::Connection(ConnectionEvent::Connected) {}
        dealer
    }

    fn send(dealer: &mut DealerSocket, attempt: i64, body: LogBody) {
        dealer.try_send(&LogMessage { attempt, body }.encode().unwrap()).unwrap();
    }

    async fn reply(dealer: &mut DealerSocket) -> LogReply {
        loop {
            if let DealerEvent::Frame(frame) = soon(dealer.next()).await.unwrap() {
                return LogReply::decode(&frame).unwrap();
            }
        }
    }

    async fn acknowledged(dealer: &mut DealerSocket, attempt: i64) -> LogAck {
        loop {
            match reply(dealer).await {
                LogReply { attempt: of, body: LogReplyBody::Ack(ack) } if of == attempt => return ack,
                LogReply { body: LogReplyBody::Refused(refused), .. } => panic!("{}", refused.message),
                _ => {}
            }
        }
    }

    fn text(path: &Path) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        GzDecoder::new(File::open(path)?).read_to_end(&mut text)?;
        Ok(text)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_comes_again_while_a_log_is_sealed_leaves_it_whole() {
        let database = TestDatabase::new().await;
        let mut client = database.client().await;
        client.batch_execute(ROWS).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let context = Context::new();
        let socket = RouterSocket::bind(
            &context,
            "127.0.0.1:0".parse().unwrap(),
            ServerSecurity::Insecure,
            &RouterOptions::logs(),
        )
        .unwrap();
        let endpoint = socket.endpoint();
        let server = ServerId::new(1);
        let directory = folder.path().to_owned();
        let metrics = Metrics::default();
        let receiver = LogReceiver::new(socket, database.database().clone(), server, directory, &metrics);
        let stop = CancellationToken::new();
        let running = tokio::spawn(receiver.run(stop.clone()));

        let mut stream = Vec::with_capacity(100);
        Compress::new(Compression::default(), false)
            .compress_vec(TEXT, &mut stream, FlushCompress::Full)
            .unwrap();
        let mut crc = Crc::new();
        crc.update(TEXT);
        let chunk = || LogBody::Chunk(LogChunk { offset: 0, data: stream.clone().into() });
        let end = || {
            LogBody::End(LogEnd {
                stream_bytes: stream.len() as u64,
                text_bytes: TEXT.len() as u64,
                crc32: crc.sum(),
                truncated: false,
            })
        };
        let open = || LogBody::Open(LogOpen {});

        let mut before = connect(&context, endpoint).await;
        let mut after = connect(&context, endpoint).await;
        send(&mut before, 1, open());
        acknowledged(&mut before, 1).await;
        send(&mut after, 2, open());
        acknowledged(&mut after, 2).await;
        // Nothing can be recorded for now.
        let held = client.transaction().await.unwrap();
        held.batch_execute("lock table attempts in access exclusive mode").await.unwrap();
        send(&mut before, 1, chunk());
        send(&mut before, 1, end());
        let path = folder.path().join("00/1.gz");
        soon(async {
            while !text(&path).is_ok_and(|text| text == TEXT) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        // The worker comes back on a new connection and does not know that all has come.
        for body in [open(), chunk(), end()] {
            send(&mut after, 1, body);
        }
        send(&mut after, 2, open());
        acknowledged(&mut after, 2).await;
        assert_eq!(text(&path).unwrap(), TEXT);
        held.rollback().await.unwrap();
        assert!(acknowledged(&mut after, 1).await.complete, "who came last is told");
        assert_eq!(text(&path).unwrap(), TEXT);
        let row =
            client.query_one("select log_complete, log_bytes from attempts where id = 1", &[]).await.unwrap();
        assert_eq!((row.get(0), row.get(1)), (true, TEXT.len() as i64));
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}
