//! Routed segments: longest prefix, TTL, and what ICMP tells the sender.

use std::net::SocketAddr;

use etherparse::{Icmpv4Type, Icmpv6Type, icmpv4, icmpv6};
use overplane::{Change, Destination, DropReason, NextHop, PortId, Segment, SegmentId};

use crate::answers::{TransportOf, answer, assert_limited_in_rate};
use crate::network::Network;
use crate::packets::*;

const UDP_PORT: u16 = 8285;

fn segment() -> SegmentId {
    Segment::routed(UDP_PORT).id()
}

fn peer(n: u8) -> SocketAddr {
    SocketAddr::new(underlay(n), UDP_PORT)
}

fn route(prefix: &str, next_hop: impl Into<NextHop>) -> Change {
    Change::InsertRoute {
        segment: segment(),
        prefix: prefix.parse().unwrap(),
        next_hop: next_hop.into(),
    }
}

/// Three nodes; node `n` owns 10.7.n.0/24 and fd00:n::/32 and is .254 in it.
fn three_nodes() -> (Network, Vec<PortId>) {
    let mut network = Network::new(3);
    let ports = (1..=3)
        .map(|n| {
            let mut segment = Segment::routed(UDP_PORT);
            segment.addresses = [format!("10.7.{n}.254"), format!("fd00:{n}::fe")]
                .map(|address| address.parse().unwrap())
                .into();
            network.add_segment(n, segment, false)
        })
        .collect::<Vec<PortId>>();
    for n in 1..=3 {
        for owner in 1..=3 {
            let at = match owner == n {
                true => ports[usize::from(n) - 1].into(),
                false => Destination::Vtep(peer(owner)),
            };
            network.change(n, route(&format!("10.7.{owner}.0/24"), at));
            network.change(n, route(&format!("fd00:{owner}::/32"), at));
        }
    }
    (network, ports)
}

#[test]
fn packets_go_to_the_node_with_the_longest_prefix_and_lose_one_hop() {
    let (mut network, ports) = three_nodes();
    network.change(1, route("10.7.2.77/32", peer(3)));
    for (from, to, node) in [
        ("10.7.1.1", "10.7.2.1", 2),
        ("10.7.1.1", "10.7.3.1", 3),
        ("10.7.1.1", "10.7.2.78", 2),
        ("fd00:1::1", "fd00:2::1", 2),
        ("fd00:1::1", "fd00:3::1", 3),
    ] {
        network.send(1, ports[0], &ip_udp(from, to, 64, b"data"));
        let received = network.frames(node, ports[usize::from(node) - 1]);
        assert_eq!(received, [ip_udp(from, to, 63, b"data")], "{to}");
        let datagram = network.sent.last().unwrap();
        assert_eq!(datagram.bytes, received[0], "bare, nothing in front");
        assert_eq!(datagram.from.port(), UDP_PORT, "flannel sends from its own port");
    }
    network.sent.clear();
    network.send(1, ports[0], &ip_udp("10.7.1.1", "10.7.2.77", 64, b"data"));
    assert_eq!(network.sent[0].to, peer(3), "the /32 wins");
    // To node 3 the address is node 2's, but the sender's word is that it is behind the one port there is.
    assert_eq!(network.frames(3, ports[2]).len(), 1);
    network.add_port(3, segment(), false);
    network.send(1, ports[0], &ip_udp("10.7.1.1", "10.7.2.77", 64, b"data"));
    assert_eq!(network.drops(3, DropReason::SplitHorizon), 1, "node 3 sends nothing on");
}

#[test]
fn a_packet_whose_ttl_runs_out_is_answered() {
    let (mut network, ports) = three_nodes();
    for ttl in [0, 1] {
        let packet = ip_udp("10.7.1.1", "10.7.2.1", ttl, b"traceroute");
        network.send(1, ports[0], &packet);
        let expected = TransportOf::V4(
            Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
            packet,
        );
        let answers = network.frames(1, ports[0]);
        assert_eq!(answer(&answers[0], "10.7.1.254", "10.7.1.1"), expected);
    }
    let packet = ip_udp("fd00:1::1", "fd00:2::1", 1, b"traceroute");
    network.send(1, ports[0], &packet);
    let expected = TransportOf::V6(
        Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
        packet,
    );
    let answers = network.frames(1, ports[0]);
    assert_eq!(answer(&answers[0], "fd00:1::fe", "fd00:1::1"), expected);
    assert_eq!(network.sent.len(), 0);
    assert_eq!(network.stats(1).totals.generated, 3);
}

#[test]
fn a_packet_without_a_route_is_answered() {
    let (mut network, ports) = three_nodes();
    let packet = ip_udp("10.7.1.1", "203.0.113.9", 64, b"?");
    network.send(1, ports[0], &packet);
    let unreachable = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Network);
    let answers = network.frames(1, ports[0]);
    let expected = TransportOf::V4(unreachable, packet);
    assert_eq!(answer(&answers[0], "10.7.1.254", "10.7.1.1"), expected);

    let packet = ip_udp("fd00:1::1", "2001:db8::9", 64, b"?");
    network.send(1, ports[0], &packet);
    let unreachable = Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::NoRoute);
    let answers = network.frames(1, ports[0]);
    let expected = TransportOf::V6(unreachable, packet);
    assert_eq!(answer(&answers[0], "fd00:1::fe", "fd00:1::1"), expected);
}

#[test]
fn a_packet_above_the_mtu_is_answered_with_the_mtu() {
    let (mut network, ports) = three_nodes();
    let mut packet = ip_udp("10.7.1.1", "10.7.2.1", 64, &[7; 1473 - 28]);
    assert_eq!(packet.len(), 1473);
    network.send(1, ports[0], &packet);
    let answers = network.frames(1, ports[0]);
    assert!(answers[0].len() <= 576, "RFC 1812: as much as fits into 576 bytes");
    let next_hop_mtu = 1472;
    let too_big =
        Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded {
            next_hop_mtu,
        });
    let expected = TransportOf::V4(too_big, packet[..548].to_vec());
    assert_eq!(answer(&answers[0], "10.7.1.254", "10.7.1.1"), expected);

    let long = ip_udp("fd00:1::1", "fd00:2::1", 64, &[7; 3000]);
    network.send(1, ports[0], &long);
    let answers = network.frames(1, ports[0]);
    assert!(answers[0].len() <= 1280);
    let expected = TransportOf::V6(Icmpv6Type::PacketTooBig { mtu: 1472 }, long[..1232].to_vec());
    assert_eq!(answer(&answers[0], "fd00:1::fe", "fd00:1::1"), expected);

    // Without "don't fragment" it is nobody's error.
    packet[6] &= !0x40;
    let check = overplane::wire::ip::v4_header_checksum(&packet);
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    network.send(1, ports[0], &packet);
    assert_eq!(network.frames(1, ports[0]).len(), 0);
    assert_eq!(network.drops(1, DropReason::TooBig), 3);
}

/// A bare ICMP packet of a type, to somewhere without a route.
fn icmp(kind: Icmpv4Type) -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4([10, 7, 1, 1], [203, 0, 113, 9], 64)
        .icmpv4(kind)
        .write(&mut packet, b"quote")
        .unwrap();
    packet
}

fn with_fragment(mut packet: Vec<u8>, field: u16) -> Vec<u8> {
    packet[6..8].copy_from_slice(&field.to_be_bytes());
    let check = overplane::wire::ip::v4_header_checksum(&packet);
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet
}

#[test]
fn nobody_is_told_what_must_not_be_told() {
    let (mut network, ports) = three_nodes();
    let time_exceeded = Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit);
    let echo = Icmpv4Type::EchoRequest(etherparse::IcmpEchoHeader { id: 1, seq: 1 });
    let lost = |from| ip_udp(from, "203.0.113.9", 64, b"");
    for (case, packet, answers) in [
        ("an ordinary packet", lost("10.7.1.1"), 1),
        ("a ping", icmp(echo), 1),
        ("an ICMP error", icmp(time_exceeded), 0),
        ("a first fragment", with_fragment(lost("10.7.1.1"), 0x2000), 1),
        ("a later fragment", with_fragment(lost("10.7.1.1"), 0x2010), 0),
        ("from a group", lost("224.0.0.5"), 0),
        ("from nobody", lost("0.0.0.0"), 0),
        ("from everybody", lost("255.255.255.255"), 0),
        ("from loopback", lost("127.0.0.1"), 0),
        ("to a group", ip_udp("10.7.1.1", "224.0.0.251", 64, b""), 0),
        ("to everybody", ip_udp("10.7.1.1", "255.255.255.255", 64, b""), 0),
        ("to an IPv6 group", ip_udp("fd00:1::1", "ff02::fb", 64, b""), 0),
        ("from an unspecified IPv6 address", ip_udp("::", "2001:db8::1", 64, b""), 0),
    ] {
        network.send(1, ports[0], &packet);
        assert_eq!(network.frames(1, ports[0]).len(), answers, "{case}");
    }
    let dropped = network.drops(1, DropReason::NoDestination);
    assert_eq!(dropped, 5, "what is to or from groups is not routed");
}

#[test]
fn what_comes_from_the_underlay_is_never_answered() {
    let (mut network, ports) = three_nodes();
    let second = network.add_port(1, segment(), false);
    network.arrive(1, underlay(2), UDP_PORT, &ip_udp("10.7.2.1", "203.0.113.9", 64, b""));
    assert_eq!(network.drops(1, DropReason::NoRoute), 1);
    network.arrive(1, underlay(2), UDP_PORT, &ip_udp("10.7.2.1", "10.7.1.1", 1, b"last hop"));
    assert_eq!(network.frames(1, ports[0]).len(), 1, "the node it leaves at is no further hop");
    network.arrive(1, underlay(9), UDP_PORT, &ip_udp("10.7.2.1", "10.7.1.1", 64, b""));
    assert_eq!(network.drops(1, DropReason::UnknownVtep), 1);
    let counted = network.stats(1).segments[0].traffic;
    assert_eq!(counted.received_packets, 2, "strangers are no part of the segment");
    assert_eq!(network.stats(1).totals.generated, 0);
    assert_eq!(network.frames(1, second).len(), 0);
}

#[test]
fn a_node_with_one_port_gives_it_what_has_no_route() {
    let mut network = Network::new(2);
    let port = network.add_segment(1, Segment::routed(UDP_PORT), false);
    network.change(1, Change::AddPeer { segment: segment(), vtep: peer(2) });
    let packet = ip_udp("10.7.2.1", "10.7.1.1", 64, b"flannel has no route to its own");
    network.arrive(1, underlay(2), UDP_PORT, &packet);
    assert_eq!(network.frames(1, port), [packet]);
}

#[test]
fn answers_are_limited_in_rate() {
    let (mut network, ports) = three_nodes();
    let packet = ip_udp("10.7.1.1", "203.0.113.9", 64, b"scan");
    assert_limited_in_rate(&mut network, ports[0], &packet);
}

#[test]
fn a_node_without_addresses_answers_in_the_name_of_the_destination() {
    let mut network = Network::new(1);
    let port = network.add_segment(1, Segment::routed(UDP_PORT), false);
    for (from, to) in [("10.7.1.1", "10.7.2.1"), ("fd00::1", "fd00::2")] {
        network.send(1, port, &ip_udp(from, to, 64, b""));
        answer(&network.frames(1, port)[0], to, from);
    }
}

/// A spoke sends everything to the hub by a default route, which covers its own addresses, too.
#[test]
fn a_default_route_to_the_hub_does_not_turn_away_what_comes_from_it() {
    let (mut network, ports) = three_nodes();
    network.change(1, route("0.0.0.0/0", peer(2)));
    let packet = ip_udp("198.51.100.1", "10.7.1.1", 63, b"from afar");
    network.arrive(1, underlay(2), UDP_PORT, &packet);
    assert_eq!(network.frames(1, ports[0]), [packet]);
}

#[test]
fn link_local_packets_stay_on_their_link() {
    let (mut network, ports) = three_nodes();
    network.change(1, route("::/0", peer(2)));
    for (from, to) in
        [("fe80::1", "2001:db8::1"), ("fd00:1::1", "fe80::2"), ("169.254.1.1", "10.7.2.1")]
    {
        let before = network.drops(1, DropReason::NoDestination);
        network.send(1, ports[0], &ip_udp(from, to, 64, b""));
        assert_eq!(network.drops(1, DropReason::NoDestination), before + 1, "{from} to {to}");
        assert_eq!(network.frames(1, ports[0]).len(), 0);
    }
    assert_eq!(network.sent.len(), 0);
}

#[test]
fn two_ports_of_one_node_route_to_each_other() {
    let (mut network, ports) = three_nodes();
    let second = network.add_port(1, segment(), false);
    network.change(1, route("10.7.1.128/25", second));
    network.send(1, ports[0], &ip_udp("10.7.1.1", "10.7.1.200", 64, b"hello"));
    assert_eq!(network.frames(1, second), [ip_udp("10.7.1.1", "10.7.1.200", 63, b"hello")]);
    network.send(1, second, &ip_udp("10.7.1.200", "10.7.1.201", 64, b"back"));
    assert_eq!(network.drops(1, DropReason::SamePort), 1);
    network.change(1, Change::RemovePort(second));
    network.send(1, ports[0], &ip_udp("10.7.1.1", "10.7.1.200", 64, b"gone"));
    assert_eq!(
        network.drops(1, DropReason::SamePort),
        2,
        "its route went with it: the /24 is left"
    );
}

#[test]
fn malformed_packets_are_dropped_by_name() {
    let (mut network, ports) = three_nodes();
    let good = ip_udp("10.7.1.1", "10.7.2.1", 64, b"data");
    let change = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet
    };
    for (packet, reason) in [
        (Vec::new(), DropReason::Truncated),
        (good[..19].to_vec(), DropReason::Truncated),
        (good[..25].to_vec(), DropReason::BadIpHeader),
        (change(0, 0x44), DropReason::BadIpHeader),
        (change(0, 0x55), DropReason::NotIp),
        (change(10, !good[10]), DropReason::BadIpHeader),
        (change(2, 0xff), DropReason::BadIpHeader),
    ] {
        let before = network.drops(1, reason);
        network.send(1, ports[0], &packet);
        assert_eq!(network.drops(1, reason), before + 1, "{reason} {packet:x?}");
    }
    assert_eq!(network.sent.len(), 0);
    assert_eq!(network.stats(1).totals.generated, 0);
}

#[test]
fn the_route_of_an_address_is_the_longest() {
    let (mut network, _) = three_nodes();
    let routes = ["0.0.0.0/0", "10.7.3.128/25", "10.7.3.129/32", "fd00:3::/64", "fd00:3::1/128"];
    for prefix in routes {
        network.change(1, route(prefix, NextHop::Blackhole));
    }
    let tables = &network.node(1).tables;
    let found = |address: &str| {
        let found = tables.route_to(segment(), address.parse().unwrap()).unwrap();
        found.map(|route| route.prefix.to_string())
    };
    for (address, prefix) in [
        ("192.0.2.1", Some("0.0.0.0/0")),
        ("10.7.3.1", Some("10.7.3.0/24")),
        ("10.7.3.128", Some("10.7.3.128/25")),
        ("10.7.3.129", Some("10.7.3.129/32")),
        ("fd00:3::1", Some("fd00:3::1/128")),
        ("fd00:3:0:1::1", Some("fd00:3::/32")),
        ("fd01::1", None),
    ] {
        assert_eq!(found(address).as_deref(), prefix, "{address}");
    }
    let listed: Vec<_> = tables.route_entries(segment()).unwrap().collect();
    assert_eq!(listed, tables.routes(segment()).unwrap());
    assert_eq!(listed.len(), 6 + routes.len());
}
