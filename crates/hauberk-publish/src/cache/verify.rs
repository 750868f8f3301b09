//! Looking after a cache: whether all that it says is so.

use std::{
    collections::HashSet,
    fmt, fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use hauberk_store::{StorePath, StorePathHash, narinfo::NarUrl};

use super::{directory::Cache, error::CacheError};
use crate::{describe::item_nar_url, signer::TrustedKeys};

/// A nar without a narinfo is left alone for so long: it may be on its way in.
const ON_ITS_WAY: Duration = Duration::from_secs(3600);

/// Something in a cache that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A narinfo that cannot be read, or is that of another item.
    NarInfo {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A narinfo that none of the keys given has signed.
    Unsigned {
        /// The item.
        path: StorePath,
    },
    /// A nar that is not there, or not what its narinfo says.
    Nar {
        /// The item.
        path: StorePath,
        /// The file, relative to the cache.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A reference to an item that the cache does not have. Where stores or other servers have it, that is as it should be.
    Dangling {
        /// The item.
        path: StorePath,
        /// What it refers to.
        reference: StorePath,
    },
    /// A file that no narinfo names.
    Orphan {
        /// The file.
        file: PathBuf,
    },
}

impl Finding {
    /// Tells whether the cache is wrong, and not only incomplete.
    pub const fn is_fault(&self) -> bool {
        !matches!(self, Self::Dangling { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NarInfo { file, reason } => write!(f, "{}: {reason}", file.display()),
            Self::Unsigned { path } => write!(f, "{path}: not signed by any of the keys"),
            Self::Nar { path, url, reason } => write!(f, "{path}: {url}: {reason}"),
            Self::Dangling { path, reference } => {
                write!(f, "{path}: refers to {reference}, which is not in the cache")
            }
            Self::Orphan { file } => write!(f, "{}: no narinfo names it", file.display()),
        }
    }
}

/// What to look for, and what to do about it.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    /// Keys one of which must have signed each narinfo; signatures are not looked at without any.
    pub trusted: Option<TrustedKeys>,
    /// Whether narinfos that are false are removed, and files that none names: what they promised is then fetched or packed again.
    pub repair: bool,
}

/// What a verification has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    /// Narinfos.
    pub items: u64,
    /// Bytes of their nar files.
    pub bytes: u64,
    /// Faults.
    pub faults: u64,
    /// References to what the cache does not have.
    pub dangling: u64,
    /// Faults that are gone now.
    pub repaired: u64,
}

impl Cache {
    /// Reads all of the cache and tells `report` what is wrong with it: each narinfo, its signature, the size and hash of its nar
    /// files and of what they hold, references, and files that belong to nothing. It may be in use meanwhile. This takes as long as
    /// reading and unpacking takes, on this thread.
    ///
    /// # Errors
    /// A directory that cannot be read, a file that cannot be removed.
    pub fn verify(
        &self,
        verification: &Verification,
        mut report: impl FnMut(&Finding),
    ) -> Result<Verified, CacheError> {
        let mut seen = Verified::default();
        let mut named = HashSet::new();
        let hashes = self.reader().hashes()?;
        let mut note = |finding: Finding, seen: &mut Verified| {
            match finding.is_fault() {
                true => seen.faults += 1,
                false => seen.dangling += 1,
            }
            report(&finding);
        };
        for hash in &hashes {
            let file = self.narinfo_path(hash);
            let narinfo = match self.narinfo(hash) {
                Ok(Some(narinfo)) if narinfo.store_path.hash() == *hash => narinfo,
                // Removed meanwhile.
                Ok(None) => continue,
                Ok(Some(narinfo)) => {
                    let reason = format!("it is of {}", narinfo.store_path);
                    note(Finding::NarInfo { file: file.clone(), reason }, &mut seen);
                    self.drop_narinfo(hash, verification, &mut seen)?;
                    continue;
                }
                Err(error @ CacheError::NarInfo { .. }) => {
                    let reason = std::error::Error::source(&error)
                        .map_or_else(|| error.to_string(), |source| source.to_string());
                    note(Finding::NarInfo { file: file.clone(), reason }, &mut seen);
                    self.drop_narinfo(hash, verification, &mut seen)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            seen.items += 1;
            let path = &narinfo.store_path;
            if verification.trusted.as_ref().is_some_and(|trusted| !trusted.vouch_for(&narinfo)) {
                note(Finding::Unsigned { path: path.clone() }, &mut seen);
            }
            let mut whole = true;
            // What is packed while it is sent has no file.
            let packed = |place: &&NarUrl| place.url != item_nar_url(&place.compression, path);
            for place in narinfo.urls.iter().filter(packed) {
                match self.reader().read_nar(&narinfo, place, |_| Ok(()), |_| Ok(())) {
                    Ok(bytes) => seen.bytes += bytes,
                    Err(reason) => {
                        whole = false;
                        let (path, url, reason) = (path.clone(), place.url.clone(), reason.to_string());
                        note(Finding::Nar { path, url, reason }, &mut seen);
                    }
                }
            }
            if !whole && verification.repair {
                // The files go with the orphans.
                self.drop_narinfo(hash, verification, &mut seen)?;
                continue;
            }
            named.extend(narinfo.urls.into_iter().map(|place| place.url));
            for reference in narinfo.references.iter().filter(|reference| !hashes.contains(&reference.hash()))
            {
                let (path, reference) = (narinfo.store_path.clone(), reference.clone());
                note(Finding::Dangling { path, reference }, &mut seen);
            }
        }
        for (name, file) in self.reader().nar_files()? {
            if named.contains(&format!("nar/{name}")) {
                continue;
            }
            let changed = file.symlink_metadata().and_then(|metadata| metadata.modified());
            let age = changed.ok().and_then(|changed| SystemTime::now().duration_since(changed).ok());
            if age.is_none_or(|age| age < ON_ITS_WAY) {
                continue;
            }
            note(Finding::Orphan { file: file.clone() }, &mut seen);
            if verification.repair {
                fs::remove_file(&file).map_err(CacheError::io("remove", &file))?;
                seen.repaired += 1;
            }
        }
        Ok(seen)
    }

    fn drop_narinfo(
        &self,
        hash: &StorePathHash,
        verification: &Verification,
        seen: &mut Verified,
    ) -> Result<(), CacheError> {
        if verification.repair {
            let file = self.narinfo_path(hash);
            fs::remove_file(&file).map_err(CacheError::io("remove", &file))?;
            seen.repaired += 1;
        }
        Ok(())
    }
}
