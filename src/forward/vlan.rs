//! VLAN tags at ports that care for them: pushed and popped where the frame lies, its payload stays.

use crate::batch::Batch;
use crate::drop_reason::DropReason;
use crate::segment::{Egress, Ingress, Traits};
use crate::tables::PortEntry;
use crate::wire::eth;

/// Makes frame `index` of a batch, which came from the port, one of the VLAN that the port says.
#[cold]
pub(super) fn take_in(port: &PortEntry, batch: &mut Batch, index: usize) -> Result<(), DropReason> {
    let frame = batch.frame(index);
    if frame.len() < eth::HEADER_LEN {
        return Err(DropReason::Truncated);
    }
    let tag = eth::vlan_tag(frame);
    match port.options.vlan.ingress(tag.unwrap_or(0) & eth::VID_MASK) {
        None => return Err(DropReason::VlanFiltered),
        Some(Ingress::AsItIs) => {}
        Some(Ingress::Tag(vid)) => match tag {
            // A priority without a VLAN gets one.
            Some(tag) => batch.set_tag(index, tag & !eth::VID_MASK | vid),
            None => batch.tag(index, vid),
        },
    }
    Ok(())
}

/// The VLAN of a frame, 0 if it has none.
pub(super) fn vid(frame: &[u8]) -> u16 {
    eth::vlan_tag(frame).unwrap_or(0) & eth::VID_MASK
}

/// Makes frame `index` of a batch, which goes to this port alone, what the port gets.
#[cold]
pub(super) fn hand_out(
    port: &PortEntry,
    batch: &mut Batch,
    index: usize,
) -> Result<(), DropReason> {
    match port.options.vlan.egress(vid(batch.frame(index))) {
        None => Err(DropReason::VlanFiltered),
        Some(Egress::AsItIs) => Ok(()),
        Some(Egress::Untag) => {
            batch.untag(index);
            Ok(())
        }
    }
}

/// What becomes of a frame of a VLAN that is flooded, at one of the ports.
#[inline]
pub(super) fn flooded(port: &PortEntry, vid: u16) -> Option<Egress> {
    match port.traits.meets(Traits::VLAN) {
        true => port.options.vlan.egress(vid),
        false => Some(Egress::AsItIs),
    }
}
