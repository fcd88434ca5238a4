//! Routed segments in VXLAN beside kernel devices that are set up as flannel's vxlan backend and Calico do it.

use std::net::{IpAddr, SocketAddr};

use overplane::wire::vxlan::{PORT, PORT_LINUX};
use overplane::{Config, DropReason, MacAddr, Segment, Vni};
use overplane_lab::{
    Namespace, Transfer, UdpLoad, UdpSender, Vxlan, ping_ok, privileged, tcp_transfer,
};

use crate::hosts::{Node, V4, V6, configure, eventually, ip, underlay};

/// MAC address of this node's VTEP.
pub(super) const HERE: MacAddr = MacAddr([0x0e, 0x2a, 0, 0, 0, 1]);

/// One family of an overlay network: a prefix for each node, which has the prefix's first address on its VTEP, and
/// another one that stands for a pod.
pub(super) struct Overlay {
    device: &'static str,
    pub(super) vni: u32,
    pub(super) udp_port: u16,
    pub(super) underlay: [&'static str; 2],
    /// All prefixes of the nodes are inside this one.
    network: &'static str,
    pub(super) prefixes: [&'static str; 2],
    gateways: [&'static str; 2],
    pub(super) pods: [&'static str; 2],
}

const FLANNEL: Overlay = Overlay {
    device: "flannel.1",
    vni: 1,
    udp_port: PORT_LINUX,
    underlay: V4,
    network: "/16",
    prefixes: ["10.244.0.0/24", "10.244.1.0/24"],
    gateways: ["10.244.0.0", "10.244.1.0"],
    pods: ["10.244.0.1", "10.244.1.1"],
};

pub(super) const FLANNEL_V6: Overlay = Overlay {
    device: "flannel-v6.1",
    underlay: V6,
    network: "/56",
    prefixes: ["fd10:244::/64", "fd10:244:0:1::/64"],
    gateways: ["fd10:244::", "fd10:244:0:1::"],
    pods: ["fd10:244::1", "fd10:244:0:1::1"],
    ..FLANNEL
};

pub(super) const CALICO: Overlay = Overlay {
    device: "vxlan.calico",
    vni: 4096,
    udp_port: PORT,
    underlay: V4,
    network: "/16",
    prefixes: ["192.168.10.0/26", "192.168.20.64/26"],
    gateways: ["192.168.10.0", "192.168.20.64"],
    pods: ["192.168.10.1", "192.168.20.65"],
};

impl Overlay {
    /// The peer: a kernel device without learning, with a permanent neighbour, an FDB entry and an onlink route for the
    /// other node (flannel `pkg/backend/vxlan/vxlan_network.go`; Calico `felix/dataplane/linux/vxlan_mgr.go`).
    pub(super) fn kernel(&self, host: &Namespace, mtu: u32) -> MacAddr {
        let local = ip(self.underlay[1]);
        let vxlan = Vxlan {
            port: self.udp_port,
            learning: false,
            ..Vxlan::new(self.device, self.vni, local)
        };
        host.add_vxlan(&vxlan).unwrap();
        let whole = if local.is_ipv4() { "/32" } else { "/128" };
        configure(host, self.device, mtu, &[format!("{}{whole}", self.gateways[1])]);
        host.add_bridge("cni0").unwrap();
        let length = self.prefixes[1].split_once('/').unwrap().1;
        host.add_address("cni0", format!("{}/{length}", self.pods[1])).unwrap();
        host.up("cni0").unwrap();
        host.add_neighbour(self.device, ip(self.gateways[0]), HERE.0).unwrap();
        host.bridge_fdb_add(self.device, HERE.0, ip(self.underlay[0])).unwrap();
        host.add_onlink_route(self.prefixes[0], ip(self.gateways[0]), self.device).unwrap();
        MacAddr(host.mac(self.device).unwrap())
    }

    /// This end: the same, as a route and the VTEP's MAC address.
    fn node(&self, host: &Namespace, mac: MacAddr) -> Node {
        let mut segment = Segment::routed_vxlan(Vni::new(self.vni).unwrap(), HERE);
        segment.udp_port = self.udp_port;
        let addresses = [format!("{}{}", self.pods[0], self.network)];
        let node = Node::new(host, Config::new(ip(self.underlay[0])), segment, &addresses);
        node.control.set_vtep_mac(node.segment, self.vtep(), mac).unwrap();
        node.control
            .insert_route(node.segment, self.prefixes[1].parse().unwrap(), self.vtep())
            .unwrap();
        node
    }

    pub(super) fn vtep(&self) -> SocketAddr {
        SocketAddr::new(ip(self.underlay[1]), self.udp_port)
    }

    pub(super) fn headers(&self) -> usize {
        if ip(self.pods[0]).is_ipv4() { 28 } else { 48 }
    }
}

/// Pings, TCP and UDP both ways, with super-frames and datagrams of every size around the MTU.
fn check(overlay: &Overlay, mtu: u32) {
    let hosts = underlay();
    let mac = overlay.kernel(&hosts[1], mtu);
    let node = overlay.node(&hosts[0], mac);
    assert_eq!(node.mtu(), mtu as usize);
    let pods: [IpAddr; 2] = overlay.pods.map(ip);
    let full = mtu as usize - overlay.headers();
    for payload in [0, 56, full - 1, full, full + 1, 3000, 9000] {
        for to in [overlay.gateways[1], overlay.pods[1]] {
            assert!(ping_ok(&hosts[0], ip(to), payload), "{payload} bytes to {to}");
        }
        assert!(ping_ok(&hosts[1], pods[0], payload), "{payload} bytes from the kernel");
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let server = SocketAddr::new(pods[to], 0);
        let before = node.control.stats().ports[0].traffic;
        let report =
            tcp_transfer(&hosts[from], &hosts[to], server, Transfer::of_bytes(16 << 20)).unwrap();
        assert_eq!(report.bytes, 16 << 20);
        let after = node.control.stats().ports[0].traffic;
        let (bytes, frames) = match to {
            0 => (after.sent_bytes - before.sent_bytes, after.sent_packets - before.sent_packets),
            _ => (
                after.received_bytes - before.received_bytes,
                after.received_packets - before.received_packets,
            ),
        };
        assert!(bytes / frames > 3000, "{bytes} bytes in {frames} frames are no super-frames");
        for per_call in [1, 40] {
            let how = UdpSender { payload: 1200, flows: 1, per_call, joined: false };
            let load = UdpLoad::start(&hosts[from], &hosts[to], server, how).unwrap();
            eventually(3, "datagrams of the size that was sent", || load.arrived() > 1000);
            load.stop().unwrap();
        }
    }
    let stats = node.control.stats();
    for reason in [DropReason::OtherMac, DropReason::NoVtepMac, DropReason::UnknownVtep] {
        assert_eq!(stats.totals.drops(reason), 0, "{stats}");
    }
    node.finish();
}

#[test]
fn row_23_flannel_over_ipv4_is_set_up_as_flanneld_does() {
    if privileged("row_23_flannel_over_ipv4_is_set_up_as_flanneld_does") {
        check(&FLANNEL, 1450);
    }
}

#[test]
fn row_23_flannel_over_ipv6_is_set_up_as_flanneld_does() {
    if privileged("row_23_flannel_over_ipv6_is_set_up_as_flanneld_does") {
        check(&FLANNEL_V6, 1430);
    }
}

#[test]
fn row_23_calico_is_set_up_as_felix_does() {
    if privileged("row_23_calico_is_set_up_as_felix_does") {
        check(&CALICO, 1450);
    }
}

/// Each end takes what is for its own MAC address alone, and sends nothing to one that it does not know.
#[test]
fn row_23_flannel_frames_for_another_mac_address_are_dropped_with_a_reason() {
    if !privileged("row_23_flannel_frames_for_another_mac_address_are_dropped_with_a_reason") {
        return;
    }
    let hosts = underlay();
    let mac = FLANNEL.kernel(&hosts[1], 1450);
    let node = FLANNEL.node(&hosts[0], mac);
    let [here, there] = FLANNEL.pods.map(ip);
    assert!(ping_ok(&hosts[0], there, 56));
    let drops = |reason| node.control.stats().totals.drops(reason);

    // The kernel has the address of a node that was here before.
    let old = MacAddr([0x0e, 0x2a, 0, 0, 0, 9]);
    hosts[1].add_neighbour(FLANNEL.device, ip(FLANNEL.gateways[0]), old.0).unwrap();
    hosts[1].bridge_fdb_add(FLANNEL.device, old.0, ip(FLANNEL.underlay[0])).unwrap();
    assert!(!ping_ok(&hosts[1], here, 56));
    assert!(drops(DropReason::OtherMac) > 0);
    hosts[1].add_neighbour(FLANNEL.device, ip(FLANNEL.gateways[0]), HERE.0).unwrap();
    assert!(ping_ok(&hosts[1], here, 56));

    node.control.remove_vtep_mac(node.segment, FLANNEL.vtep()).unwrap();
    assert!(!ping_ok(&hosts[0], there, 56));
    assert!(drops(DropReason::NoVtepMac) > 0);
    node.control.set_vtep_mac(node.segment, FLANNEL.vtep(), mac).unwrap();
    assert!(ping_ok(&hosts[0], there, 56));
    node.finish();
}
