//! How many bytes an encapsulation takes from the underlay's MTU.

use crate::segment::Kind;
use crate::wire::{eth, vnet, vxlan};

/// IPv4 header without options (RFC 791 §3.1).
const IPV4: u32 = 20;
/// IPv6 header (RFC 8200 §3).
const IPV6: u32 = 40;
/// UDP header (RFC 768).
const UDP: u32 = 8;

/// TCP header without options (RFC 9293 §3.1).
const TCP: u32 = 20;
/// TCP timestamps with their padding (RFC 7323 appendix A), the option that Linux sends with every segment.
const TIMESTAMPS: u32 = 12;

/// Smallest MTUs of a link that carries IPv4 and IPv6 (RFC 791 §3.2, RFC 8200 §5).
const MIN_MTU: (u32, u32) = (68, 1280);

/// Smallest maximum segment size that hosts are told, in bytes (kernel `net.ipv4.tcp_min_snd_mss`, `TCP_MIN_SND_MSS` in
/// `include/net/tcp.h`).
pub const MIN_MSS: u16 = 48;

/// Largest IP packet with its headers, and largest payload of an IPv6 packet (RFC 791 §3.1, RFC 8200 §3).
const MAX_PACKET: u32 = 65_535;

/// What TCP keeps free of a device's `gso_max_size` for headers, at least: `MAX_TCP_HEADER + 1` (kernel
/// `net/core/sock.c`, `sk_dst_gso_max_size`). `MAX_TCP_HEADER` is 160 to 320, by configuration (`include/net/tcp.h`,
/// and `LL_MAX_HEADER` in `include/linux/netdevice.h`).
const TCP_RESERVE: u32 = 161;

/// Largest `gso_max_size` of a device, and its default, in bytes (kernel `include/linux/netdevice.h`,
/// `GSO_LEGACY_MAX_SIZE`).
pub const MAX_GSO_MAX_SIZE: u32 = 65_536;

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
        Kind::Bridge(_) | Kind::RoutedVxlan { .. } => {
            vxlan::HEADER_LEN as u32 + eth::HEADER_LEN as u32
        }
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

/// The `gso_max_size` of a device, in bytes, with which one TCP super-frame of this node is one send to the underlay;
/// at most [`MAX_GSO_MAX_SIZE`]. `segment_mtu` is the segment's MTU in bytes.
///
/// The kernel takes up to 64 datagrams and one IP packet's length of payload for one `UDP_SEGMENT` send, and each chunk
/// of a super-frame carries its own inner headers there. So a super-frame of 64 KiB, the default, is one full send and
/// then another one of a few chunks. Set to this, as `ip link set DEVICE gso_max_size N gso_ipv4_max_size N`, TCP makes
/// super-frames of at most as many segments as fit, over IPv4 and IPv6, with timestamps and without; for some of these
/// one less, as one number has to do for all.
///
/// For traffic that begins on this node: TCP goes by the device that its route leaves through. Whatever comes from
/// elsewhere, as from a container behind a veth pair, has to be made that small where it begins: the kernel cuts a
/// super-frame that is above the device's `gso_max_size` into single frames (`net/core/dev.c`, `gso_features_check`), which
/// costs far more than a second send. Set it on those links, too, or leave the device at the default.
#[must_use]
pub fn gso_max_size(kind: Kind, ipv6_underlay: bool, segment_mtu: u32) -> u32 {
    let segment_mtu = segment_mtu.clamp(MIN_MTU.0, MAX_PACKET);
    let outer = (if ipv6_underlay { 0 } else { IPV4 }) + UDP;
    // In front of each chunk's IP packet inside the datagram.
    let inner = overhead(kind, false) - IPV4 - UDP;
    let chunks =
        ((MAX_PACKET - outer) / (segment_mtu + inner)).clamp(1, vnet::UDP_SAFE_CHUNKS as u32);
    let smallest_header = if segment_mtu < MIN_MTU.1 { IPV4 } else { IPV6 };
    // The shortest segments decide: TCP makes as many of them as it has room for.
    let segment = segment_mtu - smallest_header - TCP - TIMESTAMPS;
    // One byte more of payload would make room for another segment.
    let payload = (chunks + 1) * segment - 1;
    (payload + TCP_RESERVE).min(MAX_GSO_MAX_SIZE)
}

/// The largest payload of a TCP segment without options, in bytes, in packets of at most `limit` bytes: what a host may
/// be told (RFC 6691 §2). Never less than [`MIN_MSS`].
#[must_use]
pub fn tcp_mss(limit: u32, ipv6: bool) -> u16 {
    let headers = TCP + if ipv6 { IPV6 } else { IPV4 };
    limit.saturating_sub(headers).clamp(MIN_MSS.into(), u16::MAX.into()) as u16
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
        let mac = crate::MacAddr([2, 0, 0, 0, 0, 1]);
        let routed_vxlan = Kind::RoutedVxlan { vni: Vni::new(1).unwrap(), mac };
        assert_eq!([false, true].map(|v6| overhead(routed_vxlan, v6)), [50, 70]);
        assert_eq!(gso_max_size(routed_vxlan, false, 1450), gso_max_size(bridge, false, 1450));
        assert_eq!(segment_mtu(bridge, true, 60), 0);
    }
    /// The most segments that TCP puts into one super-frame.
    fn segments(gso_max_size: u32, reserve: u32, segment: u32) -> u32 {
        (gso_max_size - reserve) / segment
    }

    #[test]
    fn a_super_frame_is_one_send_and_hardly_less() {
        let bridge = Kind::Bridge(Vni::new(1).unwrap());
        for kind in [bridge, Kind::Routed] {
            for (ipv6, limit) in [(false, 65_507), (true, 65_527)] {
                for mtu in 68..=9000 {
                    let size = gso_max_size(kind, ipv6, mtu);
                    let datagram = mtu + if kind == bridge { 22 } else { 0 };
                    let fit = (limit / datagram).min(64);
                    let families = if mtu < 1280 { &[20][..] } else { &[20, 40] };
                    for segment in families.iter().flat_map(|ip| [mtu - ip - 20, mtu - ip - 32]) {
                        assert!(segments(size, TCP_RESERVE, segment) <= fit, "MTU {mtu}");
                        // The largest reserve, and cache lines of 128 bytes.
                        let least = segments(size, 385, segment);
                        let small = segment < 385;
                        assert!(least + 2 >= fit || small || size == MAX_GSO_MAX_SIZE, "MTU {mtu}");
                    }
                }
            }
        }
        assert_eq!(gso_max_size(bridge, false, 1450), 62_170);
    }

    #[test]
    fn every_mtu_has_a_size() {
        for mtu in [0, 1, 67, 65_535, u32::MAX] {
            let size = gso_max_size(Kind::Routed, false, mtu);
            assert!((1000..=MAX_GSO_MAX_SIZE).contains(&size), "{mtu}: {size}");
        }
    }
}
