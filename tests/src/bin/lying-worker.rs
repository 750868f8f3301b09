//! An enrolled worker that lies: it speaks the protocol, and means harm.
//!
//! It claims results of other workers' attempts, sends what nobody can read, and of its own attempts reports outputs that are not
//! asked for, outputs that it does not have, and results twice and in sessions that are over. It goes on until it is ended, and takes
//! no more attempts than it is told to. Each time that a file appears it ends everything anew, what is long over as well.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use clap::Parser;
use hauberk_protocol::keys::{CurveKeyPair, CurvePublicKey};
use hauberk_protocol::proto::{
    Assign, Credit, Declined, Finished, Heartbeat, Hello, LogChunk, LogEnd, LogOpen, Origin, Outcome,
    OutputInfo, RunningAttempt, Started, hello,
};
use hauberk_protocol::socket::{
    ClientSecurity, ConnectionEvent, Context, DealerEvent, DealerOptions, DealerSocket,
};
use hauberk_protocol::{
    LogBody, LogMessage, LogReply, PROTOCOL_VERSION, ServerBody, ServerMessage, WorkerBody, WorkerMessage,
};

/// Attempts of others it claims: their numbers are easily guessed.
const GUESSES: i64 = 200;

/// Join a farm, and lie
#[derive(Debug, Parser)]
struct Options {
    /// The server's address and port
    #[arg(long)]
    server: SocketAddr,

    /// The server's public CURVE key
    #[arg(long, allow_hyphen_values = true)]
    server_key: CurvePublicKey,

    /// Its own CURVE key
    #[arg(long)]
    key: PathBuf,

    /// The name it is enrolled by
    #[arg(long)]
    name: String,

    /// The public signing key it is enrolled with
    #[arg(long)]
    signing_key: String,

    /// The publish server it pretends to have
    #[arg(long)]
    publish_url: String,

    /// Attempts it takes in all
    #[arg(long)]
    attempts: u64,

    /// A file: when it appears, results of all attempts are claimed once more, its own and others'; it is removed when the server
    /// has heard
    #[arg(long)]
    again: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let keys = CurveKeyPair::read(&options.key)?;
    let mut liar = Liar {
        socket: connect(&options, &keys)?,
        session: 0,
        sequence: 0,
        taken: 0,
        own: Vec::new(),
        unanswered: HashSet::new(),
    };
    liar.join(&options).await?;
    liar.claim_what_is_not_its_own().await?;
    lie_about_logs(&options, &keys).await?;
    liar.send(Credit { granted: options.attempts }).await?;
    let mut heartbeats = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        tokio::select! {
            event = liar.socket.next() => {
                let DealerEvent::Frame(frame) = event? else { continue };
                match ServerMessage::decode(&frame)?.body {
                    ServerBody::Assign(assign) => {
                        liar.report(&assign).await?;
                        if liar.taken == options.attempts {
                            println!("all lies are told");
                        }
                    }
                    ServerBody::Ack(ack) if liar.answered(&ack.attempts) => {
                        std::fs::remove_file(&options.again)?;
                    }
                    _ => {}
                }
            }
            _ = heartbeats.tick() => {
                // It claims to be at everything.
                let running = (1..GUESSES).map(|attempt| RunningAttempt { attempt, ..RunningAttempt::default() });
                liar.send(Heartbeat { running: running.collect(), granted: options.attempts, ..Heartbeat::default() }).await?;
                if liar.unanswered.is_empty() && options.again.exists() {
                    liar.claim_what_is_over().await?;
                }
            }
        }
    }
}

fn connect(options: &Options, keys: &CurveKeyPair) -> Result<DealerSocket> {
    let security = ClientSecurity::Curve { keys, server: &options.server_key };
    Ok(DealerSocket::connect(&Context::new(), options.server, security, &DealerOptions::backend())?)
}

struct Liar {
    socket: DealerSocket,
    session: u64,
    sequence: u64,
    taken: u64,
    /// What it was assigned.
    own: Vec<Assign>,
    /// Old attempts of its own whose results it claims, until the server says that it has heard.
    unanswered: HashSet<i64>,
}

impl Liar {
    async fn join(&mut self, options: &Options) -> Result<()> {
        loop {
            match self.socket.next().await? {
                DealerEvent::Connection(ConnectionEvent::Connected) => {
                    let hello = Hello {
                        protocol: PROTOCOL_VERSION,
                        name: options.name.clone(),
                        machine: "a den".to_owned(),
                        store_directory: "/nix/store".to_owned(),
                        systems: vec![format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)],
                        slots: 1000,
                        publish: Some(hello::Publish::PublishUrl(options.publish_url.clone())),
                        signing_key: options.signing_key.clone(),
                        unacknowledged: (1..GUESSES).collect(),
                        unreleased: (1..GUESSES).collect(),
                        ..Hello::default()
                    };
                    self.send(hello).await?;
                }
                DealerEvent::Connection(event) => bail!("cannot join: {event:?}"),
                DealerEvent::Frame(frame) => match ServerMessage::decode(&frame)?.body {
                    ServerBody::Welcome(welcome) => {
                        self.session = welcome.session;
                        return Ok(());
                    }
                    other => bail!("cannot join: {other:?}"),
                },
            }
        }
    }

    async fn send(&mut self, body: impl Into<WorkerBody>) -> Result<()> {
        self.sequence += 1;
        let frame = WorkerMessage::new(self.session, self.sequence, body).encode()?;
        self.socket.send(&frame).await.context("sending")
    }

    async fn claim_what_is_not_its_own(&mut self) -> Result<()> {
        for attempt in (-3..GUESSES).chain([i64::MAX, i64::MIN]) {
            self.send(Started { attempt, ..Started::default() }).await?;
            self.send(failure(attempt)).await?;
            self.send(Declined { attempt, ..Declined::default() }).await?;
            self.send(Finished {
                attempt,
                outcome: Outcome::Succeeded.into(),
                outputs: vec![output("/nix/store/00000000000000000000000000000000-mine")],
                ..Finished::default()
            })
            .await?;
        }
        // In sessions that never were.
        for session in [0, 1, u64::MAX] {
            let frame = WorkerMessage::new(session, 1, failure(1)).encode()?;
            self.socket.send(&frame).await?;
        }
        // Kinds of message that are not known, in its session and in none; one without a body, and what is none. A field that is
        // not known beside a body that is says nothing against that body.
        for session in [self.session, self.session, 0] {
            self.sequence += 1;
            let frame =
                of_unknown_kind(&WorkerMessage::new(session, self.sequence, Credit::default()).encode()?);
            ensure!(
                WorkerMessage::decode(&frame)?.body == WorkerBody::Unknown { tag: UNKNOWN },
                "the kind is known"
            );
            self.socket.send(&frame).await?;
        }
        let mut beside = WorkerMessage::new(self.session, self.sequence, failure(1)).encode()?.to_vec();
        beside.extend_from_slice(NEW_FIELD);
        for frame in [&beside[..], &[], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4096], &[0x0a; 100_000]] {
            self.socket.send(frame).await?;
        }
        Ok(())
    }

    /// Says of every attempt that it failed, and that it succeeded: others', and then its own, with the outputs that were asked for.
    async fn claim_what_is_over(&mut self) -> Result<()> {
        for attempt in 1..GUESSES {
            self.send(failure(attempt)).await?;
            self.send(Finished { attempt, outcome: Outcome::Succeeded.into(), ..Finished::default() })
                .await?;
        }
        for assign in self.own.clone() {
            self.unanswered.insert(assign.attempt);
            let outputs: Vec<_> = assign.outputs.iter().map(|wanted| output(&wanted.path)).collect();
            for outcome in [Outcome::Succeeded, Outcome::BuildFailed, Outcome::TimedOut] {
                self.send(Finished {
                    attempt: assign.attempt,
                    outcome: outcome.into(),
                    outputs: outputs.clone(),
                    origin: Origin::Built.into(),
                    message: "an old lie".to_owned(),
                    ..Finished::default()
                })
                .await?;
            }
        }
        Ok(())
    }

    /// Takes note of what the server has heard; tells whether that was the last of what it was owed.
    fn answered(&mut self, attempts: &[i64]) -> bool {
        let owed = !self.unanswered.is_empty();
        self.unanswered.retain(|attempt| !attempts.contains(attempt));
        owed && self.unanswered.is_empty()
    }

    /// Lies about an attempt of its own, each time otherwise.
    async fn report(&mut self, assign: &Assign) -> Result<()> {
        let attempt = assign.attempt;
        let paths: Vec<&str> = assign.outputs.iter().map(|output| output.path.as_str()).collect();
        let outputs = match self.taken % 4 {
            0 => vec![output("/nix/store/00000000000000000000000000000000-other")],
            1 => paths.iter().map(|path| output(path)).collect(),
            2 => Vec::new(),
            _ => vec![OutputInfo { nar_hash: Bytes::from_static(b"short"), ..output("not even a path") }],
        };
        self.taken += 1;
        self.own.push(assign.clone());
        self.send(Started { attempt, ..Started::default() }).await?;
        for _ in 0..2 {
            self.send(Finished {
                attempt,
                outcome: Outcome::Succeeded.into(),
                outputs: outputs.clone(),
                origin: Origin::Built.into(),
                ..Finished::default()
            })
            .await?;
        }
        self.send(failure(attempt)).await
    }
}

/// The number of a body that no version of the protocol has.
const UNKNOWN: u32 = 99;

/// A field of that number, with three bytes in it.
const NEW_FIELD: &[u8] = &[0x9a, 0x06, 0x03, b'n', b'e', b'w'];

/// The message with another body than that at its end, which is empty: of a kind that nobody knows.
fn of_unknown_kind(frame: &[u8]) -> Bytes {
    [&frame[..frame.len() - 2], NEW_FIELD].concat().into()
}

fn failure(attempt: i64) -> Finished {
    Finished {
        attempt,
        outcome: Outcome::BuildFailed.into(),
        message: "a lie".to_owned(),
        ..Finished::default()
    }
}

fn output(path: &str) -> OutputInfo {
    OutputInfo {
        name: "out".to_owned(),
        path: path.to_owned(),
        nar_hash: Bytes::from_static(&[7; 32]),
        nar_size: 7,
        references: Vec::new(),
    }
}

/// Writes into the logs of others.
async fn lie_about_logs(options: &Options, keys: &CurveKeyPair) -> Result<()> {
    let log_port = SocketAddr::new(options.server.ip(), options.server.port() + 1);
    let security = ClientSecurity::Curve { keys, server: &options.server_key };
    let mut socket = DealerSocket::connect(&Context::new(), log_port, security, &DealerOptions::logs())?;
    while !socket.is_connected() {
        socket.next().await?;
    }
    for _ in 0..3 {
        let frame = of_unknown_kind(&LogMessage::new(1, LogOpen {}).encode()?);
        ensure!(LogMessage::decode(&frame)?.body == LogBody::Unknown { tag: UNKNOWN }, "the kind is known");
        socket.send(&frame).await?;
    }
    for frame in [&[][..], b"no log"] {
        socket.send(frame).await?;
    }
    for attempt in -1..GUESSES {
        socket.send(&LogMessage::new(attempt, LogOpen {}).encode()?).await?;
        let chunk = LogChunk { offset: 0, data: Bytes::from_static(b"a lie") };
        socket.send(&LogMessage::new(attempt, chunk).encode()?).await?;
        let end = LogEnd { stream_bytes: 5, text_bytes: 5, ..LogEnd::default() };
        socket.send(&LogMessage::new(attempt, end).encode()?).await?;
    }
    // The answer about the last shows that all was taken.
    loop {
        if let DealerEvent::Frame(frame) = socket.next().await?
            && LogReply::decode(&frame)?.attempt == GUESSES - 1
        {
            return Ok(());
        }
    }
}
