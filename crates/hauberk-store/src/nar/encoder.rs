//! Writing NARs.

use std::io::{self, Read, Write};

use super::{Event, MAGIC, is_name, is_target, padding};

/// Bytes gathered before they are handed on.
const BUFFER: usize = 256 * 1024;

/// Why an event could not be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The event may not stand here, as an entry out of order or more contents than announced.
    #[error("NAR cannot be written: {what}")]
    Misuse {
        /// What is wrong.
        what: &'static str,
    },
    /// The writer failed.
    #[error("cannot write NAR")]
    Write(#[source] io::Error),
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Node,
    Contents { remaining: u64, padding: usize },
    Entry,
    End,
    Nothing,
}

/// Writes a NAR from its [`Event`]s, and refuses those that make none.
#[derive(Debug)]
pub struct Encoder<W> {
    sink: Sink<W>,
    expect: Expect,
    /// The last name of each open directory.
    names: Vec<Vec<u8>>,
}

impl<W: Write> Encoder<W> {
    /// Starts an archive. Bytes are gathered, so `writer` needs no buffer of its own.
    pub fn new(writer: W) -> Self {
        let mut sink = Sink { writer, buffer: Vec::with_capacity(BUFFER), written: 0 };
        sink.string(MAGIC);
        Self { sink, expect: Expect::Node, names: Vec::new() }
    }

    /// Writes one event.
    ///
    /// # Errors
    /// An event that may not come here, or a writer that fails.
    pub fn event(&mut self, event: Event<'_>) -> Result<(), EncodeError> {
        let misuse = |what| Err(EncodeError::Misuse { what });
        match (self.expect, event) {
            (Expect::Node, Event::File { executable, size }) => self.begin_file(executable, size),
            (Expect::Contents { remaining, padding }, Event::Contents(contents)) => {
                let Some(remaining) = remaining.checked_sub(contents.len() as u64) else {
                    return misuse("more contents than the file's size");
                };
                self.sink.bytes(contents).map_err(EncodeError::Write)?;
                self.expect = Expect::Contents { remaining, padding };
                Ok(())
            }
            (Expect::Contents { remaining: 0, padding }, Event::EndFile) => self.end_file(padding),
            (Expect::Contents { .. }, Event::EndFile) => misuse("fewer contents than the file's size"),
            (Expect::Node, Event::Symlink { target }) => {
                if !is_target(target) {
                    return misuse("forbidden target of a symbolic link");
                }
                self.sink.raw(words::SYMLINK);
                self.sink.string(target);
                self.sink.raw(words::CLOSE);
                self.end_node()
            }
            (Expect::Node, Event::Directory) => {
                self.sink.raw(words::DIRECTORY);
                self.names.push(Vec::new());
                self.expect = Expect::Entry;
                self.sink.flush_if_full().map_err(EncodeError::Write)
            }
            (Expect::Entry, Event::Entry { name }) => {
                let Some(last) = self.names.last_mut() else {
                    return misuse("entry outside a directory");
                };
                if !is_name(name) {
                    return misuse("forbidden name of a directory entry");
                }
                if name <= last.as_slice() {
                    return misuse("directory entries out of order");
                }
                last.clear();
                last.extend_from_slice(name);
                self.sink.raw(words::ENTRY);
                self.sink.string(name);
                self.sink.raw(words::NODE);
                self.expect = Expect::Node;
                Ok(())
            }
            (Expect::Entry, Event::EndDirectory) => {
                self.names.pop();
                self.sink.raw(words::CLOSE);
                self.end_node()
            }
            (Expect::End, Event::End) => {
                self.expect = Expect::Nothing;
                self.sink.flush().map_err(EncodeError::Write)
            }
            _ => misuse("an event where it may not come"),
        }
    }

    /// Gives the bytes of the archive so far, those still gathered included.
    pub fn size(&self) -> u64 {
        self.sink.written + self.sink.buffer.len() as u64
    }

    /// Takes the writer back; what the last [`Event::End`] wrote has reached it.
    pub fn into_inner(self) -> W {
        self.sink.writer
    }

    fn begin_file(&mut self, executable: bool, size: u64) -> Result<(), EncodeError> {
        self.sink.raw(if executable { words::EXECUTABLE } else { words::REGULAR });
        self.sink.raw(&size.to_le_bytes());
        self.expect = Expect::Contents { remaining: size, padding: padding(size) };
        self.sink.flush_if_full().map_err(EncodeError::Write)
    }

    fn end_file(&mut self, padding: usize) -> Result<(), EncodeError> {
        self.sink.raw(&[0; 8][..padding]);
        self.sink.raw(words::CLOSE);
        self.end_node()
    }

    fn end_node(&mut self) -> Result<(), EncodeError> {
        if self.names.is_empty() {
            self.expect = Expect::End;
        } else {
            self.sink.raw(words::CLOSE);
            self.expect = Expect::Entry;
        }
        self.sink.flush_if_full().map_err(EncodeError::Write)
    }

    /// Writes a whole file whose contents `source` reads into the buffer itself, without a copy in between.
    ///
    /// Tells whether the source gave all `size` bytes; if not, the archive is broken.
    pub(super) fn file_from(
        &mut self,
        executable: bool,
        size: u64,
        mut source: impl Read,
    ) -> Result<Result<bool, io::Error>, EncodeError> {
        if self.expect != Expect::Node {
            return Err(EncodeError::Misuse { what: "an event where it may not come" });
        }
        self.begin_file(executable, size)?;
        let mut remaining = size;
        while remaining > 0 {
            let length = self.sink.buffer.len();
            // A short tail is not worth a read of its own.
            if BUFFER - length < 16 * 1024 && remaining > (BUFFER - length) as u64 {
                self.sink.flush().map_err(EncodeError::Write)?;
                continue;
            }
            let wanted = usize::try_from(remaining).map_or(BUFFER - length, |n| n.min(BUFFER - length));
            self.sink.buffer.resize(length + wanted, 0);
            let read = source.read(&mut self.sink.buffer[length..]);
            self.sink.buffer.truncate(length + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Ok(Ok(false)),
                Ok(read) => remaining -= read as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        self.end_file(padding(size))?;
        Ok(Ok(true))
    }
}

/// Gathers bytes for a writer.
#[derive(Debug)]
struct Sink<W> {
    writer: W,
    buffer: Vec<u8>,
    /// Bytes handed to the writer.
    written: u64,
}

impl<W: Write> Sink<W> {
    fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn string(&mut self, text: &[u8]) {
        self.raw(&(text.len() as u64).to_le_bytes());
        self.raw(text);
        self.raw(&[0; 8][..padding(text.len() as u64)]);
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() >= BUFFER / 4 {
            self.flush()?;
            self.writer.write_all(bytes)?;
            self.written += bytes.len() as u64;
            return Ok(());
        }
        self.buffer.extend_from_slice(bytes);
        self.flush_if_full()
    }

    /// Keeps room for the longest run of words, name and target.
    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() > BUFFER - 8 * 1024 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Runs of the format's own words, as they stand between the parts that vary.
mod words {
    /// Spells strings of one to sixteen bytes, `N` bytes in all.
    const fn spell<const N: usize>(words: &[&str]) -> [u8; N] {
        let mut bytes = [0; N];
        let (mut at, mut index) = (0, 0);
        while index < words.len() {
            let word = words[index].as_bytes();
            bytes[at] = word.len() as u8;
            at += 8;
            let mut offset = 0;
            while offset < word.len() {
                bytes[at + offset] = word[offset];
                offset += 1;
            }
            at += word.len().next_multiple_of(8);
            index += 1;
        }
        assert!(at == N, "the length given is that of the words");
        bytes
    }

    pub(super) const REGULAR: &[u8] = &spell::<64>(&["(", "type", "regular", "contents"]);
    pub(super) const EXECUTABLE: &[u8] =
        &spell::<96>(&["(", "type", "regular", "executable", "", "contents"]);
    pub(super) const SYMLINK: &[u8] = &spell::<64>(&["(", "type", "symlink", "target"]);
    pub(super) const DIRECTORY: &[u8] = &spell::<56>(&["(", "type", "directory"]);
    pub(super) const ENTRY: &[u8] = &spell::<48>(&["entry", "(", "name"]);
    pub(super) const NODE: &[u8] = &spell::<16>(&["node"]);
    pub(super) const CLOSE: &[u8] = &spell::<16>(&[")"]);
}
