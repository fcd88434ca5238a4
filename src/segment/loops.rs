//! What becomes of MAC addresses that move too fast.

use std::time::Duration;

use crate::Error;
use crate::damper::Pace;

/// When a MAC address of a bridge segment is held where it is, because frames loop or two stations use it.
///
/// An address that would move more than [`moves`](LoopGuard::moves) times within [`window`](LoopGuard::window) is held for
/// [`hold`](LoopGuard::hold): it does not move, and one event tells both places. Meanwhile frames that come from it elsewhere
/// are dropped, and so are those that would be flooded, from wherever they come: it is these that go round. An address moves once a second at most. The limits are those of duplicate detection in EVPN (RFC
/// 7432 §15.1), in a shorter time. A dataplane watches some hundred addresses that move at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopGuard {
    /// Moves that are followed within the window, 1 to 250; 0 follows all. Default 5.
    pub moves: u8,
    /// Time in which moves are counted, from the first one on: whole seconds, 1 to 3,600. Default 10 s.
    pub window: Duration,
    /// Time for which an address is held: whole seconds, 1 to 3,600. Default 30 s.
    pub hold: Duration,
}

impl Default for LoopGuard {
    fn default() -> Self {
        Self { moves: 5, window: Duration::from_secs(10), hold: Duration::from_secs(30) }
    }
}

impl LoopGuard {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.moves > 250 {
            let value = self.moves.to_string();
            return Err(Error::invalid("moves of a loop guard", value, "0 (no guard) to 250"));
        }
        for (what, time) in
            [("window of a loop guard", self.window), ("hold time of a loop guard", self.hold)]
        {
            if !(1..=3600).contains(&time.as_secs()) {
                return Err(Error::invalid(what, format!("{time:?}"), "1 to 3600 seconds"));
            }
        }
        Ok(())
    }

    /// As workers go by it; `None` without a guard.
    pub(crate) fn pace(&self) -> Option<Pace> {
        let seconds = |time: Duration| time.as_secs() as u32;
        let Self { moves, window, hold } = *self;
        (moves > 0).then(|| Pace { moves, window: seconds(window), hold: seconds(hold) })
    }
}
