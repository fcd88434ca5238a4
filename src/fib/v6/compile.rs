//! From the routes inside a piece to its trees.

use super::{CHILD, Directory, Piece, SPLIT};
use crate::fib::NextHopId;
use crate::fib::address::Address;
use crate::fib::map::Key;
use crate::fib::runs::{Code, Runs, runs};
use crate::fib::tree::Forest;

impl Piece {
    /// Compiles the routes inside the piece: all that are longer than it, in order.
    pub(super) fn compile(&mut self, routes: &[(Key<u128>, NextHopId)]) {
        *self = Self {
            cover: self.cover,
            cover_len: self.cover_len,
            ..Self::empty(self.first, self.len)
        };
        if routes.is_empty() {
            return;
        }
        let mut forest = Forest::default();
        self.root = if self.len < 64 {
            let runs = by_first_half(routes, &mut forest);
            forest.plant(&runs)
        } else {
            by_last_half(routes, 0, &mut forest)
        };
        let (lines, values) = forest.into_parts();
        (self.lines, self.values, self.routes) = (lines.into(), values.into(), routes.len() as u32);
    }
}

/// Plants a tree over the last 64 bits, with `outside` where no route is.
fn by_last_half(routes: &[(Key<u128>, NextHopId)], outside: Code, forest: &mut Forest) -> u32 {
    let mut found = Runs::new();
    let routes = routes.iter().map(|((address, len), hop)| ((*address as u64, len - 64), *hop));
    runs(0, outside, routes, &mut found);
    forest.plant(&found)
}

/// Runs over the first 64 bits; those with routes longer than /64 get a tree over the others.
fn by_first_half(routes: &[(Key<u128>, NextHopId)], forest: &mut Forest) -> Runs<u64> {
    let half = |address: u128| (address >> 64) as u64;
    let mut short = Runs::new();
    let fits = routes.iter().filter(|((_, len), _)| *len <= 64);
    runs(0, 0, fits.map(|((address, len), hop)| ((half(*address), *len), *hop)), &mut short);
    let long: Vec<_> = routes.iter().filter(|((_, len), _)| *len > 64).copied().collect();
    if long.is_empty() {
        return short;
    }
    let mut all = Runs::new();
    let (mut rest, mut around) = (short.into_iter().peekable(), 0);
    for group in long.chunk_by(|a, b| half(a.0.0) == half(b.0.0)) {
        let Some(key) = group.first().map(|((address, _), _)| half(*address)) else { continue };
        while let Some((start, value)) = rest.next_if(|(start, _)| *start <= key) {
            around = value;
            // Its place may be taken, by the end of the group before or by this one.
            all.pop_if(|(have, _)| *have == start);
            all.push((start, value));
        }
        all.pop_if(|(have, _)| *have == key);
        all.push((key, CHILD | by_last_half(group, around, forest)));
        if let Some(next) = key.checked_add(1) {
            all.push((next, around));
        }
    }
    if let Some((start, _)) = rest.peek() {
        all.pop_if(|(have, _)| have == start);
    }
    all.extend(rest);
    all
}

impl Directory {
    pub(super) fn new(pieces: &[Piece]) -> Self {
        let mut runs: Runs<u64> = Vec::with_capacity(pieces.len());
        for (piece, at) in pieces.iter().zip(0..) {
            let start = (piece.first >> 64) as u64;
            runs.pop_if(|(have, _)| *have == start);
            runs.push((start, at));
        }
        let mut forest = Forest::default();
        forest.plant(&runs);
        let (lines, values) = forest.into_parts();
        Self { global: global(pieces), lines: lines.into(), values: values.into() }
    }
}

/// The piece of each /19 in 2000::/3, if it is one only.
fn global(pieces: &[Piece]) -> Box<[u32]> {
    let mut global = vec![SPLIT; 1 << 16];
    for (piece, at) in pieces.iter().zip(0..) {
        let slot = |address: u128| (address >> 109) as usize;
        let (first, last) = (slot(piece.first), slot(piece.first.last(piece.len)));
        if piece.len <= 19 && last >= 1 << 16 && first < 2 << 16 {
            let slots = first.saturating_sub(1 << 16)..=last.min((2 << 16) - 1) - (1 << 16);
            global.get_mut(slots).unwrap_or_default().fill(at);
        }
    }
    global.into()
}
