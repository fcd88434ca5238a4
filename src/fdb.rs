//! The learned part of a bridge segment's FDB: MAC address → port or VTEP, with ageing and a hard limit.
//!
//! All workers share one table per segment. Looking up takes no lock and writes nothing. Learning a MAC that is
//! where it was known to be costs a lookup, and one store a second to refresh its age. Only a new, moved or removed
//! entry takes the writer lock, and a worker never waits for it: if another worker is writing, this MAC is learned
//! from its next frame.
//!
//! The table is an array of cache-line buckets of four entries; a MAC lives in one of two buckets. It has at
//! least twice as many places as entries it may hold, never grows, and needs no tombstones because a lookup always
//! reads both buckets in full.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::hash::mix;
use crate::segment::Location;
use crate::wire::MacAddr;
use crate::wire::eth::MacNumber;

/// Largest number of learned entries a segment can be configured to hold.
pub const MAX_LIMIT: usize = 1 << 20;

/// Entries in a bucket: four pairs of words fill one 64-byte cache line.
const WAYS: usize = 4;

/// Longest time for one ageing sweep through a table, in seconds.
const MAX_SWEEP_SECONDS: u64 = 60;

/// Marks a key word as used, so that no MAC address looks like an empty place.
const USED: u64 = 1 << 63;

/// An age that no entry reaches.
const NEVER: u64 = 1 << 32;

/// Odd numbers with half of their bits set and no pattern (digits of the fractions of e and pi).
const FACTORS: [u64; 2] = [0xb7e1_5162_8aed_2a6b, 0x243f_6a88_85a3_08d3];

/// What became of an attempt to learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// The MAC was known to be there.
    Known,
    /// The MAC was unknown and is now known.
    New,
    /// The MAC was known elsewhere.
    Moved { from: Location },
    /// The table holds as many entries as it may.
    Full,
    /// Another worker was writing: to be learned from a later frame.
    Later,
}

/// One learned entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LearnedEntry {
    pub(crate) mac: MacAddr,
    pub(crate) location: Location,
    /// Seconds since a frame from this MAC was last seen.
    pub(crate) age: u32,
}

#[derive(Default)]
#[repr(align(64))]
struct Bucket([Entry; WAYS]);

impl Bucket {
    /// Finds a MAC in this bucket.
    #[inline(always)]
    fn find(&self, mac: MacNumber) -> Option<(&Entry, u64)> {
        let key = mac.get() | USED;
        // All four places at once: which one it is cannot be foreseen, so a branch for each would be a guess.
        let place =
            |way: usize| usize::from(self.0[way].key.load(Ordering::Acquire) == key) * (way + 1);
        let entry = self.0.get((place(0) | place(1) | place(2) | place(3)).checked_sub(1)?)?;
        let value = entry.value.load(Ordering::Acquire);
        // Cleared or reused meanwhile: the value may belong to another MAC.
        (entry.key.load(Ordering::Relaxed) == key).then_some((entry, value))
    }
}

/// `key` is the MAC with [`USED`], or 0 for an empty place. `value` is the location above the second in which the
/// MAC was last seen. A writer stores the value before the key and clears the key before reusing the place, so a
/// reader that sees the same key before and after reading the value has the value of that key.
#[derive(Default)]
struct Entry {
    key: AtomicU64,
    value: AtomicU64,
}

/// A learned MAC table.
pub(crate) struct Fdb {
    buckets: Box<[Bucket]>,
    seed: u64,
    limit: usize,
    /// Seconds after which an entry that was not refreshed is forgotten; [`NEVER`] is beyond every second.
    ageing: u64,
    len: AtomicUsize,
    /// Where the next part of the ageing sweep starts.
    swept: AtomicUsize,
    writer: Mutex<()>,
}

impl fmt::Debug for Fdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fdb")
            .field("len", &self.len())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

fn pack(location: Location, second: u32) -> u64 {
    u64::from(location.to_word()) << 32 | u64::from(second)
}

fn unpack(value: u64) -> (Location, u32) {
    (Location::from_word((value >> 32) as u32), value as u32)
}

/// The coarse clock of the table: whole seconds.
pub(crate) fn seconds(now: Duration) -> u32 {
    now.as_secs().min(u64::from(u32::MAX)) as u32
}

impl Fdb {
    pub(crate) fn new(limit: usize, ageing: Option<Duration>, seed: u64) -> Self {
        let limit = limit.min(MAX_LIMIT);
        let buckets = (limit * 2).div_ceil(WAYS).next_power_of_two().max(2);
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            seed,
            limit,
            ageing: ageing.map_or(NEVER, |ageing| seconds(ageing).into()),
            len: AtomicUsize::new(0),
            swept: AtomicUsize::new(0),
            writer: Mutex::new(()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The hash that chooses the first bucket of a MAC.
    #[inline]
    fn first_hash(&self, mac: MacNumber) -> u64 {
        // The seed is no factor: there are unlucky ones, such as those near zero and minus one.
        mix(mac.get() ^ self.seed, FACTORS[0])
    }

    /// The hash that chooses the second one, which can be the same: hashed again, for MACs that count up can share the
    /// bits of one multiplication.
    #[inline]
    fn second_hash(&self, first: u64) -> u64 {
        mix(first ^ self.seed.rotate_left(32), FACTORS[1])
    }

    #[inline]
    fn bucket(&self, hash: u64) -> &Bucket {
        &self.buckets[(hash >> 32) as usize & (self.buckets.len() - 1)]
    }

    /// Finds the place of a MAC and its value. Safe against concurrent writers.
    #[inline]
    fn find(&self, mac: MacNumber) -> Option<(&Entry, u64)> {
        let hash = self.first_hash(mac);
        let found = self.bucket(hash).find(mac);
        // The second is rarely needed, and only then worked out.
        if found.is_some() { found } else { self.bucket(self.second_hash(hash)).find(mac) }
    }

    #[inline]
    fn expired(&self, seen: u32, now: u32) -> bool {
        u64::from(now) >= u64::from(seen) + self.ageing
    }

    /// Where a MAC was last seen, unless that is longer ago than the ageing time.
    #[inline]
    pub(crate) fn lookup(&self, mac: MacNumber, now: u32) -> Option<Location> {
        let (_, value) = self.find(mac)?;
        let (location, seen) = unpack(value);
        (!self.expired(seen, now)).then_some(location)
    }

    /// Whether the table has an entry for a MAC, however old.
    pub(crate) fn contains(&self, mac: MacAddr) -> bool {
        self.find(mac.into()).is_some()
    }

    /// Takes note that a frame from `mac` came from `location` if it was known to be there, and says whether it was.
    #[inline]
    pub(crate) fn refresh(&self, mac: MacNumber, location: Location, now: u32) -> bool {
        let Some((entry, value)) = self.find(mac) else { return false };
        let (known, seen) = unpack(value);
        if known == location && seen < now {
            // A failed exchange means that another worker moved, refreshed or removed the entry: its news is as
            // fresh as ours.
            let fresh = pack(location, now);
            let _ =
                entry.value.compare_exchange(value, fresh, Ordering::Release, Ordering::Relaxed);
        }
        known == location
    }

    /// Takes note that a frame from `mac` came from `location`, wherever it was before.
    pub(crate) fn learn(&self, mac: MacNumber, location: Location, now: u32) -> Learned {
        let Ok(_guard) = self.writer.try_lock() else { return Learned::Later };
        if let Some((entry, value)) = self.find(mac) {
            let (from, seen) = unpack(value);
            entry.value.store(pack(location, now), Ordering::Release);
            return match from {
                // Another worker was faster.
                _ if from == location => Learned::Known,
                // An entry past its time was as good as gone: finding the MAC elsewhere is no move.
                _ if self.expired(seen, now) => Learned::New,
                from => Learned::Moved { from },
            };
        }
        if self.len() >= self.limit {
            return Learned::Full;
        }
        let used = |bucket: &&Bucket| {
            bucket.0.iter().filter(|e| e.key.load(Ordering::Relaxed) != 0).count()
        };
        // The emptier of the two buckets, the first if they are equal, keeps both from filling up.
        let hash = self.first_hash(mac);
        let buckets = [self.bucket(hash), self.bucket(self.second_hash(hash))];
        let bucket = buckets.into_iter().min_by_key(used);
        let free =
            |bucket: &'_ Bucket| bucket.0.iter().position(|e| e.key.load(Ordering::Relaxed) == 0);
        let Some((bucket, place)) = bucket.and_then(|bucket| Some((bucket, free(bucket)?))) else {
            return Learned::Full;
        };
        let entry = &bucket.0[place];
        entry.value.store(pack(location, now), Ordering::Release);
        entry.key.store(mac.get() | USED, Ordering::Release);
        self.len.fetch_add(1, Ordering::Relaxed);
        Learned::New
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // The lock guards no value that a panic could leave half-written: each entry is one store.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the entry of one MAC, if there is one.
    pub(crate) fn forget(&self, mac: MacAddr) {
        let _guard = self.lock();
        if let Some((entry, _)) = self.find(mac.into()) {
            entry.key.store(0, Ordering::Release);
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Removes every entry for which `remove` says so and hands it to `removed`.
    pub(crate) fn remove_if(
        &self,
        now: u32,
        remove: impl FnMut(&LearnedEntry) -> bool,
        removed: impl FnMut(LearnedEntry),
    ) {
        self.remove_from(&self.buckets, now, remove, removed);
    }

    fn remove_from(
        &self,
        buckets: &[Bucket],
        now: u32,
        mut remove: impl FnMut(&LearnedEntry) -> bool,
        mut removed: impl FnMut(LearnedEntry),
    ) {
        let _guard = self.lock();
        for entry in buckets.iter().flat_map(|bucket| &bucket.0) {
            if let Some(learned) = read(entry, now)
                && remove(&learned)
            {
                entry.key.store(0, Ordering::Release);
                self.len.fetch_sub(1, Ordering::Relaxed);
                removed(learned);
            }
        }
    }

    /// Removes entries that were not refreshed for the ageing time from a part of the table, so large that calls once
    /// a second go through all of it in an eighth of the ageing time. Lookups do not trust such entries in any case.
    pub(crate) fn age(&self, now: u32, removed: impl FnMut(LearnedEntry)) {
        if self.ageing == NEVER || self.len() == 0 {
            return;
        }
        let calls = (self.ageing / 8).clamp(1, MAX_SWEEP_SECONDS) as usize;
        let part = self.buckets.len().div_ceil(calls);
        let start = self.swept.load(Ordering::Relaxed) % self.buckets.len();
        let end = (start + part).min(self.buckets.len());
        self.swept.store(end, Ordering::Relaxed);
        let old = |entry: &LearnedEntry| u64::from(entry.age) >= self.ageing;
        self.remove_from(&self.buckets[start..end], now, old, removed);
    }

    /// Entries that have not aged out, in no order.
    pub(crate) fn list(&self, now: u32) -> Vec<LearnedEntry> {
        let _guard = self.lock();
        let entries = self.buckets.iter().flat_map(|bucket| &bucket.0);
        entries
            .filter_map(|entry| read(entry, now))
            .filter(|entry| u64::from(entry.age) < self.ageing)
            .collect()
    }
}

/// Reads a place under the writer lock.
fn read(entry: &Entry, now: u32) -> Option<LearnedEntry> {
    let key = entry.key.load(Ordering::Relaxed);
    if key == 0 {
        return None;
    }
    let (location, seen) = unpack(entry.value.load(Ordering::Relaxed));
    Some(LearnedEntry {
        mac: MacAddr::from_u64(key & !USED),
        location,
        age: now.saturating_sub(seen),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::segment::{PortId, VtepId};

    fn mac(n: u64) -> MacNumber {
        MacAddr::from_u64(0x0200_0000_0000 | n).into()
    }

    fn port(n: u32) -> Location {
        Location::Port(PortId(n))
    }

    fn vtep(n: u32) -> Location {
        Location::Vtep(VtepId(n))
    }

    fn fdb(limit: usize) -> Fdb {
        Fdb::new(limit, Some(Duration::from_secs(300)), 42)
    }

    #[test]
    fn learns_finds_and_moves() {
        let fdb = fdb(16);
        assert_eq!(fdb.lookup(mac(1), 0), None);
        assert_eq!(fdb.learn(mac(1), port(1), 0), Learned::New);
        assert!(fdb.refresh(mac(1), port(1), 0));
        assert!(!fdb.refresh(mac(1), vtep(1), 0) && !fdb.refresh(mac(2), port(1), 0));
        assert_eq!(fdb.learn(mac(1), vtep(1), 5), Learned::Moved { from: port(1) });
        assert_eq!(fdb.lookup(mac(1), 5), Some(vtep(1)));
        assert_eq!(fdb.len(), 1);
    }

    #[test]
    fn a_forgotten_mac_leaves_its_place_to_others() {
        let fdb = fdb(1);
        fdb.learn(mac(1), port(1), 0);
        fdb.forget(mac(2).into());
        assert_eq!(fdb.lookup(mac(1), 0), Some(port(1)));
        fdb.forget(mac(1).into());
        assert_eq!((fdb.lookup(mac(1), 0), fdb.len()), (None, 0));
        assert_eq!(fdb.learn(mac(2), port(1), 0), Learned::New);
    }

    #[test]
    fn an_entry_lives_for_the_ageing_time_after_its_last_frame() {
        let fdb = fdb(16);
        fdb.learn(mac(1), port(1), 0);
        assert!(fdb.refresh(mac(1), port(1), 200));
        assert_eq!(fdb.lookup(mac(1), 499), Some(port(1)));
        assert_eq!(
            fdb.lookup(mac(1), 500),
            None,
            "a lookup does not trust it even before it is swept"
        );
        let mut aged = Vec::new();
        for _ in 0..MAX_SWEEP_SECONDS {
            fdb.age(500, |entry| aged.push(entry.mac));
        }
        assert_eq!((aged, fdb.len()), (vec![mac(1).into()], 0));
    }

    #[test]
    fn without_ageing_nothing_is_forgotten() {
        let fdb = Fdb::new(4, None, 1);
        fdb.learn(mac(1), port(1), 0);
        fdb.age(u32::MAX, |_| panic!("aged"));
        assert_eq!(fdb.lookup(mac(1), u32::MAX), Some(port(1)));
    }

    #[test]
    fn the_limit_is_hard_and_known_macs_still_move() {
        let fdb = fdb(100);
        for n in 0..100 {
            assert_eq!(fdb.learn(mac(n), port(1), 0), Learned::New, "{n}");
        }
        assert_eq!(fdb.learn(mac(100), port(1), 0), Learned::Full);
        assert_eq!(fdb.learn(mac(7), port(2), 0), Learned::Moved { from: port(1) });
        assert_eq!(fdb.len(), 100);
    }

    #[test]
    fn a_table_takes_nearly_all_entries_up_to_its_limit() {
        // Two choices of four-entry buckets at no more than half load: overflow is possible but rare.
        let fdb = fdb(50_000);
        let refused =
            (0..50_000).filter(|n| fdb.learn(mac(*n), port(1), 0) != Learned::New).count();
        assert!(refused < 50, "{refused} of 50,000 found no place");
    }

    #[test]
    fn whatever_the_seed_macs_that_count_up_find_a_place() {
        let unlucky = [0, 1, u64::MAX, 1 << 63, 0xebfc_f700_0000_0000, 17_004_887_680_795_936_544];
        for seed in
            unlucky.into_iter().chain((0..2000).map(|n: u64| n.wrapping_mul(0x0123_4567_89ab_cdef)))
        {
            let fdb = Fdb::new(64, None, seed);
            for n in 0..40 {
                assert_eq!(fdb.learn(mac(n), port(1), 0), Learned::New, "seed {seed}, MAC {n}");
            }
        }
    }

    #[test]
    fn concurrent_readers_never_see_another_macs_location() {
        let fdb = fdb(64);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for round in 0..20_000_u64 {
                    let n = round % 97;
                    fdb.learn(mac(n), vtep(n as u32), 0);
                    if round % 3 == 0 {
                        fdb.remove_if(0, |entry| entry.mac == mac((round * 7) % 97).into(), |_| ());
                    }
                }
            });
            while !writer.is_finished() {
                for n in 0..97 {
                    if let Some(found) = fdb.lookup(mac(n), 0) {
                        assert_eq!(found, vtep(n as u32));
                    }
                }
            }
        });
    }

    #[derive(Clone, Debug)]
    enum Step {
        Learn(u64, Location),
        Wait(u32),
        Sweep,
        Flush(Location),
    }

    fn location() -> impl Strategy<Value = Location> {
        prop_oneof![(0_u32..4).prop_map(port), (0_u32..4).prop_map(vtep)]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_u64..40, location()).prop_map(|(n, l)| Step::Learn(n, l)),
            2 => (0_u32..200).prop_map(Step::Wait),
            1 => Just(Step::Sweep),
            1 => location().prop_map(Step::Flush),
        ]
    }

    proptest! {
        /// The table behaves as a plain map with timestamps.
        #[test]
        fn agrees_with_a_naive_map(steps in prop::collection::vec(step(), 0..200), seed: u64) {
            let fdb = Fdb::new(64, Some(Duration::from_secs(300)), seed);
            let mut model: HashMap<u64, (Location, u32)> = HashMap::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Learn(n, location) => {
                        if !fdb.refresh(mac(n), location, now) {
                            fdb.learn(mac(n), location, now);
                        }
                        model.insert(n, (location, now));
                    }
                    Step::Wait(seconds) => now += seconds,
                    Step::Sweep => (0..MAX_SWEEP_SECONDS).for_each(|_| fdb.age(now, |_| ())),
                    Step::Flush(location) => {
                        fdb.remove_if(now, |entry| entry.location == location, |_| ());
                        model.retain(|_, (at, _)| *at != location);
                    }
                }
                model.retain(|_, (_, seen)| now - *seen < 300);
                for n in 0..40 {
                    prop_assert_eq!(fdb.lookup(mac(n), now), model.get(&n).map(|(at, _)| *at));
                }
                prop_assert_eq!(fdb.list(now).len(), model.len());
            }
        }
    }
}
