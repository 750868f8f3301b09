//! The compressed bytes of a nar on their way from the network to a blocking reader.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};
use hauberk_store::StorePath;
use tokio::sync::mpsc;

use super::{error::FetchError, keep::Keep};
use crate::cache::CacheError;

/// Reads the chunks that the network gives, and has them kept; the reader blocks.
pub(super) struct Input<K> {
    path: StorePath,
    chunks: mpsc::Receiver<Result<Bytes, FetchError>>,
    current: Bytes,
    received: u64,
    /// Most bytes that may come.
    limit: u64,
    keep: K,
    ended: bool,
}

impl<K: Keep> Input<K> {
    pub(super) fn new(
        path: StorePath,
        chunks: mpsc::Receiver<Result<Bytes, FetchError>>,
        limit: u64,
        keep: K,
    ) -> Self {
        Self { path, chunks, current: Bytes::new(), received: 0, limit, keep, ended: false }
    }

    /// Gives the bytes that came.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Ends with what was kept.
    pub(super) fn into_keep(self) -> K {
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
            self.keep.keep(&chunk).map_err(|error| {
                let source = Box::new(CacheError::Write(error));
                io::Error::other(FetchError::Store { path: self.path.clone(), source })
            })?;
            self.current = chunk;
        }
        Ok(())
    }
}

impl<K: Keep> Read for Input<K> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<K: Keep> BufRead for Input<K> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.next()?;
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count);
    }
}
