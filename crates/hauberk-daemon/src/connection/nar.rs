//! Adding to the store and reading from it.

use std::{collections::BTreeSet, io};

use hauberk_store::{DrvPath, StorePath, store_path::check_name};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

use super::{
    Connection,
    call::{Call, Ended, Receiver, Sink, Source, Traced, unexpected},
    queries::read_valid_info,
};
use crate::{
    error::DaemonError,
    frame::{self, Frame, Reported, code},
    nar_scanner::{NarScanner, ScanError},
    operation::Operation,
    path_info::PathInfo,
    wire::Outgoing,
};

/// Bytes of data in one frame.
const FRAME: usize = 64 << 10;

/// Bytes in front of a frame's data that tell its length.
const HEADER: usize = 8;

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    pub(super) async fn do_add_text(
        &mut self,
        name: &str,
        contents: &[u8],
        references: &BTreeSet<StorePath>,
    ) -> Result<StorePath, DaemonError> {
        if self.is_guix() {
            check(Operation::AddTextToStore, name)?;
            let mut call = self.call(Operation::AddTextToStore)?;
            call.request.text(name).bytes(contents).paths(references);
            return call.path().await;
        }
        self.add_to_nix(name, "text:sha256", references, &mut &*contents).await
    }

    pub(super) async fn do_add_source(
        &mut self,
        name: &str,
        nar: Source<'_>,
        references: &BTreeSet<StorePath>,
    ) -> Result<StorePath, DaemonError> {
        if !self.is_guix() {
            return self.add_to_nix(name, "fixed:r:sha256", references, nar).await;
        }
        let operation = Operation::AddToStore;
        if !references.is_empty() {
            let reason = "a Guix daemon takes no references with a source";
            return Err(DaemonError::Unsupported { operation, reason });
        }
        check(operation, name)?;
        let mut call = self.call(operation)?;
        call.request.text(name).flag(true).flag(true).text("sha256");
        call.send_bare_nar(nar).await?;
        call.path().await
    }

    /// Adds a thing whose path follows from its contents, the way `method` says.
    async fn add_to_nix(
        &mut self,
        name: &str,
        method: &str,
        references: &BTreeSet<StorePath>,
        data: Source<'_>,
    ) -> Result<StorePath, DaemonError> {
        let operation = Operation::AddToStore;
        check(operation, name)?;
        let mut call = self.call(operation)?;
        call.request.text(name).text(method).paths(references).flag(false); // repair: no
        let mut call = call.send_framed(data).await?;
        let directory = call.directory.clone();
        let incoming = call.incoming();
        let info = async {
            let path = incoming.path(&directory).await?;
            read_valid_info(incoming, true, &directory, path).await
        };
        let info = info.await;
        let info = call.wire(info)?;
        Ok(call.end(info.path))
    }

    pub(super) async fn do_add_nar(
        &mut self,
        info: &PathInfo,
        nar: Source<'_>,
        repair: bool,
    ) -> Result<(), DaemonError> {
        let operation = Operation::AddToStoreNar;
        if self.is_guix() {
            return self.add_nar_to_guix(info, nar).await;
        }
        let mut call = self.call(operation)?;
        let deriver = info.deriver.as_ref().map(ToString::to_string).unwrap_or_default();
        call.request
            .display(&info.path)
            .text(&deriver)
            .text(&info.nar_hash.to_base16())
            .paths(&info.references)
            .number(info.registration_time)
            .number(info.nar_size)
            .flag(info.ultimate)
            .texts(info.signatures.iter())
            .text(info.content_address.as_deref().unwrap_or_default())
            .flag(repair)
            .flag(false); // skip the check of signatures: never
        call.send_framed(nar).await?.end(());
        Ok(())
    }

    /// Adds a path that follows from its NAR; the daemon computes it anew.
    async fn add_nar_to_guix(&mut self, info: &PathInfo, nar: Source<'_>) -> Result<(), DaemonError> {
        let operation = Operation::AddToStore;
        let unsupported = DaemonError::Unsupported {
            operation: Operation::AddToStoreNar,
            reason: "a Guix daemon takes only paths that follow from their contents and refer to nothing; \
                     let it substitute or import others",
        };
        if !info.references.is_empty() || DrvPath::try_from(info.path.clone()).is_ok() {
            return Err(unsupported);
        }
        let path = self.do_add_source(info.path.name(), nar, &BTreeSet::new()).await?;
        if path == info.path {
            return Ok(());
        }
        let reason = format!("its contents belong to {path}");
        Err(DaemonError::Damaged { operation, path: info.path.clone(), reason })
    }

    pub(super) async fn do_nar_from_path(
        &mut self,
        path: &StorePath,
        to: Sink<'_>,
    ) -> Result<u64, DaemonError> {
        if self.is_guix() {
            return self.export_one(path, false, &mut Receiver::nar_only(to)).await;
        }
        // The daemon ends the session when it is asked for the NAR of a path it does not have.
        if !self.do_is_valid_path(path).await? {
            return Err(DaemonError::NotValid { path: path.clone() });
        }
        let mut call = self.call(Operation::NarFromPath)?;
        call.request.display(path);
        let mut call = call.exchange().await?;
        let size = call.copy_nar(path, to).await?;
        Ok(call.end(size))
    }
}

/// Refuses a name the daemon would end the session for.
fn check(operation: Operation, name: &str) -> Result<(), DaemonError> {
    check_name(name).map_err(|_| DaemonError::Unsupported {
        operation,
        reason: "the name has characters that store paths do not allow, or is too long",
    })
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Call<'_, S> {
    /// Sends the request and then `data` in frames, while following what the daemon says; both go on at once, as a daemon
    /// that talks would otherwise wait for a client that does not listen.
    async fn send_framed(mut self, data: Source<'_>) -> Result<Self, DaemonError> {
        let (operation, version) = (self.operation, self.version);
        let mut interpreter = self.interpreter();
        let mut traced = Traced(operation);
        let (incoming, outgoing, request) = self.halves();
        let sent = outgoing.send(request).await;
        sent.map_err(|source| DaemonError::Lost { operation, source })?;

        let refused = Notify::new();
        let sending = async {
            // A failure to send is judged when the daemon's last words are heard: they tell more than a broken pipe.
            Ok(write_frames(outgoing, data, &refused).await)
        };
        let following = async {
            loop {
                let frame = frame::read(incoming, version).await.map_err(|error| error.during(operation))?;
                match frame {
                    Frame::Last => return Ok(Ended::Well),
                    Frame::Error(reported) => {
                        refused.notify_one();
                        return Ok(Ended::Refused(reported));
                    }
                    Frame::Read(_) => return Err(unexpected(operation, code::READ)),
                    Frame::Write(_) => return Err(unexpected(operation, code::WRITE)),
                    frame => interpreter.frame(frame, &mut traced).await,
                }
            }
        };
        let (ended, sent) = tokio::try_join!(following, sending)?;
        match (ended, sent) {
            (Ended::Well, Ok(None)) => Ok(self),
            (Ended::Well, Err(source)) => Err(DaemonError::Lost { operation, source }),
            (Ended::Well | Ended::Refused(_), Ok(Some(source))) => {
                self.end(());
                Err(DaemonError::Source { operation, source })
            }
            (Ended::Refused(reported), Ok(None)) => Err(self.refused(reported)),
            (Ended::Refused(Reported { message, status }), Err(_)) => {
                Err(DaemonError::Daemon { operation, message, status })
            }
        }
    }

    /// Sends the request and then `nar` as it is. The daemon finds its end itself, so it must be a whole one: the connection is
    /// lost if it is not.
    async fn send_bare_nar(&mut self, nar: Source<'_>) -> Result<(), DaemonError> {
        let operation = self.operation;
        let lost = |source| DaemonError::Lost { operation, source };
        let (_, outgoing, request) = self.halves();
        outgoing.send(request).await.map_err(lost)?;
        let mut scanner = NarScanner::new();
        let mut buffer = vec![0; FRAME];
        while !scanner.is_done() {
            let failed = |source| DaemonError::Source { operation, source };
            let count = nar.read(&mut buffer).await.map_err(failed)?;
            if count == 0 {
                return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, "the NAR ends early")));
            }
            let used = scanner
                .feed(&buffer[..count])
                .map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidData, "the data is no NAR")))?;
            outgoing.raw(&buffer[..used]).await.map_err(lost)?;
        }
        outgoing.flush().await.map_err(lost)
    }

    /// Copies the NAR that follows to `to` and gives its size.
    async fn copy_nar(&mut self, path: &StorePath, to: Sink<'_>) -> Result<u64, DaemonError> {
        let (operation, version) = (self.operation, self.version);
        let mut scanner = NarScanner::new();
        let mut size = 0;
        while !scanner.is_done() {
            let chunk = self.incoming().chunk().await.map_err(|error| error.during(operation))?;
            match scanner.feed(chunk) {
                Ok(count) => {
                    let written = to.write_all(&chunk[..count]).await;
                    written.map_err(|source| DaemonError::Sink { operation, source })?;
                    size += count as u64;
                    self.incoming().consume(count);
                }
                Err(ScanError::ErrorFrame { consumed }) => {
                    self.incoming().consume(consumed);
                    let reported = frame::read_error(self.incoming(), version).await;
                    let reason = self.wire(reported)?.message;
                    return Err(DaemonError::Damaged { operation, path: path.clone(), reason });
                }
                Err(ScanError::Malformed(violation)) => {
                    return Err(DaemonError::Protocol { operation, violation });
                }
            }
        }
        let flushed = to.flush().await;
        flushed.map_err(|source| DaemonError::Sink { operation, source })?;
        Ok(size)
    }
}

/// Sends `data` in frames and ends with an empty one, early if the daemon refused or `data` failed, whose error is given.
async fn write_frames<W: AsyncWrite + Unpin>(
    outgoing: &mut Outgoing<W>,
    data: Source<'_>,
    refused: &Notify,
) -> io::Result<Option<io::Error>> {
    let mut frame = vec![0; HEADER + FRAME];
    let mut failure = None;
    loop {
        let count = tokio::select! {
            biased;
            () = refused.notified() => break,
            count = fill(data, &mut frame[HEADER..]) => count,
        };
        match count {
            Ok(0) => break,
            Ok(count) => {
                frame[..HEADER].copy_from_slice(&(count as u64).to_le_bytes());
                outgoing.raw(&frame[..HEADER + count]).await?;
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    outgoing.raw(&0_u64.to_le_bytes()).await?;
    outgoing.flush().await?;
    Ok(failure)
}

/// Reads until `buffer` is full or the data ends.
async fn fill(data: &mut (dyn AsyncRead + Send + Unpin), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match data.read(&mut buffer[filled..]).await? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
