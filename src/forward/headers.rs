//! VXLAN headers of segments where they are not all alike.

use crate::batch::{Batch, Span};
use crate::metadata::Metadata;
use crate::segment::VtepId;
use crate::tables::SegmentEntry;
use crate::wire::{Vni, vxlan};

/// Puts a VXLAN header in front of frame `index` where headers are not all alike.
#[cold]
pub(super) fn encapsulate_specially(
    segment: &SegmentEntry,
    vni: Vni,
    batch: &mut Batch,
    index: usize,
    vtep: VtepId,
) -> Span {
    let header = vxlan_header(segment, vni, batch, index, Some(vtep));
    batch.prepend(index, &header, usize::MAX)
}

/// The VXLAN header of frame `index`, where headers are not all alike, for a VTEP or for those that have no VNI of their
/// own.
pub(super) fn vxlan_header(
    segment: &SegmentEntry,
    vni: Vni,
    batch: &Batch,
    index: usize,
    vtep: Option<VtepId>,
) -> [u8; vxlan::HEADER_LEN] {
    let Metadata { vni: of_frame, policy } = batch.metadata(index);
    let of_vtep = || segment.vnis.get(&vtep?).copied();
    let of_frame = of_frame.filter(|_| segment.header.any_vni);
    let vni = of_frame.or_else(of_vtep).unwrap_or(vni);
    match policy.filter(|_| segment.header.gbp) {
        Some(policy) => vxlan::encode_with_policy(vni, policy),
        None => vxlan::encode(vni),
    }
}
