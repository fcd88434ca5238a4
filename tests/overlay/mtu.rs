//! Frames that are too large for a segment or a path, and what their senders are told.

use std::time::Duration;

use etherparse::{Icmpv4Type, Icmpv6Type, icmpv4};
use overplane::wire::eth;
use overplane::{Change, DropReason, MacAddr, MssClamp, PathSource, PortId, Segment};

use crate::answers::{TransportOf, answer, assert_limited_in_rate};
use crate::network::Network;
use crate::packets::*;

/// Host 1 is behind node 1, and host 2 by a static entry behind node 2.
fn two_nodes(segment: &Segment) -> (Network, Vec<PortId>) {
    let (mut network, ports) = Network::mesh(2, segment, false);
    let destination = vtep(2).into();
    let mac = host(2).mac;
    network.change(1, Change::InsertFdb { segment: segment.id(), mac, destination });
    (network, ports)
}

/// A frame from host 1 to host 2, with what is between the MAC addresses and the packet.
fn frame(between: &[u8], packet: &[u8]) -> Vec<u8> {
    [&host(2).mac.0[..], &host(1).mac.0, between, packet].concat()
}

fn v4(payload: usize) -> Vec<u8> {
    ip_udp("10.0.0.1", "10.0.0.2", 64, &vec![7; payload])
}

fn v6(payload: usize) -> Vec<u8> {
    ip_udp("fd00::1", "fd00::2", 64, &vec![7; payload])
}

/// The same packet, not to be fragmented or perhaps in fragments.
fn with_flags(mut packet: Vec<u8>, flags: u16) -> Vec<u8> {
    packet[6..8].copy_from_slice(&flags.to_be_bytes());
    let check = overplane::wire::ip::v4_header_checksum(&packet);
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet
}

const V4: [u8; 2] = [8, 0];
const V6: [u8; 2] = [0x86, 0xdd];

fn needs_fragmentation(next_hop_mtu: u16, quote: &[u8]) -> TransportOf {
    use icmpv4::DestUnreachableHeader::FragmentationNeeded;
    let kind = Icmpv4Type::DestinationUnreachable(FragmentationNeeded { next_hop_mtu });
    TransportOf::V4(kind, quote.to_vec())
}

#[test]
fn row_18_a_frame_above_the_mtu_is_answered_over_ethernet() {
    for tags in [&[][..], &[0x81, 0, 0x20, 5], &[0x88, 0xa8, 0, 9, 0x81, 0, 0xe0, 5]] {
        let (mut network, ports) = two_nodes(&bridge(1));
        let back = |answers: &[Vec<u8>], link: &[u8]| {
            assert_eq!(answers.len(), 1);
            let (header, packet) = answers[0].split_at(12 + link.len());
            assert_eq!(header, [&host(1).mac.0[..], &host(2).mac.0, link].concat());
            packet.to_vec()
        };
        let link = [tags, &V4].concat();
        let packet = v4(1451 - 28);
        assert_eq!(packet.len(), 1451);
        network.send(1, ports[0], &frame(&link, &packet));
        let told = back(&network.frames(1, ports[0]), &link);
        assert_eq!(told.len(), 576, "RFC 1812: as much as fits into 576 bytes");
        let expected = needs_fragmentation(1450, &packet[..548]);
        assert_eq!(answer(&told, "10.0.0.2", "10.0.0.1"), expected);
        // To the byte.
        network.send(1, ports[0], &frame(&link, &v4(1450 - 28)));
        assert_eq!(network.sent.len(), 1);

        let link = [tags, &V6].concat();
        let packet = v6(1403);
        network.send(1, ports[0], &frame(&link, &packet));
        let told = back(&network.frames(1, ports[0]), &link);
        assert_eq!(told.len(), 1280, "RFC 4443: as much as fits into 1280 bytes");
        let expected =
            TransportOf::V6(Icmpv6Type::PacketTooBig { mtu: 1450 }, packet[..1232].to_vec());
        assert_eq!(answer(&told, "fd00::2", "fd00::1"), expected);
        assert_eq!(network.drops(1, DropReason::TooBig), 2);
        assert_eq!(network.stats(1).totals.generated, 2);
    }
}

#[test]
fn errors_come_from_the_segments_own_addresses_if_it_has_any() {
    let segment = bridge_with(1, |segment| {
        segment.addresses = ["10.0.0.254", "fd00::fe"].map(|text| text.parse().unwrap()).into();
    });
    let (mut network, ports) = two_nodes(&segment);
    for (link, packet, from, to) in
        [(V4, v4(1500), "10.0.0.254", "10.0.0.1"), (V6, v6(1500), "fd00::fe", "fd00::1")]
    {
        network.send(1, ports[0], &frame(&link, &packet));
        answer(&network.frames(1, ports[0])[0][eth::HEADER_LEN..], from, to);
    }
}

#[test]
fn row_18_nobody_is_told_what_must_not_be_told() {
    let (mut network, ports) = two_nodes(&bridge(1));
    let icmp = |kind| {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .icmpv4(kind)
            .write(&mut packet, &[0; 1500])
            .unwrap();
        with_flags(packet, 0x4000)
    };
    let error = Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit);
    let echo = Icmpv4Type::EchoRequest(etherparse::IcmpEchoHeader { id: 1, seq: 1 });
    let from_to = |from, to| ip_udp(from, to, 64, &[0; 1500]);
    let nobody = [0xff; 6];
    for (case, to, link, packet, answers) in [
        ("a packet", host(2).mac.0, V4, v4(1500), 1),
        ("a ping", host(2).mac.0, V4, icmp(echo), 1),
        ("that may be fragmented", host(2).mac.0, V4, with_flags(v4(1500), 0), 0),
        ("an ICMP error", host(2).mac.0, V4, icmp(error), 0),
        ("a later fragment", host(2).mac.0, V4, with_flags(v4(1500), 0x4010), 0),
        ("a broadcast", nobody, V4, from_to("10.0.0.1", "10.0.0.255"), 0),
        ("flooded: nobody knows where it is", [2, 0, 0, 0, 0, 77], V4, v4(1500), 0),
        ("an IP group", host(2).mac.0, V4, from_to("10.0.0.1", "224.0.0.9"), 0),
        ("an IPv6 group", host(2).mac.0, V6, from_to("fd00::1", "ff02::9"), 0),
        ("from an unspecified address", host(2).mac.0, V6, from_to("::", "fd00::2"), 0),
        ("not IP", host(2).mac.0, [0x88, 0xb5], vec![0; 1500], 0),
        ("IPv4 that makes no sense", host(2).mac.0, V4, vec![0x41; 1500], 0),
    ] {
        let before = network.drops(1, DropReason::TooBig);
        let frame = [&to[..], &host(1).mac.0, &link, &packet].concat();
        network.send(1, ports[0], &frame);
        assert_eq!(network.frames(1, ports[0]).len(), answers, "{case}");
        assert_eq!(network.drops(1, DropReason::TooBig), before + 1, "{case}");
    }
    assert_eq!(network.sent.len(), 0);
}

#[test]
fn nobody_is_told_if_the_segment_is_told_not_to() {
    let segment = bridge_with(1, |segment| segment.mtu_options.too_big_errors = false);
    let (mut network, ports) = two_nodes(&segment);
    network.send(1, ports[0], &frame(&V4, &v4(1500)));
    assert_eq!(network.frames(1, ports[0]).len(), 0);
    assert_eq!(network.stats(1).totals.answers_withheld, 0, "none was meant to be");
}

/// No IPv6 sender makes packets smaller than 1280 bytes, and the error would only be noise.
#[test]
fn an_mtu_below_that_of_ipv6_is_told_as_far_as_it_helps() {
    let (mut network, ports) = two_nodes(&bridge_with(1, |segment| segment.mtu = Some(600)));
    network.send(1, ports[0], &frame(&V6, &v6(1280 - 48)));
    assert_eq!(network.frames(1, ports[0]).len(), 0);
    network.send(1, ports[0], &frame(&V6, &v6(1281 - 48)));
    let told = network.frames(1, ports[0]);
    let TransportOf::V6(kind, _) = answer(&told[0][14..], "fd00::2", "fd00::1") else {
        panic!("not ICMPv6")
    };
    assert_eq!(kind, Icmpv6Type::PacketTooBig { mtu: 1280 });
    network.send(1, ports[0], &frame(&V4, &v4(601 - 28)));
    let told = network.frames(1, ports[0]);
    let TransportOf::V4(kind, _) = answer(&told[0][14..], "10.0.0.2", "10.0.0.1") else {
        panic!("not ICMP")
    };
    let TransportOf::V4(expected, _) = needs_fragmentation(600, &[]) else { unreachable!() };
    assert_eq!(kind, expected);
}

#[test]
fn row_18_errors_are_limited_in_rate() {
    let (mut network, ports) = two_nodes(&bridge(1));
    assert_limited_in_rate(&mut network, ports[0], &frame(&V4, &v4(1500)));
}

/// A TCP super-frame is cut to the MTU, which nobody need be told of; UDP datagrams cannot be, and their sender is told.
#[test]
fn row_18_super_frames_are_cut_or_answered() {
    let (mut network, ports) = two_nodes(&bridge(1));
    let (tcp, vnet) = tcp_super_frame(host(1), host(2), &[7; 10_000], 1460);
    network.send_unfinished(1, ports[0], &tcp, vnet);
    assert_eq!(network.frames(1, ports[0]).len(), 0);
    assert!(network.sent.iter().all(|datagram| datagram.bytes.len() <= 1450 + 14 + 8));
    network.sent.clear();

    let (mut udp, vnet) = udp_super_frame(host(1), host(2), &[7; 4416], 1472);
    // Linux's IPv4 sets "don't fragment" where it discovers the path MTU.
    let packet = with_flags(udp.split_off(14), 0x4000);
    network.send_unfinished(1, ports[0], &[udp, packet].concat(), vnet);
    let told = network.frames(1, ports[0]);
    assert_eq!(told.len(), 1);
    answer(&told[0][14..], "10.0.0.2", "10.0.0.1");
    assert_eq!(MacAddr(told[0][..6].try_into().unwrap()), host(1).mac);
    assert_eq!(network.sent.len(), 0);
}

/// Nodes 1 and 2 with a path of 1400 bytes between them, and node 3; host `n` is behind node `n`.
fn a_narrow_path(source: PathSource) -> (Network, Vec<PortId>) {
    let (mut network, ports) = Network::mesh(3, &bridge(1), false);
    for n in [2, 3] {
        let (mac, destination) = (host(n).mac, vtep(n).into());
        network.change(1, Change::InsertFdb { segment: bridge_id(1), mac, destination });
    }
    network.change(1, narrow(source, Some(1400), network.now + Duration::from_secs(600)));
    (network, ports)
}

fn narrow(source: PathSource, mtu: Option<u32>, until: Duration) -> Change {
    Change::SetPathMtu { vtep: vtep(2), source, mtu, until }
}

/// A frame from host 1 to host `n` with an IPv4 packet of `len` bytes.
fn to(n: u8, len: usize) -> Vec<u8> {
    let packet = ip_udp("10.0.0.1", &format!("10.0.0.{n}"), 64, &vec![7; len - 28]);
    [&host(n).mac.0[..], &host(1).mac.0, &V4, &packet].concat()
}

#[test]
fn row_19_a_narrow_path_is_one_for_its_vtep_alone() {
    for source in [PathSource::Configured, PathSource::Learned] {
        let (mut network, ports) = a_narrow_path(source);
        for (n, len, sent) in [(2, 1350, 1), (2, 1351, 0), (3, 1450, 1), (3, 1451, 0)] {
            network.sent.clear();
            network.send(1, ports[0], &to(n, len));
            assert_eq!(network.sent.len(), sent, "{len} bytes to node {n}");
            let told = network.frames(1, ports[0]);
            assert_eq!(told.len(), 1 - sent);
            if let Some(told) = told.first() {
                let from = format!("10.0.0.{n}");
                let limit = if n == 2 { 1350 } else { 1450 };
                let expected = needs_fragmentation(limit, &to(n, len)[14..562]);
                assert_eq!(answer(&told[14..], &from, "10.0.0.1"), expected);
            }
        }
    }
}

#[test]
fn row_19_super_frames_are_cut_to_the_path() {
    let (mut network, ports) = a_narrow_path(PathSource::Learned);
    for (n, limit) in [(2, 1350), (3, 1450)] {
        network.sent.clear();
        let (tcp, vnet) = tcp_super_frame(host(1), host(n), &[7; 10_000], 1460);
        network.send_unfinished(1, ports[0], &tcp, vnet);
        let longest = network.sent.iter().map(|datagram| datagram.bytes.len()).max().unwrap();
        assert_eq!(longest, limit + 14 + 8, "to node {n}");
    }
    // A UDP super-frame cannot be cut any smaller.
    for (n, sent) in [(2, 0), (3, 3)] {
        network.sent.clear();
        let (udp, vnet) = udp_super_frame(host(1), host(n), &[7; 4200], 1400);
        network.send_unfinished(1, ports[0], &udp, vnet);
        assert_eq!(network.sent.len(), sent, "to node {n}");
    }
}

#[test]
fn row_19_a_frame_for_everybody_reaches_those_whom_it_fits() {
    let (mut network, ports) = a_narrow_path(PathSource::Learned);
    let everybody = |len: usize| udp(host(1), EVERYBODY, &vec![7; len - 28]);
    network.send(1, ports[0], &everybody(1350));
    assert_eq!(network.sent.len(), 2);
    network.sent.clear();
    network.send(1, ports[0], &everybody(1351));
    assert_eq!(network.sent.len(), 1);
    assert_eq!(network.sent[0].to, vtep(3));
    assert_eq!(network.drops(1, DropReason::UnderlayTooBig), 1);
    assert_eq!(network.frames(1, ports[0]).len(), 0, "and nobody is told");
    network.send(1, ports[0], &everybody(1451));
    assert_eq!(network.drops(1, DropReason::TooBig), 1);
}

#[test]
fn row_19_what_is_learned_expires_and_what_is_configured_does_not() {
    let (mut network, ports) = a_narrow_path(PathSource::Learned);
    network.change(1, narrow(PathSource::Configured, Some(1450), Duration::ZERO));
    let path = |network: &mut Network| network.stats(1).vteps[0].path;
    assert_eq!(
        (path(&mut network).learned, path(&mut network).configured),
        (Some(1400), Some(1450))
    );
    let expired = |network: &mut Network| {
        let now = network.now;
        network.node(1).tables.expired_paths(now)
    };
    assert_eq!(expired(&mut network), []);
    network.now += Duration::from_secs(600);
    let changes = expired(&mut network);
    network.try_change(1, changes).unwrap();
    assert_eq!(path(&mut network).limit(), Some(1450));
    network.send(1, ports[0], &to(2, 1400));
    assert_eq!(network.sent.len(), 1);
    network.change(1, narrow(PathSource::Configured, None, Duration::ZERO));
    network.send(1, ports[0], &to(2, 1450));
    assert_eq!(network.sent.len(), 2);
}

#[test]
fn paths_are_those_of_vteps_that_are_named() {
    let (mut network, ports) = a_narrow_path(PathSource::Learned);
    let stranger = |source| Change::SetPathMtu {
        vtep: vtep(9),
        source,
        mtu: Some(1400),
        until: Duration::from_secs(9999),
    };
    assert!(network.try_change(1, [stranger(PathSource::Configured)]).is_err());
    network.change(1, stranger(PathSource::Learned));
    assert_eq!(network.node(1).tables.path_mtu(vtep(9)), None);
    for mtu in [67, 65_536] {
        let wrong = narrow(PathSource::Configured, Some(mtu), Duration::ZERO);
        assert!(network.try_change(1, [wrong]).is_err(), "{mtu}");
    }
    // A path goes with its VTEP; named again, nothing is known of it.
    let segment = bridge_id(1);
    network.change(1, Change::RemoveFdb { segment, mac: host(2).mac });
    network.change(1, Change::RemoveFlood { segment, vtep: vtep(2) });
    assert_eq!(network.node(1).tables.path_mtu(vtep(2)), None);
    let destination = vtep(2).into();
    network.change(1, Change::InsertFdb { segment, mac: host(2).mac, destination });
    network.send(1, ports[0], &to(2, 1450));
    assert_eq!(network.sent.len(), 1);
}

/// A segment that gets a VTEP later has its path, too.
#[test]
fn a_path_is_one_for_all_segments() {
    let (mut network, _) = a_narrow_path(PathSource::Learned);
    let port = network.add_segment(1, bridge(2), false);
    let (segment, mac) = (bridge_id(2), host(2).mac);
    network.change(1, Change::InsertFdb { segment, mac, destination: vtep(2).into() });
    network.send(1, port, &to(2, 1351));
    assert_eq!(network.sent.len(), 0);
    assert_eq!(network.frames(1, port).len(), 1);
}

/// A first segment of a TCP connection that says it takes segments of 1460 bytes.
fn syn(from: Host, to: Host, mss: u16, tags: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(from.mac.0, to.mac.0)
        .ipv4(from.ip.octets(), to.ip.octets(), 64)
        .tcp(5000, 6000, 1000, 4096)
        .syn()
        .options(&[
            etherparse::TcpOptionElement::Noop,
            etherparse::TcpOptionElement::MaximumSegmentSize(mss),
        ])
        .unwrap()
        .write(&mut frame, &[])
        .unwrap();
    frame.splice(12..12, tags.iter().copied());
    frame
}

#[test]
fn row_19_connections_are_opened_with_what_the_path_takes() {
    let clamped = |clamp_mss| bridge_with(1, |segment| segment.mtu_options.clamp_mss = clamp_mss);
    for (clamp, mss) in [
        (MssClamp::Off, 1460),
        (MssClamp::ToMtu, 1410),
        (MssClamp::To(1000), 1000),
        (MssClamp::To(1460), 1410),
    ] {
        for tags in [&[][..], &[0x81, 0, 0, 5]] {
            // One end clamps, in both directions; nobody knows where host 2 is, at first.
            let (mut network, ports) = Network::mesh(2, &bridge(1), false);
            let (segment, vtep) = (bridge_id(1), vtep(2));
            network.change(1, Change::RemoveSegment(segment));
            let port = network.add_segment(1, clamped(clamp), false);
            network.change(1, Change::AddFlood { segment, vtep });
            network.send(1, port, &syn(host(1), host(2), 1460, tags));
            assert_eq!(network.frames(2, ports[1]), [syn(host(1), host(2), mss, tags)]);
            network.send(2, ports[1], &syn(host(2), host(1), 1460, tags));
            assert_eq!(network.frames(1, port), [syn(host(2), host(1), mss, tags)]);
            network.send(1, port, &syn(host(1), host(2), 500, tags));
            assert_eq!(network.frames(2, ports[1]), [syn(host(1), host(2), 500, tags)]);
        }
    }
}

#[test]
fn row_19_connections_over_a_narrow_path_are_opened_with_less() {
    let segment = bridge_with(1, |segment| segment.mtu_options.clamp_mss = MssClamp::ToMtu);
    let (mut network, ports) = two_nodes(&segment);
    network.change(1, narrow(PathSource::Configured, Some(1400), Duration::ZERO));
    network.send(1, ports[0], &syn(host(1), host(2), 1460, &[]));
    assert_eq!(network.frames(2, ports[1]), [syn(host(1), host(2), 1310, &[])]);
    // Whoever has a checksum left to finish has it finished over what is sent.
    let (frame, vnet) = unfinished(syn(host(1), host(2), 1460, &[]));
    network.send_unfinished(1, ports[0], &frame, vnet);
    assert_eq!(network.frames(2, ports[1]), [syn(host(1), host(2), 1310, &[])]);
}

#[test]
fn a_maximum_segment_size_below_the_least_is_refused() {
    let segment = bridge_with(1, |segment| segment.mtu_options.clamp_mss = MssClamp::To(47));
    assert!(Network::new(1).try_change(1, [Change::AddSegment(segment)]).is_err());
}
