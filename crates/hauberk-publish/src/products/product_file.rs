//! A product while it is written.

use std::{
    fs::File,
    io::{self, Write},
};

use hauberk_store::{Sha256, hash::Sha256Hasher};

use crate::cache::scratch::ScratchFile;

/// Receives the bytes of a product into a temporary file, hashing them. Removed when dropped.
#[derive(Debug)]
pub struct ProductFile {
    file: File,
    scratch: ScratchFile,
    hasher: Sha256Hasher,
}

impl ProductFile {
    pub(super) fn new(file: File, scratch: ScratchFile) -> Self {
        Self { file, scratch, hasher: Sha256Hasher::new() }
    }

    /// Ends the file.
    pub fn finish(self) -> FinishedProduct {
        let (sha256, size) = self.hasher.finish();
        FinishedProduct { file: self.file, scratch: self.scratch, sha256, size }
    }
}

impl Write for ProductFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A whole product that has no name yet. Removed when dropped.
#[derive(Debug)]
pub struct FinishedProduct {
    pub(super) file: File,
    pub(super) scratch: ScratchFile,
    /// The hash of its bytes.
    pub sha256: Sha256,
    /// Their number.
    pub size: u64,
}
