//! A least-recently-used map bounded by weight instead of by count.

use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

/// A map that forgets what was used longest ago once its entries together
/// weigh more than its limit (in bytes, as estimated by the caller).
pub(crate) struct Bounded<K: Hash + Eq, V> {
    inner: Mutex<Inner<K, V>>,
    limit: usize,
}

struct Inner<K: Hash + Eq, V> {
    map: LruCache<K, (V, usize)>,
    weight: usize,
}

/// What an entry costs beside its own weight, in bytes (links, hash slot).
const ENTRY_OVERHEAD: usize = 96;

impl<K: Hash + Eq, V: Clone> Bounded<K, V> {
    /// An empty map with `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { inner: Mutex::new(Inner { map: LruCache::unbounded(), weight: 0 }), limit }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, now the most recently used.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.lock().map.get(key).map(|(value, _)| value.clone())
    }

    /// Stores a value of `weight` bytes. What is heavier than the whole limit
    /// is not stored.
    pub(crate) fn put(&self, key: K, value: V, weight: usize) {
        let weight = weight.saturating_add(ENTRY_OVERHEAD);
        if weight > self.limit {
            return;
        }
        let mut inner = self.lock();
        if let Some((_, old)) = inner.map.put(key, (value, weight)) {
            inner.weight -= old;
        }
        inner.weight += weight;
        while inner.weight > self.limit {
            let Some((_, (_, dropped))) = inner.map.pop_lru() else { break };
            inner.weight -= dropped;
        }
    }

    /// Changes a value in place, or makes one.
    pub(crate) fn update(&self, key: K, weight: usize, change: impl FnOnce(Option<V>) -> V) {
        let old = self.lock().map.peek(&key).map(|(value, _)| value.clone());
        self.put(key, change(old), weight);
    }

    /// Forgets one entry.
    pub(crate) fn remove(&self, key: &K) {
        let mut inner = self.lock();
        if let Some((_, weight)) = inner.map.pop(key) {
            inner.weight -= weight;
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        inner.map.clear();
        inner.weight = 0;
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().map.len()
    }

    /// The weight of all entries, in bytes.
    #[cfg(test)]
    pub(crate) fn weight(&self) -> usize {
        self.lock().weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_and_weight_is_kept() {
        let map = Bounded::new(3 * (1000 + ENTRY_OVERHEAD));
        for key in 0..3 {
            map.put(key, key, 1000);
        }
        assert_eq!(map.get(&0), Some(0));
        map.put(3, 3, 1000);
        assert_eq!((map.get(&0), map.get(&1), map.len()), (Some(0), None, 3));
        map.put(0, 7, 1);
        map.put(9, 9, 999_999);
        assert_eq!((map.get(&0), map.get(&9)), (Some(7), None));
        map.remove(&0);
        map.remove(&2);
        map.remove(&3);
        assert_eq!(map.weight(), 0);
    }
}
