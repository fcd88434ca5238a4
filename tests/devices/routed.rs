//! IP in UDP between two dataplanes.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use overplane::limits::FLANNEL_UDP_PORT;
use overplane::{Config, DropReason, Segment};
use overplane_lab::{Namespace, privileged};

use crate::hosts::{
    INNER_V4, INNER_V6, Node, V4, V6, ip, ping_around_the_mtu, tcp_both_ways, underlay,
};

/// One end: the overlay networks lead to the TUN device, and one route to each overlay address of the peer.
pub(crate) fn end(host: &Namespace, this: usize, underlay_addresses: [&str; 2]) -> Node {
    let other = 1 - this;
    let segment = Segment::routed(FLANNEL_UDP_PORT);
    let addresses = [format!("{}/16", INNER_V4[this]), format!("{}/64", INNER_V6[this])];
    let node = Node::new(host, Config::new(ip(underlay_addresses[this])), segment, &addresses);
    let vtep = SocketAddr::new(ip(underlay_addresses[other]), FLANNEL_UDP_PORT);
    for inner in [INNER_V4[other], INNER_V6[other]] {
        node.control.insert_route(node.segment, inner.parse().unwrap(), vtep).unwrap();
    }
    node
}

fn check(underlay_addresses: [&str; 2], mtu: usize) {
    let hosts = underlay();
    let left = end(&hosts[0], 0, underlay_addresses);
    let right = end(&hosts[1], 1, underlay_addresses);
    assert_eq!(left.mtu(), mtu);
    ping_around_the_mtu([&hosts[0], &hosts[1]], mtu);
    tcp_both_ways([&hosts[0], &hosts[1]], 8 << 20);
    left.finish();
    right.finish();
}

#[test]
fn carries_ping_and_tcp_over_an_ipv4_underlay() {
    if privileged("routed: carries_ping_and_tcp_over_an_ipv4_underlay") {
        check(V4, 1472);
    }
}

#[test]
fn carries_ping_and_tcp_over_an_ipv6_underlay() {
    if privileged("routed: carries_ping_and_tcp_over_an_ipv6_underlay") {
        check(V6, 1452);
    }
}

/// Makes a socket report every ICMP error, as TCP does of its own accord (ip(7), IP_RECVERR).
fn report_icmp_errors(socket: &UdpSocket, v4: bool) {
    let (level, option) =
        if v4 { (libc::SOL_IP, libc::IP_RECVERR) } else { (libc::SOL_IPV6, libc::IPV6_RECVERR) };
    let on: libc::c_int = 1;
    // SAFETY: the pointer is to an int that lives through the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as u32,
        )
    };
    assert_eq!(result, 0);
}

/// Sends one datagram and returns the error that comes back for it, if one does.
pub(crate) fn error_for(host: &Namespace, to: SocketAddr, ttl: u32) -> Option<i32> {
    host.run(|| {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        if to.is_ipv4() {
            socket.set_ttl(ttl).unwrap();
        }
        report_icmp_errors(&socket, to.is_ipv4());
        socket.connect(to).unwrap();
        socket.send(b"anybody there?").unwrap();
        socket.recv(&mut [0; 1]).err().and_then(|error| error.raw_os_error())
    })
}

/// What flannel's proxy answers for IPv4 only, and never for ICMP.
#[test]
fn a_destination_without_a_route_is_unreachable_at_once() {
    if !privileged("a_destination_without_a_route_is_unreachable_at_once") {
        return;
    }
    let hosts = underlay();
    let node = end(&hosts[0], 0, V4);
    let unreachable = [Some(libc::ENETUNREACH), Some(libc::EHOSTUNREACH)];
    for nowhere in ["10.8.77.77", "fd08::77"] {
        let error = error_for(&hosts[0], SocketAddr::new(ip(nowhere), 9), 64);
        assert!(unreachable.contains(&error), "{nowhere}: {error:?}");
    }
    let totals = node.control.stats().totals;
    assert!(
        totals.drops(DropReason::NoRoute) >= 2 && totals.generated >= 2,
        "{}",
        node.control.stats()
    );
    node.finish();
}

#[test]
fn a_packet_whose_ttl_ends_here_is_answered() {
    if !privileged("a_packet_whose_ttl_ends_here_is_answered") {
        return;
    }
    let hosts = underlay();
    let node = end(&hosts[0], 0, V4);
    let error = error_for(&hosts[0], SocketAddr::new(ip(INNER_V4[1]), 9), 1);
    assert_eq!(error, Some(libc::EHOSTUNREACH), "time exceeded, as Linux reports it to the socket");
    assert_eq!(node.control.stats().totals.drops(DropReason::TtlExceeded), 1);
    node.finish();
}
