//! Decoders of nar files.

use std::io::{self, BufRead, Read};

use hauberk_store::narinfo::Compression;

/// Most memory an xz file may ask for, in KiB: the dictionary of `xz -9` is 64 MiB.
const LZMA_MEMORY_KIB: u32 = 80 * 1024;

/// Largest window of a zstd file, as a power of two: 128 MiB, the most that decoders must allow (RFC 8878).
const ZSTD_WINDOW_LOG: u32 = 27;

/// A compression that nothing here can undo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("compression `{compression}` is not supported: none, gzip, zstd and xz are")]
pub struct Unsupported {
    /// Its name, cut after 32 characters.
    pub compression: String,
}

/// Gives a reader of the bytes that `input` holds compressed; the memory it may use is bounded.
///
/// # Errors
/// A compression that is not supported.
pub(crate) fn decoder<'a>(
    compression: &Compression,
    input: impl BufRead + Send + 'a,
) -> Result<Box<dyn Read + Send + 'a>, Unsupported> {
    match compression {
        Compression::None => Ok(Box::new(input)),
        Compression::Gzip => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
        Compression::Zstd => Ok(Box::new(Zstd::Waiting(Some(input)))),
        Compression::Xz => Ok(Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, LZMA_MEMORY_KIB))),

        Compression::Lzip | Compression::Bzip2 | Compression::Brotli | Compression::Other(_) => {
            Err(Unsupported { compression: compression.as_str().chars().take(32).collect() })
        }
    }
}

/// A zstd decoder made at the first read, so that making one that fails is a read error like any other.
enum Zstd<'a, R> {
    Waiting(Option<R>),
    Open(zstd::Decoder<'a, R>),
}

impl<R: BufRead> Read for Zstd<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Self::Waiting(input) = self {
            let input = input.take().ok_or(io::ErrorKind::InvalidData)?;
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            *self = Self::Open(decoder);
        }
        match self {
            Self::Open(decoder) => decoder.read(buffer),
            Self::Waiting(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
