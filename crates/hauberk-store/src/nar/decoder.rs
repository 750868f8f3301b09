//! Reading NARs as their bytes arrive.

use super::{Event, MAGIC, MAX_NAME_LENGTH, MAX_TARGET_LENGTH, is_name, is_target, padding};

/// Bounds on what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the whole archive.
    pub size: u64,
    /// Most directories inside each other.
    pub depth: usize,
    /// Most entries of all directories together.
    pub entries: u64,
}

impl Default for Limits {
    /// Gives 1 TiB, 512 levels and 50 million entries, more than any real item has.
    fn default() -> Self {
        Self { size: 1 << 40, depth: 512, entries: 50_000_000 }
    }
}

impl Limits {
    /// Gives the usual limits with another size.
    pub fn with_size(size: u64) -> Self {
        Self { size, ..Self::default() }
    }
}

/// Why bytes are not a NAR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NarError {
    /// It does not begin as a NAR does.
    #[error("not a NAR: it does not begin with nix-archive-1")]
    Magic,
    /// Something else stands where the format wants a given string.
    #[error("expected {expected} at byte {offset} of the NAR")]
    Expected {
        /// What should stand there.
        expected: &'static str,
        /// Where, from 0.
        offset: u64,
    },
    /// A string is longer than anything that may stand there.
    #[error("string of {length} bytes at byte {offset} of the NAR is too long")]
    StringTooLong {
        /// Its announced length.
        length: u64,
        /// Where, from 0.
        offset: u64,
    },
    /// The bytes that fill up to a multiple of eight are not zero.
    #[error("padding before byte {offset} of the NAR is not zero")]
    Padding {
        /// Where the padding ends.
        offset: u64,
    },
    /// A directory entry has a name that is none.
    #[error("directory entry before byte {offset} of the NAR has a forbidden name")]
    Name {
        /// Where the name ends.
        offset: u64,
    },
    /// A directory's entries are not in strictly rising order.
    #[error("directory entry before byte {offset} of the NAR is out of order or appears twice")]
    Order {
        /// Where the name ends.
        offset: u64,
    },
    /// A symbolic link's target is empty, too long or has a zero byte.
    #[error("symbolic link before byte {offset} of the NAR has a forbidden target")]
    Target {
        /// Where the target ends.
        offset: u64,
    },
    /// Directories are inside each other too deeply.
    #[error("NAR has more than {limit} levels of directories")]
    TooDeep {
        /// The most allowed.
        limit: usize,
    },
    /// It is, or announces to be, larger than allowed.
    #[error("NAR is larger than {limit} bytes")]
    TooLarge {
        /// The most allowed.
        limit: u64,
    },
    /// There are too many directory entries.
    #[error("NAR has more than {limit} entries")]
    TooManyEntries {
        /// The most allowed.
        limit: u64,
    },
    /// It ends in the middle.
    #[error("NAR ends early, after {offset} bytes")]
    Truncated {
        /// Bytes read.
        offset: u64,
    },
    /// More bytes follow its end.
    #[error("bytes follow the end of the NAR, after {offset} bytes")]
    TrailingBytes {
        /// Bytes of the NAR.
        offset: u64,
    },
}

/// What is to be read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Magic,
    NodeOpen,
    NodeTypeKey,
    NodeType,
    FileField,
    ExecutableValue,
    ContentsKey,
    ContentsSize,
    Contents { remaining: u64, padding: usize },
    ContentsPadding { padding: usize },
    FileClose,
    TargetKey,
    Target,
    SymlinkClose,
    DirectoryItem,
    EntryOpen,
    EntryNameKey,
    EntryName,
    EntryNodeKey,
    EntryClose,
    End,
    Complete,
}

/// Reads a NAR piece by piece and checks every rule of the format.
///
/// It keeps no more than the name of one entry per level, however large the archive is.
#[derive(Debug, Clone)]
pub struct Decoder {
    state: State,
    limits: Limits,
    offset: u64,
    entries: u64,
    executable: bool,
    /// The beginning of a string that has not arrived whole.
    pending: Vec<u8>,
    /// The last string taken.
    text: Vec<u8>,
    /// The last name of each open directory.
    names: Vec<Vec<u8>>,
}

/// Longest of the format's own words.
const MAX_WORD: usize = 16;

impl Default for Decoder {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Decoder {
    /// Starts before the first byte.
    pub fn new(limits: Limits) -> Self {
        Self {
            state: State::Magic,
            limits,
            offset: 0,
            entries: 0,
            executable: false,
            pending: Vec::new(),
            text: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Gives the bytes of the archive taken so far.
    ///
    /// Right after [`Event::File`] this is where the file's contents begin.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Tells whether the whole archive has been read.
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Checks that the archive is complete, when no more bytes will come.
    ///
    /// # Errors
    /// [`NarError::Truncated`] when it is not.
    pub fn finish(&self) -> Result<(), NarError> {
        if self.is_complete() { Ok(()) } else { Err(NarError::Truncated { offset: self.offset }) }
    }

    /// Takes bytes from the front of `input` up to the next event; nothing means that more input is needed.
    ///
    /// After [`Event::End`] no more bytes are taken, and nothing is given. After an error the decoder must be dropped.
    ///
    /// # Errors
    /// Bytes that are not a NAR, or one beyond the limits.
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Event<'a>>, NarError> {
        loop {
            match self.state {
                State::Complete => return Ok(None),
                State::Contents { remaining, padding } => {
                    if remaining == 0 {
                        self.state = State::ContentsPadding { padding };
                        continue;
                    }
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let length = usize::try_from(remaining).map_or(input.len(), |n| n.min(input.len()));
                    let (contents, rest) = input.split_at(length);
                    *input = rest;
                    self.offset += length as u64;
                    self.state = State::Contents { remaining: remaining - length as u64, padding };
                    return Ok(Some(Event::Contents(contents)));
                }
                State::ContentsPadding { padding } => {
                    let length = padding.min(input.len());
                    let (zeros, rest) = input.split_at(length);
                    *input = rest;
                    self.offset += length as u64;
                    if zeros.iter().any(|&byte| byte != 0) {
                        return Err(NarError::Padding { offset: self.offset });
                    }
                    if length < padding {
                        self.state = State::ContentsPadding { padding: padding - length };
                        return Ok(None);
                    }
                    self.state = State::FileClose;
                    return Ok(Some(Event::EndFile));
                }
                State::ContentsSize => {
                    let Some(size) = self.number(input) else { return Ok(None) };
                    if size > self.limits.size.saturating_sub(self.offset) {
                        return Err(NarError::TooLarge { limit: self.limits.size });
                    }
                    self.state = State::Contents { remaining: size, padding: padding(size) };
                    return Ok(Some(Event::File { executable: self.executable, size }));
                }
                State::EntryName => {
                    if !self.string(input, MAX_NAME_LENGTH)? {
                        return Ok(None);
                    }
                    let last = self.names.last_mut().expect("entries are read inside a directory");
                    if !is_name(&self.text) {
                        return Err(NarError::Name { offset: self.offset });
                    }
                    if self.text <= *last {
                        return Err(NarError::Order { offset: self.offset });
                    }
                    std::mem::swap(last, &mut self.text);
                    self.state = State::EntryNodeKey;
                    return Ok(Some(Event::Entry { name: last }));
                }
                State::Target => {
                    if !self.string(input, MAX_TARGET_LENGTH)? {
                        return Ok(None);
                    }
                    if !is_target(&self.text) {
                        return Err(NarError::Target { offset: self.offset });
                    }
                    self.state = State::SymlinkClose;
                    return Ok(Some(Event::Symlink { target: &self.text }));
                }
                State::End => {
                    self.state = State::Complete;
                    return Ok(Some(Event::End));
                }
                state => {
                    if !self.string(input, MAX_WORD)? {
                        return Ok(None);
                    }
                    let mut word = [0; MAX_WORD];
                    word[..self.text.len()].copy_from_slice(&self.text);
                    if let Some(event) = self.word(state, &word[..self.text.len()])? {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    /// Takes one of the format's own words.
    fn word(&mut self, state: State, word: &[u8]) -> Result<Option<Event<'static>>, NarError> {
        let expected = |expected| Err(NarError::Expected { expected, offset: self.offset });
        let (next, event) = match (state, word) {
            (State::Magic, MAGIC) => (State::NodeOpen, None),
            (State::Magic, _) => return Err(NarError::Magic),
            (State::NodeOpen, b"(") => (State::NodeTypeKey, None),
            (State::NodeOpen, _) => return expected("`(` before a node"),
            (State::NodeTypeKey, b"type") => (State::NodeType, None),
            (State::NodeTypeKey, _) => return expected("`type`"),
            (State::NodeType, b"regular") => {
                self.executable = false;
                (State::FileField, None)
            }
            (State::NodeType, b"symlink") => (State::TargetKey, None),
            (State::NodeType, b"directory") => {
                if self.names.len() == self.limits.depth {
                    return Err(NarError::TooDeep { limit: self.limits.depth });
                }
                self.names.push(Vec::new());
                (State::DirectoryItem, Some(Event::Directory))
            }
            (State::NodeType, _) => return expected("`regular`, `symlink` or `directory`"),
            (State::FileField, b"executable") => {
                self.executable = true;
                (State::ExecutableValue, None)
            }
            (State::FileField | State::ContentsKey, b"contents") => (State::ContentsSize, None),
            (State::FileField | State::ContentsKey, _) => return expected("`contents`"),
            (State::ExecutableValue, b"") => (State::ContentsKey, None),
            (State::ExecutableValue, _) => return expected("an empty string after `executable`"),
            (State::FileClose | State::SymlinkClose, b")") => (self.after_node(), None),
            (State::FileClose | State::SymlinkClose, _) => return expected("`)` after a node"),
            (State::TargetKey, b"target") => (State::Target, None),
            (State::TargetKey, _) => return expected("`target`"),
            (State::DirectoryItem, b"entry") => {
                if self.entries == self.limits.entries {
                    return Err(NarError::TooManyEntries { limit: self.limits.entries });
                }
                self.entries += 1;
                (State::EntryOpen, None)
            }
            (State::DirectoryItem, b")") => {
                self.names.pop();
                (self.after_node(), Some(Event::EndDirectory))
            }
            (State::DirectoryItem, _) => return expected("`entry` or `)`"),
            (State::EntryOpen, b"(") => (State::EntryNameKey, None),
            (State::EntryOpen, _) => return expected("`(` before an entry"),
            (State::EntryNameKey, b"name") => (State::EntryName, None),
            (State::EntryNameKey, _) => return expected("`name`"),
            (State::EntryNodeKey, b"node") => (State::NodeOpen, None),
            (State::EntryNodeKey, _) => return expected("`node`"),
            (State::EntryClose, b")") => (State::DirectoryItem, None),
            (State::EntryClose, _) => return expected("`)` after an entry"),
            (
                State::ContentsSize
                | State::Contents { .. }
                | State::ContentsPadding { .. }
                | State::Target
                | State::EntryName
                | State::End
                | State::Complete,
                _,
            ) => unreachable!("these are not words"),
        };
        self.state = next;
        Ok(event)
    }

    /// Gives what follows a whole node.
    fn after_node(&self) -> State {
        if self.names.is_empty() { State::End } else { State::EntryClose }
    }

    /// Takes an integer.
    fn number(&mut self, input: &mut &[u8]) -> Option<u64> {
        if !self.gather(input, 8) {
            return None;
        }
        self.offset += 8;
        let number = little_endian(&self.pending);
        self.pending.clear();
        Some(number)
    }

    /// Takes the next string, of at most `max` bytes, into `text`; tells whether it has arrived whole.
    fn string(&mut self, input: &mut &[u8], max: usize) -> Result<bool, NarError> {
        self.text.clear();
        if self.pending.is_empty() && input.len() >= 8 {
            let length = self.check_length(little_endian(input), max)?;
            let total = 8 + length + padding(length as u64);
            if let Some(string) = input.get(..total) {
                *input = &input[total..];
                self.text.extend_from_slice(&string[8..8 + length]);
                return self.count(&string[8 + length..], total).map(|()| true);
            }
        }
        if !self.gather(input, 8) {
            return Ok(false);
        }
        let length = self.check_length(little_endian(&self.pending), max)?;
        let total = 8 + length + padding(length as u64);
        if !self.gather(input, total) {
            return Ok(false);
        }
        let string = std::mem::take(&mut self.pending);
        self.text.extend_from_slice(&string[8..8 + length]);
        self.count(&string[8 + length..], total)?;
        self.pending = string;
        self.pending.clear();
        Ok(true)
    }

    fn check_length(&self, length: u64, max: usize) -> Result<usize, NarError> {
        match usize::try_from(length) {
            Ok(length) if length <= max => Ok(length),
            _ if self.state == State::Magic => Err(NarError::Magic),
            _ => Err(NarError::StringTooLong { length, offset: self.offset }),
        }
    }

    /// Counts the bytes of a string, of which the last ones must be `zeros`.
    fn count(&mut self, zeros: &[u8], total: usize) -> Result<(), NarError> {
        self.offset += total as u64;
        if zeros.iter().any(|&byte| byte != 0) {
            return Err(NarError::Padding { offset: self.offset });
        }
        if self.offset > self.limits.size {
            return Err(NarError::TooLarge { limit: self.limits.size });
        }
        Ok(())
    }

    /// Moves bytes from `input` until `total` are pending; tells whether they are.
    fn gather(&mut self, input: &mut &[u8], total: usize) -> bool {
        let missing = total.saturating_sub(self.pending.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.pending.extend_from_slice(taken);
        *input = rest;
        self.pending.len() >= total
    }
}

/// Reads the first eight bytes as an integer.
fn little_endian(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(number)
}
