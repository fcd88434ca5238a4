//! How far frames go: split horizon, reserved group addresses, frames that come back.

use std::net::SocketAddr;
use std::time::Duration;

use overplane::{Config, DropReason, Segment, Vni};
use overplane_lab::{Namespace, Sniffer, ping_ok, privileged};

use crate::hosts::{INNER_V4, Node, V4, eventually, inner_addresses, ip, underlay};
use crate::kernel_peer::kernel_end;

/// So many hosts on one Ethernet, the switch of which is a namespace of its own; host N has 10.9.0.N.
fn hosts_on_a_switch(count: usize) -> (Namespace, Vec<Namespace>) {
    let switch = Namespace::new().unwrap();
    switch.add_bridge("br0").unwrap();
    switch.up("br0").unwrap();
    let hosts: Vec<Namespace> = (1..=count)
        .map(|n| {
            let host = Namespace::new().unwrap();
            let port = format!("port{n}");
            Namespace::veth(&host, "eth0", &switch, &port).unwrap();
            switch.set_master(&port, "br0").unwrap();
            switch.up(&port).unwrap();
            host.add_address("eth0", format!("10.9.0.{n}/24")).unwrap();
            host.up("eth0").unwrap();
            host
        })
        .collect();
    for host in &hosts {
        host.wait_up("eth0", Duration::from_secs(5)).unwrap();
    }
    (switch, hosts)
}

fn segment(vtep_group: u8) -> Segment {
    let mut segment = Segment::bridge(Vni::new(42).unwrap());
    segment.scope.vtep_group = vtep_group;
    segment
}

/// Node N of some, with an overlay address that ends in N and no frames but those of the test.
fn node(hosts: &[Namespace], n: usize, segment: Segment, peers: &[usize]) -> Node {
    let host = &hosts[n - 1];
    let _ = host.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    let config = Config::new(ip(&format!("10.9.0.{n}")));
    let node = Node::new(host, config, segment, &[format!("10.8.0.{n}/24")]);
    for peer in peers {
        let vtep = SocketAddr::new(ip(&format!("10.9.0.{peer}")), 4789);
        node.control.add_flood(node.segment, vtep).unwrap();
    }
    node
}

fn broadcast(from: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, from, 0x88, 0xb5]);
    frame.resize(100, from);
    frame
}

/// How often each host got a frame that another one sends now.
fn copies(hosts: &[Namespace], from: usize, frame: &[u8]) -> Vec<usize> {
    let mut sniffers: Vec<Sniffer> =
        hosts.iter().map(|host| Sniffer::incoming(host, "ovl0").unwrap()).collect();
    Sniffer::open(&hosts[from - 1], "ovl0").unwrap().inject(frame).unwrap();
    // Long enough for a frame that goes round to be seen many times.
    std::thread::sleep(Duration::from_millis(300));
    sniffers.iter_mut().map(|s| s.drain().iter().filter(|seen| *seen == frame).count()).collect()
}

#[test]
fn row_15_a_broadcast_in_a_full_mesh_arrives_once_and_comes_to_an_end() {
    if !privileged("row_15_a_broadcast_in_a_full_mesh_arrives_once_and_comes_to_an_end") {
        return;
    }
    let (_switch, hosts) = hosts_on_a_switch(3);
    let nodes = [
        node(&hosts, 1, segment(1), &[2, 3]),
        node(&hosts, 2, segment(1), &[1, 3]),
        node(&hosts, 3, segment(1), &[1, 2]),
    ];
    for from in 1..=3 {
        let mut expected = vec![1; 3];
        expected[from - 1] = 0;
        assert_eq!(copies(&hosts, from, &broadcast(from as u8)), expected, "from {from}");
    }
    for (from, to) in [(0, "10.8.0.2"), (1, "10.8.0.3"), (2, "10.8.0.1")] {
        assert!(ping_ok(&hosts[from], ip(to), 56), "{to}");
    }
    nodes.into_iter().for_each(Node::finish);
}

/// The hub relays, and the spokes know of nobody but it.
#[test]
fn row_15_a_hub_connects_its_spokes() {
    if !privileged("row_15_a_hub_connects_its_spokes") {
        return;
    }
    let (_switch, hosts) = hosts_on_a_switch(3);
    let nodes = [
        node(&hosts, 1, segment(0), &[2, 3]),
        node(&hosts, 2, segment(1), &[1]),
        node(&hosts, 3, segment(1), &[1]),
    ];
    assert_eq!(copies(&hosts, 2, &broadcast(2)), [1, 0, 1]);
    for payload in [56, 1422, 5000] {
        assert!(ping_ok(&hosts[1], ip("10.8.0.3"), payload), "{payload}");
    }
    let server = SocketAddr::new(ip("10.8.0.3"), 0);
    let transfer = overplane_lab::Transfer::of_bytes(2 << 20);
    let report = overplane_lab::tcp_transfer(&hosts[1], &hosts[2], server, transfer).unwrap();
    assert_eq!(report.bytes, 2 << 20);
    nodes.into_iter().for_each(Node::finish);
}

/// LLDP, as the kernel's own bridges have it: not forwarded, unless the mask says so.
#[test]
fn row_16_lldp_of_a_kernel_peer_ends_here_unless_it_is_let_through() {
    if !privileged("row_16_lldp_of_a_kernel_peer_ends_here_unless_it_is_let_through") {
        return;
    }
    for mask in [0, 1 << 14] {
        let hosts = underlay();
        let mut segment = segment(1);
        segment.scope.group_fwd_mask = mask;
        let node = Node::new(&hosts[0], Config::new(ip(V4[0])), segment, &inner_addresses(0));
        node.control.add_flood(node.segment, SocketAddr::new(ip(V4[1]), 4789)).unwrap();
        kernel_end(&hosts[1], V4[1], V4[0], 1450, true);
        let mut lldp = broadcast(9);
        lldp[..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 14]);
        let mut here = Sniffer::incoming(&hosts[0], "ovl0").unwrap();
        Sniffer::open(&hosts[1], "vx0").unwrap().inject(&lldp).unwrap();
        let got = || node.control.stats().totals.drops(DropReason::LinkLocal);
        if mask == 0 {
            eventually(3, "it is counted", || got() == 1);
        } else {
            assert!(here.find(Duration::from_secs(3), |seen| seen == lldp).is_some());
        }
        node.finish();
    }
}

/// The kernel's device drops what claims to come from itself, and so does a port's.
#[test]
fn row_09_a_frame_with_the_address_of_the_device_itself_is_dropped() {
    if !privileged("row_09_a_frame_with_the_address_of_the_device_itself_is_dropped") {
        return;
    }
    let hosts = underlay();
    let node = Node::vxlan(&hosts[0], V4[0], V4[1], &inner_addresses(0));
    kernel_end(&hosts[1], V4[1], V4[0], 1450, true);
    let mac = hosts[0].mac("ovl0").unwrap();
    let listed = node.control.ports()[0].options.mac;
    assert_eq!(listed, Some(overplane::MacAddr(mac)), "read when it was attached");
    let mut echo = broadcast(0);
    echo[6..12].copy_from_slice(&mac);
    let kernel = Sniffer::open(&hosts[1], "vx0").unwrap();
    for count in 1..=2 {
        kernel.inject(&echo).unwrap();
        let got = || node.control.stats().totals.drops(DropReason::OwnSource);
        eventually(3, "it is counted", || got() == count);
    }
    let fdb = node.control.fdb(node.segment).unwrap();
    assert!(fdb.iter().all(|entry| entry.mac.0 != mac || entry.destination == node.port.into()));
    assert!(ping_ok(&hosts[1], ip(INNER_V4[0]), 56));
    node.finish();
}
