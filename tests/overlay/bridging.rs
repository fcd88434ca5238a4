//! Learning, flooding, ageing and moving.

use overplane::{Change, Destination, DropReason, Event, MacAddr, Origin};

use crate::network::Network;
use crate::packets::*;

fn learned(network: &mut Network, node: u8) -> Vec<(MacAddr, Destination)> {
    let now = network.now;
    let tables = &network.node(node).tables;
    let fdb = tables.fdb(bridge_id(1), now).unwrap();
    let mut one_by_one: Vec<_> = tables.fdb_entries(bridge_id(1), now).unwrap().collect();
    one_by_one.sort_by_key(|entry| entry.mac);
    assert_eq!(one_by_one, fdb);
    fdb.iter()
        .inspect(|e| assert_eq!(e.origin, Origin::Learned))
        .map(|e| (e.mac, e.destination))
        .collect()
}

#[test]
fn two_hosts_learn_each_other() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    let (a, b) = (host(1), host(2));

    let question = udp(a, EVERYBODY, b"who is there?");
    network.send(1, ports[0], &question);
    assert_eq!(network.frames(2, ports[1]), [question]);

    let answer = udp(b, a, b"me");
    network.send(2, ports[1], &answer);
    assert_eq!(network.frames(1, ports[0]), [answer]);

    let here_and_there = [(a.mac, ports[0].into()), (b.mac, vtep(2).into())];
    assert_eq!(learned(&mut network, 1), here_and_there);
    let there_and_here = [(a.mac, vtep(1).into()), (b.mac, ports[1].into())];
    assert_eq!(learned(&mut network, 2), there_and_here);
    let news = Event::Learned { segment: bridge_id(1), mac: b.mac, at: vtep(2).into() };
    assert!(network.events(1).contains(&news));
}

#[test]
fn frames_are_flooded_only_until_their_destination_is_learned() {
    let (mut network, ports) = Network::mesh(3, &bridge(1), false);
    let (a, b) = (host(1), host(2));
    network.send(1, ports[0], &udp(a, b, b"first"));
    assert_eq!(network.frames(2, ports[1]).len(), 1);
    assert_eq!(network.frames(3, ports[2]).len(), 1, "nobody knows where the host is");

    network.send(2, ports[1], &udp(b, a, b"here I am"));
    network.send(1, ports[0], &udp(a, b, b"second"));
    assert_eq!(network.frames(2, ports[1]), [udp(a, b, b"second")]);
    assert_eq!(network.frames(3, ports[2]), [] as [Vec<u8>; 0]);
    let totals = network.stats(1).totals;
    assert_eq!((totals.flooded, totals.copies, totals.forwarded), (1, 2, 2));
}

#[test]
fn a_broadcast_reaches_every_node_of_a_mesh_exactly_once() {
    let (mut network, ports) = Network::mesh(3, &bridge(1), false);
    let frame = udp(host(1), EVERYBODY, b"hello");
    network.send(1, ports[0], &frame);
    assert_eq!(network.frames(1, ports[0]), [] as [Vec<u8>; 0], "not back to its sender");
    assert_eq!(network.frames(2, ports[1]), [frame.as_slice()]);
    assert_eq!(network.frames(3, ports[2]), [frame.as_slice()]);
    assert_eq!(
        network.sent.len(),
        2,
        "split horizon: what came from the underlay does not go back"
    );
}

#[test]
fn a_frame_for_a_host_that_has_left_ends_at_the_split_horizon() {
    let (mut network, ports) = Network::mesh(3, &bridge(1), false);
    let (a, b) = (host(1), host(2));
    network.send(3, ports[2], &udp(b, EVERYBODY, b"I am at node 3"));
    // Node 2 heard from node 3 that the host is there; node 1 has an older opinion.
    network.arrive(1, underlay(2), 4789, &vxlan(vni(1), &udp(b, host(9), b"forged or late")));
    network.sent.clear();
    network.send(1, ports[0], &udp(a, b, b"to the wrong node"));
    assert_eq!(network.sent.len(), 1);
    assert_eq!(network.drops(2, DropReason::SplitHorizon), 1);
}

#[test]
fn an_entry_ages_out_after_its_last_frame() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    network.send(1, ports[0], &udp(host(1), EVERYBODY, b"hello"));
    network.wait(299);
    network.send(1, ports[0], &udp(host(1), EVERYBODY, b"still here"));
    network.wait(299);
    assert_eq!(learned(&mut network, 2).len(), 1, "each frame starts the time again");
    network.events(2);
    network.wait(1);
    assert_eq!(learned(&mut network, 2), []);
    assert_eq!(network.events(2), [Event::Aged { segment: bridge_id(1), mac: host(1).mac }]);
}

#[test]
fn row_11_a_host_that_moves_is_followed_by_its_first_frame() {
    let (mut network, ports) = Network::mesh(3, &bridge(1), false);
    let (a, b) = (host(1), host(2));
    network.send(2, ports[1], &udp(b, EVERYBODY, b"at node 2"));
    network.events(1);
    network.send(3, ports[2], &udp(b, EVERYBODY, b"at node 3"));
    let moved = Event::Moved {
        segment: bridge_id(1),
        mac: b.mac,
        from: Some(vtep(2).into()),
        to: vtep(3).into(),
    };
    assert_eq!(network.events(1), [moved]);
    network.frames(2, ports[1]);
    network.frames(3, ports[2]);
    network.send(1, ports[0], &udp(a, b, b"follow"));
    assert_eq!(network.frames(3, ports[2]).len(), 1);
    assert_eq!(network.frames(2, ports[1]).len(), 0);
}

#[test]
fn ports_of_one_segment_switch_locally() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    let second = network.add_port(1, bridge_id(1), false);
    let third = network.add_port(1, bridge_id(1), false);
    let (a, b) = (host(1), host(2));
    network.send(1, ports[0], &udp(a, EVERYBODY, b"hello"));
    assert_eq!([second, third].map(|port| network.frames(1, port).len()), [1, 1]);
    network.sent.clear();
    network.send(1, second, &udp(b, a, b"neighbour"));
    assert_eq!(network.frames(1, ports[0]).len(), 1);
    assert_eq!(network.frames(1, third).len(), 0);
    assert_eq!(network.sent.len(), 0, "neighbours need no underlay");
    network.send(1, second, &udp(b, b, b"myself"));
    assert_eq!(network.drops(1, DropReason::SamePort), 1);
}

#[test]
fn row_12_a_full_fdb_goes_on_flooding() {
    let small = bridge_with(1, |segment| (segment.fdb_limit, segment.fdb_evict) = (4, false));
    let (mut network, ports) = Network::mesh(2, &small, false);
    for n in 1..=20 {
        network.send(1, ports[0], &udp(host(n), host(99), b"one of many"));
    }
    assert_eq!(network.frames(2, ports[1]).len(), 20);
    let stats = network.stats(2);
    assert_eq!((stats.segments[0].learned, stats.totals.learning_refused), (4, 16));
    network.send(2, ports[1], &udp(host(50), host(20), b"to one that was not learned"));
    assert_eq!(network.frames(1, ports[0]).len(), 1);
    network.wait(300);
    network.send(1, ports[0], &udp(host(20), host(99), b"room again"));
    assert_eq!(learned(&mut network, 2), [(host(20).mac, vtep(1).into())]);
}

#[test]
fn row_12_who_floods_a_full_fdb_displaces_its_own() {
    let small = bridge_with(1, |segment| segment.fdb_limit = 8);
    let (mut network, ports) = Network::mesh(3, &small, false);
    network.send(1, ports[0], &udp(host(1), EVERYBODY, b"hello"));
    for n in 10..60 {
        network.send(2, ports[1], &udp(host(n), host(99), b"one of many"));
    }
    let known = learned(&mut network, 3);
    assert_eq!(known.len(), 8);
    assert!(known.contains(&(host(1).mac, vtep(1).into())), "{known:?}");
    let totals = network.stats(3).totals;
    assert_eq!((totals.evicted, totals.learning_refused), (43, 0));
}

#[test]
fn two_stations_with_one_address_cost_a_move_a_second() {
    let (mut network, ports) = Network::mesh(3, &bridge_with(1, |_| ()), false);
    let twin = udp(host(1), EVERYBODY, b"it is me");
    for _ in 0..10 {
        network.send(1, ports[0], &twin);
        network.send(2, ports[1], &twin);
    }
    let moves = |event: &Event| matches!(event, Event::Moved { .. });
    let moved = network.events(3).iter().filter(|event| moves(event)).count();
    assert_eq!((moved, network.stats(3).totals.moves_refused), (1, 9));
}

#[test]
fn row_13_without_learning_only_static_entries_count() {
    let (mut network, ports) =
        Network::mesh(2, &bridge_with(1, |segment| segment.learning = false), false);
    network.send(1, ports[0], &udp(host(1), EVERYBODY, b"hello"));
    assert_eq!(learned(&mut network, 1), []);
    assert_eq!(learned(&mut network, 2), []);
}

#[test]
fn frames_that_no_bridge_forwards_end_here() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    let group = MacAddr([3, 0, 0, 0, 0, 1]);
    let stp = MacAddr([1, 0x80, 0xc2, 0, 0, 0]);
    let with = |mac, host| Host { mac, ..host };
    for (frame, reason) in [
        (udp(with(group, host(1)), host(2), b""), DropReason::InvalidSource),
        (udp(with(MacAddr::ZERO, host(1)), host(2), b""), DropReason::InvalidSource),
        (udp(host(1), with(stp, host(2)), b""), DropReason::LinkLocal),
        (udp(host(1), host(2), b"")[..13].to_vec(), DropReason::Truncated),
        (udp(host(1), host(2), &[0; 1500]), DropReason::TooBig),
    ] {
        let before = network.drops(1, reason);
        network.send(1, ports[0], &frame);
        assert_eq!(network.drops(1, reason), before + 1, "{reason}");
    }
    assert_eq!(network.sent.len(), 0);
    assert_eq!(learned(&mut network, 1), [(host(1).mac, ports[0].into())], "by its other frames");
}

#[test]
fn a_removed_port_carries_nothing() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    network.send(1, ports[0], &udp(host(1), EVERYBODY, b"hello"));
    network.change(1, Change::RemovePort(ports[0]));
    assert_eq!(learned(&mut network, 1), []);
    network.send(1, ports[0], &udp(host(1), EVERYBODY, b"too late"));
    assert_eq!(network.drops(1, DropReason::Detached), 1);
    network.send(2, ports[1], &udp(host(2), host(1), b"nobody there"));
    assert_eq!(network.drops(1, DropReason::NoDestination), 1);
}

#[test]
fn a_segment_counts_what_crosses_the_underlay_and_nothing_else() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    let second = network.add_port(1, bridge_id(1), false);
    let hello = udp(host(1), EVERYBODY, b"hello");
    network.send(1, ports[0], &hello);
    network.send(1, second, &udp(host(2), host(1), b"neighbour"));
    network.send(1, ports[0], &udp(host(1), host(1), b"myself"));
    network.arrive(1, underlay(9), 4789, &vxlan(vni(1), &hello));
    let here = network.stats(1).segments[0].traffic;
    let there = network.stats(2).segments[0].traffic;
    assert_eq!((here.sent_packets, here.sent_bytes), (1, hello.len() as u64));
    assert_eq!((there.received_packets, there.received_bytes), (1, hello.len() as u64));
    assert_eq!((here.received_packets, there.sent_packets), (0, 0));
}

/// The underlay's MTU is no limit between the ports of one node.
#[test]
fn a_flooded_frame_too_large_for_the_underlay_still_reaches_the_ports() {
    let mut network = Network::new(1);
    let port = network.add_segment(1, bridge(1), false);
    let segment = bridge_id(1);
    network.change(1, Change::AddFlood { segment, vtep: vtep(2) });
    let large = udp(host(1), EVERYBODY, &[0; 1472]);
    network.send(1, port, &large);
    assert_eq!(network.drops(1, DropReason::TooBig), 1, "nobody at all could get it");
    let second = network.add_port(1, segment, false);
    network.send(1, port, &large);
    assert_eq!(network.frames(1, second), [large]);
    assert_eq!(network.sent.len(), 0);
    assert_eq!(network.drops(1, DropReason::UnderlayTooBig), 1, "the VTEP's copy");
}

/// Nor for the datagrams of a super-frame, whose bounds are the sender's.
#[test]
fn a_flooded_super_frame_of_too_large_datagrams_still_reaches_the_ports() {
    let mut network = Network::new(1);
    let port = network.add_segment(1, bridge(1), true);
    let segment = bridge_id(1);
    network.change(1, Change::AddFlood { segment, vtep: vtep(2) });
    let (frame, vnet) = udp_super_frame(host(1), EVERYBODY, &[0; 5000], 2000);
    network.send_unfinished(1, port, &frame, vnet);
    assert_eq!(network.drops(1, DropReason::TooBig), 1, "nobody at all could get it");
    let whole = network.add_port(1, segment, true);
    let in_chunks = network.add_port(1, segment, false);
    network.send_unfinished(1, port, &frame, vnet);
    let received = network.received(1, whole);
    assert_eq!((&received[0].bytes, received[0].vnet), (&frame, vnet));
    assert_eq!(network.frames(1, in_chunks).len(), 3);
    assert_eq!(network.sent.len(), 0);
    assert_eq!(network.drops(1, DropReason::UnderlayTooBig), 1, "the VTEP's copy");
}
