//! Frames of bridge segments that are not for one place: who gets them.

use std::mem::take;

use crate::batch::Batch;
use crate::capture::Fate;
use crate::drop_reason::DropReason;
use crate::output::Output;
use crate::segment::{PortId, Traits, VtepId};
use crate::tables::{Bridge, PortEntry, SegmentEntry};
use crate::wire::eth::{Cast, MacNumber};
use crate::wire::{FrameInfo, VnetHeader};

use super::clamp;
use super::relay::flood_list;
use super::snoop::snooped;
use super::storm::admit;
use super::targets::Audience;
use super::vlan;
use super::{Context, Forwarder};

/// What keeps the place that a frame came from apart from others, and the VTEP if it is one.
pub(super) type Apart = (Traits, Option<VtepId>);

/// Ports, VTEPs, and what a port must not have to be among them.
pub(super) type Receivers<'a> = (&'a [PortId], &'a [VtepId], Traits);

/// What a port must not have to get a frame that is flooded.
#[inline]
pub(super) fn class(cast: Cast) -> Traits {
    match cast {
        Cast::Unicast => Traits::NO_UNKNOWN_UNICAST,
        Cast::Broadcast => Traits::NO_BROADCAST,
        Cast::Multicast => Traits::NO_MULTICAST,
    }
}

/// Who gets a frame whose destination is not at one place: the ports, the VTEPs, and what a port must not have to get
/// it.
#[inline(always)]
pub(super) fn audience<'a>(
    segment: &'a SegmentEntry,
    bridge: &'a Bridge,
    to: MacNumber,
) -> Receivers<'a> {
    // Looked for only where there is any: most segments have none.
    let list = if bridge.lists.is_empty() { None } else { bridge.lists.get(&to) };
    match list {
        // Ports that are named get it, whatever they are flooded with.
        Some(list) if !list.ports.is_empty() => (&list.ports, &list.vteps, Traits::default()),
        Some(list) => (&segment.ports, &list.vteps, class(Cast::to(to))),
        None => (&segment.ports, &bridge.flood, class(Cast::to(to))),
    }
}

impl Forwarder {
    /// Floods frame `index` of a batch from a port, from one MAC address to another.
    #[inline(never)]
    pub(super) fn flood_from_port(
        &mut self,
        context: &Context<'_>,
        (port, segment, bridge): (&PortEntry, &SegmentEntry, &Bridge),
        batch: &mut Batch,
        (index, to, from): (usize, MacNumber, MacNumber),
        output: &mut Output,
    ) -> Result<(), DropReason> {
        // Should it be dropped after all, that is noted later.
        output.note(index, Fate::Flooded);
        if self.flood_plainly(context, (port, segment, bridge), batch, (index, to), output) {
            return Ok(());
        }
        self.flood_by_options(context, (port, segment, bridge), batch, (index, to, from), output)
    }

    /// The same, as the options of the segment and of the port say.
    #[inline(never)]
    fn flood_by_options(
        &mut self,
        context: &Context<'_>,
        (port, segment, bridge): (&PortEntry, &SegmentEntry, &Bridge),
        batch: &mut Batch,
        (index, to, from): (usize, MacNumber, MacNumber),
        output: &mut Output,
    ) -> Result<(), DropReason> {
        if segment.most_mss != 0 {
            clamp::towards(context, segment, &bridge.flood, batch, index);
        }
        let (of, frame) = ((port, segment, bridge), (index, to, from));
        if let Some(mdb) = snooped(bridge, to) {
            return self.snoop_from_port(context, (of, mdb), batch, frame, output);
        }
        let all = audience(segment, bridge, to);
        self.flood_among_from_port(context, of, batch, frame, all, output)
    }

    /// The same to some of those who get it.
    #[inline(always)]
    pub(super) fn flood_among_from_port(
        &mut self,
        context: &Context<'_>,
        (port, segment, bridge): (&PortEntry, &SegmentEntry, &Bridge),
        batch: &mut Batch,
        (index, to, from): (usize, MacNumber, MacNumber),
        (ports, vteps, unwanted): Receivers<'_>,
        output: &mut Output,
    ) -> Result<(), DropReason> {
        let vnet = batch.vnet(index);
        let frame = batch.frame(index);
        let flooded = (from, class(Cast::to(to)), frame.len(), vnet);
        admit(context, (segment, bridge), Some(port), flooded, output)?;
        let audience = Audience {
            tables: context.tables,
            ports,
            except: (!port.traits.meets(Traits::HAIRPIN)).then_some(port.id),
            without: port.traits.apart() | unwanted,
            vid: vlan::vid(frame),
            vteps,
        };
        let frame = (index, vnet, None);
        if port.traits.in_group() {
            let from = (segment, bridge, (port.traits, None));
            return self.flood_apart(context, from, batch, frame, audience, output);
        }
        self.flood(context, segment, batch, frame, &audience, output)
    }

    /// Floods frame `index` of a batch from the underlay, out of its encapsulation, from one MAC address to another.
    ///
    /// `vnet` says what is unfinished about it; `apart` and `sender` what keeps its VTEP apart from other places, and
    /// that VTEP.
    #[inline(never)]
    pub(super) fn flood_from_underlay(
        &mut self,
        context: &Context<'_>,
        (segment, bridge, (apart, sender)): (&SegmentEntry, &Bridge, Apart),
        batch: &mut Batch,
        (index, to, from): (usize, MacNumber, MacNumber),
        unfinished: (VnetHeader, FrameInfo),
        output: &mut Output,
    ) -> Result<(), DropReason> {
        output.note(index, Fate::Flooded);
        let (of, frame) = ((segment, bridge, (apart, sender)), (index, to, from));
        if let Some(mdb) = snooped(bridge, to) {
            let of = (of, mdb);
            return self.snoop_from_underlay(context, of, batch, frame, unfinished, output);
        }
        let all = (unfinished, audience(segment, bridge, to));
        self.flood_among_from_underlay(context, of, batch, frame, all, output)
    }

    /// The same to some of those who get it.
    #[inline(always)]
    pub(super) fn flood_among_from_underlay(
        &mut self,
        context: &Context<'_>,
        (segment, bridge, (apart, sender)): (&SegmentEntry, &Bridge, Apart),
        batch: &mut Batch,
        (index, to, from): (usize, MacNumber, MacNumber),
        ((vnet, info), (ports, vteps, unwanted)): ((VnetHeader, FrameInfo), Receivers<'_>),
        output: &mut Output,
    ) -> Result<(), DropReason> {
        let flooded = (from, class(Cast::to(to)), batch.span(index).len as usize, vnet);
        admit(context, (segment, bridge), None, flooded, output)?;
        self.coalescer.end_all(batch, output);
        let (without, vid) = (apart | unwanted, vlan::vid(batch.frame(index)));
        let (tables, frame) = (context.tables, (index, vnet, Some(info)));
        let all = Audience { tables, ports, except: None, without, vid, vteps };
        // Mostly not: in a full mesh everybody has it already.
        if bridge.relays() {
            let from = (segment, bridge, (apart, sender));
            return self.flood_apart(context, from, batch, frame, all, output);
        }
        let ports = Audience { vteps: &[], ..all };
        self.flood(context, segment, batch, frame, &ports, output)
    }

    /// Floods a frame from a place that is kept apart from others to those of some VTEPs that get it.
    #[cold]
    fn flood_apart(
        &mut self,
        context: &Context<'_>,
        (segment, bridge, from): (&SegmentEntry, &Bridge, Apart),
        batch: &mut Batch,
        frame: (usize, VnetHeader, Option<FrameInfo>),
        audience: Audience<'_>,
        output: &mut Output,
    ) -> Result<(), DropReason> {
        let mut kept = take(&mut self.kept);
        let vteps = flood_list(bridge, audience.vteps, from, &mut kept);
        let audience = Audience { vteps, ..audience };
        let flooded = self.flood(context, segment, batch, frame, &audience, output);
        self.kept = kept;
        flooded
    }

    #[inline(always)]
    fn flood(
        &mut self,
        context: &Context<'_>,
        segment: &SegmentEntry,
        batch: &mut Batch,
        (index, vnet, info): (usize, VnetHeader, Option<FrameInfo>),
        audience: &Audience<'_>,
        output: &mut Output,
    ) -> Result<(), DropReason> {
        self.emitter(context, segment, output).flood(batch, index, vnet, info, audience)
    }
}
