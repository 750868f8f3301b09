//! Names of derivation outputs.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    str::FromStr,
};

use crate::store_path::{MAX_NAME_LENGTH, is_name_byte};

/// Names an output of a derivation, as `out` or `doc`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutputName(Cow<'static, str>);

/// A text that names no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the name of an output")]
pub struct InvalidOutputName {
    /// The text given, cut after 64 characters.
    pub text: String,
}

impl OutputName {
    /// The output every derivation has unless it says otherwise.
    pub const OUT: Self = Self(Cow::Borrowed("out"));

    /// Reads 1 to 211 characters of those allowed in store path names, the first one not a dot.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidOutputName> {
        if text == "out" {
            return Ok(Self::OUT);
        }
        check(text)?;
        Ok(Self(Cow::Owned(text.to_owned())))
    }

    /// Takes a text that [`check`] has passed.
    pub(super) fn from_checked(text: &str) -> Self {
        if text == "out" { Self::OUT } else { Self(Cow::Owned(text.to_owned())) }
    }

    /// Gives the name.
    pub fn as_str(&self) -> &str {
        &self.0
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

impl Borrow<str> for OutputName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for OutputName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OutputName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OutputName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for OutputName {
    type Err = InvalidOutputName;

    fn from_str(text: &str) -> Result<Self, InvalidOutputName> {
        Self::parse(text)
    }
}
