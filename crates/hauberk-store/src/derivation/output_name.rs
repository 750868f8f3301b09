//! Names of derivation outputs.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use crate::store_path::{MAX_NAME_LENGTH, is_name_byte};

/// Names an output of a derivation, as `out` or `doc`.
#[derive(Clone, PartialEq, Eq)]
pub struct OutputName(Repr);

/// `out` has a form of its own, so that it takes no memory; it never stands in the other.
#[derive(Clone, PartialEq, Eq)]
enum Repr {
    Out,
    Other(Box<str>),
}

/// A text that names no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the name of an output")]
pub struct InvalidOutputName {
    /// The text given, cut after 64 characters.
    pub text: String,
}

impl OutputName {
    /// The output every derivation has unless it says otherwise.
    pub const OUT: Self = Self(Repr::Out);

    /// Reads 1 to 211 characters of those allowed in store path names, the first one not a dot.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidOutputName> {
        if text == "out" {
            return Ok(Self::OUT);
        }
        check(text)?;
        Ok(Self(Repr::Other(text.into())))
    }

    /// Takes a text that [`check`] has passed.
    pub(super) fn from_checked(text: &str) -> Self {
        if text == "out" { Self::OUT } else { Self(Repr::Other(text.into())) }
    }

    /// Gives the name.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Out => "out",
            Repr::Other(name) => name,
        }
    }
}

/// Checks an output's name.
pub(super) fn check(text: &str) -> Result<(), InvalidOutputName> {
    let bytes = text.as_bytes();
    let allowed = !bytes.is_empty()
        && bytes.len() <= MAX_NAME_LENGTH
        && bytes[0] != b'.'
        && bytes.iter().all(|&byte| is_name_byte(byte));
    if allowed { Ok(()) } else { Err(InvalidOutputName { text: text.chars().take(64).collect() }) }
}

impl PartialOrd for OutputName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OutputName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for OutputName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for OutputName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for OutputName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for OutputName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for OutputName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OutputName {
    type Err = InvalidOutputName;

    fn from_str(text: &str) -> Result<Self, InvalidOutputName> {
        Self::parse(text)
    }
}
