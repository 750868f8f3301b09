//! A nar that is verified while it is read.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::mpsc,
    task::{AbortHandle, JoinHandle, spawn_blocking},
};

use super::{error::FetchError, input::Input, keep::Hashed, verify::Expected};

/// Unpacked chunks of 128 KiB that wait for the reader.
const AHEAD: usize = 4;

/// Reads a nar, unpacked. The last bytes and the end come only after hash, size and structure were found to be those
/// announced; until then the bytes are the server's word. An error holds a [`FetchError`], see [`FetchError::of`].
///
/// Dropping it ends the download.
#[derive(Debug)]
pub struct NarDownload {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
    checking: Option<JoinHandle<Result<(), FetchError>>>,
    pump: AbortHandle,
}

impl NarDownload {
    /// Starts to unpack what `pump` sends into `compressed`.
    pub(super) fn start(
        expected: Expected,
        compressed: mpsc::Receiver<Result<Bytes, FetchError>>,
        pump: AbortHandle,
    ) -> Self {
        let (sender, chunks) = mpsc::channel(AHEAD);
        let checking = spawn_blocking(move || {
            let keep = Hashed::new(expected.has_file_hash());
            let mut input = Input::new(expected.path.clone(), compressed, expected.file_limit(), keep);
            let send = |chunk: Bytes| {
                let sent = sender.blocking_send(chunk);
                sent.map_err(|_| FetchError::Abandoned { path: expected.path.clone() })
            };
            let mut held: Option<Bytes> = None;
            expected.check(&mut input, |bytes| {
                held.replace(Bytes::copy_from_slice(bytes)).map_or(Ok(()), send)
            })?;
            if let Some(hash) = input.into_keep().finish() {
                expected.check_file(hash)?;
            }
            held.map_or(Ok(()), send)
        });
        Self { chunks, current: Bytes::new(), checking: Some(checking), pump }
    }
}

impl Drop for NarDownload {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl AsyncRead for NarDownload {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            if let Some(chunk) = ready!(self.chunks.poll_recv(context)) {
                self.current = chunk;
                continue;
            }
            let Some(checking) = &mut self.checking else { return Poll::Ready(Ok(())) };
            let checked = ready!(Pin::new(checking).poll(context));
            self.checking = None;
            return Poll::Ready(checked.map_err(io::Error::other)?.map_err(io::Error::other));
        }
        let count = buffer.remaining().min(self.current.len());
        buffer.put_slice(&self.current[..count]);
        self.current.advance(count);
        Poll::Ready(Ok(()))
    }
}
