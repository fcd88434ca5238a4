//! Learning: what a frame's source address says of where it is.

use super::entry::{Taken, Value};
use super::evict::{Newcomer, Resident};
use super::table::{Pair, WAYS};
use super::{Domain, Fdb, Learned, Place, Removed};
use crate::wire::MacAddr;
use crate::wire::eth::MacNumber;

/// Times that something is tried again because another worker changed it meanwhile.
const ATTEMPTS: usize = 3;

impl Fdb {
    /// Takes note that a frame from `mac` came from `place` in `second`, wherever the address was before, and hands
    /// entries that had to make room to `removed`.
    ///
    /// Costs a lookup if the address was known to be there, and nothing is written but its age, once a second.
    /// A group address cannot be a source; it is for the caller to refuse such frames.
    pub fn learn(
        &self,
        domain: &Domain,
        mac: MacAddr,
        place: &Place,
        second: u32,
        mut removed: impl FnMut(Removed),
    ) -> Learned {
        let mac = MacNumber::from(mac);
        if self.view(domain).refresh(mac, place.number(), second) {
            return Learned::Known;
        }
        self.learn_news(domain, mac, place.number(), second, &mut removed)
    }

    /// Takes note of a frame from `mac` at `place`, where it was not known to be a moment ago.
    pub(crate) fn learn_news(
        &self,
        domain: &Domain,
        mac: MacNumber,
        place: u32,
        second: u32,
        removed: &mut impl FnMut(Removed),
    ) -> Learned {
        let key = domain.key(mac.get());
        let hash = self.table().hash(key);
        // Before anything is written: of two stations that fight for an address each frame comes here.
        let known = self.table().entry(key, hash);
        if known.is_some_and(|(_, value)| {
            value.place() != place && self.has_settled(key, value, second)
        }) {
            return Learned::MovedAlready;
        }
        let part = self.claims.part(hash);
        let Some(_claim) = self.claims.take(part) else { return Learned::Later };
        let (in_domain, in_place) = (self.names.in_domain(key), self.names.in_place(place));
        let newcomer =
            Newcomer { domain, place, second, in_domain: in_domain + 1, in_place: in_place + 1 };
        let buckets = self.table().pair(hash);
        for _ in 0..ATTEMPTS {
            let Some(Resident { slot, value, .. }) = self.resident_of(key, buckets) else {
                return self.insert(key, buckets, &newcomer, part, removed);
            };
            if value.place() == place {
                return Learned::Known;
            }
            if self.has_settled(key, value, second) {
                return Learned::MovedAlready;
            }
            let (from, gone) = (self.names.label(value.place()), self.is_dead(key, value, second));
            if !self.enter_place(buckets, &newcomer, removed) {
                return Learned::Full;
            }
            // What was as good as gone was not here: finding the address elsewhere is no move.
            let moved = !gone && from.is_some();
            if slot.change(value, value.at(place, moved, second)) {
                self.names.leave_place(value.place());
                return from.filter(|_| moved).map_or(Learned::New, |from| Learned::Moved { from });
            }
            self.names.leave_place(place);
        }
        Learned::Later
    }

    /// Whether an entry has moved in this second, and so does not move again.
    fn has_settled(&self, key: u64, value: Value, second: u32) -> bool {
        value.moved_in(second) && !self.is_dead(key, value, second)
    }

    /// Counts a newcomer in its place, if there is or can be made room.
    fn enter_place(
        &self,
        buckets: Pair,
        newcomer: &Newcomer<'_>,
        removed: &mut impl FnMut(Removed),
    ) -> bool {
        let enter = || self.names.enter_place(newcomer.place, newcomer.domain.limits.per_place());
        enter() || self.evict_from_domain(buckets, newcomer, true, removed) && enter()
    }

    /// Counts a newcomer in its domain, if there is or can be made room.
    fn enter_domain(
        &self,
        buckets: Pair,
        newcomer: &Newcomer<'_>,
        removed: &mut impl FnMut(Removed),
    ) -> bool {
        let limit = newcomer.domain.limits.entries as u64;
        let enter = || self.names.enter_domain(newcomer.domain.key(0), limit);
        enter() || self.evict_from_domain(buckets, newcomer, false, removed) && enter()
    }

    /// Inserts a key that is not in the table, by whoever has the claim of its part.
    fn insert(
        &self,
        key: u64,
        buckets: Pair,
        newcomer: &Newcomer<'_>,
        part: usize,
        removed: &mut impl FnMut(Removed),
    ) -> Learned {
        let Newcomer { domain, place, second, .. } = *newcomer;
        if !self.enter_domain(buckets, newcomer, removed) {
            return Learned::Full;
        }
        if !self.enter_place(buckets, newcomer, removed) {
            self.names.leave_domain(key);
            return Learned::Full;
        }
        let taken = self
            .take_free(buckets)
            .or_else(|| self.take_dead(buckets, second, removed))
            .or_else(|| self.displace(buckets, part))
            .or_else(|| self.evict_from_buckets(buckets, newcomer, removed));
        let Some(mut taken) = taken else {
            self.names.leave_place(place);
            self.names.leave_domain(key);
            return Learned::Full;
        };
        taken.put_new(key, place, second);
        domain.inserted_at(taken.number());
        Learned::New
    }

    /// Takes an empty slot in one of `buckets`: the first that has any, so that most keys are in their first bucket.
    fn take_free(&self, buckets: impl IntoIterator<Item = usize>) -> Option<Taken<'_>> {
        let slots = buckets.into_iter().flat_map(|bucket| self.table().slots_of(bucket));
        slots
            .map(|slot| (slot, slot.value()))
            .filter(|(_, value)| value.is_free())
            .find_map(|(slot, value)| slot.take(value))
    }

    /// Takes a slot in one of `buckets` whose entry can go to its other bucket, by whoever has the claim of `part`.
    ///
    /// Between the two slots the entry is unknown for a moment; were it in both, it could change in one of them.
    fn displace(&self, buckets: Pair, part: usize) -> Option<Taken<'_>> {
        self.residents(buckets).find_map(|resident| {
            let Resident { slot, key, value } = resident;
            let hash = self.table().hash(key);
            let its_part = self.claims.part(hash);
            let claim = self.claims.take(its_part);
            if claim.is_none() && its_part != part {
                return None;
            }
            let here = slot.number / WAYS;
            let others = self.table().pair(hash).into_iter().filter(|bucket| *bucket != here);
            let mut other = self.take_free(others)?;
            let (taken, value) = slot.take_entry(value)?;
            other.put(key, value);
            drop(other);
            Some(taken)
        })
    }
}
