//! Arbitrary bytes as a frame, a packet, a VXLAN header and a vnet header, with etherparse for a second opinion.

use etherparse::{LinkExtSlice, NetSlice, SlicedPacket, TransportSlice};
use overplane::wire::multicast::{self, Message};
use overplane::wire::vxlan::{self, DecodeError, ReservedBits};
use overplane::wire::{Fragment, FrameInfo, L3, L4, VnetHeader, eth, ip, l4};

pub fn run(bytes: &[u8]) {
    vxlan_header(bytes);
    vnet_header(bytes);
    if let Some(Message::Report(records)) = multicast::parse(bytes) {
        assert!(records.clone().count() * 8 <= bytes.len());
        assert!(records.into_iter().all(|record| multicast::is_tracked(record.group)));
    }
    let info = FrameInfo::parse(bytes);
    assert_eq!(info.is_some(), bytes.len() >= eth::HEADER_LEN);
    if let Some(info) = info {
        consistent(bytes, &info);
        if let Ok(parsed) = SlicedPacket::from_ethernet(bytes) {
            agrees(bytes, &info, &parsed);
        }
    }
    if let Ok(info) = FrameInfo::parse_ip(bytes) {
        assert_ne!(info.l3, L3::Other);
        assert_eq!(info.l3_offset, 0);
        consistent(bytes, &info);
        if let Ok(parsed) = SlicedPacket::from_ip(bytes) {
            agrees(bytes, &info, &parsed);
        }
        loses_a_hop(bytes, &info);
    }
}

fn vxlan_header(bytes: &[u8]) {
    let Ok(header) = vxlan::decode(bytes) else { return };
    let first = &bytes[..vxlan::HEADER_LEN];
    assert_eq!(header.is_plain(), first == vxlan::encode(header.vni()));
    let ignored = header.extensions(ReservedBits::Ignore, false);
    match header.extensions(ReservedBits::Strict, false) {
        Ok(policy) => assert!(header.is_plain() && policy.is_none() && ignored == Ok(None)),
        Err(DecodeError::ReservedBits) => assert!(!header.is_plain() && ignored == Ok(None)),
        Err(error) => assert_eq!(ignored, Err(error)),
    }
    if let Ok(Some(policy)) = header.extensions(ReservedBits::Strict, true) {
        let written = vxlan::encode_with_policy(header.vni(), policy);
        let again =
            vxlan::decode(&written).map(|h| (h.vni(), h.extensions(ReservedBits::Strict, true)));
        assert_eq!(again, Ok((header.vni(), Ok(Some(policy)))));
    }
}

fn vnet_header(bytes: &[u8]) {
    let Some(vnet) = VnetHeader::parse(bytes) else {
        assert!(bytes.len() < 10);
        return;
    };
    assert_eq!(vnet.to_bytes(), bytes[..10]);
    let frame = &bytes[10..];
    if vnet.validate(frame.len()).is_ok() && vnet.needs_checksum() {
        let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
        assert!(l4::complete(&mut frame.to_vec(), start, offset), "a valid header can be obeyed");
    }
}

/// What holds for every frame, whatever it is.
fn consistent(bytes: &[u8], info: &FrameInfo) {
    assert!(info.l3_offset <= info.l4_offset && info.l4_offset <= info.payload_offset);
    assert!(u32::from(info.payload_offset) <= info.ip_end || info.l3 == L3::Other);
    assert!(info.ip_end as usize <= bytes.len());
    assert_eq!(info.addresses(bytes).is_some(), info.l3 != L3::Other);
    assert_eq!(info.flow_hash(bytes, 1), info.flow_hash(bytes, 1));
    let state = l4::checksum_state(bytes, info);
    if info.fragment != Fragment::Whole {
        assert_eq!(state, l4::L4Checksum::Unknown);
        assert!(!l4::is_partial(bytes, info));
    }
    let mut copy = bytes.to_vec();
    if l4::set_partial(&mut copy, info) {
        let state = l4::checksum_state(&copy, info);
        assert_ne!(state, l4::L4Checksum::Absent);
        if state != l4::L4Checksum::Unknown {
            assert!(l4::is_partial(&copy, info));
            let offset = l4::checksum_offset(info.l4).expect("it has a checksum");
            let whole = &mut copy[..info.ip_end as usize];
            assert!(l4::complete(whole, info.l4_offset.into(), offset.into()));
            assert_eq!(l4::checksum_state(&copy, info), l4::L4Checksum::Correct);
        }
    }
}

/// Where etherparse reads a packet, so do we, and we read the same.
fn agrees(bytes: &[u8], info: &FrameInfo, parsed: &SlicedPacket<'_>) {
    // More tags than we look behind, and MACsec, are none of ours.
    if parsed.link_exts.len() > 2
        || parsed.link_exts.iter().any(|ext| matches!(ext, LinkExtSlice::Macsec(_)))
    {
        return;
    }
    // Nor is 0x9100, which was in use for outer tags before the standard chose another number.
    if [12, 16].iter().any(|at| bytes.get(*at..at + 2) == Some(&[0x91, 0x00])) {
        return;
    }
    let (payload, plain) = match &parsed.net {
        Some(NetSlice::Ipv4(ipv4)) => {
            assert_eq!(info.l3, L3::Ipv4);
            let header = ipv4.header();
            let expected = (header.source_addr().into(), header.destination_addr().into());
            assert_eq!(info.addresses(bytes), Some(expected));
            let checksum = header.to_header().calc_header_checksum() == header.header_checksum();
            let l3 = usize::from(info.l3_offset);
            // A checksum field of all ones is the other zero, which no sender writes and RFC 1071 accepts; and
            // etherparse computes as if the reserved flag were clear.
            if header.header_checksum() != 0xffff && bytes[l3 + 6] & 0x80 == 0 {
                assert_eq!(ip::verify_v4_header(&bytes[l3..]), checksum);
            }
            let fragmented = header.more_fragments() || header.fragments_offset().value() != 0;
            assert_eq!(info.fragment != Fragment::Whole, fragmented);
            (ipv4.payload(), ipv4.extensions().auth.is_none())
        }
        Some(NetSlice::Ipv6(ipv6)) => {
            assert_eq!(info.l3, L3::Ipv6);
            let header = ipv6.header();
            let expected = (header.source_addr().into(), header.destination_addr().into());
            assert_eq!(info.addresses(bytes), Some(expected));
            // A length of 0 is a jumbogram for etherparse and nothing for us.
            (ipv6.payload(), ipv6.extensions().is_empty() && header.payload_length() != 0)
        }
        _ => return,
    };
    // Extension headers are followed by different rules.
    if !plain {
        return;
    }
    assert_eq!(payload.payload.len(), (info.ip_end - u32::from(info.l4_offset)) as usize);
    let (l4, data) = match &parsed.transport {
        Some(TransportSlice::Tcp(tcp)) => (L4::Tcp, tcp.payload()),
        // etherparse goes by the length in the UDP header where that is smaller.
        Some(TransportSlice::Udp(_)) => {
            assert_eq!(info.l4, L4::Udp);
            return;
        }
        Some(TransportSlice::Icmpv4(icmp)) if info.l3 == L3::Ipv4 => (L4::Icmp, &icmp.slice()[8..]),
        Some(TransportSlice::Icmpv6(icmp)) if info.l3 == L3::Ipv6 => {
            (L4::Icmpv6, &icmp.slice()[8..])
        }
        _ => return,
    };
    assert_eq!(info.l4, l4);
    assert_eq!(&bytes[usize::from(info.payload_offset)..info.ip_end as usize], data);
}

/// A router that takes one hop from a valid packet leaves a valid packet.
fn loses_a_hop(bytes: &[u8], info: &FrameInfo) {
    let mut packet = bytes.to_vec();
    match info.l3 {
        L3::Ipv4 => ip::decrement_ttl_v4(&mut packet),
        _ => ip::decrement_hop_limit(&mut packet),
    }
    assert_eq!(FrameInfo::parse_ip(&packet), Ok(*info));
}
