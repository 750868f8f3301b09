//! Recorded conversations of a real guix-daemon, and a daemon that plays its side of them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use hauberk_daemon::Connection;
use hauberk_store::{NarHash, nar::Node};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinHandle,
};

use crate::wire::{ERROR, Field, LAST, NEXT, READ, Reader, WRITE, operation};

/// Operations of Guix's client that ours does without.
const UNUSED: [u64; 4] = [3, 4, 5, 24];

/// A piece of the daemon's answer, and what the client then sends if the daemon asked for data.
struct Piece {
    daemon: Vec<u8>,
    client: Vec<u8>,
}

/// A request and its answer.
pub(crate) struct Turn {
    pub(crate) code: u64,
    pub(crate) request: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Turn {
    /// Gives the nar an add-to-store request ends with.
    pub(crate) fn nar(&self) -> &[u8] {
        let mut reader = Reader::new(&self.request);
        reader.int().unwrap();
        for &field in operation(7).0.iter().filter(|&&field| field != Field::Nar) {
            reader.field(field).unwrap();
        }
        &self.request[reader.at..]
    }

    /// Gives the data the client sent when it was asked.
    pub(crate) fn data(&self) -> Vec<u8> {
        self.pieces.iter().filter_map(|piece| Reader::new(&piece.client).text()).flatten().copied().collect()
    }
}

/// What the daemon says about derivations' outputs when it is asked beside what was recorded.
#[derive(Default)]
pub(crate) struct Side {
    pub(crate) outputs: BTreeMap<String, Vec<String>>,
    pub(crate) valid: BTreeSet<String>,
    /// What becomes valid by the recorded request.
    pub(crate) made: BTreeSet<String>,
    /// The text of derivations.
    pub(crate) derivations: BTreeMap<String, Vec<u8>>,
    /// What can be fetched, with its references.
    pub(crate) substitutable: BTreeMap<String, Vec<String>>,
    /// Where else substitutes come from.
    pub(crate) urls: Vec<String>,
}

/// A conversation.
pub(crate) struct Recording {
    greeting: (Vec<u8>, Vec<u8>),
    pub(crate) turns: VecDeque<Turn>,
}

impl Recording {
    /// Reads a conversation and splits it into turns; every byte of it must have its place.
    pub(crate) fn load(name: &str) -> Self {
        let directory =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/guix-vectors/protocol");
        let read = |suffix: &str| std::fs::read(directory.join(format!("{name}.{suffix}.bin"))).unwrap();
        let (client, daemon) = (read("c2s"), read("s2c"));
        // Magic, version, no affinity, reserve space; magic, version, last.
        let greeting = (client[..32].to_vec(), daemon[..24].to_vec());
        let (mut client, mut daemon) = (&client[32..], &daemon[24..]);
        let mut turns = VecDeque::new();
        while !client.is_empty() {
            let mut request = Reader::new(client);
            let code = request.request().expect("the request is whole");
            let (own, rest) = client.split_at(request.at);
            client = rest;
            let mut turn = Turn { code, request: own.to_vec(), pieces: Vec::new() };
            loop {
                let mut frames = Reader::new(daemon);
                let done = until_turn(&mut frames, code);
                let (answer, rest) = daemon.split_at(frames.at);
                daemon = rest;
                let mut data = Reader::new(client);
                if !done {
                    data.text().expect("the data is whole");
                }
                let (sent, rest) = client.split_at(data.at);
                client = rest;
                turn.pieces.push(Piece { daemon: answer.to_vec(), client: sent.to_vec() });
                if done {
                    break;
                }
            }
            turns.push_back(turn);
        }
        assert!(daemon.is_empty(), "{name} has {} more bytes of the daemon", daemon.len());
        Self { greeting, turns }
    }

    /// Takes another version of the protocol.
    pub(crate) fn with_version(mut self, version: u64) -> Self {
        self.greeting.0[8..16].copy_from_slice(&version.to_le_bytes());
        self.greeting.1[8..16].copy_from_slice(&version.to_le_bytes());
        self
    }

    /// Plays the daemon's side to a client of ours.
    pub(crate) async fn play(self, side: Side) -> (Connection<DuplexStream>, Playing) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let side = Arc::new(Mutex::new(side));
        let playing = tokio::spawn(play(self, theirs, side));
        let connection = Connection::greet(ours, None).await.unwrap();
        (connection, Playing(playing))
    }
}

/// Follows the daemon's frames and tells whether they end the operation; else it waits for data.
fn until_turn(frames: &mut Reader<'_>, code: u64) -> bool {
    loop {
        match frames.long().unwrap() {
            NEXT | WRITE => drop(frames.text().unwrap()),
            READ => {
                frames.long().unwrap();
                return false;
            }
            LAST => {
                operation(code).1.iter().for_each(|&field| frames.field(field).unwrap());
                return true;
            }
            ERROR => {
                frames.text().unwrap();
                frames.int().unwrap();
                return true;
            }
            other => panic!("unknown frame {other:#x}"),
        }
    }
}

/// A daemon at play.
pub(crate) struct Playing(JoinHandle<usize>);

impl Playing {
    /// Waits until the client hung up and gives how many recorded requests it did not make, not counting those it never makes.
    pub(crate) async fn left(self) -> usize {
        self.0.await.unwrap()
    }
}

async fn play(mut recording: Recording, mut stream: DuplexStream, side: Arc<Mutex<Side>>) -> usize {
    let (hello, answer) = &recording.greeting;
    let mut said = vec![0; 8];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(said, hello[..8]);
    stream.write_all(&answer[..16]).await.unwrap();
    said.resize(24, 0);
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(said, hello[8..]);
    stream.write_all(&answer[16..]).await.unwrap();

    let mut buffer = Vec::new();
    loop {
        let mut reader = Reader::new(&buffer);
        let Some(code) = reader.request() else {
            if stream.read_buf(&mut buffer).await.unwrap() == 0 {
                assert!(buffer.is_empty(), "the client hung up in a request");
                return recording.turns.iter().filter(|turn| !UNUSED.contains(&turn.code)).count();
            }
            continue;
        };
        let request: Vec<u8> = buffer.drain(..reader.at).collect();
        while recording.turns.front().is_some_and(|turn| UNUSED.contains(&turn.code) && turn.code != code) {
            recording.turns.pop_front();
        }
        match recording.turns.front() {
            Some(turn) if turn.code == code => {
                let turn = recording.turns.pop_front().unwrap();
                assert_eq!(normal(&request), normal(&turn.request), "operation {code}");
                for piece in turn.pieces {
                    stream.write_all(&piece.daemon).await.unwrap();
                    let mut sent = vec![0; piece.client.len()];
                    stream.read_exact(&mut sent).await.unwrap();
                    assert_eq!(sent, piece.client);
                }
                if code == 9 {
                    let mut side = side.lock().unwrap();
                    let made = std::mem::take(&mut side.made);
                    side.valid.extend(made);
                }
            }
            _ => {
                let answer = side.lock().unwrap().answer(code, &request);
                stream.write_all(&answer).await.unwrap();
            }
        }
    }
}

/// Spells a request so that differences can be read; lists of paths asked about may be in any order.
fn normal(request: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(request);
    if matches!(reader.int(), Some(30..=32)) {
        let mut asked: Vec<String> = reader
            .texts()
            .unwrap()
            .into_iter()
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect();
        asked.sort();
        return asked;
    }
    vec![String::from_utf8_lossy(request).into_owned()]
}

/// Lays out what the daemon says.
#[derive(Default)]
struct Answer(Vec<u8>);

impl Answer {
    fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        let mut answer = self.number(bytes.len() as u64);
        answer.0.extend_from_slice(bytes);
        answer.0.resize(answer.0.len().next_multiple_of(8), 0);
        answer
    }

    fn texts(self, texts: &[String]) -> Self {
        texts.iter().fold(self.number(texts.len() as u64), |answer, text| answer.bytes(text.as_bytes()))
    }
}

impl Side {
    fn answer(&self, code: u64, request: &[u8]) -> Vec<u8> {
        let mut reader = Reader::new(request);
        reader.int().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let answer = Answer::default();
        let answer = match code {
            16 => {
                let path = text(reader.text().unwrap());
                let nar = Node::file(self.derivations[&path].clone()).to_nar().unwrap();
                let trailer = Answer::default().number(0x4558_494e).bytes(path.as_bytes());
                let trailer = trailer.number(0).bytes(b"").number(0);
                answer.number(WRITE).bytes(&[nar, trailer.0].concat()).number(LAST).number(1)
            }
            22 => answer.number(LAST).texts(&self.outputs[&text(reader.text().unwrap())]),
            26 => {
                let nar =
                    Node::file(self.derivations[&text(reader.text().unwrap())].clone()).to_nar().unwrap();
                let hash = NarHash::digest(&nar).to_base16();
                let answer = answer.number(LAST).bytes(b"").bytes(hash.as_bytes()).number(0);
                answer.number(1).number(nar.len() as u64)
            }
            30 => {
                let asked = reader.texts().unwrap().into_iter().map(text);
                let found: Vec<_> =
                    asked.filter_map(|path| self.substitutable.get_key_value(&path)).collect();
                let answer = answer.number(LAST).number(found.len() as u64);
                found.into_iter().fold(answer, |answer, (path, references)| {
                    answer.bytes(path.as_bytes()).bytes(b"").texts(references).number(10).number(100)
                })
            }
            31 => {
                let asked = reader.texts().unwrap().into_iter().map(text);
                let valid: Vec<String> = asked.filter(|path| self.valid.contains(path)).collect();
                answer.number(LAST).texts(&valid)
            }
            81 => answer.number(LAST).texts(&self.urls),
            other => panic!("operation {other} was not recorded here"),
        };
        answer.0
    }
}
