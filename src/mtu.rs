//! How many bytes an encapsulation takes from the underlay's MTU.

use crate::segment::Kind;
use crate::wire::{eth, vxlan};

/// IPv4 header without options (RFC 791 §3.1).
const IPV4: u32 = 20;
/// IPv6 header (RFC 8200 §3).
const IPV6: u32 = 40;
/// UDP header (RFC 768).
const UDP: u32 = 8;

/// The MTU assumed of an underlay of which nothing is said, in bytes without the Ethernet header (RFC 894).
pub const DEFAULT_UNDERLAY_MTU: u32 = 1500;

/// Bytes between the underlay's MTU and the segment's: outer IP and UDP headers and, for VXLAN, its header and the
/// inner Ethernet header.
///
/// | | IPv4 underlay | IPv6 underlay |
/// |---|---|---|
/// | VXLAN (RFC 7348 §5) | 50 | 70 |
/// | IP in UDP | 28 | 48 |
#[must_use]
pub fn overhead(kind: Kind, ipv6_underlay: bool) -> u32 {
    let inner = match kind {
        Kind::Bridge(_) => vxlan::HEADER_LEN as u32 + eth::HEADER_LEN as u32,
        Kind::Routed => 0,
    };
    (if ipv6_underlay { IPV6 } else { IPV4 }) + UDP + inner
}

/// Largest IP packet inside the segment, in bytes without the Ethernet header, when the underlay carries IP packets
/// of `underlay_mtu` bytes; 0 when nothing fits.
#[must_use]
pub fn segment_mtu(kind: Kind, ipv6_underlay: bool, underlay_mtu: u32) -> u32 {
    underlay_mtu.saturating_sub(overhead(kind, ipv6_underlay))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Vni;

    #[test]
    fn overheads_are_those_of_the_linux_vxlan_device_and_of_flannel() {
        let bridge = Kind::Bridge(Vni::new(1).unwrap());
        assert_eq!(overhead(bridge, false), 50);
        assert_eq!(overhead(bridge, true), 70);
        assert_eq!(overhead(Kind::Routed, false), 28);
        assert_eq!(overhead(Kind::Routed, true), 48);
        assert_eq!(segment_mtu(bridge, false, 1500), 1450);
        assert_eq!(segment_mtu(bridge, true, 60), 0);
    }
}
