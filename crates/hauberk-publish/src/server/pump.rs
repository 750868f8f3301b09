//! Large bodies on their way into a socket.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    libc::off_t,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        sendfile::sendfile,
        socket::{MsgFlags, send},
    },
};
use std::os::fd::AsRawFd;

use super::{
    activity::Activity,
    body::{Body, Source},
    metrics::Metrics,
};
use crate::stream::{Buffer, BufferPool};

/// Bytes of a file handed to the kernel at a time.
const FILE_PIECE: u64 = 2 << 20;

/// Says that more follows at once.
const MORE: MsgFlags = MsgFlags::from_bits_retain(nix::libc::MSG_MORE);

/// How long a thread waits for a client before it leaves that to the runtime, which waits for any number of them.
const PATIENCE: Duration = Duration::from_millis(5);

/// Bytes before a chunk: its size in eight hexadecimal digits, and an end of line.
const CHUNK_HEAD: usize = 10;
/// After a chunk, and after the last one.
const CHUNK_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A body, and how far it has been sent. It moves between a thread that reads and writes, and the runtime, which waits while the
/// client takes nothing; then it holds no thread, and at most one buffer.
pub(super) struct Pump {
    /// The buffer whose bytes in `pending` go next.
    buffer: Option<Buffer>,
    pending: std::ops::Range<usize>,
    /// What goes before the body.
    head: Vec<u8>,
    feed: Feed,
    pool: BufferPool,
    /// Bytes given to the kernel so far.
    sent: u64,
}

enum Feed {
    /// A file, sent by the kernel itself where it can.
    File { file: File, at: u64, left: u64 },
    /// A reader that gives so many bytes more.
    Counted { source: Source, left: u64 },
    /// A reader whose end ends the body, sent in chunks.
    Chunked { source: Source },
    /// A reader whose end ends the connection.
    Endless { source: Source },
    /// Nothing more.
    Over,
}

/// Why a pump stands still.
pub(super) enum Still {
    /// All is sent.
    Finished,
    /// The client takes nothing.
    Held,
}

impl Pump {
    /// Prepares `head`, and then `body`, to be sent; in chunks if its length is not known and the client takes them.
    pub(super) fn new(head: Vec<u8>, body: Body, chunks: bool, pool: BufferPool) -> Self {
        let feed = match body {
            Body::Empty | Body::Bytes(_) => Feed::Over,
            Body::File { file, first, count } => Feed::File { file, at: first, left: count },
            Body::Read { source, length: Some(left) } => Feed::Counted { source, left },
            Body::Read { source, length: None } if chunks => Feed::Chunked { source },
            Body::Read { source, length: None } => Feed::Endless { source },
        };
        Self { buffer: None, pending: 0..0, head, feed, pool, sent: 0 }
    }

    /// Bytes given to the kernel so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Gives bytes that go next, where they are at hand.
    pub(super) fn pending(&self) -> &[u8] {
        match &self.buffer {
            Some(buffer) => &buffer.bytes()[self.pending.clone()],
            None => &[],
        }
    }

    /// Notes that `count` of the pending bytes have gone.
    pub(super) fn advance(&mut self, count: usize) {
        self.sent += count as u64;
        self.pending.start += count;
        if self.pending.is_empty() {
            self.buffer = None;
        }
    }

    /// Makes the next bytes pending, files included. Says false at the end.
    ///
    /// # Errors
    /// A reader that fails, or that gives fewer bytes than were announced.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        if !self.pending.is_empty() {
            return Ok(true);
        }
        if self.head.is_empty() && matches!(self.feed, Feed::Over) {
            return Ok(false);
        }
        let mut buffer = self.buffer.take().unwrap_or_else(|| self.pool.take());
        let space = buffer.space();
        let start = self.head.len().min(space.len() / 2);
        space[..start].copy_from_slice(&self.head[..start]);
        self.head.drain(..start);
        let room = &mut space[start..];
        let mut over = false;
        let filled = if !self.head.is_empty() {
            0
        } else {
            match &mut self.feed {
                Feed::File { file, at, left } => {
                    let wanted = clamp(*left, room.len());
                    file.read_exact_at(&mut room[..wanted], *at)?;
                    *at += wanted as u64;
                    *left -= wanted as u64;
                    over = *left == 0;
                    wanted
                }
                Feed::Counted { source, left } => {
                    let wanted = clamp(*left, room.len());
                    if read_full(source, &mut room[..wanted])? < wanted {
                        return Err(io::Error::other("a body is shorter than was announced"));
                    }
                    *left -= wanted as u64;
                    over = *left == 0;
                    wanted
                }
                Feed::Chunked { source } => {
                    let end = room.len() - CHUNK_END.len() - LAST_CHUNK.len();
                    let count = read_full(source, &mut room[CHUNK_HEAD..end])?;
                    let mut at = 0;
                    if count > 0 {
                        room[..CHUNK_HEAD].copy_from_slice(format!("{count:08x}\r\n").as_bytes());
                        at = CHUNK_HEAD + count;
                        room[at..at + CHUNK_END.len()].copy_from_slice(CHUNK_END);
                        at += CHUNK_END.len();
                    }
                    over = count < end - CHUNK_HEAD;
                    if over {
                        room[at..at + LAST_CHUNK.len()].copy_from_slice(LAST_CHUNK);
                        at += LAST_CHUNK.len();
                    }
                    at
                }
                Feed::Endless { source } => {
                    let count = read_full(source, room)?;
                    over = count < room.len();
                    count
                }
                Feed::Over => 0,
            }
        };
        if over {
            self.feed = Feed::Over;
        }
        self.pending = 0..start + filled;
        self.buffer = Some(buffer);
        Ok(!self.pending.is_empty())
    }

    /// Gives the kernel what is pending, or a piece of a file, without waiting. Gives the number of bytes; none at the end.
    ///
    /// # Errors
    /// `WouldBlock` where the client has to take some first; a client that is gone; as [`Self::fill`].
    pub(super) fn send_some(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        if self.pending.is_empty()
            && let Feed::File { file, at, left } = &mut self.feed
        {
            if !self.head.is_empty() {
                // The file follows at once: they share packets.
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL | MORE;
                let count = send(socket.as_raw_fd(), &self.head, flags)?;
                self.head.drain(..count);
                self.sent += count as u64;
                return Ok(count);
            }
            let mut offset = off_t::try_from(*at).map_err(io::Error::other)?;
            let count = sendfile(socket, file.as_fd(), Some(&mut offset), clamp(*left, FILE_PIECE as usize))?;
            if count == 0 {
                return Err(io::Error::other("a file is shorter than was announced"));
            }
            self.sent += count as u64;
            *at += count as u64;
            *left -= count as u64;
            if *left == 0 {
                self.feed = Feed::Over;
            }
            return Ok(count);
        }
        if !self.fill()? {
            return Ok(0);
        }
        let count =
            send(socket.as_raw_fd(), self.pending(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
        self.advance(count);
        Ok(count)
    }

    /// Sends until all is sent or the client takes nothing for a moment.
    ///
    /// # Errors
    /// As [`Self::send_some`].
    pub(super) fn run(
        &mut self,
        socket: &OwnedFd,
        activity: &Arc<Activity>,
        metrics: &Metrics,
    ) -> io::Result<Still> {
        loop {
            match self.send_some(socket.as_fd()) {
                Ok(0) => return Ok(Still::Finished),
                Ok(count) => {
                    activity.note();
                    metrics.sent(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut watched = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
                    let patience = PollTimeout::try_from(PATIENCE).map_err(io::Error::other)?;
                    match poll(&mut watched, patience) {
                        Ok(0) => return Ok(Still::Held),
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn clamp(left: u64, room: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(room)
}

/// Reads until `buffer` is full or the source ends.
fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match source.read(&mut buffer[at..]) {
            Ok(0) => break,
            Ok(count) => at += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(body: Body, chunks: bool, head: &[u8]) -> io::Result<Vec<u8>> {
        let mut pump = Pump::new(head.to_vec(), body, chunks, BufferPool::default());
        let mut all = Vec::new();
        while pump.fill()? {
            // In unequal pieces, as sockets take them.
            let count = pump.pending().len().min(100_003);
            all.extend_from_slice(&pump.pending()[..count]);
            pump.advance(count);
        }
        assert_eq!(pump.sent(), all.len() as u64);
        Ok(all)
    }

    fn read(bytes: &[u8], length: Option<u64>) -> Body {
        Body::Read { source: Box::new(io::Cursor::new(bytes.to_vec())), length }
    }

    #[test]
    fn bodies_are_framed() {
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
        let head = b"head\r\n\r\n";
        let whole = [head.as_slice(), &bytes].concat();
        assert_eq!(sent(read(&bytes, Some(1_000_000)), true, head).unwrap(), whole);
        assert_eq!(sent(read(&bytes, None), false, head).unwrap(), whole);
        assert_eq!(sent(read(&bytes, Some(10)), true, head).unwrap(), whole[..head.len() + 10]);
        sent(read(&bytes, Some(1_000_001)), true, head).unwrap_err();
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &bytes).unwrap();
        let part = Body::File { file, first: 5, count: 900_000 };
        assert_eq!(sent(part, true, b"").unwrap(), bytes[5..900_005]);
        for length in [0, 1, 262_144 - 17, 262_144, 1_000_000] {
            let chunked = sent(read(&bytes[..length], None), true, b"").unwrap();
            assert_eq!(unchunk(&chunked), bytes[..length], "{length}");
        }
    }

    fn unchunk(mut chunked: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let end = chunked.iter().position(|&byte| byte == b'\r').unwrap();
            let size = usize::from_str_radix(std::str::from_utf8(&chunked[..end]).unwrap(), 16).unwrap();
            if size == 0 {
                assert_eq!(&chunked[end..], b"\r\n\r\n");
                return bytes;
            }
            bytes.extend_from_slice(&chunked[end + 2..end + 2 + size]);
            assert_eq!(&chunked[end + 2 + size..end + 4 + size], b"\r\n");
            chunked = &chunked[end + 4 + size..];
        }
    }
}
