//! Narinfo: what a substitute server says of one store item, in Nix's dialect and in Guix's.

mod compression;
mod guix;
mod parse;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt};

pub use compression::Compression;
pub use guix::GuixNarInfoError;
pub use parse::{MAX_LINE, MAX_REFERENCES, MAX_SIZE, NarInfoError};

use crate::{
    hash::{Hash, NarHash},
    signature::{guix::SignatureLine, nix},
    store_directory::StoreDirectory,
    store_path::StorePath,
};

/// One place a NAR can be had from; Guix's narinfos have one per compression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarUrl {
    /// Relative to the narinfo's server, or absolute.
    pub url: String,
    /// How the bytes there are compressed.
    pub compression: Compression,
    /// Their number, where it is known.
    pub file_size: Option<u64>,
    /// Their hash, where it is known; Guix gives none.
    pub file_hash: Option<Hash>,
}

/// Describes a store item on a substitute server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarInfo {
    /// The item.
    pub store_path: StorePath,
    /// Where its NAR is, in the server's order; at least one.
    pub urls: Vec<NarUrl>,
    /// The hash of the uncompressed NAR.
    pub nar_hash: NarHash,
    /// The size of the uncompressed NAR, in bytes.
    pub nar_size: u64,
    /// What the item refers to, perhaps itself among them.
    pub references: BTreeSet<StorePath>,
    /// The derivation that made it.
    pub deriver: Option<StorePath>,
    /// The system it was built for; old servers say it.
    pub system: Option<String>,
    /// Nix's signatures (`Sig`), in the order given.
    pub signatures: Vec<nix::Signature>,
    /// The content address of an item that has one.
    pub ca: Option<String>,
    /// Fields that have no meaning here, in the order given.
    pub unknown: Vec<(String, String)>,
    /// Guix's signature (`Signature`), which stands after everything it covers.
    pub guix_signature: Option<SignatureLine>,
}

impl NarInfo {
    /// Reads a narinfo of the store `directory`, in either dialect.
    ///
    /// # Errors
    /// A text larger than [`MAX_SIZE`], malformed, without a field that is needed, or with one given twice.
    pub fn parse(directory: &StoreDirectory, text: &str) -> Result<Self, NarInfoError> {
        parse::parse(directory, text)
    }

    /// Gives the text Nix signs: `1;PATH;NARHASH;NARSIZE;REFERENCES`, the references sorted and with full paths.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.store_path, &self.nar_hash, self.nar_size, &self.references)
    }

    /// Adds a signature of `key` over the fingerprint; one of the same name is replaced.
    pub fn sign(&mut self, key: &nix::SecretKey) {
        let signature = key.sign(&self.fingerprint());
        self.signatures.retain(|other| other.name() != signature.name());
        self.signatures.push(signature);
    }

    /// Gives the first of `keys` with a valid signature among the `Sig` lines.
    pub fn verify<'k>(&self, keys: &'k [nix::PublicKey]) -> Option<&'k nix::PublicKey> {
        let fingerprint = self.fingerprint();
        keys.iter().find(|key| self.signatures.iter().any(|signature| key.verify(&fingerprint, signature)))
    }
}

/// Gives the text Nix signs for a store item: `1;PATH;NARHASH;NARSIZE;REFERENCES`.
pub fn fingerprint(
    path: &StorePath,
    nar_hash: &NarHash,
    nar_size: u64,
    references: &BTreeSet<StorePath>,
) -> String {
    let mut text = format!("1;{path};{nar_hash};{nar_size};");
    for (index, reference) in references.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(reference.directory().as_str());
        text.push('/');
        text.push_str(reference.base_name());
    }
    text
}

impl fmt::Display for NarInfo {
    /// Writes the fields in the order Nix and Guix write them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "StorePath: {}", self.store_path)?;
        for url in &self.urls {
            writeln!(f, "URL: {}\nCompression: {}", url.url, url.compression)?;
            if let Some(hash) = &url.file_hash {
                writeln!(f, "FileHash: {hash}")?;
            }
            if let Some(size) = url.file_size {
                writeln!(f, "FileSize: {size}")?;
            }
        }
        writeln!(f, "NarHash: {}\nNarSize: {}", self.nar_hash, self.nar_size)?;
        f.write_str("References: ")?;
        for (index, reference) in self.references.iter().enumerate() {
            f.write_str(if index > 0 { " " } else { "" })?;
            f.write_str(reference.base_name())?;
        }
        f.write_str("\n")?;
        if let Some(deriver) = &self.deriver {
            writeln!(f, "Deriver: {}", deriver.base_name())?;
        }
        if let Some(system) = &self.system {
            writeln!(f, "System: {system}")?;
        }
        for signature in &self.signatures {
            writeln!(f, "Sig: {signature}")?;
        }
        if let Some(ca) = &self.ca {
            writeln!(f, "CA: {ca}")?;
        }
        for (name, value) in &self.unknown {
            writeln!(f, "{name}: {value}")?;
        }
        self.guix_signature.as_ref().map_or(Ok(()), |line| writeln!(f, "Signature: {line}"))
    }
}
