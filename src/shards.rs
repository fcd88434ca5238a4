//! A hash map that is copied by the shard: a clone costs nothing, and a change costs one shard and the list of shards.
//!
//! Linear hashing (Litwin, "Linear Hashing: A new tool for file and table addressing", VLDB 1980): the map grows by
//! splitting one shard at a time and shrinks by joining one, so that no single change ever pays for a whole table.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use crate::hash::Seeded;

/// Entries of a shard, on average, above which one is split. A change copies a shard, so it is small; the list of
/// shards is copied, too, so it is not too small.
const SPLIT_ABOVE: usize = 256;

/// Entries of a shard, on average, below which two are joined.
const JOIN_BELOW: usize = 64;

type Shard<K, V> = HashMap<K, V, Seeded>;

/// A map from small keys to small values.
#[derive(Clone, Debug)]
pub(crate) struct Shards<K, V> {
    shards: Arc<Vec<Arc<Shard<K, V>>>>,
    len: usize,
    seed: Seeded,
}

/// The shard, of `shards`, for a hash.
#[inline]
fn place(hash: u64, shards: usize) -> usize {
    // Not the bits by which the shard's own table goes, the lowest and the topmost.
    let hash = (hash >> 28) as usize;
    let mask = shards.next_power_of_two() - 1;
    let place = hash & mask;
    // Those that were not split yet stand for their other half, too.
    if place < shards { place } else { hash & (mask >> 1) }
}

impl<K: Copy + Eq + Hash, V: Clone> Shards<K, V> {
    pub(crate) fn new(seed: u64) -> Self {
        let seed = Seeded(seed);
        Self { shards: Arc::new(vec![Arc::new(HashMap::with_hasher(seed))]), len: 0, seed }
    }

    #[inline]
    fn place(&self, key: &K) -> usize {
        place(self.seed.hash_one(key), self.shards.len())
    }

    /// Number of entries.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let shards = &**self.shards;
        // A small table is one shard, and which one needs no hash.
        let shard = if let [shard] = shards { shard } else { &shards[self.place(key)] };
        shard.get(key)
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key, to be changed.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.get(key)?;
        let place = self.place(key);
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[place]).get_mut(key)
    }

    /// Adds or replaces an entry, and returns the value before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let place = self.place(&key);
        let old = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[place]).insert(key, value);
        if old.is_none() {
            self.len += 1;
            if self.len > self.shards.len() * SPLIT_ABOVE {
                self.split();
            }
        }
        old
    }

    /// Removes an entry and returns its value.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.get(key)?;
        let place = self.place(key);
        let old = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[place]).remove(key);
        self.len -= usize::from(old.is_some());
        if self.shards.len() > 1 && self.len < self.shards.len() * JOIN_BELOW {
            self.join();
        }
        old
    }

    /// Keeps the entries for which `keep` says so. Reads all of them, and copies the shards that lose one.
    pub(crate) fn retain(&mut self, keep: impl Fn(&K, &V) -> bool) {
        for place in 0..self.shards.len() {
            if self.shards[place].iter().any(|(key, value)| !keep(key, value)) {
                let shard = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[place]);
                let before = shard.len();
                shard.retain(|key, value| keep(key, value));
                self.len -= before - shard.len();
            }
        }
        while self.shards.len() > 1 && self.len < self.shards.len() * JOIN_BELOW {
            self.join();
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Moves half of the next shard in turn into a new one.
    fn split(&mut self) {
        let shards = Arc::make_mut(&mut self.shards);
        let new = shards.len();
        // The new place differs from the old one in its topmost bit.
        let old = new - (1 << new.ilog2());
        let seed = self.seed;
        let moves = |key: &K| place(seed.hash_one(key), new + 1) == new;
        let shard = Arc::make_mut(&mut shards[old]);
        let mut moved = HashMap::with_capacity_and_hasher(shard.len() / 2, seed);
        moved.extend(shard.extract_if(|key, _| moves(key)));
        shards.push(Arc::new(moved));
    }

    /// Takes the last split back.
    fn join(&mut self) {
        let shards = Arc::make_mut(&mut self.shards);
        let Some(last) = shards.pop() else { return };
        let new = shards.len();
        let shard = Arc::make_mut(&mut shards[new - (1 << new.ilog2())]);
        shard.extend(last.iter().map(|(key, value)| (*key, value.clone())));
        shard.shrink_to(2 * SPLIT_ABOVE);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_grows_and_shrinks_by_the_shard() {
        let mut map = Shards::new(7);
        for n in 0..100_000_u64 {
            assert_eq!(map.insert(n, n), None);
        }
        let shards = map.shards.len();
        assert_eq!(shards, 100_000_usize.div_ceil(SPLIT_ABOVE));
        let largest = map.shards.iter().map(|shard| shard.len()).max().unwrap();
        assert!(largest < 4 * SPLIT_ABOVE, "{largest} in one shard");
        let before = map.clone();
        assert_eq!(map.insert(5, 6), Some(5));
        let shared = before.shards.iter().zip(&**map.shards).filter(|(a, b)| Arc::ptr_eq(a, b));
        assert_eq!(shared.count(), shards - 1, "one shard was copied");
        for n in 0..100_000 {
            assert!(map.remove(&n).is_some());
        }
        assert_eq!((map.len(), map.iter().count(), map.shards.len()), (0, 0, 1));
        assert_eq!((before.len(), before.get(&5)), (100_000, Some(&5)));
    }

    proptest! {
        /// It agrees with a plain map, and a clone with what the map was when it was cloned.
        #[test]
        fn agrees_with_a_hash_map(
            size in prop_oneof![Just(40_u32), Just(3000)],
            steps in prop::collection::vec((any::<u32>(), any::<Option<u16>>()), 0..3000),
            dropped in 1_u16..9,
        ) {
            let mut map = Shards::new(3);
            let mut model = HashMap::new();
            let (mut old, mut old_model) = (map.clone(), model.clone());
            for (place, (key, value)) in steps.into_iter().enumerate() {
                if place % 1000 == 999 {
                    (old, old_model) = (map.clone(), model.clone());
                }
                let key = key % size;
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                if let Some(value) = map.get_mut(&(key / 2)) {
                    *value = value.wrapping_add(1);
                }
                if let Some(value) = model.get_mut(&(key / 2)) {
                    *value = value.wrapping_add(1);
                }
                prop_assert_eq!(map.len(), model.len());
            }
            for (map, model) in [(&map, &model), (&old, &old_model)] {
                let listed: HashMap<u32, u16> = map.iter().map(|(key, value)| (*key, *value)).collect();
                prop_assert_eq!(&listed, model);
                prop_assert!((0..size).all(|key| map.get(&key) == model.get(&key)));
            }
            map.retain(|_, value| value % dropped == 0);
            model.retain(|_, value| *value % dropped == 0);
            prop_assert_eq!(map.len(), model.len());
            prop_assert!((0..size).all(|key| map.get(&key) == model.get(&key)));
        }
    }
}
