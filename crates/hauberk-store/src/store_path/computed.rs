//! Store paths computed from what they name.
//!
//! A path's hash part is a SHA-256 folded to 20 bytes, over `KIND:sha256:HASH:DIRECTORY:NAME`.

use std::collections::BTreeSet;

use super::{StorePath, StorePathError};
use crate::{
    derivation::OutputName,
    hash::{Algorithm, Hash, Sha256},
    store_directory::StoreDirectory,
};

/// What an item added to a store refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Other items.
    pub others: BTreeSet<StorePath>,
    /// Whether it refers to itself.
    pub itself: bool,
}

impl StorePath {
    /// Computes the path of an item of the given kind.
    ///
    /// # Errors
    /// A name that stores do not allow.
    fn compute(
        directory: &StoreDirectory,
        kind: &str,
        hash: &Sha256,
        name: &str,
    ) -> Result<Self, StorePathError> {
        super::check_name(name)?;
        let text = format!("{kind}:sha256:{}:{directory}:{name}", hash.to_base16());
        let mut folded = [0; 20];
        for (index, byte) in Sha256::digest(text.as_bytes()).as_bytes().iter().enumerate() {
            folded[index % 20] ^= byte;
        }
        Self::from_digest(directory, &folded, name)
    }

    /// Computes the path of a text such as a `.drv` file: `text`.
    ///
    /// # Errors
    /// A name that stores do not allow.
    pub fn of_text(
        directory: &StoreDirectory,
        name: &str,
        contents: &[u8],
        references: &BTreeSet<Self>,
    ) -> Result<Self, StorePathError> {
        Self::of_sorted_text(directory, name, contents, references)
    }

    /// Computes the path of a text of which only the hash is at hand: `text`.
    ///
    /// # Errors
    /// A name that stores do not allow.
    pub fn of_hashed_text(
        directory: &StoreDirectory,
        name: &str,
        contents: &Sha256,
        references: &BTreeSet<Self>,
    ) -> Result<Self, StorePathError> {
        Self::compute(directory, &with_references("text", references, false), contents, name)
    }

    /// Does as [`Self::of_text`] with references that are sorted.
    pub(crate) fn of_sorted_text<'a>(
        directory: &StoreDirectory,
        name: &str,
        contents: &[u8],
        references: impl IntoIterator<Item = &'a Self>,
    ) -> Result<Self, StorePathError> {
        let kind = with_references("text", references, false);
        Self::compute(directory, &kind, &Sha256::digest(contents), name)
    }

    /// Computes the path of an item added with the hash of its NAR: `source`.
    ///
    /// # Errors
    /// A name that stores do not allow.
    pub fn of_source(
        directory: &StoreDirectory,
        name: &str,
        nar_hash: &Sha256,
        references: &References,
    ) -> Result<Self, StorePathError> {
        let kind = with_references("source", &references.others, references.itself);
        Self::compute(directory, &kind, nar_hash, name)
    }

    /// Computes the path of a derivation's output from the derivation's hash: `output:NAME`.
    ///
    /// # Errors
    /// A name that stores do not allow.
    pub fn of_output(
        directory: &StoreDirectory,
        derivation_name: &str,
        output: &OutputName,
        hash: &Sha256,
    ) -> Result<Self, StorePathError> {
        let name = output_path_name(derivation_name, output);
        Self::compute(directory, &format!("output:{output}"), hash, &name)
    }

    /// Computes the path of an item with a hash known beforehand: `fixed:out:`, or `source` for the SHA-256 of a NAR.
    ///
    /// # Errors
    /// A name that stores do not allow.
    pub fn of_fixed_output(
        directory: &StoreDirectory,
        name: &str,
        recursive: bool,
        hash: &Hash,
    ) -> Result<Self, StorePathError> {
        let algorithm = format!("{}{}", if recursive { "r:" } else { "" }, hash.algorithm());
        Self::of_fixed_text(directory, name, &algorithm, &hash.to_base16())
    }

    /// Does as [`Self::of_fixed_output`] with the words of a derivation, whose algorithm need not be one we compute.
    ///
    /// # Errors
    /// A name that stores do not allow.
    pub(crate) fn of_fixed_text(
        directory: &StoreDirectory,
        name: &str,
        algorithm: &str,
        base16: &str,
    ) -> Result<Self, StorePathError> {
        if algorithm == "r:sha256"
            && let Ok(hash) = Hash::parse_digest(Algorithm::Sha256, base16).and_then(Sha256::try_from)
        {
            return Self::of_source(directory, name, &hash, &References::default());
        }
        let text = format!("fixed:out:{algorithm}:{base16}:");
        Self::compute(directory, "output:out", &Sha256::digest(text.as_bytes()), name)
    }
}

/// Gives the name of an output's path: the derivation's, and the output's unless it is `out`.
pub(crate) fn output_path_name(derivation_name: &str, output: &OutputName) -> String {
    match output.as_str() {
        "out" => derivation_name.to_owned(),
        output => format!("{derivation_name}-{output}"),
    }
}

fn with_references<'a>(kind: &str, others: impl IntoIterator<Item = &'a StorePath>, itself: bool) -> String {
    let mut text = kind.to_owned();
    for path in others {
        text.push(':');
        text.push_str(path.directory().as_str());
        text.push('/');
        text.push_str(path.base_name());
    }
    if itself {
        text.push_str(":self");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Guix's own functions say.
    #[test]
    fn paths_of_every_kind() {
        let directory = StoreDirectory::guix();
        let hash = Sha256::digest(b"vector");
        let none = BTreeSet::new();
        let output = |name: &str| {
            let output = OutputName::parse(name).unwrap();
            StorePath::of_output(&directory, "name", &output, &hash).unwrap().to_string()
        };
        let fixed = |recursive: bool, hash: Hash| {
            StorePath::of_fixed_output(&directory, "name", recursive, &hash).unwrap().to_string()
        };
        assert_eq!(
            StorePath::compute(&directory, "text", &hash, "name").unwrap().to_string(),
            "/gnu/store/7agjmabqkfvb20m6b76dhz88qq30c7rd-name"
        );
        let source = StorePath::of_source(&directory, "name", &hash, &References::default()).unwrap();
        assert_eq!(source.to_string(), "/gnu/store/qyax46s9bj4ax8bwf4wxnflcwcjqb70d-name");
        assert_eq!(output("out"), "/gnu/store/rpmxafv1gm3p2zbl71arcb4dbl4vnbgb-name");
        assert_eq!(output("lib"), "/gnu/store/d2bmpnkxyk418z1qy7cfs7y5xq27qa5i-name-lib");
        assert_eq!(fixed(false, hash.into()), "/gnu/store/mwhj02p5lx250agg5xjg80ccfly9p4vn-name");
        assert_eq!(fixed(true, hash.into()), "/gnu/store/qyax46s9bj4ax8bwf4wxnflcwcjqb70d-name");
        assert_eq!(
            fixed(false, Algorithm::Sha512.hash(b"vector")),
            "/gnu/store/vbamc9ic6llmpmdrasd4h9fxn5ivhs4v-name"
        );
        let sha1 = Hash::parse_digest(Algorithm::Sha1, "027c1146b1b8f9274e5a4cfd7a959e328a326cd6").unwrap();
        assert_eq!(fixed(true, sha1), "/gnu/store/ckxxx30pwmq1j04xrc3afnynhmvb86g2-name");
        assert!(StorePath::of_text(&directory, ".x", b"", &none).is_err());
    }
}
