//! `nix-cache-info`: what a substitute server says of itself.

use std::fmt;

use crate::store_directory::{InvalidStoreDirectory, StoreDirectory};

/// Largest text accepted, in bytes; real ones have fewer than a hundred.
pub const MAX_SIZE: usize = 16 * 1024;

/// Describes a substitute server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheInfo {
    /// The store its items belong to.
    pub store_directory: StoreDirectory,
    /// Whether clients may ask for many paths at once.
    pub want_mass_query: bool,
    /// Lower is asked first; absent where the server leaves it to the client.
    pub priority: Option<u32>,
}

/// Why a text is not a `nix-cache-info`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheInfoError {
    /// It is larger than [`MAX_SIZE`].
    #[error("nix-cache-info of {size} bytes is larger than {MAX_SIZE}")]
    TooLarge {
        /// Bytes given.
        size: usize,
    },
    /// A line without a colon, or a value that cannot be read.
    #[error("malformed nix-cache-info line {line}")]
    Line {
        /// Line number, from 1.
        line: usize,
    },
    /// The store directory is not one.
    #[error("malformed StoreDir in nix-cache-info")]
    StoreDirectory(#[source] InvalidStoreDirectory),
    /// There is no `StoreDir` line.
    #[error("nix-cache-info names no StoreDir")]
    NoStoreDirectory,
}

impl CacheInfo {
    /// Reads the text; unknown fields are passed over.
    ///
    /// # Errors
    /// A text that is too large, malformed, or names no store directory.
    pub fn parse(text: &str) -> Result<Self, CacheInfoError> {
        if text.len() > MAX_SIZE {
            return Err(CacheInfoError::TooLarge { size: text.len() });
        }
        let (mut store_directory, mut want_mass_query, mut priority) = (None, false, None);
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let malformed = CacheInfoError::Line { line: index + 1 };
            let Some((name, value)) = line.split_once(':') else { return Err(malformed) };
            let value = value.trim();
            match name.trim() {
                "StoreDir" => {
                    let directory = StoreDirectory::parse(value).map_err(CacheInfoError::StoreDirectory)?;
                    store_directory = Some(directory);
                }
                "WantMassQuery" => want_mass_query = value == "1",
                "Priority" => priority = Some(value.parse().map_err(|_| malformed)?),
                _ => {}
            }
        }
        let store_directory = store_directory.ok_or(CacheInfoError::NoStoreDirectory)?;
        Ok(Self { store_directory, want_mass_query, priority })
    }
}

impl fmt::Display for CacheInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "StoreDir: {}", self.store_directory)?;
        writeln!(f, "WantMassQuery: {}", u8::from(self.want_mass_query))?;
        self.priority.map_or(Ok(()), |priority| writeln!(f, "Priority: {priority}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_guix_publish_says() {
        let text = "StoreDir: /gnu/store\nWantMassQuery: 0\nPriority: 100\n";
        let info = CacheInfo::parse(text).unwrap();
        assert_eq!(info.store_directory, StoreDirectory::guix());
        assert_eq!((info.want_mass_query, info.priority), (false, Some(100)));
        assert_eq!(info.to_string(), text);
    }

    #[test]
    fn refuses_what_says_nothing() {
        assert_eq!(CacheInfo::parse(""), Err(CacheInfoError::NoStoreDirectory));
        assert_eq!(CacheInfo::parse("x"), Err(CacheInfoError::Line { line: 1 }));
        assert!(CacheInfo::parse("StoreDir: relative").is_err());
        assert!(CacheInfo::parse("StoreDir: /s\nPriority: -1").is_err());
        assert_eq!(CacheInfo::parse("StoreDir: /s").unwrap().priority, None);
    }
}
