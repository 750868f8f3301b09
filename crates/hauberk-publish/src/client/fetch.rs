//! From another server into our cache.

use std::io;

use bytes::Bytes;
use hauberk_store::{NarInfo, narinfo::Compression};
use tokio::sync::mpsc;

use super::{error::FetchError, input::Input, keep::Written, verify::Expected};
use crate::cache::{CacheError, NarFile, Pending};

/// Level of zstd for nars that come uncompressed.
const ZSTD_LEVEL: i32 = 3;

/// Checks the nar that arrives in `chunks` and writes it into `file`: the bytes as they came, or packed with zstd if
/// they came unpacked. What is large is on the disk when this returns. Runs on a blocking thread.
pub(crate) fn store(
    expected: &Expected,
    narinfo: NarInfo,
    chunks: mpsc::Receiver<Result<Bytes, FetchError>>,
    file: NarFile,
) -> Result<Pending, FetchError> {
    let path = &expected.path;
    let failed = |error: io::Error| {
        let source = Box::new(CacheError::Write(error));
        FetchError::Store { path: path.clone(), source }
    };
    let mut nar = if expected.compression == Compression::None {
        let mut encoder = zstd::Encoder::new(file, ZSTD_LEVEL).map_err(failed)?;
        encoder.set_pledged_src_size(Some(expected.nar_size)).map_err(failed)?;
        let mut input = Input::new(path.clone(), chunks, expected.file_limit(), Written::new(encoder));
        expected.check(&mut input, |_| Ok(()))?;
        let encoder = input.into_keep().finish().map_err(failed)?;
        encoder.finish().map_err(failed)?.finish(Compression::Zstd)
    } else {
        let mut input = Input::new(path.clone(), chunks, expected.file_limit(), Written::new(file));
        expected.check(&mut input, |_| Ok(()))?;
        let nar = input.into_keep().finish().map_err(failed)?.finish(expected.compression.clone());
        expected.check_file(nar.file_hash)?;
        nar
    };
    nar.settle().map_err(failed)?;
    Ok(Pending::new(nar, narinfo))
}
