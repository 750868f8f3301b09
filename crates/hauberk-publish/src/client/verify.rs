//! Unpacking and checking a nar; runs on a blocking thread.

use std::io::{self, BufRead, Read};

use hauberk_store::{
    NarHash, NarInfo, Sha256, StorePath,
    nar::{Limits, NarError, Verifier},
    narinfo::{Compression, NarUrl},
};

use super::{error::FetchError, input::Input, keep::Keep};
use crate::stream::{Unsupported, decoder};

/// Bytes unpacked at a time.
const CHUNK: usize = 128 * 1024;

/// What a nar must be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(super) path: StorePath,
    pub(super) nar_hash: NarHash,
    pub(super) nar_size: u64,
    pub(super) compression: Compression,
    pub(super) file_size: Option<u64>,
    pub(super) file_hash: Option<Sha256>,
}

impl Expected {
    /// Takes what `narinfo` says of the place whose compression costs least to undo for what it saves.
    pub(crate) fn of(narinfo: &NarInfo) -> Result<Self, FetchError> {
        let place = choose(narinfo)?;
        Ok(Self {
            path: narinfo.store_path.clone(),
            nar_hash: narinfo.nar_hash,
            nar_size: narinfo.nar_size,
            compression: place.compression.clone(),
            file_size: place.file_size,
            file_hash: place.file_hash.and_then(|hash| Sha256::try_from(hash).ok()),
        })
    }

    /// Most bytes the file may have. Without an announced size it may be a little larger than the nar, as compressed
    /// noise is.
    pub(crate) fn file_limit(&self) -> u64 {
        match (&self.compression, self.file_size) {
            (_, Some(size)) => size,
            (Compression::None, None) => self.nar_size,
            (_, None) => self.nar_size.saturating_add(self.nar_size / 16).saturating_add(64 * 1024),
        }
    }

    /// Tells whether the hash of the file was announced, and is not that of the nar.
    pub(super) fn has_file_hash(&self) -> bool {
        self.file_hash.is_some() && self.compression != Compression::None
    }

    /// Unpacks `input`, gives the nar's bytes to `sink` and checks all that was announced; of the hash of a packed file see
    /// [`Self::check_file`]. What `sink` got before an error is worth nothing.
    pub(super) fn check<K: Keep + Send>(
        &self,
        input: &mut Input<K>,
        mut sink: impl FnMut(&[u8]) -> Result<(), FetchError>,
    ) -> Result<(), FetchError> {
        let mut verifier = Verifier::new(Limits::with_size(self.nar_size));
        let mut size = 0_u64;
        let mut buffer = vec![0; CHUNK];
        {
            let mut reader = decoder(&self.compression, &mut *input)
                .map_err(|source| FetchError::Unsupported { path: self.path.clone(), source })?;
            loop {
                let count = match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        drop(reader);
                        return Err(self.read_error(error, input.received()));
                    }
                };
                size += count as u64;
                if size > self.nar_size {
                    return Err(self.size_mismatch("nar", self.nar_size, size));
                }
                verifier.push(&buffer[..count]).map_err(|source| self.not_a_nar(source))?;
                sink(&buffer[..count])?;
            }
        }
        let received = input.received();
        match input.fill_buf() {
            Ok([]) => {}
            Ok(_) => {
                let source = io::Error::other("bytes follow its end");
                return Err(FetchError::Corrupt { path: self.path.clone(), source });
            }
            Err(error) => return Err(self.read_error(error, received)),
        }
        if size < self.nar_size {
            // A whole nar of another size was meant so; half a nar was cut.
            return Err(match verifier.is_complete() {
                true => self.size_mismatch("nar", self.nar_size, size),
                false => FetchError::Truncated { path: self.path.clone(), received, source: None },
            });
        }
        let summary = verifier.finish().map_err(|source| self.not_a_nar(source))?;
        if summary.hash != self.nar_hash {
            let (path, expected) = (self.path.clone(), self.nar_hash);
            return Err(FetchError::HashMismatch { path, expected, found: summary.hash });
        }
        if let Some(expected) = self.file_size.filter(|&expected| expected != received) {
            return Err(self.size_mismatch("file", expected, received));
        }
        match self.compression {
            Compression::None => self.check_file(summary.hash),
            _ => Ok(()),
        }
    }

    /// Checks the hash of the file, where it was announced.
    pub(super) fn check_file(&self, found: Sha256) -> Result<(), FetchError> {
        match self.file_hash.is_some_and(|expected| expected != found) {
            true => Err(FetchError::FileHashMismatch { path: self.path.clone(), found }),
            false => Ok(()),
        }
    }

    fn size_mismatch(&self, what: &'static str, expected: u64, found: u64) -> FetchError {
        FetchError::SizeMismatch { path: self.path.clone(), what, expected, found }
    }

    fn not_a_nar(&self, source: NarError) -> FetchError {
        FetchError::NotANar { path: self.path.clone(), source }
    }

    /// Finds our own error in what a decoder gave; else the bytes are at fault.
    fn read_error(&self, error: io::Error, received: u64) -> FetchError {
        let path = self.path.clone();
        match error.downcast::<FetchError>() {
            Ok(error) => error,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                FetchError::Truncated { path, received, source: None }
            }
            Err(source) => FetchError::Corrupt { path, source },
        }
    }
}

/// Chooses the place whose compression costs least to undo for what it saves.
pub(super) fn choose(narinfo: &NarInfo) -> Result<&NarUrl, FetchError> {
    let rank = |place: &&NarUrl| match place.compression {
        Compression::Zstd => Some(0),
        Compression::Gzip => Some(1),
        Compression::None => Some(2),
        Compression::Xz => Some(3),
        Compression::Lzip | Compression::Bzip2 | Compression::Brotli | Compression::Other(_) => None,
    };
    let known = narinfo.urls.iter().filter(|place| rank(place).is_some());
    known.min_by_key(rank).ok_or_else(|| {
        let names: Vec<&str> = narinfo.urls.iter().map(|place| place.compression.as_str()).collect();
        let source = Unsupported { compression: names.join(", ").chars().take(32).collect() };
        FetchError::Unsupported { path: narinfo.store_path.clone(), source }
    })
}
