//! The log of one attempt: written by the builder, read by the courier that sends it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hauberk_protocol::proto::LogTotals;
use tracing::warn;

use super::chunk::{self, CHUNK_TEXT};
use super::index::Mark;
use super::store::ChunkStore;
use crate::AttemptId;

/// Bytes of the stream that are sent at once where the chunks are not known any more.
const LARGEST_PIECE: u64 = 128 << 10;

/// Told when a log has text that was not compressed yet, or has ended.
pub(crate) type Wake = Arc<dyn Fn(AttemptId) + Send + Sync>;

/// The log of one attempt. Cheap to clone: clones write to the same log.
///
/// Writing compresses each 64 KiB of text in the caller and hands it to the page cache; what is less waits for the courier's
/// [`AttemptLog::flush`], at most 100 ms.
#[derive(Clone)]
pub struct AttemptLog {
    id: AttemptId,
    shared: Arc<Mutex<Shared>>,
    wake: Wake,
}

struct Shared {
    store: ChunkStore,
    /// Text that is in no chunk yet.
    pending: Vec<u8>,
    /// Where the last chunk ends.
    mark: Mark,
    /// Ends of the chunks that the server has not acknowledged, ascending.
    ends: VecDeque<u64>,
    /// Bytes of the stream beyond which the log is cut.
    limit: u64,
    /// Nothing more is taken: the log is cut, or could not be stored.
    closed: bool,
}

/// What the server must still be sent, beginning at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A chunk, or the rest of one.
    Chunk(Bytes),
    /// The whole stream was read, and the log has ended so.
    End(Mark),
    /// More may come.
    Later,
}

impl AttemptLog {
    /// A new log, cut when its stream would pass `limit` bytes.
    pub(crate) fn new(id: AttemptId, store: ChunkStore, limit: u64, wake: Wake) -> Self {
        Self::resume(id, store, &[], limit, wake)
    }

    /// A log that an earlier process began.
    pub(crate) fn resume(id: AttemptId, store: ChunkStore, marks: &[Mark], limit: u64, wake: Wake) -> Self {
        let mark = marks.last().copied().unwrap_or_default();
        let shared = Shared {
            store,
            pending: Vec::new(),
            mark,
            ends: marks.iter().filter(|mark| !mark.ended).map(|mark| mark.stream).collect(),
            limit,
            closed: mark.ended || mark.truncated,
        };
        Self { id, shared: Arc::new(Mutex::new(shared)), wake }
    }

    /// The attempt whose log this is.
    pub fn id(&self) -> AttemptId {
        self.id
    }

    /// Appends bytes as the builder wrote them; whoever calls adds the line ends.
    pub fn write(&self, bytes: &[u8]) {
        let mut shared = self.lock();
        if shared.closed || bytes.is_empty() {
            return;
        }
        let was_idle = shared.pending.is_empty();
        let mut rest = bytes;
        while !rest.is_empty() && !shared.closed {
            let room = CHUNK_TEXT - shared.pending.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            shared.pending.extend_from_slice(now);
            rest = later;
            if shared.pending.len() >= CHUNK_TEXT {
                shared.flush(self.id);
            }
        }
        drop(shared);
        if was_idle {
            (self.wake)(self.id);
        }
    }

    /// Appends one line of the worker's own, marked as such.
    pub fn note(&self, text: &str) {
        self.write(format!("hauberk: {text}\n").as_bytes());
    }

    /// Makes a chunk of the text that waits.
    pub fn flush(&self) {
        self.lock().flush(self.id);
    }

    /// Ends the log and tells its totals. Later text is ignored; a second call changes nothing.
    pub fn finish(&self) -> LogTotals {
        let mut shared = self.lock();
        shared.flush(self.id);
        if !shared.mark.ended {
            shared.closed = true;
            shared.mark.ended = true;
            let mark = shared.mark;
            if let Err(error) = shared.store.append(Vec::new(), &mark) {
                warn!(attempt.id = %self.id, %error, "cannot write the end of the log of attempt {}", self.id);
            }
        }
        let mark = shared.mark;
        drop(shared);
        (self.wake)(self.id);
        LogTotals { text_bytes: mark.text, stream_bytes: mark.stream, truncated: mark.truncated }
    }

    /// Puts what was written so far on the disk; blocks.
    pub fn sync(&self) -> io::Result<()> {
        self.lock().store.sync()
    }

    /// Bytes of text written so far.
    pub fn text_bytes(&self) -> u64 {
        let shared = self.lock();
        shared.mark.text + shared.pending.len() as u64
    }

    /// The next piece at `offset` of the stream.
    pub(crate) fn piece(&self, offset: u64) -> io::Result<Piece> {
        let shared = self.lock();
        if offset >= shared.mark.stream {
            let at_end = offset == shared.mark.stream && shared.mark.ended;
            return Ok(if at_end { Piece::End(shared.mark) } else { Piece::Later });
        }
        let end = shared.ends.iter().copied().find(|end| *end > offset).unwrap_or(shared.mark.stream);
        // Of what a server had acknowledged that is gone now, the ends of the chunks are forgotten.
        let length = usize::try_from((end - offset).min(LARGEST_PIECE)).map_err(io::Error::other)?;
        shared.store.read(offset, length).map(Piece::Chunk)
    }

    /// Whether it is gone with the process.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.lock().store, ChunkStore::Memory(_))
    }

    /// Bytes of the stream there are.
    pub(crate) fn stream_bytes(&self) -> u64 {
        self.lock().mark.stream
    }

    /// Takes note that the server has everything before `offset`.
    pub(crate) fn acknowledge(&self, offset: u64) {
        let mut shared = self.lock();
        while shared.ends.front().is_some_and(|end| *end <= offset) {
            shared.ends.pop_front();
        }
        shared.store.discard_before(offset);
    }

    /// Deletes the spooled chunks.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let mut shared = self.lock();
        shared.closed = true;
        shared.store.remove()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A panic while the lock was held left at worst a chunk unwritten: the log goes on.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for AttemptLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttemptLog").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Shared {
    fn flush(&mut self, id: AttemptId) {
        if self.pending.is_empty() || self.closed {
            return;
        }
        let text = std::mem::take(&mut self.pending);
        let chunk = chunk::deflate(&text);
        if self.mark.stream + chunk.len() as u64 > self.limit {
            let line =
                format!("\nhauberk: the log is cut here, its compressed form passed {} bytes\n", self.limit);
            self.mark.truncated = true;
            self.put(id, line.as_bytes(), chunk::deflate(line.as_bytes()));
            self.closed = true;
        } else {
            self.put(id, &text, chunk);
            self.pending = text;
            self.pending.clear();
        }
    }

    fn put(&mut self, id: AttemptId, text: &[u8], chunk: Vec<u8>) {
        let mut crc = crc32fast::Hasher::new_with_initial(self.mark.crc32);
        crc.update(text);
        let mark = Mark {
            stream: self.mark.stream + chunk.len() as u64,
            text: self.mark.text + text.len() as u64,
            crc32: crc.finalize(),
            ..self.mark
        };
        match self.store.append(chunk, &mark) {
            Ok(()) => {
                self.mark = mark;
                self.ends.push_back(mark.stream);
            }
            Err(error) => {
                warn!(attempt.id = %id, %error, "cannot spool the log of attempt {id}: it is cut");
                self.mark.truncated = true;
                self.closed = true;
            }
        }
    }
}
