//! The memory of the table: cache-line buckets of four entries, and where a key may be in them.

use std::array;
use std::num::NonZeroU32;

use prefetch_index::prefetch_index;

use crate::hash::mix;
use crate::sync::{AtomicU64, Ordering, zeroed_words};

use super::entry::{Slot, Value};

/// Entries in a bucket.
pub(super) const WAYS: usize = 4;

/// Words of a bucket: the keys of its entries, then their values, 64 bytes in all.
const WORDS: usize = 2 * WAYS;

/// Of this many slots, 7 are to be filled at full load; then hardly any bucket overflows, and nine entries of ten are
/// in their first bucket.
const SLOTS_FOR_SEVEN: usize = 10;

/// Odd numbers with half of their bits set and no pattern (digits of the fractions of e and pi).
const FACTORS: [u64; 2] = [0xb7e1_5162_8aed_2a6b, 0x243f_6a88_85a3_08d3];

type Bucket = [AtomicU64; WORDS];

/// A bucket by number, and the two that a key can be in.
pub(super) type Pair = [usize; 2];

/// What the table is made of.
pub(super) struct Memory {
    words: Box<[AtomicU64]>,
    /// Where the first bucket begins, so that each is one cache line.
    start: usize,
    buckets: usize,
    seed: u64,
}

/// The table as it is worked with.
///
/// It is small and copied, so that who looks up many keys has it in registers: read through a reference it would be
/// read again after each atomic load, one pointer after the other.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    buckets: &'a [Bucket],
    seed: u64,
}

/// Which slot of a bucket has a key; to be confirmed, for slots change hands.
#[inline(always)]
fn way(bucket: &Bucket, key: u64) -> Option<usize> {
    // All four at once: which one it is cannot be foreseen, so a branch for each would be a guess.
    let at = |way: usize| u32::from(bucket[way].load(Ordering::Relaxed) == key) << way;
    let ways = (at(0) | at(1)) + (at(2) | at(3));
    NonZeroU32::new(ways).map(|ways| ways.trailing_zeros() as usize)
}

#[inline(always)]
fn slot(bucket: &Bucket, number: usize, way: usize) -> Slot<'_> {
    let way = way % WAYS;
    Slot { number: number * WAYS + way, key: &bucket[way], value: &bucket[WAYS + way] }
}

impl Memory {
    pub(super) fn new(capacity: usize, seed: u64) -> Self {
        let buckets = (capacity * SLOTS_FOR_SEVEN).div_ceil(7 * WAYS).max(1);
        let words = zeroed_words((buckets + 1) * WORDS);
        // Zeroed memory of a greater alignment would have been written to by the allocator; where words are not what
        // they seem, as under loom, any start will do.
        let start = Some(words.as_ptr().align_offset(64)).filter(|start| *start < WORDS);
        Self { start: start.unwrap_or(0), buckets, words, seed }
    }

    /// Number of bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    #[inline(always)]
    pub(super) fn table(&self) -> Table<'_> {
        let buckets = &self.words[self.start..].as_chunks().0[..self.buckets];
        Table { buckets, seed: self.seed }
    }
}

impl<'a> Table<'a> {
    /// Number of buckets.
    pub(super) fn len(self) -> usize {
        self.buckets.len()
    }

    /// `buckets` buckets in a row from the `turn`-th on, around the end, none twice.
    pub(super) fn run(self, turn: u64, buckets: usize) -> impl Iterator<Item = usize> {
        let start = (turn % self.len() as u64) as usize;
        (start..self.len()).chain(0..start).take(buckets)
    }

    /// The bucket that a hash falls on: by its upper half, which is the better mixed.
    #[inline(always)]
    fn bucket_of(self, hash: u64) -> usize {
        (((hash >> 32) * self.buckets.len() as u64) >> 32) as usize
    }

    /// The hash that chooses the first bucket of a key.
    #[inline(always)]
    pub(super) fn hash(self, key: u64) -> u64 {
        // The seed is no factor: there are unlucky ones, such as those near zero and minus one.
        mix(key ^ self.seed, FACTORS[0])
    }

    /// The first bucket of a key.
    #[inline(always)]
    pub(super) fn first(self, hash: u64) -> usize {
        self.bucket_of(hash)
    }

    /// The other one, which can be the same: hashed again, for MACs that count up can share the bits of one
    /// multiplication.
    #[inline(always)]
    pub(super) fn second(self, hash: u64) -> usize {
        self.bucket_of(mix(hash ^ self.seed.rotate_left(32), FACTORS[1]))
    }

    pub(super) fn pair(self, hash: u64) -> Pair {
        [self.first(hash), self.second(hash)]
    }

    /// Asks for a bucket to be brought into the cache.
    #[inline(always)]
    pub(super) fn prefetch(self, bucket: usize) {
        prefetch_index(self.buckets, bucket);
    }

    /// Where a bucket seems to have a key.
    #[inline(always)]
    pub(super) fn find_in(self, bucket: usize, key: u64) -> Option<Slot<'a>> {
        let words = &self.buckets[bucket];
        Some(slot(words, bucket, way(words, key)?))
    }

    /// Where a key seems to be.
    #[inline(always)]
    pub(super) fn find(self, key: u64, hash: u64) -> Option<Slot<'a>> {
        let found = self.find_in(self.first(hash), key);
        // The second is rarely needed, and only then worked out.
        if found.is_some() { found } else { self.find_in(self.second(hash), key) }
    }

    /// The entry of a key.
    #[inline(always)]
    pub(super) fn entry(self, key: u64, hash: u64) -> Option<(Slot<'a>, Value)> {
        let slot = self.find(key, hash)?;
        let (read, value) = slot.read()?;
        (read == key).then_some((slot, value))
    }

    /// A slot by its number.
    pub(super) fn slot(self, number: usize) -> Slot<'a> {
        self.slots_of(number / WAYS)[number % WAYS]
    }

    /// The slots of a bucket.
    pub(super) fn slots_of(self, bucket: usize) -> [Slot<'a>; WAYS] {
        array::from_fn(|way| slot(&self.buckets[bucket], bucket, way))
    }
}
