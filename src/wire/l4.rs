//! TCP and UDP checksums: tell what state one is in, finish it, or leave it to the kernel.
//!
//! Linux leaves a checksum *partial* when a device offers checksum offload: the field holds the
//! folded sum of the pseudo-header, not complemented, and whoever sends the packet to a real wire
//! adds the rest (`CHECKSUM_PARTIAL`, kernel `include/linux/skbuff.h`). A peer whose underlay
//! offers the offload sends such packets through the tunnel.

use super::checksum::{add, finish, pseudo_v4, pseudo_v6, sum};
use super::frame::{Fragment, FrameInfo, L3, L4};
use super::ip::{self, V6_HEADER_LEN};
use super::{array_at, put_u16, u16_at};

/// Length in bytes of a TCP header without options (RFC 9293 §3.1).
pub const TCP_MIN_HEADER_LEN: usize = 20;

/// Length in bytes of a UDP header (RFC 768).
pub const UDP_HEADER_LEN: usize = 8;

/// Length in bytes that every ICMP and ICMPv6 message has at least (RFC 792, RFC 4443 §3 and §4).
pub const ICMP_HEADER_LEN: usize = 8;

/// What the L4 checksum of a packet is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4Checksum {
    /// TCP or UDP whose field holds the pseudo-header sum: to be completed.
    Partial,
    /// UDP without checksum (RFC 768; over IPv6 for tunnels only, RFC 6935).
    Absent,
    /// Complete and right.
    Correct,
    /// Neither right nor partial.
    Wrong,
    /// Cannot be told: a fragment, an unknown or truncated L4, a length that contradicts itself, or
    /// a packet whose final destination is not in its header.
    Unknown,
}

/// Where the checksum field of an L4 header stands: 16 for TCP (RFC 9293 §3.1), 6 for UDP (RFC
/// 768), else `None`.
///
/// The value for `csum_offset` of a [`VnetHeader`](super::VnetHeader).
#[inline]
pub const fn checksum_offset(l4: L4) -> Option<u16> {
    match l4 {
        L4::Tcp => Some(16),
        L4::Udp => Some(6),
        L4::Icmp | L4::Icmpv6 | L4::Other => None,
    }
}

/// The sum of the pseudo-header of a whole TCP, UDP or ICMPv6 packet: folded, not complemented.
///
/// This is the value of the checksum field of a partial packet. The L4 length is that from
/// `l4_offset` to `ip_end`. `None` for other packets, for fragments, and for IPv6 with segments
/// left in a routing header: the sum is over the final destination, which is elsewhere then (RFC
/// 8200 §8.1). A home address option (RFC 6275 §6.3) is not followed.
#[inline]
pub fn pseudo_sum(frame: &[u8], info: &FrameInfo) -> Option<u16> {
    if info.fragment != Fragment::Whole || !matches!(info.l4, L4::Tcp | L4::Udp | L4::Icmpv6) {
        return None;
    }
    let l3 = usize::from(info.l3_offset);
    let len = info.ip_end.checked_sub(u32::from(info.l4_offset))?;
    match info.l3 {
        L3::Ipv4 => {
            let &[a, b, c, d, e, f, g, h] = array_at::<8>(frame, l3 + 12)?;
            let len = u16::try_from(len).ok()?;
            Some(pseudo_v4([a, b, c, d], [e, f, g, h], info.protocol, len))
        }
        L3::Ipv6 => {
            let header: &[u8; V6_HEADER_LEN] = array_at(frame, l3)?;
            if usize::from(info.l4_offset) != l3 + V6_HEADER_LEN {
                let packet = frame.get(l3..usize::from(info.l4_offset))?;
                if ip::walk_v6(packet, header[6]).rerouted {
                    return None;
                }
            }
            let (src, dst) = (array_at(header, 8)?, array_at(header, 24)?);
            Some(pseudo_v6(*src, *dst, info.protocol, len))
        }
        L3::Other => None,
    }
}

/// Where the checksum field of a TCP or UDP header stands in the frame.
#[inline]
fn field_at(info: &FrameInfo) -> Option<usize> {
    checksum_offset(info.l4).map(|offset| usize::from(info.l4_offset) + usize::from(offset))
}

/// Whether the length field of a UDP header agrees with IP; true for other protocols.
///
/// UDP sums over its own length (RFC 768) and the kernel completes over what IP says: where they
/// differ there is no partial checksum that could be finished.
#[inline]
fn lengths_agree(frame: &[u8], info: &FrameInfo) -> bool {
    info.l4 != L4::Udp
        || u16_at(frame, usize::from(info.l4_offset) + 4).map(u32::from)
            == info.ip_end.checked_sub(u32::from(info.l4_offset))
}

/// Whether the checksum field of a whole TCP or UDP packet equals the pseudo-header sum, as a
/// partial one does.
///
/// Cheap: looks at headers only. A complete checksum equals that sum by chance once in 65535
/// packets, which does no harm: the field is not part of what it sums up, so finishing it again
/// computes the same value. Only a damaged packet could be made to look right that way, as rarely,
/// and only past the outer checksum and the Ethernet CRC.
///
/// Never true for fragments, nor for UDP without checksum.
#[inline]
pub fn is_partial(frame: &[u8], info: &FrameInfo) -> bool {
    let Some(field) = field_at(info).and_then(|at| u16_at(frame, at)) else { return false };
    // A pseudo-header sum is never 0, the protocol number being part of it, so neither is the field
    // of a partial packet.
    field != 0 && pseudo_sum(frame, info) == Some(field) && lengths_agree(frame, info)
}

/// The state of the L4 checksum, all bytes up to `ip_end` being summed up.
///
/// A complete checksum that happens to equal the pseudo-header sum is [`L4Checksum::Correct`].
pub fn checksum_state(frame: &[u8], info: &FrameInfo) -> L4Checksum {
    let bytes = frame.get(usize::from(info.l4_offset)..info.ip_end as usize);
    let (Some(bytes), Fragment::Whole) = (bytes, info.fragment) else {
        return L4Checksum::Unknown;
    };
    let pseudo = match (info.l3, info.l4) {
        // ICMP over IPv4 has no pseudo-header (RFC 792).
        (L3::Ipv4, L4::Icmp) => 0,
        _ => match pseudo_sum(frame, info) {
            Some(pseudo) => pseudo,
            None => return L4Checksum::Unknown,
        },
    };
    if info.l4 == L4::Udp && field_at(info).and_then(|at| u16_at(frame, at)) == Some(0) {
        return L4Checksum::Absent;
    }
    if !lengths_agree(frame, info) {
        return L4Checksum::Unknown;
    }
    if finish(add(pseudo, sum(bytes))) == 0 {
        L4Checksum::Correct
    } else if is_partial(frame, info) {
        L4Checksum::Partial
    } else {
        L4Checksum::Wrong
    }
}

/// Writes the pseudo-header sum into the checksum field of a whole TCP or UDP packet, which makes
/// it partial.
///
/// `false`, and nothing written, for everything else.
#[inline]
pub fn set_partial(frame: &mut [u8], info: &FrameInfo) -> bool {
    match (field_at(info), pseudo_sum(frame, info)) {
        (Some(at), Some(pseudo)) => put_u16(frame, at, pseudo),
        _ => false,
    }
}

/// Completes a partial checksum: sums up everything from `csum_start` to the end of `frame`, field
/// included, and stores the complement at `csum_start + csum_offset` (virtio 1.2 §5.1.6.2,
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`).
///
/// `false`, and nothing written, where the field is not within the frame. Hand in the frame without
/// padding: bytes after the IP packet would be summed up as well.
///
/// A result of 0 is stored as `0xffff`, which UDP requires (RFC 768). The two are the same number
/// in ones' complement, so that a receiver of any other protocol finds either of them right; the
/// kernel does so for all of them, too (`CSUM_MANGLED_0`, kernel `net/core/dev.c`,
/// `skb_checksum_help`).
#[inline]
pub fn complete(frame: &mut [u8], csum_start: usize, csum_offset: usize) -> bool {
    let Some(bytes) = frame.get_mut(csum_start..) else { return false };
    let check = match finish(sum(bytes)) {
        0 => 0xffff,
        check => check,
    };
    put_u16(bytes, csum_offset, check)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UDP over IPv4 with an odd payload and no checksum.
    fn udp() -> (Vec<u8>, FrameInfo) {
        let mut packet = vec![
            0x45, 0, 0, 33, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2, 0x11, 0x11,
            0x22, 0x22, 0, 13, 0, 0, 1, 2, 3, 4, 5,
        ];
        let check = ip::v4_header_checksum(&packet);
        packet[10..12].copy_from_slice(&check.to_be_bytes());
        let info = FrameInfo::parse_ip(&packet).expect("valid");
        (packet, info)
    }

    #[test]
    fn a_checksum_goes_from_absent_to_partial_to_correct_to_wrong() {
        let (mut packet, info) = udp();
        assert_eq!(checksum_state(&packet, &info), L4Checksum::Absent);
        assert!(!is_partial(&packet, &info));

        assert!(set_partial(&mut packet, &info));
        assert_eq!(u16_at(&packet, 26), Some(0xec55));
        assert!(is_partial(&packet, &info));
        assert_eq!(checksum_state(&packet, &info), L4Checksum::Partial);

        assert!(complete(&mut packet, 20, 6));
        // 0xec55 + 0x1111 + 0x2222 + 0x000d + 0x0102 + 0x0304 + 0x0500 = 0x1289b.
        assert_eq!(u16_at(&packet, 26), Some(!0x289c));
        assert!(!is_partial(&packet, &info));
        assert_eq!(checksum_state(&packet, &info), L4Checksum::Correct);

        packet[30] ^= 1;
        assert_eq!(checksum_state(&packet, &info), L4Checksum::Wrong);
    }

    #[test]
    fn zero_is_stored_as_ones() {
        let mut bytes = [0xff, 0xff, 0, 0];
        assert!(complete(&mut bytes, 0, 2));
        assert_eq!(bytes, [0xff; 4]);
    }

    #[test]
    fn the_field_must_be_in_the_frame() {
        let mut bytes = [0u8; 30];
        assert!(complete(&mut bytes, 20, 8));
        for (start, offset) in
            [(20, 9), (21, 8), (30, 0), (31, 0), (0, 29), (usize::MAX, 2), (2, usize::MAX)]
        {
            let before = bytes;
            assert!(!complete(&mut bytes, start, offset), "{start} + {offset}");
            assert_eq!(bytes, before);
        }
    }

    #[test]
    fn finishing_a_complete_checksum_that_looks_partial_keeps_it() {
        let (mut packet, info) = udp();
        // Choose the last two even bytes so that the right checksum is the pseudo-header sum.
        packet[28..33].fill(0);
        set_partial(&mut packet, &info);
        let pseudo = u16_at(&packet, 26).expect("in the packet");
        let rest = add(sum(&packet[20..26]), add(pseudo, pseudo));
        assert!(put_u16(&mut packet, 28, finish(rest)));
        assert!(is_partial(&packet, &info));
        assert_eq!(checksum_state(&packet, &info), L4Checksum::Correct);
        let before = packet.clone();
        assert!(complete(&mut packet, 20, 6));
        assert_eq!(packet, before);
    }

    #[test]
    fn fragments_and_contradicting_lengths_are_never_partial() {
        let (mut packet, info) = udp();
        assert!(set_partial(&mut packet, &info));
        for fragment in [Fragment::First, Fragment::Later] {
            let info = FrameInfo { fragment, ..info };
            assert!(!is_partial(&packet, &info));
            assert!(!set_partial(&mut packet, &info));
            assert_eq!(checksum_state(&packet, &info), L4Checksum::Unknown);
        }
        packet[25] = 12;
        assert!(!is_partial(&packet, &info));
        assert_eq!(checksum_state(&packet, &info), L4Checksum::Unknown);
    }

    #[test]
    fn a_routing_header_hides_the_destination() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 16, ip::PROTO_ROUTING, 64];
        packet.extend([0xfe; 32]);
        packet.extend([17, 0, 4, 1, 0, 0, 0, 0]);
        packet.extend([0x11, 0x11, 0x22, 0x22, 0, 8, 0, 1]);
        let info = FrameInfo::parse_ip(&packet).expect("valid");
        assert_eq!(info.l4, L4::Udp);
        assert_eq!(pseudo_sum(&packet, &info), None);
        assert_eq!(checksum_state(&packet, &info), L4Checksum::Unknown);
        packet[43] = 0;
        assert_eq!(pseudo_sum(&packet, &info), Some(pseudo_v6([0xfe; 16], [0xfe; 16], 17, 8)));
        assert_eq!(checksum_state(&packet, &info), L4Checksum::Wrong);
    }
}
