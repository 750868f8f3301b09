//! Output paths computed from derivations, by which one that was tampered with is found out.

use std::{borrow::Cow, collections::HashMap};

use super::{Derivation, DerivationKind, OutputName, ParseError, print, print::MaskedInput};
use crate::{
    hash::Sha256,
    store_path::{DrvPath, StorePath, StorePathError},
};

/// Why a derivation is not what its path or its outputs say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error("malformed derivation {drv}")]
    Parse {
        /// Which.
        drv: DrvPath,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// Its path is not that of its bytes.
    #[error("derivation {drv} has the contents of {computed}")]
    Path {
        /// Which.
        drv: DrvPath,
        /// Where these bytes belong.
        computed: StorePath,
    },
    /// An input has not been added before.
    #[error("derivation {drv} needs {input}, which is not known")]
    MissingInput {
        /// Which.
        drv: DrvPath,
        /// The input.
        input: DrvPath,
    },
    /// An input has no output of that name.
    #[error("derivation {drv} needs output {output} of {input}, which has none of that name")]
    MissingOutput {
        /// Which.
        drv: DrvPath,
        /// The input.
        input: DrvPath,
        /// The output.
        output: OutputName,
    },
    /// Its kind is not supported, so its output paths cannot be known.
    #[error("derivation {drv} is {kind}")]
    Kind {
        /// Which.
        drv: DrvPath,
        /// What it is.
        kind: DerivationKind,
    },
    /// An output path is not the one that follows from the derivation.
    #[error(transparent)]
    Output(Box<WrongOutput>),
    /// An output would have a name that stores do not allow.
    #[error("derivation {drv} has an output whose path would have a forbidden name")]
    Name {
        /// Which.
        drv: DrvPath,
        /// What is wrong with it.
        #[source]
        source: StorePathError,
    },
}

/// An output path that does not follow from its derivation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("derivation {drv} says that output {output} is {found}, but it must be {computed}")]
pub struct WrongOutput {
    /// The derivation.
    pub drv: DrvPath,
    /// The output.
    pub output: OutputName,
    /// What the derivation says.
    pub found: StorePath,
    /// What it must be.
    pub computed: StorePath,
}

/// What stands for a derivation where another one uses it.
#[derive(Debug, Clone)]
enum Stand {
    /// The hash, in base 16, of a derivation whose outputs follow from its inputs; and its outputs' names.
    Inputs(String, Vec<OutputName>),
    /// The hash, in base 16, of the output of a fixed-output derivation, however it comes about.
    Fixed(String),
}

/// Derivations that have been checked, each after all its inputs.
#[derive(Debug, Clone, Default)]
pub struct VerifiedClosure {
    stands: HashMap<DrvPath, Stand>,
}

impl VerifiedClosure {
    /// Starts with none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells whether a derivation has been checked.
    pub fn contains(&self, drv: &DrvPath) -> bool {
        self.stands.contains_key(drv)
    }

    /// Checks the bytes of a `.drv` file against its path and every output path against the bytes.
    ///
    /// The inputs must have been added before. What is added twice is checked twice.
    ///
    /// # Errors
    /// Bytes that are no derivation, an input that is not known, a path that is not the computed one.
    pub fn add(&mut self, drv: &DrvPath, bytes: &[u8]) -> Result<Derivation, VerifyError> {
        let derivation = Derivation::parse(drv.directory(), bytes)
            .map_err(|source| VerifyError::Parse { drv: drv.clone(), source })?;
        let computed = derivation
            .path_of_text(drv, bytes)
            .map_err(|source| VerifyError::Name { drv: drv.clone(), source })?;
        if computed != **drv {
            return Err(VerifyError::Path { drv: drv.clone(), computed });
        }
        self.add_parsed(drv, &derivation)?;
        Ok(derivation)
    }

    /// Checks every output path of a derivation whose own path is known to be right.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_parsed(&mut self, drv: &DrvPath, derivation: &Derivation) -> Result<(), VerifyError> {
        let stand = match derivation.kind() {
            DerivationKind::FixedOutput => check_fixed(drv, derivation)?,
            DerivationKind::InputAddressed => self.check_inputs(drv, derivation)?,
            kind => return Err(VerifyError::Kind { drv: drv.clone(), kind }),
        };
        self.stands.insert(drv.clone(), stand);
        Ok(())
    }

    fn check_inputs(&self, drv: &DrvPath, derivation: &Derivation) -> Result<Stand, VerifyError> {
        let inputs = self.masked_inputs(drv, derivation)?;
        let masked = Sha256::digest(&print::print_masked(derivation, &inputs, true));
        for (name, output) in &derivation.outputs {
            let computed = StorePath::of_output(drv.directory(), drv.derivation_name(), name, &masked);
            check_output(drv, name, output.path.as_ref(), computed)?;
        }
        let hash = Sha256::digest(&print::print_masked(derivation, &inputs, false));
        Ok(Stand::Inputs(hash.to_base16(), derivation.outputs.keys().cloned().collect()))
    }

    /// Gives the inputs with their hashes in place of their paths: those that give the same are one.
    fn masked_inputs<'s>(
        &'s self,
        drv: &DrvPath,
        derivation: &'s Derivation,
    ) -> Result<Vec<MaskedInput<'s>>, VerifyError> {
        let mut inputs = Vec::with_capacity(derivation.input_derivations.len());
        for (input, outputs) in &derivation.input_derivations {
            let missing = || VerifyError::MissingInput { drv: drv.clone(), input: input.clone() };
            let stand = self.stands.get(input).ok_or_else(missing)?;
            let has = |output: &OutputName| match stand {
                Stand::Inputs(_, names) => names.contains(output),
                Stand::Fixed(_) => *output == OutputName::OUT,
            };
            if let Some(output) = outputs.iter().find(|output| !has(output)) {
                let (drv, input) = (drv.clone(), input.clone());
                return Err(VerifyError::MissingOutput { drv, input, output: output.clone() });
            }
            let (Stand::Inputs(hash, _) | Stand::Fixed(hash)) = stand;
            inputs.push((hash.as_str(), Cow::Borrowed(outputs)));
        }
        inputs.sort_by_key(|(hash, _)| *hash);
        inputs.dedup_by(|(hash, outputs), (kept_hash, kept)| {
            let same = hash == kept_hash;
            if same {
                kept.to_mut().extend(outputs.iter().cloned());
            }
            same
        });
        Ok(inputs)
    }
}

fn check_fixed(drv: &DrvPath, derivation: &Derivation) -> Result<Stand, VerifyError> {
    let (directory, name) = (drv.directory(), drv.derivation_name());
    let mut text = String::new();
    for (output_name, output) in &derivation.outputs {
        let computed = StorePath::of_fixed_text(directory, name, &output.hash_algo, &output.hash);
        check_output(drv, output_name, output.path.as_ref(), computed)?;
        let path = output.path.as_ref().map(ToString::to_string).unwrap_or_default();
        text = format!("fixed:out:{}:{}:{path}", output.hash_algo, output.hash);
    }
    Ok(Stand::Fixed(Sha256::digest(text.as_bytes()).to_base16()))
}

fn check_output(
    drv: &DrvPath,
    output: &OutputName,
    found: Option<&StorePath>,
    computed: Result<StorePath, StorePathError>,
) -> Result<(), VerifyError> {
    let computed = computed.map_err(|source| VerifyError::Name { drv: drv.clone(), source })?;
    match found {
        Some(found) if *found != computed => {
            let (drv, output, found) = (drv.clone(), output.clone(), found.clone());
            Err(VerifyError::Output(Box::new(WrongOutput { drv, output, found, computed })))
        }
        _ => Ok(()),
    }
}

impl Derivation {
    /// Computes where these bytes belong, of which this derivation was read.
    fn path_of_text(&self, drv: &DrvPath, bytes: &[u8]) -> Result<StorePath, StorePathError> {
        let inputs = self.input_derivations.keys().map(DrvPath::as_path);
        let mut references: Vec<_> = inputs.chain(&self.input_sources).collect();
        references.sort_unstable();
        references.dedup();
        StorePath::of_sorted_text(drv.directory(), drv.name(), bytes, references)
    }
}
