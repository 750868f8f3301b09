//! NARs that come from a socket.

use std::{io, path::PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Limits, Listing, ListingBuilder, NarError, NarSummary, RestoreError, Restorer, Verifier};

/// Bytes read at a time.
const BUFFER: usize = 256 * 1024;

/// Why a NAR could not be passed on.
#[derive(Debug, thiserror::Error)]
pub enum AsyncNarError {
    /// The bytes could not be read.
    #[error("cannot read NAR")]
    Read(#[source] io::Error),
    /// The bytes could not be written.
    #[error("cannot write NAR")]
    Write(#[source] io::Error),
    /// The bytes are not a NAR, or one beyond the limits.
    #[error("malformed NAR")]
    Nar(#[from] NarError),
    /// The NAR could not be unpacked.
    #[error("cannot unpack NAR")]
    Restore(#[source] RestoreError),
}

/// Copies a NAR while it is checked, and gives its hash and size.
///
/// Reading stops at the archive's own end, so the stream may stay open; what `writer` got of a NAR that turns out to be
/// malformed must be thrown away.
///
/// # Errors
/// Either side failing, or bytes that are not a NAR, or beyond the limits.
pub async fn copy_verified(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    limits: Limits,
) -> Result<NarSummary, AsyncNarError> {
    let mut verifier = Verifier::new(limits);
    let mut buffer = vec![0; BUFFER];
    while !verifier.is_complete() {
        let length = reader.read(&mut buffer).await.map_err(AsyncNarError::Read)?;
        if length == 0 {
            break;
        }
        verifier.push(&buffer[..length])?;
        writer.write_all(&buffer[..length]).await.map_err(AsyncNarError::Write)?;
    }
    writer.flush().await.map_err(AsyncNarError::Write)?;
    Ok(verifier.finish()?)
}

/// Lists a NAR. Reading stops at the archive's own end.
///
/// # Errors
/// A reader that fails, or bytes that are not a NAR, or beyond the limits.
pub async fn list_async(
    mut reader: impl AsyncRead + Unpin,
    limits: Limits,
) -> Result<Listing, AsyncNarError> {
    let mut builder = ListingBuilder::new(limits);
    let mut buffer = vec![0; BUFFER];
    while !builder.is_complete() {
        let length = reader.read(&mut buffer).await.map_err(AsyncNarError::Read)?;
        if length == 0 {
            break;
        }
        builder.push(&buffer[..length])?;
    }
    Ok(builder.finish()?)
}

/// Unpacks a NAR as `target`, which must not exist, and gives its hash and size; files are written on blocking threads.
/// Reading stops at the archive's own end.
///
/// # Errors
/// A reader that fails, bytes that are not a NAR or beyond the limits, and whatever the file system refuses.
pub async fn restore_async(
    mut reader: impl AsyncRead + Unpin,
    target: impl Into<PathBuf>,
    limits: Limits,
) -> Result<NarSummary, AsyncNarError> {
    let mut verifier = Verifier::new(limits);
    let mut restorer = Restorer::new(target, limits);
    let mut buffer = vec![0; BUFFER];
    while !verifier.is_complete() {
        let length = reader.read(&mut buffer).await.map_err(AsyncNarError::Read)?;
        if length == 0 {
            break;
        }
        let work = tokio::task::spawn_blocking(move || {
            let hashed = verifier.push(&buffer[..length]);
            let restored = restorer.push(&buffer[..length]);
            (verifier, restorer, buffer, hashed, restored)
        });
        let hashed;
        let restored;
        (verifier, restorer, buffer, hashed, restored) =
            work.await.map_err(|error| AsyncNarError::Read(io::Error::other(error)))?;
        restored.map_err(AsyncNarError::Restore)?;
        hashed?;
    }
    restorer.finish().map_err(AsyncNarError::Restore)?;
    Ok(verifier.finish()?)
}
