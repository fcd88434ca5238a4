//! ARP and ND suppression: what is answered in place of neighbours, and what is forwarded all the same.

use std::net::IpAddr;

use overplane::wire::vxlan;
use overplane::{Change, Destination, DropReason, Error, Event, MacAddr, Origin, PortId, Segment};

use crate::network::Network;
use crate::packets::*;

fn segment() -> Segment {
    bridge_with(1, |segment| segment.neighbours.suppress = true)
}

fn v6(n: u8) -> IpAddr {
    format!("fd00::{n}").parse().unwrap()
}

fn v4(n: u8) -> IpAddr {
    host(n).ip.into()
}

/// Two nodes, of which the first has two ports; only it answers. The ports of node 1, then that of node 2.
fn two_nodes() -> (Network, [PortId; 3]) {
    let mut network = Network::new(2);
    let here = network.add_segment(1, segment(), false);
    let beside = network.add_port(1, segment().id(), false);
    let there = network.add_segment(2, bridge(1), false);
    for (n, other) in [(1, 2), (2, 1)] {
        network.change(n, Change::AddFlood { segment: bridge_id(1), vtep: vtep(other) });
    }
    (network, [here, beside, there])
}

/// Forgets what the ports have got so far.
fn drain(network: &mut Network, ports: [PortId; 3]) {
    for (node, port) in [(1, ports[0]), (1, ports[1]), (2, ports[2])] {
        network.frames(node, port);
    }
    network.sent.clear();
}

/// What host 1 at the first port gets for an answer to a request, which nobody else is to see.
fn answer(network: &mut Network, ports: [PortId; 3], request: &[u8]) -> Vec<u8> {
    drain(network, ports);
    let before = network.stats(1).totals;
    network.send(1, ports[0], request);
    let after = network.stats(1).totals;
    assert_eq!((after.answered, after.generated), (before.answered + 1, before.generated + 1));
    assert_eq!(after.flooded, before.flooded);
    assert!(network.sent.is_empty() && network.frames(1, ports[1]).is_empty());
    let mut frames = network.frames(1, ports[0]);
    assert_eq!(frames.len(), 1);
    frames.remove(0)
}

/// Checks that a frame is forwarded to everybody as if nothing were answered.
fn is_flooded(network: &mut Network, ports: [PortId; 3], frame: &[u8]) {
    drain(network, ports);
    let answered = network.stats(1).totals.answered;
    network.send(1, ports[0], frame);
    assert_eq!(network.frames(2, ports[2]), [frame], "over the underlay");
    assert_eq!(network.frames(1, ports[1]), [frame], "at the other port");
    assert!(network.frames(1, ports[0]).is_empty());
    assert_eq!(network.stats(1).totals.answered, answered);
}

/// Host `n` behind node 2 says where its addresses are.
fn announce(network: &mut Network, ports: [PortId; 3], n: u8) {
    let host = host(n);
    network.send(2, ports[2], &arp_reply(host.mac, host.ip, EVERYBODY.mac, host.ip));
    network.send(2, ports[2], &advertisement(host.mac, v6(n), false));
}

#[test]
fn row_20_a_request_is_answered_once_its_answer_was_heard() {
    let (mut network, ports) = two_nodes();
    is_flooded(&mut network, ports, &arp_request(host(1), host(2).ip));
    is_flooded(&mut network, ports, &solicitation(host(1).mac, v6(1), v6(2)));
    // The neighbour's own answers, to host 1 alone, are what is learned from.
    network.send(2, ports[2], &arp_reply(host(2).mac, host(2).ip, host(1).mac, host(1).ip));
    network.send(2, ports[2], &advertisement(host(2).mac, v6(2), true));

    let arp = answer(&mut network, ports, &arp_request(host(1), host(2).ip));
    assert_eq!(arp, arp_reply(host(2).mac, host(2).ip, host(1).mac, host(1).ip));
    let nd = answer(&mut network, ports, &solicitation(host(1).mac, v6(1), v6(2)));
    assert_eq!((&nd[..6], &nd[6..12]), (&host(1).mac.0[..], &host(2).mac.0[..]));
    assert_eq!(
        (nd[54], nd[58]),
        (136, 0xe0),
        "an advertisement of a router, solicited, overriding"
    );
    assert_eq!(nd[62..78], "fd00::2".parse::<std::net::Ipv6Addr>().unwrap().octets());

    let listed =
        network.node(1).tables.neighbours(bridge_id(1), std::time::Duration::from_secs(1000));
    let listed: Vec<_> = listed.unwrap().iter().map(|it| (it.address, it.mac, it.origin)).collect();
    let learned = |address, n| (address, host(n).mac, Origin::Learned);
    assert_eq!(listed, [learned(v4(1), 1), learned(v4(2), 2), learned(v6(2), 2)]);
}

#[test]
fn row_20_probes_and_announcements_are_forwarded() {
    let (mut network, ports) = two_nodes();
    announce(&mut network, ports, 2);
    answer(&mut network, ports, &arp_request(host(1), host(2).ip));
    let nobody = std::net::Ipv4Addr::UNSPECIFIED;
    let probe = arp_request(Host { ip: nobody, ..host(1) }, host(2).ip);
    is_flooded(&mut network, ports, &probe);
    is_flooded(&mut network, ports, &solicitation(host(1).mac, "::".parse().unwrap(), v6(2)));
    is_flooded(&mut network, ports, &arp_request(host(1), host(1).ip));
    is_flooded(&mut network, ports, &advertisement(host(1).mac, v6(1), false));
    is_flooded(&mut network, ports, &arp_request(host(1), host(77).ip));
    is_flooded(&mut network, ports, &solicitation(host(1).mac, v6(1), v6(77)));
    // A tagged request may be of a network of its own.
    let mut tagged = arp_request(host(1), host(2).ip);
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    is_flooded(&mut network, ports, &tagged);
    // A host asks its neighbour itself whether it is still there.
    let mut unicast = arp_request(host(1), host(2).ip);
    unicast[..6].copy_from_slice(&host(2).mac.0);
    drain(&mut network, ports);
    network.send(1, ports[0], &unicast);
    assert_eq!(network.frames(2, ports[2]), [unicast]);
}

#[test]
fn row_20_nobody_is_told_of_what_is_behind_its_own_port_or_nowhere() {
    let (mut network, ports) = two_nodes();
    // Host 3 is behind the port that asks.
    network.send(1, ports[0], &arp_request(host(3), host(3).ip));
    network.send(1, ports[0], &advertisement(host(3).mac, v6(3), false));
    is_flooded(&mut network, ports, &arp_request(host(1), host(3).ip));
    is_flooded(&mut network, ports, &solicitation(host(1).mac, v6(1), v6(3)));
    // Host 4 is behind the other one.
    network.send(1, ports[1], &arp_request(host(4), host(4).ip));
    answer(&mut network, ports, &arp_request(host(1), host(4).ip));
    // Nobody knows any more where host 2 is.
    announce(&mut network, ports, 2);
    answer(&mut network, ports, &arp_request(host(1), host(2).ip));
    network.change(1, Change::RemoveFdb { segment: bridge_id(1), mac: host(2).mac });
    is_flooded(&mut network, ports, &arp_request(host(1), host(2).ip));
}

#[test]
fn row_20_a_neighbour_that_moves_or_falls_silent_is_followed() {
    let (mut network, ports) = two_nodes();
    announce(&mut network, ports, 2);
    // Its address is host 5's now.
    network.send(2, ports[2], &arp_reply(host(5).mac, host(2).ip, EVERYBODY.mac, host(2).ip));
    let arp = answer(&mut network, ports, &arp_request(host(1), host(2).ip));
    assert_eq!(arp[6..12], host(5).mac.0);
    // Somebody else asks from the IPv6 address: whether it is a router is not known.
    answer(&mut network, ports, &solicitation(host(1).mac, v6(1), v6(2)));
    network.send(2, ports[2], &solicitation(host(5).mac, v6(2), v6(9)));
    is_flooded(&mut network, ports, &solicitation(host(1).mac, v6(1), v6(2)));
    network.wait(299);
    network.send(2, ports[2], &udp(host(5), host(1), b"alive"));
    answer(&mut network, ports, &arp_request(host(1), host(2).ip));
    network.wait(1);
    is_flooded(&mut network, ports, &arp_request(host(1), host(2).ip));
}

#[test]
fn row_20_a_static_binding_wins_and_claims_to_it_are_reported() {
    let (mut network, ports) = two_nodes();
    let segment = bridge_id(1);
    let set = |address, n: u8, router| Change::SetNeighbour {
        segment,
        address,
        mac: host(n).mac,
        router,
    };
    announce(&mut network, ports, 2);
    network.change(1, set(v4(2), 7, false));
    network.change(1, set(v6(7), 7, true));
    // Static bindings are answered wherever the station is.
    let arp = answer(&mut network, ports, &arp_request(host(1), host(2).ip));
    assert_eq!(arp[6..12], host(7).mac.0);
    let nd = answer(&mut network, ports, &solicitation(host(1).mac, v6(1), v6(7)));
    assert_eq!(nd[58], 0xe0);
    // Unless that is who asks, or behind the same port.
    is_flooded(&mut network, ports, &solicitation(host(7).mac, v6(1), v6(7)));
    network.change(1, Change::RemoveFdb { segment, mac: host(7).mac });
    network.events(1);
    announce(&mut network, ports, 2);
    let conflicts: Vec<Event> = network
        .events(1)
        .into_iter()
        .filter(|event| matches!(event, Event::NeighbourConflict { .. }))
        .collect();
    let (address, claimed_by, at) = (v4(2), host(2).mac, Destination::Vtep(vtep(2)));
    assert_eq!(conflicts, [Event::NeighbourConflict { segment, address, claimed_by, at }]);
    assert_eq!(network.stats(1).totals.neighbour_conflicts, 1);
    let arp = answer(&mut network, ports, &arp_request(host(1), host(2).ip));
    assert_eq!(arp[6..12], host(7).mac.0);

    network.change(1, Change::RemoveNeighbour { segment, address: v4(2) });
    is_flooded(&mut network, ports, &arp_request(host(1), host(2).ip));
    let removed = network.try_change(1, [Change::RemoveNeighbour { segment, address: v4(2) }]);
    assert!(matches!(removed, Err(Error::NotFound { .. })), "{removed:?}");
}

#[test]
fn row_20_what_makes_no_sense_is_refused() {
    let (mut network, _) = two_nodes();
    let (segment, mac, router) = (bridge_id(1), host(7).mac, false);
    for address in ["0.0.0.0", "224.0.0.1", "127.0.0.1", "::", "ff02::1"] {
        let address = address.parse().unwrap();
        let refused =
            network.try_change(1, [Change::SetNeighbour { segment, address, mac, router }]);
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{address}: {refused:?}");
    }
    let change = Change::SetNeighbour { segment, address: v4(2), mac: MacAddr::BROADCAST, router };
    assert!(matches!(network.try_change(1, [change]), Err(Error::Invalid { .. })));
    let change = Change::SetNeighbour { segment, address: v4(2), mac, router };
    assert!(matches!(network.try_change(2, [change]), Err(Error::Conflict { .. })), "it is off");
    let too_many = bridge_with(9, |segment| segment.neighbours.limit = 65_537);
    assert!(matches!(
        network.try_change(1, [Change::AddSegment(too_many)]),
        Err(Error::Invalid { .. })
    ));
    let too_long = bridge_with(9, |segment| segment.neighbours.ageing = Some(Default::default()));
    assert!(matches!(
        network.try_change(1, [Change::AddSegment(too_long)]),
        Err(Error::Invalid { .. })
    ));
}

#[test]
fn row_20_without_snooping_only_static_bindings_are_answered() {
    let mut network = Network::new(1);
    let quiet = bridge_with(1, |segment| {
        (segment.neighbours.suppress, segment.neighbours.snoop) = (true, false);
    });
    let port = network.add_segment(1, quiet, false);
    network.change(1, Change::AddFlood { segment: bridge_id(1), vtep: vtep(2) });
    let announcement = arp_request(host(2), host(2).ip);
    network.arrive(1, underlay(2), vxlan::PORT, &vxlan_of(&announcement));
    network.send(1, port, &arp_request(host(1), host(2).ip));
    assert_eq!(network.stats(1).totals.flooded, 2);
    let (segment, address) = (bridge_id(1), v4(2));
    let set = Change::SetNeighbour { segment, address, mac: host(2).mac, router: false };
    network.change(1, set);
    network.send(1, port, &arp_request(host(1), host(2).ip));
    assert_eq!(network.stats(1).totals.answered, 1);
    assert_eq!(network.drops(1, DropReason::NoDestination), 0);
}

fn vxlan_of(frame: &[u8]) -> Vec<u8> {
    vxlan(vni(1), frame)
}

/// A flood of forged neighbours leaves a table of fixed size, and the segment forwards on.
#[test]
fn row_20_a_flood_of_neighbours_stays_within_its_limit() {
    let mut network = Network::new(1);
    let small = bridge_with(1, |segment| {
        (segment.neighbours.suppress, segment.neighbours.limit) = (true, 16);
    });
    let port = network.add_segment(1, small, false);
    network.change(1, Change::AddFlood { segment: bridge_id(1), vtep: vtep(2) });
    for n in 0..1000_u32 {
        let ip = std::net::Ipv4Addr::from_bits(0x0a01_0000 + n);
        let from = Host { ip, ..host(1) };
        network.send(1, port, &arp_request(from, ip));
        let now = network.now;
        assert!(network.node(1).tables.neighbours(bridge_id(1), now).unwrap().len() <= 32);
    }
    assert_eq!(network.stats(1).totals.flooded, 1000);
}
