use super::*;

/// IPv4 and UDP with four bytes of payload, source port 0x1111, no checksum.
const V4_UDP: [u8; 32] = [
    0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0xf6, 0xc8, 192, 0, 2, 1, 192, 0, 2, 2, 0x11, 0x11, 0x22,
    0x22, 0, 12, 0, 0, 1, 2, 3, 4,
];

fn framed(tags: &[u8], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let macs = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    [&macs, tags, &ethertype.to_be_bytes(), packet].concat()
}

/// IPv6 with these headers and bytes after the fixed header.
fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0u8; V6_HEADER_LEN];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    packet[6] = next;
    packet[7] = 64;
    packet.extend_from_slice(payload);
    packet
}

#[test]
fn reads_a_padded_frame_behind_tags() {
    for (tags, base) in
        [(&[][..], 14u16), (&[0x81, 0, 0, 5], 18), (&[0x88, 0xa8, 0, 9, 0x81, 0, 0, 5], 22)]
    {
        let mut frame = framed(tags, TYPE_IPV4, &V4_UDP);
        frame.resize(72, 0);
        let info = FrameInfo::parse(&frame).expect("longer than a header");
        let expected = FrameInfo {
            l3: L3::Ipv4,
            l4: L4::Udp,
            fragment: Fragment::Whole,
            l3_offset: base,
            l4_offset: base + 20,
            payload_offset: base + 28,
            ip_end: u32::from(base) + 32,
            protocol: 17,
        };
        assert_eq!(info, expected);
        let (src, dst) = info.addresses(&frame).expect("is IP");
        assert_eq!((src.to_string(), dst.to_string()), ("192.0.2.1".into(), "192.0.2.2".into()));
    }
    let three = [0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3];
    let info = FrameInfo::parse(&framed(&three, TYPE_IPV4, &V4_UDP)).expect("long enough");
    assert_eq!((info.l3, info.l3_offset), (L3::Other, 22));
}

#[test]
fn forwards_what_it_cannot_read() {
    assert_eq!(FrameInfo::parse(&[0; 13]), None);
    for len in 0..V4_UDP.len() {
        let frame = framed(&[], TYPE_IPV4, &V4_UDP[..len]);
        let info = FrameInfo::parse(&frame).expect("long enough");
        assert_eq!((info.l3, info.ip_end as usize), (L3::Other, frame.len()));
    }
    let cut_tag = FrameInfo::parse(&framed(&[], TYPE_VLAN, &[0, 5, 8])).expect("long enough");
    assert_eq!((cut_tag.l3, cut_tag.l3_offset), (L3::Other, 14));
}

#[test]
fn a_router_names_what_is_wrong() {
    assert!(FrameInfo::parse_ip(&V4_UDP).is_ok());
    assert!(FrameInfo::parse_ip(&[&V4_UDP[..], &[0; 9]].concat()).is_ok());
    let broken = |at: usize, value: u8| {
        let mut packet = V4_UDP;
        packet[at] = value;
        FrameInfo::parse_ip(&packet)
    };
    assert_eq!(FrameInfo::parse_ip(&[]), Err(IpError::Truncated));
    assert_eq!(FrameInfo::parse_ip(&V4_UDP[..19]), Err(IpError::Truncated));
    assert_eq!(FrameInfo::parse_ip(&V4_UDP[..31]), Err(IpError::TotalLength));
    assert_eq!(broken(0, 0x55), Err(IpError::Version));
    assert_eq!(broken(0, 0x44), Err(IpError::HeaderLength));
    assert_eq!(broken(0, 0x4f), Err(IpError::Truncated));
    assert_eq!(broken(3, 19), Err(IpError::TotalLength));
    assert_eq!(broken(8, 63), Err(IpError::HeaderChecksum));
    assert_eq!(FrameInfo::parse_ip(&v6(59, &[])[..39]), Err(IpError::Truncated));
    assert_eq!(FrameInfo::parse_ip(&v6(59, &[0])[..40]), Err(IpError::TotalLength));
}

#[test]
fn fragments_have_their_own_rules() {
    let read = |flags: u16, protocol: u8| {
        let mut frame = framed(&[], TYPE_IPV4, &V4_UDP);
        frame[20..22].copy_from_slice(&flags.to_be_bytes());
        frame[23] = protocol;
        let info = FrameInfo::parse(&frame).expect("long enough");
        (info.fragment, info.l4, info.flow_hash(&frame, 1))
    };
    let (whole, l4, hash) = read(0x4000, 17);
    assert_eq!((whole, l4), (Fragment::Whole, L4::Udp));
    let (first, l4, first_hash) = read(0x2000, 17);
    assert_eq!((first, l4), (Fragment::First, L4::Udp));
    for flags in [0x0001, 0x2001, 0x1fff] {
        assert_eq!(read(flags, 17), (Fragment::Later, L4::Other, first_hash));
    }
    assert_ne!(hash, first_hash);
}

/// First next header, headers, and what is to be found: fragment, L4, protocol, L4 offset.
type Case<'a> = (u8, &'a [&'a [u8]], Fragment, L4, u8, u16);

#[test]
fn follows_ipv6_extension_headers() {
    let udp = &V4_UDP[20..];
    let fragment = |field: u16| [17, 0, (field >> 8) as u8, field as u8, 0, 0, 0, 1];
    let cases: [Case; 8] = [
        (17, &[udp], Fragment::Whole, L4::Udp, 17, 40),
        (0, &[&[17, 0, 1, 4, 0, 0, 0, 0], udp], Fragment::Whole, L4::Udp, 17, 48),
        (51, &[&[17, 4], &[0; 22], udp], Fragment::Whole, L4::Udp, 17, 64),
        (60, &[&[60, 1], &[0; 14], &[17, 0], &[0; 6], udp], Fragment::Whole, L4::Udp, 17, 64),
        (44, &[&fragment(0), udp], Fragment::Whole, L4::Udp, 17, 48),
        (44, &[&fragment(1), udp], Fragment::First, L4::Udp, 17, 48),
        (44, &[&fragment(8), udp], Fragment::Later, L4::Other, 17, 48),
        // The header says 16 bytes, eight of which are missing.
        (43, &[&[17, 1, 0, 0, 0, 0, 0, 0]], Fragment::Whole, L4::Other, 43, 40),
    ];
    for (next, parts, fragment, l4, protocol, l4_offset) in cases {
        let info = FrameInfo::parse_ip(&v6(next, &parts.concat())).expect("valid header");
        let found = (info.fragment, info.l4, info.protocol, info.l4_offset);
        assert_eq!(found, (fragment, l4, protocol, l4_offset), "next header {next}");
    }
}

#[test]
fn follows_eight_extension_headers_and_no_more() {
    for (count, l4) in [(8, L4::Udp), (9, L4::Other)] {
        let mut chain = [60, 0, 0, 0, 0, 0, 0, 0].repeat(count);
        chain[(count - 1) * 8] = 17;
        chain.extend_from_slice(&V4_UDP[20..]);
        assert_eq!(FrameInfo::parse_ip(&v6(60, &chain)).map(|info| info.l4), Ok(l4));
    }
}

#[test]
fn checks_the_length_of_a_tcp_header() {
    for (words, len, l4) in [(5, 20, L4::Tcp), (4, 20, L4::Other), (6, 20, L4::Other)] {
        let mut tcp = [0u8; 20];
        tcp[12] = words << 4;
        let info = FrameInfo::parse_ip(&v6(6, &tcp[..len])).expect("valid header");
        assert_eq!(info.l4, l4, "{words} words");
    }
}
