//! Names of compressions.

use std::{borrow::Cow, fmt};

/// How the bytes of a NAR are compressed on a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// `gzip`.
    Gzip,
    /// `zstd`.
    Zstd,
    /// `lzip`; Guix only.
    Lzip,
    /// `xz`; Nix only.
    Xz,
    /// `bzip2`; Nix only, and what it assumes when a narinfo says nothing.
    Bzip2,
    /// `br`; Nix only.
    Brotli,
    /// Any other.
    Other(Cow<'static, str>),
}

impl Compression {
    /// Reads a name; every text is one.
    pub fn parse(name: &str) -> Self {
        match name {
            "none" => Self::None,
            "gzip" => Self::Gzip,
            "zstd" => Self::Zstd,
            "lzip" => Self::Lzip,
            "xz" => Self::Xz,
            "bzip2" => Self::Bzip2,
            "br" => Self::Brotli,
            other => Self::Other(other.to_owned().into()),
        }
    }

    /// Gives the name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Lzip => "lzip",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
            Self::Brotli => "br",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
