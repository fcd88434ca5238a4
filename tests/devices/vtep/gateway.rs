//! Containers as Calico sets them up, behind a TAP of a routed segment: one address, and a default route by way of a gateway
//! that answers ARP and neighbour discovery.

use std::net::{IpAddr, SocketAddr};

use overplane::{Config, Dataplane, Device, DropReason, Gateway, PortOptions, Segment, Vni};
use overplane_lab::{Namespace, Sniffer, Transfer, ping_ok, privileged, tcp_transfer};

use super::routed_vxlan::{CALICO, FLANNEL_V6, HERE, Overlay};
use crate::hosts::{Node, configure, ip, underlay};

/// A node with a container behind a TAP, and the kernel on the other side.
fn node(overlay: &Overlay, mtu: u32, gateway: Gateway) -> ([Namespace; 2], Node) {
    let hosts = underlay();
    let mac = overlay.kernel(&hosts[1], mtu);
    let local = ip(overlay.underlay[0]);
    let dataplane = hosts[0].run(|| Dataplane::start(Config::new(local))).unwrap();
    let control = dataplane.control();
    let mut segment = Segment::routed_vxlan(Vni::new(overlay.vni).unwrap(), HERE);
    segment.udp_port = overlay.udp_port;
    let segment = control.add_segment(segment).unwrap();
    let pod = Namespace::new().unwrap();
    let mut options = PortOptions::default();
    options.gateway = Some(gateway);
    let device = Device::tap_in(&pod, "eth0").unwrap();
    let port = control.attach_with(segment, device, options).unwrap();
    let own = format!("{}/{}", overlay.pods[0], if local.is_ipv4() { 32 } else { 128 });
    control.insert_route(segment, own.parse().unwrap(), port).unwrap();
    control.set_vtep_mac(segment, overlay.vtep(), mac).unwrap();
    control.insert_route(segment, overlay.prefixes[1].parse().unwrap(), overlay.vtep()).unwrap();
    configure(&pod, "eth0", mtu, &[own]);
    (hosts, Node { host: pod, dataplane, control, segment, port })
}

/// The routes that Calico's CNI plugin makes (Calico `cni-plugin/pkg/dataplane/linux/dataplane_linux.go`).
fn calicos_routes(pod: &Namespace, gateway: IpAddr) {
    let (whole, all) = if gateway.is_ipv4() { ("/32", "0.0.0.0/0") } else { ("/128", "::/0") };
    pod.add_route(format!("{gateway}{whole}"), None, Some("eth0")).unwrap();
    pod.add_route(all, Some(gateway), Some("eth0")).unwrap();
}

fn check(overlay: &Overlay, mtu: u32) {
    let gateway = Gateway::default();
    let v4 = ip(overlay.pods[0]).is_ipv4();
    let router = *gateway.addresses.iter().find(|address| address.is_ipv4() == v4).unwrap();
    let (hosts, node) = node(overlay, mtu, gateway);
    calicos_routes(&node.host, router);
    let [here, there] = overlay.pods.map(ip);
    let full = mtu as usize - overlay.headers();
    for payload in [0, 56, full, full + 1, 9000] {
        assert!(ping_ok(&node.host, there, payload), "{payload} bytes out");
        assert!(ping_ok(&hosts[1], here, payload), "{payload} bytes in");
    }
    for (from, to, server) in [(&node.host, &hosts[1], there), (&hosts[1], &node.host, here)] {
        let server = SocketAddr::new(server, 0);
        let report = tcp_transfer(from, to, server, Transfer::of_bytes(16 << 20)).unwrap();
        assert_eq!(report.bytes, 16 << 20);
    }
    let stats = node.control.stats();
    assert!(stats.totals.answered > 0 && stats.totals.drops(DropReason::OtherMac) == 0, "{stats}");
    let port = stats.ports[0].traffic;
    for (bytes, packets) in
        [(port.received_bytes, port.received_packets), (port.sent_bytes, port.sent_packets)]
    {
        assert!(bytes / packets > 2000, "{bytes} bytes in {packets} frames are no super-frames");
    }
    node.finish();
}

#[test]
fn row_20_a_calico_container_finds_its_gateway_over_ipv4() {
    if privileged("row_20_a_calico_container_finds_its_gateway_over_ipv4") {
        check(&CALICO, 1450);
    }
}

#[test]
fn row_20_a_calico_container_finds_its_gateway_over_ipv6() {
    if privileged("row_20_a_calico_container_finds_its_gateway_over_ipv6") {
        check(&FLANNEL_V6, 1430);
    }
}

/// A container that takes everybody to be on its link finds everybody, and no address of its own to be taken.
#[test]
fn row_20_a_container_without_a_router_is_answered_for_all_but_itself() {
    if !privileged("row_20_a_container_without_a_router_is_answered_for_all_but_itself") {
        return;
    }
    let mut gateway = Gateway::default();
    gateway.answer_all = true;
    let (hosts, node) = node(&FLANNEL_V6, 1430, gateway);
    let [here, there] = FLANNEL_V6.pods.map(ip);
    let pod = &node.host;
    pod.add_route("fd10:244::/56", None, Some("eth0")).unwrap();
    assert!(ping_ok(pod, there, 56) && ping_ok(&hosts[1], here, 56));
    pod.sysctl("net/ipv6/conf/eth0/accept_dad", "1").unwrap();
    assert!(pod.claim_address("eth0", "fd10:244::77/128").unwrap(), "nobody has it");
    node.finish();
}

/// The first packet to a container that has said nothing makes the gateway ask for it.
#[test]
fn row_20_a_silent_container_is_asked_for() {
    if !privileged("row_20_a_silent_container_is_asked_for") {
        return;
    }
    let (hosts, node) = node(&CALICO, 1450, Gateway::default());
    let here = ip(CALICO.pods[0]);
    calicos_routes(&node.host, ip("169.254.1.1"));
    let _ = node.host.sysctl("net/ipv6/conf/eth0/disable_ipv6", "1");
    // A gateway that has just been made knows nothing yet.
    let mut options = PortOptions::default();
    for mac in [2, 0xee] {
        let mut gateway = Gateway::default();
        gateway.mac.0[5] = mac;
        options.gateway = Some(gateway);
        node.control.set_port(node.port, options.clone()).unwrap();
    }
    let mut seen = Sniffer::incoming(&node.host, "eth0").unwrap();
    assert!((0..3).any(|_| ping_ok(&hosts[1], here, 56)));
    let asked = seen.drain().iter().any(|frame| frame[12..14] == [8, 6] && frame[21] == 1);
    let known = node.control.stats().totals.drops(DropReason::Unresolved) == 0;
    assert!(asked || known, "asked for, unless it had spoken by then");
    node.finish();
}
