//! IPv6 routes compiled for lookup: search trees over pieces of the address space.
//!
//! ```text
//! directory ─▶ piece: a tree over the first 64 bits ─▶ next hop
//!                                    └▶ a tree over the last 64 bits, where prefixes are longer than /64
//! ```
//!
//! The address space is cut into *pieces*, each a prefix with a bounded number of routes inside, and a piece is
//! compiled as a whole. A piece of /64 or longer is one tree over the last 64 bits. The longest prefix around a piece
//! is its *cover*, the answer where the piece has none; so no change of a route compiles more than one piece, but when
//! a piece is split or two are joined.

mod compile;
mod directory;
mod update;

use std::sync::Arc;

use multiversion::multiversion;

use super::NextHopId;
use super::runs::Code;
use super::tree::{CHILD, Search, Trees};
use directory::{Directory, Slot};
pub(super) use update::Pending;

/// Number of lookups that are made in step, so that they wait for memory together: as many as registers bear, and in
/// tables of many pieces, which do not fit into the second-level cache, as many as there is to wait for.
const FEW_IN_STEP: usize = 8;
const MANY_IN_STEP: usize = 16;
const MANY_PIECES: usize = 64;

/// Marks, beside `CHILD`, a value that leads to a tree over the last 64 bits.
const LAST_HALF: u32 = 1 << 30;

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
    trees: Trees,
}

impl Piece {
    fn empty(first: u128, len: u8) -> Self {
        Self { first, len, cover_len: 0, cover: 0, routes: 0, trees: Trees::default() }
    }

    #[inline(always)]
    fn search(&self, address: u128) -> Search {
        self.trees.search(if self.len < 64 { (address >> 64) as u64 } else { address as u64 })
    }

    /// The search that a value which is marked with `CHILD` leads to.
    #[inline(always)]
    fn search_on(&self, found: Code, address: u128) -> Search {
        let last_half = self.len >= 64 || found & LAST_HALF != 0;
        let key = if last_half { address as u64 } else { (address >> 64) as u64 };
        self.trees.search_child(found & !LAST_HALF, key)
    }

    /// The value that a search finds.
    #[inline(always)]
    fn value(&self, search: Search) -> Code {
        self.trees.value(self.trees.leaf(search), search)
    }

    #[inline(always)]
    fn next_hop(&self, found: Code) -> Option<NextHopId> {
        // No branch: where there are covers, many addresses have no other route, and many have.
        let cover = self.cover & u32::from(found == 0).wrapping_neg();
        NextHopId::from_code(found | cover)
    }
}

/// The compiled routes.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// In order; together they are all addresses.
    pieces: Arc<[Piece]>,
    directory: Arc<Directory>,
}

impl Table {
    pub(super) fn new() -> Self {
        let pieces: Arc<[Piece]> = [Piece::empty(0, 0)].into();
        Self { directory: Arc::new(Directory::new(&pieces)), pieces }
    }

    #[inline(always)]
    pub(super) fn lookup(&self, address: u128) -> Option<NextHopId> {
        let piece = self.piece(address)?;
        let mut found = piece.value(piece.search(address));
        while found & CHILD != 0 {
            found = piece.value(piece.search_on(found, address));
        }
        piece.next_hop(found)
    }

    /// The piece that an address is in.
    #[inline(always)]
    fn piece(&self, address: u128) -> Option<&Piece> {
        self.piece_in(self.directory.slot((address >> 64) as u64), address)
    }

    /// The piece that an address is in, by what the directory says first.
    #[inline(always)]
    fn piece_in(&self, slot: Slot, address: u128) -> Option<&Piece> {
        match self.pieces.get(self.directory.piece(slot, (address >> 64) as u64)) {
            Some(piece) => Some(piece),
            None => self.pieces.get(self.piece_at(address)),
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
        let trees = self.pieces.iter().map(|piece| piece.trees.memory());
        size_of_val(&*self.pieces) + self.directory.memory() + trees.sum::<usize>()
    }
}

/// Looks up a few addresses in step, each in its piece.
#[inline(always)]
fn in_step<const N: usize>(
    pieces: &[&Piece; N],
    addresses: &[u128; N],
    next_hops: &mut [Option<NextHopId>; N],
) {
    // Loops, for closures that are handed to functions may miss the instructions of the caller.
    let (mut searches, mut leaves) = ([Search::default(); N], [0; N]);
    let (mut found, mut any) = ([0; N], 0);
    for at in 0..N {
        searches[at] = pieces[at].search(addresses[at]);
    }
    for at in 0..N {
        leaves[at] = pieces[at].trees.leaf(searches[at]);
    }
    for at in 0..N {
        found[at] = pieces[at].trees.value(leaves[at], searches[at]);
        any |= found[at];
    }
    while any & CHILD != 0 {
        any = 0;
        for at in 0..N {
            if found[at] & CHILD != 0 {
                searches[at] = pieces[at].search_on(found[at], addresses[at]);
            }
        }
        for at in 0..N {
            if found[at] & CHILD != 0 {
                leaves[at] = pieces[at].trees.leaf(searches[at]);
            }
        }
        for at in 0..N {
            if found[at] & CHILD != 0 {
                found[at] = pieces[at].trees.value(leaves[at], searches[at]);
                any |= found[at];
            }
        }
    }
    for at in 0..N {
        next_hops[at] = pieces[at].next_hop(found[at]);
    }
}

/// With AVX2, all keys of a leaf are compared in one step instead of eight.
#[multiversion(targets("x86_64+avx2+popcnt+bmi1+bmi2+lzcnt"))]
fn lookup_batch(table: &Table, addresses: &[u128], next_hops: &mut [Option<NextHopId>]) {
    let Some(first) = table.pieces.first() else { return };
    let count = addresses.len().min(next_hops.len());
    let (mut addresses, mut next_hops) = (&addresses[..count], &mut next_hops[..count]);
    if let [only] = &*table.pieces {
        let (few, rest) = addresses.as_chunks();
        let (few_hops, rest_hops) = next_hops.as_chunks_mut();
        for (addresses, next_hops) in few.iter().zip(few_hops) {
            in_step(&[only; FEW_IN_STEP], addresses, next_hops);
        }
        (addresses, next_hops) = (rest, rest_hops);
    } else {
        if table.pieces.len() >= MANY_PIECES {
            (addresses, next_hops) = in_steps::<MANY_IN_STEP>(table, first, addresses, next_hops);
        }
        (addresses, next_hops) = in_steps::<FEW_IN_STEP>(table, first, addresses, next_hops);
    }
    for (address, next_hop) in addresses.iter().zip(next_hops) {
        *next_hop = table.lookup(*address);
    }
}

/// Looks up `N` addresses at a time, in several pieces, and returns the rest.
#[inline(always)]
fn in_steps<'a, const N: usize>(
    table: &Table,
    first: &Piece,
    addresses: &'a [u128],
    next_hops: &'a mut [Option<NextHopId>],
) -> (&'a [u128], &'a mut [Option<NextHopId>]) {
    let (some, rest) = addresses.as_chunks::<N>();
    let (some_hops, rest_hops) = next_hops.as_chunks_mut();
    for (addresses, next_hops) in some.iter().zip(some_hops) {
        let (mut slots, mut pieces) = ([Slot::default(); N], [first; N]);
        for at in 0..N {
            slots[at] = table.directory.slot((addresses[at] >> 64) as u64);
        }
        for at in 0..N {
            pieces[at] = table.piece_in(slots[at], addresses[at]).unwrap_or(first);
        }
        in_step(&pieces, addresses, next_hops);
    }
    (rest, rest_hops)
}
