//! Export streams.

use hauberk_store::StorePath;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    Connection,
    call::{Ended, FailingSource, Receiver, Sink, Source, Traced},
};
use crate::{
    error::DaemonError,
    operation::Operation,
    wire::{Encoder, Limit},
};

/// Stands between an item's NAR and its metadata.
const EXPORT_MAGIC: u64 = 0x4558_494e;

const EXPORT: Operation = Operation::ExportPath;

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    pub(super) async fn do_export_paths(
        &mut self,
        paths: &[StorePath],
        sign: bool,
        to: Sink<'_>,
    ) -> Result<(), DaemonError> {
        if sign && !self.is_guix() {
            return Err(DaemonError::Unsupported { operation: EXPORT, reason: "Nix does not sign exports" });
        }
        for path in paths {
            write(to, Encoder::default().number(1)).await?;
            if self.is_guix() {
                self.export_one(path, sign, &mut Receiver::all(to)).await?;
            } else {
                self.export_from_nix(path, to).await?;
            }
        }
        write(to, Encoder::default().number(0)).await?;
        to.flush().await.map_err(|source| DaemonError::Sink { operation: EXPORT, source })
    }

    /// Lets a Guix daemon export `path` and gives the bytes passed on.
    pub(super) async fn export_one(
        &mut self,
        path: &StorePath,
        sign: bool,
        to: &mut Receiver<'_>,
    ) -> Result<u64, DaemonError> {
        let mut call = self.call(EXPORT)?;
        call.request.display(path).flag(sign);
        let mut interpreter = call.interpreter();
        match call.converse(&mut interpreter, &mut Traced(EXPORT), None, Some(to)).await? {
            Ended::Well => {
                let number = call.incoming().number().await;
                call.wire(number)?;
                let size = to.finish(EXPORT).await?;
                Ok(call.end(size))
            }
            Ended::Refused(reported) if reported.message.contains("is not valid") => {
                call.end(());
                Err(DaemonError::NotValid { path: path.clone() })
            }
            Ended::Refused(reported) => Err(call.refused(reported)),
        }
    }

    /// Writes an item by what a Nix daemon tells of it; the operation that does it in one step is gone from newer daemons.
    async fn export_from_nix(&mut self, path: &StorePath, to: Sink<'_>) -> Result<(), DaemonError> {
        let info = self.do_query_path_info(path).await?;
        let info = info.ok_or_else(|| DaemonError::NotValid { path: path.clone() })?;
        self.do_nar_from_path(path, to).await?;
        let deriver = info.deriver.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut metadata = Encoder::default();
        metadata.number(EXPORT_MAGIC).display(path).paths(&info.references).text(&deriver).number(0);
        write(to, &mut metadata).await
    }

    pub(super) async fn do_import_paths(&mut self, from: Source<'_>) -> Result<Vec<StorePath>, DaemonError> {
        let operation = Operation::ImportPaths;
        let mut call = self.call(operation)?;
        let mut interpreter = call.interpreter();
        let mut source = FailingSource::new(from);
        let ended = call.converse(&mut interpreter, &mut Traced(operation), Some(&mut source), None).await?;
        let mut paths = Vec::new();
        if let Ended::Well = ended {
            let directory = call.directory.clone();
            let count = call.incoming().count(Limit::PATHS).await;
            for _ in 0..call.wire(count)? {
                let path = call.incoming().path(&directory).await;
                paths.push(call.wire(path)?);
            }
        }
        match (source.into_failure(), ended) {
            (Some(source), Ended::Well | Ended::Refused(_)) => {
                call.end(());
                Err(DaemonError::Source { operation, source })
            }
            (None, Ended::Well) => Ok(call.end(paths)),
            (None, Ended::Refused(reported)) => Err(call.refused(reported)),
        }
    }
}

async fn write(to: &mut (dyn AsyncWrite + Send + Unpin), encoder: &mut Encoder) -> Result<(), DaemonError> {
    to.write_all(&encoder.take()).await.map_err(|source| DaemonError::Sink { operation: EXPORT, source })
}
