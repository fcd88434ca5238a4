//! Who goes when there is no room: an entry of whoever holds the most.
//!
//! The rule is that of Open vSwitch (`lib/mac-learning.c`, `evict_mac_entry_fairly`), on two levels because the table
//! is everybody's: between domains the one with the most entries gives, and within a domain the place with the most.
//! A newcomer never displaces an entry of a domain or place that holds fewer than its own. Open vSwitch keeps places
//! in a heap and their entries in lists, under a lock; here the victim is the best of those in reach: a sample that has
//! an entry of whoever fills the table almost surely.

use super::entry::{Slot, Taken, Value};
use super::names::MAC_BITS;
use super::table::Pair;
use super::{Domain, Fdb, Removed};
use crate::sync::Ordering;
use crate::wire::MacAddr;

/// Buckets that the hand passes in a search.
const HAND: usize = 16;

/// An entry in its slot.
#[derive(Clone, Copy)]
pub(super) struct Resident<'a> {
    pub(super) slot: Slot<'a>,
    pub(super) key: u64,
    pub(super) value: Value,
}

/// Whom room is wanted for.
pub(super) struct Newcomer<'a> {
    pub(super) domain: &'a Domain,
    pub(super) place: u32,
    pub(super) second: u32,
    /// Entries of its domain and of its place, with itself.
    pub(super) in_domain: u64,
    pub(super) in_place: u64,
}

/// Which entry goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Of those that live, one of the largest domain and of the largest place there, and then the oldest.
    Live { in_domain: u64, in_place: u64, age: u32 },
    /// Past its time, or of something that is gone.
    Dead,
}

fn resident(slot: Slot<'_>) -> Option<Resident<'_>> {
    let (key, value) = slot.read()?;
    Some(Resident { slot, key, value })
}

impl Fdb {
    /// The entries of some buckets.
    pub(super) fn residents(
        &self,
        buckets: impl IntoIterator<Item = usize>,
    ) -> impl Iterator<Item = Resident<'_>> {
        buckets.into_iter().flat_map(|bucket| self.table().slots_of(bucket)).filter_map(resident)
    }

    /// The entry of a key, wherever its slots are changing hands; for who has the claim of the key, so that it does not
    /// change its slot meanwhile.
    pub(super) fn resident_of(&self, key: u64, buckets: Pair) -> Option<Resident<'_>> {
        self.residents(buckets).find(|resident| resident.key == key)
    }

    pub(super) fn is_dead(&self, key: u64, value: Value, second: u32) -> bool {
        value.age(second) >= self.names.ageing(key) || self.names.is_retired(key, value.place())
    }

    /// How readily an entry goes for a newcomer; `None` if it may not.
    fn rank(&self, resident: &Resident<'_>, newcomer: &Newcomer<'_>) -> Option<Rank> {
        let Resident { key, value, .. } = *resident;
        if self.is_dead(key, value, newcomer.second) {
            return Some(Rank::Dead);
        }
        let names = &self.names;
        let own = newcomer.domain.key(0);
        let (in_domain, in_place) = (names.in_domain(key), names.in_place(value.place()));
        let gives = if key >> MAC_BITS == own >> MAC_BITS {
            value.place() == newcomer.place || in_place > newcomer.in_place
        } else {
            in_domain > newcomer.in_domain
        };
        let age = value.age(newcomer.second);
        (newcomer.domain.limits.evict && gives).then_some(Rank::Live { in_domain, in_place, age })
    }

    /// The entry that goes first of `residents`, if any may go.
    fn victim<'a>(
        &self,
        residents: impl Iterator<Item = Resident<'a>>,
        newcomer: &Newcomer<'_>,
    ) -> Option<(Rank, Resident<'a>)> {
        let ranked = residents.filter_map(|resident| {
            let rank = self.rank(&resident, newcomer)?;
            Some((rank, resident))
        });
        ranked.max_by_key(|(rank, _)| *rank)
    }

    /// Makes room in the buckets of a newcomer.
    pub(super) fn evict_from_buckets(
        &self,
        buckets: Pair,
        newcomer: &Newcomer<'_>,
        removed: &mut impl FnMut(Removed),
    ) -> Option<Taken<'_>> {
        let (_, victim) = self.victim(self.residents(buckets), newcomer)?;
        self.remove(&victim, newcomer.second, removed)
    }

    /// Takes a slot in the buckets of a newcomer whose entry is as good as gone.
    pub(super) fn take_dead(
        &self,
        buckets: Pair,
        second: u32,
        removed: &mut impl FnMut(Removed),
    ) -> Option<Taken<'_>> {
        let is_dead = |entry: &Resident<'_>| self.is_dead(entry.key, entry.value, second);
        let dead = self.residents(buckets).find(is_dead)?;
        self.remove(&dead, second, removed)
    }

    /// Makes room in the newcomer's domain, or in its place if `same_place`, and says whether there is.
    pub(super) fn evict_from_domain(
        &self,
        buckets: Pair,
        newcomer: &Newcomer<'_>,
        same_place: bool,
        removed: &mut impl FnMut(Removed),
    ) -> bool {
        let own = newcomer.domain.key(0) >> MAC_BITS;
        let wanted = |resident: &Resident<'_>| {
            resident.key >> MAC_BITS == own
                && (!same_place || resident.value.place() == newcomer.place)
        };
        let recent = newcomer.domain.recent().map(|number| self.table().slot(number));
        let recent = recent.filter_map(resident);
        let near = self.victim(self.residents(buckets).chain(recent).filter(wanted), newcomer);
        // With half of all entries its place is certainly the one that holds the most; otherwise look further.
        let settled = near.is_some_and(|(rank, _)| match rank {
            Rank::Dead => true,
            Rank::Live { in_domain, in_place, .. } => same_place || in_place * 2 > in_domain,
        });
        let far = if settled {
            None
        } else {
            let start = self.hand.fetch_add(HAND as u64, Ordering::Relaxed);
            self.victim(self.residents(self.table().run(start, HAND)).filter(wanted), newcomer)
        };
        let victim = near.into_iter().chain(far).max_by_key(|(rank, _)| *rank);
        victim.is_some_and(|(_, victim)| self.remove(&victim, newcomer.second, removed).is_some())
    }

    /// Removes an entry, unless something happened to it since it was read, and leaves its slot to the caller.
    pub(super) fn remove<'a>(
        &self,
        resident: &Resident<'a>,
        second: u32,
        removed: &mut impl FnMut(Removed),
    ) -> Option<Taken<'a>> {
        let Resident { slot, key, value } = *resident;
        let taken = slot.take(value)?;
        let age = value.age(second);
        let label = self.names.label(value.place());
        // Before the counts say that nobody has its names any more.
        let entry =
            label.filter(|_| !self.names.is_retired(key, value.place())).map(|label| Removed {
                domain: self.names.domain_label(key),
                mac: MacAddr::from_u64(key),
                place: label,
                expired: age >= self.names.ageing(key),
            });
        self.names.leave_place(value.place());
        self.names.leave_domain(key);
        if let Some(entry) = entry {
            removed(entry);
        }
        Some(taken)
    }
}
