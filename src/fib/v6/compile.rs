//! From the routes inside a piece to its trees.

use super::{LAST_HALF, Piece};
use crate::fib::NextHopId;
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
        // Also of no routes there is a tree, so that to miss takes the same way everywhere.
        let mut forest = Forest::default();
        let found = if self.len < 64 {
            by_first_half(routes, &mut forest)
        } else {
            by_last_half(routes, 0)
        };
        (self.trees, self.routes) = (forest.finish(&found), routes.len() as u32);
    }
}

/// Runs over the last 64 bits, with `outside` where no route is.
fn by_last_half(routes: &[(Key<u128>, NextHopId)], outside: Code) -> Runs<u64> {
    let mut found = Runs::new();
    let routes = routes.iter().map(|((address, len), hop)| ((*address as u64, len - 64), *hop));
    runs(0, outside, routes, &mut found);
    found
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
        all.push((key, forest.plant(&by_last_half(group, around), LAST_HALF)));
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
