//! A log as a stream of plain text, however large.

use std::fs::File;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{LogError, LogReader, Step};

/// Bytes of text in one piece of the stream.
const PIECE: usize = 64 * 1024;

/// Decodes a log up to where it has come, as fast as it is taken.
pub(crate) fn stream_text(file: File) -> ReceiverStream<Result<Bytes, LogError>> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let mut reader = LogReader::new(file);
        let mut piece = vec![0; PIECE];
        loop {
            let next = match reader.read(&mut piece) {
                Ok(Step::Text(length)) => Ok(Bytes::copy_from_slice(&piece[..length])),
                Ok(Step::CaughtUp | Step::End) => return,
                Err(error) => Err(error),
            };
            let failed = next.is_err();
            // Nobody reads any more when it cannot be sent.
            if sender.blocking_send(next).is_err() || failed {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}
