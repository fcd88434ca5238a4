//! MAC addresses that move too fast: a bounded memory of moves that all workers share without locks.

use crate::hash::mix;
use crate::segment::SegmentId;
use crate::sync::{AtomicU64, Ordering, zeroed_words};
use crate::wire::eth::MacNumber;

/// Addresses that one set remembers.
const WAYS: usize = 4;

/// Sets: which one an address belongs to is a matter of its hash.
const SETS: usize = 256;

/// Moves that mean that the address is held.
const HELD: u64 = 0xff;

/// How often a MAC address may move, as a segment wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Moves within `window` that are followed.
    pub(crate) moves: u8,
    /// Seconds.
    pub(crate) window: u32,
    /// Seconds for which an address is held that would move more often.
    pub(crate) hold: u32,
}

/// What becomes of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is followed; what comes of it is to be [noted](Damper::moved).
    Follow,
    /// The address is held where it is.
    Held,
    /// The same, from now on: one of all workers is told so.
    HeldNow,
}

/// The addresses that have moved lately, each in a word: 24 bits of its hash, the moves, and the second of the first
/// one or from which on it is held. More than fit are not noted, and so not held.
#[derive(Debug)]
pub(crate) struct Damper {
    words: Box<[AtomicU64]>,
    /// Second in which the last address that is held may go, so that mostly nobody has to look for any.
    held_until: AtomicU64,
    seed: u64,
}

#[derive(Clone, Copy)]
struct Note {
    tag: u64,
    moves: u64,
    second: u32,
}

impl Note {
    fn of(word: u64) -> Option<Self> {
        let note = Self { tag: word >> 40, moves: word >> 32 & 0xff, second: word as u32 };
        (word != 0).then_some(note)
    }

    fn word(self) -> u64 {
        self.tag << 40 | self.moves << 32 | u64::from(self.second)
    }

    /// Whether it still counts.
    fn is_alive(self, pace: Pace, second: u32) -> bool {
        let time = if self.moves == HELD { pace.hold } else { pace.window };
        second.saturating_sub(self.second) < time
    }
}

impl Damper {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            words: zeroed_words(WAYS * SETS),
            held_until: AtomicU64::new(0),
            seed: mix(seed, u64::from_be_bytes(*b"mac move")),
        }
    }

    /// The set and the tag, which is not zero, of an address.
    fn place(&self, segment: SegmentId, mac: MacNumber) -> (&[AtomicU64], u64) {
        let hash = mix(mix(self.seed, segment.to_word()), mac.get());
        let first = hash as usize % SETS * WAYS;
        (&self.words[first..first + WAYS], hash >> 40 | 1)
    }

    /// What becomes of an address that is to move in this second.
    pub(crate) fn verdict(
        &self,
        segment: SegmentId,
        mac: MacNumber,
        pace: Pace,
        second: u32,
    ) -> Verdict {
        let (set, tag) = self.place(segment, mac);
        for slot in set {
            let word = slot.load(Ordering::Relaxed);
            let Some(note) = Note::of(word).filter(|note| note.tag == tag) else { continue };
            if !note.is_alive(pace, second) || note.moves < u64::from(pace.moves) {
                return Verdict::Follow;
            }
            if note.moves == HELD {
                return Verdict::Held;
            }
            let until = u64::from(second) + u64::from(pace.hold);
            self.held_until.fetch_max(until, Ordering::Relaxed);
            let held = Note { moves: HELD, second, ..note }.word();
            let exchanged = slot.compare_exchange(word, held, Ordering::Relaxed, Ordering::Relaxed);
            return if exchanged.is_ok() { Verdict::HeldNow } else { Verdict::Held };
        }
        Verdict::Follow
    }

    /// Whether an address is held, wherever it is.
    #[inline]
    pub(crate) fn holds(
        &self,
        segment: SegmentId,
        mac: MacNumber,
        pace: Pace,
        second: u32,
    ) -> bool {
        self.holds_any(second) && self.is_held(segment, mac, pace, second)
    }

    /// Whether any address may be held.
    #[inline]
    pub(crate) fn holds_any(&self, second: u32) -> bool {
        u64::from(second) < self.held_until.load(Ordering::Relaxed)
    }

    #[cold]
    fn is_held(&self, segment: SegmentId, mac: MacNumber, pace: Pace, second: u32) -> bool {
        let (set, tag) = self.place(segment, mac);
        let mut notes = set.iter().filter_map(|slot| Note::of(slot.load(Ordering::Relaxed)));
        notes.any(|note| note.tag == tag && note.moves == HELD && note.is_alive(pace, second))
    }

    /// Notes a move that was followed.
    pub(crate) fn moved(&self, segment: SegmentId, mac: MacNumber, pace: Pace, second: u32) {
        let (set, tag) = self.place(segment, mac);
        let mut free = None;
        for slot in set {
            let word = slot.load(Ordering::Relaxed);
            match Note::of(word) {
                Some(note) if note.tag == tag => {
                    let next = match note.is_alive(pace, second) {
                        true if note.moves >= HELD - 1 => return,
                        true => Note { moves: note.moves + 1, ..note },
                        false => Note { tag, moves: 1, second },
                    };
                    // An address moves once a second, so that hardly anybody else is at it.
                    let _ = slot.compare_exchange(
                        word,
                        next.word(),
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    );
                    return;
                }
                Some(note) if note.is_alive(pace, second) => {}
                _ => free = free.or(Some((slot, word))),
            }
        }
        if let Some((slot, word)) = free {
            let first = Note { tag, moves: 1, second }.word();
            let _ = slot.compare_exchange(word, first, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(overplane_loom)))]
mod tests {
    use super::*;
    use crate::wire::MacAddr;

    const PACE: Pace = Pace { moves: 3, window: 10, hold: 30 };
    const SEGMENT: SegmentId = SegmentId { udp_port: 4789, vni: None };

    fn mac(n: u64) -> MacNumber {
        MacAddr::from_u64(n).into()
    }

    #[test]
    fn an_address_is_held_when_it_has_moved_too_often_and_then_let_go() {
        let damper = Damper::new(1);
        let verdict = |second| damper.verdict(SEGMENT, mac(1), PACE, second);
        for second in 100..103 {
            assert_eq!(verdict(second), Verdict::Follow);
            damper.moved(SEGMENT, mac(1), PACE, second);
        }
        assert_eq!(
            [verdict(103), verdict(103), verdict(132)],
            [Verdict::HeldNow, Verdict::Held, Verdict::Held]
        );
        assert_eq!(damper.verdict(SEGMENT, mac(2), PACE, 103), Verdict::Follow);
        let holds = |n, second| damper.holds(SEGMENT, mac(n), PACE, second);
        assert_eq!(
            [holds(1, 103), holds(1, 132), holds(2, 103), holds(1, 133)],
            [true, true, false, false]
        );
        assert_eq!(verdict(133), Verdict::Follow);
        damper.moved(SEGMENT, mac(1), PACE, 133);
        assert_eq!(verdict(134), Verdict::Follow, "it has a fresh start");
    }

    #[test]
    fn one_that_moves_slowly_is_followed() {
        let damper = Damper::new(1);
        for second in (100..1000).step_by(4) {
            assert_eq!(damper.verdict(SEGMENT, mac(1), PACE, second), Verdict::Follow);
            damper.moved(SEGMENT, mac(1), PACE, second);
        }
    }

    /// Whoever makes up addresses that move takes the room of others, for a while, and no more.
    #[test]
    fn more_than_fit_are_not_held_and_memory_does_not_grow() {
        let damper = Damper::new(1);
        for n in 0..100_000 {
            damper.moved(SEGMENT, mac(n), PACE, 100);
        }
        for second in 110..113 {
            assert_eq!(damper.verdict(SEGMENT, mac(7), PACE, second), Verdict::Follow);
            damper.moved(SEGMENT, mac(7), PACE, second);
        }
        assert_eq!(damper.verdict(SEGMENT, mac(7), PACE, 113), Verdict::HeldNow);
    }
}
