//! Derivations built from their text.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    Derivation, Output, OutputName, OutputNames, OutputView, ParseError, PathView,
    aterm::{self, Sink},
};
use crate::{
    store_directory::StoreDirectory,
    store_path::{DrvPath, StorePath},
};

/// Gathers the parts in lists, which become sets at once when they are complete: that is twice as fast as one by one.
struct Builder<'d> {
    directory: &'d StoreDirectory,
    outputs: BTreeMap<OutputName, Output>,
    input_derivations: Vec<(DrvPath, OutputNames)>,
    input_sources: Vec<StorePath>,
    args: Vec<Vec<u8>>,
    env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where each item of a list began whose items are not yet known to differ.
    offsets: Offsets,
}

#[derive(Default)]
struct Offsets {
    input_derivations: Vec<usize>,
    input_sources: Vec<usize>,
    env: Vec<usize>,
}

impl<'a> Sink<'a> for Builder<'_> {
    fn output(&mut self, offset: usize, output: OutputView<'a>) -> Result<(), ParseError> {
        let name = OutputName::from_checked(&output.name);
        let path = output.path.map(|path| path.to_store_path(self.directory));
        let (hash_algo, hash) = (output.hash_algo.into_owned(), output.hash.into_owned());
        match self.outputs.insert(name, Output { path, hash_algo, hash }) {
            None => Ok(()),
            Some(_) => Err(ParseError::Duplicate { what: "output", offset }),
        }
    }

    fn input_derivation(&mut self, offset: usize, drv: PathView<'a>) -> Result<(), ParseError> {
        let path = drv.to_store_path(self.directory);
        let drv = DrvPath::try_from(path)
            .map_err(|source| ParseError::InputDerivation { offset, source: source.into() })?;
        self.input_derivations.push((drv, OutputNames::new()));
        self.offsets.input_derivations.push(offset);
        Ok(())
    }

    fn input_output(&mut self, offset: usize, name: Cow<'a, str>) -> Result<(), ParseError> {
        let name = OutputName::from_checked(&name);
        let new = self.input_derivations.last_mut().is_none_or(|(_, names)| names.insert(name));
        if new { Ok(()) } else { Err(ParseError::Duplicate { what: "output of an input", offset }) }
    }

    fn input_source(&mut self, offset: usize, path: PathView<'a>) -> Result<(), ParseError> {
        self.input_sources.push(path.to_store_path(self.directory));
        self.offsets.input_sources.push(offset);
        Ok(())
    }

    fn arg(&mut self, arg: Cow<'a, [u8]>) {
        self.args.push(arg.into_owned());
    }

    fn variable(
        &mut self,
        offset: usize,
        name: Cow<'a, [u8]>,
        value: Cow<'a, [u8]>,
    ) -> Result<(), ParseError> {
        self.env.push((name.into_owned(), value.into_owned()));
        self.offsets.env.push(offset);
        Ok(())
    }
}

/// Refuses a list in which a key appears twice; one that is sorted is only looked through.
fn check_unique<T, K: Ord>(
    what: &'static str,
    items: &[T],
    key: impl Fn(&T) -> &K,
    offsets: &[usize],
) -> Result<(), ParseError> {
    if items.is_sorted_by(|a, b| key(a) < key(b)) {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    match items.iter().position(|item| !seen.insert(key(item))) {
        None => Ok(()),
        Some(second) => Err(ParseError::Duplicate { what, offset: offsets[second] }),
    }
}

pub(super) fn parse(directory: &StoreDirectory, bytes: &[u8]) -> Result<Derivation, ParseError> {
    let mut builder = Builder {
        directory,
        outputs: BTreeMap::new(),
        input_derivations: Vec::new(),
        input_sources: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        offsets: Offsets::default(),
    };
    let view = aterm::read(directory, bytes, &mut builder)?;
    let (system, program) = (view.system().to_owned(), view.builder().to_vec());
    let Builder { outputs, input_derivations, input_sources, args, env, offsets, .. } = builder;
    check_unique("input derivation", &input_derivations, |(drv, _)| drv, &offsets.input_derivations)?;
    check_unique("input source", &input_sources, |path| path, &offsets.input_sources)?;
    check_unique("environment variable", &env, |(name, _)| name, &offsets.env)?;
    Ok(Derivation {
        outputs,
        input_derivations: input_derivations.into_iter().collect(),
        input_sources: input_sources.into_iter().collect(),
        system,
        builder: program,
        args,
        env: env.into_iter().collect(),
    })
}
