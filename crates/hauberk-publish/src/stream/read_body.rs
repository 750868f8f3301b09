//! A response body made of a blocking reader.

use std::{
    future::Future,
    io::{self, Read},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

use super::buffer::BufferPool;

type Source = Box<dyn Read + Send>;

/// Sends what a blocking reader gives, a buffer at a time. Between two buffers no thread is held, so a slow client
/// costs two buffers and nothing else; the next one is filled while the last is sent.
pub(crate) struct ReadBody {
    state: State,
    /// Bytes still to come, where the number was announced.
    left: Option<u64>,
    pool: BufferPool,
}

enum State {
    Filling(JoinHandle<(Source, io::Result<Bytes>)>),
    Done,
}

impl ReadBody {
    /// Begins to read `source`; with a `length`, the body is exactly that long or breaks off.
    pub(crate) fn new(source: Source, length: Option<u64>, pool: BufferPool) -> Self {
        let state = if length == Some(0) { State::Done } else { fill(source, pool.clone()) };
        Self { state, left: length, pool }
    }
}

fn fill(mut source: Source, pool: BufferPool) -> State {
    State::Filling(spawn_blocking(move || {
        let mut buffer = pool.take();
        let filled = read_full(&mut source, buffer.space());
        (source, filled.map(|length| buffer.into_bytes(length)))
    }))
}

/// Reads until `buffer` is full or the source ends.
fn read_full(source: &mut Source, buffer: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match source.read(&mut buffer[at..]) {
            Ok(0) => break,
            Ok(count) => at += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

impl Body for ReadBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let State::Filling(filling) = &mut self.state else { return Poll::Ready(None) };
        let joined = ready!(Pin::new(filling).poll(context));
        self.state = State::Done;
        let (source, filled) = joined.map_err(io::Error::other)?;
        let bytes = filled?;
        if let Some(left) = self.left {
            let length = bytes.len() as u64;
            if length > left || (length == 0 && left > 0) {
                return Poll::Ready(Some(Err(io::Error::other("body is not as long as was announced"))));
            }
            self.left = Some(left - length);
            if left == length {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
        if bytes.is_empty() {
            return Poll::Ready(None);
        }
        self.state = fill(source, self.pool.clone());
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
