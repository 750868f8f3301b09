//! The compressed bytes of a nar on their way from the network to a blocking reader.

use std::io::{self, BufRead, Read, Write};

use bytes::{Buf, Bytes};
use hauberk_store::{Sha256, StorePath, hash::Sha256Hasher};
use tokio::sync::mpsc;

use super::error::FetchError;
use crate::cache::{CacheError, NarFile};

/// Where compressed bytes go besides the decoder.
pub(super) enum Keep {
    /// Nowhere: they are hashed only.
    Hash(Sha256Hasher),
    /// Into a file of the cache, which hashes them.
    File(NarFile),
}

/// Reads the chunks that the network gives; the reader blocks.
pub(super) struct Input {
    path: StorePath,
    chunks: mpsc::Receiver<Result<Bytes, FetchError>>,
    current: Bytes,
    received: u64,
    /// Most bytes that may come.
    limit: u64,
    keep: Keep,
    ended: bool,
}

impl Input {
    pub(super) fn new(
        path: StorePath,
        chunks: mpsc::Receiver<Result<Bytes, FetchError>>,
        limit: u64,
        keep: Keep,
    ) -> Self {
        Self { path, chunks, current: Bytes::new(), received: 0, limit, keep, ended: false }
    }

    /// Gives the bytes that came.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Gives what is kept of the bytes.
    pub(super) fn keep(&self) -> &Keep {
        &self.keep
    }

    /// Ends with what was kept.
    pub(super) fn into_keep(self) -> Keep {
        self.keep
    }

    fn next(&mut self) -> io::Result<()> {
        while self.current.is_empty() && !self.ended {
            let chunk = match self.chunks.blocking_recv() {
                None => {
                    self.ended = true;
                    return Ok(());
                }
                Some(chunk) => chunk.map_err(io::Error::other)?,
            };
            self.received += chunk.len() as u64;
            if self.received > self.limit {
                return Err(io::Error::other(FetchError::SizeMismatch {
                    path: self.path.clone(),
                    what: "file",
                    expected: self.limit,
                    found: self.received,
                }));
            }
            match &mut self.keep {
                Keep::Hash(hasher) => hasher.update(&chunk),
                Keep::File(file) => file.write_all(&chunk).map_err(|error| {
                    let source = Box::new(CacheError::Write(error));
                    io::Error::other(FetchError::Store { path: self.path.clone(), source })
                })?,
            }
            self.current = chunk;
        }
        Ok(())
    }
}

impl Keep {
    /// Gives the hash of all bytes that came.
    pub(super) fn hash(&self) -> Sha256 {
        match self {
            Self::Hash(hasher) => hasher.clone().finish().0,
            Self::File(file) => file.hash(),
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.next()?;
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count);
    }
}
