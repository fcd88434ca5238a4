//! IPv4 routes compiled for lookup: two steps by 6 bits, then bitmaps.
//!
//! ```text
//! root[64] ─▶ page[64] ─▶ chunk of a /12: block[64] ─▶ leaves
//!  6 bits      6 bits      6 bits choose a /18          6 bits: bitmap and rank
//! ```
//!
//! A *chunk* has a *block* for each /18: a bitmap of its 64 /24 prefixes, with a bit where a run of equal leaves begins,
//! and the index of its last leaf. So a leaf is found by counting bits, as in Poptrie (Asai and Ohara, SIGCOMM 2015).
//! Where a /24 is not of one value, its leaf names a line of four blocks for its 256 addresses. Leaves take two bytes.
//! A *dense* chunk, with many routes or large values, is one in name only: each of its /16 prefixes is compiled on its
//! own, with leaves of four bytes.
//!
//! Prefixes of /12 and shorter are not in the chunks. The longest of them around a chunk is its *cover*, the answer
//! where the chunk has none. So no change of a route compiles more than one chunk.

mod compile;
mod update;

use std::sync::Arc;

use multiversion::multiversion;

use super::NextHopId;
use super::runs::Code;
pub(super) use update::Pending;

/// Bits of the address that choose a chunk.
const CHUNK_BITS: u8 = 12;

/// Bits of the address that choose a part of a dense chunk.
const PART_BITS: u8 = 16;

/// 64 slots. Aligned, so that it is in one cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(16))]
struct Block {
    /// From the second slot on, for the first one always begins a run.
    bitmap: u64,
    /// Index of the last leaf.
    end: u32,
}

/// 256 slots.
type Line = [Block; 4];

/// A /12.
#[derive(Clone, Debug)]
struct Entry {
    chunk: Arc<Chunk>,
    /// The leaves of the chunk; none if it is dense.
    leaves: Arc<[u16]>,
    cover: Code,
    /// Length of the prefix that the cover is from.
    cover_len: u8,
}

/// What a chunk has beside its leaves.
#[derive(Debug)]
struct Chunk {
    blocks: [Block; 64],
    other: Other,
}

/// What few lookups need.
#[derive(Debug)]
enum Other {
    /// The lines that leaves name.
    Below(Box<[Line]>),
    /// The /16 prefixes, if the chunk is dense.
    Dense(Box<[Part; 16]>),
}

/// A /16 of a dense /12.
#[derive(Clone, Debug, Default)]
struct Part {
    /// Its own line, then those that leaves name.
    lines: Arc<[Line]>,
    leaves: Arc<[u32]>,
    cover: Code,
    /// Number of routes in it.
    routes: usize,
}

type Page = [Entry; 64];

/// The compiled routes.
#[derive(Clone, Debug)]
pub(super) struct Table {
    root: Arc<[Arc<Page>; 64]>,
    /// A chunk without routes. One for all of them, so that to miss takes the same way everywhere.
    nothing: Entry,
}

impl Table {
    pub(super) fn new() -> Self {
        let (blocks, other) = ([Block::default(); 64], Other::Below(Box::default()));
        let chunk = Arc::new(Chunk { blocks, other });
        let nothing = Entry { chunk, leaves: [0].into(), cover: 0, cover_len: 0 };
        let page = Arc::new(std::array::from_fn(|_| nothing.clone()));
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
        let chunks = entries.filter(|entry| !Arc::ptr_eq(&entry.chunk, &self.nothing.chunk));
        let chunks: usize = chunks.chain([&self.nothing]).map(Entry::memory).sum();
        size_of::<[Arc<Page>; 64]>() + pages.len() * size_of::<Page>() + chunks
    }
}

/// Counting bits takes one instruction where the processor has it, and a dozen where it may not be used.
#[multiversion(targets("x86_64+popcnt+bmi1+bmi2+lzcnt"))]
fn lookup_batch(table: &Table, addresses: &[u32], next_hops: &mut [Option<NextHopId>]) {
    for (address, next_hop) in addresses.iter().zip(next_hops) {
        *next_hop = table.lookup(*address);
    }
}

impl Entry {
    /// Index of the leaf for an address; the chunk may have no leaves.
    #[inline(always)]
    fn index(&self, address: u32) -> usize {
        self.chunk.blocks[(address >> 14 & 63) as usize].index(address >> 8)
    }

    /// The next hop of an address of which the index is known.
    #[inline(always)]
    fn next_hop(&self, index: usize, address: u32) -> Option<NextHopId> {
        let found = match self.leaves.get(index) {
            // Both what is rare in one comparison: no leaf here, and a line of single addresses.
            Some(leaf) if leaf.cast_signed() > 0 => return NextHopId::from_code((*leaf).into()),
            Some(0) => 0,
            Some(line) => self.below(*line & !NARROW_CHILD, address),
            None => self.in_part(address),
        };
        NextHopId::from_code(or_cover(found, self.cover))
    }

    #[inline]
    fn below(&self, line: u16, address: u32) -> Code {
        let Other::Below(lines) = &self.chunk.other else { return 0 };
        let line = lines.get(usize::from(line));
        let index = line.map(|line| line[(address >> 6 & 3) as usize].index(address));
        index.and_then(|index| self.leaves.get(index)).map_or(0, |leaf| (*leaf).into())
    }

    #[inline(never)]
    fn in_part(&self, address: u32) -> Code {
        let Other::Dense(parts) = &self.chunk.other else { return 0 };
        parts[(address >> 16 & 15) as usize].lookup(address)
    }

    fn memory(&self) -> usize {
        let other = match &self.chunk.other {
            Other::Below(lines) => size_of_val(&**lines),
            Other::Dense(parts) => {
                size_of_val(&**parts) + parts.iter().map(Part::memory).sum::<usize>()
            }
        };
        size_of::<Chunk>() + size_of_val(&*self.leaves) + other
    }
}

impl Part {
    fn lookup(&self, address: u32) -> Code {
        let leaf = |line: u32, block: u32, slot| {
            let line = self.lines.get(line as usize);
            let index = line.map(|line| line[(block & 3) as usize].index(slot));
            index.and_then(|index| self.leaves.get(index)).copied().unwrap_or(0)
        };
        let found = match leaf(0, address >> 14, address >> 8) {
            line if line & CHILD != 0 => leaf(line & !CHILD, address >> 6, address),
            found => found,
        };
        or_cover(found, self.cover)
    }

    fn memory(&self) -> usize {
        size_of_val(&*self.lines) + size_of_val(&*self.leaves)
    }
}

impl Block {
    /// Index of the leaf for a slot, of which 6 bits count.
    #[inline(always)]
    fn index(&self, slot: u32) -> usize {
        let after = (self.bitmap >> (slot & 63)).count_ones();
        self.end.wrapping_sub(after) as usize
    }
}

/// Marks a leaf that names a line, among those of four bytes.
const CHILD: u32 = 1 << 31;

/// The same, among those of two.
const NARROW_CHILD: u16 = 1 << 15;

#[inline(always)]
fn or_cover(found: Code, cover: Code) -> Code {
    if found == 0 { cover } else { found }
}
