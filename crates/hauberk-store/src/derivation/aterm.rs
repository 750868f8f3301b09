//! Reading the ATerm text of derivations: `Derive([outputs],[inputs],[sources],system,builder,[args],[env])`.

use std::{borrow::Cow, ops::Range};

use super::{DerivationView, InvalidOutputName, OutputView, PathView, output_name};
use crate::{
    base32,
    store_directory::StoreDirectory,
    store_path::{DrvPathError, HASH_LENGTH, MAX_NAME_LENGTH, StorePath, StorePathError, are_name_bytes},
};

/// Why bytes are not the text of a derivation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Something else stands where the grammar wants a given text.
    #[error("expected `{expected}` at byte {offset} of the derivation")]
    Expected {
        /// What should stand there.
        expected: &'static str,
        /// Where, from 0.
        offset: usize,
    },
    /// A string has no end.
    #[error("string at byte {offset} of the derivation has no end")]
    UnterminatedString {
        /// Where it begins, from 0.
        offset: usize,
    },
    /// Bytes follow the derivation.
    #[error("bytes after the end of the derivation at byte {offset}")]
    TrailingBytes {
        /// Where, from 0.
        offset: usize,
    },
    /// The text is of the experimental kind whose inputs are made by other derivations.
    #[error("dynamic derivation (`DrvWithVersion`), which is not supported")]
    Dynamic,
    /// A string that must be text is not UTF-8.
    #[error("{what} at byte {offset} of the derivation is not UTF-8")]
    NotUtf8 {
        /// The string's role.
        what: &'static str,
        /// Where it begins, from 0.
        offset: usize,
    },
    /// A string that must be a path of the store is not one.
    #[error("malformed store path at byte {offset} of the derivation")]
    Path {
        /// Where it begins, from 0.
        offset: usize,
        /// What is wrong with it.
        #[source]
        source: StorePathError,
    },
    /// An input that must be a derivation is something else.
    #[error("malformed input derivation at byte {offset} of the derivation")]
    InputDerivation {
        /// Where it begins, from 0.
        offset: usize,
        /// What is wrong with it.
        #[source]
        source: DrvPathError,
    },
    /// A string that must name an output does not.
    #[error("malformed output name at byte {offset} of the derivation")]
    OutputName {
        /// Where it begins, from 0.
        offset: usize,
        /// What is wrong with it.
        #[source]
        source: InvalidOutputName,
    },
    /// A name or a path appears twice in a list that is a set.
    #[error("{what} at byte {offset} of the derivation appears twice")]
    Duplicate {
        /// The item's role.
        what: &'static str,
        /// Where the second one begins, from 0.
        offset: usize,
    },
}

/// Takes the parts of a derivation in the order of its text, each with the place where it begins.
pub(super) trait Sink<'a> {
    fn output(&mut self, offset: usize, output: OutputView<'a>) -> Result<(), ParseError>;
    fn input_derivation(&mut self, offset: usize, drv: PathView<'a>) -> Result<(), ParseError>;
    /// An output of the last input derivation.
    fn input_output(&mut self, offset: usize, name: Cow<'a, str>) -> Result<(), ParseError>;
    fn input_source(&mut self, offset: usize, path: PathView<'a>) -> Result<(), ParseError>;
    fn arg(&mut self, arg: Cow<'a, [u8]>);
    fn variable(
        &mut self,
        offset: usize,
        name: Cow<'a, [u8]>,
        value: Cow<'a, [u8]>,
    ) -> Result<(), ParseError>;
}

/// Takes nothing: for texts that are only checked.
pub(super) struct Nothing;

impl<'a> Sink<'a> for Nothing {
    fn output(&mut self, _: usize, _: OutputView<'a>) -> Result<(), ParseError> {
        Ok(())
    }
    fn input_derivation(&mut self, _: usize, _: PathView<'a>) -> Result<(), ParseError> {
        Ok(())
    }
    fn input_output(&mut self, _: usize, _: Cow<'a, str>) -> Result<(), ParseError> {
        Ok(())
    }
    fn input_source(&mut self, _: usize, _: PathView<'a>) -> Result<(), ParseError> {
        Ok(())
    }
    fn arg(&mut self, _: Cow<'a, [u8]>) {}
    fn variable(&mut self, _: usize, _: Cow<'a, [u8]>, _: Cow<'a, [u8]>) -> Result<(), ParseError> {
        Ok(())
    }
}

/// Reads a whole text into `sink`, and gives what the lists cover.
pub(super) fn read<'a, S: Sink<'a>>(
    directory: &StoreDirectory,
    bytes: &'a [u8],
    sink: &mut S,
) -> Result<DerivationView<'a>, ParseError> {
    let mut cursor = Cursor { bytes, text: std::str::from_utf8(bytes).ok(), offset: 0 };
    if bytes.starts_with(b"DrvWithVersion(") {
        return Err(ParseError::Dynamic);
    }
    cursor.expect("Derive([")?;
    let outputs = cursor.list(|cursor| {
        let offset = cursor.offset + 1;
        sink.output(offset, cursor.output(directory)?)
    })?;
    cursor.expect(",[")?;
    let input_derivations = cursor.list(|cursor| {
        cursor.expect("(")?;
        let offset = cursor.offset;
        sink.input_derivation(offset, cursor.drv_path(directory)?)?;
        cursor.expect(",[")?;
        cursor.list(|cursor| {
            let offset = cursor.offset;
            sink.input_output(offset, cursor.output_name()?)
        })?;
        cursor.expect(")")
    })?;
    cursor.expect(",[")?;
    let input_sources = cursor.list(|cursor| {
        let offset = cursor.offset;
        sink.input_source(offset, cursor.path(directory)?)
    })?;
    cursor.expect(",")?;
    let system = cursor.text("system")?;
    cursor.expect(",")?;
    let builder = cursor.string()?;
    cursor.expect(",[")?;
    let args = cursor.list(|cursor| {
        sink.arg(cursor.string()?);
        Ok(())
    })?;
    cursor.expect(",[")?;
    let env = cursor.list(|cursor| {
        let offset = cursor.offset + 1;
        let (name, value) = cursor.variable()?;
        sink.variable(offset, name, value)
    })?;
    cursor.expect(")")?;
    if cursor.offset < bytes.len() {
        return Err(ParseError::TrailingBytes { offset: cursor.offset });
    }
    Ok(DerivationView {
        directory: directory.clone(),
        outputs: &bytes[outputs],
        input_derivations: &bytes[input_derivations],
        input_sources: &bytes[input_sources],
        system,
        builder,
        args: &bytes[args],
        env: &bytes[env],
    })
}

/// A string of the text, borrowed unless it has escapes.
pub(super) type Bytes<'a> = Cow<'a, [u8]>;

/// A place in the text.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    /// The same where all of it is known to be UTF-8: looking once is faster than at each path.
    pub(super) text: Option<&'a str>,
    pub(super) offset: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(super) fn expect(&mut self, expected: &'static str) -> Result<(), ParseError> {
        if self.bytes[self.offset..].starts_with(expected.as_bytes()) {
            self.offset += expected.len();
            Ok(())
        } else {
            Err(ParseError::Expected { expected, offset: self.offset })
        }
    }

    /// Reads items up to the closing bracket; the opening one has been read. Gives what the list covers.
    #[inline]
    pub(super) fn list(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), ParseError>,
    ) -> Result<Range<usize>, ParseError> {
        let begin = self.offset;
        if self.bytes.get(self.offset) == Some(&b']') {
            self.offset += 1;
            return Ok(begin..self.offset);
        }
        loop {
            item(self)?;
            match self.bytes.get(self.offset) {
                Some(b',') => self.offset += 1,
                Some(b']') => {
                    self.offset += 1;
                    return Ok(begin..self.offset);
                }
                _ => return Err(ParseError::Expected { expected: "]", offset: self.offset }),
            }
        }
    }

    pub(super) fn output(&mut self, directory: &StoreDirectory) -> Result<OutputView<'a>, ParseError> {
        self.expect("(")?;
        let name = self.output_name()?;
        self.expect(",")?;
        let path = self.optional_path(directory)?;
        self.expect(",")?;
        let hash_algo = self.text("hash algorithm")?;
        self.expect(",")?;
        let hash = self.text("hash")?;
        self.expect(")")?;
        Ok(OutputView { name, path, hash_algo, hash })
    }

    pub(super) fn variable(&mut self) -> Result<(Bytes<'a>, Bytes<'a>), ParseError> {
        self.expect("(")?;
        let name = self.string()?;
        self.expect(",")?;
        let value = self.string()?;
        self.expect(")")?;
        Ok((name, value))
    }

    /// Reads a quoted string; it is borrowed unless it has escapes.
    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>, ParseError> {
        let begin = self.offset;
        self.expect("\"")?;
        let unterminated = ParseError::UnterminatedString { offset: begin };
        let rest = &self.bytes[self.offset..];
        let Some(stop) = memchr::memchr2(b'"', b'\\', rest) else { return Err(unterminated) };
        if rest[stop] == b'"' {
            self.offset += stop + 1;
            return Ok(Cow::Borrowed(&rest[..stop]));
        }
        let (mut text, mut rest) = (Vec::new(), rest);
        loop {
            let Some(stop) = memchr::memchr2(b'"', b'\\', rest) else { return Err(unterminated) };
            text.extend_from_slice(&rest[..stop]);
            if rest[stop] == b'"' {
                self.offset = self.bytes.len() - rest.len() + stop + 1;
                return Ok(Cow::Owned(text));
            }
            let Some(&escaped) = rest.get(stop + 1) else { return Err(unterminated) };
            text.push(match escaped {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                other => other,
            });
            rest = &rest[stop + 2..];
        }
    }

    pub(super) fn text(&mut self, what: &'static str) -> Result<Cow<'a, str>, ParseError> {
        let offset = self.offset;
        match self.string()? {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).ok(),
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).ok(),
        }
        .ok_or(ParseError::NotUtf8 { what, offset })
    }

    pub(super) fn output_name(&mut self) -> Result<Cow<'a, str>, ParseError> {
        if self.bytes[self.offset..].starts_with(b"\"out\"") {
            self.offset += 5;
            return Ok(Cow::Borrowed("out"));
        }
        let offset = self.offset;
        let text = self.text("output name")?;
        match output_name::check(&text) {
            Ok(()) => Ok(text),
            Err(source) => Err(ParseError::OutputName { offset, source }),
        }
    }

    /// Reads a path of the store.
    #[inline]
    pub(super) fn path(&mut self, directory: &StoreDirectory) -> Result<PathView<'a>, ParseError> {
        if let Some(base_name) = self.plain_path(directory) {
            return Ok(PathView::new(Cow::Borrowed(base_name)));
        }
        let offset = self.offset;
        let text = self.text("store path")?;
        let path = StorePath::parse_in(directory, &text);
        let path = path.map_err(|source| ParseError::Path { offset, source })?;
        Ok(PathView::new(Cow::Owned(path.base_name().to_owned())))
    }

    /// Reads a path that is spelt without escapes, as all are, and leaves the rest to those who name the error.
    #[inline]
    fn plain_path(&mut self, directory: &StoreDirectory) -> Option<&'a str> {
        let rest = self.bytes[self.offset..].strip_prefix(b"\"")?;
        let rest = rest.strip_prefix(directory.as_str().as_bytes())?.strip_prefix(b"/")?;
        let base_name = &rest[..memchr::memchr(b'"', rest)?];
        let (hash, name) = base_name.split_first_chunk::<HASH_LENGTH>()?;
        let [b'-', first, ..] = *name else { return None };
        if first == b'.'
            || name.len() > 1 + MAX_NAME_LENGTH
            || !base32::are_digits(hash)
            || !are_name_bytes(base_name)
        {
            return None;
        }
        let begin = self.bytes.len() - rest.len();
        let end = begin + base_name.len();
        self.offset = end + 1;
        match self.text {
            Some(text) => text.get(begin..end),
            None => std::str::from_utf8(base_name).ok(),
        }
    }

    pub(super) fn drv_path(&mut self, directory: &StoreDirectory) -> Result<PathView<'a>, ParseError> {
        let offset = self.offset;
        let path = self.path(directory)?;
        if path.is_derivation() {
            return Ok(path);
        }
        let path = path.to_store_path(directory);
        let source = DrvPathError::NotADerivation(crate::store_path::NotADerivation { path });
        Err(ParseError::InputDerivation { offset, source })
    }

    fn optional_path(&mut self, directory: &StoreDirectory) -> Result<Option<PathView<'a>>, ParseError> {
        if self.bytes[self.offset..].starts_with(b"\"\"") {
            self.offset += 2;
            return Ok(None);
        }
        self.path(directory).map(Some)
    }
}
