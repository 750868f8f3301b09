//! Reading export streams as their bytes arrive.

use std::collections::BTreeSet;

use super::{ExportItem, MAGIC};
use crate::{
    hash::{Sha256, Sha256Hasher},
    nar::{self, Limits, NarError, NarSummary},
    narinfo::MAX_REFERENCES,
    signature::guix::{Acl, Signature, SignatureError},
    store_directory::StoreDirectory,
    store_path::{StorePath, StorePathError},
};

/// Longest path, in bytes: a store directory and a base name.
const MAX_PATH: u64 = 2048;

/// Longest signature, in bytes; real ones have about 430.
const MAX_SIGNATURE: u64 = 64 * 1024;

/// Why bytes are not an export stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// An item's NAR is not one.
    #[error("malformed NAR in export stream")]
    Nar(#[source] NarError),
    /// A number is none that may stand there.
    #[error("unexpected number {found:#x} in export stream where {what} is wanted")]
    Number {
        /// What is wanted.
        what: &'static str,
        /// What stands there.
        found: u64,
    },
    /// A string is longer than anything that may stand there.
    #[error("{what} of {length} bytes in export stream is too long")]
    TooLong {
        /// The string's role.
        what: &'static str,
        /// Its announced length.
        length: u64,
    },
    /// The bytes that fill up to a multiple of eight are not zero.
    #[error("padding in export stream is not zero")]
    Padding,
    /// A path is not one of the store.
    #[error("malformed path in export stream")]
    Path(#[source] StorePathError),
    /// A string that must be text is not.
    #[error("{what} in export stream is not UTF-8")]
    NotUtf8 {
        /// The string's role.
        what: &'static str,
    },
    /// It ends in the middle.
    #[error("export stream ends early")]
    Truncated,
}

/// One item, when all of it has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedItem {
    /// What the stream says of it.
    pub item: ExportItem,
    /// Hash and size of its NAR.
    pub nar: NarSummary,
    /// The hash that is signed: of NAR, path, references and deriver.
    pub signed_hash: Sha256,
    /// The signature's bytes, if there is one.
    pub signature: Option<Vec<u8>>,
}

impl ExportedItem {
    /// Checks that a key of the ACL has signed the item.
    ///
    /// # Errors
    /// [`SignatureError::Corrupt`] when it is not signed, or what is wrong with the signature.
    pub fn verify(&self, acl: &Acl) -> Result<(), SignatureError> {
        let bytes = self.signature.as_ref().ok_or(SignatureError::Corrupt)?;
        Signature::parse(bytes)?.verify(&self.signed_hash, acl)
    }
}

/// One step through an export stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// An item begins.
    Begin,
    /// The next bytes of its NAR.
    Nar(&'a [u8]),
    /// The item is complete. Nothing of it is to be trusted before its signature has been checked.
    Item(Box<ExportedItem>),
    /// The stream is complete.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    More,
    Nar,
    Magic,
    Path,
    ReferenceCount,
    Reference { remaining: u64 },
    Deriver,
    Signed,
    Signature,
    Complete,
}

/// Reads an export stream piece by piece. No more than one item's paths are kept.
#[derive(Debug)]
pub struct Decoder {
    directory: StoreDirectory,
    limits: Limits,
    state: State,
    /// The beginning of a number or string that has not arrived whole.
    pending: Vec<u8>,
    nar: nar::Decoder,
    nar_hasher: Sha256Hasher,
    hasher: Sha256Hasher,
    path: Option<StorePath>,
    references: BTreeSet<StorePath>,
    deriver: Option<StorePath>,
}

impl Decoder {
    /// Starts before the first byte; every item must be of the store `directory`, its NAR within the limits.
    pub fn new(directory: StoreDirectory, limits: Limits) -> Self {
        Self {
            directory,
            limits,
            state: State::More,
            pending: Vec::new(),
            nar: nar::Decoder::new(limits),
            nar_hasher: Sha256Hasher::new(),
            hasher: Sha256Hasher::new(),
            path: None,
            references: BTreeSet::new(),
            deriver: None,
        }
    }

    /// Checks that the stream is complete, when no more bytes will come.
    ///
    /// # Errors
    /// [`ExportError::Truncated`] when it is not.
    pub fn finish(&self) -> Result<(), ExportError> {
        if self.state == State::Complete { Ok(()) } else { Err(ExportError::Truncated) }
    }

    /// Takes bytes from the front of `input` up to the next event; nothing means that more input is needed.
    ///
    /// After [`Event::End`] no more bytes are taken. After an error the decoder must be dropped.
    ///
    /// # Errors
    /// Bytes that are not an export stream of this store, or one beyond the limits.
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Event<'i>>, ExportError> {
        loop {
            match self.state {
                State::Complete => return Ok(None),
                State::Nar => {
                    let before = *input;
                    while self.nar.next(input).map_err(ExportError::Nar)?.is_some() {}
                    let taken = &before[..before.len() - input.len()];
                    self.nar_hasher.update(taken);
                    self.hasher.update(taken);
                    if self.nar.is_complete() {
                        self.state = State::Magic;
                    }
                    if !taken.is_empty() {
                        return Ok(Some(Event::Nar(taken)));
                    }
                    if self.state == State::Nar {
                        return Ok(None);
                    }
                }
                State::More => match self.number(input, false) {
                    None => return Ok(None),
                    Some(0) => {
                        self.state = State::Complete;
                        return Ok(Some(Event::End));
                    }
                    Some(1) => {
                        self.begin();
                        return Ok(Some(Event::Begin));
                    }
                    Some(found) => return Err(ExportError::Number { what: "0 or 1", found }),
                },
                State::Magic => match self.number(input, true) {
                    None => return Ok(None),
                    Some(MAGIC) => self.state = State::Path,
                    Some(found) => return Err(ExportError::Number { what: "NIXE", found }),
                },
                State::Path => {
                    let Some(text) = self.text(input, "path")? else { return Ok(None) };
                    self.path = Some(self.store_path(&text)?);
                    self.state = State::ReferenceCount;
                }
                State::ReferenceCount => match self.number(input, true) {
                    None => return Ok(None),
                    Some(remaining) if remaining <= MAX_REFERENCES as u64 => {
                        self.state = State::Reference { remaining };
                    }
                    Some(found) => {
                        return Err(ExportError::Number { what: "the number of references", found });
                    }
                },
                State::Reference { remaining: 0 } => self.state = State::Deriver,
                State::Reference { remaining } => {
                    let Some(text) = self.text(input, "reference")? else { return Ok(None) };
                    let path = self.store_path(&text)?;
                    self.references.insert(path);
                    self.state = State::Reference { remaining: remaining - 1 };
                }
                State::Deriver => {
                    let Some(text) = self.text(input, "deriver")? else { return Ok(None) };
                    self.deriver = if text.is_empty() { None } else { Some(self.store_path(&text)?) };
                    self.state = State::Signed;
                }
                State::Signed => match self.number(input, false) {
                    None => return Ok(None),
                    Some(0) => return self.end_item(None).map(Some),
                    Some(1) => self.state = State::Signature,
                    Some(found) => return Err(ExportError::Number { what: "0 or 1", found }),
                },
                State::Signature => {
                    let Some(bytes) = self.string(input, "signature", MAX_SIGNATURE, false)? else {
                        return Ok(None);
                    };
                    return self.end_item(Some(bytes)).map(Some);
                }
            }
        }
    }

    fn begin(&mut self) {
        self.nar = nar::Decoder::new(self.limits);
        self.nar_hasher = Sha256Hasher::new();
        self.hasher = Sha256Hasher::new();
        self.references.clear();
        self.state = State::Nar;
    }

    fn end_item(&mut self, signature: Option<Vec<u8>>) -> Result<Event<'static>, ExportError> {
        let (hash, size) = std::mem::take(&mut self.nar_hasher).finish();
        let (signed_hash, _) = std::mem::take(&mut self.hasher).finish();
        let item = ExportItem {
            path: self.path.take().ok_or(ExportError::Truncated)?,
            references: std::mem::take(&mut self.references),
            deriver: self.deriver.take(),
        };
        self.state = State::More;
        let nar = NarSummary { hash, size };
        Ok(Event::Item(Box::new(ExportedItem { item, nar, signed_hash, signature })))
    }

    fn store_path(&self, text: &str) -> Result<StorePath, ExportError> {
        StorePath::parse_in(&self.directory, text).map_err(ExportError::Path)
    }

    /// Moves bytes from `input` until `total` are pending; tells whether they are.
    fn gather(&mut self, input: &mut &[u8], total: usize) -> bool {
        let missing = total.saturating_sub(self.pending.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.pending.extend_from_slice(taken);
        *input = rest;
        self.pending.len() >= total
    }

    /// Takes what is pending, and hashes it if it is signed.
    fn take(&mut self, signed: bool) -> Vec<u8> {
        if signed {
            self.hasher.update(&self.pending);
        }
        std::mem::take(&mut self.pending)
    }

    fn announced(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.pending[..8]);
        u64::from_le_bytes(bytes)
    }

    fn number(&mut self, input: &mut &[u8], signed: bool) -> Option<u64> {
        if !self.gather(input, 8) {
            return None;
        }
        let number = self.announced();
        self.take(signed);
        Some(number)
    }

    fn string(
        &mut self,
        input: &mut &[u8],
        what: &'static str,
        max: u64,
        signed: bool,
    ) -> Result<Option<Vec<u8>>, ExportError> {
        if !self.gather(input, 8) {
            return Ok(None);
        }
        let announced = self.announced();
        let length = match usize::try_from(announced) {
            Ok(length) if announced <= max => length,
            _ => return Err(ExportError::TooLong { what, length: announced }),
        };
        if !self.gather(input, 8 + length.next_multiple_of(8)) {
            return Ok(None);
        }
        let mut bytes = self.take(signed);
        if bytes[8 + length..].iter().any(|&byte| byte != 0) {
            return Err(ExportError::Padding);
        }
        bytes.truncate(8 + length);
        Ok(Some(bytes.split_off(8)))
    }

    fn text(&mut self, input: &mut &[u8], what: &'static str) -> Result<Option<String>, ExportError> {
        let bytes = self.string(input, what, MAX_PATH, true)?;
        bytes.map(String::from_utf8).transpose().map_err(|_| ExportError::NotUtf8 { what })
    }
}
