//! Where the chunks of one log are kept until the server has them.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tracing::warn;

use super::chunk::{self, CHUNK_TEXT};
use super::index::{self, Mark};

/// The chunks of one log.
#[derive(Debug)]
pub(crate) enum ChunkStore {
    /// In two files of the spool: they outlive the process.
    Disk(DiskStore),
    /// In memory, gone with the process: for simulated workers.
    Memory(MemoryStore),
}

/// Bytes of one log that are kept in memory when the disk does not take them.
const TAIL: u64 = 8 << 20;

/// A stream file and its index.
#[derive(Debug)]
pub(crate) struct DiskStore {
    stream_path: PathBuf,
    index_path: PathBuf,
    stream: File,
    index: File,
    written: u64,
    /// What the disk did not take, from the first chunk that it refused on: gone with the process.
    tail: Option<MemoryStore>,
}

/// The bytes the server has not acknowledged yet.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    /// Where it began.
    first: u64,
    /// Offset of the first kept chunk.
    start: u64,
    chunks: VecDeque<Bytes>,
}

impl ChunkStore {
    /// Appends one chunk whose end is described by `mark`.
    pub(crate) fn append(&mut self, chunk: Vec<u8>, mark: &Mark) -> io::Result<()> {
        match self {
            Self::Disk(store) => store.append(chunk, mark),
            Self::Memory(store) => {
                if !chunk.is_empty() {
                    store.chunks.push_back(Bytes::from(chunk));
                }
                Ok(())
            }
        }
    }

    /// Reads `length` bytes at `offset`, which lie in one chunk.
    pub(crate) fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        match self {
            Self::Disk(DiskStore { tail: Some(tail), .. }) if offset >= tail.first => {
                tail.read(offset, length)
            }
            Self::Disk(store) => {
                // What follows may be in memory.
                let here = usize::try_from(store.written.saturating_sub(offset)).unwrap_or(usize::MAX);
                let mut bytes = vec![0; length.min(here)];
                store.stream.read_exact_at(&mut bytes, offset)?;
                Ok(Bytes::from(bytes))
            }
            Self::Memory(store) => store.read(offset, length),
        }
    }

    /// Forgets what lies before `offset`, where that saves anything.
    pub(crate) fn discard_before(&mut self, offset: u64) {
        match self {
            Self::Memory(store) | Self::Disk(DiskStore { tail: Some(store), .. }) => {
                store.discard_before(offset);
            }
            Self::Disk(_) => {}
        }
    }

    /// Puts the bytes written so far on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self {
            Self::Disk(store) => {
                store.stream.sync_data()?;
                store.index.sync_data()
            }
            Self::Memory(_) => Ok(()),
        }
    }

    /// Deletes everything.
    pub(crate) fn remove(&mut self) -> io::Result<()> {
        match self {
            Self::Disk(store) => {
                // The index goes first: a stream without one is deleted at the next start.
                remove_if_there(&store.index_path)?;
                remove_if_there(&store.stream_path)
            }
            Self::Memory(store) => {
                store.chunks.clear();
                Ok(())
            }
        }
    }
}

impl MemoryStore {
    fn starting_at(offset: u64) -> Self {
        Self { first: offset, start: offset, chunks: VecDeque::new() }
    }

    fn discard_before(&mut self, offset: u64) {
        while let Some(first) = self.chunks.front() {
            let end = self.start + first.len() as u64;
            if end > offset {
                break;
            }
            self.start = end;
            self.chunks.pop_front();
        }
    }

    fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut start = self.start;
        for chunk in &self.chunks {
            let end = start + chunk.len() as u64;
            if (start..end).contains(&offset) {
                let from = usize::try_from(offset - start).map_err(io::Error::other)?;
                let to = from.saturating_add(length).min(chunk.len());
                return Ok(chunk.slice(from..to));
            }
            start = end;
        }
        Err(io::Error::from(io::ErrorKind::UnexpectedEof))
    }
}

impl DiskStore {
    /// Creates the files `stream_path` and `index_path`, empty.
    pub(crate) fn create(stream_path: PathBuf, index_path: PathBuf) -> io::Result<Self> {
        let open = |path: &Path| {
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
        };
        let (stream, index) = (open(&stream_path)?, open(&index_path)?);
        Ok(Self { stream_path, index_path, stream, index, written: 0, tail: None })
    }

    /// Opens what an earlier process left, cuts off what is torn, and tells where the log stands.
    ///
    /// The text is uncompressed once to find the last chunk that is whole, since a power cut may keep an index record and lose
    /// the bytes it speaks of.
    pub(crate) fn recover(stream_path: PathBuf, index_path: PathBuf) -> io::Result<(Self, Vec<Mark>)> {
        let open = |path: &Path| OpenOptions::new().read(true).append(true).open(path);
        let (mut stream, mut index) = (open(&stream_path)?, open(&index_path)?);
        let mut records = Vec::new();
        index.read_to_end(&mut records)?;
        let mut marks = Mark::decode_all(&records);
        let whole = whole_marks(&mut stream, &marks)?;
        marks.truncate(whole);
        let written = marks.last().map_or(0, |mark| mark.stream);
        stream.set_len(written)?;
        index.set_len((whole * index::RECORD) as u64)?;
        Ok((Self { stream_path, index_path, stream, index, written, tail: None }, marks))
    }

    /// Appends to the files, or in memory from the moment on that the disk takes no more.
    fn append(&mut self, chunk: Vec<u8>, mark: &Mark) -> io::Result<()> {
        if self.tail.is_none() {
            let Err(error) = self.append_to_files(&chunk, mark) else { return Ok(()) };
            warn!(
                %error,
                "cannot write to {}: what follows of this log is kept in memory", self.stream_path.display()
            );
        }
        let written = self.written;
        let tail = self.tail.get_or_insert_with(|| MemoryStore::starting_at(written));
        if tail.bytes() + chunk.len() as u64 > TAIL {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if !chunk.is_empty() {
            tail.chunks.push_back(Bytes::from(chunk));
        }
        Ok(())
    }

    fn append_to_files(&mut self, chunk: &[u8], mark: &Mark) -> io::Result<()> {
        let appended =
            self.stream.write_all_at(chunk, self.written).and_then(|()| self.index.write_all(&mark.encode()));
        match appended {
            Ok(()) => {
                self.written += chunk.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A part may have been written: it lies behind the last mark.
                let _ = self.stream.set_len(self.written);
                Err(error)
            }
        }
    }
}

/// Counts the leading marks whose chunks are in `stream`, whole and with the right checksum.
fn whole_marks(stream: &mut File, marks: &[Mark]) -> io::Result<usize> {
    let length = stream.metadata()?.len();
    let (mut crc, mut at, mut text_at) = (crc32fast::Hasher::new(), 0u64, 0u64);
    for (number, mark) in marks.iter().enumerate() {
        let (Some(bytes), Some(text_bytes)) = (mark.stream.checked_sub(at), mark.text.checked_sub(text_at))
        else {
            return Ok(number);
        };
        // A chunk is made of at most one buffer of text; more is damage, and not to be allocated.
        let bounded = bytes <= 4 * CHUNK_TEXT as u64 && text_bytes <= 2 * CHUNK_TEXT as u64;
        if mark.stream > length || !bounded {
            return Ok(number);
        }
        let mut chunk = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
        stream.read_exact_at(&mut chunk, at)?;
        if !chunk.is_empty() {
            let limit = usize::try_from(text_bytes).map_err(io::Error::other)?;
            let Ok(text) = chunk::inflate(&chunk, limit) else { return Ok(number) };
            crc.update(&text);
            if text.len() as u64 != text_bytes {
                return Ok(number);
            }
        }
        if crc.clone().finalize() != mark.crc32 {
            return Ok(number);
        }
        (at, text_at) = (mark.stream, mark.text);
    }
    Ok(marks.len())
}

/// Deletes a file that may be gone already.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
