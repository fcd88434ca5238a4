//! Telling the sender of a dropped frame what was wrong with it.

use crate::batch::Batch;
use crate::drop_reason::DropReason;
use crate::output::{Deliver, Output};
use crate::segment::Location;
use crate::tables::{Macs, PortEntry, SegmentEntry, SegmentTable};
use crate::wire::{FrameInfo, VnetHeader, eth};

use super::gateway::link_header;
use super::icmp::{self, Problem};
use super::routed::follow;
use super::{Context, Forwarder};

impl Forwarder {
    /// Tells the sender of a packet that was dropped in a routed segment why, if it may be told.
    #[cold]
    pub(super) fn report(
        &mut self,
        context: &Context<'_>,
        from: (&PortEntry, &SegmentEntry),
        batch: &mut Batch,
        index: usize,
        reason: DropReason,
        output: &mut Output,
    ) {
        let packet = batch.frame(index);
        let Ok(info) = FrameInfo::parse_ip(packet) else { return };
        let (_, segment) = from;
        let problem = match reason {
            DropReason::TtlExceeded => Some(Problem::TimeExceeded),
            DropReason::NoRoute => Some(Problem::NoRoute),
            DropReason::Unreachable => Some(Problem::Unreachable),
            DropReason::TooBig if segment.answers.too_big => {
                let limit = routed_limit(context, segment, packet, &info);
                icmp::too_big(packet, &info, limit)
            }
            _ => None,
        };
        if let Some(problem) = problem {
            self.tell(context, from, batch, (index, &info), problem, output);
        }
    }

    /// Tells the sender of a frame that was too large for a bridge segment how large it may be, if it may be told.
    ///
    /// Of a flooded frame nobody is told: it may be for somebody whom it could reach.
    #[cold]
    pub(super) fn report_too_big(
        &mut self,
        context: &Context<'_>,
        (port, segment, macs): (&PortEntry, &SegmentEntry, &Macs<'_>),
        batch: &mut Batch,
        index: usize,
        output: &mut Output,
    ) {
        let frame = batch.frame(index);
        let Some(info) = FrameInfo::parse(frame).filter(|_| segment.answers.too_big) else {
            return;
        };
        let Some((to, _)) = eth::address_numbers(frame).filter(|(to, _)| !to.is_multicast()) else {
            return;
        };
        let Some(Location::Vtep(vtep)) = macs.lookup(to, context.second) else { return };
        let limit = context.tables.limit_to(segment, vtep);
        if let Some(problem) = icmp::too_big(frame, &info, limit) {
            self.tell(context, (port, segment), batch, (index, &info), problem, output);
        }
    }

    /// Sends an error about a frame back to its port, unless there must be none or there were too many.
    fn tell(
        &mut self,
        context: &Context<'_>,
        (port, segment): (&PortEntry, &SegmentEntry),
        batch: &mut Batch,
        (index, info): (usize, &FrameInfo),
        problem: Problem,
        output: &mut Output,
    ) {
        if !icmp::may_answer(batch.frame(index), info) {
            return;
        }
        let answer = if self.icmp.take(context.now) {
            icmp::answer(batch, index, info, problem, &segment.answers)
        } else {
            None
        };
        match answer {
            Some(body) => {
                let answer = Deliver::whole(port.id, VnetHeader::default(), body);
                let mut emitter = self.emitter(context, segment, output);
                // The packet has just come from there.
                emitter.link = link_header(port, info.l3).unwrap_or_default();
                emitter.generate(answer);
            }
            None => context.counters.answers_withheld.add(1),
        }
    }
}

/// Largest packet that gets where this one goes.
fn routed_limit(
    context: &Context<'_>,
    segment: &SegmentEntry,
    packet: &[u8],
    info: &FrameInfo,
) -> u32 {
    let SegmentTable::Routed(routed) = &segment.table else { return segment.mtu };
    let to = info.addresses(packet).map(|(_, to)| to);
    let route = to.and_then(|to| routed.fib.lookup(to));
    let flow = || info.flow_hash(packet, context.spread);
    match route.map(|route| follow((segment, routed), route, flow)) {
        Some(Ok(Location::Vtep(vtep))) => context.tables.limit_to(segment, vtep),
        _ => segment.mtu,
    }
}
