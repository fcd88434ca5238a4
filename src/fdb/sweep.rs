//! Going through the table: ageing, cleaning up after flushes, listing.

use std::hint::spin_loop;
use std::time::Duration;

use super::entry::MAX_AGE;
use super::evict::Resident;
use super::names::{Chores, MAC_BITS};
use super::{Domain, Entry, Fdb, Removed};
use crate::sync::Ordering;
use crate::wire::MacAddr;

/// Buckets that a sweep goes through in one go: 128 KiB, some tens of microseconds.
const STEP: usize = 2048;

/// Longest time for all of the table, in seconds.
const LONGEST_PASS: u32 = 60;

/// Longest time between two steps.
const TICK: Duration = Duration::from_secs(1);

/// Times that a claim is tried for by who can wait a moment.
const TRIES: usize = 10_000;

impl Fdb {
    /// Removes what is past its time or behind what is retired from the next part of the table, hands what was past its
    /// time to `removed`, and says after how long to call again: a second or less.
    ///
    /// Lookups trust no such entry in any case; this is what gives their room back. Kept up like this, it takes
    /// an eighth of the shortest ageing time to come by everywhere, and a second after anything was retired. One call goes through 128 KiB at most, some tens of microseconds.
    pub fn sweep(&self, second: u32, mut removed: impl FnMut(Removed)) -> Duration {
        let Some(Chores { released, shortest_ageing }) = self.names.chores() else { return TICK };
        let pass = match shortest_ageing {
            _ if released || self.has_retired() => 1,
            Some(ageing) => (ageing / 8).clamp(1, LONGEST_PASS),
            None => LONGEST_PASS,
        };
        let buckets = self.table().len().div_ceil(pass as usize);
        let turn = self.swept.fetch_add(buckets.min(STEP) as u64, Ordering::Relaxed);
        self.clean(self.table().run(turn, buckets.min(STEP)), second, &mut removed);
        TICK / u32::try_from(buckets.div_ceil(STEP)).unwrap_or(u32::MAX)
    }

    /// Removes the entries of everything that is retired, in one go.
    pub(super) fn sweep_retired(&self) {
        let retired = |entry: &Resident<'_>| self.names.is_retired(entry.key, entry.value.place());
        for resident in self.residents(0..self.table().len()).filter(retired) {
            // Which second it is does not matter: nobody is told about what was retired.
            self.remove(&resident, 0, &mut |_| ());
        }
    }

    /// Whether anything was retired since a pass through all of the table began.
    fn has_retired(&self) -> bool {
        let swept = self.swept.load(Ordering::Relaxed);
        let retirements = self.names.retirements();
        if self.cleaned.swap(retirements, Ordering::Relaxed) != retirements {
            self.clean_at.store(swept + self.table().len() as u64, Ordering::Relaxed);
        }
        swept < self.clean_at.load(Ordering::Relaxed)
    }

    fn clean(
        &self,
        buckets: impl Iterator<Item = usize>,
        second: u32,
        removed: &mut impl FnMut(Removed),
    ) {
        for resident in self.residents(buckets) {
            let Resident { slot, key, value } = resident;
            if self.is_dead(key, value, second) {
                self.remove(&resident, second, removed);
            } else if value.age(second) >= MAX_AGE {
                // Where nothing ages: before the clock in the entry wraps and it looks young again.
                slot.change(value, value.oldest(second));
            }
        }
    }

    /// The entries of a domain, in no order. One that changes its slot meanwhile can be missed.
    #[must_use]
    pub fn list(&self, domain: &Domain, second: u32) -> Vec<Entry> {
        self.entries_of(domain, second).collect()
    }

    /// The same one by one, each read as it comes up.
    pub fn entries_of(&self, domain: &Domain, second: u32) -> impl Iterator<Item = Entry> {
        self.residents_of(domain).filter_map(move |resident| self.listed(&resident, second))
    }

    /// Removes the entries of a domain that were not seen for `age` seconds.
    pub fn remove_older(&self, domain: &Domain, age: u32, second: u32) {
        for resident in self.residents_of(domain).filter(|entry| entry.value.age(second) >= age) {
            self.remove(&resident, second, &mut |_| ());
        }
    }

    /// Whether there is an entry of a MAC address, however old.
    #[must_use]
    pub fn contains(&self, domain: &Domain, mac: MacAddr) -> bool {
        let key = domain.key(mac.to_u64());
        self.resident_of(key, self.table().pair(self.table().hash(key)))
            .is_some_and(|entry| !self.names.is_retired(key, entry.value.place()))
    }

    /// Removes the entry of a MAC address, and says whether there was one.
    pub fn forget(&self, domain: &Domain, mac: MacAddr) -> bool {
        let key = domain.key(mac.to_u64());
        let hash = self.table().hash(key);
        // So that no worker moves it out of our sight; those hold a claim for less than a microsecond, if they run.
        let _claim = (0..TRIES).find_map(|_| {
            spin_loop();
            self.claims.take(self.claims.part(hash))
        });
        let found = self.resident_of(key, self.table().pair(hash));
        found.is_some_and(|resident| {
            let Some((taken, value)) = resident.slot.take_entry(resident.value) else {
                return false;
            };
            self.names.leave_place(value.place());
            self.names.leave_domain(key);
            drop(taken);
            !self.names.is_retired(key, value.place())
        })
    }

    fn residents_of<'a>(&'a self, domain: &Domain) -> impl Iterator<Item = Resident<'a>> {
        let own = domain.key(0) >> MAC_BITS;
        // An empty domain is nowhere, and most are when their tables are made.
        let buckets = if domain.entries() == 0 { 0 } else { self.table().len() };
        self.residents(0..buckets).filter(move |entry| entry.key >> MAC_BITS == own)
    }

    fn listed(&self, resident: &Resident<'_>, second: u32) -> Option<Entry> {
        // Read once more together with what its place stands for.
        let (key, value, place) = resident.slot.read_with(|place| self.names.label(place))?;
        let alive = key == resident.key && !self.is_dead(key, value, second);
        let entry = Entry { mac: MacAddr::from_u64(key), place: place?, age: value.age(second) };
        alive.then_some(entry)
    }
}
