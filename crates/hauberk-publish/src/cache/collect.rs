//! Removing items from a cache: what may go, what must, and how.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    time::SystemTime,
};

use hauberk_store::{StorePath, StorePathHash};

use super::{directory::Cache, error::CacheError, reader::CacheReader};
use crate::push::MARK;

/// An item as it lies in a cache.
#[derive(Debug, Clone)]
pub struct StoredItem {
    /// The item.
    pub path: StorePath,
    /// What it refers to, itself left out.
    pub references: Vec<StorePathHash>,
    /// Bytes of its narinfo and its nar files. Files that several items share are counted for each.
    pub bytes: u64,
    /// When it came or was last downloaded, whichever is later.
    pub used_at: SystemTime,
    /// Whether it came by a push: a derivation, or a source of one.
    pub pushed: bool,
    /// When it was last looked for by those who push, or came.
    pub noted_at: SystemTime,
}

/// How firmly an item is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// It goes.
    None,
    /// It stays unless there is no room.
    Weak,
    /// It stays.
    Firm,
}

/// What is removed from a cache.
#[derive(Debug, Clone, Default)]
pub struct Collection {
    /// Places of the items, each before all it refers to.
    pub remove: Vec<usize>,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Bytes of what stays.
    pub left_bytes: u64,
}

impl Collection {
    /// Chooses what goes: what nothing holds, and then, as long as more than `limit` bytes would stay, what is held weakly, the least recently used
    /// first. Whatever an item that stays refers to, stays; and an item counts as used when one that refers to it was.
    pub fn plan(items: &[StoredItem], hold: impl Fn(&StoredItem) -> Hold, limit: Option<u64>) -> Self {
        let places: HashMap<StorePathHash, usize> =
            items.iter().enumerate().map(|(place, item)| (item.path.hash(), place)).collect();
        let order = referrers_first(items, &places);
        let mut holds: Vec<Hold> = items.iter().map(hold).collect();
        let mut used: Vec<SystemTime> = items.iter().map(|item| item.used_at).collect();
        for &place in &order {
            for below in items[place].references.iter().filter_map(|hash| places.get(hash)) {
                holds[*below] = holds[*below].max(holds[place]);
                used[*below] = used[*below].max(used[place]);
            }
        }
        let mut left: u64 = items.iter().map(|item| item.bytes).sum();
        let total = left;
        let mut chosen = vec![false; items.len()];
        let mut choose = |place: usize, left: &mut u64| {
            chosen[place] = true;
            *left -= items[place].bytes;
        };
        let rank: HashMap<usize, usize> =
            order.iter().enumerate().map(|(rank, &place)| (place, rank)).collect();
        for &place in order.iter().filter(|&&place| holds[place] == Hold::None) {
            choose(place, &mut left);
        }
        if let Some(limit) = limit {
            let mut weak: Vec<usize> =
                order.iter().copied().filter(|&place| holds[place] == Hold::Weak).collect();
            // Of those used at the same time, what refers to others goes before them.
            weak.sort_by_key(|place| (used[*place], rank[place]));
            for place in weak {
                if left <= limit {
                    break;
                }
                choose(place, &mut left);
            }
        }
        let remove = order.into_iter().filter(|&place| chosen[place]).collect();
        Self { remove, removed_bytes: total - left, left_bytes: left }
    }
}

/// Places of the items, each before all it refers to. References are without cycles but for references to itself.
fn referrers_first(items: &[StoredItem], places: &HashMap<StorePathHash, usize>) -> Vec<usize> {
    let below = |place: usize| items[place].references.iter().filter_map(|hash| places.get(hash).copied());
    let mut referrers = vec![0_usize; items.len()];
    for place in 0..items.len() {
        below(place).for_each(|reference| referrers[reference] += 1);
    }
    let mut order: Vec<usize> = (0..items.len()).filter(|&place| referrers[place] == 0).collect();
    let mut next = 0;
    while let Some(&place) = order.get(next) {
        next += 1;
        for reference in below(place) {
            referrers[reference] -= 1;
            if referrers[reference] == 0 {
                order.push(reference);
            }
        }
    }
    // What is on a cycle, which no store makes, comes last.
    let seen: HashSet<usize> = order.iter().copied().collect();
    order.extend((0..items.len()).filter(|place| !seen.contains(place)));
    order
}

impl CacheReader {
    /// Gives all items of the cache. A narinfo that is malformed is left out; [`Cache::verify`] tells of it.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn inventory(&self) -> Result<Vec<StoredItem>, CacheError> {
        let mut items = Vec::new();
        for hash in self.hashes()? {
            let narinfo = match self.narinfo(&hash) {
                Ok(Some(narinfo)) if narinfo.store_path.hash() == hash => narinfo,
                Ok(_) | Err(CacheError::NarInfo { .. }) => continue,
                Err(error) => return Err(error),
            };
            let path = self.narinfo_path(&hash);
            let Some(metadata) =
                metadata(path.symlink_metadata()).map_err(CacheError::io("look at", &path))?
            else {
                continue;
            };
            let (mut bytes, mut used_at) = (metadata.len(), used(&metadata));
            let noted_at = used_at;
            for place in &narinfo.urls {
                if let Some(name) = place.url.strip_prefix("nar/")
                    && let Ok((_, metadata)) = self.open_nar(name)
                {
                    bytes += metadata.len();
                    used_at = used_at.max(used(&metadata));
                }
            }
            let references = narinfo.references.iter().map(StorePath::hash).filter(|other| *other != hash);
            items.push(StoredItem {
                references: references.collect(),
                path: narinfo.store_path,
                bytes,
                used_at,
                pushed: narinfo.unknown.iter().any(|(name, _)| name == MARK),
                noted_at,
            });
        }
        Ok(items)
    }
}

fn metadata(found: io::Result<fs::Metadata>) -> io::Result<Option<fs::Metadata>> {
    match found {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// When a file came or was served last: the server keeps that as the time of its change, as times of access change with every look at it.
fn used(metadata: &fs::Metadata) -> SystemTime {
    metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Cache {
    /// Removes items, in the order given: first their narinfos, so that nobody is led to a nar that goes, and then the nars that no other item
    /// has. It may be in use meanwhile: what comes in waits. Gives the number of bytes of the nars removed.
    ///
    /// # Errors
    /// Files that cannot be read or removed.
    pub fn remove(&self, hashes: &[StorePathHash]) -> Result<u64, CacheError> {
        let _alone = self.alone()?;
        self.remove_alone(hashes)
    }

    /// Does as [`Self::remove`] with items that came by pushes, until one of them has been looked for since they were listed: somebody is about to
    /// need it, and with it what it refers to, which stands behind it. Gives the number of items removed, too; when that is less than all,
    /// what is needed is to be looked at again.
    ///
    /// # Errors
    /// As there.
    pub fn remove_unused(&self, items: &[&StoredItem]) -> Result<(usize, u64), CacheError> {
        let _alone = self.alone()?;
        let mut hashes = Vec::with_capacity(items.len());
        for item in items {
            let path = self.reader().narinfo_path(&item.path.hash());
            let found = metadata(path.symlink_metadata()).map_err(CacheError::io("look at", &path))?;
            if found.is_some_and(|found| used(&found) != item.noted_at) {
                break;
            }
            hashes.push(item.path.hash());
        }
        let bytes = self.remove_alone(&hashes)?;
        Ok((hashes.len(), bytes))
    }

    /// Removes items while nobody brings any in.
    fn remove_alone(&self, hashes: &[StorePathHash]) -> Result<u64, CacheError> {
        let reader = self.reader();
        let mut nars = HashSet::new();
        for hash in hashes {
            match reader.narinfo(hash) {
                Ok(Some(narinfo)) => {
                    let names = narinfo.urls.iter().filter_map(|place| place.url.strip_prefix("nar/"));
                    nars.extend(names.map(str::to_owned));
                }
                Ok(None) => continue,
                // Whatever it named is an orphan then.
                Err(CacheError::NarInfo { .. }) => {}
                Err(error) => return Err(error),
            }
            let path = reader.narinfo_path(hash);
            fs::remove_file(&path).map_err(CacheError::io("remove", &path))?;
        }
        if nars.is_empty() {
            return Ok(0);
        }
        let directory = File::open(reader.directory()).and_then(|directory| directory.sync_all());
        directory.map_err(CacheError::io("sync", reader.directory()))?;
        for hash in reader.hashes()? {
            if let Ok(Some(narinfo)) = reader.narinfo(&hash) {
                for place in &narinfo.urls {
                    place.url.strip_prefix("nar/").map(|name| nars.remove(name));
                }
            }
        }
        let mut bytes = 0;
        for name in nars {
            let Ok((_, metadata)) = reader.open_nar(&name) else { continue };
            let path = reader.directory().join("nar").join(&name);
            fs::remove_file(&path).map_err(CacheError::io("remove", &path))?;
            bytes += metadata.len();
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn item(name: &str, references: &[&StoredItem], bytes: u64, day: u64) -> StoredItem {
        let digest = hauberk_store::Sha256::digest(name.as_bytes());
        let mut hash = [0; 20];
        hash.copy_from_slice(&digest.as_bytes()[..20]);
        StoredItem {
            path: StorePath::from_digest(&hauberk_store::StoreDirectory::nix(), &hash, name).unwrap(),
            references: references.iter().map(|item| item.path.hash()).collect(),
            bytes,
            used_at: SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400),
            pushed: false,
            noted_at: SystemTime::UNIX_EPOCH,
        }
    }

    fn names(items: &[StoredItem], plan: &Collection) -> Vec<String> {
        plan.remove.iter().map(|&place| items[place].path.name().to_owned()).collect()
    }

    #[test]
    fn what_stays_keeps_what_it_refers_to() {
        let library = item("library", &[], 10, 1);
        let data = item("data", &[], 5, 1);
        let program = item("program", &[&library], 20, 2);
        let other = item("other", &[&library, &data], 30, 3);
        let items = [library, data, program, other];
        let hold = |item: &StoredItem| if item.path.name() == "program" { Hold::Firm } else { Hold::None };
        let plan = Collection::plan(&items, hold, None);
        assert_eq!(names(&items, &plan), ["other", "data"]);
        assert_eq!((plan.removed_bytes, plan.left_bytes), (35, 30));
    }

    #[test]
    fn the_least_recently_used_makes_room_and_nothing_is_left_without_what_it_needs() {
        let library = item("library", &[], 10, 1);
        let old = item("old", &[&library], 10, 2);
        let recent = item("recent", &[&library], 10, 9);
        let middle = item("middle", &[], 10, 5);
        let firm = item("firm", &[], 10, 0);
        let items = [firm, library, middle, old, recent];
        let hold = |item: &StoredItem| if item.path.name() == "firm" { Hold::Firm } else { Hold::Weak };
        let plan = |limit| names(&items, &Collection::plan(&items, hold, Some(limit)));
        assert!(plan(50).is_empty());
        assert_eq!(plan(40), ["old"]);
        assert_eq!(
            plan(30).iter().map(String::as_str).collect::<HashSet<_>>(),
            HashSet::from(["old", "middle"])
        );
        // The library was used when what refers to it was.
        assert!(!plan(30).contains(&"library".to_owned()));
        let rest = plan(0);
        assert_eq!(rest.len(), 4, "what is held firmly stays: {rest:?}");
        let place = |name: &str| rest.iter().position(|other| other == name).unwrap();
        assert!(place("recent") < place("library") && place("old") < place("library"));
    }
}
