//! The content of an answer.

use std::{fs::File, io::Read};

use bytes::Bytes;

/// A reader of bytes that are made while they are read. It may block.
pub(super) type Source = Box<dyn Read + Send>;

/// The content of an answer.
pub(super) enum Body {
    /// Nothing.
    Empty,
    /// Bytes at hand.
    Bytes(Bytes),
    /// `count` bytes of a file from `first` on.
    File {
        /// The file.
        file: File,
        /// Its first byte that is sent.
        first: u64,
        /// Their number.
        count: u64,
    },
    /// What a reader gives; `length` bytes of it, where that is known.
    Read {
        /// The reader.
        source: Source,
        /// The number of bytes it gives.
        length: Option<u64>,
    },
}

impl Body {
    /// Gives its length, where it is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File { count, .. } => Some(*count),
            Self::Read { length, .. } => *length,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}
