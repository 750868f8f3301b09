//! Guix's signature of a narinfo: over the exact bytes in front of it.

use super::{NarInfo, NarInfoError};
use crate::{
    hash::Sha256,
    signature::guix::{Acl, SecretKey, Signature, SignatureError, SignatureLine},
    store_directory::StoreDirectory,
};

/// What Guix looks for, anywhere in the text, to find the end of what is signed.
const MARK: &str = "Signature:";

/// Fields without which the signed part proves nothing.
const MANDATORY: [&str; 3] = ["StorePath", "NarHash", "References"];

/// Why a narinfo is not one that a Guix machine would trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuixNarInfoError {
    /// It cannot be read.
    #[error("malformed narinfo")]
    Malformed(#[source] NarInfoError),
    /// It has no signature.
    #[error("narinfo is not signed")]
    Unsigned,
    /// A field that must be signed is not above the signature.
    #[error("narinfo field {field} is not signed")]
    FieldNotSigned {
        /// The field's name.
        field: &'static str,
    },
    /// The signature is not good.
    #[error("signature of the narinfo is not good")]
    Signature(#[source] SignatureError),
}

impl NarInfo {
    /// Reads a narinfo and checks that a key of the ACL has signed it.
    ///
    /// Path, hash and references are signed; the rest may stand below the signature, where anyone could have put it.
    ///
    /// # Errors
    /// A narinfo that [`Self::parse`] refuses, or a signature that is missing or not good.
    pub fn parse_verified(
        directory: &StoreDirectory,
        text: &str,
        acl: &Acl,
    ) -> Result<Self, GuixNarInfoError> {
        let info = Self::parse(directory, text).map_err(GuixNarInfoError::Malformed)?;
        let line = info.guix_signature.as_ref().ok_or(GuixNarInfoError::Unsigned)?;
        let signed = signed_part(text).ok_or(GuixNarInfoError::Unsigned)?;
        let fields: Vec<_> = record_fields(signed).collect();
        if let Some(field) = MANDATORY.into_iter().find(|field| !fields.contains(field)) {
            return Err(GuixNarInfoError::FieldNotSigned { field });
        }
        Signature::parse_text(line.text())
            .and_then(|signature| signature.verify(&Sha256::digest(signed.as_bytes()), acl))
            .map_err(GuixNarInfoError::Signature)?;
        Ok(info)
    }

    /// Puts a signature of `key` over the text as it is now, in place of any other; the host name is a mere remark.
    ///
    /// Any change afterwards, but to the signature itself, makes it void.
    pub fn sign_guix(&mut self, host: &str, key: &SecretKey) {
        self.guix_signature = None;
        let signature = key.sign(&Sha256::digest(self.to_string().as_bytes()));
        self.guix_signature = Some(SignatureLine::new(host, &signature.to_text()));
    }
}

/// Gives what a Guix signature in `text` covers: everything above it.
fn signed_part(text: &str) -> Option<&str> {
    text.find(MARK).map(|end| &text[..end])
}

/// Gives the names of the fields of the first record, which an empty line ends.
fn record_fields(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n')
        .skip_while(|line| line.is_empty())
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, _)| name))
}
