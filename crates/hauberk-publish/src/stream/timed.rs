//! A connection that must move.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// Bytes a peer must take within the time allowed, while there is something for it to take.
const LEAST: usize = 16 * 1024;

/// Breaks a connection off when its peer takes fewer than 16 KiB of a waiting answer within a time.
pub(crate) struct TimedStream<S, F> {
    inner: S,
    allowed: Duration,
    deadline: Pin<Box<Sleep>>,
    /// Told when bytes go, and how many of them to the peer.
    moved: F,
    /// Bytes taken since the deadline was set; nothing while the peer does not hold us up.
    taken: Option<usize>,
}

impl<S, F: FnMut(usize)> TimedStream<S, F> {
    /// Allows the peer to hold us up for `allowed`; tells `moved` when bytes go either way, with the
    /// number of those sent.
    pub(crate) fn new(inner: S, allowed: Duration, moved: F) -> Self {
        Self { inner, allowed, deadline: Box::pin(tokio::time::sleep(allowed)), moved, taken: None }
    }

    fn watch(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(count)) => {
                (self.moved)(count);
                self.taken = self.taken.map(|taken| taken + count).filter(|&taken| taken < LEAST);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                if self.taken.is_none() {
                    self.taken = Some(0);
                    self.deadline.as_mut().reset(Instant::now() + self.allowed);
                }
                if self.deadline.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        written
    }
}

impl<S: AsyncRead + Unpin, F: FnMut(usize) + Unpin> AsyncRead for TimedStream<S, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            (self.moved)(0);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin, F: FnMut(usize) + Unpin> AsyncWrite for TimedStream<S, F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Called when everything was handed to the kernel: nobody holds us up now.
        self.taken = None;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
