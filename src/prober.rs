//! Which paths are probed, when, and what came of it.
//!
//! One prober for all workers, away from the path of frames: it says what is to be sent and what is to be changed, and hears
//! of the answers. It owns no device, thread or clock.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use crate::Error;
use crate::change::Change;
use crate::event::Event;
use crate::hash::Seeded;
use crate::output::Echo;
use crate::path::{self, PathSource, ProbeState, Probing, Search};
use crate::segment::{SegmentId, VtepId};
use crate::stats::ProbeStats;
use crate::tables::{SegmentEntry, Tables};

/// Most VTEPs whose paths are probed; others are as if they were not to be.
pub const MAX_PROBED: usize = 16_384;

/// Probes in one round, and the shortest time between two rounds with more to do: 800 probes a second at most.
const EACH_ROUND: usize = 16;
const ROUND: Duration = Duration::from_millis(20);

/// Shortest time between two looks for VTEPs that are new, and the same for each that was looked at: all of them are looked
/// through, which takes a hundredth of that.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_EACH: Duration = Duration::from_micros(10);

/// A probe to send: see [`Forwarder::probe`](crate::Forwarder::probe).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub(crate) segment: SegmentId,
    pub(crate) vtep: VtepId,
    pub(crate) sequence: u32,
    /// Size of the outer IP packet in bytes.
    pub(crate) size: u32,
    /// Which of the node's source ports, and so of the ways there, it takes.
    pub(crate) way: u32,
}

/// What a round of probing calls for.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Round {
    /// To be sent now.
    pub probes: Vec<Probe>,
    /// Path MTUs that were found out, for [`Tables::apply`].
    pub changes: Vec<Change>,
    /// What happened.
    pub events: Vec<Event>,
}

/// Probes the paths to the VTEPs of segments that ask for it ([`MtuOptions::probe`](crate::MtuOptions)), one prober for a
/// set of tables (RFC 8899).
///
/// An embedder that runs forwarders by itself calls [`Prober::round`] when [`Prober::next`] says so and hands
/// [`Output::echoes`](crate::Output::echoes) of all of them to [`Prober::heard`]; a `Dataplane` does so by itself.
#[derive(Debug)]
pub struct Prober {
    probing: Probing,
    probed: HashMap<VtepId, Probed, Seeded>,
    /// When there is something to do about which one.
    queue: BTreeSet<(Duration, VtepId)>,
    /// [`Tables::peerings`] of when VTEPs were looked through last, and when they may be again.
    peerings: Option<u64>,
    next_look: Duration,
    next_round: Duration,
}

/// A VTEP whose path is probed.
#[derive(Debug)]
struct Probed {
    address: SocketAddr,
    /// The segment in which probes travel.
    segment: SegmentId,
    /// The look at which it was seen last, and whether that segment was seen with it.
    seen: Option<u64>,
    in_segment: bool,
    search: Search,
    due: Duration,
    /// What others say of the path, as far as a packet can be that large.
    ceiling: u32,
    /// The path MTU that was reported last, where it is less than packets can be large.
    told: Option<u32>,
    answered_at: Option<Duration>,
    sent: u64,
    answered: u64,
    black_holes: u64,
}

impl Prober {
    /// # Errors
    /// [`Error::Invalid`] for values out of their range.
    pub fn new(probing: Probing) -> Result<Self, Error> {
        probing.check()?;
        Ok(Self {
            probing,
            probed: HashMap::with_hasher(Seeded(crate::hash::random_seed())),
            queue: BTreeSet::new(),
            peerings: None,
            next_look: Duration::ZERO,
            next_round: Duration::ZERO,
        })
    }

    /// When [`Prober::round`] is to be called again, if nothing is heard and no table changes before; `None` when nothing
    /// is probed.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.queue.first().map(|(due, _)| (*due).max(self.next_round))
    }

    /// Whether the tables have changed so that a round is to be had.
    pub(crate) fn is_behind(&self, tables: &Tables) -> bool {
        self.peerings != Some(tables.peerings)
    }

    /// Takes in an answer; those that come late or twice are ignored.
    pub fn heard(&mut self, now: Duration, echo: &Echo) {
        let Some(probed) = self.probed.get_mut(&echo.vtep) else { return };
        if probed.search.answered(now, echo.sequence, echo.size) {
            probed.answered += 1;
            probed.answered_at = Some(now);
            self.queue.remove(&(probed.due, echo.vtep));
            probed.due = probed.search.due();
            self.queue.insert((probed.due, echo.vtep));
        }
    }

    /// Does what is due. `now` is the time since any fixed origin, the same as in [`Tables::apply`].
    #[must_use]
    pub fn round(&mut self, tables: &Tables, now: Duration) -> Round {
        let mut round = Round::default();
        self.look_through(tables, now, &mut round);
        if now < self.next_round || self.queue.first().is_none_or(|(due, _)| *due > now) {
            return round;
        }
        let widest = [false, true].map(|ipv6| tables.widest_packet(ipv6));
        while let Some(&(due, vtep)) = self.queue.first()
            && due <= now
        {
            if round.probes.len() == EACH_ROUND {
                self.next_round = now + ROUND;
                break;
            }
            self.queue.pop_first();
            let Some(probed) = self.probed.get_mut(&vtep) else { continue };
            let widest = widest[usize::from(probed.address.is_ipv6())];
            probed.step(tables, now, (vtep, widest), &mut round);
            self.queue.insert((probed.due, vtep));
        }
        round
    }

    /// Takes up VTEPs that are to be probed from now on, and forgets others.
    fn look_through(&mut self, tables: &Tables, now: Duration, round: &mut Round) {
        if !self.is_behind(tables) || now < self.next_look {
            return;
        }
        self.peerings = Some(tables.peerings);
        let look = tables.peerings;
        let segments = tables.segments.values().filter(|segment| segment.probes);
        let peers =
            segments.flat_map(|segment| segment.peers.values().map(|peer| (segment.id, peer.vtep)));
        let mut looked_at = 0;
        for (segment, vtep) in peers {
            looked_at += 1;
            let Some(address) = tables.vtep_address(vtep) else { continue };
            let room = self.probed.len() < MAX_PROBED && !address.ip().is_multicast();
            let probed = match self.probed.entry(vtep) {
                Entry::Occupied(probed) => probed.into_mut(),
                Entry::Vacant(place) if room => {
                    let search = Search::new(self.probing, path::floor(address.ip()), now);
                    self.queue.insert((now, vtep));
                    place.insert(Probed::new(address, segment, search, now))
                }
                Entry::Vacant(_) => continue,
            };
            if probed.seen != Some(look) {
                (probed.seen, probed.in_segment) = (Some(look), false);
            }
            probed.in_segment |= segment == probed.segment;
        }
        self.next_look = now + PAUSE.max(PAUSE_EACH * looked_at);
        let queue = &mut self.queue;
        self.probed.retain(|vtep, probed| {
            let stays = probed.seen == Some(look);
            if !stays {
                queue.remove(&(probed.due, *vtep));
                round.changes.extend(probed.publish(tables, None));
            } else if !probed.in_segment {
                probed.segment = probed.other_segment(tables, *vtep).unwrap_or(probed.segment);
            }
            stays
        });
    }

    /// What is known of a VTEP's path by probing it; `None` when it is not probed.
    #[must_use]
    pub fn stats(&self, tables: &Tables, vtep: SocketAddr, now: Duration) -> Option<ProbeStats> {
        let known = tables.vtep_by_address.get(&vtep)?;
        let probed = self.probed.get(&known.id)?;
        Some(ProbeStats {
            state: probed.search.state(),
            verified: probed.search.verified(),
            last_answer: probed.answered_at.map(|at| now.saturating_sub(at)),
            round_trip: probed.search.round_trip(),
            sent: probed.sent,
            answered: probed.answered,
            black_holes: probed.black_holes,
        })
    }
}

impl Probed {
    fn new(address: SocketAddr, segment: SegmentId, search: Search, due: Duration) -> Self {
        Self {
            address,
            segment,
            seen: None,
            in_segment: false,
            search,
            due,
            ceiling: 0,
            told: None,
            answered_at: None,
            sent: 0,
            answered: 0,
            black_holes: 0,
        }
    }

    /// Does what is due about one VTEP, where the widest packet has so many bytes.
    fn step(
        &mut self,
        tables: &Tables,
        now: Duration,
        (vtep, widest): (VtepId, u32),
        round: &mut Round,
    ) {
        let path = tables.path_mtu(self.address).unwrap_or_default();
        let told = path.told();
        let ceiling = told.unwrap_or(u32::MAX).min(widest);
        let limit = |search: &Search| {
            Some(search.limit().unwrap_or(ceiling).min(ceiling)).filter(|mtu| *mtu < widest)
        };
        if std::mem::replace(&mut self.ceiling, ceiling) != ceiling {
            // Whoever found that out has reported it.
            self.told = limit(&self.search);
        }
        let (ask, hole) = self.search.step(now, ceiling, path.learned == Some(ceiling));
        self.due = self.search.due();
        if let Some(ask) = ask {
            if self.search.state() == ProbeState::Error {
                // Perhaps the VTEP does not know of this segment.
                self.segment = self.other_segment(tables, vtep).unwrap_or(self.segment);
            }
            self.sent += 1;
            round.probes.push(Probe {
                segment: self.segment,
                vtep,
                sequence: ask.sequence,
                size: ask.size,
                way: ask.way,
            });
        }
        round.changes.extend(self.publish(tables, self.search.limit()));
        if let (Some(size), Some(verified)) = (hole, self.search.limit()) {
            self.black_holes += 1;
            round.events.push(Event::BlackHole { vtep: self.address, size, verified });
        }
        if matches!(self.search.state(), ProbeState::Complete | ProbeState::Error) {
            let mtu = limit(&self.search);
            if std::mem::replace(&mut self.told, mtu) != mtu {
                round.events.push(Event::PathMtu { vtep: self.address, mtu });
            }
        }
    }

    /// The change that makes it known what packets are limited to, if it is not.
    fn publish(&self, tables: &Tables, verified: Option<u32>) -> Option<Change> {
        let known = tables.path_mtu(self.address)?;
        (known.verified != verified).then_some(Change::SetPathMtu {
            vtep: self.address,
            source: PathSource::Verified,
            mtu: verified,
            until: Duration::MAX,
        })
    }

    /// The next segment in which the VTEP is to be probed: the same one if there is no other.
    fn other_segment(&self, tables: &Tables, vtep: VtepId) -> Option<SegmentId> {
        let key = self.address.ip().into();
        let has = |segment: &&SegmentEntry| {
            segment.probes && segment.peers.get(&key).is_some_and(|peer| peer.vtep == vtep)
        };
        let mut segments = tables.segments.values().map(|segment| &**segment).filter(has);
        let first = segments.next()?.id;
        if first == self.segment {
            return Some(segments.next().map_or(first, |next| next.id));
        }
        let mut later = segments.skip_while(|segment| segment.id != self.segment);
        later.next();
        Some(later.next().map_or(first, |next| next.id))
    }
}
