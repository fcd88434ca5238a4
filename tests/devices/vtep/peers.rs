//! Whom a node hears, what it takes from them, and what it passes on as it is.

use std::net::SocketAddr;
use std::time::Duration;

use overplane::{Config, Device, DeviceKind, DropReason, MacAddr, Segment, Vni};
use overplane_lab::{Namespace, Sniffer, Vxlan, ping_ok, privileged};

use crate::hosts::{INNER_V4, Node, V4, configure, eventually, inner_addresses, ip, underlay};
use crate::kernel_peer::kernel_end;

/// An underlay address of the second host that nobody was told of.
const STRANGER: &str = "10.9.0.66";

/// The kernel's VXLAN device on the second host, at an address of its own.
fn stranger(host: &Namespace, inner: &[String]) {
    host.add_address("eth0", format!("{STRANGER}/24")).unwrap();
    let remotes = [ip(V4[0])];
    host.add_vxlan(&Vxlan { remotes: &remotes, ..Vxlan::new("vx0", 42, ip(STRANGER)) }).unwrap();
    configure(host, "vx0", 1450, inner);
}

#[test]
fn row_26_a_stranger_is_not_heard_until_it_is_named() {
    if !privileged("row_26_a_stranger_is_not_heard_until_it_is_named") {
        return;
    }
    let hosts = underlay();
    let node = Node::vxlan(&hosts[0], V4[0], V4[1], &inner_addresses(0));
    stranger(&hosts[1], &inner_addresses(1));
    assert!(!ping_ok(&hosts[1], ip(INNER_V4[0]), 56));
    let stats = node.control.stats();
    assert!(stats.totals.drops(DropReason::UnknownVtep) > 0, "{stats}");
    let mac = MacAddr(hosts[1].mac("vx0").unwrap());
    let fdb = node.control.fdb(node.segment).unwrap();
    assert!(fdb.iter().all(|entry| entry.mac != mac), "nothing was learned: {fdb:?}");
    node.control.add_flood(node.segment, SocketAddr::new(ip(STRANGER), 4789)).unwrap();
    eventually(5, "it is heard now", || ping_ok(&hosts[1], ip(INNER_V4[0]), 56));
    node.finish();
}

/// The peer's own device sends from another underlay address than the one that the entry names.
#[test]
fn row_11_a_static_entry_holds_against_a_kernel_peer() {
    if !privileged("row_11_a_static_entry_holds_against_a_kernel_peer") {
        return;
    }
    let hosts = underlay();
    let node = Node::vxlan(&hosts[0], V4[0], V4[1], &inner_addresses(0));
    stranger(&hosts[1], &inner_addresses(1));
    let at = |address| SocketAddr::new(ip(address), 4789);
    node.control.add_flood(node.segment, at(STRANGER)).unwrap();
    eventually(5, "a known peer", || ping_ok(&hosts[1], ip(INNER_V4[0]), 56));
    let mac = MacAddr(hosts[1].mac("vx0").unwrap());
    node.control.insert_fdb(node.segment, mac, at(V4[1])).unwrap();
    assert!(!ping_ok(&hosts[1], ip(INNER_V4[0]), 56));
    let stats = node.control.stats();
    assert!(stats.totals.drops(DropReason::PinnedSource) > 0, "{stats}");
    node.control.insert_fdb(node.segment, mac, at(STRANGER)).unwrap();
    eventually(5, "the entry is right now", || ping_ok(&hosts[1], ip(INNER_V4[0]), 56));
    node.finish();
}

/// One tag and two. A host takes tags off before anybody on it sees them, so they are looked at where they cannot have
/// been touched: on the wire, and at a port that is no device.
#[test]
fn row_08_vlan_tags_pass_to_and_from_the_kernel() {
    if !privileged("row_08_vlan_tags_pass_to_and_from_the_kernel") {
        return;
    }
    let hosts = underlay();
    let node = Node::vxlan(&hosts[0], V4[0], V4[1], &inner_addresses(0));
    kernel_end(&hosts[1], V4[1], V4[0], 1450, true);
    let (device, port) = Device::channel(DeviceKind::Tap, 1024).unwrap();
    node.control.attach(node.segment, device).unwrap();
    let mut wire = Sniffer::incoming(&hosts[1], "eth0").unwrap();
    let mut behind = Sniffer::incoming(&hosts[1], "vx0").unwrap();
    let kernel = Sniffer::open(&hosts[1], "vx0").unwrap();
    let patience = Duration::from_secs(3);
    for tags in [&[0x81, 0, 0x20, 5][..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5]] {
        let frame = |from: u8| {
            let addresses = [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, from];
            let mut frame = [&addresses[..], tags, &[0x88, 0xb5, b't', b'a', b'g']].concat();
            frame.resize(100, from);
            frame
        };
        let ends_with = |seen: &[u8], bytes: &[u8]| seen.ends_with(bytes);
        let out = frame(1);
        port.send(out.clone().into()).unwrap();
        assert!(
            wire.find(patience, |seen| ends_with(seen, &out)).is_some(),
            "sent with {tags:02x?}"
        );
        // Behind the first tag, which the kernel has taken off.
        assert!(behind.find(patience, |seen| ends_with(seen, &out[16..])).is_some(), "{tags:02x?}");
        let back = frame(2);
        kernel.inject(&back).unwrap();
        eventually(3, "it is delivered with its tags", || {
            port.try_receive().is_some_and(|frame| *frame == *back)
        });
    }
    node.finish();
}

/// Calico's VXLAN mode: VNI 4096 on the IANA port, without learning, an entry for each host.
#[test]
fn row_23_is_a_peer_of_calicos_vxlan_device() {
    if !privileged("row_23_is_a_peer_of_calicos_vxlan_device") {
        return;
    }
    let hosts = underlay();
    let mut segment = Segment::bridge(Vni::new(4096).unwrap());
    segment.learning = false;
    let addresses = [["10.244.0.0/32".to_owned()], ["10.244.1.0/32".to_owned()]];
    let node = Node::new(&hosts[0], Config::new(ip(V4[0])), segment, &addresses[0]);
    let peer = Vxlan { learning: false, ..Vxlan::new("vxlan.calico", 4096, ip(V4[1])) };
    hosts[1].add_vxlan(&peer).unwrap();
    configure(&hosts[1], "vxlan.calico", 1450, &addresses[1]);
    let macs = [hosts[0].mac("ovl0").unwrap(), hosts[1].mac("vxlan.calico").unwrap()];
    for (n, device, mac) in [(0, "ovl0", macs[1]), (1, "vxlan.calico", macs[0])] {
        hosts[n].add_neighbour(device, ip(["10.244.1.0", "10.244.0.0"][n]), mac).unwrap();
        let block = ["10.244.1.0/26", "10.244.0.0/26"][n];
        hosts[n].add_route(block, None, Some(device)).unwrap();
    }
    hosts[1].bridge_fdb_add("vxlan.calico", macs[0], ip(V4[0])).unwrap();
    node.control
        .insert_fdb(node.segment, MacAddr(macs[1]), SocketAddr::new(ip(V4[1]), 4789))
        .unwrap();
    node.control.insert_fdb(node.segment, MacAddr(macs[0]), node.port).unwrap();
    for payload in [0, 1422, 3000] {
        assert!(ping_ok(&hosts[0], ip("10.244.1.0"), payload), "{payload} out");
        assert!(ping_ok(&hosts[1], ip("10.244.0.0"), payload), "{payload} in");
    }
    assert_eq!(node.control.stats().segments[0].learned, 0);
    node.finish();
}

/// A process that is no dataplane holds the port: the error says where to look, and nothing is left half made.
#[test]
fn row_22_a_udp_port_that_a_process_holds_is_refused_with_advice() {
    if !privileged("row_22_a_udp_port_that_a_process_holds_is_refused_with_advice") {
        return;
    }
    let hosts = underlay();
    // On any address, as a daemon binds it.
    let holder = hosts[0].run(|| std::net::UdpSocket::bind("0.0.0.0:4789")).unwrap();
    let dataplane = hosts[0].run(|| overplane::Dataplane::start(Config::new(ip(V4[0])))).unwrap();
    let control = dataplane.control();
    let segment = || Segment::bridge(Vni::new(2).unwrap());
    let error = control.add_segment(segment()).unwrap_err().to_string();
    for part in ["10.9.0.1:4789", "another process holds the port", "`ss -lunp` shows who"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(control.segments().is_empty());
    drop(holder);
    control.add_segment(segment()).unwrap();
    dataplane.stop().unwrap();
}

/// A dataplane's own port is as taken for the kernel as the kernel's is for a dataplane.
#[test]
fn row_22_the_kernel_cannot_take_a_port_that_is_ours() {
    if !privileged("row_22_the_kernel_cannot_take_a_port_that_is_ours") {
        return;
    }
    let hosts = underlay();
    let node = Node::vxlan(&hosts[0], V4[0], V4[1], &inner_addresses(0));
    kernel_end(&hosts[1], V4[1], V4[0], 1450, true);
    hosts[0].add_vxlan(&Vxlan::new("vx0", 1, ip(V4[0]))).unwrap();
    // The kernel opens the device's socket when the device comes up.
    assert!(hosts[0].up("vx0").is_err());
    assert!(hosts[0].wait_up("vx0", Duration::from_millis(50)).is_err());
    assert!(ping_ok(&hosts[0], ip(INNER_V4[1]), 56), "and nothing is taken from it");
    node.finish();
}
