//! How a derivation's output paths come about.

use std::fmt;

use super::{Derivation, Output, OutputName};

/// Kinds of derivations; only the first two have output paths that are known before the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DerivationKind {
    /// Output paths follow from the inputs.
    InputAddressed,
    /// One output, `out`, whose contents must have a given hash.
    FixedOutput,
    /// Output paths follow from what the build gives.
    FloatingContentAddressed,
    /// Built anew each time, with access to the network.
    Impure,
    /// Output paths follow from those of a floating input, and are not known yet.
    Deferred,
    /// Outputs of several kinds, none at all, or a fixed one that is not alone and called `out`.
    Inconsistent,
}

impl DerivationKind {
    pub(super) fn of(derivation: &Derivation) -> Self {
        let mut kinds = derivation.outputs.values().map(of_output);
        let Some(first) = kinds.next() else { return Self::Inconsistent };
        if kinds.any(|kind| kind != first) {
            return Self::Inconsistent;
        }
        let single = derivation.outputs.len() == 1 && derivation.outputs.contains_key(&OutputName::OUT);
        if first == Self::FixedOutput && !single { Self::Inconsistent } else { first }
    }

    /// Gives the reason a farm refuses such a derivation, or nothing when it can be built.
    pub const fn refusal(self) -> Option<&'static str> {
        match self {
            Self::InputAddressed | Self::FixedOutput => None,
            Self::FloatingContentAddressed => {
                Some("floating content-addressed derivation: its output paths are not known before the build")
            }
            Self::Impure => Some("impure derivation: its result is never kept"),
            Self::Deferred => {
                Some("deferred derivation: its output paths depend on a content-addressed input")
            }
            Self::Inconsistent => Some("derivation without outputs or with outputs of different kinds"),
        }
    }
}

fn of_output(output: &Output) -> DerivationKind {
    match (output.path.is_some(), output.hash_algo.is_empty(), output.hash.as_str()) {
        (true, true, "") => DerivationKind::InputAddressed,
        (false, true, "") => DerivationKind::Deferred,
        (false, false, "") => DerivationKind::FloatingContentAddressed,
        (false, false, "impure") => DerivationKind::Impure,
        (true, false, hash) if !hash.is_empty() => DerivationKind::FixedOutput,
        _ => DerivationKind::Inconsistent,
    }
}

impl fmt::Display for DerivationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InputAddressed => "input-addressed",
            Self::FixedOutput => "fixed-output",
            Self::FloatingContentAddressed => "floating content-addressed",
            Self::Impure => "impure",
            Self::Deferred => "deferred",
            Self::Inconsistent => "inconsistent",
        })
    }
}
