//! From another server into our cache.

use std::io::{self, Write};

use bytes::Bytes;
use hauberk_store::{NarInfo, hash::Sha256Hasher, narinfo::Compression};
use tokio::sync::mpsc;

use super::{
    error::FetchError,
    input::{Input, Keep},
    verify::Expected,
};
use crate::cache::{CacheError, NarFile, Pending};

/// Level of zstd for nars that come uncompressed.
const ZSTD_LEVEL: i32 = 3;

/// Checks the nar that arrives in `chunks` and writes it into `file`: the bytes as they came, or packed with zstd if
/// they came unpacked. Runs on a blocking thread.
pub(crate) fn store(
    expected: &Expected,
    narinfo: NarInfo,
    chunks: mpsc::Receiver<Result<Bytes, FetchError>>,
    file: NarFile,
) -> Result<Pending, FetchError> {
    let limit = expected.file_limit();
    let input = |keep| Input::new(expected.path.clone(), chunks, limit, keep);
    let failed = |error: io::Error| {
        let source = Box::new(CacheError::Write(error));
        FetchError::Store { path: expected.path.clone(), source }
    };
    let nar = if expected.compression == Compression::None {
        let mut encoder = zstd::Encoder::new(file, ZSTD_LEVEL).map_err(failed)?;
        let mut input = input(Keep::Hash(Sha256Hasher::new()));
        expected.check(&mut input, |bytes| encoder.write_all(bytes).map_err(failed))?;
        encoder.finish().map_err(failed)?.finish(Compression::Zstd)
    } else {
        let mut input = input(Keep::File(file));
        expected.check(&mut input, |_| Ok(()))?;
        match input.into_keep() {
            Keep::File(file) => file.finish(expected.compression.clone()),
            Keep::Hash(_) => return Err(FetchError::Abandoned { path: expected.path.clone() }),
        }
    };
    Ok(Pending::new(nar, narinfo))
}
