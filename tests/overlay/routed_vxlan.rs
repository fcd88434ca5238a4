//! Routed segments in VXLAN: IP packets by prefix, in Ethernet frames between VTEPs whose MAC addresses are given.

use std::net::SocketAddr;

use overplane::wire::{VnetHeader, vxlan};
use overplane::{
    Change, DropReason, Error, GroupId, MacAddr, Member, NextHop, PortId, Segment, SegmentId,
};

use crate::network::Network;
use crate::packets::*;

/// MAC address of the VTEP of node `n`.
const fn vtep_mac(n: u8) -> MacAddr {
    MacAddr([0x0e, 0x2a, 0, 0, 0, n])
}

fn segment(n: u8) -> Segment {
    Segment::routed_vxlan(vni(7), vtep_mac(n))
}

fn id() -> SegmentId {
    segment(1).id()
}

fn route(prefix: &str, next_hop: impl Into<NextHop>) -> Change {
    Change::InsertRoute {
        segment: id(),
        prefix: prefix.parse().unwrap(),
        next_hop: next_hop.into(),
    }
}

fn set_mac(n: u8) -> Change {
    Change::SetVtepMac { segment: id(), vtep: vtep(n), mac: vtep_mac(n) }
}

/// Three nodes, of which node `n` has 10.7.n.0/24 and fd00:n::/32 behind its one port.
fn three_nodes(offload: bool) -> (Network, Vec<PortId>) {
    let mut network = Network::new(3);
    let ports = (1..=3).map(|n| network.add_segment(n, segment(n), offload)).collect();
    for n in 1..=3 {
        for other in (1..=3).filter(|other| *other != n) {
            network.change(n, set_mac(other));
            network.change(n, route(&format!("10.7.{other}.0/24"), vtep(other)));
            network.change(n, route(&format!("fd00:{other}::/32"), vtep(other)));
        }
    }
    (network, ports)
}

/// A packet in a frame.
fn framed(to: MacAddr, from: MacAddr, packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&to.0[..], &from.0, &ethertype, packet].concat()
}

#[test]
fn a_packet_is_framed_from_vtep_to_vtep_and_loses_one_hop() {
    let (mut network, ports) = three_nodes(false);
    for (from, to, node) in
        [("10.7.1.1", "10.7.2.1", 2), ("10.7.1.1", "10.7.3.9", 3), ("fd00:1::1", "fd00:2::1", 2)]
    {
        network.sent.clear();
        network.send(1, ports[0], &ip_udp(from, to, 64, b"data"));
        let packet = ip_udp(from, to, 63, b"data");
        assert_eq!(network.frames(node, ports[usize::from(node) - 1]), [packet.as_slice()]);
        let frame = framed(vtep_mac(node), vtep_mac(1), &packet);
        assert_eq!(network.sent[0].bytes, vxlan(vni(7), &frame));
        assert_eq!(network.sent[0].to, vtep(node));
    }
    let ports = [1, 2].map(|n| {
        network.sent.clear();
        network.send(1, ports[0], &ip_udp("10.7.1.1", &format!("10.7.2.{n}"), 64, b"data"));
        network.sent[0].from.port()
    });
    assert_ne!(ports[0], ports[1], "the source port is of the flow");
}

#[test]
fn it_shares_a_udp_port_with_bridge_segments_and_nothing_else() {
    let (mut network, ports) = three_nodes(false);
    let bridged = network.add_segment(2, bridge(8), false);
    network.change(2, Change::AddPeer { segment: bridge_id(8), vtep: vtep(1) });
    let packet = ip_udp("10.7.1.1", "10.7.2.1", 63, b"data");
    let routed = vxlan(vni(7), &framed(vtep_mac(2), vtep_mac(1), &packet));
    let frame = udp(host(1), EVERYBODY, b"flooded");
    let flooded = vxlan(vni(8), &frame);
    for datagram in [&routed, &flooded, &flooded, &routed, &routed, &flooded] {
        network.arrive(2, underlay(1), vxlan::PORT, datagram);
    }
    assert_eq!(network.frames(2, ports[1]), [&*packet, &packet, &packet]);
    assert_eq!(network.frames(2, bridged), [&*frame, &frame, &frame]);
    let stats = network.stats(2);
    let of = |segment| stats.segments.iter().find(|stats| stats.id == segment).unwrap().traffic;
    assert_eq!(of(id()).received_packets, 3);
    assert_eq!(of(id()).received_bytes, 3 * (14 + packet.len() as u64));
    assert_eq!(of(bridge_id(8)).received_packets, 3);
    assert_eq!(stats.vteps[0].traffic.received_packets, 6);
}

#[test]
fn what_is_not_an_ip_packet_for_this_vtep_is_dropped_with_its_reason() {
    let (mut network, ports) = three_nodes(false);
    let packet = ip_udp("10.7.1.1", "10.7.2.1", 63, b"data");
    let (here, there) = (vtep_mac(2), vtep_mac(1));
    let good = framed(here, there, &packet);
    let mut arp = good.clone();
    arp[12..14].copy_from_slice(&[8, 6]);
    let mut wrong_version = good.clone();
    wrong_version[12..14].copy_from_slice(&[0x86, 0xdd]);
    let cases = [
        (framed(vtep_mac(3), there, &packet), DropReason::OtherMac),
        (framed(MacAddr::BROADCAST, there, &packet), DropReason::OtherMac),
        (framed(here, MacAddr([3, 0, 0, 0, 0, 1]), &packet), DropReason::InvalidSource),
        (framed(here, MacAddr::ZERO, &packet), DropReason::InvalidSource),
        (framed(here, here, &packet), DropReason::InvalidSource),
        (arp, DropReason::NotIp),
        (wrong_version, DropReason::NotIp),
        (good[..14].to_vec(), DropReason::NotIp),
        (good[..13].to_vec(), DropReason::Truncated),
        (Vec::new(), DropReason::Truncated),
        (good[..30].to_vec(), DropReason::Truncated),
    ];
    for (frame, reason) in cases {
        let before = network.drops(2, reason);
        network.arrive(2, underlay(1), vxlan::PORT, &vxlan(vni(7), &frame));
        assert_eq!(network.drops(2, reason), before + 1, "{reason} {frame:02x?}");
    }
    network.arrive(2, underlay(77), vxlan::PORT, &vxlan(vni(7), &good));
    assert_eq!(network.drops(2, DropReason::UnknownVtep), 1);
    assert!(network.frames(2, ports[1]).is_empty());
    network.arrive(2, underlay(1), vxlan::PORT, &vxlan(vni(7), &good));
    assert_eq!(network.frames(2, ports[1]), [packet]);
}

#[test]
fn a_vtep_without_a_mac_address_gets_nothing_until_it_has_one() {
    let (mut network, ports) = three_nodes(false);
    let segment = id();
    network.change(1, Change::RemoveVtepMac { segment, vtep: vtep(2) });
    let packet = ip_udp("10.7.1.1", "10.7.2.1", 64, b"data");
    network.send(1, ports[0], &packet);
    assert_eq!(network.drops(1, DropReason::NoVtepMac), 1);
    assert!(network.sent.is_empty() && network.frames(1, ports[0]).is_empty(), "nobody is told");
    let mac = vtep_mac(9);
    network.change(1, Change::SetVtepMac { segment, vtep: vtep(2), mac });
    network.send(1, ports[0], &packet);
    assert_eq!(network.sent[0].bytes[8..14], mac.0);
    let listed = network.node(1).tables.vtep_macs(segment).unwrap();
    assert_eq!(listed, [(vtep(2), mac), (vtep(3), vtep_mac(3))]);
}

#[test]
fn a_mac_address_names_its_vtep_as_a_route_does() {
    let mut network = Network::new(1);
    let segment = id();
    network.add_segment(1, self::segment(1), false);
    let peers = |network: &mut Network| network.node(1).tables.segments()[0].peers.clone();
    network.change(1, set_mac(2));
    network.change(1, set_mac(2));
    assert_eq!(peers(&mut network), [vtep(2)]);
    network.change(1, Change::RemoveVtepMac { segment, vtep: vtep(2) });
    assert!(peers(&mut network).is_empty() && network.stats(1).vteps.is_empty());
    let refused = network.try_change(1, [Change::RemoveVtepMac { segment, vtep: vtep(2) }]);
    assert!(matches!(refused, Err(Error::NotFound { .. })), "{refused:?}");

    let set = |vtep, mac| Change::SetVtepMac { segment, vtep, mac };
    let refused = network.try_change(1, [set(vtep(2), vtep_mac(1))]);
    assert!(matches!(refused, Err(Error::Conflict { .. })), "its own: {refused:?}");
    let refused = network.try_change(1, [set(vtep(2), MacAddr::BROADCAST)]);
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    network.add_segment(1, bridge(8), false);
    let mac = vtep_mac(2);
    let refused =
        network.try_change(1, [Change::SetVtepMac { segment: bridge_id(8), vtep: vtep(2), mac }]);
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    for mac in [MacAddr::ZERO, MacAddr([1, 0, 0, 0, 0, 1])] {
        let segment = Segment::routed_vxlan(vni(9), mac);
        let refused = network.try_change(1, [Change::AddSegment(segment)]);
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    }
}

/// A handle that is used again must not find the address of the VTEP that had it before.
#[test]
fn a_vtep_that_takes_the_place_of_another_has_no_mac_address() {
    let mut network = Network::new(1);
    let port = network.add_segment(1, segment(1), false);
    network.change(1, set_mac(2));
    network.change(1, Change::RemoveVtepMac { segment: id(), vtep: vtep(2) });
    network.change(1, route("10.7.3.0/24", vtep(3)));
    network.send(1, port, &ip_udp("10.7.1.1", "10.7.3.1", 64, b"data"));
    assert_eq!(network.drops(1, DropReason::NoVtepMac), 1);
}

#[test]
fn members_of_a_group_have_a_mac_address_each() {
    let (mut network, ports) = three_nodes(false);
    let members = vec![Member::new(vtep(2), 1), Member::new(vtep(3), 1)];
    network.change(1, Change::SetGroup { segment: id(), group: GroupId(1), members });
    network.change(1, route("10.8.0.0/16", GroupId(1)));
    for n in 0..32 {
        network.send(1, ports[0], &ip_udp("10.7.1.1", &format!("10.8.0.{n}"), 64, b"data"));
    }
    let mut counts = [0, 0];
    for datagram in &network.sent {
        let node = if datagram.to == vtep(2) { 2 } else { 3 };
        assert_eq!(datagram.bytes[8..14], vtep_mac(node).0);
        counts[usize::from(node) - 2] += 1;
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// Without the Ethernet header that frames of a TAP have.
fn of_a_tun((frame, vnet): (Vec<u8>, VnetHeader)) -> (Vec<u8>, VnetHeader) {
    let (hdr_len, csum_start) = (vnet.hdr_len.saturating_sub(14), vnet.csum_start - 14);
    (frame[14..].to_vec(), VnetHeader { hdr_len, csum_start, ..vnet })
}

#[test]
fn super_frames_and_unfinished_checksums_leave_as_finished_frames() {
    let (mut network, ports) = three_nodes(false);
    network.change(1, route("10.0.0.2/32", vtep(2)));
    let payload: Vec<u8> = (0..10_000).map(|n| n as u8).collect();
    let (packet, vnet) = of_a_tun(tcp_super_frame(host(1), host(2), &payload, 1400));
    network.send_unfinished(1, ports[0], &packet, vnet);
    assert_eq!(network.sent.len(), 8);
    let mut joined = Vec::new();
    for chunk in network.frames(2, ports[1]) {
        let parsed = etherparse::SlicedPacket::from_ip(&chunk).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = parsed.transport else { panic!("no TCP") };
        joined.extend_from_slice(tcp.payload());
    }
    assert_eq!(joined, payload);
    for datagram in &network.sent {
        assert_eq!(datagram.bytes[8..20], [vtep_mac(2).0, vtep_mac(1).0].concat());
        assert!(datagram.bytes.len() <= 1450 + 14 + 8);
    }
    let whole = udp(host(1), host(2), b"odd");
    let (packet, vnet) = of_a_tun(unfinished(whole.clone()));
    network.send_unfinished(1, ports[0], &packet, vnet);
    let mut expected = whole[14..].to_vec();
    overplane::wire::ip::decrement_ttl_v4(&mut expected);
    assert_eq!(network.frames(2, ports[1]), [expected]);
}

/// An error quotes the packet as the sender sent it, not the frame that it was put in.
#[test]
fn a_super_frame_that_cannot_be_cut_small_enough_is_answered() {
    let (mut network, ports) = three_nodes(false);
    network.change(1, route("10.0.0.2/32", vtep(2)));
    let (mut packet, vnet) = of_a_tun(udp_super_frame(host(1), host(2), &[7; 4000], 2000));
    packet[6] |= 0x40;
    let check = overplane::wire::ip::v4_header_checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    network.send_unfinished(1, ports[0], &packet, vnet);
    assert_eq!(network.drops(1, DropReason::TooBig), 1);
    let answers = network.frames(1, ports[0]);
    let quoted = &answers[0][28..];
    assert_eq!(quoted[12..], packet[12..quoted.len()], "behind TTL and checksum");
}

/// A peer on a veth pair leaves checksums and super-frames unfinished: the device gets them so.
#[test]
fn a_kernel_peers_super_frames_are_handed_on_whole() {
    let (mut network, ports) = three_nodes(true);
    let (packet, vnet) = of_a_tun(tcp_super_frame(host(1), host(2), &[7; 9000], 1410));
    let frame = framed(vtep_mac(2), vtep_mac(1), &packet);
    network.arrive(2, underlay(1), vxlan::PORT, &vxlan(vni(7), &frame));
    let received = network.received(2, ports[1]);
    assert_eq!((&received[0].bytes, received[0].vnet), (&packet, vnet));
}

#[test]
fn an_open_segment_discovers_its_senders() {
    let mut network = Network::new(1);
    let mut open = segment(1);
    open.open = true;
    let port = network.add_segment(1, open, false);
    let packet = ip_udp("10.7.2.1", "10.7.1.1", 63, b"data");
    let datagram = vxlan(vni(7), &framed(vtep_mac(1), vtep_mac(2), &packet));
    network.arrive(1, underlay(2), vxlan::PORT, &datagram);
    assert_eq!(network.frames(1, port), [packet]);
    let peers: Vec<SocketAddr> = network.node(1).tables.segments()[0].peers.clone();
    assert_eq!(peers, [vtep(2)]);
}
