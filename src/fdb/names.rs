//! Names of domains and places: small numbers that entries carry, how many entries carry each, and when one may come to
//! mean something else.
//!
//! A name is *retired* when what it stands for is flushed or gone: its entries read as unknown from that moment on.
//! It is *released* when nobody holds it any more, so that no new entry can get it. It is given out again once it is
//! released and no entry is left that has it, which the counts tell exactly.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::PoisonError;
use std::time::Duration;

use crossbeam::utils::CachePadded;

use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, zeroed_words};

use super::entry::MAX_AGE;
use super::{Limits, seconds};

/// Marks the record of a place or domain whose entries mean nothing any more.
const RETIRED: u64 = 1 << 63;

/// An ageing time that no entry reaches.
const NEVER: u32 = u32::MAX;

/// Bits of a key that are the MAC address; those above name the domain.
pub(super) const MAC_BITS: u32 = 48;

/// Largest number of a domain.
pub(super) const MAX_DOMAIN: u32 = (1 << (64 - MAC_BITS)) - 1;

/// Entries inserted last that a domain remembers, to find one that can go.
const RECENT: usize = 16;

/// Released names that a sweep looks at.
const SETTLED_AT_ONCE: usize = 1024;

/// Free numbers that are kept before the first of them is given out again: without them all numbers would be, one after the
/// other, and a list of all that were would grow as long.
const KEPT: usize = 4096;

/// Numbers to be given out.
struct FreeNumbers {
    never_used: Range<u32>,
    /// The longest unused first.
    free: VecDeque<u32>,
    /// Nobody holds them, but entries have them.
    released: VecDeque<u32>,
}

impl FreeNumbers {
    /// Number 0 is not given out.
    fn new(names: u32) -> Self {
        Self { never_used: 1..names + 1, free: VecDeque::new(), released: VecDeque::new() }
    }

    fn give(&mut self, counts: &[AtomicU64]) -> Option<u32> {
        if self.free.len() >= KEPT {
            return self.free.pop_front();
        }
        if let Some(number) = self.never_used.next() {
            return Some(number);
        }
        if self.free.is_empty() {
            self.settle(counts, usize::MAX);
        }
        self.free.pop_front()
    }

    /// Takes back a number that nobody holds any more.
    fn release(&mut self, number: u32, counts: &[AtomicU64]) {
        // Nobody can add to a count of zero any more. Acquired, so that what is written under the name from now on
        // comes after the removal of its last entry.
        let used = counts[number as usize].load(Ordering::Acquire) > 0;
        if used { &mut self.released } else { &mut self.free }.push_back(number);
    }

    /// Looks at the next `most` of those released whether any entry has them still.
    fn settle(&mut self, counts: &[AtomicU64], most: usize) {
        for _ in 0..self.released.len().min(most) {
            if let Some(number) = self.released.pop_front() {
                self.release(number, counts);
            }
        }
    }
}

/// What there is to sweep for.
pub(super) struct Chores {
    /// Whether names wait for their entries to be removed.
    pub(super) released: bool,
    /// The shortest ageing time of all domains, in seconds.
    pub(super) shortest_ageing: Option<u32>,
}

struct Book {
    domains: FreeNumbers,
    places: FreeNumbers,
    /// How many domains have which ageing time, in seconds.
    ageing: BTreeMap<u32, usize>,
}

/// The records of all names, by number.
pub(super) struct Names {
    domain_counts: Box<[AtomicU64]>,
    /// Ageing time in seconds, and [`RETIRED`].
    domain_ageing: Box<[AtomicU64]>,
    domain_labels: Box<[AtomicU64]>,
    place_counts: Box<[AtomicU64]>,
    /// Label, and [`RETIRED`].
    place_labels: Box<[AtomicU64]>,
    /// How often anything was retired.
    retirements: AtomicU64,
    book: Mutex<Book>,
}

/// Adds one to a count unless it has reached `limit`.
fn enter(count: &AtomicU64, limit: u64) -> bool {
    let below = |count| (count < limit).then_some(count + 1);
    count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, below).is_ok()
}

/// What a place stands for, unless it is retired.
#[inline(always)]
pub(super) fn label(labels: &[AtomicU64], place: u32) -> Option<u32> {
    // Acquired: see `Slot::read_with`.
    let label = labels[place as usize].load(Ordering::Acquire);
    (label & RETIRED == 0).then_some(label as u32)
}

impl Names {
    pub(super) fn new(domains: u32, places: u32) -> Self {
        let words = |names: u32| zeroed_words(names as usize + 1);
        let book = Book {
            domains: FreeNumbers::new(domains),
            places: FreeNumbers::new(places),
            ageing: BTreeMap::new(),
        };
        Self {
            domain_counts: words(domains),
            domain_ageing: words(domains),
            domain_labels: words(domains),
            place_counts: words(places),
            place_labels: words(places),
            retirements: AtomicU64::new(0),
            book: Mutex::new(book),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Numbers are moved from list to list one at a time: a panic can at worst lose one.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to sweep for, and nothing while somebody else has the book open: sweeping goes on later.
    pub(super) fn chores(&self) -> Option<Chores> {
        let mut book = self.book.try_lock().ok()?;
        book.domains.settle(&self.domain_counts, SETTLED_AT_ONCE);
        book.places.settle(&self.place_counts, SETTLED_AT_ONCE);
        let released = !book.domains.released.is_empty() || !book.places.released.is_empty();
        let shortest_ageing = book.ageing.keys().next().copied();
        (released || shortest_ageing.is_some()).then_some(Chores { released, shortest_ageing })
    }

    /// Marks the record of a name.
    fn retire(&self, record: &AtomicU64) {
        if record.fetch_or(RETIRED, Ordering::Relaxed) & RETIRED == 0 {
            self.retirements.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn retirements(&self) -> u64 {
        self.retirements.load(Ordering::Relaxed)
    }

    /// What a place stands for, unless it is retired.
    pub(super) fn label(&self, place: u32) -> Option<u32> {
        label(&self.place_labels, place)
    }

    /// What places stand for, by number; see [`label`].
    #[inline(always)]
    pub(super) fn labels(&self) -> &[AtomicU64] {
        &self.place_labels
    }

    /// What a domain stands for.
    pub(super) fn domain_label(&self, key: u64) -> u64 {
        self.domain_labels[(key >> MAC_BITS) as usize].load(Ordering::Relaxed)
    }

    /// Whether an entry of this key and place means nothing any more.
    pub(super) fn is_retired(&self, key: u64, place: u32) -> bool {
        self.label(place).is_none()
            || self.domain_ageing[(key >> MAC_BITS) as usize].load(Ordering::Relaxed) & RETIRED != 0
    }

    /// Seconds after which an entry of this key is forgotten.
    pub(super) fn ageing(&self, key: u64) -> u32 {
        self.domain_ageing[(key >> MAC_BITS) as usize].load(Ordering::Relaxed) as u32
    }

    /// Entries in the domain of this key.
    pub(super) fn in_domain(&self, key: u64) -> u64 {
        self.domain_counts[(key >> MAC_BITS) as usize].load(Ordering::Acquire)
    }

    pub(super) fn in_place(&self, place: u32) -> u64 {
        self.place_counts[place as usize].load(Ordering::Acquire)
    }

    pub(super) fn enter_domain(&self, key: u64, limit: u64) -> bool {
        enter(&self.domain_counts[(key >> MAC_BITS) as usize], limit)
    }

    pub(super) fn enter_place(&self, place: u32, limit: u64) -> bool {
        enter(&self.place_counts[place as usize], limit)
    }

    pub(super) fn leave_domain(&self, key: u64) {
        self.domain_counts[(key >> MAC_BITS) as usize].fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn leave_place(&self, place: u32) {
        self.place_counts[place as usize].fetch_sub(1, Ordering::AcqRel);
    }
}

/// A forwarding domain within an [`Fdb`](super::Fdb): the entries of one segment, and what holds for them.
///
/// When the last handle is dropped its entries are as good as gone, and its room is used again.
pub struct Domain {
    names: Arc<Names>,
    number: u32,
    ageing: u32,
    pub(super) limits: Limits,
    /// On cache lines of its own: the rest is read for each frame.
    recent: CachePadded<Recent>,
}

/// The slots filled last.
struct Recent {
    /// By number, from 1 on.
    slots: [AtomicU64; RECENT],
    inserted: AtomicU64,
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain")
            .field("number", &self.number)
            .field("entries", &self.entries())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Domain {
    pub(super) fn new(names: &Arc<Names>, limits: Limits, label: u64) -> Option<Self> {
        let ageing = limits.ageing.map_or(NEVER, |ageing| seconds(ageing).min(MAX_AGE));
        let mut book = names.book();
        let number = book.domains.give(&names.domain_counts)?;
        *book.ageing.entry(ageing).or_default() += 1;
        names.domain_labels[number as usize].store(label, Ordering::Relaxed);
        names.domain_ageing[number as usize].store(ageing.into(), Ordering::Relaxed);
        let slots = [0; RECENT].map(AtomicU64::new);
        let recent = CachePadded::new(Recent { slots, inserted: AtomicU64::new(0) });
        Some(Self { names: names.clone(), number, ageing, limits, recent })
    }

    /// The key of a MAC address here.
    #[inline]
    pub(super) fn key(&self, mac: u64) -> u64 {
        u64::from(self.number) << MAC_BITS | mac
    }

    #[inline]
    pub(super) fn ageing(&self) -> u32 {
        self.ageing
    }

    /// Number of entries, with those that are past their time or behind retired places and not swept yet.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.names.in_domain(self.key(0)) as usize
    }

    /// What was said when the domain was added.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Makes all entries unknown at once; those that are learned from now on, too.
    ///
    /// For a flush: put a new domain in place of this one, then retire this.
    pub fn retire(&self) {
        self.names.retire(&self.names.domain_ageing[self.number as usize]);
    }

    pub(super) fn inserted_at(&self, slot: usize) {
        let turn = self.recent.inserted.fetch_add(1, Ordering::Relaxed) as usize;
        self.recent.slots[turn % RECENT].store(slot as u64 + 1, Ordering::Relaxed);
    }

    /// Slots filled last, as far as there are any.
    pub(super) fn recent(&self) -> impl Iterator<Item = usize> {
        self.recent.slots.iter().filter_map(|slot| {
            let slot = slot.load(Ordering::Relaxed) as usize;
            slot.checked_sub(1)
        })
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        self.retire();
        let mut book = self.names.book();
        book.domains.release(self.number, &self.names.domain_counts);
        if let Some(domains) = book.ageing.get_mut(&self.ageing) {
            *domains -= 1;
            if *domains == 0 {
                book.ageing.remove(&self.ageing);
            }
        }
    }
}

/// Where MAC addresses can be: a port or VTEP of one domain.
///
/// When the last clone is dropped its entries are as good as gone, and its name is used again.
#[derive(Clone)]
pub struct Place {
    number: u32,
    held: Arc<Held>,
}

/// The name of a place while anybody holds it.
struct Held {
    names: Arc<Names>,
    number: u32,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("number", &self.number)
            .field("entries", &self.entries())
            .finish_non_exhaustive()
    }
}

impl Place {
    pub(super) fn new(names: &Arc<Names>, label: u32) -> Option<Self> {
        let number = names.book().places.give(&names.place_counts)?;
        names.place_labels[number as usize].store(label.into(), Ordering::Release);
        Some(Self { number, held: Arc::new(Held { names: names.clone(), number }) })
    }

    #[inline]
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Number of entries, with those that are past their time or of retired domains and not swept yet.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.held.names.in_place(self.number) as usize
    }

    /// Makes all MAC addresses here unknown at once; those that are learned here from now on, too.
    ///
    /// For a flush: put a new place in place of this one, then retire this.
    pub fn retire(&self) {
        self.held.retire();
    }
}

impl Held {
    fn retire(&self) {
        self.names.retire(&self.names.place_labels[self.number as usize]);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.retire();
        self.names.book().places.release(self.number, &self.names.place_counts);
    }
}

impl Limits {
    /// As the table keeps it.
    #[must_use]
    pub(super) fn per_place(&self) -> u64 {
        self.entries_per_place.map_or(u64::MAX, |limit| limit as u64)
    }
}

/// The longest ageing time, for [`Limits::ageing`].
pub const MAX_AGEING: Duration = Duration::from_secs(MAX_AGE as u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_come_and_go_are_given_out_again_before_all_were() {
        let counts: Vec<AtomicU64> = (0..=1 << 20).map(|_| AtomicU64::new(0)).collect();
        let mut numbers = FreeNumbers::new(1 << 20);
        let mut highest = 0;
        for _ in 0..100_000 {
            let number = numbers.give(&counts).unwrap();
            highest = highest.max(number);
            numbers.release(number, &counts);
        }
        assert_eq!(highest as usize, KEPT, "one in use, the others free");
        assert_eq!(numbers.free.len(), KEPT);
    }
}
