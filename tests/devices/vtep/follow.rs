//! The host changes under a running dataplane: MTUs, routes, links, and devices that are made anew.

use std::net::SocketAddr;
use std::time::Duration;

use overplane::{Config, Destination, Event, MacAddr, Segment, Vni};
use overplane_lab::{Namespace, Transfer, UdpLoad, UdpSender, ping_ok, privileged, tcp_transfer};

use crate::hosts::{
    INNER_V4, Node, V4, V6, eventually, inner_addresses, ip, pair, quiet_host, underlay,
};
use crate::kernel_peer::kernel_end;

fn mtu(node: &Node) -> u32 {
    node.control.segments()[0].mtu
}

fn events(node: &Node) -> impl Iterator<Item = Event> + '_ {
    std::iter::from_fn(|| node.control.next_event())
}

#[test]
fn row_19_the_overlays_mtu_is_what_the_underlay_leaves() {
    if !privileged("row_19_the_overlays_mtu_is_what_the_underlay_leaves") {
        return;
    }
    for (local, peer, headers) in [(V4[0], V4[1], 50), (V6[0], V6[1], 70)] {
        let hosts = underlay();
        hosts[0].set_mtu("eth0", 1400).unwrap();
        let node = Node::vxlan(&hosts[0], local, peer, &inner_addresses(0));
        assert_eq!(mtu(&node), 1400 - headers);
        // Jumbo frames need both ends of the link, as on a wire.
        for (underlay, tell) in [(9000, 9000 - headers), (1500, 1500 - headers)] {
            hosts[0].set_mtu("eth0", underlay).unwrap();
            eventually(5, "the segment follows", || mtu(&node) == tell);
            let wanted = Event::MtuChanged { segment: node.segment, mtu: tell };
            eventually(2, "and says so", || events(&node).any(|event| event == wanted));
        }
        node.finish();
    }
}

#[test]
fn row_19_an_mtu_of_the_segments_own_stays() {
    if !privileged("row_19_an_mtu_of_the_segments_own_stays") {
        return;
    }
    let hosts = underlay();
    let mut segment = Segment::bridge(Vni::new(42).unwrap());
    segment.mtu = Some(1450);
    let node = Node::new(&hosts[0], Config::new(ip(V4[0])), segment, &[]);
    let vtep = SocketAddr::new(ip(V4[1]), 4789);
    node.control.add_flood(node.segment, vtep).unwrap();
    hosts[0].set_mtu("eth0", 1300).unwrap();
    let path = || node.control.stats().vteps[0].path;
    eventually(5, "the path is as narrow as the link", || path().route == Some(1300));
    assert_eq!(mtu(&node), 1450);
    hosts[0].set_mtu("eth0", 1500).unwrap();
    eventually(5, "the path is wide again", || path().limit().is_none());
    node.finish();
}

/// The way to a kernel peer moves from one link to another and back.
#[test]
fn row_29_a_route_moves_to_another_link_under_traffic() {
    if !privileged("row_29_a_route_moves_to_another_link_under_traffic") {
        return;
    }
    let hosts = underlay();
    Namespace::veth(&hosts[0], "eth1", &hosts[1], "eth1").unwrap();
    for (n, host) in hosts.iter().enumerate() {
        host.add_address("eth1", format!("10.9.7.{}/24", n + 1)).unwrap();
        // Both ends have an address that belongs to neither link.
        host.add_address("lo", format!("10.99.0.{}/32", n + 1)).unwrap();
        host.up("lo").unwrap();
        host.set_mtu("eth1", 1400).unwrap();
        host.up("eth1").unwrap();
        let _ = host.sysctl("net/ipv4/conf/all/rp_filter", "0");
        let _ = host.sysctl("net/ipv4/conf/eth0/rp_filter", "0");
    }
    for host in &hosts {
        host.wait_up("eth1", Duration::from_secs(5)).unwrap();
    }
    let far = |n: usize| format!("10.99.0.{}/32", 2 - n);
    for (n, host) in hosts.iter().enumerate() {
        host.add_route(far(n), Some(ip(V4[1 - n])), None).unwrap();
    }
    let node = Node::vxlan(&hosts[0], "10.99.0.1", "10.99.0.2", &inner_addresses(0));
    kernel_end(&hosts[1], "10.99.0.2", "10.99.0.1", 1300, true);
    assert!(ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    let how = UdpSender { payload: 200, flows: 2, per_call: 1, joined: false };
    let to = SocketAddr::new(ip(INNER_V4[1]), 0);
    let load = UdpLoad::start(&hosts[0], &hosts[1], to, how).unwrap();
    let over = |link: &str| hosts[0].link_stats(link).unwrap().tx_packets;
    let path = || node.control.stats().vteps[0].path;
    let links = [("eth0", V4), ("eth1", ["10.9.7.1", "10.9.7.2"])];
    for (to, from, route) in [(1, 0, Some(1400)), (0, 1, None)] {
        for (n, host) in hosts.iter().enumerate() {
            host.delete_route(far(n), Some(ip(links[from].1[1 - n])), None).unwrap();
            host.add_route(far(n), Some(ip(links[to].1[1 - n])), None).unwrap();
        }
        let (before, arrived) = (over(links[to].0), load.arrived());
        eventually(5, "traffic takes the other link", || {
            over(links[to].0) > before + 100 && load.arrived() > arrived + 100
        });
        eventually(5, "the path is that of the link", || path().route == route);
    }
    load.stop().unwrap();
    let server = SocketAddr::new(ip(INNER_V4[1]), 0);
    tcp_transfer(&hosts[0], &hosts[1], server, Transfer::of_bytes(1 << 20)).unwrap();
    node.finish();
}

#[test]
fn row_29_an_underlay_device_that_is_made_anew_is_used_again() {
    if !privileged("row_29_an_underlay_device_that_is_made_anew_is_used_again") {
        return;
    }
    let (hosts, left, right) = pair();
    assert!(ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    hosts[0].delete("eth0").unwrap();
    assert!(!ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    Namespace::veth(&hosts[0], "eth0", &hosts[1], "eth0").unwrap();
    for (n, host) in hosts.iter().enumerate() {
        host.set_mtu("eth0", 1400).unwrap();
        host.add_address("eth0", format!("{}/24", V4[n])).unwrap();
        host.up("eth0").unwrap();
    }
    eventually(5, "pings are answered again", || ping_ok(&hosts[0], ip(INNER_V4[1]), 56));
    eventually(5, "the new device's MTU counts", || mtu(&left) == 1350 && mtu(&right) == 1350);
    left.finish();
    right.finish();
}

#[test]
fn row_27_a_device_that_goes_down_is_forgotten_behind() {
    if !privileged("row_27_a_device_that_goes_down_is_forgotten_behind") {
        return;
    }
    let hosts = underlay();
    let node = Node::vxlan(&hosts[0], V4[0], V4[1], &inner_addresses(0));
    // A device of the dataplane's own namespace, and one in another.
    let far = quiet_host(&node.control, node.segment);
    let far_port = node.control.ports().iter().map(|port| port.id).max().unwrap();
    for (host, device, port) in [(&hosts[0], "ovl0", node.port), (&far, "eth0", far_port)] {
        let pinned = MacAddr([2, 0, 0, 0, 9, port_number(&node, port)]);
        node.control.insert_fdb(node.segment, pinned, port).unwrap();
        let learned = || {
            let fdb = node.control.fdb(node.segment).unwrap();
            let behind = fdb.iter().filter(|entry| entry.destination == Destination::Port(port));
            behind.map(|entry| entry.mac).collect::<Vec<_>>()
        };
        let mac = MacAddr(host.mac(device).unwrap());
        let speak = || {
            let sniffer = overplane_lab::Sniffer::open(host, device).unwrap();
            let frame = [&[0xff; 6][..], &mac.0, &[0x88, 0xb5], &[0; 46]].concat();
            let _ = sniffer.inject(&frame);
            learned().contains(&mac)
        };
        for _ in 0..2 {
            eventually(5, "its address is learned", speak);
            host.down(device).unwrap();
            eventually(5, "what was learned is forgotten", || learned() == [pinned]);
            host.up(device).unwrap();
        }
        eventually(5, "and learned again when it is up", speak);
        let seen: Vec<Event> = events(&node).collect();
        let down =
            |event: &&Event| matches!(event, Event::LinkDown { port: of, .. } if *of == port);
        let up = |event: &&Event| matches!(event, Event::LinkUp { port: of, .. } if *of == port);
        assert_eq!(seen.iter().filter(down).count(), 2);
        assert!(seen.iter().filter(up).count() >= 2);
    }
    node.finish();
}

fn port_number(node: &Node, port: overplane::PortId) -> u8 {
    let ports = node.control.ports();
    ports.iter().position(|info| info.id == port).unwrap() as u8
}
