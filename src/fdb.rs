//! The learned part of FDBs: MAC address → port or VTEP, for all segments and all threads in one table of fixed size.
//!
//! An [`Fdb`] can be used alone. It is divided into [`Domain`]s, one for each segment, and MAC addresses are at
//! [`Place`]s: ports and VTEPs of one segment. Both are handles that the caller keeps and gives up by dropping them, and
//! both have a label, by which the table speaks of them.
//! Times are whole seconds since any origin, see [`seconds`].
//!
//! ```
//! use overplane::MacAddr;
//! use overplane::fdb::{Fdb, Learned, Limits};
//!
//! let fdb = Fdb::new(65_536)?; // 1.5 MiB, of which the system gives what is used
//! let red = fdb.add_domain(Limits::default(), 0).ok_or("too many domains")?;
//! let (left, right) = (fdb.add_place(1).ok_or("too many places")?, fdb.add_place(2).ok_or("too many places")?);
//! let host = MacAddr([2, 0, 0, 0, 0, 1]);
//!
//! // From here on any thread may call; nobody waits for anybody.
//! assert_eq!(fdb.learn(&red, host, &left, 7, |_| ()), Learned::New);
//! assert_eq!(fdb.lookup(&red, host, 8), Some(1));
//! assert_eq!(fdb.learn(&red, host, &right, 9, |_| ()), Learned::Moved { from: 1 });
//!
//! // To flush a place: a new one takes over, and the old one is retired.
//! let right_again = fdb.add_place(2).ok_or("too many places")?;
//! right.retire();
//! drop(right);
//! assert_eq!(fdb.lookup(&red, host, 9), None);
//!
//! // Once a second or more often: what is past its time makes room.
//! fdb.sweep(400, |removed| println!("{} is gone", removed.mac));
//! # drop(right_again);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//!
//! - **Looking up** takes no lock, writes nothing, reads one cache line for nine entries of ten and two at most, and never
//!   gives a place that another MAC address is at. An entry that changes in this very moment may read as unknown.
//! - **Learning** what is known already costs a lookup, and one compare-exchange a second to refresh the age. What is new
//!   is inserted without waiting: if another thread is at the same part of the table, it is learned from its next frame.
//! - **A flush is one store**, for a place or for a whole domain, however many entries there are: entries carry the number
//!   of their domain and place, and a number that is retired means nothing. [`Fdb::sweep`] clears up behind.
//! - **Moves** are followed at once, but an address that moved does not move again within the same second: two stations
//!   that fight for it cost a move a second, not one a frame.
//! - **Where there is no room** ([`Limits`], or the table is full), an entry of whoever holds the most gives way: of the
//!   largest domain, and in it of the largest place, of those in reach the one not seen for the longest. Nobody
//!   displaces entries of a smaller one, so one that floods displaces its own.
//!
//! # How it is built
//!
//! Buckets of a cache line with four entries each; a key is in one of two buckets, by two hashes under a seed of its own.
//! At full load, seven slots of ten are in use: 23 bytes for each entry. Where both buckets of a newcomer are full, an
//! entry that can goes to its other bucket (cuckoo hashing, one step). An entry is two words of 64 bits, and its value
//! word is its lock and version at once; the file `entry.rs` has the protocol, `tests/loom.rs` runs it through all
//! orders of events.

mod claims;
mod entry;
mod evict;
mod learn;
mod names;
mod sweep;
mod table;
#[cfg(all(test, not(overplane_loom)))]
#[allow(clippy::unwrap_used)]
mod tests;
mod view;

use std::fmt;
use std::time::Duration;

use crate::Error;
use crate::hash::random_seed;
use crate::sync::{Arc, AtomicU64};
use crate::wire::MacAddr;
use claims::Claims;
use entry::MAX_PLACE;
use names::{MAX_DOMAIN, Names};
use table::{Memory, Table, WAYS};
use view::AHEAD;

pub use names::{Domain, MAX_AGEING, Place};
pub(crate) use view::View;

/// Largest capacity of a table, and largest limit of a domain, in entries.
pub const MAX_CAPACITY: usize = 1 << 20;

/// Capacity of a table unless something else is asked for, in entries.
pub const DEFAULT_CAPACITY: usize = 65_536;

/// Ageing time of learned entries unless something else is asked for, as in Linux's bridge and VXLAN devices (IEEE
/// 802.1Q-2018 table 8-6).
pub const DEFAULT_AGEING: Duration = Duration::from_secs(300);

/// Limit of entries of a domain unless something else is asked for.
pub const DEFAULT_LIMIT: usize = 8_192;

/// Places that a table can name unless something else is asked for.
const DEFAULT_PLACES: u32 = 1 << 20;

/// What holds for the entries of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest number of entries.
    pub entries: usize,
    /// Largest number of entries at one place; `None` means no limit of its own.
    pub entries_per_place: Option<usize>,
    /// What becomes of a newcomer at a limit or when the table is full: with `true` an entry of whoever holds the most
    /// gives way to it, with `false` it is refused.
    pub evict: bool,
    /// Time after which an entry that was not refreshed is forgotten, in whole seconds from 1 to [`MAX_AGEING`]; `None`
    /// means never.
    pub ageing: Option<Duration>,
}

impl Default for Limits {
    /// [`DEFAULT_LIMIT`] entries, [`DEFAULT_AGEING`], none per place, eviction.
    fn default() -> Self {
        Self {
            entries: DEFAULT_LIMIT,
            entries_per_place: None,
            evict: true,
            ageing: Some(DEFAULT_AGEING),
        }
    }
}

/// What became of an attempt to learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Learned {
    /// The address was known to be there.
    Known,
    /// The address was unknown and is now known.
    New,
    /// The address was known elsewhere.
    Moved {
        /// Label of the place where it was.
        from: u32,
    },
    /// The address is known elsewhere and came there only in this second: it stays until the next.
    MovedAlready,
    /// There is no room, and nothing may be evicted for it.
    Full,
    /// Another thread was at the same part of the table: to be learned from a later frame.
    Later,
}

/// One learned entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The MAC address.
    pub mac: MacAddr,
    /// Label of the place where it is.
    pub place: u32,
    /// Seconds since a frame from it was last seen; counts no further than three days.
    pub age: u32,
}

/// An entry that is no more, though nobody flushed it or asked for its removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Label of its domain.
    pub domain: u64,
    /// The MAC address.
    pub mac: MacAddr,
    /// Label of the place where it was.
    pub place: u32,
    /// Whether it was past its time; otherwise it had to make room.
    pub expired: bool,
}

/// The coarse clock of a table: whole seconds.
#[must_use]
pub fn seconds(now: Duration) -> u32 {
    now.as_secs().min(u64::from(u32::MAX)) as u32
}

/// A table of learned MAC addresses; see the [module](self).
pub struct Fdb {
    memory: Memory,
    claims: Claims,
    names: Arc<Names>,
    capacity: usize,
    /// Where the next search for somebody to evict starts, in buckets from the beginning of time.
    hand: AtomicU64,
    /// Where the next part of a sweep starts, alike.
    swept: AtomicU64,
    /// Retirements of names that a sweep has noticed, and where it will have been everywhere since.
    cleaned: AtomicU64,
    clean_at: AtomicU64,
}

impl fmt::Debug for Fdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fdb").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl Fdb {
    /// Makes an empty table for `capacity` entries, 1 to [`MAX_CAPACITY`].
    ///
    /// There is nearly always room for some more. Memory is 23 bytes for each entry that it is made for, and 16 for each
    /// place in use; the system gives it when it is used first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another capacity.
    pub fn new(capacity: usize) -> Result<Self, Error> {
        Self::with_names(capacity, MAX_DOMAIN, DEFAULT_PLACES)
    }

    /// As [`Fdb::new`], for so many domains (up to 65,535) and places (up to 16,777,214) at a time; those that were
    /// dropped and not swept yet count, too. The default is 65,535 and 1,048,576.
    ///
    /// # Errors
    /// [`Error::Invalid`] for other numbers.
    pub fn with_names(capacity: usize, domains: u32, places: u32) -> Result<Self, Error> {
        if !(1..=MAX_CAPACITY).contains(&capacity) {
            return Err(Error::invalid(
                "FDB capacity",
                capacity.to_string(),
                "1 to 1048576 entries",
            ));
        }
        if !(1..=MAX_DOMAIN).contains(&domains) {
            return Err(Error::invalid("number of FDB domains", domains.to_string(), "1 to 65535"));
        }
        if !(1..=MAX_PLACE).contains(&places) {
            return Err(Error::invalid(
                "number of FDB places",
                places.to_string(),
                "1 to 16777214",
            ));
        }
        let memory = Memory::new(capacity, random_seed());
        Ok(Self {
            claims: Claims::new(memory.table().len() * WAYS),
            memory,
            names: Arc::new(Names::new(domains, places)),
            capacity,
            hand: AtomicU64::new(0),
            swept: AtomicU64::new(0),
            cleaned: AtomicU64::new(0),
            clean_at: AtomicU64::new(0),
        })
    }

    /// The number of entries that it was made for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Size of the table in bytes, without the names.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Adds a domain, without entries. `label` is what [`Removed::domain`] will say. `None` when all names are in use.
    ///
    /// The ageing time is cut to what is possible.
    #[must_use]
    pub fn add_domain(&self, limits: Limits, label: u64) -> Option<Domain> {
        self.with_a_sweep(|| Domain::new(&self.names, limits, label))
    }

    /// Adds a place, without entries. `label` is what [`Fdb::lookup`] and the rest will say. `None` when all names are
    /// in use.
    #[must_use]
    pub fn add_place(&self, label: u32) -> Option<Place> {
        self.with_a_sweep(|| Place::new(&self.names, label))
    }

    /// Tries once more after a sweep if the names have run out.
    fn with_a_sweep<T>(&self, add: impl Fn() -> Option<T>) -> Option<T> {
        add().or_else(|| {
            self.sweep_retired();
            add()
        })
    }

    #[inline(always)]
    fn table(&self) -> Table<'_> {
        self.memory.table()
    }

    /// What lookups in a domain go by, gathered once for many of them.
    #[inline(always)]
    pub(crate) fn view<'a>(&'a self, domain: &Domain) -> View<'a> {
        View {
            table: self.table(),
            domain: domain.key(0),
            ageing: domain.ageing(),
            labels: self.names.labels(),
        }
    }

    /// The label of the place where a MAC address was last seen, unless that is longer ago than the ageing time.
    #[inline]
    #[must_use]
    pub fn lookup(&self, domain: &Domain, mac: MacAddr, second: u32) -> Option<u32> {
        self.view(domain).lookup(mac.into(), second)
    }

    /// [`Fdb::lookup`] of many addresses, which waits for the memory of all of them at once: `found[n]` is for
    /// `macs[n]`.
    ///
    /// # Panics
    /// When the slices are not of one length.
    pub fn lookup_batch(
        &self,
        domain: &Domain,
        macs: &[MacAddr],
        second: u32,
        found: &mut [Option<u32>],
    ) {
        assert_eq!(macs.len(), found.len(), "a place to put each answer");
        let view = self.view(domain);
        for (macs, found) in macs.chunks(AHEAD).zip(found.chunks_mut(AHEAD)) {
            view.lookup_chunk(macs, second, found);
        }
    }
}
