//! Answers that are kept for a moment, because counting costs as much as what is counted.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Keeps values until a moment that each has of its own.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    entries: Mutex<HashMap<K, (Instant, V)>>,
    capacity: usize,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    /// Makes a cache of at most `capacity` values.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: Mutex::new(HashMap::new()), capacity }
    }

    /// Gives a value that is still good.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).filter(|(until, _)| Instant::now() < *until).map(|(_, value)| value.clone())
    }

    /// Keeps a value for a while.
    pub(crate) fn put(&self, key: K, value: V, good_for: Duration) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.capacity {
            let now = Instant::now();
            entries.retain(|_, (until, _)| now < *until);
            if entries.len() >= self.capacity {
                entries.clear();
            }
        }
        entries.insert(key, (Instant::now() + good_for, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_good_for_its_time_and_the_cache_stays_small() {
        let cache = Cache::new(2);
        cache.put(1, "old", Duration::ZERO);
        assert_eq!(cache.get(&1), None);
        cache.put(2, "new", Duration::from_secs(600));
        assert_eq!(cache.get(&2), Some("new"));
        cache.put(3, "newer", Duration::from_secs(600));
        assert_eq!(cache.get(&2), Some("new"));
        cache.put(4, "newest", Duration::from_secs(600));
        assert_eq!(cache.get(&4), Some("newest"));
        assert_eq!(cache.get(&2), None);
    }
}
