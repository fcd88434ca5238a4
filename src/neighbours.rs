//! The neighbours of a bridge segment: which MAC address an IP address has.
//!
//! Static bindings are part of the snapshot. Those that were heard of are in a table of fixed size that successive snapshots
//! hand on and workers share without locks: whoever finds a part of it being written looks elsewhere, and a request that is not
//! answered for that is flooded like any other.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::hash::mix;
use crate::shards::Shards;
use crate::wire::MacAddr;
use crate::wire::eth::MacNumber;

/// What an IP address is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) mac: MacNumber,
    /// IPv6: whether it is a router's, which an answer has to say (RFC 4861 §7.2.5).
    pub(crate) router: bool,
}

/// The bindings of a segment that answers for its neighbours.
#[derive(Clone, Debug)]
pub(crate) struct Neighbours {
    pub(crate) statics: Shards<IpAddr, Binding>,
    /// `None` if it hears of nothing.
    pub(crate) snooped: Option<Arc<Snooped>>,
}

/// Places of a set, among which an address has to find one.
const WAYS: usize = 8;

/// How often the control plane tries to forget a binding while others write: some milliseconds.
const PATIENCE: u32 = 1 << 20;

/// Bits of a binding's word below the MAC address.
const USED: u64 = 1;
const ROUTER: u64 = 2;
const MAC_SHIFT: u32 = 16;

/// One binding, or none where `binding` is zero.
#[derive(Debug, Default)]
struct Place {
    address: [AtomicU64; 2],
    binding: AtomicU64,
    /// When it was heard of last, in seconds.
    seen: AtomicU64,
}

/// Places that are read and written together.
#[derive(Debug, Default)]
struct Set {
    /// Odd while somebody writes; who reads compares it before and after.
    version: AtomicU64,
    places: [Place; WAYS],
}

/// A copy of a place.
#[derive(Clone, Copy)]
struct Entry {
    address: [u64; 2],
    binding: u64,
    seen: u64,
}

/// What became of a binding that was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Known,
    New,
    /// There is no table, or somebody else was writing: it will be heard of again.
    Later,
}

/// Bindings that were heard of.
#[derive(Debug)]
pub(crate) struct Snooped {
    sets: Box<[Set]>,
    seed: u64,
    /// In seconds; `u64::MAX` means never.
    ageing: u64,
}

impl Entry {
    fn is_used(&self) -> bool {
        self.binding != 0
    }

    fn binding(&self) -> Binding {
        Binding {
            mac: MacAddr::from_u64(self.binding >> MAC_SHIFT).into(),
            router: self.binding & ROUTER != 0,
        }
    }
}

fn word(binding: Binding) -> u64 {
    binding.mac.get() << MAC_SHIFT | USED | if binding.router { ROUTER } else { 0 }
}

/// IPv4 addresses as IPv6 has them (RFC 4291 §2.5.5.2).
fn key(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

fn address([upper, lower]: [u64; 2]) -> IpAddr {
    let bits = u128::from(upper) << 64 | u128::from(lower);
    std::net::Ipv6Addr::from_bits(bits).to_canonical()
}

impl Set {
    /// All places as they were at one time; `None` while they change.
    fn read(&self) -> Option<[Entry; WAYS]> {
        let before = self.version.load(Ordering::Acquire);
        if before & 1 != 0 {
            return None;
        }
        let entries = std::array::from_fn(|at| {
            let place = &self.places[at];
            let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
            Entry {
                address: [load(&place.address[0]), load(&place.address[1])],
                binding: load(&place.binding),
                seen: load(&place.seen),
            }
        });
        // The loads above happen before this one.
        fence(Ordering::Acquire);
        (self.version.load(Ordering::Relaxed) == before).then_some(entries)
    }

    /// Lets `change` choose a place from what they are and write it, unless somebody else writes.
    fn write<T>(&self, change: impl FnOnce(&[Entry; WAYS], &[Place; WAYS]) -> T) -> Option<T> {
        let entries = self.read()?;
        let before = self.version.load(Ordering::Relaxed) & !1;
        let odd = before | 1;
        if self.version.compare_exchange(before, odd, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return None;
        }
        // Nobody who sees one of the stores below sees the version before it.
        fence(Ordering::Release);
        let result = change(&entries, &self.places);
        self.version.store(before.wrapping_add(2), Ordering::Release);
        Some(result)
    }
}

impl Place {
    fn store(&self, address: [u64; 2], binding: u64, second: u64) {
        self.address[0].store(address[0], Ordering::Relaxed);
        self.address[1].store(address[1], Ordering::Relaxed);
        self.binding.store(binding, Ordering::Relaxed);
        self.seen.store(second, Ordering::Relaxed);
    }
}

impl Snooped {
    /// A table with room for `entries`, each of which is forgotten `ageing` seconds after it was heard of.
    pub(crate) fn new(entries: usize, ageing: Option<u32>, seed: u64) -> Self {
        // Twice as many places as entries: they are spread by chance, and few sets are to be full.
        let sets = (2 * entries).div_ceil(WAYS).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
            seed,
            ageing: ageing.map_or(u64::MAX, u64::from),
        }
    }

    fn set(&self, [upper, lower]: [u64; 2]) -> &Set {
        let hash = mix(mix(self.seed, upper), lower);
        &self.sets[hash as usize & (self.sets.len() - 1)]
    }

    fn is_fresh(&self, entry: &Entry, second: u32) -> bool {
        entry.is_used() && u64::from(second).saturating_sub(entry.seen) < self.ageing
    }

    fn find(&self, address: IpAddr, second: u32) -> Option<(&Place, Entry)> {
        let key = key(address);
        let set = self.set(key);
        let entries = set.read()?;
        let is_it = |entry: &Entry| entry.address == key && self.is_fresh(entry, second);
        let at = entries.iter().position(is_it)?;
        Some((&set.places[at], entries[at]))
    }

    /// What an address is bound to.
    pub(crate) fn lookup(&self, address: IpAddr, second: u32) -> Option<Binding> {
        self.find(address, second).map(|(_, entry)| entry.binding())
    }

    /// Notes that a binding that is known was heard of again, and says whether it is known.
    pub(crate) fn refresh(&self, address: IpAddr, binding: Binding, second: u32) -> bool {
        match self.find(address, second) {
            Some((place, entry)) if entry.binding == word(binding) => {
                // Should the place be another's by now, that one lives a moment longer.
                if entry.seen != u64::from(second) {
                    place.seen.store(second.into(), Ordering::Relaxed);
                }
                true
            }
            _ => false,
        }
    }

    /// Binds an address, in place of whatever it was bound to. Where there is no room, the binding gives way that was heard of
    /// longest ago.
    pub(crate) fn hear(&self, address: IpAddr, binding: Binding, second: u32) -> Heard {
        let key = key(address);
        let heard = self.set(key).write(|entries, places| {
            let same = entries.iter().position(|entry| entry.is_used() && entry.address == key);
            let age = |entry: &Entry| match self.is_fresh(entry, second) {
                true => entry.seen + 1,
                false => 0,
            };
            let oldest = (0..WAYS).min_by_key(|at| age(&entries[*at])).unwrap_or(0);
            let known = same.is_some_and(|at| entries[at].binding == word(binding));
            places[same.unwrap_or(oldest)].store(key, word(binding), second.into());
            if known { Heard::Known } else { Heard::New }
        });
        heard.unwrap_or(Heard::Later)
    }

    /// Forgets an address, unless somebody else is writing, and says whether it is forgotten.
    pub(crate) fn forget(&self, address: IpAddr) -> bool {
        let key = key(address);
        let forgotten = self.set(key).write(|entries, places| {
            for (entry, place) in entries.iter().zip(places) {
                if entry.is_used() && entry.address == key {
                    place.store([0; 2], 0, 0);
                }
            }
        });
        forgotten.is_some()
    }

    /// Forgets an address, however often somebody else is writing at first: for the control plane.
    pub(crate) fn forget_surely(&self, address: IpAddr) {
        // A writer is a few instructions away from its end, unless its thread was put to sleep just then; what is left
        // over for that is forgotten in its time.
        for _ in 0..PATIENCE {
            if self.forget(address) {
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Whether an address is bound, or was until its time was over.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let key = key(address);
        let is_it = |entry: &Entry| entry.is_used() && entry.address == key;
        self.set(key).read().is_some_and(|entries| entries.iter().any(is_it))
    }

    /// All bindings with their age in seconds, in no order; those of a set that changes meanwhile may be missing.
    pub(crate) fn list(&self, second: u32) -> impl Iterator<Item = (IpAddr, Binding, u32)> {
        let entries = self.sets.iter().filter_map(Set::read).flatten();
        entries.filter(move |entry| self.is_fresh(entry, second)).map(move |entry| {
            let age = u64::from(second).saturating_sub(entry.seen);
            (address(entry.address), entry.binding(), age as u32)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn ip(n: u8) -> IpAddr {
        if n.is_multiple_of(2) {
            [10, 0, 0, n].into()
        } else {
            [0xfd00, 0, 0, 0, 0, 0, 0, n.into()].into()
        }
    }

    fn binding(n: u8, router: bool) -> Binding {
        Binding { mac: MacAddr([2, 0, 0, 0, 0, n]).into(), router }
    }

    proptest! {
        /// As long as there is room, it is a map whose entries expire.
        #[test]
        fn it_is_a_map_that_forgets(steps in prop::collection::vec((0..5_u8, 0..16_u8, any::<u8>(), 0..4_u32), 1..200)) {
            let table = Snooped::new(64, Some(10), 7);
            let mut model: HashMap<IpAddr, (Binding, u32)> = HashMap::new();
            let mut now = 0;
            for (what, n, mac, wait) in steps {
                now += wait;
                model.retain(|_, (_, seen)| now - *seen < 10);
                let (address, binding) = (ip(n), binding(mac % 3, mac > 99));
                match what {
                    0 => {
                        prop_assert!(table.forget(address));
                        model.remove(&address);
                    }
                    1 => {
                        let known = model.get_mut(&address).filter(|(known, _)| *known == binding);
                        prop_assert_eq!(table.refresh(address, binding, now), known.is_some());
                        known.into_iter().for_each(|(_, seen)| *seen = now);
                    }
                    _ => {
                        prop_assert_ne!(table.hear(address, binding, now), Heard::Later);
                        model.insert(address, (binding, now));
                    }
                }
                for n in 0..16 {
                    let expected = model.get(&ip(n)).map(|(binding, _)| *binding);
                    prop_assert_eq!(table.lookup(ip(n), now), expected);
                }
                prop_assert_eq!(table.list(now).count(), model.len());
                prop_assert!(table.list(now).all(|(ip, binding, age)| model[&ip] == (binding, now - age)));
            }
        }
    }

    #[test]
    fn who_was_heard_of_longest_ago_makes_room() {
        let table = Snooped::new(0, None, 1);
        assert_eq!(table.sets.len(), 1);
        for n in 0..8 {
            table.hear(ip(n), binding(n, false), n.into());
        }
        assert!(table.refresh(ip(0), binding(0, false), 100));
        table.hear(ip(8), binding(8, false), 101);
        let known: Vec<bool> = (0..9).map(|n| table.lookup(ip(n), 101).is_some()).collect();
        assert_eq!(known, [true, false, true, true, true, true, true, true, true]);
    }

    /// A reader sees what one writer wrote, and never a part of one and of another.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "threads that read and write at one time")]
    fn nobody_sees_half_a_binding() {
        let table = Snooped::new(1, None, 1);
        std::thread::scope(|scope| {
            for n in [1, 3] {
                let table = &table;
                scope.spawn(move || {
                    for second in 0..20_000 {
                        table.hear(ip(n), binding(n, true), second);
                        table.forget(ip(n));
                    }
                });
            }
            for _ in 0..20_000 {
                for (address, found, _) in table.list(0) {
                    assert!([1, 3].iter().any(|n| ip(*n) == address && found == binding(*n, true)));
                }
            }
        });
    }
}
