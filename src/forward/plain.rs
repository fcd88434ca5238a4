//! Flooding where nothing is asked of it: no option of the segment or of the port applies, and the frame is finished.
//!
//! That is what nearly all floods are, so here nothing is prepared for the rest: neither the frame's receivers nor its
//! emitter is ever handed on, and both stay in registers.

use crate::batch::Batch;
use crate::output::{Deliver, Output, Transmit};
use crate::segment::{OuterHeader, Traits};
use crate::tables::{Bridge, PortEntry, SegmentEntry};
use crate::wire::eth::{Cast, MacNumber};
use crate::wire::{FrameInfo, VnetHeader};

use super::flood::class;
use super::{Context, Forwarder};

/// Whether frames from a port are flooded to all ports and VTEPs of its segment that take floods, unchanged, in any number
/// and under one header.
#[inline(always)]
fn floods_plainly(
    context: &Context<'_>,
    (port, segment, bridge): (&PortEntry, &SegmentEntry, &Bridge),
) -> bool {
    let all = bridge.mdb.is_none() && bridge.lists.is_empty() && !port.traits.in_group();
    let any_number = bridge.storm.is_none() && port.storm.is_none();
    let unchanged = segment.most_mss == 0 && segment.vlan_ports == 0;
    all && any_number
        && unchanged
        && !segment.has_many_headers
        && !bridge.flood.is_empty()
        && !context.tables.damper.holds_any(context.second)
}

impl Forwarder {
    /// Floods frame `index` of a batch from a port if that takes nothing but copies of it, and says whether it did.
    #[inline(always)]
    pub(super) fn flood_plainly(
        &mut self,
        context: &Context<'_>,
        (port, segment, bridge): (&PortEntry, &SegmentEntry, &Bridge),
        batch: &mut Batch,
        (index, to): (usize, MacNumber),
        output: &mut Output,
    ) -> bool {
        if !batch.vnet(index).is_zero() || !floods_plainly(context, (port, segment, bridge)) {
            return false;
        }
        let frame = batch.frame(index);
        let Some(info) = &FrameInfo::parse(frame) else { return false };
        let bytes = frame.len();
        if (bytes - usize::from(info.l3_offset)) as u32 > segment.narrowest {
            return false;
        }
        let cast = Cast::to(to);
        let body = batch.span(index);
        let mut emitter = self.emitter(context, segment, output);
        let (source, outer) = emitter.outer_headers(frame, info);
        let outer = OuterHeader { cast, ..outer };
        let without = port.traits.apart() | class(cast);
        let hairpin = port.traits.meets(Traits::HAIRPIN);
        let mut copies = bridge.flood.len() as u64;
        for id in &segment.ports {
            if let Some(other) = context.tables.port(*id)
                && (*id != port.id || hairpin)
                && !other.traits.meets(without)
            {
                let whole = Deliver::whole(*id, VnetHeader::default(), body);
                emitter.deliver(Deliver { cast, ..whole });
                copies += 1;
            }
        }
        let [first, ..] = *bridge.flood else { return false };
        let body = emitter.encapsulate(batch, index, first);
        let whole = Transmit::whole(first, (source, outer), body);
        if emitter.transmit_to_all(whole, &bridge.flood) {
            emitter.tally.encapsulated(bytes, cast);
        }
        emitter.tally.flooded(copies);
        true
    }
}
