//! How far the frames of a bridge segment go.

use crate::Error;
use crate::wire::eth::MacNumber;

use super::Traits;

/// Largest number of a split horizon group.
pub const MAX_HORIZON_GROUP: u8 = 31;

/// Bits of a `group_fwd_mask` that cannot be set: spanning tree, pause and link aggregation are between neighbours (kernel
/// `net/bridge/br_private.h`, `BR_GROUPFWD_RESTRICTED`).
const RESTRICTED: u16 = 0x0007;

/// How far the frames of a bridge segment go: between which places they are forwarded, and which group addresses.
///
/// Places, VTEPs and ports, of one *split horizon group* exchange no frames. All VTEPs are in group 1 unless told
/// otherwise, so that a frame from one never goes to another one: in a full mesh everybody has it already. Ports are in
/// none (0).
///
/// A node that is to *relay* between VTEPs, the hub of a star, has them in different groups or in none. Frames have no
/// TTL in an overlay, so whoever does that has to see that no frame can come back: taking each group of a node, in
/// which everybody has a tunnel to everybody, as one link, the links must be a tree. So the spokes of a hub relay nothing
/// and have tunnels to it alone; several hubs have tunnels to each other and are in one group among themselves, with the
/// spokes in none (H-VPLS, RFC 4762 §10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scope {
    /// Split horizon group of the VTEPs that were given no other: 0 (none) to
    /// [`MAX_HORIZON_GROUP`](crate::limits::MAX_HORIZON_GROUP); 1 by default. With 0 the segment relays between them. See
    /// [`Change::SetVtepGroup`](crate::Change::SetVtepGroup).
    pub vtep_group: u8,
    /// Which of the group addresses 01:80:C2:00:00:00 to 0F are forwarded, which bridges keep to a link (IEEE 802.1Q
    /// §8.6.3): bit N for the one that ends in N; none by default. Bits 0 to 2, for spanning tree, pause and link
    /// aggregation, cannot be set. As `group_fwd_mask` of a Linux bridge.
    pub group_fwd_mask: u16,
}

impl Default for Scope {
    fn default() -> Self {
        Self { vtep_group: 1, group_fwd_mask: 0 }
    }
}

impl Scope {
    /// Whether a frame for one of the sixteen addresses is forwarded.
    pub(crate) fn forwards(&self, destination: MacNumber) -> bool {
        self.group_fwd_mask >> (destination.get() & 0xf) & 1 != 0
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        horizon(self.vtep_group)?;
        if self.group_fwd_mask & RESTRICTED != 0 {
            let value = format!("{:#06x}", self.group_fwd_mask);
            return Err(Error::invalid("group_fwd_mask", value, "bits 3 to 15: 0xfff8 at most"));
        }
        Ok(())
    }
}

/// What keeps the places of a split horizon group apart; nothing for group 0.
pub(crate) fn horizon(group: u8) -> Result<Traits, Error> {
    match group {
        0 => Ok(Traits::default()),
        1..=MAX_HORIZON_GROUP => Ok(Traits::of_group(group)),
        _ => Err(Error::invalid("split horizon group", group.to_string(), "0 (none) to 31")),
    }
}
