//! NARs held in memory, for small items.

use std::{collections::BTreeMap, io::Write};

use super::{Decoder, EncodeError, Encoder, Event, Limits, NarError};

/// A file tree in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File {
        /// Whether it may be executed.
        executable: bool,
        /// What it holds.
        contents: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to.
        target: Vec<u8>,
    },
    /// A directory.
    Directory {
        /// Its entries by name.
        entries: BTreeMap<Vec<u8>, Node>,
    },
}

impl Node {
    /// Makes a file that is not executable.
    pub fn file(contents: impl Into<Vec<u8>>) -> Self {
        Self::File { executable: false, contents: contents.into() }
    }

    /// Writes the NAR of this tree and gives its size.
    ///
    /// # Errors
    /// A name or a target no NAR can hold; a writer that fails.
    pub fn write_to(&self, writer: impl Write) -> Result<u64, EncodeError> {
        let mut encoder = Encoder::new(writer);
        self.encode(&mut encoder)?;
        encoder.event(Event::End)?;
        Ok(encoder.size())
    }

    fn encode<W: Write>(&self, encoder: &mut Encoder<W>) -> Result<(), EncodeError> {
        match self {
            Self::File { executable, contents } => {
                encoder.event(Event::File { executable: *executable, size: contents.len() as u64 })?;
                encoder.event(Event::Contents(contents))?;
                encoder.event(Event::EndFile)
            }
            Self::Symlink { target } => encoder.event(Event::Symlink { target }),
            Self::Directory { entries } => {
                encoder.event(Event::Directory)?;
                for (name, node) in entries {
                    encoder.event(Event::Entry { name })?;
                    node.encode(encoder)?;
                }
                encoder.event(Event::EndDirectory)
            }
        }
    }

    /// Gives the bytes of the NAR of this tree.
    ///
    /// # Errors
    /// A name or a target no NAR can hold.
    pub fn to_nar(&self) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads a whole NAR.
    ///
    /// # Errors
    /// Bytes that are not one, or beyond the limits.
    pub fn from_nar(mut bytes: &[u8], limits: Limits) -> Result<Self, NarError> {
        let mut decoder = Decoder::new(limits);
        let mut open: Vec<OpenDirectory> = Vec::new();
        let (mut executable, mut contents) = (false, Vec::new());
        let mut root = None;
        loop {
            let event = decoder.next(&mut bytes)?;
            let node = match event {
                None => return Err(NarError::Truncated { offset: decoder.offset() }),
                Some(Event::File { executable: bit, .. }) => {
                    executable = bit;
                    continue;
                }
                Some(Event::Contents(part)) => {
                    contents.extend_from_slice(part);
                    continue;
                }
                Some(Event::Directory) => {
                    open.push(OpenDirectory::default());
                    continue;
                }
                Some(Event::Entry { name }) => {
                    if let Some(directory) = open.last_mut() {
                        directory.current = name.to_vec();
                    }
                    continue;
                }
                Some(Event::EndFile) => Self::File { executable, contents: std::mem::take(&mut contents) },
                Some(Event::Symlink { target }) => Self::Symlink { target: target.to_vec() },
                Some(Event::EndDirectory) => {
                    Self::Directory { entries: open.pop().unwrap_or_default().entries }
                }
                Some(Event::End) => break,
            };
            match open.last_mut() {
                Some(directory) => {
                    directory.entries.insert(std::mem::take(&mut directory.current), node);
                }
                None => root = Some(node),
            }
        }
        if !bytes.is_empty() {
            return Err(NarError::TrailingBytes { offset: decoder.offset() });
        }
        root.ok_or(NarError::Truncated { offset: decoder.offset() })
    }
}

/// A directory whose end has not been read.
#[derive(Default)]
struct OpenDirectory {
    entries: BTreeMap<Vec<u8>, Node>,
    /// The name of the entry that is being read.
    current: Vec<u8>,
}
