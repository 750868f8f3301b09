//! A nar that somebody else checks.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::{sync::mpsc, task::AbortHandle};

use super::error::FetchError;

/// Reads a nar as it comes, packed. Nothing is checked. An error holds a [`FetchError`]. It must not be read on a thread of a runtime, as it
/// waits for the network.
///
/// Dropping it ends the download.
#[derive(Debug)]
pub struct UncheckedNar {
    chunks: mpsc::Receiver<Result<Bytes, FetchError>>,
    current: Bytes,
    pump: AbortHandle,
}

impl UncheckedNar {
    /// Reads what `pump` sends into `chunks`.
    pub(super) fn new(chunks: mpsc::Receiver<Result<Bytes, FetchError>>, pump: AbortHandle) -> Self {
        Self { chunks, current: Bytes::new(), pump }
    }
}

impl Drop for UncheckedNar {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Read for UncheckedNar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.current = chunk.map_err(io::Error::other)?,
            }
        }
        let count = self.current.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.current[..count]);
        self.current.advance(count);
        Ok(count)
    }
}
