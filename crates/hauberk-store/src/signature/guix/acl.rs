//! The list of keys a Guix machine accepts substitutes and archives from.

use std::fmt;

use super::PublicKey;
use crate::sexp::{Sexp, SexpError};

/// The authorized keys, in the order of the file. An absent file is the empty list: nobody is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acl {
    keys: Vec<Sexp>,
}

/// Why bytes are not an ACL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// They are no S-expression.
    #[error("malformed ACL")]
    Sexp(#[source] SexpError),
    /// They are one of something else, or an entry allows something else than imports.
    #[error("ACL is not of the form (acl (entry KEY (tag (guix import))) …)")]
    Form,
}

/// The expression each entry ends with.
fn tag() -> Sexp {
    Sexp::list([Sexp::atom("tag"), Sexp::list([Sexp::atom("guix"), Sexp::atom("import")])])
}

impl Acl {
    /// Reads the bytes of an ACL file. Keys of algorithms we do not know are kept.
    ///
    /// # Errors
    /// Bytes that are no ACL.
    pub fn parse(bytes: &[u8]) -> Result<Self, AclError> {
        let sexp = Sexp::parse(bytes).map_err(AclError::Sexp)?;
        let Some([token, entries @ ..]) = sexp.as_list() else { return Err(AclError::Form) };
        if token.as_atom() != Some(b"acl") {
            return Err(AclError::Form);
        }
        let tag = tag();
        let key = |entry: &Sexp| match entry.as_list() {
            Some([token, key, last]) if token.as_atom() == Some(b"entry") && *last == tag => Ok(key.clone()),
            _ => Err(AclError::Form),
        };
        Ok(Self { keys: entries.iter().map(key).collect::<Result<_, _>>()? })
    }

    /// Adds a key in front, as `guix archive --authorize` does, unless it is there.
    pub fn authorize(&mut self, key: &PublicKey) {
        if !self.contains(key.as_sexp()) {
            self.keys.insert(0, key.as_sexp().clone());
        }
    }

    /// Tells whether a key's whole expression is that of an entry.
    pub fn contains(&self, key: &Sexp) -> bool {
        self.keys.contains(key)
    }

    /// Gives the expressions of the keys.
    pub fn keys(&self) -> &[Sexp] {
        &self.keys
    }
}

impl FromIterator<PublicKey> for Acl {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        Self { keys: keys.into_iter().map(|key| key.as_sexp().clone()).collect() }
    }
}

impl fmt::Display for Acl {
    /// Writes the text of an ACL file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = |key: &Sexp| Sexp::list([Sexp::atom("entry"), key.clone(), tag()]);
        let sexp = Sexp::list([Sexp::atom("acl")].into_iter().chain(self.keys.iter().map(entry)));
        f.write_str(&sexp.to_advanced_text())
    }
}
