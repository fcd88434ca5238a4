//! Keeping TCP below the limit of a path from its first segments on, where the segment asks for it.

use crate::batch::Batch;
use crate::mtu;
use crate::segment::VtepId;
use crate::tables::{SegmentEntry, SegmentTable};
use crate::wire::{FrameInfo, L3, mss};

use super::Context;

/// The most that TCP over this network protocol may send at once to and from VTEPs.
fn most(context: &Context<'_>, segment: &SegmentEntry, vteps: &[VtepId], l3: L3) -> u16 {
    let limits = vteps.iter().map(|vtep| context.tables.limit_to(segment, *vtep));
    let limit = limits.min().unwrap_or(segment.mtu);
    mtu::tcp_mss(limit, l3 == L3::Ipv6).min(segment.most_mss)
}

/// Lowers what a frame from a port to VTEPs says of the maximum segment size.
#[cold]
pub(super) fn towards(
    context: &Context<'_>,
    segment: &SegmentEntry,
    vteps: &[VtepId],
    batch: &mut Batch,
    index: usize,
) {
    let partial = batch.vnet(index).needs_checksum();
    let frame = batch.frame_mut(index);
    let info = match segment.table {
        SegmentTable::Bridge(_) => FrameInfo::parse(frame),
        SegmentTable::Routed(_) => FrameInfo::parse_ip(frame).ok(),
    };
    if let Some(info) = info.filter(|_| !vteps.is_empty()) {
        let most = most(context, segment, vteps, info.l3);
        mss::clamp(frame, &info, most, partial);
    }
}

/// Lowers what a frame from a VTEP says of the maximum segment size.
#[cold]
pub(super) fn backwards(
    context: &Context<'_>,
    segment: &SegmentEntry,
    vtep: Option<VtepId>,
    (frame, info): (&mut [u8], &FrameInfo),
    partial: bool,
) {
    let most = most(context, segment, vtep.as_slice(), info.l3);
    mss::clamp(frame, info, most, partial);
}
