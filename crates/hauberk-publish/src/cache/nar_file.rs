//! A nar file while it is written.

use std::{
    fs::File,
    io::{self, Write},
};

use hauberk_store::{
    Sha256,
    hash::Sha256Hasher,
    narinfo::{Compression, NarUrl},
};

use super::scratch::ScratchFile;

/// Receives the (compressed) bytes of a nar into a temporary file, hashing them. Removed when dropped.
#[derive(Debug)]
pub struct NarFile {
    file: File,
    scratch: ScratchFile,
    hasher: Sha256Hasher,
}

impl NarFile {
    pub(super) fn new(file: File, scratch: ScratchFile) -> Self {
        Self { file, scratch, hasher: Sha256Hasher::new() }
    }

    /// Gives the hash of the bytes written so far.
    pub(crate) fn hash(&self) -> Sha256 {
        self.hasher.clone().finish().0
    }

    /// Ends the file, whose bytes are compressed with `compression`.
    pub fn finish(self, compression: Compression) -> FinishedNar {
        let (file_hash, file_size) = self.hasher.finish();
        FinishedNar { scratch: self.scratch, file_hash, file_size, compression }
    }
}

impl Write for NarFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A whole nar file that has no name in the cache yet. Removed when dropped.
#[derive(Debug)]
pub struct FinishedNar {
    pub(super) scratch: ScratchFile,
    /// The hash of its bytes.
    pub file_hash: Sha256,
    /// Their number.
    pub file_size: u64,
    /// How they are compressed.
    pub compression: Compression,
}

impl FinishedNar {
    /// Gives the name the file gets under `nar/`: the hash of its bytes and a suffix that tells the compression, so
    /// that a name never means two contents.
    pub fn file_name(&self) -> String {
        let suffix = match &self.compression {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
            Compression::Lzip => ".lz",
            Compression::Xz => ".xz",
            Compression::Bzip2 => ".bz2",
            Compression::Brotli => ".br",
            Compression::Other(_) => ".other",
        };
        format!("{}.nar{suffix}", self.file_hash.to_base32())
    }

    /// Gives the place a narinfo of the cache names.
    pub(super) fn place(&self) -> NarUrl {
        NarUrl {
            url: format!("nar/{}", self.file_name()),
            compression: self.compression.clone(),
            file_size: Some(self.file_size),
            file_hash: Some(self.file_hash.into()),
        }
    }
}
