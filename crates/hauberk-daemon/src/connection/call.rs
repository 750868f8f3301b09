//! One operation under way.

use std::io;

use async_trait::async_trait;
use hauberk_store::StoreDirectory;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tracing::{debug, warn};

use super::Link;
use crate::{
    daemon::DaemonInfo,
    error::{DaemonError, Violation},
    failure::strip_ansi,
    frame::{self, Frame, Reported, code},
    log::{GuixLog, LogEvent, LogSink, NixLog},
    nar_scanner::{NarScanner, ScanError},
    operation::Operation,
    version::{Dialect, ProtocolVersion},
    wire::{Encoder, Incoming, Outgoing, WireError},
};
use tokio::io::{ReadHalf, WriteHalf};

/// Most bytes given to the daemon at a time.
const READ_CHUNK: u64 = 128 << 10;

/// A stream the caller gives bytes by.
pub(super) type Source<'s> = &'s mut (dyn AsyncRead + Send + Unpin);
/// A stream the caller takes bytes by.
pub(super) type Sink<'s> = &'s mut (dyn AsyncWrite + Send + Unpin);

/// An operation under way. It holds the connection's link, and gives it back when the exchange ended in a way that lets another
/// one follow; dropped before, it closes the connection.
#[derive(Debug)]
pub(super) struct Call<'c, S> {
    pub(super) operation: Operation,
    pub(super) version: ProtocolVersion,
    pub(super) directory: StoreDirectory,
    pub(super) request: Encoder,
    multiplexed: bool,
    link: Link<S>,
    slot: &'c mut Option<Link<S>>,
}

/// Turns frames into events, by dialect.
#[derive(Debug)]
pub(super) enum Interpreter {
    Nix(NixLog),
    Guix(GuixLog),
}

impl Interpreter {
    pub(super) async fn frame(&mut self, frame: Frame, log: &mut dyn LogSink) {
        match (self, frame) {
            (Self::Nix(nix), frame) => nix.frame(frame, log).await,
            (Self::Guix(guix), Frame::Next(bytes)) => guix.next(bytes, log).await,
            (Self::Guix(_), _) => {}
        }
    }

    /// Reports what was held back.
    async fn finish(&mut self, log: &mut dyn LogSink) {
        match self {
            Self::Nix(_) => {}
            Self::Guix(guix) => guix.finish(log).await,
        }
    }
}

/// How an exchange ended on the wire.
#[derive(Debug)]
pub(super) enum Ended {
    Well,
    Refused(Reported),
}

/// Puts what the daemon says during small operations into our own log.
#[derive(Debug)]
pub(super) struct Traced(pub(super) Operation);

#[async_trait]
impl LogSink for Traced {
    async fn event(&mut self, event: LogEvent<'_>) {
        match event {
            LogEvent::Message { bytes, .. } => {
                let text = strip_ansi(&String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]));
                debug!(daemon.operation = self.0.name(), "build daemon: {}", text.trim_end());
            }
            event => debug!(daemon.operation = self.0.name(), ?event, "build daemon event"),
        }
    }
}

impl<'c, S: AsyncRead + AsyncWrite + Send + Unpin> Call<'c, S> {
    /// Takes the link out of `slot` and begins the request with the operation's number.
    pub(super) fn begin(
        operation: Operation,
        info: &DaemonInfo,
        multiplexed: bool,
        slot: &'c mut Option<Link<S>>,
    ) -> Result<Self, DaemonError> {
        let link = slot.take().ok_or(DaemonError::Broken { operation })?;
        let mut request = Encoder::default();
        request.number(operation.code());
        let (version, directory) = (info.version, info.store_directory.clone());
        Ok(Self { operation, version, directory, request, multiplexed, link, slot })
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.version.dialect()
    }

    pub(super) fn interpreter(&self) -> Interpreter {
        match self.dialect() {
            Dialect::Nix => Interpreter::Nix(NixLog::default()),
            Dialect::Guix => Interpreter::Guix(GuixLog::new(self.multiplexed)),
        }
    }

    /// Gives what the peer sends.
    pub(super) fn incoming(&mut self) -> &mut Incoming<ReadHalf<S>> {
        &mut self.link.incoming
    }

    /// Gives both directions and the request.
    pub(super) fn halves(
        &mut self,
    ) -> (&mut Incoming<ReadHalf<S>>, &mut Outgoing<WriteHalf<S>>, &mut Encoder) {
        (&mut self.link.incoming, &mut self.link.outgoing, &mut self.request)
    }

    /// Names the operation in what went wrong on the wire.
    pub(super) fn wire<T>(&self, result: Result<T, WireError>) -> Result<T, DaemonError> {
        result.map_err(|error| error.during(self.operation))
    }

    /// Sends the request and passes over what the daemon says until it is done.
    pub(super) async fn exchange(mut self) -> Result<Self, DaemonError> {
        let mut traced = Traced(self.operation);
        let mut interpreter = self.interpreter();
        match self.converse(&mut interpreter, &mut traced, None, None).await? {
            Ended::Well => Ok(self),
            Ended::Refused(reported) => Err(self.refused(reported)),
        }
    }

    /// Sends the request and follows the daemon until it is done, serving its wishes for data from `source` and writing what it
    /// gives to `sink`.
    pub(super) async fn converse(
        &mut self,
        interpreter: &mut Interpreter,
        log: &mut dyn LogSink,
        mut source: Option<&mut FailingSource<'_>>,
        mut sink: Option<&mut Receiver<'_>>,
    ) -> Result<Ended, DaemonError> {
        let operation = self.operation;
        let lost = |source| DaemonError::Lost { operation, source };
        self.link.outgoing.send(&mut self.request).await.map_err(lost)?;
        loop {
            let frame = frame::read(&mut self.link.incoming, self.version)
                .await
                .map_err(|error| error.during(operation))?;
            match frame {
                Frame::Last => {
                    interpreter.finish(log).await;
                    return Ok(Ended::Well);
                }
                Frame::Error(reported) => {
                    interpreter.finish(log).await;
                    return Ok(Ended::Refused(reported));
                }
                Frame::Read(most) => {
                    let Some(source) = source.as_deref_mut() else {
                        return Err(unexpected(operation, code::READ));
                    };
                    let data = source.next(most.min(READ_CHUNK)).await;
                    self.link.outgoing.send(Encoder::default().bytes(&data)).await.map_err(lost)?;
                }
                Frame::Write(data) => {
                    let Some(sink) = sink.as_deref_mut() else {
                        return Err(unexpected(operation, code::WRITE));
                    };
                    sink.take(&data, operation).await?;
                }
                frame => interpreter.frame(frame, log).await,
            }
        }
    }

    /// Ends the operation by the daemon's error and gives the link back.
    pub(super) fn refused(self, reported: Reported) -> DaemonError {
        let operation = self.operation;
        self.end(());
        if reported.message.starts_with("invalid operation ") {
            return DaemonError::Unsupported {
                operation,
                reason: "this version of the daemon does not have it",
            };
        }
        DaemonError::Daemon { operation, message: reported.message, status: reported.status }
    }

    /// Ends the operation with its result and gives the link back.
    pub(super) fn end<T>(self, result: T) -> T {
        if self.link.incoming.buffered() == 0 {
            *self.slot = Some(self.link);
        } else {
            // What follows the end of an operation would be taken for the answer to the next one.
            warn!(
                daemon.operation = self.operation.name(),
                "build daemon sent more than the answer to {}: connection closed", self.operation
            );
        }
        result
    }
}

pub(super) fn unexpected(operation: Operation, code: u64) -> DaemonError {
    DaemonError::Protocol { operation, violation: Violation::Frame { code } }
}

/// A caller's stream that the daemon reads from. It remembers a failure; to the daemon, that is the end of the data.
pub(super) struct FailingSource<'s> {
    stream: Source<'s>,
    failure: Option<io::Error>,
}

impl<'s> FailingSource<'s> {
    pub(super) fn new(stream: Source<'s>) -> Self {
        Self { stream, failure: None }
    }

    /// Reads until `most` bytes are there or the stream ends.
    async fn next(&mut self, most: u64) -> Vec<u8> {
        let mut data = Vec::new();
        if self.failure.is_none()
            && let Err(error) = (&mut *self.stream).take(most).read_to_end(&mut data).await
        {
            self.failure = Some(error);
            data.clear();
        }
        data
    }

    /// Gives the failure, if there was one.
    pub(super) fn into_failure(self) -> Option<io::Error> {
        self.failure
    }
}

/// A caller's stream that takes what the daemon exports: a NAR and its metadata, or the NAR alone.
pub(super) struct Receiver<'s> {
    stream: Sink<'s>,
    scanner: NarScanner,
    metadata: bool,
    size: u64,
}

impl<'s> Receiver<'s> {
    /// Takes everything.
    pub(super) fn all(stream: Sink<'s>) -> Self {
        Self { stream, scanner: NarScanner::new(), metadata: true, size: 0 }
    }

    /// Takes the NAR and drops what follows it.
    pub(super) fn nar_only(stream: Sink<'s>) -> Self {
        Self { stream, scanner: NarScanner::new(), metadata: false, size: 0 }
    }

    async fn take(&mut self, data: &[u8], operation: Operation) -> Result<(), DaemonError> {
        let nar = self.scanner.feed(data).map_err(|error| DaemonError::Protocol {
            operation,
            violation: match error {
                ScanError::Malformed(violation) => violation,
                ScanError::ErrorFrame { .. } => Violation::Nar { reason: "token too long".to_owned() },
            },
        })?;
        let count = if self.metadata { data.len() } else { nar };
        self.size += count as u64;
        let written = self.stream.write_all(&data[..count]).await;
        written.map_err(|source| DaemonError::Sink { operation, source })
    }

    /// Ends with the number of bytes passed on.
    pub(super) async fn finish(&mut self, operation: Operation) -> Result<u64, DaemonError> {
        if !self.scanner.is_done() {
            let violation = Violation::Nar { reason: "it ends early".to_owned() };
            return Err(DaemonError::Protocol { operation, violation });
        }
        let flushed = self.stream.flush().await;
        flushed.map_err(|source| DaemonError::Sink { operation, source })?;
        Ok(self.size)
    }
}
