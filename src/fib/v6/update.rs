//! Compiling what changed, and keeping the pieces at a good size.

use std::sync::Arc;

use super::{Directory, Piece, Table};
use crate::fib::NextHopId;
use crate::fib::address::Address;
use crate::fib::map::{Key, Map};
use crate::fib::noted::Noted;

/// Most routes of a piece; with more, it is cut in two.
///
/// Larger ones make fewer steps through the directory, and take longer to compile.
const LARGE: usize = 1500;

/// Two halves with fewer routes together are joined.
const SMALL: usize = LARGE / 4;

/// What was changed and is not compiled yet.
#[derive(Clone, Debug, Default)]
pub(in crate::fib) struct Pending {
    /// Pieces, by number, in which a prefix changed.
    pieces: Noted<u32>,
    /// Changed prefixes that are larger than the piece they are in, or as large.
    covers: Noted<Key<u128>>,
}

impl Pending {
    /// Notes a change of a prefix, before `table` is updated.
    pub(in crate::fib) fn note(&mut self, table: &Table, (address, len): Key<u128>) {
        let at = table.piece_at(address);
        if table.pieces.get(at).is_some_and(|piece| len <= piece.len) {
            self.covers.note((address, len));
        } else {
            self.pieces.note(at as u32);
        }
    }
}

type Route = (Key<u128>, NextHopId);

impl Table {
    /// Compiles what is pending from `map`.
    pub(in crate::fib) fn update(&mut self, map: &Map<u128>, pending: &mut Pending) {
        let changed = pending.pieces.take();
        if !changed.is_empty() {
            self.compile(map, &changed);
        }
        for key in pending.covers.take() {
            self.cover(map, key);
        }
    }

    fn compile(&mut self, map: &Map<u128>, changed: &[u32]) {
        let mut changed = changed.iter().peekable();
        let mut routes = Vec::new();
        // Pieces with whether they are still to be compiled.
        let mut pieces: Vec<(Piece, bool)> = Vec::with_capacity(self.pieces.len());
        for (at, piece) in self.pieces.iter().enumerate() {
            if changed.next_if(|changed| **changed as usize == at).is_some() {
                map.collect(piece.first, piece.len, &mut routes);
                cut(piece, &routes, &mut pieces);
            } else {
                pieces.push((piece.clone(), false));
            }
            join(map, &mut pieces);
        }
        for (piece, _) in pieces.iter_mut().filter(|(_, stale)| *stale) {
            map.collect(piece.first, piece.len, &mut routes);
            piece.compile(&routes);
        }
        let new: Arc<[Piece]> = pieces.into_iter().map(|(piece, _)| piece).collect();
        if !new.iter().map(|piece| piece.first).eq(self.pieces.iter().map(|piece| piece.first)) {
            self.directory = Arc::new(Directory::new(&new));
        }
        self.pieces = new;
    }

    /// Sets the covers that a route that was added, changed or removed is, or was.
    fn cover(&mut self, map: &Map<u128>, (address, len): Key<u128>) {
        let route = map.get((address, len)).map(|next_hop| (next_hop, len));
        let (code, code_len) = route.or_else(|| map.around(address, len)).map_or((0, 0), code);
        let first = self.pieces.partition_point(|piece| piece.first < address);
        let pieces = Arc::make_mut(&mut self.pieces).iter_mut().skip(first);
        // Pieces that were joined since have the route inside.
        for piece in pieces.take_while(|piece| piece.first <= address.last(len)) {
            let affected = match route {
                Some(_) => piece.cover_len <= len && len <= piece.len,
                None => piece.cover_len == len,
            };
            if affected {
                (piece.cover, piece.cover_len) = (code, code_len);
            }
        }
    }
}

fn code((next_hop, len): (NextHopId, u8)) -> (u32, u8) {
    (next_hop.code(), len)
}

/// Compiles a piece, cut in halves until each has few enough routes.
fn cut(piece: &Piece, routes: &[Route], pieces: &mut Vec<(Piece, bool)>) {
    if routes.len() <= LARGE || piece.len == u128::BITS as u8 {
        let mut piece = piece.clone();
        piece.compile(routes);
        pieces.push((piece, false));
        return;
    }
    let len = piece.len + 1;
    let middle = piece.first.with_bit(piece.len);
    let (left, right) = routes.split_at(routes.partition_point(|((at, _), _)| *at < middle));
    for (first, mut routes) in [(piece.first, left), (middle, right)] {
        let mut half =
            Piece { cover: piece.cover, cover_len: piece.cover_len, ..Piece::empty(first, len) };
        if let [(key, next_hop), inside @ ..] = routes
            && *key == (first, len)
        {
            (half.cover, half.cover_len, routes) = (next_hop.code(), len, inside);
        }
        cut(&half, routes, pieces);
    }
}

/// Joins the last two pieces, if they are halves of one prefix with few routes, and so on.
fn join(map: &Map<u128>, pieces: &mut Vec<(Piece, bool)>) {
    while let [.., (left, _), (right, _)] = pieces.as_slice() {
        let len = left.len.saturating_sub(1);
        let halves = left.len > 0
            && left.len == right.len
            && left.first.first(len) == left.first
            && right.first == left.first.with_bit(len);
        if !halves || left.routes + right.routes >= SMALL as u32 {
            return;
        }
        let routes = left.routes + right.routes;
        let joined = Piece { routes, ..Piece::empty(left.first, len) };
        let (cover, cover_len) = map.around(joined.first, len + 1).map_or((0, 0), code);
        pieces.truncate(pieces.len() - 2);
        pieces.push((Piece { cover, cover_len, ..joined }, true));
    }
}
