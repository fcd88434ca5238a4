//! One entry: a key word and a value word, and how its slot changes hands.
//!
//! The value word is the slot's lock and its sequence number in one. Whoever takes a slot makes the version in it one
//! higher with a compare-exchange, writes the key, and then the new value. So the key does not change while the value
//! has one version, and a reader that sees the same version before and after it read the key has a pair that belongs
//! together. It never waits: a slot that is changing hands holds nothing.

use crate::sync::{AtomicU64, Ordering};

const SEEN_BITS: u32 = 20;
const MOVED_BIT: u32 = SEEN_BITS;
const VERSION_SHIFT: u32 = MOVED_BIT + 1;
const VERSION_BITS: u32 = 19;
const PLACE_SHIFT: u32 = VERSION_SHIFT + VERSION_BITS;

const SEEN_MASK: u64 = (1 << SEEN_BITS) - 1;
const VERSION_MASK: u64 = (1 << VERSION_BITS) - 1;

/// The place of a slot that holds nothing.
const FREE: u32 = 0;

/// The place of a slot that somebody is filling.
const BUSY: u32 = (1 << (64 - PLACE_SHIFT)) - 1;

/// Largest number of a place.
pub(super) const MAX_PLACE: u32 = BUSY - 1;

/// Largest age that entries count up to, in seconds: a quarter of where the clock in them wraps, so that half of its
/// range is left for workers whose clock is behind, and a quarter for the sweep to come by.
pub(super) const MAX_AGE: u32 = 1 << (SEEN_BITS - 2);

/// Place, version, whether the last second brought a move, and the second in which a frame was last seen.
///
/// The version takes 2^19 others of one slot to come again, all of them between two loads of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value(u64);

impl Value {
    fn pack(place: u32, version: u64, moved: bool, second: u32) -> Self {
        Self(
            u64::from(place) << PLACE_SHIFT
                | (version & VERSION_MASK) << VERSION_SHIFT
                | u64::from(moved) << MOVED_BIT
                | u64::from(second) & SEEN_MASK,
        )
    }

    #[inline]
    pub(super) fn place(self) -> u32 {
        (self.0 >> PLACE_SHIFT) as u32
    }

    fn version(self) -> u64 {
        self.0 >> VERSION_SHIFT & VERSION_MASK
    }

    fn moved(self) -> bool {
        self.0 >> MOVED_BIT & 1 != 0
    }

    #[inline]
    fn is_live(self) -> bool {
        // Neither free nor busy, in one comparison.
        self.place().wrapping_sub(1) < MAX_PLACE
    }

    pub(super) fn is_free(self) -> bool {
        self.place() == FREE
    }

    /// Seconds from when it was last seen to `second`; negative if another worker's clock is ahead.
    #[inline]
    fn since(self, second: u32) -> i32 {
        const ABOVE: u32 = u32::BITS - SEEN_BITS;
        let difference = second.wrapping_sub(self.0 as u32);
        (difference << ABOVE).cast_signed() >> ABOVE
    }

    /// Seconds since it was last seen.
    #[inline]
    pub(super) fn age(self, second: u32) -> u32 {
        self.since(second).max(0).cast_unsigned()
    }

    /// The value after a frame from the same place, if that makes it another one.
    #[inline]
    pub(super) fn refreshed(self, second: u32) -> Option<Self> {
        (self.since(second) > 0).then(|| Self::pack(self.place(), self.version(), false, second))
    }

    /// Whether it has moved in this very second.
    pub(super) fn moved_in(self, second: u32) -> bool {
        self.moved() && self.since(second) <= 0
    }

    /// The value after a frame from elsewhere.
    pub(super) fn at(self, place: u32, moved: bool, second: u32) -> Self {
        Self::pack(place, self.version(), moved, second)
    }

    /// The same, seen so long ago that it counts no further.
    pub(super) fn oldest(self, second: u32) -> Self {
        Self::pack(self.place(), self.version(), false, second.wrapping_sub(MAX_AGE))
    }

    fn taken(self) -> Self {
        Self::pack(BUSY, self.version() + 1, false, 0)
    }
}

/// The two words of an entry where they lie.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    pub(super) number: usize,
    pub(super) key: &'a AtomicU64,
    pub(super) value: &'a AtomicU64,
}

impl<'a> Slot<'a> {
    /// Key and value, if it holds an entry.
    #[inline(always)]
    pub(super) fn read(self) -> Option<(u64, Value)> {
        self.read_with(|_| ()).map(|(key, value, ())| (key, value))
    }

    /// Key and value, if it holds an entry, and what `of_place` finds out about its place. That loads with acquire
    /// ordering, if at all: the entry still has the place afterwards, so the place means what it meant when the entry
    /// was made.
    #[inline(always)]
    pub(super) fn read_with<T>(self, of_place: impl FnOnce(u32) -> T) -> Option<(u64, Value, T)> {
        let before = Value(self.value.load(Ordering::Acquire));
        if !before.is_live() {
            return None;
        }
        let found = of_place(before.place());
        let key = self.key.load(Ordering::Acquire);
        let value = Value(self.value.load(Ordering::Relaxed));
        // Place and version: an entry that moves in this moment is unknown for as long.
        (value.0 >> VERSION_SHIFT == before.0 >> VERSION_SHIFT).then_some((key, value, found))
    }

    pub(super) fn value(self) -> Value {
        Value(self.value.load(Ordering::Acquire))
    }

    /// Changes the value of the entry it holds, unless anything has changed there meanwhile.
    pub(super) fn change(self, from: Value, to: Value) -> bool {
        let exchanged =
            self.value.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed);
        exchanged.is_ok()
    }

    /// Takes the slot for oneself as it was seen: from then on it holds nothing.
    pub(super) fn take(self, seen: Value) -> Option<Taken<'a>> {
        if seen.place() == BUSY || !self.change(seen, seen.taken()) {
            return None;
        }
        // Nobody shall look here for what was here.
        self.key.store(0, Ordering::Release);
        Some(Taken { slot: self, value: seen.taken(), key: 0, place: FREE })
    }

    /// Takes the slot from the entry that `seen` was read of, however often that was refreshed since, and returns the
    /// value it had in the end.
    pub(super) fn take_entry(self, mut seen: Value) -> Option<(Taken<'a>, Value)> {
        loop {
            if let Some(taken) = self.take(seen) {
                return Some((taken, seen));
            }
            let now = self.value();
            if !now.is_live() || now.version() != seen.version() {
                return None;
            }
            seen = now;
        }
    }
}

/// A slot that nobody else can change. It is given back when this is dropped: empty, or with what was put into it.
pub(super) struct Taken<'a> {
    slot: Slot<'a>,
    value: Value,
    key: u64,
    place: u32,
}

impl Taken<'_> {
    pub(super) fn number(&self) -> usize {
        self.slot.number
    }

    /// Puts an entry in, with place and time from `like`.
    pub(super) fn put(&mut self, key: u64, like: Value) {
        self.key = key;
        self.place = like.place();
        self.value = Value::pack(BUSY, self.value.version(), like.moved(), like.0 as u32);
    }

    /// Puts a new entry in.
    pub(super) fn put_new(&mut self, key: u64, place: u32, second: u32) {
        self.put(key, Value::pack(place, 0, false, second));
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // Released after the value became busy, and before it becomes live: see `Slot::read`.
        self.slot.key.store(self.key, Ordering::Release);
        let value =
            Value::pack(self.place, self.value.version(), self.value.moved(), self.value.0 as u32);
        self.slot.value.store(value.0, Ordering::Release);
    }
}
