//! Which frames are captured.

use std::net::IpAddr;

use crate::fib::Prefix;
use crate::segment::SegmentId;
use crate::wire::{MacAddr, Vni, array_at, eth, u16_at};

use super::{CapturePoint, Captured, Fate, Layer};

/// Where the protocol addresses of the sender and the target are in an ARP packet for IPv4 on Ethernet (RFC 826).
const ARP_ADDRESSES: [usize; 2] = [14, 24];

/// Where the source and the destination are in an IPv4 header (RFC 791 §3.1), and in one of IPv6 (RFC 8200 §3).
const V4_ADDRESSES: [usize; 2] = [12, 16];
const V6_ADDRESSES: [usize; 2] = [8, 24];

/// Tags that are looked behind.
const MAX_TAGS: usize = 2;

/// Enough of a frame to look for addresses in, in bytes: Ethernet with tags, and IPv6.
#[cfg(any(test, all(feature = "io", target_os = "linux")))]
pub(crate) const LOOKED_AT: usize = eth::HEADER_LEN + MAX_TAGS * eth::VLAN_TAG_LEN + 40;

/// Which fates a capture is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FateFilter {
    /// This one; a drop for this reason.
    Is(Fate),
    /// Every drop.
    Dropped,
}

impl FateFilter {
    fn admits(self, fate: Fate) -> bool {
        match self {
            Self::Is(wanted) => wanted == fate,
            Self::Dropped => matches!(fate, Fate::Dropped(_)),
        }
    }
}

/// Which frames are captured: those for which all that is set holds. By default all are.
///
/// It can be read from text, words of the form `key=value` between commas or spaces:
///
/// | key | value | holds for |
/// |---|---|---|
/// | `mac` | MAC address | frames from or to it |
/// | `net` | IP address or prefix | packets, and ARP, from or to it |
/// | `vni` | number | the VNI of the segment or of the datagram |
/// | `udp_port` | number | the segments of this UDP port |
/// | `port` | name of a device | what the port gives and gets |
/// | `vtep` | IP address | what comes from and goes to this underlay address |
/// | `fate` | name of a [`Fate`], of a [`DropReason`](crate::DropReason), or `dropped` | that |
///
/// ```
/// use overplane::{CaptureFilter, DropReason, Fate, FateFilter};
///
/// let filter: CaptureFilter = "net=10.8.0.0/24 fate=too_big".parse().unwrap();
/// assert_eq!(filter.fate, Some(FateFilter::Is(Fate::Dropped(DropReason::TooBig))));
/// assert_eq!(filter.to_string(), "net=10.8.0.0/24,fate=too_big");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaptureFilter {
    /// Source or destination of the Ethernet frame; no packet of a TUN has any.
    pub mac: Option<MacAddr>,
    /// Holds the source or the destination of the IP packet, or the sender or the target of an ARP packet.
    pub net: Option<Prefix>,
    /// That of the segment, or of the datagram.
    pub vni: Option<Vni>,
    /// That of the segment, in host order.
    pub udp_port: Option<u16>,
    /// The name of the port's device.
    pub port: Option<String>,
    /// The underlay address.
    pub vtep: Option<IpAddr>,
    /// What became of the frame.
    pub fate: Option<FateFilter>,
}

impl CaptureFilter {
    /// Whether a captured frame, as far as its bytes go, is one that this filter lets through.
    #[must_use]
    pub fn matches(&self, frame: &Captured) -> bool {
        let at = match &frame.at {
            CapturePoint::Port { name, .. } => self.admits_port(name),
            CapturePoint::Vtep(address) => self.admits_vtep(*address),
        };
        at && self.admits_segment(frame.segment, frame.vni)
            && self.admits_fate(frame.fate)
            && self.admits_bytes(frame.layer, &frame.bytes)
    }

    pub(crate) fn admits_port(&self, name: &str) -> bool {
        self.vtep.is_none() && self.port.as_deref().is_none_or(|wanted| wanted == name)
    }

    pub(crate) fn admits_vtep(&self, address: IpAddr) -> bool {
        self.port.is_none() && self.vtep.is_none_or(|wanted| wanted == address)
    }

    pub(crate) fn admits_segment(&self, segment: Option<SegmentId>, vni: Option<Vni>) -> bool {
        let of_segment = segment.and_then(|segment| segment.vni);
        let udp_port = segment.map(|segment| segment.udp_port);
        let is = |wanted| of_segment == Some(wanted) || vni == Some(wanted);
        self.vni.is_none_or(is) && self.udp_port.is_none_or(|wanted| udp_port == Some(wanted))
    }

    pub(crate) fn admits_fate(&self, fate: Fate) -> bool {
        self.fate.is_none_or(|wanted| wanted.admits(fate))
    }

    /// Judges a frame by its first [`LOOKED_AT`] bytes, or all if they are fewer.
    #[inline]
    pub(crate) fn admits_bytes(&self, layer: Layer, frame: &[u8]) -> bool {
        let mac = self.mac.is_none_or(|mac| layer == Layer::Ethernet && has_mac(frame, mac));
        mac && self.net.is_none_or(|net| has_address(layer, frame, net))
    }
}

fn has_mac(frame: &[u8], mac: MacAddr) -> bool {
    let (to, from) = (array_at::<6>(frame, 0), array_at::<6>(frame, 6));
    to == Some(&mac.0) || from == Some(&mac.0)
}

/// Whether source or destination of an IP packet, or sender or target of an ARP packet, are in a network.
///
/// It is read more leniently than for forwarding: what is dropped because it is malformed is to be found, too.
fn has_address(layer: Layer, frame: &[u8], net: Prefix) -> bool {
    let Some((at, ethertype)) = packet(layer, frame) else { return false };
    // Compared as numbers where they lie: this is done for every frame.
    match (net.address(), ethertype) {
        (IpAddr::V4(address), eth::TYPE_IPV4 | eth::TYPE_ARP) => {
            let places = if ethertype == eth::TYPE_ARP { ARP_ADDRESSES } else { V4_ADDRESSES };
            let inside = |bytes: &[u8; 4]| {
                let bits = u32::from_be_bytes(*bytes) ^ address.to_bits();
                bits.checked_shr(32 - u32::from(net.len())).unwrap_or(0) == 0
            };
            any_at(frame, at, places, inside)
        }
        (IpAddr::V6(address), eth::TYPE_IPV6) => {
            let inside = |bytes: &[u8; 16]| {
                let bits = u128::from_be_bytes(*bytes) ^ address.to_bits();
                bits.checked_shr(128 - u32::from(net.len())).unwrap_or(0) == 0
            };
            any_at(frame, at, V6_ADDRESSES, inside)
        }
        _ => false,
    }
}

/// Whether something holds for one of the addresses at two places behind `at`, both of which have to be there.
#[inline]
fn any_at<const N: usize>(
    frame: &[u8],
    at: usize,
    [first, second]: [usize; 2],
    holds: impl Fn(&[u8; N]) -> bool,
) -> bool {
    match (array_at(frame, at + first), array_at(frame, at + second)) {
        (Some(first), Some(second)) => holds(first) || holds(second),
        _ => false,
    }
}

/// Where the packet in a frame begins, and its EtherType.
#[inline]
fn packet(layer: Layer, frame: &[u8]) -> Option<(usize, u16)> {
    match layer {
        Layer::Datagram => None,
        Layer::Ip => match frame.first()? >> 4 {
            4 => Some((0, eth::TYPE_IPV4)),
            6 => Some((0, eth::TYPE_IPV6)),
            _ => None,
        },
        Layer::Ethernet => {
            let mut at = eth::HEADER_LEN;
            let mut ethertype = u16_at(frame, at - 2)?;
            for _ in 0..MAX_TAGS {
                if matches!(ethertype, eth::TYPE_VLAN | eth::TYPE_QINQ) {
                    at += eth::VLAN_TAG_LEN;
                    ethertype = u16_at(frame, at - 2)?;
                }
            }
            Some((at, ethertype))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> CaptureFilter {
        text.parse().unwrap()
    }

    fn ethernet(ethertype: &[u8], payload: &[u8]) -> Vec<u8> {
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], ethertype, payload].concat()
    }

    fn v4() -> Vec<u8> {
        let mut packet = vec![0x45; 20];
        packet[12..20].copy_from_slice(&[10, 8, 0, 1, 10, 9, 0, 1]);
        packet
    }

    #[test]
    fn addresses_are_found_behind_tags_and_in_arp_and_in_nothing_else() {
        let has = |text: &str, layer, frame: &[u8]| filter(text).admits_bytes(layer, frame);
        let plain = ethernet(&[8, 0], &v4());
        let tagged = ethernet(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5, 8, 0], &v4());
        assert!(tagged.len() <= LOOKED_AT);
        for frame in [&plain, &tagged] {
            assert!(has("net=10.8.0.0/24", Layer::Ethernet, frame));
            assert!(has("net=10.9.0.1", Layer::Ethernet, frame));
            assert!(!has("net=10.7.0.0/24", Layer::Ethernet, frame));
            assert!(has("mac=02:00:00:00:00:01", Layer::Ethernet, frame));
            assert!(!has("mac=02:00:00:00:00:03", Layer::Ethernet, frame));
            assert!(!has("net=::/0", Layer::Ethernet, frame));
        }
        assert!(has("net=10.8.0.1", Layer::Ip, &v4()));
        assert!(!has("mac=45:45:45:45:45:45", Layer::Ip, &v4()), "packets have no MAC address");
        assert!(!has("net=0.0.0.0/0", Layer::Datagram, &v4()));
        let mut arp = [0; 28];
        arp[14..18].copy_from_slice(&[10, 8, 0, 1]);
        arp[24..28].copy_from_slice(&[10, 8, 0, 2]);
        let arp = ethernet(&[8, 6], &arp);
        assert!(has("net=10.8.0.2/32", Layer::Ethernet, &arp));
        assert!(!has("net=10.8.0.3", Layer::Ethernet, &arp));
        let mut v6 = [0; 40];
        v6[0] = 0x60;
        v6[8..10].copy_from_slice(&[0xfd, 8]);
        assert!(has("net=fd08::/16", Layer::Ip, &v6));
        for len in 0..arp.len() {
            assert!(!has("net=10.8.0.2", Layer::Ethernet, &arp[..len]), "{len} bytes");
        }
    }
}
