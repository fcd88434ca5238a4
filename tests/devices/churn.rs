//! Tables that change without end under traffic: no frame is lost to a change.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use overplane::limits::FLANNEL_UDP_PORT;
use overplane::{Change, DropReason, Flush, MacAddr, Prefix, Segment, Vni};
use overplane_lab::{Namespace, Random, UdpFlow, privileged, udp_flow};

use crate::hosts::{INNER_V4, INNER_V6, Node, V4, ip, pair, settle, underlay};
use crate::routed::end;

/// One flow in each direction over each family, every datagram checked, while `change` changes each node's tables
/// again and again: it is given the number of the node, and says how many changes it has made.
#[allow(clippy::print_stdout, reason = "shows when the test fails")]
fn under_traffic(
    hosts: &[Namespace; 2],
    nodes: [Node; 2],
    time: Duration,
    change: impl Fn(usize, &Node, &mut Random) -> u64 + Sync,
) {
    let mtu = nodes[0].mtu();
    let (sent, arrived) = (AtomicU64::new(0), AtomicU64::new(0));
    let changes = [AtomicU64::new(0), AtomicU64::new(0)];
    // Neighbours know each other before it counts.
    crate::hosts::ping_around_the_mtu([&hosts[0], &hosts[1]], mtu);
    let before = nodes.each_ref().map(|node| node.control.stats().totals);
    let until = Instant::now() + time;
    thread::scope(|scope| {
        for (from, to) in [(0, 1), (1, 0)] {
            for (inner, headers) in [(INNER_V4, 28), (INNER_V6, 48)] {
                let (sent, arrived) = (&sent, &arrived);
                scope.spawn(move || {
                    let what = UdpFlow {
                        seed: to as u64,
                        packet: mtu - headers,
                        duration: time,
                        ordered: true,
                    };
                    let server = SocketAddr::new(ip(inner[to]), 0);
                    let report = udp_flow(&hosts[from], &hosts[to], server, what).unwrap();
                    sent.fetch_add(report.sent, Ordering::Relaxed);
                    arrived.fetch_add(report.received + report.overflowed, Ordering::Relaxed);
                });
            }
        }
        for (number, node) in nodes.iter().enumerate() {
            let (changes, change) = (&changes[number], &change);
            scope.spawn(move || {
                let mut random = Random::new(number as u64);
                while Instant::now() < until {
                    changes.fetch_add(change(number, node, &mut random), Ordering::Relaxed);
                    thread::sleep(Duration::from_micros(500));
                }
            });
        }
    });
    let (sent, arrived) = (sent.into_inner(), arrived.into_inner());
    println!("{sent} datagrams, {arrived} arrived, under {changes:?} changes");
    assert!(changes.iter().all(|changes| changes.load(Ordering::Relaxed) >= 100), "{changes:?}");
    assert!(arrived > 1000, "{arrived}");
    let lost_elsewhere = lost_in_queues(hosts, &nodes);
    assert!(sent - arrived <= lost_elsewhere, "{arrived} of {sent}; {lost_elsewhere} in queues");
    for (node, before) in nodes.into_iter().zip(before) {
        settle(&node.control);
        let totals = node.control.stats().totals;
        // What hosts say to all routers, or to a group, has no route.
        let unexpected = totals.drop_reasons().find(|(reason, dropped)| {
            *reason != DropReason::NoDestination && *dropped > before.drops(*reason)
        });
        assert_eq!(unexpected, None, "{}", node.control.stats());
        node.finish();
    }
}

/// What kernel queues dropped because nobody emptied them in time.
fn lost_in_queues(hosts: &[Namespace; 2], nodes: &[Node; 2]) -> u64 {
    // What sockets have dropped is looked at once a second.
    thread::sleep(Duration::from_millis(1100));
    let links = hosts.iter().flat_map(|host| ["eth0", "ovl0"].map(|link| host.link_stats(link)));
    let links: u64 = links.flatten().map(|stats| stats.rx_dropped + stats.tx_dropped).sum();
    nodes.iter().map(|node| node.control.stats().socket_overflows).sum::<u64>() + links
}

/// Far destinations, each another one, in which the overlay's addresses are not: 16.0.0.0/4, and 2001:db8::/32 for
/// every fourth.
fn far(number: u64) -> Prefix {
    // In no order.
    let number = number.wrapping_mul(0x9_e377) & 0xf_ffff;
    if number.is_multiple_of(4) {
        let bits = 0x2001_0db8_u128 << 96 | u128::from(number) << 70;
        Prefix::new(Ipv6Addr::from_bits(bits).into(), 58).unwrap()
    } else {
        let bits = 0x1000_0000 | (number as u32) << 8;
        Prefix::new(Ipv4Addr::from_bits(bits).into(), [24, 24, 24, 27, 32][number as usize % 5])
            .unwrap()
    }
}

/// One random change of a node's routes; those of the peer's own addresses come and go at every length but the one
/// that stays.
fn change_routes(this: usize, node: &Node, random: &mut Random) -> u64 {
    let (control, segment) = (&node.control, node.segment);
    let peer = SocketAddr::new(ip(V4[1 - this]), FLANNEL_UDP_PORT);
    let other = |n: u64| SocketAddr::from(([10, 9, 1, n as u8], FLANNEL_UDP_PORT));
    let insert =
        |prefix, vtep: SocketAddr| Change::InsertRoute { segment, prefix, next_hop: vtep.into() };
    let (address, longest) = match random.of(0..=1) {
        0 => (ip(INNER_V4[1 - this]), 32),
        _ => (ip(INNER_V6[1 - this]), 128),
    };
    let around = |random: &mut Random| Prefix::new(address, random.of(0..=longest) as u8).unwrap();
    match random.of(0..=9) {
        // The way the traffic goes, again.
        0 => control.insert_route(segment, Prefix::new(address, longest as u8).unwrap(), peer),
        // What covers it leads elsewhere, and goes.
        1 | 2 => {
            let prefix = around(random);
            match prefix.len() < longest as u8 {
                true => control.insert_route(segment, prefix, other(random.of(1..=50))),
                false => Ok(()),
            }
        }
        3 | 4 => {
            let prefix = around(random);
            match prefix.len() < longest as u8 {
                true => control.remove_route(segment, prefix).or(Ok(())),
                false => Ok(()),
            }
        }
        // Many at once.
        5 => {
            let start = random.of(0..=100_000);
            let many = (start..start + random.of_any_size(1, 10_000))
                .map(|number| insert(far(number), other(number % 50)));
            control.apply(many)
        }
        6 => control.remove_route(segment, far(random.of(0..=100_000))).or(Ok(())),
        _ => control.insert_route(segment, far(random.of(0..=100_000)), other(random.of(0..=49))),
    }
    .unwrap();
    1
}

#[allow(clippy::print_stdout, reason = "shows when the test fails")]
fn routes_change(routes: u64, time: Duration) {
    let hosts = underlay();
    let nodes = [end(&hosts[0], 0, V4), end(&hosts[1], 1, V4)];
    for node in &nodes {
        let vtep = SocketAddr::from(([10, 9, 1, 1], FLANNEL_UDP_PORT));
        let segment = node.segment;
        let start = Instant::now();
        let all = (0..routes).map(far);
        node.control
            .apply(all.map(|prefix| Change::InsertRoute { segment, prefix, next_hop: vtep.into() }))
            .unwrap();
        let count = node.control.routes(segment).unwrap().len();
        println!("{count} routes in {:?}", start.elapsed());
    }
    under_traffic(&hosts, nodes, time, change_routes);
}

#[test]
fn routes_change_under_traffic_without_loss() {
    if privileged("routes_change_under_traffic_without_loss") {
        routes_change(20_000, Duration::from_secs(3));
    }
}

/// With a full table, and for longer; `.ci/run` does so.
#[test]
#[ignore = "takes half a minute"]
fn a_full_table_changes_under_traffic_without_loss() {
    if privileged("a_full_table_changes_under_traffic_without_loss") {
        routes_change(1_000_000, Duration::from_secs(20));
    }
}

/// One random change of a node's bridge segment, or of its neighbours.
fn change_bridge(this: usize, node: &Node, random: &mut Random) -> u64 {
    let (control, segment) = (&node.control, node.segment);
    let peer = SocketAddr::new(ip(V4[1 - this]), segment.udp_port);
    let other = SocketAddr::from(([10, 9, 1, random.of(1..=200) as u8], segment.udp_port));
    let mac = MacAddr::from_u64(0x0266_0000_0000 | random.of(0..=5000));
    match random.of(0..=9) {
        0 => control.flush_fdb(segment, Flush::All),
        1 => control.flush_fdb(segment, Flush::Port(node.port)),
        2 => control.flush_fdb(segment, Flush::Vtep(peer)),
        3 => control.flush_fdb(segment, Flush::OlderThan(Duration::from_secs(1))),
        4 => control.insert_fdb(segment, mac, other),
        5 => control.remove_fdb(segment, mac).or(Ok(())),
        6 => control.add_peer(segment, other),
        7 => control.remove_peer(segment, other).or(Ok(())),
        8 => {
            let start = random.of(0..=5000);
            let many = (start..start + random.of_any_size(1, 1000)).map(|n| Change::InsertFdb {
                segment,
                mac: MacAddr::from_u64(0x0266_0000_0000 | n),
                destination: other.into(),
            });
            control.apply(many)
        }
        _ => {
            let mut neighbour = Segment::bridge(Vni::new(random.of(1000..=1100) as u32).unwrap());
            neighbour.udp_port = segment.udp_port;
            let id = neighbour.id();
            control.remove_segment(id).or_else(|_| control.add_segment(neighbour).map(|_| ()))
        }
    }
    .unwrap();
    1
}

#[test]
fn a_bridge_changes_under_traffic_without_loss() {
    if !privileged("a_bridge_changes_under_traffic_without_loss") {
        return;
    }
    let (hosts, left, right) = pair();
    under_traffic(&hosts, [left, right], Duration::from_secs(3), change_bridge);
}

#[test]
fn a_route_leads_elsewhere_from_the_next_packet_on() {
    if !privileged("a_route_leads_elsewhere_from_the_next_packet_on") {
        return;
    }
    let hosts = underlay();
    let nodes = [end(&hosts[0], 0, V4), end(&hosts[1], 1, V4)];
    let (control, segment) = (&nodes[0].control, nodes[0].segment);
    let to: IpAddr = ip(INNER_V4[1]);
    let peer = SocketAddr::new(ip(V4[1]), FLANNEL_UDP_PORT);
    let nobody = SocketAddr::from(([10, 9, 0, 99], FLANNEL_UDP_PORT));
    let towards = |vtep: SocketAddr| {
        let stats = control.stats();
        stats.vteps.iter().find(|v| v.address == vtep).map_or(0, |v| v.traffic.sent_packets)
    };
    let socket = hosts[0].run(|| std::net::UdpSocket::bind((INNER_V4[0], 0))).unwrap();
    for round in 1..=50 {
        for vtep in [nobody, peer] {
            control.insert_route(segment, to.to_string().parse().unwrap(), vtep).unwrap();
            let before = towards(vtep);
            socket.send_to(b"whither", (to, 9)).unwrap();
            crate::hosts::eventually(5, "the packet leaves", || towards(vtep) > before);
            assert_eq!(towards(vtep), before + 1, "round {round}");
        }
    }
    nodes.into_iter().for_each(Node::finish);
}
