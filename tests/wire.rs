//! Properties of layer 1: against byte-at-a-time oracles, against etherparse, and on arbitrary
//! bytes.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use overplane::wire::l4::L4Checksum;
use overplane::wire::vxlan::{Header, ReservedBits};
use overplane::wire::{
    Fragment, FrameInfo, L3, L4, MacAddr, VnetHeader, Vni, checksum, eth, ip, l4, vxlan,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// The sum of RFC 1071 §1, word by word.
fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// Frames that are IP more often than not: valid headers of any kind, then a few bytes changed and
/// the end cut off or padded.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let tags = prop_oneof![
        3 => Just(vec![]),
        1 => vec(any::<[u8; 2]>(), 1..=3),
    ];
    let l4 = prop_oneof![
        (any::<[u8; 12]>(), 5u8..8, vec(any::<u8>(), 8..60)).prop_map(|(ports, words, rest)| {
            (6, 58, [&ports[..], &[words << 4], &rest].concat())
        }),
        (any::<[u8; 4]>(), vec(any::<u8>(), 0..60)).prop_map(|(ports, rest)| {
            let len = (rest.len() as u16 + 8).to_be_bytes();
            (17, 17, [&ports[..], &len, &[0, 0], &rest].concat())
        }),
        vec(any::<u8>(), 0..40).prop_map(|rest| (1, 58, rest)),
        (any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(|(number, rest)| (number, number, rest)),
    ];
    let extension = (
        prop_oneof![Just(0u8), Just(43), Just(44), Just(51), Just(60)],
        0u8..4,
        any::<[u8; 2]>(),
        any::<bool>(),
    );
    let shape = (tags, any::<[u8; 12]>(), any::<bool>(), vec(any::<u8>(), 32), l4);
    let detail = (0u8..=10, prop_oneof![4 => Just(0u16), 1 => any::<u16>()], vec(extension, 0..4));
    let damage = (vec((any::<prop::sample::Index>(), any::<u8>()), 0..3), 0usize..12, 0usize..8);
    (shape, detail, damage).prop_map(
        |((tags, macs, v6, addresses, l4), (words, flags, extensions), (changes, pad, cut))| {
            let mut frame = macs.to_vec();
            for tag in tags {
                frame.extend([0x81, 0x00]);
                frame.extend(tag);
            }
            let (v4_number, v6_number, payload) = l4;
            if v6 {
                let mut chain = Vec::new();
                let numbers: Vec<u8> = extensions.iter().map(|e| e.0).chain([v6_number]).collect();
                for ((number, units, bytes, more), next) in extensions.iter().zip(&numbers[1..]) {
                    let (len, units) = match number {
                        44 => (8, 0),
                        // Four to 16 bytes of check value, in whole units of eight with the header.
                        51 => (16 + usize::from(*units / 2) * 8, 2 + units / 2 * 2),
                        _ => (8 + usize::from(*units) * 8, *units),
                    };
                    let start = chain.len();
                    chain.resize(start + len, 0);
                    chain[start] = *next;
                    chain[start + 1] = units;
                    if *number == 44 && *more {
                        chain[start + 2..start + 4].copy_from_slice(bytes);
                    }
                }
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(((chain.len() + payload.len()) as u16).to_be_bytes());
                frame.extend([numbers[0], 64]);
                frame.extend(&addresses);
                frame.extend(chain);
            } else {
                let mut header = vec![0x45 + words, 0];
                let options = usize::from(words) * 4;
                header.extend(((20 + options + payload.len()) as u16).to_be_bytes());
                header.extend([0, 1]);
                header.extend(flags.to_be_bytes());
                header.extend([64, v4_number, 0, 0]);
                header.extend(&addresses[..8]);
                header.resize(20 + options, 1);
                frame.extend([0x08, 0x00]);
                let check = ip::v4_header_checksum(&header).to_be_bytes();
                header[10..12].copy_from_slice(&check);
                frame.extend(header);
            }
            frame.extend(payload);
            for (index, value) in changes {
                let at = index.index(frame.len());
                frame[at] = value;
            }
            if pad > 6 {
                frame.resize(frame.len() + pad, 0xee);
            }
            if cut > 5 {
                frame.truncate(frame.len().saturating_sub(cut));
            }
            frame
        },
    )
}

/// Any bytes, or bytes that resemble a frame.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..200), frames()]
}

/// Where `part` starts within `whole`.
fn offset_in(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

/// Compares with etherparse where it takes the frame and means the same by it.
fn agrees_with_etherparse(frame: &[u8], info: &FrameInfo) -> Result<(), TestCaseError> {
    let Ok(sliced) = SlicedPacket::from_ethernet(frame) else { return Ok(()) };
    let outer = u16::from_be_bytes([frame[12], frame[13]]);
    // It looks behind three tags and other tag types than we do.
    if sliced.link_exts.len() > 2 || outer == 0x9100 {
        return Ok(());
    }
    let (l3, payload, v6) = match &sliced.net {
        Some(NetSlice::Ipv4(v4)) if v4.extensions().auth.is_none() => {
            prop_assert_eq!(info.l3, L3::Ipv4);
            (offset_in(frame, v4.header().slice()), v4.payload(), false)
        }
        // A payload length of 0 means "to the end" there.
        Some(NetSlice::Ipv6(v6)) if v6.header().payload_length() != 0 => {
            prop_assert_eq!(info.l3, L3::Ipv6);
            (offset_in(frame, v6.header().slice()), v6.payload(), true)
        }
        Some(NetSlice::Ipv4(_) | NetSlice::Ipv6(_)) => return Ok(()),
        Some(NetSlice::Arp(_)) | None => {
            prop_assert_eq!(info.l3, L3::Other);
            prop_assert_eq!(info.ip_end as usize, frame.len());
            return Ok(());
        }
    };
    prop_assert_eq!(usize::from(info.l3_offset), l3);
    let end = offset_in(frame, payload.payload) + payload.payload.len();
    prop_assert_eq!(info.ip_end as usize, end);
    prop_assert_eq!(info.fragment != Fragment::Whole, payload.fragmented);
    if info.fragment != Fragment::Later {
        prop_assert_eq!(usize::from(info.l4_offset), offset_in(frame, payload.payload));
        prop_assert_eq!(info.protocol, payload.ip_number.0);
    }
    if info.fragment != Fragment::Whole {
        return Ok(());
    }
    let (kind, rest) = match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => (L4::Tcp, tcp.payload()),
        // Its payload ends by the UDP length, but starts where ours does.
        Some(TransportSlice::Udp(udp)) => (L4::Udp, udp.payload()),
        Some(TransportSlice::Icmpv4(icmp)) if !v6 => (L4::Icmp, &icmp.slice()[8..]),
        Some(TransportSlice::Icmpv6(icmp)) if v6 => (L4::Icmpv6, &icmp.slice()[8..]),
        _ => (L4::Other, payload.payload),
    };
    prop_assert_eq!(info.l4, kind);
    prop_assert_eq!(usize::from(info.payload_offset), offset_in(frame, rest));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn sum_equals_the_naive_sum(bytes in vec(any::<u8>(), 0..700), skip in 0usize..9) {
        let bytes = bytes.get(skip..).unwrap_or_default();
        prop_assert_eq!(checksum::sum(bytes), naive_sum(bytes));
    }

    #[test]
    fn sum_keeps_the_carries(len in 0usize..700, byte in prop_oneof![Just(0u8), Just(0xff)]) {
        let bytes = vec![byte; len];
        prop_assert_eq!(checksum::sum(&bytes), naive_sum(&bytes));
    }

    #[test]
    fn sums_of_two_pieces_join(bytes in vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
        let (left, right) = bytes.split_at(at.index(bytes.len() + 1));
        let (a, b) = (checksum::sum(left), checksum::sum(right));
        let joined =
            if left.len() % 2 == 0 { checksum::add(a, b) } else { checksum::add_at_odd(a, b) };
        prop_assert_eq!(joined, checksum::sum(&bytes));
    }

    #[test]
    fn update_equals_computing_anew(words in vec(any::<u16>(), 2..20), at in any::<prop::sample::Index>(), new: u16) {
        // An IP header is never all zero, which keeps one of the two zeros out.
        let mut words = words;
        words[0] |= 0x4000;
        let at = at.index(words.len() - 1) + 1;
        let bytes = |words: &[u16]| words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>();
        let check = checksum::finish(checksum::sum(&bytes(&words)));
        let updated = checksum::update(check, words[at], new);
        words[at] = new;
        prop_assert_eq!(updated, checksum::finish(checksum::sum(&bytes(&words))));
    }

    #[test]
    fn parse_agrees_with_etherparse(frame in frames()) {
        match FrameInfo::parse(&frame) {
            Some(info) => agrees_with_etherparse(&frame, &info)?,
            None => prop_assert!(frame.len() < eth::HEADER_LEN),
        }
    }

    #[test]
    fn offsets_are_in_order(bytes in any_bytes()) {
        let parsed = [FrameInfo::parse(&bytes), FrameInfo::parse_ip(&bytes).ok()];
        for info in parsed.into_iter().flatten() {
            prop_assert!(info.l3_offset <= info.l4_offset);
            prop_assert!(info.l4_offset <= info.payload_offset);
            prop_assert!(u32::from(info.payload_offset) <= info.ip_end);
            prop_assert!(info.ip_end as usize <= bytes.len());
            prop_assert_eq!(info.l4 == L4::Other, info.l4_offset == info.payload_offset);
            prop_assert_eq!(info.addresses(&bytes).is_some(), info.l3 != L3::Other);
        }
    }

    #[test]
    fn a_router_reads_what_a_bridge_reads(frame in frames()) {
        let Some(bridge) = FrameInfo::parse(&frame) else { return Ok(()) };
        let base = bridge.l3_offset;
        let Ok(router) = FrameInfo::parse_ip(&frame[usize::from(base)..]) else { return Ok(()) };
        if bridge.l3 == L3::Other {
            return Ok(());
        }
        prop_assert_eq!(router.l3, bridge.l3);
        prop_assert_eq!(router.l4, bridge.l4);
        prop_assert_eq!(router.fragment, bridge.fragment);
        prop_assert_eq!(router.protocol, bridge.protocol);
        prop_assert_eq!(router.l4_offset + base, bridge.l4_offset);
        prop_assert_eq!(router.payload_offset + base, bridge.payload_offset);
        prop_assert_eq!(router.ip_end + u32::from(base), bridge.ip_end);
        prop_assert_eq!(
            router.flow_hash(&frame[usize::from(base)..], 3), bridge.flow_hash(&frame, 3));
    }

    #[test]
    fn checksums_agree_with_etherparse(
        v6: bool, tcp: bool, payload in vec(any::<u8>(), 0..300), addresses: [u8; 32], ports: (u16, u16),
        pad in 0usize..9,
    ) {
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let (mut src, mut dst) = ([0; 16], [0; 16]);
        src.copy_from_slice(&addresses[..16]);
        dst.copy_from_slice(&addresses[16..]);
        let net = if v6 {
            link.ipv6(src, dst, 64)
        } else {
            link.ipv4([src[0], src[1], src[2], src[3]], [dst[0], dst[1], dst[2], dst[3]], 64)
        };
        let mut frame = Vec::new();
        if tcp {
            net.tcp(ports.0, ports.1, 7, 8).write(&mut frame, &payload).expect("fits");
        } else {
            net.udp(ports.0, ports.1).write(&mut frame, &payload).expect("fits");
        }
        let end = frame.len();
        frame.resize(end + pad, 0xee);

        let info = FrameInfo::parse(&frame).expect("long enough");
        prop_assert_eq!(l4::checksum_state(&frame, &info), L4Checksum::Correct);
        if !v6 {
            prop_assert!(FrameInfo::parse_ip(&frame[14..]).is_ok());
        }
        let original = frame.clone();
        prop_assert!(l4::set_partial(&mut frame, &info));
        prop_assert!(l4::is_partial(&frame, &info));
        let offset = l4::checksum_offset(info.l4).expect("TCP or UDP");
        prop_assert!(l4::complete(&mut frame[..end], info.l4_offset.into(), offset.into()));
        prop_assert_eq!(l4::checksum_state(&frame, &info), L4Checksum::Correct);
        // TCP may say zero the other way.
        let at = usize::from(info.l4_offset + offset);
        if original[at..at + 2] != [0, 0] {
            prop_assert_eq!(frame, original);
        }
    }

    #[test]
    fn ttl_keeps_the_header_checksum_right(frame in frames()) {
        let mut packet = frame.get(14..).unwrap_or_default().to_vec();
        let valid = ip::verify_v4_header(&packet);
        ip::decrement_ttl_v4(&mut packet);
        prop_assert_eq!(ip::verify_v4_header(&packet), valid);
    }

    #[test]
    fn nothing_panics_on_any_bytes(
        bytes in any_bytes(), other in any_bytes(), start in 0usize..220, offset in 0usize..40, seed: u64,
    ) {
        let mut bytes = bytes;
        let _ = (eth::addresses(&bytes), ip::v4_addresses(&bytes), ip::v6_addresses(&bytes));
        let _ = (ip::v4_header_checksum(&bytes), ip::verify_v4_header(&bytes));
        let _ = vxlan::decode(&bytes).map(|header| header.extensions(ReservedBits::Strict, true));
        let _ = VnetHeader::parse(&bytes).map(|header| header.validate(start));
        let infos = [FrameInfo::parse(&bytes), FrameInfo::parse_ip(&bytes).ok()];
        // Also with what was read from other bytes.
        let strangers = [FrameInfo::parse(&other), FrameInfo::parse_ip(&other).ok()];
        for info in infos.into_iter().chain(strangers).flatten() {
            let _ = (info.flow_hash(&bytes, seed), info.addresses(&bytes));
            let _ = (l4::pseudo_sum(&bytes, &info), l4::is_partial(&bytes, &info));
            let _ = l4::checksum_state(&bytes, &info);
            let _ = l4::set_partial(&mut bytes, &info);
        }
        let fits = start + offset + 2 <= bytes.len();
        prop_assert_eq!(l4::complete(&mut bytes, start, offset), fits);
        ip::decrement_ttl_v4(&mut bytes);
        ip::decrement_hop_limit(&mut bytes);
    }

    #[test]
    fn accessors_survive_any_info(bytes in any_bytes(), offsets: [u16; 3], end: u32, kinds: (u8, u8)) {
        let mut bytes = bytes;
        let Some(mut info) = FrameInfo::parse(&bytes) else { return Ok(()) };
        [info.l3_offset, info.l4_offset, info.payload_offset] = offsets;
        info.ip_end = end;
        info.l3 = [L3::Ipv4, L3::Ipv6, L3::Other][usize::from(kinds.0 % 3)];
        info.l4 = [L4::Tcp, L4::Udp, L4::Icmp, L4::Icmpv6, L4::Other][usize::from(kinds.1 % 5)];
        info.fragment = Fragment::Whole;
        let _ = (info.flow_hash(&bytes, 0), info.addresses(&bytes));
        let _ = (l4::is_partial(&bytes, &info), l4::checksum_state(&bytes, &info));
        let _ = l4::set_partial(&mut bytes, &info);
    }

    #[test]
    fn addresses_and_identifiers_survive_text(bytes: [u8; 6], number in 0u32..1 << 24, text in ".{0,20}") {
        let mac = MacAddr(bytes);
        prop_assert_eq!(mac.to_string().parse(), Ok(mac));
        prop_assert_eq!(MacAddr::from_u64(mac.to_u64()), mac);
        let vni = Vni::new(number).expect("24 bits");
        prop_assert_eq!(vni.to_string().parse(), Ok(vni));
        prop_assert_eq!(vxlan::decode(&vxlan::encode(vni)).map(Header::vni), Ok(vni));
        let _ = (text.parse::<MacAddr>(), text.parse::<Vni>());
    }

    #[test]
    fn a_vnet_header_that_passes_is_safe_to_complete(bytes: [u8; 10], frame in vec(any::<u8>(), 0..300)) {
        let mut frame = frame;
        let header = VnetHeader::parse(&bytes).expect("ten bytes");
        prop_assert_eq!(header.to_bytes(), bytes);
        if header.validate(frame.len()).is_ok() && header.needs_checksum() {
            prop_assert!(l4::complete(
                &mut frame, header.csum_start.into(), header.csum_offset.into()));
        }
    }
}

#[test]
fn sum_equals_the_naive_sum_at_every_length_and_alignment() {
    let bytes: Vec<u8> =
        (0..66_000_u32).map(|at| (at.wrapping_mul(at) >> 3) as u8 | 0x80).collect();
    for len in (0..=300).chain([1460, 8960, 65_507, 65_535, 65_600]) {
        for start in 0..=16 {
            let run = &bytes[start..start + len];
            assert_eq!(checksum::sum(run), naive_sum(run), "{len} bytes from {start}");
        }
    }
    for len in [65_534, 65_535, 65_536] {
        assert_eq!(checksum::sum(&vec![0xff; len]), naive_sum(&vec![0xff; len]), "{len} bytes");
    }
}

#[test]
fn flow_hashes_of_neighbouring_flows_spread() {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(1, 2)
        .write(&mut frame, b"payload")
        .expect("fits");
    let info = FrameInfo::parse(&frame).expect("long enough");
    let first = info.flow_hash(&frame, 42);
    frame[44] ^= 1;
    assert_eq!(info.flow_hash(&frame, 42), first, "the payload has no part in it");
    assert_ne!(info.flow_hash(&frame, 43), first, "the seed has");

    // Both ends of the hash choose among 64 bins; 64,000 flows put about 1000 into each.
    let (mut high, mut low) = ([0u32; 64], [0u32; 64]);
    for port in 0..64_000u16 {
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        let hash = info.flow_hash(&frame, 42);
        high[(hash >> 26) as usize] += 1;
        low[(hash & 63) as usize] += 1;
    }
    for bin in high.into_iter().chain(low) {
        assert!((800..1200).contains(&bin), "{bin} flows in one bin");
    }
}
