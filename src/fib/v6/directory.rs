//! Which piece an address is in.

use super::Piece;
use crate::fib::address::Address;

/// Most slots of the first step, and most bits that the second one takes.
const MANY_SLOTS: u64 = 1 << 13;
const STEP_BITS: u32 = 8;

/// Says that several pieces begin with these bits.
const SPLIT: u32 = u32::MAX;

/// From the first 64 bits of an address to a piece, in two steps.
///
/// The first one is into slots for ranges of addresses of one size, of which the first and the last take all beyond,
/// too. The second one takes some more bits, or none if the slot is in one piece.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// First address of the first slot.
    origin: u64,
    /// Binary logarithm of the size of a slot.
    shift: u32,
    slots: Box<[Slot]>,
    /// First the numbers of all pieces, in order, for slots in one piece.
    pieces: Box<[u32]>,
}

/// The second step: 6 bits, how far an address is shifted; 16 bits, which of its bits then count; what is added.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot(u64);

impl Directory {
    /// The first step.
    #[inline(always)]
    pub(super) fn slot(&self, half: u64) -> Slot {
        let last = self.slots.len().wrapping_sub(1) as u64;
        let slot = (half.saturating_sub(self.origin) >> (self.shift & 63)).min(last);
        self.slots.get(slot as usize).copied().unwrap_or_default()
    }

    /// The number of the piece in which all addresses with these first bits are, or one that no piece has.
    #[inline(always)]
    pub(super) fn piece(&self, Slot(slot): Slot, half: u64) -> usize {
        let at = (half >> (slot & 63) & (slot >> 6) & 0xffff) + (slot >> 22);
        self.pieces.get(at as usize).map_or(usize::MAX, |piece| *piece as usize)
    }

    /// Bytes.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.slots) + size_of_val(&*self.pieces)
    }

    /// The directory of pieces in order.
    pub(super) fn new(pieces: &[Piece]) -> Self {
        let halves: Vec<u64> = pieces.iter().map(|piece| (piece.first >> 64) as u64).collect();
        // Pieces without routes are many around a few prefixes that are far from others.
        let used = || pieces.iter().filter(|piece| piece.routes > 0);
        let from = used().next().map_or(0, |piece| (piece.first >> 64) as u64).max(1);
        let to = used().next_back().map_or(0, |piece| (piece.first.last(piece.len) >> 64) as u64);
        // Some way beyond, for there the addresses are that have no route.
        let to = to.max(from).saturating_add(to.saturating_sub(from).saturating_mul(2));
        let mut shift = 0;
        while ((to >> shift) - (from >> shift)).saturating_add(3) > MANY_SLOTS {
            shift += 1;
        }
        let (first, last) = ((from >> shift).saturating_sub(1), (to >> shift).saturating_add(1));
        let mut found: Vec<u32> = (0..).take(pieces.len()).collect();
        let slots = (first..=last).map(|at| {
            let start = at.saturating_mul(1 << shift);
            let piece = only(pieces, &halves, start, shift);
            let beyond = at == first && first > 0 && piece != 0
                || at == last && piece as usize + 1 != pieces.len();
            if piece != SPLIT && !beyond {
                return Slot::new(0, 0, piece as usize);
            }
            let bits = if beyond { 0 } else { STEP_BITS.min(shift) };
            let slot = Slot::new(shift - bits, bits, found.len());
            found.extend((0..1 << bits).map(|part| match beyond {
                true => SPLIT,
                false => only(pieces, &halves, start | part << (shift - bits), shift - bits),
            }));
            slot
        });
        let slots = slots.collect();
        Self { origin: first << shift, shift, slots, pieces: found.into() }
    }
}

impl Slot {
    fn new(shift: u32, bits: u32, base: usize) -> Self {
        Self(u64::from(shift) | ((1 << bits) - 1) << 6 | (base as u64) << 22)
    }
}

/// The piece that all of 2^`bits` halves from `start` on are in, or `SPLIT`.
fn only(pieces: &[Piece], halves: &[u64], start: u64, bits: u32) -> u32 {
    let last = start | ((1 << bits) - 1);
    let after = halves.partition_point(|half| *half <= last);
    let at = after.saturating_sub(1);
    match (halves.get(at), pieces.get(at)) {
        (Some(half), Some(piece)) if *half <= start && piece.len <= 64 => at as u32,
        _ => SPLIT,
    }
}
