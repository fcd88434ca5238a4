//! What a frame or packet is, found out once and handed around as plain numbers.

use std::fmt;
use std::net::IpAddr;

use super::eth::{self, TYPE_IPV4, TYPE_IPV6, TYPE_QINQ, TYPE_VLAN, VLAN_TAG_LEN};
use super::ip::{self, V4_HEADER_LEN, V6_HEADER_LEN};
use super::l4::{ICMP_HEADER_LEN, TCP_MIN_HEADER_LEN, UDP_HEADER_LEN};
use super::mix::Mixer;
use super::{array_at, ecn, u16_at};

/// The most VLAN tags that are looked behind: one service tag and one customer tag (IEEE 802.1Q
/// §9.6).
const MAX_VLAN_TAGS: usize = 2;

/// "Don't fragment" in the first byte of the IPv4 flags and offset field (RFC 791 §3.1).
const DONT_FRAGMENT: u8 = 0x40;

/// The network protocol of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum L3 {
    /// IPv4 with a header that makes sense.
    Ipv4,
    /// IPv6 with a header that makes sense.
    Ipv6,
    /// Anything else, malformed IP included.
    Other,
}

impl L3 {
    /// The EtherType of frames with such a packet in them; that of IPv6 for what is neither.
    #[inline]
    pub(crate) const fn ethertype(self) -> u16 {
        match self {
            L3::Ipv4 => TYPE_IPV4,
            L3::Ipv6 | L3::Other => TYPE_IPV6,
        }
    }
}

/// The transport protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum L4 {
    /// TCP with a whole header.
    Tcp,
    /// UDP with a whole header.
    Udp,
    /// ICMP over IPv4 with a whole header.
    Icmp,
    /// ICMPv6 over IPv6 with a whole header.
    Icmpv6,
    /// Anything else, fragments but the first and truncated headers included.
    Other,
}

/// Which part of an IP packet a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// All of it; also an IPv6 packet whose fragment header says that it is alone (RFC 6946).
    Whole,
    /// The first of several parts, the one with the L4 header.
    First,
    /// A part after the first, without L4 header.
    Later,
}

/// Offsets and kinds of the headers of one frame or packet; offsets in bytes from its start.
///
/// The accessors take the bytes again. Given other bytes than those parsed they return nonsense or
/// `None`, but do not panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// The network protocol.
    pub l3: L3,
    /// The transport protocol.
    pub l4: L4,
    /// Which part of the IP packet this is.
    pub fragment: Fragment,
    /// Where the L3 header starts: after the Ethernet header and VLAN tags, or 0 for a bare
    /// packet.
    pub l3_offset: u16,
    /// Where the IP payload starts, after IPv4 options and the IPv6 extension headers that were
    /// followed; equal to `l3_offset` for [`L3::Other`].
    pub l4_offset: u16,
    /// Where the L4 payload starts; equal to `l4_offset` for [`L4::Other`].
    pub payload_offset: u16,
    /// Where the IP packet ends by its own length field, never beyond the bytes parsed; their
    /// length for [`L3::Other`].
    pub ip_end: u32,
    /// The last IP protocol number found; 0 for [`L3::Other`].
    pub protocol: u8,
}

/// Why a router does not take a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IpError {
    /// The bytes end before the IP header does.
    Truncated,
    /// Neither IPv4 nor IPv6 (RFC 1812 §5.2.2 (3), RFC 8200 §3).
    Version,
    /// The IPv4 header length is below five words (RFC 1812 §5.2.2 (4)).
    HeaderLength,
    /// The length field contradicts the header length or is beyond the bytes (RFC 1812 §5.2.2 (5)).
    TotalLength,
    /// The IPv4 header checksum is wrong (RFC 1812 §5.2.2 (2)).
    HeaderChecksum,
}

impl fmt::Display for IpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IpError::Truncated => "IP header truncated",
            IpError::Version => "IP version neither 4 nor 6",
            IpError::HeaderLength => "IPv4 header length below 20 bytes",
            IpError::TotalLength => "IP length field out of range",
            IpError::HeaderChecksum => "IPv4 header checksum wrong",
        })
    }
}

impl std::error::Error for IpError {}

impl FrameInfo {
    /// Reads an Ethernet frame, behind up to two VLAN tags; `None` under 14 bytes only.
    ///
    /// IP that makes no sense is [`L3::Other`]: a bridge forwards what it cannot read. The IPv4
    /// header checksum is not verified. Bytes after the IP packet, as padding of short frames,
    /// are outside `ip_end`.
    // Forced, with the rare cases out of line: a caller that uses the result at once then keeps it in
    // registers. As a call, with the result going through memory, parse and hash take twice as long.
    #[inline(always)]
    pub fn parse(frame: &[u8]) -> Option<FrameInfo> {
        // Returned at once, each on its own: joined in one variable they would be copied.
        match u16_at(frame, eth::HEADER_LEN - 2)? {
            TYPE_IPV4 => {
                if let Ok(info) = parse_v4(frame, eth::HEADER_LEN) {
                    return Some(info);
                }
            }
            TYPE_IPV6 => {
                if let Ok(info) = parse_v6(frame, eth::HEADER_LEN) {
                    return Some(info);
                }
            }
            TYPE_VLAN | TYPE_QINQ => return Some(parse_tagged(frame)),
            _ => {}
        }
        Some(FrameInfo::opaque(frame, eth::HEADER_LEN))
    }

    /// A frame whose L3, if any, starts at `l3_offset` and is not understood.
    #[inline]
    fn opaque(frame: &[u8], l3_offset: usize) -> FrameInfo {
        let offset = narrow(l3_offset);
        FrameInfo {
            l3: L3::Other,
            l4: L4::Other,
            fragment: Fragment::Whole,
            l3_offset: offset,
            l4_offset: offset,
            payload_offset: offset,
            ip_end: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            protocol: 0,
        }
    }

    /// Reads a bare IP packet as strictly as a router must (RFC 1812 §5.2.2); bytes after its end
    /// are tolerated.
    ///
    /// Extension headers and L4 are not part of that: a packet whose L4 makes no sense is
    /// [`L4::Other`]. A jumbogram (RFC 2675) has no length here and is one without payload.
    ///
    /// # Errors
    ///
    /// [`IpError`] where the IP header, its IPv4 checksum included, is not valid.
    #[inline]
    pub fn parse_ip(packet: &[u8]) -> Result<FrameInfo, IpError> {
        match packet.first().ok_or(IpError::Truncated)? >> 4 {
            4 => {
                let info = parse_v4(packet, 0);
                if info.is_ok() && !ip::verify_v4_header(packet) {
                    return Err(IpError::HeaderChecksum);
                }
                info
            }
            6 => parse_v6(packet, 0),
            _ => Err(IpError::Version),
        }
    }

    /// The same packet with `bytes` more bytes in front.
    #[inline]
    pub(crate) const fn behind(mut self, bytes: u16) -> FrameInfo {
        self.l3_offset += bytes;
        self.l4_offset += bytes;
        self.payload_offset += bytes;
        self.ip_end += bytes as u32;
        self
    }

    /// A hash of the flow: the same for all frames of one flow and one `seed`, well spread over all
    /// 32 bits.
    ///
    /// Over addresses, protocol and ports. Fragments, the first one too, go by addresses alone, so
    /// that all parts of a packet keep together; frames without IP go by MAC addresses and
    /// EtherType. The two directions of a flow differ. A secret `seed` makes collisions harder
    /// to provoke, but this is no cryptographic function.
    #[inline(always)]
    pub fn flow_hash(&self, frame: &[u8], seed: u64) -> u32 {
        let mut hash = Mixer::new(seed);
        match self.l3 {
            L3::Ipv4 => {
                let addresses = u64_at(frame, usize::from(self.l3_offset) + 12);
                hash.add(addresses, self.transport_key(frame));
            }
            _ => self.add_long_addresses(frame, &mut hash),
        }
        hash.finish()
    }

    /// The part of the flow hash that is more than a few instructions.
    #[inline(never)]
    fn add_long_addresses(&self, frame: &[u8], hash: &mut Mixer) {
        let l3 = usize::from(self.l3_offset);
        match self.l3 {
            L3::Ipv6 => {
                hash.add(u64_at(frame, l3 + 8), u64_at(frame, l3 + 16));
                hash.add(u64_at(frame, l3 + 24), u64_at(frame, l3 + 32));
                hash.add(self.transport_key(frame), 0);
            }
            _ => {
                // Both addresses in twelve bytes; the last EtherType, that behind the tags.
                let ethertype = l3.checked_sub(2).and_then(|at| u16_at(frame, at)).unwrap_or(0);
                let addresses = u64_at(frame, 0);
                let rest = array_at(frame, 8).map_or(0, |bytes| u32::from_be_bytes(*bytes));
                hash.add(addresses, u64::from(rest) << 16 | u64::from(ethertype));
            }
        }
    }

    /// Ports and protocol as one number; 0 for fragments.
    #[inline]
    fn transport_key(&self, frame: &[u8]) -> u64 {
        if self.fragment != Fragment::Whole {
            // Not even the protocol: in IPv6 the later fragments may not tell it.
            return 0;
        }
        let ports = match self.l4 {
            L4::Tcp | L4::Udp => array_at(frame, usize::from(self.l4_offset))
                .map_or(0, |ports| u32::from_be_bytes(*ports)),
            L4::Icmp | L4::Icmpv6 | L4::Other => 0,
        };
        u64::from(ports) << 8 | u64::from(self.protocol)
    }

    /// The TOS byte or traffic class (RFC 2474 §3, RFC 3168 §5); 0 for [`L3::Other`].
    #[inline]
    pub fn tos(&self, frame: &[u8]) -> u8 {
        let Some(word) = u16_at(frame, usize::from(self.l3_offset)) else { return 0 };
        match self.l3 {
            L3::Ipv4 => word as u8,
            L3::Ipv6 => (word >> 4) as u8,
            L3::Other => 0,
        }
    }

    /// The TTL or hop limit; 0 for [`L3::Other`].
    #[inline]
    pub fn ttl(&self, frame: &[u8]) -> u8 {
        let at = match self.l3 {
            L3::Ipv4 => 8,
            L3::Ipv6 => 7,
            L3::Other => return 0,
        };
        frame.get(usize::from(self.l3_offset) + at).copied().unwrap_or(0)
    }

    /// Whether the packet may be fragmented on its way: IPv4 without DF (RFC 791 §3.1), and what is no IP.
    #[inline]
    pub fn may_be_fragmented(&self, frame: &[u8]) -> bool {
        let flags = frame.get(usize::from(self.l3_offset) + 6).copied().unwrap_or(0);
        match self.l3 {
            L3::Ipv4 => flags & DONT_FRAGMENT == 0,
            L3::Ipv6 => false,
            L3::Other => true,
        }
    }

    /// Merges the ECN field of an outer header into that of the packet inside (RFC 6040 §4.2); `false` where the packet
    /// has to be dropped. Frames without IP have no such field and stay as they are.
    #[inline(never)]
    pub fn merge_ecn(&self, frame: &mut [u8], outer: u8) -> bool {
        let inner = self.tos(frame) & ecn::MASK;
        let packet = frame.get_mut(usize::from(self.l3_offset)..).unwrap_or_default();
        match (self.l3, ecn::decapsulate(outer, inner)) {
            (L3::Other, _) => true,
            (_, None) => false,
            (_, Some(field)) if field == inner => true,
            (L3::Ipv4, Some(field)) => {
                ip::set_ecn_v4(packet, field);
                true
            }
            (L3::Ipv6, Some(field)) => {
                ip::set_ecn_v6(packet, field);
                true
            }
        }
    }

    /// The source and the destination of the IP packet; `None` for [`L3::Other`].
    #[inline]
    pub fn addresses(&self, frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
        let packet = frame.get(usize::from(self.l3_offset)..)?;
        match self.l3 {
            L3::Ipv4 => ip::v4_addresses(packet).map(|(src, dst)| (src.into(), dst.into())),
            L3::Ipv6 => ip::v6_addresses(packet).map(|(src, dst)| (src.into(), dst.into())),
            L3::Other => None,
        }
    }
}

/// A frame with VLAN tags, of which two are looked behind; a cut tag is not.
#[inline(never)]
fn parse_tagged(frame: &[u8]) -> FrameInfo {
    let mut l3_offset = eth::HEADER_LEN;
    let mut ethertype = TYPE_VLAN;
    for _ in 0..MAX_VLAN_TAGS {
        // A tag is two bytes of priority and VLAN number, then the next type (IEEE 802.1Q §9.6).
        let Some(next) = u16_at(frame, l3_offset + 2) else { break };
        ethertype = next;
        l3_offset += VLAN_TAG_LEN;
        if ethertype != TYPE_VLAN && ethertype != TYPE_QINQ {
            break;
        }
    }
    let ip = match ethertype {
        TYPE_IPV4 => parse_v4(frame, l3_offset).ok(),
        TYPE_IPV6 => parse_v6(frame, l3_offset).ok(),
        _ => None,
    };
    ip.unwrap_or_else(|| FrameInfo::opaque(frame, l3_offset))
}

#[inline(always)]
fn parse_v4(bytes: &[u8], at: usize) -> Result<FrameInfo, IpError> {
    let header: &[u8; V4_HEADER_LEN] = array_at(bytes, at).ok_or(IpError::Truncated)?;
    if header[0] >> 4 != 4 {
        return Err(IpError::Version);
    }
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header_len < V4_HEADER_LEN {
        return Err(IpError::HeaderLength);
    }
    if at + header_len > bytes.len() {
        return Err(IpError::Truncated);
    }
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if total_len < header_len || at + total_len > bytes.len() {
        return Err(IpError::TotalLength);
    }
    // Three flags, then the offset; the third flag says that more follow (RFC 791 §3.1).
    let fragment = match u16::from_be_bytes([header[6], header[7]]) & 0x3fff {
        0 => Fragment::Whole,
        0x2000 => Fragment::First,
        _ => Fragment::Later,
    };
    let (l4_offset, protocol) = (at + header_len, header[9]);
    let packet = bytes.get(..at + total_len).unwrap_or_default();
    let (l4, payload_offset) = match (fragment, protocol) {
        (Fragment::Later, _) => (L4::Other, l4_offset),
        (_, ip::PROTO_ICMP) => fixed(L4::Icmp, packet, l4_offset, ICMP_HEADER_LEN),
        _ => ports(packet, l4_offset, protocol),
    };
    Ok(FrameInfo {
        l3: L3::Ipv4,
        l4,
        fragment,
        l3_offset: narrow(at),
        l4_offset: narrow(l4_offset),
        payload_offset: narrow(payload_offset),
        ip_end: (at + total_len) as u32,
        protocol,
    })
}

#[inline(always)]
fn parse_v6(bytes: &[u8], at: usize) -> Result<FrameInfo, IpError> {
    let header: &[u8; V6_HEADER_LEN] = array_at(bytes, at).ok_or(IpError::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(IpError::Version);
    }
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let end = at + V6_HEADER_LEN + payload_len;
    let packet = bytes.get(..end).ok_or(IpError::TotalLength)?;

    let mut fragment = Fragment::Whole;
    let mut protocol = header[6];
    let mut l4_offset = at + V6_HEADER_LEN;
    let (l4, payload_offset) = match protocol {
        // The common case has no extension header to walk.
        ip::PROTO_TCP | ip::PROTO_UDP => ports(packet, l4_offset, protocol),
        _ => {
            let walk = ip::walk_v6(packet.get(at..).unwrap_or_default(), protocol);
            fragment = walk.fragment;
            protocol = walk.protocol;
            l4_offset = at + walk.offset;
            match protocol {
                _ if !walk.complete => (L4::Other, l4_offset),
                ip::PROTO_ICMPV6 => fixed(L4::Icmpv6, packet, l4_offset, ICMP_HEADER_LEN),
                _ => ports(packet, l4_offset, protocol),
            }
        }
    };
    Ok(FrameInfo {
        l3: L3::Ipv6,
        l4,
        fragment,
        l3_offset: narrow(at),
        l4_offset: narrow(l4_offset),
        payload_offset: narrow(payload_offset),
        ip_end: end as u32,
        protocol,
    })
}

/// TCP or UDP at `at` of a packet that ends where its IP length says, and where its payload starts.
#[inline(always)]
fn ports(packet: &[u8], at: usize, protocol: u8) -> (L4, usize) {
    match protocol {
        ip::PROTO_TCP => {
            // The upper half of byte 12 is the header length in words (RFC 9293 §3.1).
            let words = packet.get(at + 12).map_or(0, |byte| byte >> 4);
            let len = usize::from(words) * 4;
            if len < TCP_MIN_HEADER_LEN { (L4::Other, at) } else { fixed(L4::Tcp, packet, at, len) }
        }
        ip::PROTO_UDP => fixed(L4::Udp, packet, at, UDP_HEADER_LEN),
        _ => (L4::Other, at),
    }
}

/// `l4` if its header of `len` bytes fits.
#[inline(always)]
fn fixed(l4: L4, packet: &[u8], at: usize, len: usize) -> (L4, usize) {
    if at + len <= packet.len() { (l4, at + len) } else { (L4::Other, at) }
}

/// An offset as it is stored. No header chain gets near the limit: 22 bytes of Ethernet, 40 of
/// IPv6, and eight extension headers of at most 2048 bytes.
#[inline]
const fn narrow(offset: usize) -> u16 {
    offset as u16
}

/// The eight bytes at `at` as a number, 0 where there are fewer.
#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    array_at(bytes, at).map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests;
