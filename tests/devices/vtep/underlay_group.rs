//! A multicast group of the underlay, with the kernel as another member.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overplane::{Config, Control, Dataplane, DropReason, Segment, Vni};
use overplane_lab::{Namespace, Sniffer, Vxlan, ping_ok, privileged};

use crate::hosts::{
    INNER_V4, INNER_V6, Node, V4, V6, configure, eventually, inner_addresses, ip, tcp_both_ways,
    underlay,
};

/// Groups of VTEPs, by family.
const GROUP: [&str; 2] = ["239.1.1.1", "ff05::4242"];

fn kernel_member(host: &Namespace, local: &str, group: &str, mtu: u32) {
    let group = Some((ip(group), "eth0"));
    host.add_vxlan(&Vxlan { group, ..Vxlan::new("vx0", 42, ip(local)) }).unwrap();
    configure(host, "vx0", mtu, &inner_addresses(1));
}

/// Whether a host is a member of a group on some interface.
fn is_member(host: &Namespace, group: &str) -> bool {
    let (file, name) = match ip(group) {
        IpAddr::V4(ip) => {
            ("/proc/thread-self/net/igmp", format!("{:08X}", u32::from_ne_bytes(ip.octets())))
        }
        IpAddr::V6(ip) => ("/proc/thread-self/net/igmp6", format!("{:032x}", ip.to_bits())),
    };
    host.run(|| fs::read_to_string(file).unwrap()).contains(&name)
}

fn flood(control: &Control, node: &Node, group: &str) -> SocketAddr {
    let group = SocketAddr::new(ip(group), 4789);
    control.add_flood(node.segment, group).unwrap();
    group
}

fn check(locals: [&str; 2], group: &str, mtu: u32, open: bool) {
    let hosts = underlay();
    let mut segment = Segment::bridge(Vni::new(42).unwrap());
    segment.open = open;
    let node = Node::new(&hosts[0], Config::new(ip(locals[0])), segment, &inner_addresses(0));
    assert!(!is_member(&hosts[0], group));
    let address = flood(&node.control, &node, group);
    eventually(5, "a member", || is_member(&hosts[0], group));
    kernel_member(&hosts[1], locals[1], group, mtu);
    let mut wire = Sniffer::incoming(&hosts[1], "eth0").unwrap();
    if !open {
        assert!(!ping_ok(&hosts[0], ip(INNER_V4[1]), 100), "nobody is heard yet");
        assert!(node.control.stats().totals.drops(DropReason::UnknownVtep) > 0);
        node.control.add_peer(node.segment, SocketAddr::new(ip(locals[1]), 4789)).unwrap();
    }
    for payload in [0, 1000, 3000] {
        for inner in [INNER_V4, INNER_V6] {
            assert!(ping_ok(&hosts[0], ip(inner[1]), payload), "{payload} bytes out");
            assert!(ping_ok(&hosts[1], ip(inner[0]), payload), "{payload} bytes in");
        }
    }
    tcp_both_ways([&hosts[0], &hosts[1]], 4 << 20);
    // The request for a neighbour went to the group, and over this link alone.
    let (destination, hops) = if ip(group).is_ipv4() { (30..34, 22) } else { (38..54, 21) };
    let octets = match ip(group) {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let to_group = |frame: &[u8]| {
        frame.get(destination.clone()) == Some(&octets)
            && frame.windows(8).any(|w| w == [8, 0, 0, 0, 0, 0, 42, 0])
    };
    let sent = wire.find(Duration::from_secs(1), to_group).expect("a datagram to the group");
    assert_eq!(sent[hops], 1, "as the kernel sends to groups unless told otherwise");
    // Left with the last that sends there, and not before.
    let other = node.control.add_segment(Segment::bridge(Vni::new(43).unwrap())).unwrap();
    node.control.add_flood(other, address).unwrap();
    node.control.remove_flood(node.segment, address).unwrap();
    assert!(is_member(&hosts[0], group));
    node.control.remove_segment(other).unwrap();
    eventually(5, "the group is left", || !is_member(&hosts[0], group));
    node.control.add_flood(node.segment, address).unwrap();
    eventually(5, "and joined again", || is_member(&hosts[0], group));
    node.finish();
}

#[test]
fn row_14_is_a_member_of_a_group_with_the_kernel_over_ipv4() {
    if privileged("row_14_is_a_member_of_a_group_with_the_kernel_over_ipv4") {
        check(V4, GROUP[0], 1450, false);
    }
}

#[test]
fn row_14_is_a_member_of_a_group_with_the_kernel_over_ipv6() {
    if privileged("row_14_is_a_member_of_a_group_with_the_kernel_over_ipv6") {
        check(V6, GROUP[1], 1430, false);
    }
}

#[test]
fn row_14_an_open_segment_finds_the_members_of_its_group() {
    if privileged("row_14_an_open_segment_finds_the_members_of_its_group") {
        check(V4, GROUP[0], 1450, true);
    }
}

/// Nothing that this node sends to the group comes back to it, however many workers it has.
#[test]
fn row_14_a_member_does_not_hear_itself() {
    if !privileged("row_14_a_member_does_not_hear_itself") {
        return;
    }
    let hosts = underlay();
    let mut config = Config::new(ip(V4[0]));
    config.workers = 2;
    let dataplane = hosts[0].run(|| Dataplane::start(config)).unwrap();
    let mut segment = Segment::bridge(Vni::new(42).unwrap());
    segment.open = true;
    let node = Node::with(&hosts[0], dataplane, false, segment, &inner_addresses(0));
    flood(&node.control, &node, GROUP[0]);
    kernel_member(&hosts[1], V4[1], GROUP[0], 1450);
    assert!(ping_ok(&hosts[1], ip(INNER_V4[0]), 100));
    let stats = node.control.stats();
    assert_eq!(stats.totals.drops(DropReason::UnknownVtep), 0, "{stats}");
    // One copy of each datagram: the kernel's own count of what it sent is what has been received.
    let sent = hosts[1].link_stats("vx0").unwrap().tx_packets;
    let received = node.control.stats().segments[0].traffic.received_packets;
    assert!(received <= sent + 10, "{received} of {sent}");
    node.finish();
}
