//! FDB entries as `bridge fdb` makes them, against the kernel's.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use overplane::{Change, Config, MacAddr, Segment, Vni};
use overplane_lab::{Namespace, Sniffer, Vxlan, privileged};

use crate::hosts::{
    INNER_V4, Node, V4, configure, eventually, inner_addresses, ip, ping_around_the_mtu,
    tcp_both_ways, underlay,
};
use crate::kernel_peer::kernel_end;

/// Each end sends under the other's VNI: the kernel by `vni` in its entries, this one by the VTEP's.
#[test]
fn row_10_each_end_is_sent_to_under_its_own_vni() {
    if !privileged("row_10_each_end_is_sent_to_under_its_own_vni") {
        return;
    }
    let hosts = underlay();
    let segment = Segment::bridge(Vni::new(77).unwrap());
    let node = Node::new(&hosts[0], Config::new(ip(V4[0])), segment, &inner_addresses(0));
    let peer = SocketAddr::new(ip(V4[1]), 4789);
    node.control.add_flood(node.segment, peer).unwrap();
    node.control.set_vtep_vni(node.segment, peer, Vni::new(42).ok()).unwrap();
    let kernel = Vxlan { learning: false, ..Vxlan::new("vx0", 42, ip(V4[1])) };
    hosts[1].add_vxlan(&kernel).unwrap();
    for mac in [[0; 6], hosts[0].mac("ovl0").unwrap()] {
        hosts[1].bridge_fdb_add_vni("vx0", mac, ip(V4[0]), Some(77)).unwrap();
    }
    configure(&hosts[1], "vx0", 1450, &inner_addresses(1));
    ping_around_the_mtu([&hosts[0], &hosts[1]], 1450);
    tcp_both_ways([&hosts[0], &hosts[1]], 4 << 20);
    node.finish();
}

/// A socket that has joined a group on the interface with an address.
fn member(host: &Namespace, interface: Ipv4Addr, group: Ipv4Addr) -> UdpSocket {
    let socket = host.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7000))).unwrap();
    socket.join_multicast_v4(&group, &interface).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// The kernel's host hears the group that it is a destination of, and nothing else that is for many.
#[test]
fn row_10_a_group_goes_where_its_entry_says() {
    if !privileged("row_10_a_group_goes_where_its_entry_says") {
        return;
    }
    let hosts = underlay();
    let segment = Segment::bridge(Vni::new(42).unwrap());
    let node = Node::new(&hosts[0], Config::new(ip(V4[0])), segment, &inner_addresses(0));
    let peer = SocketAddr::new(ip(V4[1]), 4789);
    kernel_end(&hosts[1], V4[1], V4[0], 1450, true);
    let mac = MacAddr(hosts[1].mac("vx0").unwrap());
    hosts[0].add_neighbour("ovl0", ip(INNER_V4[1]), mac.0).unwrap();
    node.control.insert_fdb(node.segment, mac, peer).unwrap();
    let groups = [Ipv4Addr::new(239, 1, 1, 1), Ipv4Addr::new(239, 1, 1, 2)];
    let inner: Ipv4Addr = INNER_V4[1].parse().unwrap();
    let listener = member(&hosts[1], inner, groups[0]);
    listener.join_multicast_v4(&groups[1], &inner).unwrap();
    let mac_of = |group: Ipv4Addr| {
        let [_, b, c, d] = group.octets();
        MacAddr([0x01, 0, 0x5e, b & 0x7f, c, d])
    };
    let append = |group| Change::AppendFdb {
        segment: node.segment,
        mac: mac_of(group),
        destination: peer.into(),
    };
    node.control.apply([append(groups[0])]).unwrap();
    let mut wire = Sniffer::incoming(&hosts[1], "eth0").unwrap();
    let sender = hosts[0].run(|| UdpSocket::bind((INNER_V4[0], 0))).unwrap();
    let mut buffer = [0; 100];
    for (n, group) in groups.iter().rev().enumerate() {
        let content = format!("to {group}");
        // Only the first group has an entry, and there is no flood list.
        eventually(5, "the socket can send", || {
            sender.send_to(content.as_bytes(), (*group, 7000)).is_ok()
        });
        if n == 1 {
            let length = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], content.as_bytes(), "it is the first to arrive");
        }
    }
    let stray = |frame: &[u8]| frame.ends_with(b"to 239.1.1.2");
    assert!(wire.find(Duration::from_millis(100), stray).is_none());
    // With one more entry the other group comes as well.
    node.control.append_fdb(node.segment, mac_of(groups[1]), peer).unwrap();
    sender.send_to(b"again", (groups[1], 7000)).unwrap();
    let length = listener.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"again");
    let listed = node.control.fdb(node.segment).unwrap();
    assert_eq!(listed.iter().filter(|entry| entry.mac.is_multicast()).count(), 2);
    node.finish();
}
