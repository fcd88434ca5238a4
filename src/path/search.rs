//! The search for the size of one path: datagram packetization layer path MTU discovery (RFC 8899 §5.2).
//!
//! A function of time, of what answers come and of how large packets may be at most; no clock, no socket.
//!
//! ```text
//!            answered                    nothing left to try
//!   Base ───────────────▶ Searching ───────────────────────────▶ Complete
//!    ▲ │ lost               │    ▲  time to raise, wider ceiling     │ │ time to confirm
//!    │ ▼                    │    └───────────────────────────────────┘ │
//!   Error                   │ lost, for the first time                 │ lost
//!    (smallest size)        └────────────────▶ Base ◀──────────────────┘
//! ```
//!
//! A black hole is found in one place: a size was lost as often as it may be, and then the base size was answered. So
//! one who is down, or never answers, says nothing about the path, and nothing changes for the packets to him. From then
//! on packets are small, and the size is tried once more: if it was lost by chance, they are as large as before at once.

use std::time::Duration;

use super::Probing;

/// How exact the search is, in bytes: sizes that are not in [`COMMON`] are found to less than that.
const STEP: u32 = 8;

/// Sizes that links and tunnels on a path commonly leave, in bytes: tried before others (RFC 8899 §5.3.2, RFC 1191
/// §7.1). From Ethernet with PPPoE (1492), GRE (1476), IPsec and WireGuard (1420, 1440), VXLAN (1450, 1430), 6in4 (1480),
/// clouds (1460, 8500, 8900) and the least of IPv6.
const COMMON: [u32; 16] = [
    1280, 1300, 1400, 1420, 1430, 1440, 1450, 1460, 1476, 1480, 1492, 1500, 4000, 8500, 8900, 9000,
];

/// What a VTEP's path is known to be, by probing it (RFC 8899 §5.2). One that is not probed is in the state `DISABLED`
/// there, and has none here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProbeState {
    /// It is to be seen whether the VTEP answers.
    Base,
    /// It answers, and the largest size that does is looked for.
    Searching,
    /// The largest size is found, and confirmed time and again.
    Complete,
    /// It does not answer: it is down, or does not know of probes, as other implementations do not.
    Error,
}

impl ProbeState {
    /// In words, for people and programs: lower-case, joined by `_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Searching => "searching",
            Self::Complete => "complete",
            Self::Error => "no_answer",
        }
    }
}

/// A probe to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) sequence: u32,
    /// Size of the outer IP packet in bytes.
    pub(crate) size: u32,
    /// Which of the ways there it is to take, should there be several.
    pub(crate) way: u32,
}

/// The size that is being asked about.
#[derive(Clone, Copy, Debug)]
struct Question {
    size: u32,
    /// Sequence number of the first probe of this size; the last one is that of the search.
    first: u32,
    sent: u8,
    /// When the last one was sent.
    at: Duration,
}

/// The state of one path.
#[derive(Debug)]
pub(crate) struct Search {
    probing: Probing,
    /// Size that every path takes: `MIN_PLPMTU`.
    floor: u32,
    state: ProbeState,
    /// Largest size that may be tried: `MAX_PLPMTU`; and whether it is a router that refuses what is larger.
    ceiling: u32,
    refused: bool,
    /// Largest size that was answered in this search.
    low: u32,
    /// Smallest size that was lost in this search.
    high: Option<u32>,
    /// A size that was lost, until it is clear whether the VTEP answers at all.
    suspect: Option<u32>,
    /// A size that was lost, and is tried once more before others, for chance may lose as many.
    again: Option<u32>,
    /// Whether the smallest size was answered when the base size was not.
    floor_answers: bool,
    /// Whether to try a little more before a lot, for a path that has been narrow.
    raising: bool,
    /// The largest size that gets there, as far as is known: `PLPMTU`.
    verified: Option<u32>,
    /// Whether something larger was lost, or refused by a router, so that packets are to be no larger.
    narrow: bool,
    question: Option<Question>,
    sequence: u32,
    /// The way that is confirmed next, and the one on which something was lost: what is searched is that one.
    way: u32,
    narrow_way: Option<u32>,
    /// When to confirm, or to ask one who did not answer.
    due: Duration,
    raise: Duration,
    /// How often in a row nobody answered.
    silent: u32,
    round_trip: Option<Duration>,
}

impl Search {
    pub(crate) fn new(probing: Probing, floor: u32, now: Duration) -> Self {
        Self {
            probing,
            floor,
            state: ProbeState::Base,
            ceiling: 0,
            refused: false,
            low: 0,
            high: None,
            suspect: None,
            again: None,
            floor_answers: false,
            raising: false,
            verified: None,
            narrow: false,
            question: None,
            sequence: 0,
            way: 0,
            narrow_way: None,
            due: now,
            raise: now,
            silent: 0,
            round_trip: None,
        }
    }

    pub(crate) fn state(&self) -> ProbeState {
        self.state
    }

    /// Largest size that is known to get there, once the search is complete or has found that not everything does.
    pub(crate) fn verified(&self) -> Option<u32> {
        self.verified
    }

    /// What packets are to be limited to: nothing as long as whatever may be tried gets there, or nobody answers.
    pub(crate) fn limit(&self) -> Option<u32> {
        self.verified.filter(|_| self.narrow)
    }

    /// How long the last answer took.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// When there is something to do, if nothing is heard before.
    pub(crate) fn due(&self) -> Duration {
        match (self.question, self.state) {
            (Some(question), _) => question.at + self.probing.timeout,
            (None, ProbeState::Complete) if self.low < self.ceiling => self.due.min(self.raise),
            (None, _) => self.due,
        }
    }

    /// Takes in an answer, and says whether it is one to what is asked now.
    pub(crate) fn answered(&mut self, now: Duration, sequence: u32, size: u32) -> bool {
        let Some(question) = self.question else { return false };
        let asked = question.first..=self.sequence;
        if size != question.size || !asked.contains(&sequence) {
            return false;
        }
        if sequence == self.sequence {
            self.round_trip = Some(now.saturating_sub(question.at));
        }
        self.question = None;
        self.silent = 0;
        self.due = now;
        match self.state {
            ProbeState::Error => {
                self.floor_answers = true;
                self.state = ProbeState::Base;
            }
            ProbeState::Base => {
                // What is larger and was not lost still gets there.
                if self.suspect.is_none_or(|suspect| suspect <= self.low) {
                    self.low = size;
                }
                self.high = None;
                self.state = ProbeState::Searching;
            }
            ProbeState::Searching => {
                self.low = size;
                (self.raising, self.again) = (false, None);
                // What packets are limited to grows as it is found.
                self.verified = self.verified.map(|_| size);
            }
            ProbeState::Complete => {
                // Another way is confirmed next time.
                self.way = self.way.wrapping_add(1);
                self.due = now + self.probing.interval;
            }
        }
        true
    }

    /// Does what is due, where packets may be of `ceiling` bytes at most, which a router may have said. Returns the probe to
    /// send, if any, and the size that a black hole swallows, if one was found just now.
    pub(crate) fn step(
        &mut self,
        now: Duration,
        ceiling: u32,
        refused: bool,
    ) -> (Option<Ask>, Option<u32>) {
        self.take_over(now, ceiling, refused);
        if let Some(question) = self.question {
            if now < question.at + self.probing.timeout {
                return (None, None);
            }
            if question.sent < self.probing.max_probes && self.state != ProbeState::Error {
                return (Some(self.ask(now, question.size)), None);
            }
            self.question = None;
            self.lost(now, question.size);
        }
        let mut hole = None;
        if self.state == ProbeState::Searching {
            hole = self.convict();
            if self.candidate().is_none() {
                self.complete(now);
            }
        }
        let wanted = match self.state {
            ProbeState::Base => Some(self.base()),
            ProbeState::Searching => self.candidate(),
            ProbeState::Complete if self.low < self.ceiling && now >= self.raise => {
                self.state = ProbeState::Searching;
                self.high = None;
                self.raising = self.narrow;
                self.candidate()
            }
            ProbeState::Complete if now >= self.due => Some(self.low),
            ProbeState::Error if now >= self.due => Some(self.floor.min(self.ceiling)),
            ProbeState::Complete | ProbeState::Error => None,
        };
        (wanted.map(|size| self.ask(now, size)), hole)
    }

    /// Takes over how large packets may be.
    fn take_over(&mut self, now: Duration, ceiling: u32, refused: bool) {
        self.refused = refused;
        let before = std::mem::replace(&mut self.ceiling, ceiling);
        if ceiling == before {
            return;
        }
        if self.verified.is_some_and(|verified| ceiling < verified) {
            // What a router refuses it refuses when that is forgotten, too; other bounds are nothing of the path.
            self.narrow = refused;
        }
        if ceiling > before {
            // Of what was above there is no knowledge.
            self.raise = now;
        }
        // A smaller one gets there, too.
        self.low = self.low.min(ceiling);
        self.verified = self.verified.map(|verified| verified.min(ceiling));
        self.high = self.high.filter(|high| *high <= ceiling);
        self.again = self.again.filter(|size| *size <= ceiling);
        self.question = self.question.filter(|question| question.size <= ceiling);
    }

    /// The size that shows whether anybody answers.
    fn base(&self) -> u32 {
        self.probing.base.max(self.floor).min(self.ceiling)
    }

    /// All probes of a size were lost.
    fn lost(&mut self, now: Duration, size: u32) {
        match self.state {
            // The path is narrow, and how much so is known; that there is one was seen a moment ago, or is seen soon.
            ProbeState::Searching if self.narrow => {
                (self.high, self.again) = (Some(size), None);
            }
            ProbeState::Searching | ProbeState::Complete if size > self.base() => {
                self.narrow_way = Some(self.way_now());
                self.suspect = Some(size);
                self.state = ProbeState::Base;
            }
            ProbeState::Base if self.floor_answers && size > self.floor => {
                self.floor_answers = false;
                self.suspect = Some(size);
                self.low = self.floor;
                self.state = ProbeState::Searching;
            }
            _ => {
                self.state = ProbeState::Error;
                self.suspect = None;
                self.floor_answers = false;
                (self.verified, self.narrow) = (None, false);
                // Whether the path is narrower than the base size is seen at once, and after that there is time.
                self.due = match self.silent.checked_sub(1) {
                    None => now,
                    Some(before) => now + self.pause(before),
                };
                self.silent = self.silent.saturating_add(1);
            }
        }
    }

    /// How long one is left alone who did not answer so often before.
    fn pause(&self, before: u32) -> Duration {
        let Probing { interval, raise, .. } = self.probing;
        interval.saturating_mul(1 << before.min(16)).min(raise.max(interval))
    }

    /// One answers now who did not answer to a larger size: that is what a black hole is.
    fn convict(&mut self) -> Option<u32> {
        let size = self.suspect.take()?;
        // Should it be answered after all, it is what there was before, and the search is over.
        self.high = Some(size + 1);
        self.again = Some(size).filter(|size| *size <= self.ceiling);
        self.raising = false;
        self.floor_answers = false;
        (self.verified, self.narrow) = (Some(self.low), true);
        Some(size)
    }

    fn complete(&mut self, now: Duration) {
        self.state = ProbeState::Complete;
        self.verified = Some(self.low);
        self.narrow = self.low < self.ceiling || self.refused;
        self.raising = false;
        self.floor_answers = false;
        self.narrow_way = self.narrow_way.filter(|_| self.low < self.ceiling);
        self.due = now + self.probing.interval;
        self.raise = now + self.probing.raise;
    }

    /// The next size to try.
    fn candidate(&self) -> Option<u32> {
        let Self { low, ceiling, .. } = *self;
        match self.high {
            _ if self.again.is_some() => self.again,
            None if low >= ceiling => None,
            // Mostly nothing has changed, and one size shows it.
            None if self.raising && low + STEP < ceiling => Some(low + STEP),
            None => Some(ceiling),
            Some(high) if high <= low + STEP => None,
            Some(high) => {
                let known = COMMON.iter().filter(|size| (low + 1..high).contains(*size));
                let count = known.clone().count();
                known.copied().nth(count / 2).or(Some(low.midpoint(high)))
            }
        }
    }

    fn ask(&mut self, now: Duration, size: u32) -> Ask {
        self.sequence = self.sequence.wrapping_add(1);
        let again = self.question.filter(|question| question.size == size);
        let (first, sent) = again.map_or((self.sequence, 0), |asked| (asked.first, asked.sent));
        self.question = Some(Question { size, first, sent: sent + 1, at: now });
        Ask { sequence: self.sequence, size, way: self.way_now() }
    }

    fn way_now(&self) -> u32 {
        match self.state {
            ProbeState::Complete => self.way,
            _ => self.narrow_way.unwrap_or(self.way),
        }
    }
}

#[cfg(test)]
mod tests;
