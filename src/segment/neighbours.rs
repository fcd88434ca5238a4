//! Whether a segment answers for its neighbours, and what it makes of what they say.

use std::time::Duration;

use crate::Error;
use crate::fdb::{self, DEFAULT_AGEING};

/// Largest number of bindings that a segment snoops.
pub const MAX_SNOOPED: usize = 65_536;

/// Number of bindings that a segment snoops if nothing else is said.
pub const DEFAULT_SNOOPED: usize = 1024;

/// ARP and ND suppression in a bridge segment: requests that a binding of an IP address to a MAC address answers are
/// answered to the port that asks, and flooded to nobody.
///
/// Only what would be flooded is answered: a unicast request, by which hosts see whether a neighbour is still there, goes to
/// that neighbour. An answer says what the neighbour itself would say. It is given only where it leads somewhere: when a static
/// FDB entry or a learned one says where the MAC address is, as Linux's `neigh_suppress` does (kernel
/// `net/bridge/br_arp_nd_proxy.c`), or the binding is static. A host is told nothing of what is behind its own port.
///
/// Whatever cannot be answered is flooded, and so are announcements (gratuitous ARP, unsolicited advertisements) and the
/// probes of a host that wants to know whether an address is taken, which Linux keeps from its VXLAN ports. Frames
/// with VLAN tags are forwarded untouched: a binding is of the segment, and another VLAN may use its address otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Neighbours {
    /// Whether the segment answers. Off by default.
    pub suppress: bool,
    /// Bindings are learned from what ports and VTEPs say (ARP, neighbour solicitations and advertisements), beside those that
    /// [`Change::SetNeighbour`](crate::Change::SetNeighbour) sets, which win. On by default, if the segment answers at
    /// all. An IPv6 binding begins with an advertisement: nothing else says whether the neighbour is a router.
    pub snoop: bool,
    /// For how many learned bindings there is room, at most [`limits::MAX_SNOOPED`](crate::limits::MAX_SNOOPED);
    /// default 1,024. 64 bytes of memory each. One that was heard of longest ago makes room.
    pub limit: usize,
    /// Time after which a learned binding that was not heard of again is forgotten, in whole seconds from 1 to
    /// [`limits::MAX_AGEING`](crate::limits::MAX_AGEING); default 300 s, and `None` means never.
    pub ageing: Option<Duration>,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self { suppress: false, snoop: true, limit: DEFAULT_SNOOPED, ageing: Some(DEFAULT_AGEING) }
    }
}

impl Neighbours {
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.limit > MAX_SNOOPED {
            let (what, value) = ("limit of learned neighbours", self.limit.to_string());
            return Err(Error::invalid(what, value, "0 to 65536 bindings"));
        }
        match self.ageing {
            Some(ageing) if !(Duration::from_secs(1)..=fdb::MAX_AGEING).contains(&ageing) => {
                let (what, value) = ("ageing time of neighbours", format!("{ageing:?}"));
                Err(Error::invalid(what, value, "1 to 262144 seconds, or never"))
            }
            _ => Ok(()),
        }
    }
}
