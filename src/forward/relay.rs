//! Who may exchange frames with whom where that is not everybody: isolated ports, split horizon groups, relays.

use crate::drop_reason::DropReason;
use crate::segment::{Traits, VtepId};
use crate::tables::{Bridge, PortEntry};

/// Whether a frame may go from one port to another of which something is special, or which is the same.
#[cold]
pub(super) fn between(from: &PortEntry, to: &PortEntry) -> Result<(), DropReason> {
    if from.id == to.id && !from.traits.meets(Traits::HAIRPIN) {
        return Err(DropReason::SamePort);
    }
    let common = from.traits.apart();
    if common.meets(to.traits) {
        let isolated = from.traits.meets(Traits::ISOLATED) && to.traits.meets(Traits::ISOLATED);
        return Err(if isolated { DropReason::Isolated } else { DropReason::SplitHorizon });
    }
    Ok(())
}

/// Whether a frame from a place that is kept apart from others may go to a VTEP, which is not the one it came from.
#[inline(never)]
pub(super) fn to_vtep(
    bridge: &Bridge,
    from: (Traits, Option<VtepId>),
    to: VtepId,
) -> Result<(), DropReason> {
    let (apart, sender) = from;
    if sender == Some(to) || apart.meets(bridge.apart(Some(to))) {
        return Err(DropReason::SplitHorizon);
    }
    Ok(())
}

/// Those of some VTEPs that get a frame from a place that is kept apart from others: gathered in `kept`.
#[inline(never)]
pub(super) fn flood_list<'a>(
    bridge: &Bridge,
    vteps: &[VtepId],
    from: (Traits, Option<VtepId>),
    kept: &'a mut Vec<VtepId>,
) -> &'a [VtepId] {
    kept.clear();
    kept.extend(vteps.iter().filter(|vtep| to_vtep(bridge, from, **vtep).is_ok()));
    kept
}
