//! Hash and size of NARs.

use std::io::{self, Write};

use super::{Decoder, Limits, NarError};
use crate::hash::{NarHash, Sha256Hasher};

/// Identifies the bytes of a NAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NarSummary {
    /// Their SHA-256.
    pub hash: NarHash,
    /// Their number.
    pub size: u64,
}

/// Computes hash and size of what is written through it.
#[derive(Debug)]
pub struct HashingWriter<W> {
    writer: W,
    hasher: Sha256Hasher,
}

impl<W: Write> HashingWriter<W> {
    /// Starts with no bytes; [`io::sink`] does as a writer when only the hash is wanted.
    pub fn new(writer: W) -> Self {
        Self { writer, hasher: Sha256Hasher::new() }
    }

    /// Ends with the writer and what went through.
    pub fn finish(self) -> (W, NarSummary) {
        let (hash, size) = self.hasher.finish();
        (self.writer, NarSummary { hash, size })
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Checks that bytes are a NAR and computes its hash and size, as they arrive.
#[derive(Debug, Clone, Default)]
pub struct Verifier {
    decoder: Decoder,
    hasher: Sha256Hasher,
}

impl Verifier {
    /// Starts before the first byte.
    pub fn new(limits: Limits) -> Self {
        Self { decoder: Decoder::new(limits), hasher: Sha256Hasher::new() }
    }

    /// Takes the next bytes, which must all belong to the archive.
    ///
    /// # Errors
    /// Bytes that are not a NAR, or beyond its end or the limits.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), NarError> {
        if self.push_some(bytes)? == bytes.len() {
            Ok(())
        } else {
            Err(NarError::TrailingBytes { offset: self.decoder.offset() })
        }
    }

    /// Takes the next bytes up to the archive's end and gives their number.
    ///
    /// # Errors
    /// Bytes that are not a NAR, or beyond the limits.
    pub fn push_some(&mut self, bytes: &[u8]) -> Result<usize, NarError> {
        let mut rest = bytes;
        while self.decoder.next(&mut rest)?.is_some() {}
        let taken = bytes.len() - rest.len();
        self.hasher.update(&bytes[..taken]);
        Ok(taken)
    }

    /// Tells whether the whole archive has been seen.
    pub fn is_complete(&self) -> bool {
        self.decoder.is_complete()
    }

    /// Ends with hash and size.
    ///
    /// # Errors
    /// [`NarError::Truncated`] when the archive is not complete.
    pub fn finish(self) -> Result<NarSummary, NarError> {
        self.decoder.finish()?;
        let (hash, size) = self.hasher.finish();
        Ok(NarSummary { hash, size })
    }
}
