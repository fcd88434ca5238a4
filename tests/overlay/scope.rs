//! How far frames go: split horizon groups, relays, reserved group addresses, and frames that come back.

use overplane::{Change, DropReason, MacAddr, PortId, Segment};

use crate::network::Network;
use crate::packets::*;

/// A star: node 1 has tunnels to all others, and they have one to node 1. Returns a port of each.
fn star(nodes: u8, hub: Segment) -> (Network, Vec<PortId>) {
    let mut network = Network::new(nodes);
    let mut ports = vec![network.add_segment(1, hub, false)];
    for n in 2..=nodes {
        ports.push(network.add_segment(n, bridge(1), false));
        let segment = bridge_id(1);
        network.change(n, Change::AddFlood { segment, vtep: vtep(1) });
        network.change(1, Change::AddFlood { segment, vtep: vtep(n) });
    }
    (network, ports)
}

fn relaying() -> Segment {
    bridge_with(1, |segment| segment.scope.vtep_group = 0)
}

/// How many frames a port of each node got.
fn got(network: &mut Network, ports: &[PortId]) -> Vec<usize> {
    ports.iter().zip(1..).map(|(port, n)| network.frames(n, *port).len()).collect()
}

fn set_group(vtep: std::net::SocketAddr, group: Option<u8>) -> Change {
    Change::SetVtepGroup { segment: bridge_id(1), vtep, group }
}

#[test]
fn row_15_a_hub_relays_between_its_spokes_only_if_told_to() {
    let hello = udp(host(2), EVERYBODY, b"hello");
    let (mut network, ports) = star(4, bridge(1));
    network.send(2, ports[1], &hello);
    assert_eq!(got(&mut network, &ports), [1, 0, 0, 0]);

    let (mut network, ports) = star(4, relaying());
    network.send(2, ports[1], &hello);
    assert_eq!(got(&mut network, &ports), [1, 0, 1, 1]);
    network.sent.clear();
    network.send(3, ports[2], &udp(host(3), host(2), b"answer"));
    assert_eq!(got(&mut network, &ports), [0, 1, 0, 0]);
    assert_eq!(network.sent.len(), 2, "by the hub, and to nobody else");
    let same = udp(host(9), host(3), b"behind the same spoke");
    network.arrive(1, underlay(3), 4789, &vxlan(vni(1), &same));
    assert_eq!(network.drops(1, DropReason::SplitHorizon), 1, "not back to where it came from");
}

/// What a relay passes on, a kernel peer left unfinished: the next hop of it cannot know.
#[test]
fn row_15_a_relay_finishes_and_cuts_what_it_passes_on() {
    let (mut network, ports) = star(3, relaying());
    network.send(3, ports[2], &udp(host(3), EVERYBODY, b"hello"));
    got(&mut network, &ports);
    let payload: Vec<u8> = (0..4000_u32).map(|n| n as u8).collect();
    let (partial, _) = tcp_super_frame(host(9), host(3), &payload, 1000);
    network.arrive(1, underlay(2), 4789, &vxlan(vni(1), &partial));
    let chunks = network.frames(3, ports[2]);
    assert_eq!(chunks.len(), 3);
    let joined: Vec<u8> = chunks.iter().flat_map(|chunk| chunk[54..].to_vec()).collect();
    assert_eq!(joined, payload);
}

#[test]
fn row_15_vteps_of_one_group_exchange_nothing() {
    // Two hubs in a group of their own, one of which has two spokes in none.
    let (mut network, ports) = star(4, bridge(1));
    for change in [set_group(vtep(3), Some(0)), set_group(vtep(4), Some(0))] {
        network.change(1, change);
    }
    let groups = network.node(1).tables.segments()[0].vtep_groups.clone();
    assert_eq!(groups, [(vtep(3), 0), (vtep(4), 0)]);
    network.send(2, ports[1], &udp(host(2), EVERYBODY, b"from the other hub"));
    network.send(3, ports[2], &udp(host(3), EVERYBODY, b"from a spoke"));
    assert_eq!(got(&mut network, &ports), [2, 1, 1, 2]);

    network.change(1, set_group(vtep(3), None));
    network.send(2, ports[1], &udp(host(2), EVERYBODY, b"from the other hub"));
    assert_eq!(got(&mut network, &ports), [1, 0, 0, 1]);
    network.send(2, ports[1], &udp(host(2), host(3), b"known"));
    assert_eq!(network.drops(1, DropReason::SplitHorizon), 1);

    // What nothing names any more has no group, even if it comes back.
    let segment = bridge_id(1);
    network.change(1, Change::RemoveFlood { segment, vtep: vtep(4) });
    network.change(1, Change::AddFlood { segment, vtep: vtep(4) });
    assert_eq!(network.node(1).tables.segments()[0].vtep_groups, []);
    for (change, text) in [
        (
            set_group(vtep(4), Some(32)),
            "split horizon group: 32 is not allowed; allowed: 0 (none) to 31",
        ),
        (set_group(vtep(9), Some(1)), "VTEP 192.0.2.9:4789 does not exist"),
    ] {
        assert_eq!(network.try_change(1, [change]).unwrap_err().to_string(), text);
    }
}

#[test]
fn row_15_ports_of_a_group_reach_neither_each_other_nor_its_vteps() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    let options = |group| port_options(|options| options.group = group);
    let local =
        [1, 1, 2].map(|group| network.add_port_with(1, bridge_id(1), false, options(group)));
    let frames = |network: &mut Network| local.map(|port| network.frames(1, port).len());
    network.send(2, ports[1], &udp(host(9), EVERYBODY, b"from the group of all VTEPs"));
    assert_eq!(frames(&mut network), [0, 0, 1]);
    network.sent.clear();
    network.send(1, local[0], &udp(host(1), EVERYBODY, b"hello"));
    assert_eq!((frames(&mut network), network.sent.len()), ([0, 0, 1], 0));
    network.send(1, local[0], &udp(host(1), host(9), b"known"));
    network.send(2, ports[1], &udp(host(9), host(1), b"known"));
    network.send(1, local[1], &udp(host(2), host(1), b"known"));
    assert_eq!(network.drops(1, DropReason::SplitHorizon), 3);
    network.send(1, local[2], &udp(host(3), host(9), b"of another group"));
    network.send(1, local[2], &udp(host(3), host(1), b"of another group"));
    assert_eq!((frames(&mut network), network.sent.len()), ([1, 0, 0], 2));
}

#[test]
fn row_16_reserved_group_addresses_are_forwarded_only_if_told_to() {
    let to = |n| Host { mac: MacAddr([1, 0x80, 0xc2, 0, 0, n]), ..EVERYBODY };
    let lldp = bridge_with(1, |segment| segment.scope.group_fwd_mask = 1 << 14);
    for (segment, passes) in [(bridge(1), [false; 2]), (lldp, [false, true])] {
        let (mut network, ports) = Network::mesh(2, &segment, false);
        for (n, passes) in [0, 14].into_iter().zip(passes) {
            network.send(1, ports[0], &udp(host(1), to(n), b"for the next bridge"));
            network.arrive(1, underlay(2), 4789, &vxlan(vni(1), &udp(host(2), to(n), b"")));
            let there = network.frames(2, ports[1]).len();
            let here = network.frames(1, ports[0]).len();
            assert_eq!((there, here), (usize::from(passes), usize::from(passes)), "{n}");
        }
        let dropped = passes.iter().filter(|passes| !**passes).count() as u64;
        assert_eq!(network.drops(1, DropReason::LinkLocal), 2 * dropped);
    }
    for mask in [1, 2, 4] {
        let segment = bridge_with(1, |segment| segment.scope.group_fwd_mask = mask);
        let error = Network::new(1).try_change(1, [Change::AddSegment(segment)]).unwrap_err();
        let expected = format!(
            "group_fwd_mask: {mask:#06x} is not allowed; allowed: bits 3 to 15: 0xfff8 at most"
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn row_09_a_frame_that_claims_to_come_from_this_node_is_dropped() {
    for learning in [true, false] {
        let segment = bridge_with(1, |segment| segment.learning = learning);
        let (mut network, ports) = Network::mesh(2, &segment, false);
        let mine = udp(host(7), EVERYBODY, b"it comes back");
        let datagram = vxlan(vni(1), &mine);
        network.arrive(1, underlay(2), 4789, &datagram);
        assert_eq!(network.frames(1, ports[0]).len(), 1, "nobody has said whose it is");
        let options = port_options(|options| options.mac = Some(host(7).mac));
        network.change(1, Change::SetPort { port: ports[0], options });
        let now = network.now;
        assert_eq!(network.node(1).tables.fdb(bridge_id(1), now).unwrap(), [], "it was a lie");
        for _ in 0..2 {
            network.arrive(1, underlay(2), 4789, &datagram);
        }
        assert_eq!(network.drops(1, DropReason::OwnSource), 2);
        // The device itself may, and other options leave it at that.
        network.change(1, Change::SetPort { port: ports[0], options: port_options(|_| ()) });
        network.send(1, ports[0], &mine);
        assert_eq!(network.frames(2, ports[1]).len(), 1);
        network.arrive(1, underlay(2), 4789, &datagram);
        assert_eq!(network.drops(1, DropReason::OwnSource), 3);
        // Once the port is gone, it is anybody's.
        network.change(1, Change::RemovePort(ports[0]));
        let port = network.add_port(1, bridge_id(1), false);
        network.arrive(1, underlay(2), 4789, &datagram);
        assert_eq!(network.frames(1, port).len(), 1);
    }
}
