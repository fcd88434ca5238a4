//! What is counted where.

use overplane::wire::vxlan;
use overplane::{Change, DropReason, MacAddr, Stage, Traffic};

use crate::network::{Faults, Network};
use crate::packets::*;

const GROUP: Host = Host { mac: MacAddr([1, 0, 0x5e, 1, 2, 3]), ..EVERYBODY };

/// Unicast, multicast and broadcast packets.
fn received(traffic: Traffic) -> [u64; 3] {
    [traffic.received_unicast(), traffic.received_multicast, traffic.received_broadcast]
}

fn sent(traffic: Traffic) -> [u64; 3] {
    [traffic.sent_unicast(), traffic.sent_multicast, traffic.sent_broadcast]
}

#[test]
fn row_25_each_place_counts_what_passes_it_by_kind() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), true);
    let second = network.add_port(1, bridge_id(1), false);
    network.send(2, ports[1], &udp(host(2), EVERYBODY, b"here"));
    for _ in 0..5 {
        network.send(1, ports[0], &udp(host(1), host(2), b"to one"));
    }
    for _ in 0..3 {
        network.send(1, ports[0], &udp(host(1), GROUP, b"to some"));
    }
    // In chunks of 1,000 bytes, and as one frame to the node's other port.
    let (frame, vnet) = udp_super_frame(host(1), GROUP, &[0; 3000], 1000);
    network.send_unfinished(1, ports[0], &frame, vnet);
    for _ in 0..2 {
        network.send(1, ports[0], &udp(host(1), EVERYBODY, b"to all"));
    }
    let (here, there) = (network.stats(1), network.stats(2));
    let of = |stats: &overplane::Stats, id| {
        stats.ports.iter().find(|port| port.id == id).map(|port| port.traffic).unwrap()
    };
    assert_eq!(received(of(&here, ports[0])), [5, 4, 2]);
    assert_eq!(sent(of(&here, second)), [0, 6, 3], "and one to all from node 2");
    assert_eq!(sent(here.segments[0].traffic), [5, 4, 2], "frames");
    assert_eq!(sent(here.vteps[0].traffic), [5, 6, 2], "datagrams");
    assert_eq!(received(there.vteps[0].traffic), [5, 6, 2]);
    assert_eq!(received(there.segments[0].traffic), [5, 6, 2]);
    assert_eq!(received(of(&there, ports[1])), [0, 0, 1]);
    let dropped = |traffic: Traffic| traffic.received_dropped + traffic.sent_dropped;
    for stats in [&here, &there] {
        assert_eq!(stats.ports.iter().map(|port| dropped(port.traffic)).sum::<u64>(), 0);
        assert_eq!(stats.totals.drop_reasons().count(), 0);
    }
}

#[test]
fn row_25_a_drop_is_counted_where_it_belongs() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    let other = network.add_segment(1, bridge(2), false);
    network.send(2, ports[1], &udp(host(2), EVERYBODY, b"here"));
    network.send(1, ports[0], &udp(host(1), host(2), &[0; 2000]));
    network.send(1, other, &udp(host(1), host(2), b"there is nobody"));
    network.arrive(1, underlay(2), vxlan::PORT, &vxlan(vni(1), b"short"));
    network.arrive(1, underlay(7), vxlan::PORT, &vxlan(vni(1), &udp(host(7), host(1), b"")));
    network.arrive(1, underlay(2), vxlan::PORT, &vxlan(vni(9), b"unknown"));
    network.arrive(1, underlay(2), vxlan::PORT, b"GET / HTTP");
    // The underlay takes nothing any more.
    network.faults = Faults { refused: 255, ..Faults::default() };
    let mut refused = 0;
    while refused < 3 {
        network.send(1, ports[0], &udp(host(1), host(2), b"refused, mostly"));
        refused = network.drops(1, DropReason::UnderlayFull);
    }
    let stats = network.stats(1);
    let [red, blue] = &stats.segments[..] else { panic!("{stats}") };
    let of_red: Vec<_> = red.drops.iter().collect();
    let expected =
        [(DropReason::Truncated, 1), (DropReason::UnknownVtep, 1), (DropReason::TooBig, 1)];
    assert_eq!(of_red, expected);
    assert_eq!(blue.drops.iter().collect::<Vec<_>>(), [(DropReason::NoDestination, 1)]);
    assert_eq!((red.drops.at(Stage::Decision), red.drops.at(Stage::Output)), (3, 0));
    assert_eq!(red.traffic.received_dropped, 1, "a stranger's is none of those received");
    let vtep = stats.vteps[0].traffic;
    assert_eq!((vtep.received_dropped, vtep.sent_dropped), (1, 3));
    let dropped: Vec<u64> = stats.ports.iter().map(|port| port.traffic.received_dropped).collect();
    assert_eq!(dropped, [1, 1]);
    for (reason, n) in [(DropReason::UnknownVni, 1), (DropReason::NoVniFlag, 1)] {
        assert_eq!(stats.totals.drops(reason), n);
    }
    // A flooded frame that no datagram can hold, and a device that is full.
    network.faults = Faults::default();
    let port = network.add_port(1, bridge_id(1), false);
    network.send(1, ports[0], &udp(host(1), EVERYBODY, &[0; 2000]));
    while network.drops(1, DropReason::PortFull) == 0 {
        network.send(1, ports[0], &udp(host(1), EVERYBODY, b"fill"));
    }
    let stats = network.stats(1);
    let red = &stats.segments[0];
    let full = red.drops.of(DropReason::PortFull);
    let port = stats.ports.iter().find(|stats| stats.id == port).unwrap();
    assert_eq!((red.drops.of(DropReason::UnderlayTooBig), red.traffic.sent_dropped), (1, 1));
    assert_eq!((full, port.traffic.sent_dropped), (1, 1));
}

/// Of whatever is dropped once a segment is known, and is not a socket's doing, the segments' counts make up all.
#[test]
fn row_25_every_drop_of_a_segment_is_in_its_counts() {
    let (mut network, ports) = Network::mesh(3, &bridge(1), true);
    let segment = bridge_id(1);
    let pin = Change::InsertFdb { segment, mac: host(9).mac, destination: vtep(2).into() };
    network.change(1, pin);
    let group = |host: Host| Host { mac: MacAddr([1, 0, 0, 0, 0, 1]), ..host };
    let stp = Host { mac: MacAddr([1, 0x80, 0xc2, 0, 0, 0]), ..EVERYBODY };
    for from in 1..=3_u8 {
        let port = ports[usize::from(from) - 1];
        for frame in [
            udp(group(host(1)), host(2), b""),
            udp(host(from), stp, b""),
            udp(host(9), EVERYBODY, b"pinned"),
            udp(host(from), host(from), b"myself"),
            udp(host(from), EVERYBODY, &[0; 3000]),
            vec![0; 5],
        ] {
            network.send(from, port, &frame);
            network.arrive(from, underlay(from % 3 + 1), vxlan::PORT, &vxlan(vni(1), &frame));
        }
    }
    for n in 1..=3 {
        let stats = network.stats(n);
        let segments = |reason| stats.segments.iter().map(|s| s.drops.of(reason)).sum::<u64>();
        let reasons: Vec<_> = stats.totals.drop_reasons().collect();
        assert!(reasons.len() >= 5, "{stats}");
        for (reason, n) in reasons {
            assert_eq!(segments(reason), n, "{reason}: {stats}");
        }
    }
}
