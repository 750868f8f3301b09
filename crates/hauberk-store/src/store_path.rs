//! Store paths: `STORE-DIRECTORY/HASH-NAME`.

mod computed;

use std::{cmp::Ordering, fmt, ops::Deref, str::FromStr, sync::Arc};

pub use computed::References;

use crate::{base32, store_directory::StoreDirectory};

/// Characters of a store path's hash part: 20 bytes in nix-base32.
pub const HASH_LENGTH: usize = 32;

/// Longest name, in bytes: a base name must fit in 255 with room for the suffixes daemons add (`.lock`, `.chroot`).
pub const MAX_NAME_LENGTH: usize = 211;

/// Why a text is not a store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorePathError {
    /// The path has no slash, or what stands before the last one is no store directory.
    #[error("`{path}` does not begin with a store directory")]
    NoDirectory {
        /// The text given.
        path: String,
    },
    /// The path lies in another store.
    #[error("`{path}` is not in the store directory {directory}")]
    OtherDirectory {
        /// The text given.
        path: String,
        /// The store it should be in.
        directory: StoreDirectory,
    },
    /// The base name does not begin with 32 nix-base32 digits and a dash.
    #[error("`{base_name}` does not begin with a 32-character hash and a dash")]
    Hash {
        /// The base name given.
        base_name: String,
    },
    /// The name is empty, too long, begins with a dot or has a character stores do not allow.
    #[error("`{name}` is not a store path name")]
    Name {
        /// The name given.
        name: String,
    },
}

/// Shortens a hostile text for an error message.
fn quoted(text: &str) -> String {
    text.chars().take(300).flat_map(char::escape_debug).collect()
}

/// Names a store path: a store directory, a 32-character hash part and a name. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StorePath {
    directory: StoreDirectory,
    base_name: Arc<str>,
}

impl StorePath {
    /// Reads a full path in any store directory; the directory is what stands before the last slash.
    ///
    /// # Errors
    /// A text that is not an absolute store path.
    pub fn parse(full: &str) -> Result<Self, StorePathError> {
        let no_directory = || StorePathError::NoDirectory { path: quoted(full) };
        let (directory, base_name) = full.rsplit_once('/').ok_or_else(no_directory)?;
        let directory = StoreDirectory::parse(directory).map_err(|_| no_directory())?;
        Self::from_base_name(&directory, base_name)
    }

    /// Reads a full path that must lie directly in `directory`.
    ///
    /// # Errors
    /// A path elsewhere, or one that is not a store path.
    pub fn parse_in(directory: &StoreDirectory, full: &str) -> Result<Self, StorePathError> {
        match full.strip_prefix(directory.as_str()).and_then(|rest| rest.strip_prefix('/')) {
            Some(base_name) => Self::from_base_name(directory, base_name),
            None => Err(StorePathError::OtherDirectory { path: quoted(full), directory: directory.clone() }),
        }
    }

    /// Joins `directory` and a base name (`HASH-NAME`).
    ///
    /// # Errors
    /// A base name whose hash or name part is not one.
    pub fn from_base_name(directory: &StoreDirectory, base_name: &str) -> Result<Self, StorePathError> {
        let bytes = base_name.as_bytes();
        let hashed = bytes.len() > HASH_LENGTH
            && bytes[HASH_LENGTH] == b'-'
            && bytes[..HASH_LENGTH].iter().all(|&byte| base32::is_digit(byte));
        if !hashed {
            return Err(StorePathError::Hash { base_name: quoted(base_name) });
        }
        let name = &base_name[HASH_LENGTH + 1..];
        check_name(name)?;
        Ok(Self { directory: directory.clone(), base_name: base_name.into() })
    }

    /// Joins `directory` and a base name that is known to be one.
    pub(crate) fn from_checked(directory: &StoreDirectory, base_name: &str) -> Self {
        Self { directory: directory.clone(), base_name: base_name.into() }
    }

    /// Joins `directory`, the 20 bytes a store path's hash part spells, and a name.
    ///
    /// # Errors
    /// A name that stores do not allow.
    pub fn from_digest(
        directory: &StoreDirectory,
        digest: &[u8; 20],
        name: &str,
    ) -> Result<Self, StorePathError> {
        check_name(name)?;
        let mut base_name = base32::encode(digest);
        base_name.reserve_exact(1 + name.len());
        base_name.push('-');
        base_name.push_str(name);
        Ok(Self { directory: directory.clone(), base_name: base_name.into() })
    }

    /// Gives the store directory.
    pub fn directory(&self) -> &StoreDirectory {
        &self.directory
    }

    /// Gives the 32 characters of the hash part.
    pub fn hash_part(&self) -> &str {
        &self.base_name[..HASH_LENGTH]
    }

    /// Gives the name, without the hash part.
    pub fn name(&self) -> &str {
        &self.base_name[HASH_LENGTH + 1..]
    }

    /// Gives the last component, `HASH-NAME`.
    pub fn base_name(&self) -> &str {
        &self.base_name
    }

    /// Tells whether the name ends in `.drv`.
    pub fn is_derivation(&self) -> bool {
        self.base_name.ends_with(".drv")
    }

    /// Gives the hash part as a key for look-ups.
    pub fn hash(&self) -> StorePathHash {
        let mut hash = [0; HASH_LENGTH];
        hash.copy_from_slice(&self.base_name.as_bytes()[..HASH_LENGTH]);
        StorePathHash(hash)
    }
}

impl PartialOrd for StorePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StorePath {
    /// Orders by directory, then by the bytes of the base name, as both worlds sort references.
    fn cmp(&self, other: &Self) -> Ordering {
        self.directory.cmp(&other.directory).then_with(|| self.base_name.cmp(&other.base_name))
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.directory.as_str())?;
        f.write_str("/")?;
        f.write_str(&self.base_name)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for StorePath {
    type Err = StorePathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Names a derivation: a store path whose name ends in `.drv`. Only such a path can be built.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DrvPath(StorePath);

/// A store path that names no derivation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} is not a derivation: its name does not end in .drv")]
pub struct NotADerivation {
    /// The path given.
    pub path: StorePath,
}

/// Why a text is not the path of a derivation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DrvPathError {
    /// It is no store path.
    #[error(transparent)]
    Path(#[from] StorePathError),
    /// It is one, of something else.
    #[error(transparent)]
    NotADerivation(#[from] NotADerivation),
}

impl DrvPath {
    /// Reads the full path of a derivation in any store directory.
    ///
    /// # Errors
    /// A text that is no store path, or one whose name does not end in `.drv`.
    pub fn parse(full: &str) -> Result<Self, DrvPathError> {
        Ok(Self::try_from(StorePath::parse(full)?)?)
    }

    /// Gives the store path.
    pub fn as_path(&self) -> &StorePath {
        &self.0
    }

    /// Gives the store path.
    pub fn into_path(self) -> StorePath {
        self.0
    }

    /// Gives the name without `.drv`: what outputs are named after.
    pub fn derivation_name(&self) -> &str {
        let name = self.0.name();
        &name[..name.len() - ".drv".len()]
    }
}

impl TryFrom<StorePath> for DrvPath {
    type Error = NotADerivation;

    fn try_from(path: StorePath) -> Result<Self, NotADerivation> {
        if path.is_derivation() { Ok(Self(path)) } else { Err(NotADerivation { path }) }
    }
}

impl From<DrvPath> for StorePath {
    fn from(path: DrvPath) -> Self {
        path.0
    }
}

impl AsRef<StorePath> for DrvPath {
    fn as_ref(&self) -> &StorePath {
        &self.0
    }
}

impl Deref for DrvPath {
    type Target = StorePath;

    fn deref(&self) -> &StorePath {
        &self.0
    }
}

impl fmt::Display for DrvPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for DrvPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for DrvPath {
    type Err = DrvPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// The 32-character hash part of a store path: the key of narinfo look-ups.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePathHash([u8; HASH_LENGTH]);

/// A text that is not the hash part of a store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the 32-character hash part of a store path")]
pub struct InvalidStorePathHash {
    /// The text given, cut after 64 characters.
    pub text: String,
}

impl StorePathHash {
    /// Reads 32 nix-base32 digits.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidStorePathHash> {
        match <[u8; HASH_LENGTH]>::try_from(text.as_bytes()) {
            Ok(hash) if hash.iter().all(|&byte| base32::is_digit(byte)) => Ok(Self(hash)),
            _ => Err(InvalidStorePathHash { text: text.chars().take(64).collect() }),
        }
    }

    /// Gives the 32 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base-32 digits are ASCII")
    }
}

impl fmt::Display for StorePathHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for StorePathHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StorePathHash {
    type Err = InvalidStorePathHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Whether each byte may stand in a store path's name.
const NAME_BYTES: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        allowed[byte] = b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_' | b'?' | b'=');
        byte += 1;
    }
    allowed
};

/// Tells whether `byte` may stand in a store path's name.
pub(crate) const fn is_name_byte(byte: u8) -> bool {
    NAME_BYTES[byte as usize]
}

/// Bytes that are looked at together.
const CHUNK: usize = 16;

/// Tells whether all bytes may stand in a store path's name; written so that they are looked at together.
pub(crate) fn are_name_bytes(bytes: &[u8]) -> bool {
    let all = |chunk: &[u8; CHUNK]| {
        chunk.iter().fold(true, |all, &byte| {
            let digit = byte.wrapping_sub(b'0') < 10;
            let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
            let plus = byte == b'+';
            let dash_or_dot = byte.wrapping_sub(b'-') < 2;
            let other = (byte == b'_') | (byte == b'?') | (byte == b'=');
            all & (digit | letter | plus | dash_or_dot | other)
        })
    };
    match bytes.last_chunk::<CHUNK>() {
        // The last chunk overlaps the one before it.
        Some(last) => bytes.as_chunks::<CHUNK>().0.iter().all(all) && all(last),
        None => bytes.iter().all(|&byte| is_name_byte(byte)),
    }
}

/// Checks a store path's name: 1 to 211 characters of `[0-9A-Za-z+-._?=]`, the first one not a dot.
///
/// # Errors
/// [`StorePathError::Name`] for any other text.
pub fn check_name(name: &str) -> Result<(), StorePathError> {
    let bytes = name.as_bytes();
    let allowed =
        !bytes.is_empty() && bytes.len() <= MAX_NAME_LENGTH && bytes[0] != b'.' && are_name_bytes(bytes);
    if allowed { Ok(()) } else { Err(StorePathError::Name { name: quoted(name) }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIMPLE: &str = "/gnu/store/45rrqddcql46lzs8nma7hncjl4cvy7df-simple.drv";

    #[test]
    fn parts_of_a_path() {
        let path = StorePath::parse(SIMPLE).unwrap();
        assert_eq!(path.to_string(), SIMPLE);
        assert_eq!(path.directory(), &StoreDirectory::guix());
        assert_eq!(path.hash_part(), "45rrqddcql46lzs8nma7hncjl4cvy7df");
        assert_eq!(path.hash().as_str(), path.hash_part());
        assert_eq!(path.name(), "simple.drv");
        assert_eq!(path.base_name(), "45rrqddcql46lzs8nma7hncjl4cvy7df-simple.drv");
        assert!(path.is_derivation());
        let drv: DrvPath = SIMPLE.parse().unwrap();
        assert_eq!(drv.derivation_name(), "simple");
        assert_eq!(drv.as_path(), &path);
        assert_eq!(StorePath::parse_in(&StoreDirectory::guix(), SIMPLE), Ok(path));
        assert!(matches!(
            StorePath::parse_in(&StoreDirectory::nix(), SIMPLE),
            Err(StorePathError::OtherDirectory { .. })
        ));
    }

    #[test]
    fn refuses_what_stores_refuse() {
        let hash = "45rrqddcql46lzs8nma7hncjl4cvy7df";
        let check = |base: &str, good: bool| {
            assert_eq!(StorePath::from_base_name(&StoreDirectory::nix(), base).is_ok(), good, "{base:?}");
        };
        check(&format!("{hash}-a"), true);
        check(&format!("{hash}-{}", "a".repeat(211)), true);
        check(&format!("{hash}-{}", "a".repeat(212)), false);
        check(&format!("{hash}-"), false);
        check(hash, false);
        check(&format!("{hash}-.a"), false);
        check(&format!("{hash}-a b"), false);
        check(&format!("{hash}-a/b"), false);
        check(&format!("{hash}-é"), false);
        check(&format!("{}e-a", &hash[1..]), false);
        check(&format!("{}-a", &hash[1..]), false);
        check(&format!("{hash}+a"), false);
        check("ééééééééééééééééé-a", false);
        for bad in ["", "/", "45rrqddcql46lzs8nma7hncjl4cvy7df-simple", "/gnu/store/", "/gnu/store/x/../y"] {
            assert!(StorePath::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bytes_together_as_one_by_one() {
        for byte in 0..=255 {
            for (before, after) in [(0, 0), (15, 0), (0, 15), (3, 40), (40, 3)] {
                let bytes = [vec![b'a'; before], vec![byte], vec![b'Z'; after]].concat();
                assert_eq!(are_name_bytes(&bytes), is_name_byte(byte), "{byte} {before} {after}");
            }
        }
    }

    #[test]
    fn a_derivation_ends_in_drv() {
        let path = StorePath::parse("/nix/store/45rrqddcql46lzs8nma7hncjl4cvy7df-simple").unwrap();
        assert!(DrvPath::try_from(path).is_err());
    }
}
