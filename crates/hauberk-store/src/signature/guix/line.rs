//! The `Signature` line of a Guix narinfo.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};

/// Longest line value accepted, in bytes; real ones have about six hundred.
const MAX_LENGTH: usize = 16 * 1024;

/// The value of a narinfo's `Signature` line: `1;HOST;BASE64`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SignatureLine {
    host: String,
    text: String,
}

/// Why a text is not the value of a `Signature` line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureLineError {
    /// There are no three parts, or the text is too long.
    #[error("signature is not of the form 1;HOST;BASE64")]
    Form,
    /// The version is not 1.
    #[error("unsupported signature version `{version}`")]
    Version {
        /// The version given.
        version: String,
    },
    /// The last part is not base 64 of UTF-8.
    #[error("signature is not base 64 of UTF-8 text")]
    Base64,
}

impl SignatureLine {
    /// Joins a host name (anything without `;` and line ends; it is not checked by readers) and an S-expression.
    pub fn new(host: &str, text: &str) -> Self {
        let host = host.chars().filter(|c| *c != ';' && !c.is_control()).collect();
        Self { host, text: text.to_owned() }
    }

    /// Reads `1;HOST;BASE64`.
    ///
    /// # Errors
    /// Another form or version, and anything that is not base 64 of UTF-8.
    pub fn parse(value: &str) -> Result<Self, SignatureLineError> {
        if value.len() > MAX_LENGTH {
            return Err(SignatureLineError::Form);
        }
        let (version, rest) = value.split_once(';').ok_or(SignatureLineError::Form)?;
        if version != "1" {
            return Err(SignatureLineError::Version { version: version.chars().take(16).collect() });
        }
        let (host, encoded) = rest.split_once(';').ok_or(SignatureLineError::Form)?;
        let bytes = STANDARD.decode(encoded.trim_ascii()).map_err(|_| SignatureLineError::Base64)?;
        let text = String::from_utf8(bytes).map_err(|_| SignatureLineError::Base64)?;
        Ok(Self { host: host.to_owned(), text })
    }

    /// Gives the host name, which proves nothing.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Gives the S-expression; each character stands for one byte.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for SignatureLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1;{};{}", self.host, STANDARD.encode(&self.text))
    }
}

impl FromStr for SignatureLine {
    type Err = SignatureLineError;

    fn from_str(value: &str) -> Result<Self, SignatureLineError> {
        Self::parse(value)
    }
}
