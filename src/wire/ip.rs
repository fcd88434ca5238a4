//! IPv4 and IPv6 headers: constants, addresses, and the two fields a router changes.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::frame::Fragment;
use super::{array_at, checksum, ecn, put_u16, u16_at};

/// Length in bytes of an IPv4 header without options (RFC 791 §3.1).
pub const V4_HEADER_LEN: usize = 20;

/// Length in bytes of the fixed IPv6 header (RFC 8200 §3).
pub const V6_HEADER_LEN: usize = 40;

/// Protocol number of the IPv6 hop-by-hop options header (RFC 8200 §4.3).
pub const PROTO_HOP_BY_HOP: u8 = 0;

/// Protocol number of ICMP (RFC 792).
pub const PROTO_ICMP: u8 = 1;

/// Protocol number of TCP (RFC 9293).
pub const PROTO_TCP: u8 = 6;

/// Protocol number of UDP (RFC 768).
pub const PROTO_UDP: u8 = 17;

/// Protocol number of the IPv6 routing header (RFC 8200 §4.4).
pub const PROTO_ROUTING: u8 = 43;

/// Protocol number of the IPv6 fragment header (RFC 8200 §4.5).
pub const PROTO_FRAGMENT: u8 = 44;

/// Protocol number of the authentication header (RFC 4302 §2).
pub const PROTO_AH: u8 = 51;

/// Protocol number of ICMPv6 (RFC 4443 §1).
pub const PROTO_ICMPV6: u8 = 58;

/// Protocol number of the IPv6 destination options header (RFC 8200 §4.6).
pub const PROTO_DESTINATION_OPTIONS: u8 = 60;

/// The most IPv6 extension headers that are followed.
///
/// RFC 8200 §4.1 recommends an order with seven places; a bound keeps a hostile packet from costing
/// more than a fair one.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// The source and the destination of an IPv4 packet; `None` under 20 bytes (RFC 791 §3.1).
///
/// `packet` starts with the IPv4 header; its version is not looked at.
#[inline]
pub fn v4_addresses(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let &[a, b, c, d, e, f, g, h] = array_at::<8>(packet, 12)?;
    Some((Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h)))
}

/// The source and the destination of an IPv6 packet; `None` under 40 bytes (RFC 8200 §3).
///
/// `packet` starts with the IPv6 header; its version is not looked at.
#[inline]
pub fn v6_addresses(packet: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr)> {
    Some((
        Ipv6Addr::from(*array_at::<16>(packet, 8)?),
        Ipv6Addr::from(*array_at::<16>(packet, 24)?),
    ))
}

/// Takes one from the TTL of an IPv4 header and updates the checksum (RFC 1812 §5.3.1, RFC 1624
/// §3).
///
/// Does nothing where the slice ends before the checksum or the TTL is 0 already. A router drops
/// packets of TTL 0 and 1 before it comes here.
#[inline]
pub fn decrement_ttl_v4(header: &mut [u8]) {
    let (Some(old), Some(check)) = (u16_at(header, 8), u16_at(header, 10)) else { return };
    if old >= 0x0100 {
        // TTL is the upper half of the word it shares with the protocol number.
        let new = old - 0x0100;
        put_u16(header, 8, new);
        put_u16(header, 10, checksum::update(check, old, new));
    }
}

/// Takes one from the hop limit of an IPv6 header, which has no checksum (RFC 8200 §3).
///
/// Does nothing on a short slice or where the hop limit is 0 already.
#[inline]
pub fn decrement_hop_limit(header: &mut [u8]) {
    if let Some(limit) = header.get_mut(7) {
        *limit = limit.saturating_sub(1);
    }
}

/// Sets the ECN field of an IPv4 header and updates the checksum (RFC 3168 §5, RFC 1624 §3).
///
/// Does nothing where the slice ends before the checksum.
#[inline]
pub fn set_ecn_v4(header: &mut [u8], field: u8) {
    let (Some(old), Some(check)) = (u16_at(header, 0), u16_at(header, 10)) else { return };
    // TOS is the lower half of the word it shares with version and header length.
    let new = old & !u16::from(ecn::MASK) | u16::from(field & ecn::MASK);
    put_u16(header, 0, new);
    put_u16(header, 10, checksum::update(check, old, new));
}

/// Sets the ECN field of an IPv6 header, which has no checksum (RFC 3168 §5, RFC 8200 §7).
///
/// Does nothing on a short slice.
#[inline]
pub fn set_ecn_v6(header: &mut [u8], field: u8) {
    // The traffic class begins in the middle of the first byte.
    if let Some(byte) = header.get_mut(1) {
        *byte = *byte & !(ecn::MASK << 4) | (field & ecn::MASK) << 4;
    }
}

/// The bytes of the IPv4 header by its own length field, options included (RFC 791 §3.1).
#[inline]
fn v4_header(packet: &[u8]) -> Option<&[u8]> {
    let len = usize::from(packet.first()? & 0x0f) * 4;
    if len < V4_HEADER_LEN { None } else { packet.get(..len) }
}

/// The checksum that an IPv4 header should carry (RFC 791 §3.1); what stands in the field does not
/// matter.
///
/// Covers the length that the header itself gives; bytes after it are ignored. Returns 0 where that
/// length is below 20 or beyond the slice.
#[inline]
pub fn v4_header_checksum(header: &[u8]) -> u16 {
    let (Some(header), Some(field)) = (v4_header(header), u16_at(header, 10)) else { return 0 };
    // Adding the complement takes the field out of the sum. It can leave the other zero, and a
    // header's checksum is never 0xffff because its first byte is not 0.
    match checksum::finish(checksum::add(checksum::sum(header), !field)) {
        0xffff => 0,
        check => check,
    }
}

/// Whether the checksum of an IPv4 header is right (RFC 1812 §5.2.2).
///
/// Covers the length that the header itself gives; `false` where that is below 20 or beyond the
/// slice.
#[inline]
pub fn verify_v4_header(header: &[u8]) -> bool {
    match v4_header(header) {
        // Without options, as nearly always: five words, without a loop.
        Some(header) if header.len() == V4_HEADER_LEN => {
            let (words, _) = header.as_chunks::<4>();
            let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
            // The sum is a multiple of 0xffff where all is right, in whatever byte order; and not zero.
            sum != 0 && sum.is_multiple_of(0xffff)
        }
        Some(header) => checksum::sum(header) == 0xffff,
        None => false,
    }
}

/// Where the extension headers of an IPv6 packet lead.
pub(super) struct V6Walk {
    /// The last protocol number found.
    pub(super) protocol: u8,
    /// Where the header of that protocol starts, counted from the IPv6 header.
    pub(super) offset: usize,
    pub(super) fragment: Fragment,
    /// Whether `protocol` is an upper-layer protocol whose header starts at `offset`; not so in
    /// later fragments and where the chain is cut short or too long.
    pub(super) complete: bool,
    /// Whether a routing header still has segments left, so that the destination is not the final
    /// one.
    pub(super) rerouted: bool,
}

/// Follows the extension headers of `packet`, which ends where its payload length says (RFC 8200
/// §4).
///
/// The order of headers is not enforced: a receiver must take any (§4.1). An atomic fragment, one
/// with offset 0 and no more to come, counts as whole (RFC 6946).
#[inline(never)]
pub(super) fn walk_v6(packet: &[u8], first: u8) -> V6Walk {
    let mut walk = V6Walk {
        protocol: first,
        offset: V6_HEADER_LEN,
        fragment: Fragment::Whole,
        complete: false,
        rerouted: false,
    };
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(walk.protocol) {
            break;
        }
        // Every extension header is at least eight bytes.
        let Some(&[next, len, _, third, ..]) = array_at::<8>(packet, walk.offset) else {
            return walk;
        };
        let offset = walk.offset
            + match walk.protocol {
                PROTO_FRAGMENT => 8,
                PROTO_AH => (usize::from(len) + 2) * 4,
                _ => (usize::from(len) + 1) * 8,
            };
        if offset > packet.len() {
            return walk;
        }
        match walk.protocol {
            PROTO_ROUTING => walk.rerouted |= third != 0,
            PROTO_FRAGMENT => {
                // Offset in the upper 13 bits, more-fragments in the lowest (§4.5).
                let field = u16_at(packet, walk.offset + 2).unwrap_or(0);
                if field & 0xfff8 != 0 {
                    walk.fragment = Fragment::Later;
                } else if field & 1 != 0 {
                    walk.fragment = Fragment::First;
                }
            }
            _ => {}
        }
        walk.protocol = next;
        walk.offset = offset;
        if walk.fragment == Fragment::Later {
            return walk;
        }
    }
    walk.complete = !is_extension(walk.protocol);
    walk
}

#[inline]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        PROTO_HOP_BY_HOP | PROTO_ROUTING | PROTO_FRAGMENT | PROTO_AH | PROTO_DESTINATION_OPTIONS
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The well-known example header, checksum 0xb861.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    #[test]
    fn computes_and_verifies_the_header_checksum() {
        assert!(verify_v4_header(&HEADER));
        assert_eq!(v4_header_checksum(&HEADER), 0xb861);
        let mut header = HEADER;
        header[10..12].fill(0);
        assert_eq!(v4_header_checksum(&header), 0xb861);
        assert!(!verify_v4_header(&header));
        assert!(verify_v4_header(&[&HEADER[..], b"payload"].concat()));
        assert!(!verify_v4_header(&HEADER[..19]));
        assert_eq!(v4_header_checksum(&HEADER[..19]), 0);
        header[0] = 0x44;
        assert!(!verify_v4_header(&header));
    }

    #[test]
    fn decrements_ttl_for_every_value() {
        for ttl in 0..=255u8 {
            for id in [0u16, 1, 0xffff, 0x3c9a] {
                let mut header = HEADER;
                header[8] = ttl;
                header[4..6].copy_from_slice(&id.to_be_bytes());
                let check = v4_header_checksum(&header);
                header[10..12].copy_from_slice(&check.to_be_bytes());
                decrement_ttl_v4(&mut header);
                assert_eq!(header[8], ttl.saturating_sub(1));
                assert!(verify_v4_header(&header), "ttl {ttl} id {id}");
            }
        }
    }

    #[test]
    fn leaves_short_headers_alone() {
        for len in 0..12 {
            let mut header = HEADER;
            decrement_ttl_v4(&mut header[..len]);
            assert_eq!(header, HEADER);
        }
        let mut header = [9u8; 7];
        decrement_hop_limit(&mut header);
        assert_eq!(header, [9; 7]);
    }

    #[test]
    fn decrements_the_hop_limit_down_to_zero() {
        let mut header = [0u8; 40];
        header[7] = 2;
        decrement_hop_limit(&mut header);
        assert_eq!(header[7], 1);
        decrement_hop_limit(&mut header);
        decrement_hop_limit(&mut header);
        assert_eq!(header[7], 0);
    }

    #[test]
    fn reads_addresses() {
        let (src, dst) = v4_addresses(&HEADER).expect("whole header");
        assert_eq!(
            (src.to_string(), dst.to_string()),
            ("192.168.0.1".into(), "192.168.0.199".into())
        );
        assert_eq!(v4_addresses(&HEADER[..19]), None);
        let mut header = [0u8; 40];
        header[23] = 1;
        header[39] = 2;
        let (src, dst) = v6_addresses(&header).expect("whole header");
        assert_eq!((src.to_string(), dst.to_string()), ("::1".into(), "::2".into()));
        assert_eq!(v6_addresses(&header[..39]), None);
    }
}
