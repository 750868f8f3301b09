//! Nars of a cache directory, unpacked and checked like any other.

use std::io::Read;

use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    download::NarDownload,
    error::FetchError,
    verify::{Expected, choose},
};
use crate::cache::{Cache, CacheError};
use hauberk_store::NarInfo;

/// Bytes read at a time.
const PIECE: usize = 256 * 1024;
/// Pieces that wait to be unpacked.
const AHEAD: usize = 4;

impl Cache {
    /// Reads the nar of an item that the cache describes so, unpacked. It must be called on a runtime.
    ///
    /// # Errors
    /// A file that is not there, or a compression that is not supported. What is wrong with the bytes is found while they are read.
    pub fn unpacked(&self, narinfo: &NarInfo) -> Result<NarDownload, FetchError> {
        let path = &narinfo.store_path;
        let place = choose(narinfo)?;
        let name = place.url.strip_prefix("nar/");
        let name = name.ok_or_else(|| FetchError::ForeignUrl { path: path.clone() })?.to_owned();
        let (store_path, directory) = (path.clone(), self.directory().join("nar").join(&name));
        let failed = move |operation: &'static str, error| {
            let source = Box::new(CacheError::io(operation, &directory)(error));
            FetchError::Store { path: store_path.clone(), source }
        };
        let (mut file, _) = self.open_nar(&name).map_err(|error| failed("open", error))?;
        let expected = Expected::of(narinfo)?;
        let (sender, chunks) = mpsc::channel(AHEAD);
        let reading = spawn_blocking(move || {
            loop {
                let mut piece = vec![0; PIECE];
                let piece = match file.read(&mut piece) {
                    Ok(0) => return,
                    Ok(count) => {
                        piece.truncate(count);
                        Ok(piece.into())
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(failed("read", error)),
                };
                let last = piece.is_err();
                if sender.blocking_send(piece).is_err() || last {
                    return;
                }
            }
        });
        Ok(NarDownload::start(expected, chunks, reading.abort_handle()))
    }
}
