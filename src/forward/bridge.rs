//! Bridge segments: Ethernet frames by MAC address.

use std::mem::take;

use crate::batch::Batch;
use crate::counters::Groups;
use crate::drop_reason::DropReason;
use crate::metadata::Metadata;
use crate::output::Output;
use crate::segment::{Location, Traits, VtepId};
use crate::source_key::SourceKey;
use crate::tables::{Bridge, Macs, PortEntry, SegmentEntry, Tables, VtepEntry};
use crate::wire::eth::{self, Cast, MacNumber};
use crate::wire::vxlan::{self, DecodeError, Header};
use crate::wire::{FrameInfo, GroupPolicy, Vni, neighbour};

use super::clamp;
use super::lookahead::{prefetch_datagrams, prefetch_frames};
use super::neighbours::hear_from_underlay;
use super::news::News;
use super::recognise::recognise;
use super::relay::{between, to_vtep};
use super::routed_vxlan::RoutedOrigin;
use super::vlan;
use super::{At, Context, Forwarder, admit_stranger, dropped_from_underlay, learn_unknown};

/// The addresses of a frame that a bridge forwards.
#[inline]
fn addresses(frame: &[u8], bridge: &Bridge) -> Result<(MacNumber, MacNumber), DropReason> {
    let (destination, source) = eth::address_numbers(frame).ok_or(DropReason::Truncated)?;
    if !source.is_individual() {
        return Err(DropReason::InvalidSource);
    }
    if destination.is_link_local_control() && !bridge.scope.forwards(destination) {
        return Err(DropReason::LinkLocal);
    }
    Ok((destination, source))
}

/// What the frame before found out, within one segment, one origin and one batch; neighbours mostly share it.
#[derive(Clone, Copy, Default)]
struct Recent {
    /// A source that may send from this origin and is known to be there.
    source: Option<MacNumber>,
    destination: Option<(MacNumber, Location)>,
    /// A location that exists: that of the last destination that was looked up.
    location: Option<Location>,
}

impl Recent {
    /// Takes note of a source; if it was not `known` to be here, destinations may not be where they were.
    #[inline]
    fn saw(&mut self, source: MacNumber, known: bool) {
        *self = match known {
            true => Self { source: Some(source), ..*self },
            false => Self { location: self.location, ..Self::default() },
        };
    }

    /// Where a destination is, if that is there at all.
    #[inline(always)]
    fn lookup(
        &mut self,
        context: &Context<'_>,
        macs: &Macs<'_>,
        to: MacNumber,
    ) -> Option<Location> {
        match self.destination {
            _ if to.is_multicast() => None,
            Some((last, location)) if last == to => Some(location),
            _ => {
                let location = macs.lookup(to, context.second)?;
                // Mostly it is the same, and then nothing waits for what says so.
                if self.location != Some(location) {
                    self.location = Some(location).filter(|at| context.tables.has(*at));
                    self.location?;
                }
                self.destination = Some((to, location));
                Some(location)
            }
        }
    }
}

/// Where a frame came in: the port, its segment with its tables, and what the frame before found out.
type FromPort<'a> = (&'a PortEntry, &'a SegmentEntry, (&'a Bridge, &'a Macs<'a>), &'a mut Recent);

impl Forwarder {
    pub(super) fn bridge_from_port(
        &mut self,
        context: &Context<'_>,
        port: &PortEntry,
        segment: &SegmentEntry,
        bridge: &Bridge,
        batch: &mut Batch,
        output: &mut Output,
    ) {
        let mut news = self.news();
        let mut recent = Recent::default();
        let macs = bridge.macs();
        prefetch_frames(bridge, batch);
        let delivered = output.delivers.len();
        for index in 0..batch.len() {
            let bytes = batch.span(index).len;
            let cast = Cast::of(batch.frame(index));
            self.tally.received(bytes, cast);
            let from = (port, segment, (bridge, &macs), &mut recent);
            if let Err(reason) = self.bridge_frame(context, from, batch, index, &mut news, output) {
                self.refuse(context, (port, segment, &macs), batch, index, reason, output);
            }
        }
        if batch.has_metadata() {
            output.describe(delivered, batch);
        }
        take(&mut self.tally).flush_from_port(context, port, segment, batch.len());
    }

    /// Drops a frame from a port, and tells its sender if that may help.
    #[cold]
    fn refuse(
        &mut self,
        context: &Context<'_>,
        (port, segment, macs): (&PortEntry, &SegmentEntry, &Macs<'_>),
        batch: &mut Batch,
        index: usize,
        reason: DropReason,
        output: &mut Output,
    ) {
        if reason == DropReason::TooBig {
            // What goes back goes by the port's VLANs, too.
            if port.traits.meets(Traits::VLAN) {
                let _ = vlan::hand_out(port, batch, index);
            }
            self.report_too_big(context, (port, segment, macs), batch, index, output);
        }
        output.note_drop(index, reason);
        self.drop_from_port(context, port, segment, reason);
    }

    /// Decides about one frame from a port.
    #[inline]
    fn bridge_frame(
        &mut self,
        context: &Context<'_>,
        (port, segment, (bridge, macs), recent): FromPort<'_>,
        batch: &mut Batch,
        index: usize,
        news: &mut News,
        output: &mut Output,
    ) -> Result<(), DropReason> {
        if port.traits.meets(Traits::VLAN) {
            vlan::take_in(port, batch, index)?;
        }
        let frame = batch.frame(index);
        let (to, from) = addresses(frame, bridge)?;
        let mut vnet = batch.vnet(index);
        if !vnet.is_zero() && vnet.validate(frame.len()).is_err() {
            return Err(DropReason::BadOffload);
        }
        let here = Location::Port(port.id);
        if recent.source != Some(from) {
            let known = match macs.pinned(from) {
                Some(place) if place != here => return Err(DropReason::PinnedSource),
                None if bridge.learning && !port.traits.meets(Traits::NO_LEARNING) => {
                    match At::new(port.place.as_ref(), here) {
                        Some(at) if !macs.learned.refresh(from, at.place, context.second) => {
                            learn_unknown(context, segment.id, bridge, (from, at), news, output)?;
                            false
                        }
                        _ => true,
                    }
                }
                _ => true,
            };
            recent.saw(from, known);
        }
        if let Some(neighbours) = &bridge.neighbours
            && neighbour::may_be(batch.frame(index))
        {
            let from = (port, segment, macs, &**neighbours);
            if self.neighbour_from_port(context, from, batch, index, news, output).is_some() {
                return Ok(());
            }
        }
        let tables = context.tables;
        let known = recent.lookup(context, macs, to);
        match known {
            Some(Location::Vtep(vtep)) => {
                if port.traits.in_group() {
                    to_vtep(bridge, (port.traits, None), vtep)?;
                }
                if segment.most_mss != 0 {
                    clamp::towards(context, segment, &[vtep], batch, index);
                }
                let emitter = self.emitter(context, segment, output);
                return emitter.emit_to_vtep(batch, index, vnet, None, vtep);
            }
            Some(Location::Port(other)) => {
                if let Some(to) = tables.port(other) {
                    if other == port.id || to.traits.meets(port.traits | Traits::VLAN) {
                        between(port, to)?;
                        vlan::hand_out(to, batch, index)?;
                        vnet = batch.vnet(index);
                    }
                    let emitter = self.emitter(context, segment, output);
                    return emitter.emit_to_port(batch, index, vnet, None, to);
                }
            }
            None => {}
        }
        let frame = (index, to, from);
        self.flood_from_port(context, (port, segment, bridge), batch, frame, output)
    }

    pub(super) fn bridge_from_underlay(
        &mut self,
        context: &Context<'_>,
        udp_port: u16,
        batch: &mut Batch,
        output: &mut Output,
    ) {
        let mut news = self.news();
        let mut origins = Origins {
            tables: context.tables,
            worker: context.worker,
            udp_port,
            last: None,
            routed: None,
            datagrams: 0,
            bytes: 0,
            groups: Groups::default(),
            recent: Recent::default(),
        };
        prefetch_datagrams(context.tables, udp_port, batch);
        let delivered = output.delivers.len();
        for index in 0..batch.len() {
            let bytes = batch.span(index).len;
            if self.coalescer.follow(batch, index, origins.encapsulation(), output) {
                origins.accepted(bytes as usize);
                continue;
            }
            let unwrapped =
                self.unwrap_frame(context, &mut origins, batch, index, &mut news, output);
            if let Err(reason) = unwrapped {
                self.refused(context, &origins, (batch, index), reason, output);
            }
        }
        self.coalescer.end_all(batch, output);
        if batch.has_metadata() {
            output.describe(delivered, batch);
        }
        origins.flush();
        take(&mut self.tally).flush(context.counters, batch.len());
    }

    /// Decides about one VXLAN datagram.
    #[inline]
    fn unwrap_frame(
        &mut self,
        context: &Context<'_>,
        origins: &mut Origins<'_>,
        batch: &mut Batch,
        index: usize,
        news: &mut News,
        output: &mut Output,
    ) -> Result<(), DropReason> {
        let datagram = batch.frame(index);
        let header = vxlan::decode(datagram).map_err(|_| DropReason::NoVniFlag)?;
        let Some(origin) = origins.find(header.vni(), batch.source_key(index)) else {
            if !header.is_plain() {
                policy(context, header, false)?;
            }
            return self.unwrap_routed_frame(context, origins, batch, index, output);
        };
        let Found { segment, bridge, .. } = origin;
        let mut learning = bridge.learning;
        if !header.is_plain() || segment.header.any_vni {
            let metadata = metadata(context, segment, header)?;
            learning &= metadata.policy.is_none_or(|policy| !policy.dont_learn);
            batch.set_metadata(index, metadata);
        }
        if origin.at.is_none() {
            admit_stranger(context, segment, batch.source(index), output)?;
        }
        origins.accepted(batch.span(index).len as usize);
        batch.strip(index, vxlan::HEADER_LEN);
        let size = batch.vnet(index).gso_size;
        let outer_ecn = batch.ecn(index);
        let frame = batch.frame_mut(index);
        let cast = Cast::of(frame);
        if cast != Cast::Unicast {
            origins.groups.add(cast, 1);
        }
        let (to, from) = addresses(frame, bridge)?;
        let Some(Origin { macs, apart, .. }) = &origins.last else {
            return Err(DropReason::UnknownVni);
        };
        let apart = *apart;
        if origins.recent.source != Some(from) {
            let known = match (macs.pinned(from), origin.at) {
                (Some(place), at) if at.is_none_or(|at| at.location != place) => {
                    return Err(DropReason::PinnedSource);
                }
                (None, Some(there)) if learning => {
                    let known = macs.learned.refresh(from, there.place, context.second);
                    if !known {
                        if bridge.owns(from) {
                            return Err(DropReason::OwnSource);
                        }
                        learn_unknown(context, segment.id, bridge, (from, there), news, output)?;
                    }
                    known
                }
                _ if bridge.owns(from) => return Err(DropReason::OwnSource),
                _ => true,
            };
            // What must not be learned from says nothing of the next frame.
            if learning == bridge.learning {
                origins.recent.saw(from, known);
            }
        }
        if let (Some(neighbours), Some(there)) = (&bridge.neighbours, origin.at)
            && neighbour::may_be(frame)
        {
            hear_from_underlay(context, segment.id, neighbours, frame, there, news, output);
        }
        let tables = context.tables;
        let known = origins.recent.lookup(context, macs, to);
        let mut relay = None;
        let port = match known {
            Some(Location::Port(port)) => match tables.port(port) {
                Some(to) if to.traits.meets(apart | Traits::VLAN) => {
                    if to.traits.meets(apart) {
                        return Err(DropReason::SplitHorizon);
                    }
                    vlan::hand_out(to, batch, index)?;
                    Some(to)
                }
                to => to,
            },
            // Mostly not: in a full mesh everybody has it already.
            Some(Location::Vtep(vtep)) => {
                to_vtep(bridge, (apart, origin.vtep_id()), vtep)?;
                relay = Some(vtep);
                None
            }
            None => None,
        };
        let frame = batch.frame_mut(index);
        let parsed = FrameInfo::parse(frame);
        let info = parsed.as_ref().ok_or(DropReason::Truncated)?;
        if outer_ecn != 0 && segment.outer.merges_ecn && !info.merge_ecn(frame, outer_ecn) {
            return Err(DropReason::CeOnNotEct);
        }
        let unfinished = recognise(frame, info, segment.mtu, size);
        if segment.most_mss != 0 {
            let partial = unfinished.is_some();
            clamp::backwards(context, segment, origin.vtep_id(), (frame, info), partial);
        }
        if let Some(port) = port {
            let emitter = self.emitter(context, segment, output);
            return emitter.deliver_recognised(batch, index, unfinished, info, port);
        }
        let vnet = unfinished.unwrap_or_default();
        if let Some(vtep) = relay {
            let emitter = self.emitter(context, segment, output);
            return emitter.emit_to_vtep(batch, index, vnet, Some(info), vtep);
        }
        let place = (segment, bridge, (apart, origin.vtep_id()));
        let frame = (index, to, from);
        self.flood_from_underlay(context, place, batch, frame, (vnet, *info), output)
    }
}

/// What a header that has more than a VNI says, to a segment that speaks the group policy extension or not.
#[cold]
fn policy(
    context: &Context<'_>,
    header: Header,
    gbp: bool,
) -> Result<Option<GroupPolicy>, DropReason> {
    header.extensions(context.tables.reserved_bits, gbp).map_err(|error| match error {
        DecodeError::ReservedBits => DropReason::ReservedBits,
        _ => DropReason::VxlanExtension,
    })
}

/// What a header says beside its segment.
#[cold]
fn metadata(
    context: &Context<'_>,
    segment: &SegmentEntry,
    header: Header,
) -> Result<Metadata, DropReason> {
    let policy = policy(context, header, segment.header.gbp)?;
    Ok(Metadata { vni: Some(header.vni()), policy })
}

/// Whether a datagram was dropped before its segment was looked for, or for want of one.
fn names_no_segment(reason: DropReason) -> bool {
    matches!(reason, DropReason::NoVniFlag | DropReason::UnknownVni)
}

/// The VNI and sender of a datagram, and what was found for them.
struct Origin<'a> {
    vni: Vni,
    source: SourceKey,
    found: Found<'a>,
    /// Apart from what is found, which is handed about for each frame and has to be small.
    macs: Macs<'a>,
    /// What keeps the VTEP apart from other places.
    apart: Traits,
}

/// The segment and the VTEP of a datagram.
#[derive(Clone, Copy)]
struct Found<'a> {
    segment: &'a SegmentEntry,
    bridge: &'a Bridge,
    /// `None` when the segment does not know the sender.
    vtep: Option<&'a VtepEntry>,
    /// The same, for learning.
    at: Option<At>,
}

impl Found<'_> {
    fn vtep_id(&self) -> Option<VtepId> {
        match self.at?.location {
            Location::Vtep(vtep) => Some(vtep),
            Location::Port(_) => None,
        }
    }
}

/// Finds the origins of datagrams; neighbours in a batch mostly share theirs.
pub(super) struct Origins<'a> {
    tables: &'a Tables,
    worker: usize,
    udp_port: u16,
    last: Option<Origin<'a>>,
    /// The last origin instead, if its segment is routed.
    pub(super) routed: Option<RoutedOrigin<'a>>,
    /// Datagrams accepted from the last origin, and their bytes, not counted yet.
    datagrams: u64,
    bytes: u64,
    /// Those of the datagrams that hold frames for groups.
    groups: Groups,
    recent: Recent,
}

impl<'a> Origins<'a> {
    #[inline]
    fn find(&mut self, vni: Vni, source: SourceKey) -> Option<Found<'a>> {
        let same = self.last.as_ref().is_some_and(|last| last.vni == vni && last.source == source);
        if !same && !self.routed.as_ref().is_some_and(|last| last.is(vni, source)) {
            self.find_another(vni, source);
        }
        // Read here for both cases: handed from one to the other it would be stored and loaded.
        self.last.as_ref().map(|last| last.found)
    }

    #[inline(never)]
    fn find_another(&mut self, vni: Vni, source: SourceKey) {
        self.flush();
        self.recent = Recent::default();
        let segment = self.tables.bridge_of(self.udp_port, vni);
        self.routed = segment.and_then(|it| RoutedOrigin::new(self.tables, it, vni, source));
        self.last = segment.and_then(|segment| {
            let peer = segment.peers.get(&source);
            let vtep = peer.and_then(|peer| self.tables.vtep(peer.vtep));
            let at = peer.and_then(|peer| At::new(peer.place.as_ref(), Location::Vtep(peer.vtep)));
            let bridge = segment.bridge()?;
            let found = Found { segment, bridge, vtep, at };
            let apart = bridge.apart(found.vtep_id());
            Some(Origin { vni, source, found, macs: bridge.macs(), apart })
        });
    }

    /// Bytes between the outer UDP header of a datagram from the last origin and what its ports get.
    #[inline]
    fn encapsulation(&self) -> usize {
        let link = if self.routed.is_some() { eth::HEADER_LEN } else { 0 };
        vxlan::HEADER_LEN + link
    }

    /// Notes a datagram of `bytes` bytes that was accepted from the last origin found.
    #[inline]
    pub(super) fn accepted(&mut self, bytes: usize) {
        self.datagrams += 1;
        self.bytes += bytes as u64;
    }

    /// Counts a datagram as dropped where it belongs, as far as that was found out before.
    #[cold]
    pub(super) fn dropped(&self, reason: DropReason) {
        if let Some((segment, vtep)) = self.place().filter(|_| !names_no_segment(reason)) {
            dropped_from_underlay(self.worker, vtep, segment, reason);
        }
    }

    /// The segment and the VTEP of the last origin, of either kind.
    pub(super) fn place(&self) -> Option<(&'a SegmentEntry, Option<&'a VtepEntry>)> {
        match (&self.last, &self.routed) {
            (Some(Origin { found, .. }), _) => Some((found.segment, found.vtep)),
            (None, routed) => routed.map(|routed| (routed.segment, routed.vtep)),
        }
    }

    /// Counts what was accepted from the last origin.
    fn flush(&mut self) {
        let (datagrams, bytes) = (take(&mut self.datagrams), take(&mut self.bytes));
        let groups = take(&mut self.groups);
        let Some((segment, vtep)) = self.place() else { return };
        if let Some(vtep) = vtep {
            let counters = vtep.counters.of(self.worker);
            counters.received(datagrams, bytes);
            counters.received_for(groups);
        }
        let headers = datagrams * vxlan::HEADER_LEN as u64;
        let counters = segment.counters.of(self.worker);
        counters.received(datagrams, bytes - headers);
        counters.received_for(groups);
    }
}
