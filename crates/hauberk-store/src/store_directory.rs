//! The directory a store lives in, by which the worlds are told apart.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

/// Names a store directory: an absolute path without a slash at its end. Cloning is cheap.
#[derive(Clone)]
pub struct StoreDirectory(Repr);

#[derive(Clone)]
enum Repr {
    Nix,
    Guix,
    Other(Arc<str>),
}

/// A text that names no store directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a store directory: it must be an absolute path in normal form, like /nix/store")]
pub struct InvalidStoreDirectory {
    /// The text given, cut after 255 characters.
    pub text: String,
}

impl StoreDirectory {
    /// Gives `/nix/store`.
    pub const fn nix() -> Self {
        Self(Repr::Nix)
    }

    /// Gives `/gnu/store`.
    pub const fn guix() -> Self {
        Self(Repr::Guix)
    }

    /// Reads an absolute path without empty, `.` or `..` components, control characters or white space.
    ///
    /// # Errors
    /// Any other text, and one longer than 1024 bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidStoreDirectory> {
        match text {
            "/nix/store" => return Ok(Self::nix()),
            "/gnu/store" => return Ok(Self::guix()),
            _ => {}
        }
        let normal = text.len() <= 1024
            && text.strip_prefix('/').is_some_and(|rest| {
                rest.split('/').all(|part| {
                    !matches!(part, "" | "." | "..")
                        && part.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != ':')
                })
            });
        if normal {
            Ok(Self(Repr::Other(text.into())))
        } else {
            Err(InvalidStoreDirectory { text: text.chars().take(255).collect() })
        }
    }

    /// Gives the path, without a slash at its end.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Nix => "/nix/store",
            Repr::Guix => "/gnu/store",
            Repr::Other(path) => path,
        }
    }
}

impl PartialEq for StoreDirectory {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::Nix, Repr::Nix) | (Repr::Guix, Repr::Guix) => true,
            (Repr::Other(a), Repr::Other(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for StoreDirectory {}

impl PartialOrd for StoreDirectory {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StoreDirectory {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Repr::Nix, Repr::Nix) | (Repr::Guix, Repr::Guix) => Ordering::Equal,
            _ => self.as_str().cmp(other.as_str()),
        }
    }
}

impl Hash for StoreDirectory {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for StoreDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for StoreDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StoreDirectory {
    type Err = InvalidStoreDirectory;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_absolute_paths_only() {
        for good in ["/nix/store", "/gnu/store", "/tmp/a-b/store", "/s"] {
            assert_eq!(StoreDirectory::parse(good).unwrap().to_string(), good);
        }
        for bad in
            ["", "/", "nix/store", "/nix/store/", "/nix//store", "/nix/../store", "/./x", "/a b", "/a\nb"]
        {
            assert!(StoreDirectory::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(StoreDirectory::parse("/gnu/store"), Ok(StoreDirectory::guix()));
        assert_ne!(StoreDirectory::nix(), StoreDirectory::guix());
    }
}
