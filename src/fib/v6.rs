//! IPv6 routes compiled for lookup: search trees over pieces of the address space.
//!
//! ```text
//! directory ─▶ piece: a tree over the first 64 bits ─▶ next hop
//!                                    └▶ a tree over the last 64 bits, where prefixes are longer than /64
//! ```
//!
//! The address space is cut into *pieces*, each a prefix with at most some hundred routes inside, and a piece is
//! compiled as a whole. A piece of /64 or longer is one tree over the last 64 bits. The longest prefix around a piece
//! is its *cover*, the answer where the piece has none; so no change of a route compiles more than one piece, but when
//! a piece is split or two are joined.

mod compile;
mod update;

use std::sync::Arc;

use multiversion::multiversion;

use super::NextHopId;
use super::runs::Code;
use super::tree::{IN_STEP, Line, Search, run_in_step};
pub(super) use update::Pending;

/// Marks a value that is the root of a tree over the last 64 bits.
const CHILD: u32 = 1 << 31;

/// A prefix with the routes inside it.
#[derive(Clone, Debug)]
struct Piece {
    first: u128,
    len: u8,
    /// Length of the prefix that the cover is from.
    cover_len: u8,
    cover: Code,
    /// Number of routes inside.
    routes: u32,
    root: u32,
    lines: Arc<[Line]>,
    values: Arc<[u32]>,
}

impl Piece {
    fn empty(first: u128, len: u8) -> Self {
        let (lines, values) = Default::default();
        Self { first, len, cover_len: 0, cover: 0, routes: 0, root: 0, lines, values }
    }

    #[inline(always)]
    fn search(&self, address: u128) -> Search<'_> {
        let key = if self.len < 64 { (address >> 64) as u64 } else { address as u64 };
        Search::new(&self.lines, &self.values, self.root, key)
    }

    /// The next hop, after the search for it.
    #[inline(always)]
    fn next_hop(&self, mut found: Code, address: u128) -> Option<NextHopId> {
        if found & CHILD != 0 {
            found = Search::new(&self.lines, &self.values, found & !CHILD, address as u64).run();
        }
        NextHopId::from_code(if found == 0 { self.cover } else { found })
    }
}

/// The compiled routes.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// In order; together they are all addresses.
    pieces: Arc<[Piece]>,
    directory: Arc<Directory>,
}

/// Which piece an address is in.
#[derive(Debug, Default)]
struct Directory {
    /// For each /19 of the global unicast addresses the piece that it lies in, or `SPLIT`.
    ///
    /// That is one step for what would be two or three of the tree.
    global: Box<[u32]>,
    /// A tree from the first 64 bits of an address to the last piece that begins with them, or before.
    lines: Box<[Line]>,
    values: Box<[u32]>,
}

/// Says that a /19 has several pieces.
const SPLIT: u32 = u32::MAX;

impl Directory {
    /// The piece of an address, or `SPLIT`.
    #[inline(always)]
    fn at_once(&self, address: u128) -> u32 {
        // Below 2000::/3 the difference is not in the table, and neither is it above.
        let slot = (address >> 109) as usize;
        self.global.get(slot.wrapping_sub(1 << 16)).copied().unwrap_or(SPLIT)
    }

    #[inline(always)]
    fn search(&self, address: u128) -> Search<'_> {
        Search::new(&self.lines, &self.values, 0, (address >> 64) as u64)
    }
}

impl Table {
    pub(super) fn new() -> Self {
        Self { pieces: [Piece::empty(0, 0)].into(), directory: Arc::default() }
    }

    #[inline(always)]
    pub(super) fn lookup(&self, address: u128) -> Option<NextHopId> {
        let piece = match &*self.pieces {
            [only] => only,
            _ => match self.directory.at_once(address) {
                SPLIT => self.piece(self.directory.search(address).run(), address)?,
                at => self.pieces.get(at as usize)?,
            },
        };
        piece.next_hop(piece.search(address).run(), address)
    }

    /// Looks up a few addresses in step.
    #[inline(always)]
    fn lookup_few(
        &self,
        addresses: &[u128; IN_STEP],
        next_hops: &mut [Option<NextHopId>; IN_STEP],
    ) {
        let Some(first) = self.pieces.first() else { return };
        let (mut pieces, mut found) = ([first; IN_STEP], [0; IN_STEP]);
        let mut searches = [first.search(0); IN_STEP];
        if self.pieces.len() > 1 {
            let mut split = 0;
            for (found, address) in found.iter_mut().zip(addresses) {
                *found = self.directory.at_once(*address);
                split += usize::from(*found == SPLIT);
            }
            if split > IN_STEP / 2 {
                for (search, address) in searches.iter_mut().zip(addresses) {
                    *search = self.directory.search(*address);
                }
                run_in_step(&mut searches, &mut found);
            } else if split > 0 {
                for (found, address) in found.iter_mut().zip(addresses) {
                    if *found == SPLIT {
                        *found = self.directory.search(*address).run();
                    }
                }
            }
            for ((piece, found), address) in pieces.iter_mut().zip(found).zip(addresses) {
                *piece = self.piece(found, *address).unwrap_or(first);
            }
        }
        for ((search, piece), address) in searches.iter_mut().zip(pieces).zip(addresses) {
            *search = piece.search(*address);
        }
        run_in_step(&mut searches, &mut found);
        for (at, next_hop) in next_hops.iter_mut().enumerate() {
            *next_hop = pieces[at].next_hop(found[at], addresses[at]);
        }
    }

    /// The piece that an address is in, by what the directory says.
    #[inline(always)]
    fn piece(&self, found: u32, address: u128) -> Option<&Piece> {
        match self.pieces.get(found as usize)? {
            piece if piece.len <= 64 => Some(piece),
            // One of several that begin with these 64 bits.
            _ => self.pieces.get(self.piece_at(address)),
        }
    }

    /// The piece that an address is in.
    #[inline(never)]
    fn piece_at(&self, address: u128) -> usize {
        self.pieces.partition_point(|piece| piece.first <= address).saturating_sub(1)
    }

    #[inline]
    pub(super) fn lookup_batch(&self, addresses: &[u128], next_hops: &mut [Option<NextHopId>]) {
        lookup_batch(self, addresses, next_hops);
    }

    /// Bytes.
    pub(super) fn memory(&self) -> usize {
        let trees = self
            .pieces
            .iter()
            .map(|piece| size_of_val(&*piece.lines) + size_of_val(&*piece.values));
        let directory = size_of_val(&*self.directory.lines)
            + size_of_val(&*self.directory.values)
            + size_of_val(&*self.directory.global);
        size_of_val(&*self.pieces) + directory + trees.sum::<usize>()
    }
}

/// With AVX2, a line is compared in two steps instead of eight.
#[multiversion(targets("x86_64+avx2+popcnt+bmi1+bmi2+lzcnt"))]
fn lookup_batch(table: &Table, addresses: &[u128], next_hops: &mut [Option<NextHopId>]) {
    let count = addresses.len().min(next_hops.len());
    let (few, rest) = addresses[..count].as_chunks();
    let (few_hops, rest_hops) = next_hops[..count].as_chunks_mut();
    for (addresses, next_hops) in few.iter().zip(few_hops) {
        table.lookup_few(addresses, next_hops);
    }
    for (address, next_hop) in rest.iter().zip(rest_hops) {
        *next_hop = table.lookup(*address);
    }
}
