//! Sends one log, as a pure state machine: it asks where the server stands, sends within the window, and begins again where
//! the server says. Of a log that has just begun the server has nothing, so that its first text follows the question at once.

use std::io;
use std::time::{Duration, Instant};

use hauberk_protocol::proto::{LogAck, LogChunk, LogEnd, LogOpen};
use hauberk_protocol::{LogBody, LogMessage};

use super::attempt_log::{AttemptLog, Piece};

/// After this long without an answer the server is asked again where it stands.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// After this long a log is offered again that the server did not want, but may later: its database may have been away for a moment.
/// Each time that it still does not, it takes twice as long.
const SOON: Duration = Duration::from_secs(1);

/// The longest time until it is offered again.
const LATER: Duration = Duration::from_secs(30);

/// Bytes of a log that has just begun that are sent before the server has answered: it holds them until it knows whose the log is.
const FIRST_WINDOW: u64 = 32 << 10;

#[derive(Debug)]
pub(super) struct Transfer {
    log: AttemptLog,
    state: State,
    /// Until it is offered again, should the server not want it now.
    delay: Duration,
}

#[derive(Debug)]
enum State {
    /// Nothing was ever sent of it: the server has nothing.
    New,
    /// The server has not been asked on this connection.
    Unasked,
    /// It was asked.
    Asked { since: Instant },
    /// It takes the log.
    Open(Open),
    /// It does not now.
    Later { until: Instant },
}

#[derive(Debug)]
struct Open {
    acknowledged: u64,
    sent: u64,
    window: u64,
    end_sent: bool,
    /// When something last went on while an answer was owed.
    progress: Instant,
    /// The place from which bytes were sent again; once is enough until the server moves on.
    rewound: Option<u64>,
    /// Bytes followed the question where the server stands, and that is not answered yet.
    presumed: bool,
}

/// What comes of an answer of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// The log goes on.
    GoesOn,
    /// The server has it all.
    Complete,
    /// The server has more than there is here: what is missing cannot be sent by anyone.
    Impossible,
}

impl Transfer {
    pub(super) fn new(log: AttemptLog) -> Self {
        Self { log, state: State::Unasked, delay: SOON }
    }

    /// Sends a log of which nothing was ever sent, by this process or another.
    pub(super) fn begin(log: AttemptLog) -> Self {
        Self { log, state: State::New, delay: SOON }
    }

    pub(super) fn log(&self) -> &AttemptLog {
        &self.log
    }

    /// The connection is new: whatever was sent may be lost.
    pub(super) fn restart(&mut self) {
        if !matches!(self.state, State::New) {
            self.state = State::Unasked;
        }
    }

    /// The server does not want the log now.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.state = State::Later { until: now + self.delay };
        self.delay = (2 * self.delay).min(LATER);
    }

    /// Takes the server's answer.
    pub(super) fn answered(&mut self, now: Instant, ack: LogAck) -> Answered {
        if ack.complete {
            return Answered::Complete;
        }
        self.delay = SOON;
        if ack.offset > self.log.stream_bytes() {
            return Answered::Impossible;
        }
        match &mut self.state {
            State::Open(open) if ack.offset > open.acknowledged => {
                open.acknowledged = ack.offset;
                open.sent = open.sent.max(ack.offset);
                open.window = ack.window;
                open.progress = now;
                open.rewound = None;
                open.presumed = false;
            }
            // As was presumed: what followed is under way.
            State::Open(open) if ack.offset == open.acknowledged && open.presumed => {
                open.window = ack.window;
                open.progress = now;
                open.presumed = false;
            }
            // The same place again while more is under way: something between is missing there.
            State::Open(open) if ack.offset == open.acknowledged => {
                open.window = ack.window;
                open.progress = now;
                if open.sent > ack.offset && open.rewound != Some(ack.offset) {
                    open.rewound = Some(ack.offset);
                    open.sent = ack.offset;
                    open.end_sent = false;
                }
            }
            // An answer to the question, or a server that has lost some of what it had.
            State::Open(_) | State::New | State::Unasked | State::Asked { .. } | State::Later { .. } => {
                self.state = State::Open(Open {
                    acknowledged: ack.offset,
                    sent: ack.offset,
                    window: ack.window,
                    end_sent: false,
                    progress: now,
                    rewound: None,
                    presumed: false,
                });
            }
        }
        self.log.acknowledge(ack.offset);
        Answered::GoesOn
    }

    /// The next message to send, if there is one now.
    pub(super) fn next(&mut self, now: Instant) -> io::Result<Option<LogMessage>> {
        let message = |body: LogBody| Ok(Some(LogMessage { attempt: self.log.id().get(), body }));
        match &mut self.state {
            State::New => {
                self.state = State::Open(Open {
                    acknowledged: 0,
                    sent: 0,
                    window: FIRST_WINDOW,
                    end_sent: false,
                    progress: now,
                    rewound: None,
                    presumed: true,
                });
                message(LogBody::Open(LogOpen {}))
            }
            State::Unasked => {
                self.state = State::Asked { since: now };
                message(LogBody::Open(LogOpen {}))
            }
            State::Asked { .. } | State::Later { .. } => Ok(None),
            State::Open(open) => {
                let under_way = open.sent - open.acknowledged;
                match self.log.piece(open.sent)? {
                    Piece::Chunk(data) => {
                        let length = data.len() as u64;
                        // A window smaller than a chunk lets one chunk through at a time.
                        if open.window == 0 || (under_way > 0 && under_way + length > open.window) {
                            return Ok(None);
                        }
                        if under_way == 0 {
                            open.progress = now;
                        }
                        let offset = open.sent;
                        open.sent += length;
                        message(LogBody::Chunk(LogChunk { offset, data }))
                    }
                    Piece::End(mark) if !open.end_sent => {
                        open.end_sent = true;
                        if under_way == 0 {
                            open.progress = now;
                        }
                        message(LogBody::End(LogEnd {
                            stream_bytes: mark.stream,
                            text_bytes: mark.text,
                            crc32: mark.crc32,
                            truncated: mark.truncated,
                        }))
                    }
                    Piece::End(_) | Piece::Later => Ok(None),
                }
            }
        }
    }

    /// Asks again where an answer is overdue.
    pub(super) fn tick(&mut self, now: Instant) {
        let overdue = match &self.state {
            State::New | State::Unasked => false,
            State::Asked { since } => now.saturating_duration_since(*since) >= PATIENCE,
            State::Later { until } => now >= *until,
            State::Open(open) => {
                let owed =
                    open.end_sent || open.sent > open.acknowledged || open.window == 0 || open.presumed;
                owed && now.saturating_duration_since(open.progress) >= PATIENCE
            }
        };
        if overdue {
            self.state = State::Unasked;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::AttemptId;
    use crate::log::{CHUNK_TEXT, ChunkStore, MemoryStore};

    fn log_of(chunks: usize) -> AttemptLog {
        let store = ChunkStore::Memory(MemoryStore::default());
        let log = AttemptLog::new(AttemptId::new(7).unwrap(), store, u64::MAX, Arc::new(|_| {}));
        for number in 0..chunks {
            log.write(format!("line {number}\n").repeat(10).as_bytes());
            log.flush();
        }
        log
    }

    fn ack(offset: u64, window: u64) -> LogAck {
        LogAck { offset, window, complete: false }
    }

    fn drain(transfer: &mut Transfer, now: Instant) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(message) = transfer.next(now).unwrap() {
            said.push(match message.body {
                LogBody::Open(_) => "open".to_owned(),
                LogBody::Chunk(chunk) => format!("{}+{}", chunk.offset, chunk.data.len()),
                LogBody::End(end) => format!("end {}", end.stream_bytes),
                LogBody::Unknown { .. } => unreachable!("nothing unknown is sent"),
            });
        }
        said
    }

    #[test]
    fn nothing_is_sent_before_the_server_tells_where_it_stands() {
        let now = Instant::now();
        let mut transfer = Transfer::new(log_of(2));
        assert_eq!(drain(&mut transfer, now), ["open"]);
        assert_eq!(transfer.answered(now, ack(0, 1 << 20)), Answered::GoesOn);
        assert_eq!(drain(&mut transfer, now).len(), 2);
        transfer.log().finish();
        let end = transfer.log().stream_bytes();
        assert_eq!(drain(&mut transfer, now), [format!("end {end}")]);
        let complete = LogAck { offset: end, window: 0, complete: true };
        assert_eq!(transfer.answered(now, complete), Answered::Complete);
    }

    #[test]
    fn the_first_text_of_a_new_log_does_not_wait_for_the_server() {
        let now = Instant::now();
        let mut transfer = Transfer::begin(log_of(2));
        let said = drain(&mut transfer, now);
        assert_eq!((said[0].as_str(), said.len()), ("open", 3));
        // The answer to the question tells nothing new; the same again does.
        transfer.answered(now, ack(0, 1 << 20));
        assert!(drain(&mut transfer, now).is_empty());
        transfer.answered(now, ack(0, 1 << 20));
        assert_eq!(drain(&mut transfer, now), said[1..]);

        // Whatever the server says in place of that counts, as does a new connection.
        let mut transfer = Transfer::begin(log_of(2));
        drain(&mut transfer, now);
        transfer.answered(now, ack(5, 1 << 20));
        transfer.restart();
        assert_eq!(drain(&mut transfer, now), ["open"]);
        let mut transfer = Transfer::begin(log_of(2));
        drain(&mut transfer, now);
        // Each time later, up to a limit; and soon again once the server has taken it.
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            transfer.postpone(now);
            let again = now + Duration::from_secs(seconds);
            transfer.tick(again - Duration::from_millis(1));
            assert!(drain(&mut transfer, again - Duration::from_millis(1)).is_empty());
            transfer.tick(again);
            assert_eq!(drain(&mut transfer, again), ["open"]);
        }
        transfer.answered(now, LogAck::default());
        transfer.postpone(now);
        transfer.tick(now + SOON);
        assert_eq!(drain(&mut transfer, now + SOON), ["open"]);
        // A question without an answer is asked again, even if nothing followed it.
        let mut transfer = Transfer::begin(log_of(0));
        assert_eq!(drain(&mut transfer, now), ["open"]);
        transfer.tick(now + PATIENCE);
        assert_eq!(drain(&mut transfer, now + PATIENCE), ["open"]);
    }

    #[test]
    fn little_is_sent_before_the_server_has_answered() {
        let (now, log) = (Instant::now(), log_of(0));
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        for _ in 0..20 {
            log.write(&std::iter::repeat_with(&mut noise).take(10_000).collect::<Vec<u8>>());
            log.flush();
        }
        let mut transfer = Transfer::begin(log);
        let chunks = drain(&mut transfer, now).len() - 1;
        assert!(chunks * 10_000 <= FIRST_WINDOW as usize && chunks >= 2, "{chunks}");
        transfer.answered(now, ack(0, 1 << 20));
        assert_eq!(drain(&mut transfer, now).len(), 20 - chunks);
    }

    #[test]
    fn the_window_bounds_what_is_under_way() {
        let now = Instant::now();
        let log = log_of(3);
        let first = match log.piece(0).unwrap() {
            Piece::Chunk(chunk) => chunk.len() as u64,
            other => panic!("{other:?}"),
        };
        let mut transfer = Transfer::new(log);
        drain(&mut transfer, now);
        transfer.answered(now, ack(0, 1));
        assert_eq!(drain(&mut transfer, now), [format!("0+{first}")], "one chunk passes a small window");
        transfer.answered(now, ack(first, 1));
        assert_eq!(drain(&mut transfer, now).len(), 1);
    }

    #[test]
    fn an_ack_on_the_way_sends_nothing_twice_and_a_repeated_one_does() {
        let now = Instant::now();
        let mut transfer = Transfer::new(log_of(3));
        drain(&mut transfer, now);
        transfer.answered(now, ack(0, 1 << 20));
        let sent = drain(&mut transfer, now);
        let first: u64 = sent[0].strip_prefix("0+").unwrap().parse().unwrap();
        transfer.answered(now, ack(first, 1 << 20));
        assert!(drain(&mut transfer, now).is_empty());
        transfer.answered(now, ack(first, 1 << 20));
        assert_eq!(drain(&mut transfer, now), sent[1..]);
        transfer.answered(now, ack(first, 1 << 20));
        assert!(drain(&mut transfer, now).is_empty(), "sent again once");
    }

    #[test]
    fn a_new_connection_resumes_where_the_server_stands_even_within_a_chunk() {
        let now = Instant::now();
        let mut transfer = Transfer::new(log_of(2));
        drain(&mut transfer, now);
        transfer.answered(now, ack(0, 1 << 20));
        let sent = drain(&mut transfer, now);
        let first: u64 = sent[0].strip_prefix("0+").unwrap().parse().unwrap();
        transfer.restart();
        assert_eq!(drain(&mut transfer, now), ["open"]);
        transfer.answered(now, ack(5, 1 << 20));
        assert_eq!(drain(&mut transfer, now), [format!("5+{}", first - 5), sent[1].clone()]);
    }

    #[test]
    fn silence_is_answered_by_asking_again() {
        let now = Instant::now();
        let mut transfer = Transfer::new(log_of(1));
        drain(&mut transfer, now);
        transfer.tick(now + PATIENCE / 2);
        assert!(drain(&mut transfer, now).is_empty());
        transfer.tick(now + PATIENCE);
        assert_eq!(drain(&mut transfer, now + PATIENCE), ["open"]);
        transfer.answered(now + PATIENCE, ack(0, 1 << 20));
        assert_eq!(drain(&mut transfer, now + PATIENCE).len(), 1);
        transfer.tick(now + 2 * PATIENCE);
        assert_eq!(drain(&mut transfer, now + 2 * PATIENCE), ["open"]);
    }

    #[test]
    fn a_server_that_has_more_than_there_is_cannot_be_served() {
        let now = Instant::now();
        let mut transfer = Transfer::new(log_of(1));
        let beyond = transfer.log().stream_bytes() + 1;
        assert_eq!(transfer.answered(now, ack(beyond, 1)), Answered::Impossible);
    }

    #[test]
    fn a_line_longer_than_a_chunk_is_split() {
        let log = log_of(0);
        log.write(&vec![b'x'; 3 * CHUNK_TEXT + 1]);
        let totals = log.finish();
        assert_eq!(totals.text_bytes, 3 * CHUNK_TEXT as u64 + 1);
    }
}
