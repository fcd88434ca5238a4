//! Forwarding: from a batch of frames to what is to be sent and delivered.
//!
//! A [`Forwarder`] is a function with a little memory of its own (scratch space, the ICMP rate limit): it reads a
//! snapshot of the tables, learns into the shared FDBs, and counts. It owns no device, thread or clock.

mod bridge;
mod clamp;
mod emit;
mod gateway;
mod icmp;
mod lookahead;
mod neighbours;
mod news;
mod outcome;
mod relay;
mod report;
mod routed;
mod routed_vxlan;
mod storm;
mod vlan;

use std::net::IpAddr;
use std::time::Duration;

use crate::batch::Batch;
use crate::coalesce::Coalescer;
use crate::counters::{Groups, WorkerCounters};
use crate::damper::{Pace, Verdict};
use crate::drop_reason::DropReason;
use crate::event::Event;
use crate::fdb::{Learned, Place, Removed, seconds};
use crate::gso::Chunk;
use crate::hash::mix;
use crate::offload::Offloads;
use crate::output::Output;
use crate::segment::{Location, PortId, SegmentId, VtepId};
use crate::tables::{Bridge, PortEntry, SegmentEntry, SegmentTable, Tables, VtepEntry};
use crate::wire::eth::{Cast, MacNumber};
use emit::Emitter;
use icmp::Budget;
use news::News;

/// Forwards batches for one worker.
#[derive(Debug)]
pub struct Forwarder {
    worker: usize,
    chunks: Vec<Chunk>,
    coalescer: Coalescer,
    icmp: Budget,
    /// Room for the part of a flood list that gets a frame.
    kept: Vec<VtepId>,
    /// Number of the next batch that is learned from; wraps.
    batches: u32,
}

/// What became of one received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// To one destination, in so many pieces.
    Forwarded(u64),
    /// To everybody, in so many copies.
    Flooded(u64),
    /// In place of whoever it asks for.
    Answered,
    Dropped(DropReason),
}

/// The running counts of one batch, written to the shared counters once at its end.
#[derive(Debug, Default)]
struct Tally {
    frames: u64,
    bytes: u64,
    forwarded: u64,
    chunks: u64,
    flooded: u64,
    copies: u64,
    /// Those of the frames that are for groups.
    groups: Groups,
    /// Frames, and their bytes, of which the underlay gets a copy.
    underlay_frames: u64,
    underlay_bytes: u64,
    underlay_groups: Groups,
}

impl Tally {
    #[inline]
    fn add(&mut self, bytes: u32, fate: Fate, counters: &WorkerCounters) {
        self.frames += 1;
        self.bytes += u64::from(bytes);
        match fate {
            Fate::Forwarded(pieces) => {
                self.forwarded += 1;
                self.chunks += pieces - 1;
            }
            Fate::Flooded(copies) => {
                self.flooded += 1;
                self.copies += copies;
            }
            Fate::Answered => counters.answered.add(1),
            Fate::Dropped(reason) => counters.dropped(reason, 1),
        }
    }

    /// Notes of the frame added last for how many it is, and where copies of it go: whether it made a datagram.
    #[inline]
    fn towards_underlay(&mut self, bytes: u32, cast: Cast, transmits: bool) {
        self.underlay_frames += u64::from(transmits);
        self.underlay_bytes += if transmits { u64::from(bytes) } else { 0 };
        if cast != Cast::Unicast {
            self.groups.add(cast, 1);
            self.underlay_groups.add(cast, u64::from(transmits));
        }
    }

    /// Counts all of them as frames of a port and its segment.
    fn flush_from_port(&self, context: &Context<'_>, port: &PortEntry, segment: &SegmentEntry) {
        let counters = port.counters.of(context.worker);
        counters.received(self.frames, self.bytes);
        counters.received_for(self.groups);
        let counters = segment.counters.of(context.worker);
        counters.sent(self.underlay_frames, self.underlay_bytes);
        counters.sent_for(self.underlay_groups);
        self.flush(context.counters);
    }

    fn flush(&self, counters: &WorkerCounters) {
        counters.received.add(self.frames);
        counters.forwarded.add(self.forwarded);
        counters.chunks.add(self.chunks);
        counters.flooded.add(self.flooded);
        counters.copies.add(self.copies);
    }
}

/// What all frames of a batch share.
struct Context<'a> {
    tables: &'a Tables,
    counters: &'a WorkerCounters,
    worker: usize,
    now: Duration,
    second: u32,
    /// Seed of the hash that chooses source ports.
    entropy: u64,
    /// Seed of the hash that spreads flows over the members of a next-hop group.
    spread: u64,
}

impl Forwarder {
    /// Makes the forwarder of worker `worker`, counted from 0 and below the number the tables were made for.
    #[must_use]
    pub fn new(worker: usize) -> Self {
        Self {
            worker,
            chunks: Vec::new(),
            coalescer: Coalescer::new(),
            icmp: Budget::new(),
            kept: Vec::new(),
            batches: 0,
        }
    }

    /// Says which frames from the underlay are joined to super-frames, for ports that take them: those of
    /// [`Offload::CoalesceTcp`](crate::Offload::CoalesceTcp) and [`Offload::CoalesceUdp`](crate::Offload::CoalesceUdp),
    /// none at first. The other offloads are none of its business.
    pub fn set_offloads(&mut self, offloads: Offloads) {
        self.coalescer.set_offloads(offloads);
    }

    fn context<'a>(&self, tables: &'a Tables, now: Duration) -> Context<'a> {
        Context {
            tables,
            counters: tables.counters.of(self.worker),
            worker: self.worker,
            now,
            second: seconds(now),
            entropy: seed_of(tables.seed, *b"entropy!"),
            spread: seed_of(tables.seed, *b"spread!!"),
        }
    }

    /// Forwards a batch of frames that were read from `port`, and adds the decisions to `output`.
    ///
    /// `now` is the time since any fixed origin, the same as in [`Tables::apply`].
    ///
    /// # Panics
    /// When the tables were made for fewer workers than this one's number, or the batch holds trains, which come from
    /// the underlay.
    pub fn from_port(
        &mut self,
        tables: &Tables,
        now: Duration,
        port: PortId,
        batch: &mut Batch,
        output: &mut Output,
    ) {
        assert!(!batch.has_trains(), "a batch from a port holds trains");
        let context = self.context(tables, now);
        let attached =
            tables.port(port).and_then(|port| Some((port, tables.segment(port.segment)?)));
        let Some((port, segment)) = attached else {
            detached(batch, context.counters);
            return;
        };
        match &segment.table {
            SegmentTable::Bridge(bridge) => {
                self.bridge_from_port(&context, port, segment, bridge, batch, output)
            }
            SegmentTable::Routed(routed) => {
                self.route_from_port(&context, port, segment, routed, batch, output)
            }
        }
    }

    /// Forwards a batch of datagrams that were received on UDP port `udp_port` (host order), and adds the decisions
    /// to `output`.
    ///
    /// # Panics
    /// When the tables were made for fewer workers than this one's number.
    pub fn from_underlay(
        &mut self,
        tables: &Tables,
        now: Duration,
        udp_port: u16,
        batch: &mut Batch,
        output: &mut Output,
    ) {
        let context = self.context(tables, now);
        let routed = tables.segment(SegmentId { udp_port, vni: None });
        match routed.map(|segment| (segment, &segment.table)) {
            Some((segment, SegmentTable::Routed(routed))) => {
                self.route_from_underlay(&context, segment, routed, batch, output);
            }
            _ => self.bridge_from_underlay(&context, udp_port, batch, output),
        }
    }

    /// What may be learned from the next batch.
    fn news(&mut self) -> News {
        self.batches = self.batches.wrapping_add(1);
        News::new(self.batches)
    }

    #[inline]
    fn emitter<'a>(
        &'a mut self,
        context: &'a Context<'a>,
        segment: &'a SegmentEntry,
        output: &'a mut Output,
    ) -> Emitter<'a> {
        let Self { chunks, coalescer, .. } = self;
        Emitter { context, segment, output, chunks, coalescer, link: None }
    }
}

/// Counts a frame from a port as dropped where it belongs; what became of it in all is counted by its fate.
#[cold]
fn dropped_from_port(
    worker: usize,
    port: &PortEntry,
    segment: &SegmentEntry,
    reason: DropReason,
) -> Fate {
    port.counters.of(worker).received_dropped(1);
    segment.drops.of(worker).dropped(reason, 1);
    Fate::Dropped(reason)
}

/// The same for a datagram of a segment, and of a VTEP if it was accepted from one.
#[cold]
fn dropped_from_underlay(
    worker: usize,
    vtep: Option<&VtepEntry>,
    segment: &SegmentEntry,
    reason: DropReason,
) -> Fate {
    segment.drops.of(worker).dropped(reason, 1);
    if reason != DropReason::UnknownVtep {
        segment.counters.of(worker).received_dropped(1);
        if let Some(vtep) = vtep {
            vtep.counters.of(worker).received_dropped(1);
        }
    }
    Fate::Dropped(reason)
}

/// Accepts a datagram of a sender that the segment does not know, which is then to be discovered, or not.
#[cold]
fn admit_stranger(
    context: &Context<'_>,
    segment: &SegmentEntry,
    source: IpAddr,
    output: &mut Output,
) -> Result<(), DropReason> {
    if !segment.open || context.tables.locals.contains(source) {
        return Err(DropReason::UnknownVtep);
    }
    output.discover(segment.id, source);
    Ok(())
}

/// Counts a batch that has nowhere to go any more.
fn detached(batch: &Batch, counters: &WorkerCounters) {
    let mut tally = Tally::default();
    for index in 0..batch.len() {
        tally.add(batch.span(index).len, Fate::Dropped(DropReason::Detached), counters);
    }
    tally.flush(counters);
}

/// Where a frame came from: as entries have it, and as the rest has it.
#[derive(Clone, Copy)]
struct At {
    place: u32,
    location: Location,
}

impl At {
    fn new(place: Option<&Place>, location: Location) -> Option<Self> {
        Some(Self { place: place?.number(), location })
    }
}

/// Learns that `mac`, which was not known to be there, is at `at`, as far as news are learned, and reports what is new.
///
/// # Errors
/// The frame is to be dropped if the address moves too fast, and is held elsewhere.
#[inline]
fn learn_unknown(
    context: &Context<'_>,
    segment: SegmentId,
    bridge: &Bridge,
    (mac, at): (MacNumber, At),
    news: &mut News,
    output: &mut Output,
) -> Result<(), DropReason> {
    if let Some(pace) = bridge.pace {
        hold(context, segment, (bridge, pace), (mac, at), output)?;
    }
    if news.take(at.place) {
        learn_news(context, segment, bridge, (mac, at), news, output);
    }
    Ok(())
}

/// Refuses a MAC address that is known elsewhere and has moved too often, and reports it once.
#[cold]
fn hold(
    context: &Context<'_>,
    segment: SegmentId,
    (bridge, pace): (&Bridge, Pace),
    (mac, at): (MacNumber, At),
    output: &mut Output,
) -> Result<(), DropReason> {
    let tables = context.tables;
    let verdict = tables.damper.verdict(segment, mac, pace, context.second);
    if verdict == Verdict::Follow {
        return Ok(());
    }
    let held = bridge.macs().lookup(mac, context.second).filter(|held| *held != at.location);
    // One that has aged out, or whose place is gone, moves nowhere: it is new.
    let Some(held) = held.and_then(|held| tables.destination(held)) else { return Ok(()) };
    if verdict == Verdict::HeldNow
        && let Some(elsewhere) = tables.destination(at.location)
    {
        output.event(Event::Damped { segment, mac: mac.into(), at: held, elsewhere });
    }
    Err(DropReason::Damped)
}

#[cold]
fn learn_news(
    context: &Context<'_>,
    segment: SegmentId,
    bridge: &Bridge,
    (mac, at): (MacNumber, At),
    news: &mut News,
    output: &mut Output,
) {
    let (tables, counters) = (context.tables, context.counters);
    let mut removed = |removed: Removed| {
        let (segment, mac) = (SegmentId::from_word(removed.domain), removed.mac);
        if removed.expired {
            output.event(Event::Aged { segment, mac });
        } else {
            counters.evicted.add(1);
            output.event(Event::Evicted { segment, mac });
        }
    };
    let learned =
        bridge.fdb.learn_news(&bridge.domain, mac, at.place, context.second, &mut removed);
    if let (Learned::Moved { .. }, Some(pace)) = (&learned, bridge.pace) {
        tables.damper.moved(segment, mac, pace, context.second);
    }
    let mac = mac.into();
    match learned {
        Learned::Known | Learned::Later => {}
        Learned::Full => counters.learning_refused.add(1),
        Learned::MovedAlready => {
            // This costs a lookup: stations that fight for an address must not use up the others' chances.
            news.put_back(at.place);
            counters.moves_refused.add(1);
        }
        Learned::New => {
            if let Some(at) = tables.destination(at.location) {
                output.event(Event::Learned { segment, mac, at });
            }
        }
        Learned::Moved { from } => {
            if let Some(to) = tables.destination(at.location) {
                let from = tables.destination(Location::from_word(from));
                output.event(Event::Moved { segment, mac, from, to });
            }
        }
    }
}

/// A seed for one use: source ports are chosen and flows are spread independently of each other and of the tables, whose
/// seed must not show on the wire.
fn seed_of(tables_seed: u64, what: [u8; 8]) -> u64 {
    mix(tables_seed, u64::from_be_bytes(what))
}
