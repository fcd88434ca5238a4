//! Bridge segments: Ethernet frames by MAC address.

use std::net::IpAddr;

use crate::batch::Batch;
use crate::drop_reason::DropReason;
use crate::output::Output;
use crate::segment::{Location, SegmentId, VtepId};
use crate::tables::{Bridge, PortEntry, SegmentEntry, Tables, VtepEntry};
use crate::wire::vxlan::{self, DecodeError};
use crate::wire::{FrameInfo, MacAddr, VnetHeader, Vni, eth};

use super::emit::{Targets, recognise};
use super::{Context, Fate, Forwarder, NEWS_PER_BATCH, Tally, learn};

/// The addresses of a frame that a bridge forwards.
fn addresses(frame: &[u8]) -> Result<(MacAddr, MacAddr), DropReason> {
    let (destination, source) = eth::addresses(frame).ok_or(DropReason::Truncated)?;
    if source.is_multicast() || source.is_zero() {
        return Err(DropReason::InvalidSource);
    }
    if destination.is_link_local_control() {
        return Err(DropReason::LinkLocal);
    }
    Ok((destination, source))
}

impl Forwarder {
    pub(super) fn bridge_from_port(
        &mut self,
        context: Context<'_>,
        port: &PortEntry,
        segment: &SegmentEntry,
        bridge: &Bridge,
        batch: &mut Batch,
        output: &mut Output,
    ) {
        let mut tally = Tally::default();
        let mut news = NEWS_PER_BATCH;
        for index in 0..batch.len() {
            let bytes = batch.frame(index).len();
            let from = (port, segment, bridge);
            let fate = match self.bridge_frame(context, from, batch, index, &mut news, output) {
                Ok(fate) => fate,
                Err(reason) => Fate::Dropped(reason),
            };
            tally.add(bytes, fate, context.counters);
        }
        port.counters.of(context.worker).received(tally.frames, tally.bytes);
        segment.counters.of(context.worker).sent(tally.frames, tally.bytes);
        tally.flush(context.counters);
    }

    /// Decides about one frame from a port.
    #[inline]
    fn bridge_frame(
        &mut self,
        context: Context<'_>,
        (port, segment, bridge): (&PortEntry, &SegmentEntry, &Bridge),
        batch: &mut Batch,
        index: usize,
        news: &mut u32,
        output: &mut Output,
    ) -> Result<Fate, DropReason> {
        let frame = batch.frame(index);
        let (to, from) = addresses(frame)?;
        let vnet = batch.vnet(index);
        if vnet != VnetHeader::default() && vnet.validate(frame.len()).is_err() {
            return Err(DropReason::BadOffload);
        }
        let here = Location::Port(port.id);
        match bridge.pinned(from) {
            Some(place) if place != here => return Err(DropReason::PinnedSource),
            None if bridge.learning => {
                learn(context, segment.id, bridge, (from, here), news, output)
            }
            _ => {}
        }
        let tables = context.tables;
        let known = if to.is_multicast() { None } else { bridge.lookup(to, context.second) };
        let targets = match known {
            Some(location) if location == here => return Err(DropReason::SamePort),
            Some(Location::Port(other)) => tables.port(other).map(Targets::port),
            Some(Location::Vtep(ref vtep)) => {
                tables.vtep(*vtep).map(|entry| Targets::vtep(&entry.id))
            }
            None => None,
        };
        let mut emitter = self.emitter(context, segment, output);
        if let Some(targets) = targets {
            return Ok(Fate::forwarded(emitter.emit(batch, index, vnet, None, &targets)));
        }
        let targets = Targets::flood(tables, &segment.ports, Some(port.id), &bridge.flood);
        if targets.is_empty() {
            return Err(DropReason::NoDestination);
        }
        Ok(Fate::flooded(emitter.emit(batch, index, vnet, None, &targets)))
    }

    pub(super) fn bridge_from_underlay(
        &mut self,
        context: Context<'_>,
        udp_port: u16,
        batch: &mut Batch,
        output: &mut Output,
    ) {
        let mut tally = Tally::default();
        let mut news = NEWS_PER_BATCH;
        let mut origins = Origins { tables: context.tables, udp_port, last: None };
        for index in 0..batch.len() {
            let bytes = batch.frame(index).len();
            let fate =
                match self.unwrap_frame(context, &mut origins, batch, index, &mut news, output) {
                    Ok(fate) => fate,
                    Err(reason) => Fate::Dropped(reason),
                };
            tally.add(bytes, fate, context.counters);
        }
        tally.flush(context.counters);
    }

    /// Decides about one VXLAN datagram.
    #[inline]
    fn unwrap_frame(
        &mut self,
        context: Context<'_>,
        origins: &mut Origins<'_>,
        batch: &mut Batch,
        index: usize,
        news: &mut u32,
        output: &mut Output,
    ) -> Result<Fate, DropReason> {
        let datagram = batch.frame(index);
        let vni =
            vxlan::decode(datagram, context.tables.reserved_bits).map_err(|error| match error {
                DecodeError::ReservedBits => DropReason::ReservedBits,
                _ => DropReason::NoVniFlag,
            })?;
        let source = batch.source(index).ip();
        let origin = origins.find(vni, source).ok_or(DropReason::UnknownVni)?;
        let (segment, bridge) = (origin.segment, origin.bridge);
        let worker = context.worker;
        match origin.vtep {
            Some(vtep) => vtep.counters.of(worker).received(1, datagram.len() as u64),
            None if segment.open && source != context.tables.local => {
                output.discover(segment.id, source)
            }
            None => return Err(DropReason::UnknownVtep),
        }
        batch.strip(index, vxlan::HEADER_LEN);
        let frame = batch.frame_mut(index);
        segment.counters.of(worker).received(1, frame.len() as u64);
        let (to, from) = addresses(frame)?;
        match (bridge.pinned(from), origin.vtep.map(|vtep| Location::Vtep(vtep.id))) {
            (Some(place), there) if Some(place) != there => return Err(DropReason::PinnedSource),
            (None, Some(there)) if bridge.learning => {
                learn(context, segment.id, bridge, (from, there), news, output);
            }
            _ => {}
        }
        let tables = context.tables;
        let known = if to.is_multicast() { None } else { bridge.lookup(to, context.second) };
        let target = match known {
            Some(Location::Port(port)) => tables.port(port),
            // A VTEP never sends on what another VTEP sent: in a full mesh everybody has it already.
            Some(Location::Vtep(vtep)) if tables.vtep(vtep).is_some() => {
                return Err(DropReason::SplitHorizon);
            }
            _ => None,
        };
        let info = FrameInfo::parse(frame).ok_or(DropReason::Truncated)?;
        let targets = match target {
            Some(port) => Targets::port(port),
            None => Targets::flood(tables, &segment.ports, None, &[]),
        };
        if targets.is_empty() {
            return Err(DropReason::NoDestination);
        }
        let vnet = recognise(frame, &info, segment.mtu)?;
        let mut emitter = self.emitter(context, segment, output);
        let emitted = emitter.emit(batch, index, vnet, Some(info), &targets);
        Ok(if target.is_some() { Fate::forwarded(emitted) } else { Fate::flooded(emitted) })
    }
}

/// The segment and the VTEP of a datagram.
#[derive(Clone, Copy)]
struct Origin<'a> {
    segment: &'a SegmentEntry,
    bridge: &'a Bridge,
    /// `None` when the segment does not know the sender.
    vtep: Option<&'a VtepEntry>,
}

/// Finds the origins of datagrams; neighbours in a batch mostly share theirs.
struct Origins<'a> {
    tables: &'a Tables,
    udp_port: u16,
    last: Option<(Vni, IpAddr, Origin<'a>)>,
}

impl<'a> Origins<'a> {
    #[inline]
    fn find(&mut self, vni: Vni, source: IpAddr) -> Option<Origin<'a>> {
        if let Some((last_vni, last_source, origin)) = self.last
            && last_vni == vni
            && last_source == source
        {
            return Some(origin);
        }
        let segment = self.tables.segment(SegmentId { udp_port: self.udp_port, vni: Some(vni) })?;
        let vtep: Option<VtepId> = segment.peers.get(&source).copied();
        let vtep = vtep.and_then(|vtep| self.tables.vtep(vtep));
        let origin = Origin { segment, bridge: segment.bridge()?, vtep };
        self.last = Some((vni, source, origin));
        Some(origin)
    }
}
