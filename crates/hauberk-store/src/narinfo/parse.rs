//! Reading narinfos.

use std::collections::BTreeSet;

use super::{Compression, NarInfo, NarUrl};
use crate::{
    hash::{Hash, NarHash, ParseHashError},
    signature::{
        guix::{SignatureLine, SignatureLineError},
        nix,
    },
    store_directory::StoreDirectory,
    store_path::{StorePath, StorePathError},
};

/// Largest text accepted, in bytes: an item with ten thousand references stays below.
pub const MAX_SIZE: usize = 4 * 1024 * 1024;

/// Longest line other than `References`, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// Most references of one item; the largest profiles have a few thousand.
pub const MAX_REFERENCES: usize = 20_000;

/// Most `URL` groups, `Sig` lines, and unknown fields, each.
const MAX_REPEATED: usize = 64;

/// Why a text is not a narinfo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NarInfoError {
    /// It is larger than [`MAX_SIZE`], or has too much of something.
    #[error("narinfo has too much of: {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
    },
    /// A line has no `: ` between name and value.
    #[error("narinfo line {line} is not of the form NAME: VALUE")]
    Line {
        /// Line number, from 1.
        line: usize,
    },
    /// A field that may stand once only stands there again.
    #[error("narinfo field {field} is given twice")]
    Duplicate {
        /// The field's name.
        field: &'static str,
    },
    /// A field that is needed is not there.
    #[error("narinfo has no field {field}")]
    Missing {
        /// The field's name.
        field: &'static str,
    },
    /// A compression, file size or file hash without a URL in front of it.
    #[error("narinfo field {field} stands before any URL")]
    NoUrl {
        /// The field's name.
        field: &'static str,
    },
    /// A number cannot be read.
    #[error("narinfo field {field} is not a number")]
    Number {
        /// The field's name.
        field: &'static str,
    },
    /// A URL is empty or has white space or control characters.
    #[error("malformed URL in narinfo")]
    Url,
    /// A path cannot be read.
    #[error("malformed store path in narinfo field {field}")]
    Path {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: StorePathError,
    },
    /// A hash cannot be read.
    #[error("malformed hash in narinfo field {field}")]
    Hash {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: ParseHashError,
    },
    /// A Guix signature cannot be read.
    #[error("malformed Signature in narinfo")]
    Signature(#[source] SignatureLineError),
}

/// Puts `value` where a field that may stand once is kept.
fn once<T>(slot: &mut Option<T>, field: &'static str, value: T) -> Result<(), NarInfoError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(NarInfoError::Duplicate { field }),
    }
}

fn number(field: &'static str, value: &str) -> Result<u64, NarInfoError> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or(NarInfoError::Number { field })
}

/// A URL's group while its lines are read.
struct UrlGroup {
    url: String,
    compression: Option<Compression>,
    file_size: Option<u64>,
    file_hash: Option<Hash>,
}

#[derive(Default)]
struct Fields {
    store_path: Option<StorePath>,
    urls: Vec<UrlGroup>,
    nar_hash: Option<NarHash>,
    nar_size: Option<u64>,
    references: Option<BTreeSet<StorePath>>,
    deriver: Option<Option<StorePath>>,
    system: Option<String>,
    signatures: Vec<nix::Signature>,
    ca: Option<String>,
    unknown: Vec<(String, String)>,
    guix_signature: Option<SignatureLine>,
}

pub(super) fn parse(directory: &StoreDirectory, text: &str) -> Result<NarInfo, NarInfoError> {
    if text.len() > MAX_SIZE {
        return Err(NarInfoError::TooLarge { what: "bytes" });
    }
    let mut fields = Fields::default();
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once(':').ok_or(NarInfoError::Line { line: index + 1 })?;
        if name.is_empty() || (line.len() > MAX_LINE && name != "References") {
            return Err(NarInfoError::Line { line: index + 1 });
        }
        fields.add(directory, name, value.trim_ascii())?;
    }
    fields.finish()
}

impl Fields {
    fn add(&mut self, directory: &StoreDirectory, name: &str, value: &str) -> Result<(), NarInfoError> {
        match name {
            "StorePath" => {
                let path = StorePath::parse_in(directory, value);
                once(&mut self.store_path, "StorePath", path.map_err(path_error("StorePath"))?)
            }
            "URL" => self.add_url(value),
            "Compression" => {
                let group = self.group("Compression")?;
                once(&mut group.compression, "Compression", Compression::parse(value))
            }
            "FileSize" => {
                once(&mut self.group("FileSize")?.file_size, "FileSize", number("FileSize", value)?)
            }
            "FileHash" => {
                let hash = Hash::parse(value).map_err(hash_error("FileHash"))?;
                once(&mut self.group("FileHash")?.file_hash, "FileHash", hash)
            }
            "NarHash" => {
                let hash = NarHash::parse(value).map_err(hash_error("NarHash"))?;
                once(&mut self.nar_hash, "NarHash", hash)
            }
            "NarSize" => once(&mut self.nar_size, "NarSize", number("NarSize", value)?),
            "References" => once(&mut self.references, "References", references(directory, value)?),
            "Deriver" => {
                let deriver = match value {
                    "" | "unknown-deriver" => None,
                    base => Some(StorePath::from_base_name(directory, base).map_err(path_error("Deriver"))?),
                };
                once(&mut self.deriver, "Deriver", deriver)
            }
            "System" => once(&mut self.system, "System", value.to_owned()),
            "CA" => once(&mut self.ca, "CA", value.to_owned()),
            // A signature of a kind that is not known must not hide the others, as Nix has it.
            "Sig" => match nix::Signature::parse(value) {
                Ok(signature) => push(&mut self.signatures, "Sig", signature),
                Err(_) => push(&mut self.unknown, "unknown fields", (name.to_owned(), value.to_owned())),
            },
            "Signature" => {
                let line = SignatureLine::parse(value).map_err(NarInfoError::Signature)?;
                once(&mut self.guix_signature, "Signature", line)
            }
            _ => push(&mut self.unknown, "unknown fields", (name.to_owned(), value.to_owned())),
        }
    }

    fn add_url(&mut self, value: &str) -> Result<(), NarInfoError> {
        if value.is_empty() || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(NarInfoError::Url);
        }
        let url = value.to_owned();
        push(&mut self.urls, "URL", UrlGroup { url, compression: None, file_size: None, file_hash: None })
    }

    /// Gives the group of the last URL.
    fn group(&mut self, field: &'static str) -> Result<&mut UrlGroup, NarInfoError> {
        self.urls.last_mut().ok_or(NarInfoError::NoUrl { field })
    }

    fn finish(self) -> Result<NarInfo, NarInfoError> {
        let missing = |field| NarInfoError::Missing { field };
        if self.urls.is_empty() {
            return Err(missing("URL"));
        }
        let urls = self.urls.into_iter().map(|group| NarUrl {
            url: group.url,
            compression: group.compression.unwrap_or(Compression::Bzip2),
            file_size: group.file_size,
            file_hash: group.file_hash,
        });
        Ok(NarInfo {
            store_path: self.store_path.ok_or(missing("StorePath"))?,
            urls: urls.collect(),
            nar_hash: self.nar_hash.ok_or(missing("NarHash"))?,
            nar_size: self.nar_size.ok_or(missing("NarSize"))?,
            references: self.references.unwrap_or_default(),
            deriver: self.deriver.flatten(),
            system: self.system,
            signatures: self.signatures,
            ca: self.ca,
            unknown: self.unknown,
            guix_signature: self.guix_signature,
        })
    }
}

fn push<T>(list: &mut Vec<T>, what: &'static str, value: T) -> Result<(), NarInfoError> {
    if list.len() == MAX_REPEATED {
        return Err(NarInfoError::TooLarge { what });
    }
    list.push(value);
    Ok(())
}

fn references(directory: &StoreDirectory, value: &str) -> Result<BTreeSet<StorePath>, NarInfoError> {
    let mut references = BTreeSet::new();
    for base_name in value.split_ascii_whitespace() {
        if references.len() == MAX_REFERENCES {
            return Err(NarInfoError::TooLarge { what: "references" });
        }
        let path = StorePath::from_base_name(directory, base_name);
        references.insert(path.map_err(path_error("References"))?);
    }
    Ok(references)
}

fn path_error(field: &'static str) -> impl Fn(StorePathError) -> NarInfoError {
    move |source| NarInfoError::Path { field, source }
}

fn hash_error(field: &'static str) -> impl Fn(ParseHashError) -> NarInfoError {
    move |source| NarInfoError::Hash { field, source }
}
