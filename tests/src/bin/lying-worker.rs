//! An enrolled worker that lies: it speaks the protocol, and means harm.
//!
//! It claims results of other workers' attempts, sends what nobody can read, and of its own attempts reports outputs that are not
//! asked for, outputs that it does not have, and results twice and in sessions that are over. It goes on until it is ended, and takes
//! no more attempts than it is told to.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
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
use hauberk_protocol::{LogMessage, PROTOCOL_VERSION, ServerBody, ServerMessage, WorkerBody, WorkerMessage};

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
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let keys = CurveKeyPair::read(&options.key)?;
    let mut liar = Liar { socket: connect(&options, &keys)?, session: 0, sequence: 0, taken: 0 };
    liar.join(&options).await?;
    liar.claim_what_is_not_its_own().await?;
    lie_about_logs(&options, &keys).await?;
    liar.send(Credit { granted: options.attempts }).await?;
    let mut heartbeats = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        tokio::select! {
            event = liar.socket.next() => {
                let DealerEvent::Frame(frame) = event? else { continue };
                if let ServerBody::Assign(assign) = ServerMessage::decode(&frame)?.body {
                    liar.report(&assign).await?;
                    if liar.taken == options.attempts {
                        println!("all lies are told");
                    }
                }
            }
            _ = heartbeats.tick() => {
                // It claims to be at everything.
                let running = (1..GUESSES).map(|attempt| RunningAttempt { attempt, ..RunningAttempt::default() });
                liar.send(Heartbeat { running: running.collect(), granted: options.attempts, ..Heartbeat::default() }).await?;
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
        // A kind of message that is not known, one without a body, and what is none.
        let mut unknown = WorkerMessage::new(self.session, 1, failure(1)).encode()?.to_vec();
        unknown.extend_from_slice(&[0xfa, 0x3f, 0x01, 0x00]);
        for frame in [&unknown[..], &[], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4096], &[0x0a; 100_000]] {
            self.socket.send(frame).await?;
        }
        Ok(())
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
    for attempt in -1..GUESSES {
        socket.send(&LogMessage::new(attempt, LogOpen {}).encode()?).await?;
        let chunk = LogChunk { offset: 0, data: Bytes::from_static(b"a lie") };
        socket.send(&LogMessage::new(attempt, chunk).encode()?).await?;
        let end = LogEnd { stream_bytes: 5, text_bytes: 5, ..LogEnd::default() };
        socket.send(&LogMessage::new(attempt, end).encode()?).await?;
    }
    socket.send(b"no log").await?;
    // Answers show that all was taken.
    loop {
        if matches!(socket.next().await?, DealerEvent::Frame(_)) {
            return Ok(());
        }
    }
}
