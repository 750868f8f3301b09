//! A bounded map that forgets what was not asked for lately.

use std::{
    collections::HashMap,
    hash::Hash,
    mem,
    sync::{Mutex, PoisonError},
};

/// Remembers values in two generations: when the young one is full, the old one is dropped. What was looked up since
/// then lives on. Look-ups take constant time.
pub(crate) struct Recent<K, V> {
    generations: Mutex<Generations<K, V>>,
    capacity: usize,
}

struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash + Copy, V: Clone> Recent<K, V> {
    /// Remembers at most twice `capacity` values.
    pub(crate) fn new(capacity: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new() };
        Self { generations: Mutex::new(generations), capacity }
    }

    /// Gives a value, if it is remembered.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = generations.young.get(key) {
            return Some(value.clone());
        }
        let value = generations.old.remove(key)?;
        generations.insert(*key, value.clone(), self.capacity);
        Some(value)
    }

    /// Remembers a value.
    pub(crate) fn insert(&self, key: K, value: V) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.insert(key, value, self.capacity);
    }

    /// Forgets a value.
    pub(crate) fn remove(&self, key: &K) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.remove(key);
        generations.old.remove(key);
    }
}

impl<K: Eq + Hash, V> Generations<K, V> {
    fn insert(&mut self, key: K, value: V, capacity: usize) {
        if self.young.len() >= capacity {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_asked_for() {
        let recent = Recent::new(10);
        recent.insert(0, "kept");
        for key in 1..1000 {
            recent.insert(key, "new");
            assert_eq!(recent.get(&0), Some("kept"));
            let generations = recent.generations.lock().unwrap();
            assert!(generations.young.len() + generations.old.len() <= 20);
        }
        assert_eq!(recent.get(&1), None);
        recent.remove(&0);
        assert_eq!(recent.get(&0), None);
    }
}
