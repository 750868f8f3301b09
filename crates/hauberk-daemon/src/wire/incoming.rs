//! Reading.

use std::{collections::BTreeSet, io};

use bytes::{Buf, BytesMut};
use hauberk_store::{StoreDirectory, StorePath};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Limit, WireError, padding};
use crate::error::Violation;

/// Bytes asked of the socket at a time.
const CHUNK: usize = 64 << 10;

/// What the peer sends, buffered.
#[derive(Debug)]
pub(crate) struct Incoming<R> {
    reader: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Incoming<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, buffer: BytesMut::new() }
    }

    /// Gives the bytes that arrived but were not read.
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Gives the stream below.
    pub(crate) fn reader_mut(&mut self) -> &mut R {
        &mut self.reader
    }

    /// Reads from the socket once; an end of file is an error.
    async fn more(&mut self) -> Result<(), WireError> {
        self.buffer.reserve(CHUNK);
        match self.reader.read_buf(&mut self.buffer).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the daemon closed the connection").into()),
            _ => Ok(()),
        }
    }

    /// Waits until bytes are there and gives what has arrived.
    pub(crate) async fn chunk(&mut self) -> Result<&[u8], WireError> {
        if self.buffer.is_empty() {
            self.more().await?;
        }
        Ok(&self.buffer)
    }

    /// Drops `count` bytes that [`Incoming::chunk`] gave.
    pub(crate) fn consume(&mut self, count: usize) {
        self.buffer.advance(count);
    }

    pub(crate) async fn number(&mut self) -> Result<u64, WireError> {
        while self.buffer.len() < 8 {
            self.more().await?;
        }
        Ok(self.buffer.get_u64_le())
    }

    /// Reads a number that must fit `T`.
    pub(crate) async fn small<T: TryFrom<u64>>(&mut self, what: &'static str) -> Result<T, WireError> {
        let value = self.number().await?;
        T::try_from(value).map_err(|_| Violation::Number { what, value }.into())
    }

    /// Reads a truth value; as in both daemons all but 0 is true.
    pub(crate) async fn flag(&mut self) -> Result<bool, WireError> {
        Ok(self.number().await? != 0)
    }

    /// Reads a count of entries that follow.
    pub(crate) async fn count(&mut self, limit: Limit) -> Result<u64, WireError> {
        let length = self.number().await?;
        if length > limit.most {
            return Err(Violation::TooLong { what: limit.what, length, limit: limit.most }.into());
        }
        Ok(length)
    }

    /// Reads a string of bytes. Memory grows with what arrives, not with what is announced.
    pub(crate) async fn bytes(&mut self, limit: Limit) -> Result<Vec<u8>, WireError> {
        let length = self.count(limit).await?;
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(CHUNK).min(CHUNK));
        let mut left = length;
        while left > 0 {
            let chunk = self.chunk().await?;
            let taken = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            bytes.extend_from_slice(&chunk[..taken]);
            self.consume(taken);
            left -= taken as u64;
        }
        let padded = padding(length);
        while self.buffer.len() < padded {
            self.more().await?;
        }
        if self.buffer[..padded].iter().any(|&byte| byte != 0) {
            return Err(Violation::Padding { what: limit.what }.into());
        }
        self.consume(padded);
        Ok(bytes)
    }

    /// Reads a string that must be UTF-8.
    pub(crate) async fn text(&mut self, limit: Limit) -> Result<String, WireError> {
        let bytes = self.bytes(limit).await?;
        String::from_utf8(bytes)
            .map_err(|error| malformed(limit.what, &String::from_utf8_lossy(error.as_bytes())))
    }

    /// Reads a string for people, replacing what is not UTF-8.
    pub(crate) async fn message(&mut self) -> Result<String, WireError> {
        let bytes = self.bytes(Limit::MESSAGE).await?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    pub(crate) async fn path(&mut self, directory: &StoreDirectory) -> Result<StorePath, WireError> {
        let text = self.text(Limit::PATH).await?;
        StorePath::parse_in(directory, &text).map_err(|_| malformed(Limit::PATH.what, &text))
    }

    /// Reads a path, or nothing where the string is empty.
    pub(crate) async fn optional_path(
        &mut self,
        directory: &StoreDirectory,
    ) -> Result<Option<StorePath>, WireError> {
        let text = self.text(Limit::PATH).await?;
        if text.is_empty() {
            return Ok(None);
        }
        StorePath::parse_in(directory, &text).map(Some).map_err(|_| malformed(Limit::PATH.what, &text))
    }

    pub(crate) async fn paths(
        &mut self,
        directory: &StoreDirectory,
    ) -> Result<BTreeSet<StorePath>, WireError> {
        let mut paths = BTreeSet::new();
        for _ in 0..self.count(Limit::PATHS).await? {
            paths.insert(self.path(directory).await?);
        }
        Ok(paths)
    }

    pub(crate) async fn words(&mut self, limit: Limit) -> Result<Vec<String>, WireError> {
        let mut words = Vec::new();
        for _ in 0..self.count(limit).await? {
            words.push(self.text(Limit::WORD).await?);
        }
        Ok(words)
    }
}

/// Reports a text that is not what its field holds.
pub(crate) fn malformed(what: &'static str, text: &str) -> WireError {
    Violation::Text { what, text: text.chars().take(200).flat_map(char::escape_debug).collect() }.into()
}
