//! What is inside a NAR.

use std::io::{self, Read};

use super::{Decoder, Event, Limits, NarError};
use crate::hash::{Sha256, Sha256Hasher};

/// One node of a NAR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListingEntry {
    /// A regular file.
    File {
        /// Whether it may be executed.
        executable: bool,
        /// Bytes of its contents.
        size: u64,
        /// Where its contents begin in the uncompressed NAR, in bytes from 0.
        offset: u64,
        /// The SHA-256 of its contents.
        hash: Sha256,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to.
        target: Vec<u8>,
    },
    /// A directory; its entries follow it in the listing.
    Directory,
}

/// The nodes of a NAR in its order, with their paths: names joined by `/`, empty for the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Path and node.
    pub entries: Vec<(Vec<u8>, ListingEntry)>,
}

impl Listing {
    /// Lists the NAR that `reader` gives, to its end.
    ///
    /// # Errors
    /// A reader that fails, or bytes that are not a NAR (then the source is a [`NarError`]).
    pub fn read(mut reader: impl Read, limits: Limits) -> io::Result<Self> {
        let mut builder = ListingBuilder::new(limits);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return builder.finish().map_err(io::Error::other),
                Ok(length) => builder.push(&buffer[..length]).map_err(io::Error::other)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Finds the node at `path`.
    pub fn get(&self, path: &[u8]) -> Option<&ListingEntry> {
        self.entries.iter().find(|(other, _)| other == path).map(|(_, entry)| entry)
    }
}

/// Lists a NAR as its bytes arrive.
#[derive(Debug, Default)]
pub struct ListingBuilder {
    decoder: Decoder,
    listing: Listing,
    /// The path of the node being read.
    path: Vec<u8>,
    /// The length of the path of each open directory.
    open: Vec<usize>,
    file: Option<(bool, u64, u64)>,
    hasher: Sha256Hasher,
}

impl ListingBuilder {
    /// Starts before the first byte.
    pub fn new(limits: Limits) -> Self {
        Self { decoder: Decoder::new(limits), ..Self::default() }
    }

    /// Takes the next bytes, which must all belong to the archive.
    ///
    /// # Errors
    /// Bytes that are not a NAR, or beyond its end or the limits.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), NarError> {
        while let Some(event) = self.decoder.next(&mut bytes)? {
            let entry = match event {
                Event::File { executable, size } => {
                    self.file = Some((executable, size, self.decoder.offset()));
                    continue;
                }
                Event::Contents(contents) => {
                    self.hasher.update(contents);
                    continue;
                }
                Event::Entry { name } => {
                    let parent = self.open.last().copied().unwrap_or_default();
                    self.path.truncate(parent);
                    if parent > 0 {
                        self.path.push(b'/');
                    }
                    self.path.extend_from_slice(name);
                    continue;
                }
                Event::EndDirectory => {
                    self.open.pop();
                    continue;
                }
                Event::End => continue,
                Event::EndFile => {
                    let (hash, _) = std::mem::take(&mut self.hasher).finish();
                    let Some((executable, size, offset)) = self.file.take() else { continue };
                    ListingEntry::File { executable, size, offset, hash }
                }
                Event::Symlink { target } => ListingEntry::Symlink { target: target.to_vec() },
                Event::Directory => {
                    self.open.push(self.path.len());
                    ListingEntry::Directory
                }
            };
            self.listing.entries.push((self.path.clone(), entry));
        }
        if bytes.is_empty() { Ok(()) } else { Err(NarError::TrailingBytes { offset: self.decoder.offset() }) }
    }

    /// Tells whether the whole archive has been listed.
    pub fn is_complete(&self) -> bool {
        self.decoder.is_complete()
    }

    /// Ends with the listing.
    ///
    /// # Errors
    /// [`NarError::Truncated`] when the archive is not complete.
    pub fn finish(self) -> Result<Listing, NarError> {
        self.decoder.finish()?;
        Ok(self.listing)
    }
}
