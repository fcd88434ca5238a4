//! What routes can lead to: shared flows, nowhere with and without a word, and this node itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use etherparse::PacketBuilder;
use overplane::wire::VnetHeader;
use overplane::{Change, DropReason, GroupId, Member, NextHop, PortId, Segment, SegmentId};

use crate::network::Network;
use crate::packets::*;

const UDP_PORT: u16 = 8285;
const GROUP: GroupId = GroupId(7);
const FLOWS: u16 = 1000;

fn segment() -> SegmentId {
    Segment::routed(UDP_PORT).id()
}

fn peer(n: u8) -> SocketAddr {
    SocketAddr::new(underlay(n), UDP_PORT)
}

fn route(prefix: &str, next_hop: impl Into<NextHop>) -> Change {
    let prefix = prefix.parse().unwrap();
    Change::InsertRoute { segment: segment(), prefix, next_hop: next_hop.into() }
}

fn group(members: &[(u8, u16)]) -> Change {
    let members = members.iter().map(|(n, weight)| Member::new(peer(*n), *weight)).collect();
    Change::SetGroup { segment: segment(), group: GROUP, members }
}

/// One node with a port, of which all others are peers.
fn node() -> (Network, PortId) {
    let mut network = Network::new(1);
    let port = network.add_segment(1, Segment::routed(UDP_PORT), false);
    (network, port)
}

fn packet(from: &str, to: &str, source_port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = match (from.parse().unwrap(), to.parse().unwrap()) {
        (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => {
            PacketBuilder::ipv4(from.octets(), to.octets(), 64)
        }
        (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => {
            PacketBuilder::ipv6(from.octets(), to.octets(), 64)
        }
        _ => panic!("two families"),
    };
    builder.udp(source_port, 6000).write(&mut packet, b"data").unwrap();
    packet
}

/// Sends one packet of each flow, in batches, and says to which peer each went.
fn destinations(network: &mut Network, port: PortId, to: &str) -> Vec<SocketAddr> {
    let from = if to.contains(':') { "fd00:1::1" } else { "10.7.1.1" };
    network.sent.clear();
    for first in (0..FLOWS).step_by(10) {
        let packets: Vec<_> = (first..first + 10).map(|n| packet(from, to, 1024 + n)).collect();
        let batch: Vec<_> = packets.iter().map(|p| (&p[..], VnetHeader::default())).collect();
        network.give(1, port, &batch);
    }
    network.run();
    assert_eq!(network.sent.len(), usize::from(FLOWS));
    network.sent.iter().map(|datagram| datagram.to).collect()
}

fn counts(destinations: &[SocketAddr]) -> BTreeMap<SocketAddr, usize> {
    let mut counts = BTreeMap::new();
    destinations.iter().for_each(|to| *counts.entry(*to).or_default() += 1);
    counts
}

#[test]
fn flows_are_shared_out_by_weight_and_each_keeps_its_way() {
    for to in ["10.7.2.9", "fd00:2::9"] {
        let (mut network, port) = node();
        network.change(1, group(&[(2, 1), (3, 3)]));
        let prefix = if to.contains(':') { "fd00::/16" } else { "10.7.0.0/16" };
        network.change(1, route(prefix, GROUP));
        let first = destinations(&mut network, port, to);
        let counts = counts(&first);
        let share = counts[&peer(3)] as f64 / f64::from(FLOWS);
        assert!((0.68..0.82).contains(&share), "{counts:?}");
        assert_eq!(destinations(&mut network, port, to), first);
        // Unrelated changes move nothing either.
        network.change(1, route("10.8.0.0/16", peer(4)));
        network.change(1, Change::AddPeer { segment: segment(), vtep: peer(5) });
        assert_eq!(destinations(&mut network, port, to), first);
    }
}

#[test]
fn a_member_that_goes_takes_only_its_own_flows_along() {
    let (mut network, port) = node();
    network.change(1, group(&[(2, 1), (3, 1), (4, 1)]));
    network.change(1, route("10.7.0.0/16", GROUP));
    let before = destinations(&mut network, port, "10.7.2.9");
    network.change(1, group(&[(2, 1), (4, 1)]));
    let after = destinations(&mut network, port, "10.7.2.9");
    for (before, after) in before.iter().zip(&after) {
        match *before == peer(3) {
            true => assert_ne!(*after, peer(3)),
            false => assert_eq!(before, after),
        }
    }
    let heirs: BTreeSet<_> = counts(&after).into_keys().collect();
    assert_eq!(heirs, [peer(2), peer(4)].into());
    // It comes back: nobody but it gains.
    network.change(1, group(&[(2, 1), (4, 1), (3, 1)]));
    let again = destinations(&mut network, port, "10.7.2.9");
    assert!(after.iter().zip(&again).all(|(old, new)| old == new || *new == peer(3)));
    assert!(counts(&again)[&peer(3)] > usize::from(FLOWS) / 5);
}

#[test]
fn all_fragments_of_a_packet_go_the_same_way() {
    let (mut network, port) = node();
    network.change(1, group(&(2..10).map(|n| (n, 1)).collect::<Vec<_>>()));
    network.change(1, route("10.7.0.0/16", GROUP));
    for n in 0..50 {
        network.sent.clear();
        for (more, offset) in [(true, 0), (true, 4), (false, 8)] {
            let mut fragment = packet("10.7.1.1", &format!("10.7.2.{n}"), 1000 + n);
            // Ports are in the first alone; what the others have there is payload.
            fragment[20] ^= offset;
            fragment[6..8].copy_from_slice(&[if more { 0x20 } else { 0 }, offset]);
            fragment[10..12].fill(0);
            let check = overplane::wire::ip::v4_header_checksum(&fragment[..20]);
            fragment[10..12].copy_from_slice(&check.to_be_bytes());
            network.send(1, port, &fragment);
        }
        let ways: BTreeSet<_> = network.sent.iter().map(|datagram| datagram.to).collect();
        assert_eq!((network.sent.len(), ways.len()), (3, 1));
    }
}

#[test]
fn a_port_can_be_a_member_and_takes_its_part() {
    let (mut network, port) = node();
    let other = network.add_port(1, segment(), false);
    let members = vec![Member::new(other, 1), Member::new(peer(2), 1)];
    network.change(1, Change::SetGroup { segment: segment(), group: GROUP, members });
    network.change(1, route("10.7.0.0/16", GROUP));
    for n in 0..100 {
        network.send(1, port, &packet("10.7.1.1", "10.7.2.2", 1024 + n));
    }
    let delivered = network.frames(1, other).len();
    assert!((30..70).contains(&delivered) && delivered + network.sent.len() == 100, "{delivered}");
    network.change(1, Change::RemovePort(other));
    network.sent.clear();
    for n in 0..100 {
        network.send(1, port, &packet("10.7.1.1", "10.7.2.2", 1024 + n));
    }
    assert_eq!(network.sent.len(), 100, "the other member has all of them");
}

#[test]
fn a_group_that_lost_its_members_is_unreachable() {
    let (mut network, port) = node();
    let other = network.add_port(1, segment(), false);
    let members = vec![Member::new(other, 1)];
    network.change(1, Change::SetGroup { segment: segment(), group: GROUP, members });
    network.change(1, route("10.7.0.0/16", GROUP));
    network.change(1, Change::RemovePort(other));
    network.send(1, port, &packet("10.7.1.1", "10.7.2.2", 1024));
    assert_eq!(network.drops(1, DropReason::Unreachable), 1);
    assert_eq!(network.frames(1, port).len(), 1, "the sender is told");
    network.change(1, group(&[(2, 1)]));
    network.send(1, port, &packet("10.7.1.1", "10.7.2.2", 1024));
    assert_eq!(network.sent.len(), 1);
}

#[test]
fn a_blackhole_says_nothing_and_unreachable_tells_the_sender() {
    let (mut network, port) = node();
    for prefix in ["10.7.0.0/16", "fd00::/16"] {
        network.change(1, route(prefix, peer(2)));
    }
    for prefix in ["10.7.66.0/24", "fd00:66::/32"] {
        network.change(1, route(prefix, NextHop::Blackhole));
    }
    for prefix in ["10.7.77.0/24", "fd00:77::/32"] {
        network.change(1, route(prefix, NextHop::Unreachable));
    }
    for (from, black, unreachable, icmp) in [
        ("10.7.1.1", "10.7.66.1", "10.7.77.1", (20, [3, 1])),
        ("fd00:1::1", "fd00:66::1", "fd00:77::1", (40, [1, 0])),
    ] {
        network.send(1, port, &packet(from, black, 1024));
        assert_eq!(network.frames(1, port), Vec::<Vec<u8>>::new());
        network.send(1, port, &packet(from, unreachable, 1024));
        let answers = network.frames(1, port);
        let (at, kind) = icmp;
        assert_eq!(answers[0][at..at + 2], kind, "type and code");
        assert_eq!(&answers[0][at + 8..], packet(from, unreachable, 1024), "what it is about");
    }
    assert_eq!(network.sent.len(), 0);
    let counted = [DropReason::Blackhole, DropReason::Unreachable].map(|why| network.drops(1, why));
    assert_eq!(counted, [2, 2]);
    // What comes from another node is dropped alike, and nobody is told.
    for to in ["10.7.66.1", "10.7.77.1"] {
        network.arrive(1, underlay(2), UDP_PORT, &packet("10.7.2.1", to, 1024));
    }
    let counted = [DropReason::Blackhole, DropReason::Unreachable].map(|why| network.drops(1, why));
    assert_eq!((counted, network.stats(1).totals.generated), ([3, 3], 2));
}

#[test]
fn answers_about_unreachable_destinations_are_limited() {
    let (mut network, port) = node();
    network.change(1, route("10.7.0.0/16", NextHop::Unreachable));
    for n in 0..200 {
        network.send(1, port, &packet("10.7.1.1", "10.7.2.2", 1024 + n));
    }
    let totals = network.stats(1).totals;
    assert_eq!((totals.generated, totals.answers_withheld), (50, 150));
}

#[test]
fn local_is_the_first_port_whenever_it_comes() {
    let mut network = Network::new(1);
    network.change(1, Change::AddSegment(Segment::routed(UDP_PORT)));
    network.change(1, route("10.7.1.0/24", NextHop::Local));
    network.change(1, route("10.7.2.0/24", peer(2)));
    let here = packet("10.7.2.2", "10.7.1.1", 1024);
    network.arrive(1, underlay(2), UDP_PORT, &here);
    assert_eq!(network.drops(1, DropReason::NoRoute), 1, "there is no host yet");
    let first = network.add_port(1, segment(), false);
    let second = network.add_port(1, segment(), false);
    network.arrive(1, underlay(2), UDP_PORT, &here);
    assert_eq!(network.frames(1, first)[0], here);
    network.send(1, second, &here);
    assert_eq!((network.frames(1, first).len(), network.frames(1, second).len()), (1, 0));
    network.send(1, first, &here);
    assert_eq!(network.drops(1, DropReason::SamePort), 1);
    network.change(1, Change::RemovePort(first));
    network.arrive(1, underlay(2), UDP_PORT, &here);
    assert_eq!(network.frames(1, second), [here]);
}
