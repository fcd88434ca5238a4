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
use super::tree::{Line, search};
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
    fn lookup(&self, address: u128) -> Code {
        let (high, low) = ((address >> 64) as u64, address as u64);
        let key = if self.len < 64 { high } else { low };
        let mut found = search(&self.lines, &self.values, self.root, key);
        if found & CHILD != 0 {
            found = search(&self.lines, &self.values, found & !CHILD, low);
        }
        if found == 0 { self.cover } else { found }
    }
}

/// The compiled routes.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// In order; together they are all addresses.
    pieces: Arc<[Piece]>,
    directory: Arc<Directory>,
}

/// A tree from the first 64 bits of an address to the last piece that begins with them, or before.
#[derive(Debug, Default)]
struct Directory {
    lines: Box<[Line]>,
    values: Box<[u32]>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { pieces: [Piece::empty(0, 0)].into(), directory: Arc::default() }
    }

    #[inline(always)]
    pub(super) fn lookup(&self, address: u128) -> Option<NextHopId> {
        let piece = match &*self.pieces {
            [only] => only,
            pieces => {
                let key = (address >> 64) as u64;
                let at = search(&self.directory.lines, &self.directory.values, 0, key);
                match pieces.get(at as usize)? {
                    piece if piece.len <= 64 => piece,
                    _ => pieces.get(self.piece_at(address))?,
                }
            }
        };
        NextHopId::from_code(piece.lookup(address))
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
        let directory = size_of_val(&*self.directory.lines) + size_of_val(&*self.directory.values);
        size_of_val(&*self.pieces) + directory + trees.sum::<usize>()
    }
}

/// With AVX2, a line is compared in two steps instead of eight.
#[multiversion(targets("x86_64+avx2+popcnt+bmi1+bmi2+lzcnt"))]
fn lookup_batch(table: &Table, addresses: &[u128], next_hops: &mut [Option<NextHopId>]) {
    for (address, next_hop) in addresses.iter().zip(next_hops) {
        *next_hop = table.lookup(*address);
    }
}
