//! VXLAN between a dataplane and the kernel's VXLAN device.

use std::net::SocketAddr;

use overplane::{Config, DropReason, Offload, Offloads, Segment, Vni};
use overplane_lab::{
    Namespace, Transfer, UdpLoad, UdpSender, Vxlan, ping_ok, privileged, tcp_transfer,
};

use crate::hosts::{
    INNER_V4, INNER_V6, Node, V4, V6, configure, eventually, inner_addresses, ip,
    ping_around_the_mtu, tcp_both_ways, underlay,
};

/// Makes the second host's end the kernel's.
pub(crate) fn kernel_end(host: &Namespace, local: &str, peer: &str, mtu: u32, learning: bool) {
    let remotes = [ip(peer)];
    host.add_vxlan(&Vxlan { remotes: &remotes, learning, ..Vxlan::new("vx0", 42, ip(local)) })
        .unwrap();
    configure(host, "vx0", mtu, &inner_addresses(1));
}

fn check([a, b]: [&str; 2], mtu: u32, learning: bool) {
    let hosts = underlay();
    let node = Node::vxlan(&hosts[0], a, b, &inner_addresses(0));
    kernel_end(&hosts[1], b, a, mtu, learning);
    ping_around_the_mtu([&hosts[0], &hosts[1]], mtu as usize);
    tcp_both_ways([&hosts[0], &hosts[1]], 16 << 20);
    let totals = node.control.stats().totals;
    assert_eq!(totals.drops(DropReason::TooBig), 0, "{}", node.control.stats());
    assert_eq!(totals.drops(DropReason::UnknownVtep), 0);
    node.finish();
}

#[test]
fn row_23_is_a_peer_of_the_kernels_vxlan_over_ipv4() {
    if privileged("row_23_is_a_peer_of_the_kernels_vxlan_over_ipv4") {
        check(V4, 1450, true);
    }
}

#[test]
fn row_23_is_a_peer_of_the_kernels_vxlan_over_ipv6() {
    if privileged("row_23_is_a_peer_of_the_kernels_vxlan_over_ipv6") {
        check(V6, 1430, true);
    }
}

#[test]
fn row_23_is_a_peer_of_a_kernel_that_does_not_learn() {
    if privileged("row_23_is_a_peer_of_a_kernel_that_does_not_learn") {
        check(V4, 1450, false);
    }
}

/// UDP super-frames arrive from the kernel whole, with the size of their datagrams: each of these has to reach the
/// receiver as it was sent, whatever the switches say.
#[test]
fn row_08_the_kernels_udp_super_frames_are_datagrams_in_the_end() {
    if !privileged("row_08_the_kernels_udp_super_frames_are_datagrams_in_the_end") {
        return;
    }
    let hosts = underlay();
    let node = Node::vxlan(&hosts[0], V4[0], V4[1], &inner_addresses(0));
    kernel_end(&hosts[1], V4[1], V4[0], 1450, true);
    for inner in [INNER_V4, INNER_V6] {
        assert!(ping_ok(&hosts[1], ip(inner[0]), 100));
        // Super-frames below and above the MTU, and with chunks of both sizes.
        for (payload, per_call) in [(64, 4), (64, 64), (1200, 2), (1200, 40)] {
            let sets = [
                Offloads::ALL,
                Offloads::ALL.without(Offload::UdpGro),
                // Devices get none, also none that was received as one.
                Offloads::ALL.without(Offload::CoalesceUdp),
            ];
            for set in sets {
                node.control.set_offloads(set);
                let how = UdpSender { payload, flows: 1, per_call, joined: false };
                let to = SocketAddr::new(ip(inner[0]), 0);
                let load = UdpLoad::start(&hosts[1], &hosts[0], to, how).unwrap();
                eventually(15, "datagrams of the size that was sent", || load.arrived() > 5000);
                load.stop().unwrap();
            }
        }
    }
    node.finish();
}

/// On a veth pair the kernel hands its TCP super-frames over whole, and they must stay whole: cut to pieces, or worse,
/// dropped and sent again, the transfer would take many times as many frames.
#[test]
fn row_08_the_kernels_super_frames_stay_whole() {
    if !privileged("row_08_the_kernels_super_frames_stay_whole") {
        return;
    }
    let hosts = underlay();
    let node = Node::vxlan(&hosts[0], V4[0], V4[1], &inner_addresses(0));
    kernel_end(&hosts[1], V4[1], V4[0], 1450, true);
    let bytes = 64 << 20;
    let server = SocketAddr::new(ip(INNER_V4[0]), 0);
    let report = tcp_transfer(&hosts[1], &hosts[0], server, Transfer::of_bytes(bytes)).unwrap();
    assert_eq!(report.bytes, bytes);
    let port = node.control.stats().ports[0].traffic;
    let mean = port.sent_bytes / port.sent_packets;
    assert!(mean > 5_000, "frames delivered are {mean} bytes in the mean");
    node.finish();
}

/// A VXLAN device made without a lower device has the MTU of Ethernet, more than the segment's: the kernel then sends
/// outer fragments, and what is in them is delivered as it is.
#[test]
fn row_08_a_kernel_peer_with_a_larger_mtu_is_heard() {
    if !privileged("row_08_a_kernel_peer_with_a_larger_mtu_is_heard") {
        return;
    }
    let hosts = underlay();
    let node = Node::vxlan(&hosts[0], V4[0], V4[1], &inner_addresses(0));
    kernel_end(&hosts[1], V4[1], V4[0], 1500, true);
    for payload in [1422, 1423, 1472, 3000] {
        assert!(ping_ok(&hosts[1], ip(INNER_V4[0]), payload), "{payload} bytes");
    }
    tcp_both_ways([&hosts[0], &hosts[1]], 4 << 20);
    node.finish();
}

/// Flannel's vxlan backend: VNI 1 on UDP port 8472, no learning, no flooding, static entries only.
#[test]
fn is_a_peer_of_flannels_vxlan_backend() {
    if !privileged("is_a_peer_of_flannels_vxlan_backend") {
        return;
    }
    let hosts = underlay();
    let mut segment = Segment::bridge(Vni::new(1).unwrap());
    segment.udp_port = 8472;
    segment.learning = false;
    let node = Node::new(&hosts[0], Config::new(ip(V4[0])), segment, &["10.244.0.0/32".into()]);
    let peer = Vxlan { port: 8472, learning: false, ..Vxlan::new("flannel.1", 1, ip(V4[1])) };
    hosts[1].add_vxlan(&peer).unwrap();
    configure(&hosts[1], "flannel.1", 1450, &["10.244.1.0/32".into()]);

    let macs = [hosts[0].mac("ovl0").unwrap(), hosts[1].mac("flannel.1").unwrap()];
    hosts[1].bridge_fdb_add("flannel.1", macs[0], ip(V4[0])).unwrap();
    hosts[1].add_neighbour("flannel.1", ip("10.244.0.0"), macs[0]).unwrap();
    hosts[1].add_route("10.244.0.0/24", None, Some("flannel.1")).unwrap();
    let vtep = SocketAddr::new(ip(V4[1]), 8472);
    node.control.insert_fdb(node.segment, overplane::MacAddr(macs[1]), vtep).unwrap();
    let here = overplane::MacAddr(macs[0]);
    node.control.insert_fdb(node.segment, here, node.port).unwrap();
    hosts[0].add_neighbour("ovl0", ip("10.244.1.0"), macs[1]).unwrap();
    hosts[0].add_route("10.244.1.0/24", None, Some("ovl0")).unwrap();

    for payload in [0, 56, 1422, 3000] {
        assert!(ping_ok(&hosts[0], ip("10.244.1.0"), payload), "{payload} out");
        assert!(ping_ok(&hosts[1], ip("10.244.0.0"), payload), "{payload} in");
    }
    assert_eq!(node.control.stats().segments[0].learned, 0);
    node.finish();
}
