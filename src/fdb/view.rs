//! Looking up: what is read for each address, and what once for many of them.

use crate::sync::AtomicU64;
use crate::wire::MacAddr;
use crate::wire::eth::MacNumber;

use super::entry::Slot;
use super::names::label;
use super::table::Table;

/// Addresses that a batch lookup has under way at a time: about as many cache misses as a core can wait for at once.
pub(super) const AHEAD: usize = 32;

/// One domain of an [`Fdb`](super::Fdb), to look up in.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(super) table: Table<'a>,
    /// The key of address zero.
    pub(super) domain: u64,
    pub(super) ageing: u32,
    pub(super) labels: &'a [AtomicU64],
}

impl View<'_> {
    #[inline(always)]
    fn key(self, mac: u64) -> u64 {
        self.domain | mac
    }

    /// The label of the place where a MAC address was last seen, unless that is longer ago than the ageing time.
    #[inline(always)]
    pub(crate) fn lookup(self, mac: MacNumber, second: u32) -> Option<u32> {
        let key = self.key(mac.get());
        self.confirm(self.table.find(key, self.table.hash(key))?, key, second)
    }

    /// The label of the entry of `key`, if that is what the slot holds.
    #[inline(always)]
    fn confirm(self, slot: Slot<'_>, key: u64, second: u32) -> Option<u32> {
        let (read, value, label) = slot.read_with(|place| label(self.labels, place))?;
        if read == key && value.age(second) < self.ageing { label } else { None }
    }

    /// Takes note of a frame from `mac` at `place` if it was known to be there, and says whether it was.
    #[inline(always)]
    pub(crate) fn refresh(self, mac: MacNumber, place: u32, second: u32) -> bool {
        let key = self.key(mac.get());
        let Some((slot, value)) = self.table.entry(key, self.table.hash(key)) else { return false };
        if value.place() != place {
            return false;
        }
        if let Some(fresh) = value.refreshed(second) {
            // If this fails, another worker moved, refreshed or removed the entry: its news is as fresh as ours.
            slot.change(value, fresh);
        }
        true
    }

    /// Has the memory that a lookup of `mac` reads first be brought into the cache.
    #[inline(always)]
    pub(crate) fn prefetch(self, mac: MacNumber) {
        let hash = self.table.hash(self.key(mac.get()));
        self.table.prefetch(self.table.first(hash));
    }

    /// Looks up at most [`AHEAD`] addresses.
    #[inline]
    pub(super) fn lookup_chunk(self, macs: &[MacAddr], second: u32, found: &mut [Option<u32>]) {
        let table = self.table;
        let (mut keys, mut firsts) = ([0; AHEAD], [0; AHEAD]);
        for ((mac, key), first) in macs.iter().zip(&mut keys).zip(&mut firsts) {
            *key = self.key(mac.to_u64());
            *first = table.first(table.hash(*key));
            table.prefetch(*first);
        }
        // Those that may be in their second bucket, with that one.
        let (mut elsewhere, mut left) = ([(0, 0); AHEAD], 0);
        for (index, (found, (key, first))) in
            found.iter_mut().zip(keys.iter().zip(&firsts)).enumerate()
        {
            match table.find_in(*first, *key) {
                Some(slot) => *found = self.confirm(slot, *key, second),
                None => {
                    let other = table.second(table.hash(*key));
                    table.prefetch(other);
                    elsewhere[left] = (index, other);
                    left += 1;
                }
            }
        }
        for (index, bucket) in &elsewhere[..left] {
            let key = keys[*index];
            let slot = table.find_in(*bucket, key);
            found[*index] = slot.and_then(|slot| self.confirm(slot, key, second));
        }
    }
}
