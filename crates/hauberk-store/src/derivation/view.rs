//! Derivations read in place: nothing is copied, so that a graph is read as fast as memory gives it.

use std::{borrow::Cow, iter};

use super::{
    ParseError,
    aterm::{self, Cursor, Nothing},
};
use crate::{store_directory::StoreDirectory, store_path::StorePath};

/// A derivation's text, checked once and then read in place.
///
/// Checked is what [`Derivation::parse`](super::Derivation::parse) checks, but not that no name or path appears twice. What a register needs of the
/// thousands of derivations of an evaluation (paths, system, a variable or two) it gives without an allocation.
#[derive(Debug, Clone)]
pub struct DerivationView<'a> {
    pub(super) directory: StoreDirectory,
    /// Each list without its opening bracket, but with the closing one.
    pub(super) outputs: &'a [u8],
    pub(super) input_derivations: &'a [u8],
    pub(super) input_sources: &'a [u8],
    pub(super) system: Cow<'a, str>,
    pub(super) builder: Cow<'a, [u8]>,
    pub(super) args: &'a [u8],
    pub(super) env: &'a [u8],
}

/// An output of a derivation, read in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputView<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Where it will be, if that is known.
    pub path: Option<PathView<'a>>,
    /// Empty, or the hash algorithm with its method in front.
    pub hash_algo: Cow<'a, str>,
    /// Empty, or what it must hash to.
    pub hash: Cow<'a, str>,
}

/// An input derivation, read in place.
#[derive(Debug, Clone)]
pub struct InputView<'a> {
    /// The derivation.
    pub drv: PathView<'a>,
    outputs: &'a [u8],
}

impl<'a> InputView<'a> {
    /// Gives the names of the outputs that are used.
    pub fn outputs(&self) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
        items(self.outputs, Cursor::output_name)
    }
}

/// A path of the derivation's store, read in place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathView<'a>(Cow<'a, str>);

impl<'a> PathView<'a> {
    pub(super) const fn new(base_name: Cow<'a, str>) -> Self {
        Self(base_name)
    }

    /// Gives the base name, `HASH-NAME`.
    pub fn base_name(&self) -> &str {
        &self.0
    }

    pub(super) fn is_derivation(&self) -> bool {
        self.0.ends_with(".drv")
    }

    /// Makes a store path of it, in the derivation's own store directory.
    pub fn to_store_path(&self, directory: &StoreDirectory) -> StorePath {
        StorePath::from_checked(directory, self.base_name())
    }
}

impl<'a> DerivationView<'a> {
    /// Checks the bytes of a `.drv` file of the store `directory`.
    ///
    /// # Errors
    /// Bytes that are not the text of a derivation, with the place.
    pub fn parse(directory: &StoreDirectory, bytes: &'a [u8]) -> Result<Self, ParseError> {
        aterm::read(directory, bytes, &mut Nothing)
    }

    /// Gives the store directory.
    pub fn directory(&self) -> &StoreDirectory {
        &self.directory
    }

    /// Gives the outputs, in the text's order.
    pub fn outputs(&self) -> impl Iterator<Item = OutputView<'a>> + use<'a, '_> {
        items(self.outputs, |cursor| cursor.output(&self.directory))
    }

    /// Gives the input derivations, in the text's order.
    pub fn input_derivations(&self) -> impl Iterator<Item = InputView<'a>> + use<'a, '_> {
        items(self.input_derivations, |cursor| {
            cursor.expect("(")?;
            let drv = cursor.path(&self.directory)?;
            cursor.expect(",[")?;
            let outputs = cursor.list(|cursor| cursor.string().map(drop))?;
            cursor.expect(")")?;
            Ok(InputView { drv, outputs: &cursor.bytes[outputs] })
        })
    }

    /// Gives the input sources, in the text's order.
    pub fn input_sources(&self) -> impl Iterator<Item = PathView<'a>> + use<'a, '_> {
        items(self.input_sources, |cursor| cursor.path(&self.directory))
    }

    /// Gives the system it is built on.
    pub fn system(&self) -> &str {
        &self.system
    }

    /// Gives the program run.
    pub fn builder(&self) -> &[u8] {
        &self.builder
    }

    /// Gives the program's arguments.
    pub fn args(&self) -> impl Iterator<Item = Cow<'a, [u8]>> + use<'a> {
        items(self.args, Cursor::string)
    }

    /// Gives the environment, in the text's order.
    pub fn env(&self) -> impl Iterator<Item = (Cow<'a, [u8]>, Cow<'a, [u8]>)> + use<'a> {
        items(self.env, Cursor::variable)
    }

    /// Gives the value of an environment variable.
    pub fn env_var(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        self.env().find(|(other, _)| **other == *name.as_bytes()).map(|(_, value)| value)
    }
}

/// Reads the items of a list that has been checked.
fn items<'a, T>(
    list: &'a [u8],
    item: impl Fn(&mut Cursor<'a>) -> Result<T, ParseError>,
) -> impl Iterator<Item = T> {
    let mut cursor = Cursor { bytes: list, text: None, offset: 0 };
    iter::from_fn(move || {
        match cursor.bytes.get(cursor.offset)? {
            b']' => return None,
            b',' => cursor.offset += 1,
            _ => {}
        }
        item(&mut cursor).ok()
    })
}
