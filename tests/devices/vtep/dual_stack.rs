//! One dataplane, peers of both families.

use std::net::SocketAddr;
use std::time::Duration;

use overplane::{Change, Config, Dataplane, DropReason, Error, Segment, Vni};
use overplane_lab::{Namespace, Transfer, Vxlan, ping_ok, privileged, tcp_transfer};

use crate::hosts::{Node, V4, configure, inner_addresses, ip, underlay};

/// The underlay addresses of this node and of the third host, on a link of their own.
const SECOND_LINK: [&str; 2] = ["fd0a::1", "fd0a::3"];

/// Addresses of the third host inside.
const THIRD: [&str; 2] = ["10.8.0.3", "fd08::3"];

/// A segment on `udp_port` of a dataplane that speaks IPv4 with a kernel and IPv6 with another one.
fn check(udp_port: u16, workers: usize, source_ports: usize) {
    let hosts = underlay();
    let third = Namespace::new().unwrap();
    Namespace::veth(&hosts[0], "eth1", &third, "eth0").unwrap();
    for (host, link, address) in
        [(&hosts[0], "eth1", SECOND_LINK[0]), (&third, "eth0", SECOND_LINK[1])]
    {
        host.add_address(link, format!("{address}/64")).unwrap();
        host.up(link).unwrap();
    }
    third.wait_up("eth0", Duration::from_secs(5)).unwrap();

    let mut config = Config::new(ip(V4[0]));
    config.second_local = Some(ip(SECOND_LINK[0]));
    (config.workers, config.source_ports) = (workers, source_ports);
    let dataplane = hosts[0].run(|| Dataplane::start(config)).unwrap();
    let mut segment = Segment::bridge(Vni::new(42).unwrap());
    segment.udp_port = udp_port;
    let node = Node::with(&hosts[0], dataplane, true, segment, &inner_addresses(0));
    assert_eq!(node.mtu(), 1430, "what fits over both");
    for peer in [V4[1], SECOND_LINK[1]] {
        node.control.add_flood(node.segment, SocketAddr::new(ip(peer), udp_port)).unwrap();
    }
    let kernel = |host: &Namespace, local: &str, remote: &str, addresses: &[String]| {
        let remotes = [ip(remote)];
        let vxlan = Vxlan { port: udp_port, remotes: &remotes, ..Vxlan::new("vx0", 42, ip(local)) };
        host.add_vxlan(&vxlan).unwrap();
        configure(host, "vx0", 1430, addresses);
    };
    kernel(&hosts[1], V4[1], V4[0], &inner_addresses(1));
    let addresses = [format!("{}/24", THIRD[0]), format!("{}/64", THIRD[1])];
    kernel(&third, SECOND_LINK[1], SECOND_LINK[0], &addresses);

    // Neighbours are asked for at both; what follows goes to the one that has it.
    for (host, inner) in [(&hosts[1], ["10.8.0.2", "fd08::2"]), (&third, THIRD)] {
        for address in inner {
            assert!(ping_ok(&hosts[0], ip(address), 1000), "{address} from here");
            let server = SocketAddr::new(ip(address), 0);
            tcp_transfer(&hosts[0], host, server, Transfer::of_bytes(1 << 20)).unwrap();
        }
        for address in ["10.8.0.1", "fd08::1"] {
            assert!(ping_ok(host, ip(address), 1000), "{address} from there");
        }
    }
    let stats = node.control.stats();
    assert_eq!(stats.vteps.len(), 2);
    for vtep in &stats.vteps {
        assert!(vtep.traffic.sent_packets > 700 && vtep.traffic.received_packets > 0, "{stats}");
    }
    assert_eq!(stats.totals.drops(DropReason::UnknownVtep), 0, "{stats}");

    // This node itself is no VTEP, at neither address.
    for own in [V4[0], SECOND_LINK[0]] {
        let vtep = SocketAddr::new(ip(own), udp_port);
        let error = node.control.add_flood(node.segment, vtep).unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }), "{error}");
    }
    // A UDP port is given up and taken up again at both addresses.
    let more = Segment::bridge(Vni::new(43).unwrap());
    let more_id = more.id();
    for _ in 0..2 {
        node.control.add_segment(more.clone()).unwrap();
        for local in [V4[0], SECOND_LINK[0]] {
            let taken = SocketAddr::new(ip(local), more_id.udp_port);
            assert!(hosts[0].run(|| std::net::UdpSocket::bind(taken)).is_err(), "{taken}");
        }
        node.control.apply([Change::RemoveSegment(more_id)]).unwrap();
    }
    node.finish();
}

/// Row 5 as well: the segment's port is any, and peers' source ports, which are others, are not learned.
#[test]
fn row_05_vteps_of_both_families_share_a_segment_on_port_8472() {
    if privileged("row_05_vteps_of_both_families_share_a_segment_on_port_8472") {
        check(8472, 1, 4);
    }
}

#[test]
fn dual_stack_with_two_workers_that_send_from_the_segments_port() {
    if privileged("dual_stack_with_two_workers_that_send_from_the_segments_port") {
        check(8472, 2, 0);
    }
}

#[test]
fn a_second_address_of_the_same_family_is_refused() {
    if !privileged("a_second_address_of_the_same_family_is_refused") {
        return;
    }
    let hosts = underlay();
    for second in [V4[1], "ff02::1", "::"] {
        let mut config = Config::new(ip(V4[0]));
        config.second_local = Some(ip(second));
        let error = hosts[0].run(|| Dataplane::start(config)).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{second}: {error}");
    }
}
