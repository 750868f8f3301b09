//! The order in which items follow what they refer to.

use std::collections::HashSet;

use hauberk_store::StorePathHash;

use super::{error::CacheError, reader::CacheReader};

/// Items of a cache, each after all it refers to.
#[derive(Debug, Default)]
pub(super) struct Ordered {
    /// Those that the cache has.
    pub(super) items: Vec<StorePathHash>,
    /// Those that are referred to, or were asked for, and are not there.
    pub(super) absent: Vec<StorePathHash>,
}

impl CacheReader {
    /// Gives `roots` and, if `closure` says so, all that they refer to, directly or not. A narinfo that is malformed counts as one without
    /// references: whoever takes the item finds out.
    ///
    /// # Errors
    /// A narinfo that cannot be read.
    pub(super) fn ordered(
        &self,
        roots: impl IntoIterator<Item = StorePathHash>,
        closure: bool,
    ) -> Result<Ordered, CacheError> {
        let roots: Vec<StorePathHash> = roots.into_iter().collect();
        let chosen: HashSet<StorePathHash> = roots.iter().copied().collect();
        let (mut ordered, mut seen) = (Ordered::default(), HashSet::new());
        // An item whose references are still to come, and one whose references have come.
        let mut stack: Vec<(StorePathHash, bool)> =
            roots.into_iter().rev().map(|hash| (hash, false)).collect();
        while let Some((hash, complete)) = stack.pop() {
            if complete {
                ordered.items.push(hash);
                continue;
            }
            if !seen.insert(hash) {
                continue;
            }
            let references = match self.narinfo(&hash) {
                Ok(Some(narinfo)) => narinfo.references,
                Ok(None) => {
                    ordered.absent.push(hash);
                    continue;
                }
                Err(CacheError::NarInfo { .. }) => Default::default(),
                Err(error) => return Err(error),
            };
            stack.push((hash, true));
            let wanted = |hash: &StorePathHash| closure || chosen.contains(hash);
            stack.extend(references.iter().map(|path| path.hash()).filter(wanted).map(|hash| (hash, false)));
        }
        Ok(ordered)
    }
}
