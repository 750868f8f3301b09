//! The ATerm text of derivations: `Derive([outputs],[inputs],[sources],system,builder,[args],[env])`.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{Derivation, InvalidOutputName, Output, OutputName};
use crate::{
    store_directory::StoreDirectory,
    store_path::{DrvPath, DrvPathError, StorePath, StorePathError},
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

pub(super) fn parse(directory: &StoreDirectory, bytes: &[u8]) -> Result<Derivation, ParseError> {
    let mut cursor = Cursor { bytes, offset: 0 };
    if bytes.starts_with(b"DrvWithVersion(") {
        return Err(ParseError::Dynamic);
    }
    cursor.expect("Derive([")?;
    let mut outputs = BTreeMap::new();
    cursor.list(|cursor| {
        cursor.expect("(")?;
        let offset = cursor.offset;
        let name = cursor.output_name()?;
        cursor.expect(",")?;
        let path = cursor.optional_path(directory)?;
        cursor.expect(",")?;
        let hash_algo = cursor.text("hash algorithm")?.into_owned();
        cursor.expect(",")?;
        let hash = cursor.text("hash")?.into_owned();
        cursor.expect(")")?;
        let previous = outputs.insert(name, Output { path, hash_algo, hash });
        unique("output", offset, previous.is_none())
    })?;
    cursor.expect(",[")?;
    let mut input_derivations = BTreeMap::new();
    cursor.list(|cursor| {
        cursor.expect("(")?;
        let offset = cursor.offset;
        let drv = DrvPath::try_from(cursor.path(directory)?)
            .map_err(|source| ParseError::InputDerivation { offset, source: source.into() })?;
        cursor.expect(",[")?;
        let mut names = BTreeSet::new();
        cursor.list(|cursor| {
            let offset = cursor.offset;
            let new = names.insert(cursor.output_name()?);
            unique("output of an input", offset, new)
        })?;
        cursor.expect(")")?;
        unique("input derivation", offset, input_derivations.insert(drv, names).is_none())
    })?;
    cursor.expect(",[")?;
    let mut input_sources = BTreeSet::new();
    cursor.list(|cursor| {
        let offset = cursor.offset;
        let new = input_sources.insert(cursor.path(directory)?);
        unique("input source", offset, new)
    })?;
    cursor.expect(",")?;
    let system = cursor.text("system")?.into_owned();
    cursor.expect(",")?;
    let builder = cursor.string()?.into_owned();
    cursor.expect(",[")?;
    let mut args = Vec::new();
    cursor.list(|cursor| {
        args.push(cursor.string()?.into_owned());
        Ok(())
    })?;
    cursor.expect(",[")?;
    let mut env = BTreeMap::new();
    cursor.list(|cursor| {
        cursor.expect("(")?;
        let offset = cursor.offset;
        let name = cursor.string()?.into_owned();
        cursor.expect(",")?;
        let value = cursor.string()?.into_owned();
        cursor.expect(")")?;
        unique("environment variable", offset, env.insert(name, value).is_none())
    })?;
    cursor.expect(")")?;
    if cursor.offset < bytes.len() {
        return Err(ParseError::TrailingBytes { offset: cursor.offset });
    }
    Ok(Derivation { outputs, input_derivations, input_sources, system, builder, args, env })
}

fn unique(what: &'static str, offset: usize, new: bool) -> Result<(), ParseError> {
    if new { Ok(()) } else { Err(ParseError::Duplicate { what, offset }) }
}

/// A place in the text.
struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    fn expect(&mut self, expected: &'static str) -> Result<(), ParseError> {
        if self.bytes[self.offset..].starts_with(expected.as_bytes()) {
            self.offset += expected.len();
            Ok(())
        } else {
            Err(ParseError::Expected { expected, offset: self.offset })
        }
    }

    /// Reads items up to the closing bracket; the opening one has been read.
    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), ParseError>) -> Result<(), ParseError> {
        if self.bytes.get(self.offset) == Some(&b']') {
            self.offset += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            match self.bytes.get(self.offset) {
                Some(b',') => self.offset += 1,
                Some(b']') => {
                    self.offset += 1;
                    return Ok(());
                }
                _ => return Err(ParseError::Expected { expected: "]", offset: self.offset }),
            }
        }
    }

    /// Reads a quoted string; it is borrowed unless it has escapes.
    fn string(&mut self) -> Result<Cow<'a, [u8]>, ParseError> {
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

    fn text(&mut self, what: &'static str) -> Result<Cow<'a, str>, ParseError> {
        let offset = self.offset;
        match self.string()? {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).ok(),
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).ok(),
        }
        .ok_or(ParseError::NotUtf8 { what, offset })
    }

    fn output_name(&mut self) -> Result<OutputName, ParseError> {
        let offset = self.offset;
        let text = self.text("output name")?;
        OutputName::parse(&text).map_err(|source| ParseError::OutputName { offset, source })
    }

    fn path(&mut self, directory: &StoreDirectory) -> Result<StorePath, ParseError> {
        let offset = self.offset;
        let text = self.text("store path")?;
        StorePath::parse_in(directory, &text).map_err(|source| ParseError::Path { offset, source })
    }

    fn optional_path(&mut self, directory: &StoreDirectory) -> Result<Option<StorePath>, ParseError> {
        if self.bytes[self.offset..].starts_with(b"\"\"") {
            self.offset += 2;
            return Ok(None);
        }
        self.path(directory).map(Some)
    }
}

pub(super) fn print(derivation: &Derivation) -> Vec<u8> {
    print_with(derivation, false, |printer| {
        printer.list(&derivation.input_derivations, |printer, (drv, names)| {
            printer.raw("(");
            printer.path(drv);
            printer.names(names);
        });
    })
}

/// Writes the text whose hash output paths follow from: with hashes in place of the inputs' paths, and, for the
/// derivation's own outputs, with nothing where their paths stand.
pub(super) fn print_masked(
    derivation: &Derivation,
    inputs: &BTreeMap<String, BTreeSet<OutputName>>,
    mask_outputs: bool,
) -> Vec<u8> {
    print_with(derivation, mask_outputs, |printer| {
        printer.list(inputs, |printer, (hash, names)| {
            printer.raw("(");
            printer.plain(hash);
            printer.names(names);
        });
    })
}

fn print_with(derivation: &Derivation, mask: bool, inputs: impl FnOnce(&mut Printer)) -> Vec<u8> {
    let mut printer = Printer(Vec::with_capacity(1024));
    printer.raw("Derive([");
    printer.list(&derivation.outputs, |printer, (name, output)| {
        printer.raw("(");
        printer.plain(name.as_str());
        printer.raw(",");
        match &output.path {
            Some(path) if !mask => printer.path(path),
            _ => printer.raw("\"\""),
        }
        printer.raw(",");
        printer.string(output.hash_algo.as_bytes());
        printer.raw(",");
        printer.string(output.hash.as_bytes());
        printer.raw(")");
    });
    printer.raw(",[");
    inputs(&mut printer);
    printer.raw(",[");
    printer.list(&derivation.input_sources, |printer, path| printer.path(path));
    printer.raw(",");
    printer.string(derivation.system.as_bytes());
    printer.raw(",");
    printer.string(&derivation.builder);
    printer.raw(",[");
    printer.list(&derivation.args, |printer, arg| printer.string(arg));
    printer.raw(",[");
    printer.list(&derivation.env, |printer, (name, value)| {
        printer.raw("(");
        printer.string(name);
        printer.raw(",");
        let output =
            mask && std::str::from_utf8(name).is_ok_and(|name| derivation.outputs.contains_key(name));
        printer.string(if output { b"" } else { value });
        printer.raw(")");
    });
    printer.raw(")");
    printer.0
}

struct Printer(Vec<u8>);

impl Printer {
    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Quotes a text that needs no escapes.
    fn plain(&mut self, text: &str) {
        self.raw("\"");
        self.raw(text);
        self.raw("\"");
    }

    /// Writes the names of an input's outputs and closes the input.
    fn names(&mut self, names: &BTreeSet<OutputName>) {
        self.raw(",[");
        self.list(names, |printer, name| printer.plain(name.as_str()));
        self.raw(")");
    }

    fn path(&mut self, path: &StorePath) {
        self.raw("\"");
        self.raw(path.directory().as_str());
        self.raw("/");
        self.raw(path.base_name());
        self.raw("\"");
    }

    fn string(&mut self, mut text: &[u8]) {
        self.raw("\"");
        while let Some(stop) =
            text.iter().position(|byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\r' | b'\t'))
        {
            self.0.extend_from_slice(&text[..stop]);
            self.0.push(b'\\');
            self.0.push(match text[stop] {
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                other => other,
            });
            text = &text[stop + 1..];
        }
        self.0.extend_from_slice(text);
        self.raw("\"");
    }

    /// Writes items and the closing bracket.
    fn list<T>(&mut self, items: impl IntoIterator<Item = T>, mut item: impl FnMut(&mut Self, T)) {
        for (index, value) in items.into_iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            item(self, value);
        }
        self.raw("]");
    }
}
