//! Closures that are there as a whole, and stay for now.

use std::{collections::HashMap, fs::File, io, time::SystemTime};

use hauberk_store::{StorePath, StorePathHash};

use super::{directory::Cache, error::CacheError};

/// What is known of an item on the way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// What it refers to is being looked at.
    Open,
    /// It is there, with all that it refers to.
    Complete,
    /// It is not there, or something that it refers to is not.
    Incomplete,
}

impl Cache {
    /// Tells which of these items the cache has with all that they refer to, and notes that those are used now, each at once with being
    /// looked at: none of them is removed by a [`remove_unused`](Self::remove_unused) that was decided upon before.
    ///
    /// # Errors
    /// Files that cannot be read, or noted to be used.
    pub(crate) fn keep_closures(&self, roots: &[StorePathHash]) -> Result<Vec<bool>, CacheError> {
        let _nothing_goes = self.shared()?;
        let now = SystemTime::now();
        let mut known: HashMap<StorePathHash, Known> = HashMap::new();
        // An item to be looked at, or one whose references have been.
        let mut stack: Vec<(StorePathHash, Option<Vec<StorePathHash>>)> =
            roots.iter().rev().map(|hash| (*hash, None)).collect();
        while let Some((hash, looked_at)) = stack.pop() {
            if let Some(references) = looked_at {
                let complete =
                    references.iter().all(|reference| known.get(reference) != Some(&Known::Incomplete));
                known.insert(hash, if complete { Known::Complete } else { Known::Incomplete });
                continue;
            }
            if known.contains_key(&hash) {
                continue;
            }
            let Some(narinfo) = self.intact(&hash)? else {
                known.insert(hash, Known::Incomplete);
                continue;
            };
            self.note_use(&hash, now)?;
            known.insert(hash, Known::Open);
            let references: Vec<StorePathHash> =
                narinfo.references.iter().map(StorePath::hash).filter(|other| *other != hash).collect();
            stack.push((hash, Some(references.clone())));
            stack.extend(references.into_iter().map(|reference| (reference, None)));
        }
        Ok(roots.iter().map(|hash| known.get(hash) == Some(&Known::Complete)).collect())
    }

    fn note_use(&self, hash: &StorePathHash, now: SystemTime) -> Result<(), CacheError> {
        let path = self.narinfo_path(hash);
        let noted = File::open(&path).and_then(|file| file.set_modified(now));
        match noted {
            // It is gone on a file system that knows no locks: then it is looked for in vain, as it is without this.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            noted => noted.map_err(CacheError::io("note the use of", &path)),
        }
    }
}
