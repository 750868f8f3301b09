//! Writing.

use std::{collections::BTreeSet, fmt::Display, io};

use hauberk_store::StorePath;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::padding;

/// Bytes to send, laid out as the protocol wants them.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.bytes.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub(crate) fn flag(&mut self, flag: bool) -> &mut Self {
        self.number(u64::from(flag))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
        self.bytes.extend_from_slice(&[0; 7][..padding(bytes.len() as u64)]);
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn display(&mut self, thing: &impl Display) -> &mut Self {
        self.text(&thing.to_string())
    }

    pub(crate) fn paths(&mut self, paths: &BTreeSet<StorePath>) -> &mut Self {
        self.number(paths.len() as u64);
        for path in paths {
            self.display(path);
        }
        self
    }

    pub(crate) fn texts<T: AsRef<str>>(&mut self, texts: impl ExactSizeIterator<Item = T>) -> &mut Self {
        self.number(texts.len() as u64);
        for text in texts {
            self.text(text.as_ref());
        }
        self
    }

    pub(crate) fn pairs<'a>(
        &mut self,
        pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    ) -> &mut Self {
        self.number(pairs.len() as u64);
        for (name, value) in pairs {
            self.text(name).text(value);
        }
        self
    }

    /// Takes the bytes out.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// What is sent to the peer.
#[derive(Debug)]
pub(crate) struct Outgoing<W> {
    writer: W,
}

impl<W: AsyncWrite + Unpin> Outgoing<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self { writer }
    }

    /// Sends what `encoder` holds and empties it.
    pub(crate) async fn send(&mut self, encoder: &mut Encoder) -> io::Result<()> {
        let bytes = encoder.take();
        self.raw(&bytes).await?;
        self.flush().await
    }

    /// Sends bytes as they are.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.writer.flush().await
    }
}
