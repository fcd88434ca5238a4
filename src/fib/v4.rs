//! IPv4 routes compiled for lookup: two steps by 6 bits, then bitmaps.
//!
//! ```text
//! root[64] ─▶ page[64] ─▶ chunk of a /12: a line for each /16 ─▶ leaves
//!  6 bits      6 bits      4 bits, then 3 bits choose a block     5 bits: bitmap and rank
//! ```
//!
//! A *chunk* is a row of cache lines. The first sixteen are its /16 prefixes, each eight *blocks* of 32 /24 prefixes. A
//! block has a bitmap with a bit where a run of equal leaves begins, and the index of its first leaf; so a leaf is
//! found by counting bits, as in Poptrie (Asai and Ohara, SIGCOMM 2015). Where a /24 is not of one value, its leaf
//! names a line of the same kind for its 256 addresses. A leaf takes two bytes, or four in a chunk with large values.
//!
//! Prefixes of /12 and shorter are not in the chunks. The longest of them around a chunk is its *cover*, the answer
//! where the chunk has none. So no change of a route compiles more than one chunk.

mod compile;
mod update;

use std::sync::Arc;

use compile::compile;
use multiversion::multiversion;

use super::NextHopId;
use super::runs::Code;
pub(super) use update::Pending;

/// Number of lookups that are made in step, so that they wait for memory together.
const IN_STEP: usize = 8;

/// Bits of the address that choose a chunk.
const CHUNK_BITS: u8 = 12;

/// Bits of the address that choose a part of a dense chunk.
const PART_BITS: u8 = 16;

/// 64 bytes of a chunk: eight blocks, or leaves.
///
/// A block is its bitmap and, in units of leaves, the index of its first leaf minus one; low halves first.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line([u16; 32]);

/// A /12.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// The chunk, if its leaves are narrow, else no lines.
    lines: Arc<[Line]>,
    /// What else it can be.
    other: Option<Arc<Other>>,
    cover: Code,
    /// Length of the prefix that the cover is from.
    cover_len: u8,
}

/// What is too large for the common case.
#[derive(Debug)]
enum Other {
    /// A chunk with wide leaves.
    Wide(Box<[Line]>),
    /// A chunk for each /16, so that none takes long to compile.
    Dense(Box<[Part; 16]>),
}

/// A /16 of a dense /12.
#[derive(Clone, Debug, Default)]
struct Part {
    lines: Arc<[Line]>,
    wide: bool,
    cover: Code,
    /// Number of routes in the chunk.
    routes: usize,
}

type Page = [Entry; 64];

/// The compiled routes.
#[derive(Clone, Debug)]
pub(super) struct Table {
    root: Arc<[Arc<Page>; 64]>,
    /// A chunk without routes. One for all of them, so that to miss takes the same way everywhere.
    nothing: Arc<[Line]>,
}

impl Table {
    pub(super) fn new() -> Self {
        let nothing: Arc<[Line]> = compile::<Vec<_>>(&vec![(0, 0)], 0, 16).0.into();
        let entry = Entry { lines: Arc::clone(&nothing), ..Entry::default() };
        let page = Arc::new(std::array::from_fn(|_| entry.clone()));
        Self { root: Arc::new(std::array::from_fn(|_| Arc::clone(&page))), nothing }
    }

    #[inline(always)]
    pub(super) fn lookup(&self, address: u32) -> Option<NextHopId> {
        let entry = self.entry(address);
        entry.next_hop(entry.index(address), address)
    }

    #[inline(always)]
    fn entry(&self, address: u32) -> &Entry {
        &self.root[(address >> 26) as usize][(address >> 20 & 63) as usize]
    }

    #[inline]
    pub(super) fn lookup_batch(&self, addresses: &[u32], next_hops: &mut [Option<NextHopId>]) {
        lookup_batch(self, addresses, next_hops);
    }

    /// Bytes.
    pub(super) fn memory(&self) -> usize {
        let mut pages: Vec<_> = self.root.iter().map(Arc::as_ptr).collect();
        pages.sort_unstable();
        pages.dedup();
        let entries = self.root.iter().flat_map(|page| page.iter());
        let chunks = entries.filter(|entry| !Arc::ptr_eq(&entry.lines, &self.nothing));
        let chunks: usize = chunks.map(Entry::memory).sum();
        let pages = pages.len() * size_of::<Page>();
        size_of::<[Arc<Page>; 64]>() + pages + size_of_val(&*self.nothing) + chunks
    }
}

/// Counting bits takes one instruction where the processor has it, and a dozen where it may not be used.
#[multiversion(targets("x86_64+popcnt+bmi1+bmi2+lzcnt"))]
fn lookup_batch(table: &Table, addresses: &[u32], next_hops: &mut [Option<NextHopId>]) {
    let count = addresses.len().min(next_hops.len());
    let (some, rest) = addresses[..count].as_chunks::<IN_STEP>();
    let (some_hops, rest_hops) = next_hops[..count].as_chunks_mut::<IN_STEP>();
    for (addresses, next_hops) in some.iter().zip(some_hops) {
        // Loops, for closures that are handed to functions may miss the instructions of the caller.
        let mut found = [(&table.root[0][0], 0); IN_STEP];
        for (found, address) in found.iter_mut().zip(addresses) {
            let entry = table.entry(*address);
            *found = (entry, entry.index(*address));
        }
        for ((next_hop, (entry, index)), address) in next_hops.iter_mut().zip(&found).zip(addresses)
        {
            *next_hop = entry.next_hop(*index, *address);
        }
    }
    for (address, next_hop) in rest.iter().zip(rest_hops) {
        *next_hop = table.lookup(*address);
    }
}

impl Entry {
    /// Index of the leaf for an address, which there is not if the chunk is not of the common kind.
    #[inline(always)]
    fn index(&self, address: u32) -> usize {
        let line = self.lines.get((address >> 16 & 15) as usize);
        line.map_or(usize::MAX, |line| line.index(address >> 13, address >> 8))
    }

    /// The next hop of an address of which the index is known.
    #[inline(always)]
    fn next_hop(&self, index: usize, address: u32) -> Option<NextHopId> {
        let Some(line) = self.lines.get(index >> 5) else {
            return NextHopId::from_code(self.lookup_other(address));
        };
        let leaf = u32::from(line.0[index & 31]);
        // Both what is rare: no leaf here, and a line of single addresses.
        if leaf.wrapping_sub(1) >= NARROW_CHILD - 1 {
            let found = below::<false>(&self.lines, leaf, address);
            return NextHopId::from_code(or_cover(found, self.cover));
        }
        NextHopId::from_code(leaf)
    }

    #[inline(never)]
    fn lookup_other(&self, address: u32) -> Code {
        let found = match self.other.as_deref() {
            None => 0,
            Some(Other::Wide(lines)) => walk::<true>(lines, (address >> 16 & 15) as usize, address),
            Some(Other::Dense(parts)) => {
                let part = &parts[(address >> 16 & 15) as usize];
                let found = if part.wide {
                    walk::<true>(&part.lines, 0, address)
                } else {
                    walk::<false>(&part.lines, 0, address)
                };
                or_cover(found, part.cover)
            }
        };
        or_cover(found, self.cover)
    }

    fn memory(&self) -> usize {
        let other = match self.other.as_deref() {
            None => 0,
            Some(Other::Wide(lines)) => size_of::<Other>() + size_of_val(&**lines),
            Some(Other::Dense(parts)) => {
                let lines: usize = parts.iter().map(|part| size_of_val(&*part.lines)).sum();
                size_of::<Other>() + size_of_val(&**parts) + lines
            }
        };
        size_of_val(&*self.lines) + other
    }
}

impl Line {
    /// Index of the leaf for a slot of a block: 3 bits and 5 bits count.
    #[inline(always)]
    fn index(&self, block: u32, slot: u32) -> usize {
        let at = (block & 7) as usize * 4;
        let bitmap = u32::from(self.0[at]) | u32::from(self.0[at + 1]) << 16;
        let before = u32::from(self.0[at + 2]) | u32::from(self.0[at + 3]) << 16;
        let up_to = bitmap << (!slot & 31);
        before.wrapping_add(up_to.count_ones()) as usize
    }
}

/// From here on, a leaf names a line.
const NARROW_CHILD: u32 = 1 << 15;
const WIDE_CHILD: u32 = 1 << 31;

const fn child_flag(wide: bool) -> u32 {
    if wide { WIDE_CHILD } else { NARROW_CHILD }
}

#[inline(always)]
fn leaf<const WIDE: bool>(lines: &[Line], index: usize) -> u32 {
    let half = |index: usize| lines.get(index >> 5).map_or(0, |line| u32::from(line.0[index & 31]));
    if WIDE { half(2 * index) | half(2 * index + 1) << 16 } else { half(index) }
}

/// What a leaf says: its value, or that of the line it names.
#[inline]
fn below<const WIDE: bool>(lines: &[Line], value: u32, address: u32) -> Code {
    if value & child_flag(WIDE) == 0 {
        return value;
    }
    let line = lines.get((value & !child_flag(WIDE)) as usize);
    line.map_or(0, |line| leaf::<WIDE>(lines, line.index(address >> 5, address)))
}

fn walk<const WIDE: bool>(lines: &[Line], top: usize, address: u32) -> Code {
    let Some(line) = lines.get(top) else { return 0 };
    below::<WIDE>(lines, leaf::<WIDE>(lines, line.index(address >> 13, address >> 8)), address)
}

#[inline(always)]
fn or_cover(found: Code, cover: Code) -> Code {
    if found == 0 { cover } else { found }
}
