//! VXLAN between two dataplanes.

use overplane::DropReason;
use overplane_lab::{Namespace, privileged};

use crate::hosts::{Node, V4, V6, inner_addresses, ping_around_the_mtu, tcp_both_ways, underlay};

fn check(underlay_addresses: [&str; 2], mtu: usize, hosts: &[Namespace; 2]) {
    let [a, b] = underlay_addresses;
    let left = Node::vxlan(&hosts[0], a, b, &inner_addresses(0));
    let right = Node::vxlan(&hosts[1], b, a, &inner_addresses(1));
    assert_eq!(left.mtu(), mtu);
    ping_around_the_mtu([&hosts[0], &hosts[1]], mtu);
    tcp_both_ways([&hosts[0], &hosts[1]], 8 << 20);
    for node in [&left, &right] {
        let totals = node.control.stats().totals;
        assert_eq!(totals.drops(DropReason::TooBig), 0);
        assert_eq!(totals.drops(DropReason::UnderlayTooBig), 0);
        assert!(totals.flooded < totals.forwarded, "hosts were learned");
    }
    left.finish();
    right.finish();
}

#[test]
fn row_21_carries_ping_and_tcp_at_mtu_1450_over_ipv4() {
    if privileged("row_21_carries_ping_and_tcp_at_mtu_1450_over_ipv4") {
        check(V4, 1450, &underlay());
    }
}

#[test]
fn row_21_carries_ping_and_tcp_at_mtu_1430_over_ipv6() {
    if privileged("row_21_carries_ping_and_tcp_at_mtu_1430_over_ipv6") {
        check(V6, 1430, &underlay());
    }
}
