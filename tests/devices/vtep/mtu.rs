//! Packets that are too large for the overlay or for a path: nobody waits for an answer that never comes.

use std::net::SocketAddr;
use std::time::Duration;

use overplane::{Config, DropReason, MssClamp, MtuOptions, Segment, Vni};
use overplane_lab::{
    Namespace, Ping, Sniffer, Transfer, Vxlan, ping, ping_ok, privileged, tcp_transfer,
};

use crate::hosts::{INNER_V4, INNER_V6, Node, V4, configure, inner_addresses, ip, underlay};

/// A host behind a kernel bridge on `node`, whose other port is `overlay`; all with the MTU of Ethernet, `overlay`
/// with `mtu`.
fn behind_a_bridge(node: &Namespace, overlay: &str, mtu: u32, addresses: &[String]) -> Namespace {
    let host = Namespace::new().unwrap();
    Namespace::veth(node, "veth0", &host, "eth0").unwrap();
    node.add_bridge("br0").unwrap();
    node.set_mtu(overlay, mtu).unwrap();
    for port in ["veth0", overlay] {
        node.set_master(port, "br0").unwrap();
        node.up(port).unwrap();
    }
    node.up("br0").unwrap();
    configure(&host, "eth0", 1500, addresses);
    host
}

/// Hosts with the MTU of Ethernet on both sides of an overlay with less: ours here, the kernel's there.
fn hosts_that_know_nothing(options: MtuOptions) -> ([Namespace; 2], Node, [Namespace; 2]) {
    let nodes = underlay();
    let mut segment = Segment::bridge(Vni::new(42).unwrap());
    segment.mtu_options = options;
    let node = Node::new(&nodes[0], Config::new(ip(V4[0])), segment, &[]);
    node.control.add_flood(node.segment, SocketAddr::new(ip(V4[1]), 4789)).unwrap();
    let remotes = [ip(V4[0])];
    let vxlan = Vxlan { remotes: &remotes, learning: true, ..Vxlan::new("vx0", 42, ip(V4[1])) };
    nodes[1].add_vxlan(&vxlan).unwrap();
    let ours = behind_a_bridge(&nodes[0], "ovl0", 1500, &inner_addresses(0));
    let theirs = behind_a_bridge(&nodes[1], "vx0", 1450, &inner_addresses(1));
    for inner in [INNER_V4, INNER_V6] {
        assert!(ping_ok(&ours, ip(inner[1]), 56));
    }
    (nodes, node, [ours, theirs])
}

#[test]
fn row_18_tcp_gets_through_from_a_host_with_a_larger_mtu() {
    if !privileged("row_18_tcp_gets_through_from_a_host_with_a_larger_mtu") {
        return;
    }
    let (_nodes, node, hosts) = hosts_that_know_nothing(MtuOptions::default());
    // Segment by segment: super-frames would be cut to the MTU, and nobody the wiser.
    hosts[0].set_gso_max_size("eth0", 1800).unwrap();
    for inner in [INNER_V4, INNER_V6] {
        let server = SocketAddr::new(ip(inner[1]), 0);
        let bytes = 1 << 20;
        let report = tcp_transfer(&hosts[0], &hosts[1], server, Transfer::of_bytes(bytes)).unwrap();
        assert_eq!(report.bytes, bytes);
    }
    let totals = node.control.stats().totals;
    assert!(totals.drops(DropReason::TooBig) > 0, "{}", node.control.stats());
    assert!(totals.generated >= 2, "one of each family at least");
    node.finish();
}

#[test]
fn row_18_a_ping_that_is_too_large_is_told_the_mtu() {
    if !privileged("row_18_a_ping_that_is_too_large_is_told_the_mtu") {
        return;
    }
    let (_nodes, node, hosts) = hosts_that_know_nothing(MtuOptions::default());
    let timeout = Duration::from_millis(200);
    let how = Ping { count: 1, timeout, dont_fragment: true, ..Ping::default() };
    for (inner, headers, errors) in [(INNER_V4, 28, [3, 4]), (INNER_V6, 48, [2, 0])] {
        let mut sniffer = Sniffer::incoming(&hosts[0], "eth0").unwrap();
        let one_more = Ping { payload: 1451 - headers, ..how };
        assert_eq!(ping(&hosts[0], ip(inner[1]), one_more).unwrap().received, 0);
        let icmp = if headers == 28 { 14 + 20 } else { 14 + 40 };
        let told = sniffer
            .find(Duration::from_secs(2), |frame| frame.get(icmp..icmp + 2) == Some(&errors[..]));
        let told = told.unwrap();
        let source = match ip(inner[1]) {
            std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
            std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let at = if headers == 28 { 14 + 12 } else { 14 + 8 };
        assert_eq!(told[at..at + source.len()], source, "from the address it was going to");
        // The host has taken it to heart: it refuses by itself what is too large, and what fits gets through.
        let before = node.control.stats().totals.drops(DropReason::TooBig);
        assert_eq!(ping(&hosts[0], ip(inner[1]), one_more).unwrap().received, 0);
        assert_eq!(node.control.stats().totals.drops(DropReason::TooBig), before);
        let fits = Ping { payload: 1450 - headers, timeout: Duration::from_secs(2), ..how };
        assert_eq!(ping(&hosts[0], ip(inner[1]), fits).unwrap().received, 1);
    }
    node.finish();
}

/// Without a word to anybody: TCP never makes anything that is too large.
#[test]
fn row_19_clamped_tcp_gets_through_where_nobody_hears_of_errors() {
    if !privileged("row_19_clamped_tcp_gets_through_where_nobody_hears_of_errors") {
        return;
    }
    let mut options = MtuOptions::default();
    options.too_big_errors = false;
    options.clamp_mss = MssClamp::ToMtu;
    let (_nodes, node, hosts) = hosts_that_know_nothing(options);
    hosts[0].set_gso_max_size("eth0", 1800).unwrap();
    hosts[1].set_gso_max_size("eth0", 1800).unwrap();
    for (from, to) in [(0, 1), (1, 0)] {
        for inner in [INNER_V4, INNER_V6] {
            let server = SocketAddr::new(ip(inner[to]), 0);
            let what = Transfer::of_bytes(1 << 20);
            assert_eq!(
                tcp_transfer(&hosts[from], &hosts[to], server, what).unwrap().bytes,
                1 << 20
            );
        }
    }
    let totals = node.control.stats().totals;
    assert_eq!((totals.drops(DropReason::TooBig), totals.generated), (0, 0));
    node.finish();
}
