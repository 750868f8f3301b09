//! The other end of a connection.

use std::{
    collections::VecDeque,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What stands between what a daemon says before and after the client sent something.
const TURN: &[u8] = b"\xff\xfeTURN\xfe\xff";

/// A daemon that says given bytes, in pieces, whatever it is told. It begins the next turn when it has said all of one and the
/// client has sent something since; a client that wants more before finds that it hung up.
pub struct Peer {
    turns: VecDeque<Vec<u8>>,
    said: usize,
    /// Whether the client has sent something since the turn began.
    told: bool,
    piece: usize,
}

impl Peer {
    /// Says `greeting` and then the turns of `script`, at most `piece` bytes at a time.
    pub fn new(greeting: &[u8], script: &[u8], piece: usize) -> Self {
        let mut turns = VecDeque::from([greeting.to_vec()]);
        let mut rest = script;
        while let Some(at) = rest.windows(TURN.len()).position(|bytes| bytes == TURN) {
            turns.push_back(rest[..at].to_vec());
            rest = &rest[at + TURN.len()..];
        }
        turns.push_back(rest.to_vec());
        Self { turns, said: 0, told: false, piece: piece.max(1) }
    }
}

impl AsyncRead for Peer {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.told && self.turns.front().is_some_and(|turn| turn.len() == self.said) {
            self.turns.pop_front();
            (self.said, self.told) = (0, false);
        }
        let said = self.said;
        let rest = self.turns.front().map_or(&[][..], |turn| &turn[said..]);
        let count = rest.len().min(self.piece).min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.said += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.told = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs what never waits for anything but the peer.
///
/// # Panics
/// If it waits: the peer always answers, so it would wait for ever.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..3 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
    panic!("it waits for nothing");
}
