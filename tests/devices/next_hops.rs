//! What routes lead to, between a kernel's TUN device and real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use overplane::limits::FLANNEL_UDP_PORT;
use overplane::{Change, Config, DropReason, GroupId, Member, NextHop, Segment};
use overplane_lab::{Namespace, Ping, ping, ping_ok, privileged};

use crate::hosts::{INNER_V4, INNER_V6, Node, V4, ip, underlay};
use crate::routed::{end, error_for};

/// Underlay addresses of the nodes that flows are shared out to, all on the second host.
const PEERS: [&str; 3] = ["10.9.0.2", "10.9.0.3", "10.9.0.4"];
const GROUP: GroupId = GroupId(1);

fn vtep(address: &str) -> SocketAddr {
    SocketAddr::new(ip(address), FLANNEL_UDP_PORT)
}

fn set_members(node: &Node, addresses: &[&str]) {
    let members = addresses.iter().map(|address| Member::new(vtep(address), 1));
    node.control.set_group(node.segment, GROUP, members).unwrap();
}

/// Sends one datagram of each of many flows out of the overlay, and says which peer got which flows, by source port.
fn spread(host: &Namespace, peers: &[UdpSocket]) -> BTreeMap<u16, usize> {
    let to = SocketAddr::new(ip(INNER_V4[1]), 9);
    host.run(|| {
        for port in 20_000..20_200 {
            let socket = UdpSocket::bind((ip(INNER_V4[0]), port)).unwrap();
            socket.send_to(b"hello", to).unwrap();
        }
    });
    let mut flows = BTreeMap::new();
    for (place, peer) in peers.iter().enumerate() {
        let mut datagram = [0; 2048];
        while let Ok(len) = peer.recv(&mut datagram) {
            // IPv4 with UDP to the port above; anything else is the host's own chatter.
            if len == 20 + 8 + 5 && datagram[0] == 0x45 && datagram[22..24] == 9_u16.to_be_bytes() {
                let flow = u16::from_be_bytes([datagram[20], datagram[21]]);
                assert_eq!(flows.insert(flow, place), None, "flow {flow} arrived twice");
            }
        }
    }
    assert_eq!(flows.len(), 200, "every flow arrived");
    flows
}

#[test]
fn flows_are_shared_out_and_a_member_that_goes_moves_only_its_own() {
    if !privileged("flows_are_shared_out_and_a_member_that_goes_moves_only_its_own") {
        return;
    }
    let hosts = underlay();
    for address in &PEERS[1..] {
        hosts[1].add_address("eth0", format!("{address}/24")).unwrap();
    }
    let peers: Vec<UdpSocket> = hosts[1].run(|| {
        PEERS
            .iter()
            .map(|address| {
                let socket = UdpSocket::bind(vtep(address)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
                socket
            })
            .collect()
    });
    let segment = Segment::routed(FLANNEL_UDP_PORT);
    let addresses = [format!("{}/16", INNER_V4[0])];
    let node = Node::new(&hosts[0], Config::new(ip(V4[0])), segment, &addresses);
    set_members(&node, &PEERS);
    node.control.insert_route(node.segment, "10.8.0.0/16".parse().unwrap(), GROUP).unwrap();
    let before = spread(&hosts[0], &peers);
    for (place, peer) in PEERS.iter().enumerate() {
        let flows = before.values().filter(|at| **at == place).count();
        assert!((30..110).contains(&flows), "{flows} of 200 flows to {peer}");
    }
    assert_eq!(spread(&hosts[0], &peers), before, "each flow keeps its way");
    set_members(&node, &[PEERS[0], PEERS[2]]);
    let after = spread(&hosts[0], &peers);
    for (flow, place) in &before {
        match place {
            1 => assert_ne!(after[flow], 1),
            _ => assert_eq!(after[flow], *place, "flow {flow} had nothing to do with it"),
        }
    }
    let heirs: BTreeSet<usize> = after.values().copied().collect();
    assert_eq!(heirs, [0, 2].into());
    let groups = node.control.groups(node.segment).unwrap();
    assert_eq!(groups[0].members.iter().map(|member| member.buckets).sum::<usize>(), 128);
    node.finish();
}

#[test]
fn unreachable_is_answered_and_a_blackhole_is_not() {
    if !privileged("unreachable_is_answered_and_a_blackhole_is_not") {
        return;
    }
    let hosts = underlay();
    let node = end(&hosts[0], 0, V4);
    let change = |prefix: &str, next_hop: NextHop| Change::InsertRoute {
        segment: node.segment,
        prefix: prefix.parse().unwrap(),
        next_hop,
    };
    let routes = [
        change("10.8.66.0/24", NextHop::Blackhole),
        change("fd08::66", NextHop::Blackhole),
        change("10.8.77.0/24", NextHop::Unreachable),
        change("fd08::77", NextHop::Unreachable),
    ];
    node.control.apply(routes).unwrap();
    let error = |to: &str| error_for(&hosts[0], SocketAddr::new(ip(to), 9), 64);
    assert_eq!(error("10.8.77.1"), Some(libc::EHOSTUNREACH), "host unreachable");
    assert_eq!(error("fd08::77"), Some(libc::ENETUNREACH), "no route");
    for nowhere in ["10.8.66.1", "fd08::66"] {
        assert_eq!(error(nowhere), Some(libc::EAGAIN), "nothing came back within the time");
    }
    let how = Ping { count: 1, timeout: Duration::from_millis(300), ..Ping::default() };
    assert!(!ping(&hosts[0], ip("10.8.77.1"), how).is_ok_and(|report| report.received > 0));
    let totals = node.control.stats().totals;
    let counted = [DropReason::Blackhole, DropReason::Unreachable].map(|why| totals.drops(why));
    assert!(counted[0] >= 2 && counted[1] >= 3, "{}", node.control.stats());
    node.finish();
}

#[test]
fn local_routes_lead_to_the_host_and_may_be_there_first() {
    if !privileged("local_routes_lead_to_the_host_and_may_be_there_first") {
        return;
    }
    let hosts = underlay();
    let left = end(&hosts[0], 0, V4);
    let right = end(&hosts[1], 1, V4);
    for node in [&left, &right] {
        for prefix in ["10.8.0.0/16", "fd08::/64"] {
            let prefix = prefix.parse().unwrap();
            node.control.insert_route(node.segment, prefix, NextHop::Local).unwrap();
        }
    }
    for inner in [INNER_V4[1], INNER_V6[1]] {
        assert!(ping_ok(&hosts[0], ip(inner), 56), "{inner}");
    }
    assert!(!ping_ok(&hosts[0], ip("10.8.5.5"), 56), "the host is where it came from");
    assert!(left.control.stats().totals.drops(DropReason::SamePort) > 0);
    left.finish();
    right.finish();
}
