//! Writing export streams.

use std::io::{self, Write};

use super::{ExportItem, MAGIC};
use crate::{hash::Sha256Hasher, signature::guix::SecretKey};

/// Writes an export stream.
#[derive(Debug)]
pub struct ExportWriter<W> {
    writer: W,
}

impl<W: Write> ExportWriter<W> {
    /// Starts a stream without items.
    pub fn new(writer: W) -> Self {
        Self { writer }
    }

    /// Begins an item. Its NAR is written to what is given, which must then be finished.
    ///
    /// # Errors
    /// A writer that fails.
    pub fn item(&mut self) -> io::Result<ItemWriter<'_, W>> {
        self.writer.write_all(&1_u64.to_le_bytes())?;
        Ok(ItemWriter { writer: &mut self.writer, hasher: Sha256Hasher::new() })
    }

    /// Ends the stream and gives the writer back.
    ///
    /// # Errors
    /// A writer that fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.writer.write_all(&0_u64.to_le_bytes())?;
        self.writer.flush()?;
        Ok(self.writer)
    }
}

/// Takes the NAR of one item.
#[derive(Debug)]
pub struct ItemWriter<'a, W> {
    writer: &'a mut W,
    hasher: Sha256Hasher,
}

impl<W: Write> ItemWriter<'_, W> {
    /// Ends the item, whose NAR is complete; Guix accepts only signed ones.
    ///
    /// # Errors
    /// A writer that fails.
    pub fn finish(mut self, item: &ExportItem, key: Option<&SecretKey>) -> io::Result<()> {
        let mut text = MAGIC.to_le_bytes().to_vec();
        string(&mut text, item.path.to_string().as_bytes());
        text.extend((item.references.len() as u64).to_le_bytes());
        item.references.iter().for_each(|path| string(&mut text, path.to_string().as_bytes()));
        let deriver = item.deriver.as_ref().map(ToString::to_string).unwrap_or_default();
        string(&mut text, deriver.as_bytes());
        self.write_all(&text)?;
        let mut end = Vec::new();
        match key {
            Some(key) => {
                let (hash, _) = self.hasher.finish();
                end.extend(1_u64.to_le_bytes());
                string(&mut end, &key.sign(&hash).to_bytes());
            }
            None => end.extend(0_u64.to_le_bytes()),
        }
        self.writer.write_all(&end)
    }
}

impl<W: Write> Write for ItemWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend_from_slice(text);
    out.resize(out.len().next_multiple_of(8), 0);
}
