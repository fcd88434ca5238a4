//! Forwarding: from a batch of frames to what is to be sent and delivered.
//!
//! A [`Forwarder`] is a function with a little memory of its own (scratch space, the ICMP rate limit): it reads a
//! snapshot of the tables, learns into the shared FDBs, and counts. It owns no device, thread or clock.

mod bridge;
mod clamp;
mod emit;
mod flood;
mod gateway;
mod headers;
mod icmp;
mod lookahead;
mod many;
mod neighbours;
mod news;
mod outcome;
mod plain;
mod probe;
mod query;
mod recognise;
mod relay;
mod report;
mod routed;
mod routed_vxlan;
mod snoop;
mod storm;
mod tally;
mod targets;
mod vlan;

use std::net::IpAddr;
use std::time::Duration;

use crate::batch::Batch;
use crate::coalesce::Coalescer;
use crate::counters::WorkerCounters;
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
use crate::wire::eth::MacNumber;
use emit::Emitter;
use icmp::Budget;
use news::News;
use snoop::Chosen;
use tally::Tally;

/// Forwards batches for one worker.
#[derive(Debug)]
pub struct Forwarder {
    worker: usize,
    chunks: Vec<Chunk>,
    coalescer: Coalescer,
    icmp: Budget,
    /// Answers to probes.
    probes: Budget,
    /// Room for the part of a flood list that gets a frame.
    kept: Vec<VtepId>,
    /// Room for those who get a frame for a group.
    chosen: Chosen,
    /// What became of the frames of the batch at hand.
    tally: Tally,
    /// Number of the next batch that is learned from; wraps.
    batches: u32,
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
            icmp: Budget::new(icmp::ERRORS),
            probes: Budget::new(probe::ANSWERS),
            kept: Vec::new(),
            chosen: Chosen::default(),
            tally: Tally::default(),
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
            detached(batch, context.counters, output);
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

    /// Counts a frame from a port as dropped where it belongs.
    fn drop_from_port(
        &mut self,
        context: &Context<'_>,
        port: &PortEntry,
        segment: &SegmentEntry,
        reason: DropReason,
    ) {
        port.counters.of(context.worker).received_dropped(1);
        segment.drops.of(context.worker).dropped(reason, 1);
        self.tally.dropped(reason, context.counters);
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
        let Self { chunks, coalescer, tally, .. } = self;
        Emitter { context, segment, output, chunks, coalescer, tally, link: None }
    }
}

/// Counts a datagram of a segment, and of a VTEP if it was accepted from one, as dropped.
#[cold]
fn dropped_from_underlay(
    worker: usize,
    vtep: Option<&VtepEntry>,
    segment: &SegmentEntry,
    reason: DropReason,
) {
    segment.drops.of(worker).dropped(reason, 1);
    if reason != DropReason::UnknownVtep {
        segment.counters.of(worker).received_dropped(1);
        if let Some(vtep) = vtep {
            vtep.counters.of(worker).received_dropped(1);
        }
    }
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
fn detached(batch: &Batch, counters: &WorkerCounters, output: &mut Output) {
    let mut tally = Tally::default();
    for index in 0..batch.len() {
        output.note_drop(index, DropReason::Detached);
        tally.dropped(DropReason::Detached, counters);
    }
    tally.flush(counters, batch.len());
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
