//! Derivations: what to build, from what, and into which outputs; in the ATerm text both worlds store.

mod aterm;
mod closure;
mod kind;
mod output_name;
mod output_names;
mod owned;
mod print;
mod properties;
mod view;

use std::collections::{BTreeMap, BTreeSet};

pub use aterm::ParseError;
pub use closure::{VerifiedClosure, VerifyError, WrongOutput};
pub use kind::DerivationKind;
pub use output_name::{InvalidOutputName, OutputName};
pub use output_names::OutputNames;
pub use view::{DerivationView, InputView, OutputView, PathView};

use crate::{
    store_directory::StoreDirectory,
    store_path::{DrvPath, StorePath},
};

/// An output of a derivation as its text gives it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// Where it will be; absent where the path is only known after the build.
    pub path: Option<StorePath>,
    /// Empty, or the hash algorithm of a content-addressed output with its method in front, as `r:sha256`.
    pub hash_algo: String,
    /// Empty, or what the output must hash to, in base 16.
    pub hash: String,
}

/// Describes one build: inputs, command, environment and outputs.
///
/// Arguments, builder and environment are bytes: Guix writes Latin-1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// The outputs by name.
    pub outputs: BTreeMap<OutputName, Output>,
    /// The derivations built first, and which of their outputs are used.
    pub input_derivations: BTreeMap<DrvPath, OutputNames>,
    /// Store items that are not the output of a derivation, as builder scripts and patches.
    pub input_sources: BTreeSet<StorePath>,
    /// The system it is built on, as `x86_64-linux`, or `builtin`.
    pub system: String,
    /// The program run, or `builtin:NAME`.
    pub builder: Vec<u8>,
    /// The program's arguments.
    pub args: Vec<Vec<u8>>,
    /// The environment, sorted by name.
    pub env: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Derivation {
    /// Reads the bytes of a `.drv` file of the store `directory`.
    ///
    /// Lists may be in any order, but no name or path may appear twice.
    ///
    /// # Errors
    /// Bytes that are not the text of a derivation, with the place.
    pub fn parse(directory: &StoreDirectory, bytes: &[u8]) -> Result<Self, ParseError> {
        owned::parse(directory, bytes)
    }

    /// Writes the bytes of the `.drv` file, every list sorted.
    ///
    /// What was parsed from a sorted text comes out byte for byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        print::print(self)
    }

    /// Gives what the `.drv` file itself refers to: input derivations and sources.
    pub fn references(&self) -> BTreeSet<StorePath> {
        let inputs = self.input_derivations.keys().map(DrvPath::as_path);
        inputs.chain(&self.input_sources).cloned().collect()
    }

    /// Tells what kind of derivation it is, and so how its output paths come about.
    pub fn kind(&self) -> DerivationKind {
        DerivationKind::of(self)
    }

    /// Tells whether its one output must have a hash that is known beforehand, as downloads do.
    pub fn is_fixed_output(&self) -> bool {
        self.kind() == DerivationKind::FixedOutput
    }
}

#[cfg(test)]
mod tests;
