//! Sets of output names.

use std::{fmt, slice, vec};

use super::OutputName;

/// A set of output names, in their order.
///
/// Nearly every input derivation is used by one output, so a set of one takes no memory but its own.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutputNames(Repr);

/// One name has a form of its own and never stands in the other, whose names are sorted.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    One(OutputName),
    Other(Vec<OutputName>),
}

impl OutputNames {
    /// Gives the empty set.
    pub const fn new() -> Self {
        Self(Repr::Other(Vec::new()))
    }

    fn as_slice(&self) -> &[OutputName] {
        match &self.0 {
            Repr::One(name) => slice::from_ref(name),
            Repr::Other(names) => names,
        }
    }

    /// Adds a name and tells whether it is new.
    pub fn insert(&mut self, name: OutputName) -> bool {
        let Err(place) = self.as_slice().binary_search(&name) else { return false };
        self.0 = match std::mem::replace(&mut self.0, Repr::Other(Vec::new())) {
            Repr::Other(names) if names.is_empty() => Repr::One(name),
            Repr::One(one) if place == 0 => Repr::Other(vec![name, one]),
            Repr::One(one) => Repr::Other(vec![one, name]),
            Repr::Other(mut names) => {
                names.insert(place, name);
                Repr::Other(names)
            }
        };
        true
    }

    /// Tells whether `name` is one of them.
    pub fn contains(&self, name: &OutputName) -> bool {
        self.as_slice().binary_search(name).is_ok()
    }

    /// Tells whether each of them is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter().all(|name| other.contains(name))
    }

    /// Gives the names in order.
    pub fn iter(&self) -> slice::Iter<'_, OutputName> {
        self.as_slice().iter()
    }

    /// Gives how many they are.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

impl Default for OutputNames {
    fn default() -> Self {
        Self::new()
    }
}

impl Extend<OutputName> for OutputNames {
    fn extend<I: IntoIterator<Item = OutputName>>(&mut self, names: I) {
        for name in names {
            self.insert(name);
        }
    }
}

impl FromIterator<OutputName> for OutputNames {
    fn from_iter<I: IntoIterator<Item = OutputName>>(names: I) -> Self {
        let mut set = Self::new();
        set.extend(names);
        set
    }
}

impl<const N: usize> From<[OutputName; N]> for OutputNames {
    fn from(names: [OutputName; N]) -> Self {
        names.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a OutputNames {
    type Item = &'a OutputName;
    type IntoIter = slice::Iter<'a, OutputName>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for OutputNames {
    type Item = OutputName;
    type IntoIter = vec::IntoIter<OutputName>;

    fn into_iter(self) -> Self::IntoIter {
        match self.0 {
            Repr::One(name) => vec![name].into_iter(),
            Repr::Other(names) => names.into_iter(),
        }
    }
}

impl fmt::Debug for OutputNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::strategies;

    proptest! {
        #[test]
        fn it_is_a_set(names in prop::collection::vec(strategies::output_name(), 0..8), other in strategies::output_name()) {
            let mut set = OutputNames::new();
            let mut model = BTreeSet::new();
            for name in names {
                prop_assert_eq!(set.insert(name.clone()), model.insert(name));
                prop_assert!(set.iter().eq(&model));
            }
            prop_assert_eq!((set.len(), set.is_empty()), (model.len(), model.is_empty()));
            prop_assert_eq!(set.contains(&other), model.contains(&other));
            let one = OutputNames::from([other]);
            prop_assert_eq!(one.is_subset(&set), one.iter().all(|name| model.contains(name)));
            let again: OutputNames = model.iter().rev().cloned().collect();
            prop_assert_eq!(&again, &set);
            prop_assert!(set.into_iter().eq(model));
        }
    }
}
