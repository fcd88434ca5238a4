//! TAP ports of routed segments: the dataplane is the router that their hosts see.

use std::net::{IpAddr, Ipv4Addr};

use overplane::wire::{FrameInfo, VnetHeader};
use overplane::{
    Change, DropReason, Error, Gateway, MacAddr, NextHop, Offload, Offloads, PortId, PortOptions,
    Segment, SegmentId,
};

use crate::network::Network;
use crate::packets::*;

const UDP_PORT: u16 = 8285;
const GATEWAY: MacAddr = MacAddr([0xee; 6]);
/// What the gateway is called by default.
const V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const V6: &str = "fe80::ecee:eeff:feee:eeee";

fn id() -> SegmentId {
    Segment::routed(UDP_PORT).id()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn route(prefix: &str, next_hop: impl Into<NextHop>) -> Change {
    Change::InsertRoute {
        segment: id(),
        prefix: prefix.parse().unwrap(),
        next_hop: next_hop.into(),
    }
}

fn add_tap(network: &mut Network, n: u8, gateway: Gateway, offload: bool) -> PortId {
    let mut options = PortOptions::default();
    options.gateway = Some(gateway);
    let add = Change::AddPort { segment: id(), name: "tap".into(), offload, options };
    network.try_change(n, [add]).unwrap()[0]
}

/// Host 1 behind a TAP of node 1, which takes super-frames, and host 2 behind a TUN of node 2.
fn two_nodes(gateway: Gateway) -> (Network, PortId, PortId) {
    let mut network = Network::new(2);
    network.change(1, Change::AddSegment(Segment::routed(UDP_PORT)));
    let tap = add_tap(&mut network, 1, gateway, true);
    let tun = network.add_segment(2, Segment::routed(UDP_PORT), false);
    let vtep = |n| std::net::SocketAddr::new(underlay(n), UDP_PORT);
    for prefix in ["10.0.0.1/32", "fd00::1/128"] {
        network.change(1, route(prefix, tap));
        network.change(2, route(prefix, vtep(1)));
    }
    for prefix in ["10.0.0.2/32", "fd00::2/128"] {
        network.change(1, route(prefix, vtep(2)));
    }
    (network, tap, tun)
}

/// A packet of host 1 for the gateway, or one for host 1 from it.
fn framed(to: MacAddr, from: MacAddr, packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&to.0[..], &from.0, &ethertype, packet].concat()
}

#[test]
fn packets_cross_between_a_tap_and_a_tun() {
    let (mut network, tap, tun) = two_nodes(Gateway::default());
    for (here, there) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        network.send(1, tap, &framed(GATEWAY, host(1).mac, &ip_udp(here, there, 64, b"out")));
        assert_eq!(network.frames(2, tun), [ip_udp(here, there, 63, b"out")]);
        network.send(2, tun, &ip_udp(there, here, 64, b"back"));
        let back = framed(host(1).mac, GATEWAY, &ip_udp(there, here, 63, b"back"));
        assert_eq!(network.frames(1, tap), [back]);
    }
    // A hop limit of 255 alone does not make it neighbour discovery.
    let mut echo = Vec::new();
    etherparse::PacketBuilder::ipv6(
        [0xfd; 16],
        "fd00::2".parse::<std::net::Ipv6Addr>().unwrap().octets(),
        255,
    )
    .icmpv6_echo_request(1, 2)
    .write(&mut echo, b"data")
    .unwrap();
    network.send(1, tap, &framed(GATEWAY, host(1).mac, &echo));
    assert_eq!(network.frames(2, tun).len(), 1);
    let stats = network.stats(1);
    assert_eq!(stats.ports[0].traffic.received_bytes, 14 * 3 + 31 + 51 + echo.len() as u64);
}

#[test]
fn row_20_the_gateway_is_found_and_nobody_else() {
    let (mut network, tap, _) = two_nodes(Gateway::default());
    network.send(1, tap, &arp_request(host(1), V4));
    assert_eq!(network.frames(1, tap), [arp_reply(GATEWAY, V4, host(1).mac, host(1).ip)]);
    network.send(1, tap, &solicitation(host(1).mac, ip("fd00::1"), ip(V6)));
    let answer = network.frames(1, tap).remove(0);
    assert_eq!((answer[54], answer[58]), (136, 0xe0), "it is a router");
    assert_eq!(answer[80..86], GATEWAY.0);
    // Also when it is asked whether it is still there.
    let mut unicast = arp_request(host(1), V4);
    unicast[..6].copy_from_slice(&GATEWAY.0);
    network.send(1, tap, &unicast);
    assert_eq!(network.frames(1, tap).len(), 1);
    let quiet = [
        arp_request(host(1), host(2).ip),
        arp_request(host(1), host(1).ip),
        arp_request(Host { ip: Ipv4Addr::UNSPECIFIED, ..host(1) }, V4),
        solicitation(host(1).mac, ip("::"), ip(V6)),
        solicitation(host(1).mac, ip("fd00::1"), ip("fd00::2")),
        advertisement(host(1).mac, ip("fd00::1"), false),
        framed(
            MacAddr([0x33, 0x33, 0, 0, 0, 2]),
            host(1).mac,
            &ip_udp("fe80::1", "ff02::2", 1, b""),
        ),
    ];
    for (n, frame) in quiet.iter().enumerate() {
        network.send(1, tap, frame);
        assert!(network.frames(1, tap).is_empty() && network.sent.is_empty(), "{n}");
        assert_eq!(network.drops(1, DropReason::NoDestination), n as u64 + 1);
    }
    assert_eq!(network.stats(1).totals.answered, 3);
}

#[test]
fn row_20_all_addresses_are_answered_but_the_hosts_own_and_probes() {
    let mut gateway = Gateway::default();
    gateway.answer_all = true;
    let (mut network, tap, _) = two_nodes(gateway);
    for target in [host(2).ip, V4, Ipv4Addr::new(192, 0, 2, 99)] {
        network.send(1, tap, &arp_request(host(1), target));
        assert_eq!(network.frames(1, tap), [arp_reply(GATEWAY, target, host(1).mac, host(1).ip)]);
    }
    network.send(1, tap, &solicitation(host(1).mac, ip("fd00::1"), ip("fd00::2")));
    assert_eq!(network.frames(1, tap).len(), 1);
    let own = Host { ip: Ipv4Addr::new(10, 9, 9, 9), ..host(1) };
    for frame in [
        arp_request(own, host(1).ip),
        solicitation(host(1).mac, ip("fd00::99"), ip("fd00::1")),
        arp_request(Host { ip: Ipv4Addr::UNSPECIFIED, ..host(1) }, host(2).ip),
        solicitation(host(1).mac, ip("::"), ip("fd00::2")),
    ] {
        network.send(1, tap, &frame);
        assert!(network.frames(1, tap).is_empty(), "{frame:02x?}");
    }
}

#[test]
fn a_host_that_has_said_nothing_is_asked() {
    let (mut network, tap, tun) = two_nodes(Gateway::default());
    network.send(2, tun, &ip_udp("10.0.0.2", "10.0.0.1", 64, b"lost"));
    let gateway = Host { mac: GATEWAY, ip: V4 };
    assert_eq!(network.frames(1, tap), [arp_request(gateway, host(1).ip)]);
    network.send(2, tun, &ip_udp("fd00::2", "fd00::1", 64, b"lost"));
    let question = solicitation(GATEWAY, ip(V6), ip("fd00::1"));
    assert_eq!(network.frames(1, tap), [question]);
    assert_eq!(network.drops(1, DropReason::Unresolved), 2);
    network.send(1, tap, &arp_reply(host(1).mac, host(1).ip, GATEWAY, V4));
    network.send(2, tun, &ip_udp("10.0.0.2", "10.0.0.1", 64, b"found"));
    assert_eq!(network.frames(1, tap).len(), 1);
    // Nobody is asked without an end.
    let mut given = Gateway::default();
    given.host = Some(host(7).mac);
    let mut options = PortOptions::default();
    options.gateway = Some(Gateway::default());
    network.change(1, Change::SetPort { port: tap, options: options.clone() });
    options.gateway = Some(given);
    network.change(1, Change::SetPort { port: tap, options });
    network.send(1, tap, &arp_reply(host(1).mac, host(1).ip, GATEWAY, V4));
    network.send(2, tun, &ip_udp("10.0.0.2", "10.0.0.1", 64, b"given"));
    assert_eq!(network.frames(1, tap)[0][..6], host(7).mac.0);
}

#[test]
fn questions_to_a_silent_host_are_limited() {
    let (mut network, tap, tun) = two_nodes(Gateway::default());
    for _ in 0..200 {
        network.send(2, tun, &ip_udp("10.0.0.2", "10.0.0.1", 64, b"lost"));
    }
    assert_eq!(network.drops(1, DropReason::Unresolved), 200);
    assert_eq!(network.frames(1, tap).len(), 50);
}

#[test]
fn frames_that_are_no_packets_for_the_gateway_are_dropped_with_a_reason() {
    let (mut network, tap, _) = two_nodes(Gateway::default());
    let packet = ip_udp("10.0.0.1", "10.0.0.2", 64, b"data");
    let mut other_type = framed(GATEWAY, host(1).mac, &packet);
    other_type[12..14].copy_from_slice(&[0x88, 0xcc]);
    for (frame, reason) in [
        (framed(host(2).mac, host(1).mac, &packet), DropReason::OtherMac),
        (framed(GATEWAY, GATEWAY, &packet), DropReason::InvalidSource),
        (framed(GATEWAY, MacAddr::BROADCAST, &packet), DropReason::InvalidSource),
        (other_type, DropReason::NotIp),
        (packet[..13].to_vec(), DropReason::Truncated),
        (framed(GATEWAY, host(1).mac, &packet[..10]), DropReason::Truncated),
        (framed(MacAddr::BROADCAST, host(1).mac, &packet), DropReason::NoDestination),
        (
            framed(GATEWAY, host(1).mac, &ip_udp("10.0.0.1", "10.0.0.1", 64, b"")),
            DropReason::SamePort,
        ),
    ] {
        let before = network.drops(1, reason);
        network.send(1, tap, &frame);
        assert_eq!(network.drops(1, reason), before + 1, "{reason}");
    }
    assert!(network.frames(1, tap).is_empty() && network.sent.is_empty());
}

#[test]
fn errors_arrive_in_frames() {
    let (mut network, tap, _) = two_nodes(Gateway::default());
    for (here, there) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        network.send(1, tap, &framed(GATEWAY, host(1).mac, &ip_udp(here, there, 1, b"expired")));
        let answer = network.frames(1, tap).remove(0);
        assert_eq!(answer[..12], [host(1).mac.0, GATEWAY.0].concat());
        let info = FrameInfo::parse(&answer).unwrap();
        assert_eq!(info.addresses(&answer), Some((ip(there), ip(here))));
    }
}

/// Super-frames and unfinished checksums from and to a TAP, whose vnet headers count the Ethernet header.
#[test]
fn a_taps_offloads_count_its_ethernet_header() {
    let (mut network, tap, tun) = two_nodes(Gateway::default());
    let gateway = Host { mac: GATEWAY, ..host(2) };
    let payload: Vec<u8> = (0..5000).map(|n| n as u8).collect();
    let (frame, vnet) = tcp_super_frame(host(1), gateway, &payload, 1400);
    network.send_unfinished(1, tap, &frame, vnet);
    let chunks = network.frames(2, tun);
    assert_eq!(chunks.len(), 4);
    let carried: Vec<u8> = chunks.iter().flat_map(|chunk| chunk[40..].to_vec()).collect();
    assert_eq!(carried, payload);

    // A kernel peer's super-frame, and one that is made of what arrived one by one.
    let (whole, vnet) = tcp_super_frame(host(2), host(1), &payload, 1432);
    network.arrive(1, underlay(2), UDP_PORT, &whole[14..]);
    let mut expected = whole.clone();
    expected[..12].copy_from_slice(&[host(1).mac.0, GATEWAY.0].concat());
    let received = network.received(1, tap).remove(0);
    assert_eq!((received.bytes, received.vnet), (expected, vnet));
}

#[test]
fn joined_packets_get_one_header() {
    let mut tables = overplane::Tables::new(underlay(1), 1).unwrap();
    let mut options = PortOptions::default();
    let mut gateway = Gateway::default();
    gateway.host = Some(host(1).mac);
    options.gateway = Some(gateway);
    let add = Change::AddPort { segment: id(), name: "tap".into(), offload: true, options };
    let vtep = std::net::SocketAddr::new(underlay(2), UDP_PORT);
    let peer = Change::AddPeer { segment: id(), vtep };
    let now = std::time::Duration::from_secs(1);
    tables.apply(now, [Change::AddSegment(Segment::routed(UDP_PORT)), add, peer]).unwrap();
    let mut forwarder = overplane::Forwarder::new(0);
    forwarder.set_offloads(Offloads::NONE.with(Offload::CoalesceUdp));
    let (mut batch, mut output) = (overplane::Batch::new(4), overplane::Output::new());
    let packet = udp(host(2), host(1), &[7; 100])[14..].to_vec();
    // As one train, in which there is no room in front of a packet.
    let train = packet.repeat(3);
    batch.next_slot(0).unwrap()[..train.len()].copy_from_slice(&train);
    assert!(batch.commit_train(train.len(), packet.len(), vtep));
    forwarder.from_underlay(&tables, now, UDP_PORT, &mut batch, &mut output);
    let [deliver] = output.delivers() else { panic!("{:?}", output.delivers()) };
    assert_eq!(deliver.frames, 3);
    let bytes: Vec<u8> = output.frame(&batch, deliver).flatten().copied().collect();
    assert_eq!(bytes[..14], framed(host(1).mac, GATEWAY, &packet)[..14]);
    let info = FrameInfo::parse(&bytes).unwrap();
    assert_eq!((info.ip_end as usize, bytes.len()), (bytes.len(), 14 + 28 + 300));
    let vnet = VnetHeader { gso_size: 100, ..deliver.vnet };
    assert_eq!((vnet, vnet.csum_start, vnet.hdr_len), (deliver.vnet, 34, 42));
    forwarder.delivered(&tables, deliver, bytes.len());
    assert!(tables.stats().totals.is_conserved());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (mut network, tap, tun) = two_nodes(Gateway::default());
    let options = |gateway: Option<Gateway>| {
        let mut options = PortOptions::default();
        options.gateway = gateway;
        options
    };
    let set = |port, gateway| Change::SetPort { port, options: options(gateway) };
    let refused = network.try_change(1, [set(tap, None)]);
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    let refused = network.try_change(2, [set(tun, Some(Gateway::default()))]);
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    let mut wrong = Gateway::default();
    wrong.mac = MacAddr::BROADCAST;
    assert!(matches!(network.try_change(1, [set(tap, Some(wrong))]), Err(Error::Invalid { .. })));
    let mut wrong = Gateway::default();
    wrong.addresses = vec![ip("224.0.0.1")];
    assert!(matches!(network.try_change(1, [set(tap, Some(wrong))]), Err(Error::Invalid { .. })));
    let mut wrong = Gateway::default();
    wrong.addresses = vec![ip("10.0.0.9"); 17];
    assert!(matches!(network.try_change(1, [set(tap, Some(wrong))]), Err(Error::Limit { .. })));
    let bridged = network.add_segment(1, bridge(1), false);
    let refused = network.try_change(1, [set(bridged, Some(Gateway::default()))]);
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
}
