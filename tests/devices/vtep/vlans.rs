//! VLAN tags at ports, with the kernel's TCP stack behind them.

use std::net::SocketAddr;
use std::time::Duration;

use overplane::{PortOptions, VlanMode, VlanSet};
use overplane_lab::{Sniffer, Transfer, ping_ok, privileged, tcp_transfer};

use crate::hosts::{Node, V4, ip, pair};

fn access(vid: u16) -> PortOptions {
    let mut options = PortOptions::default();
    options.vlan = VlanMode::Only { vlans: VlanSet::default(), pvid: Some(vid) };
    options
}

/// Hosts that know of no VLAN, behind access ports: what is between them has tags, super-frames and unfinished checksums
/// included.
#[test]
fn row_08_hosts_of_one_vlan_reach_each_other_through_tags() {
    if !privileged("row_08_hosts_of_one_vlan_reach_each_other_through_tags") {
        return;
    }
    let (hosts, left, right) = pair();
    for node in [&left, &right] {
        node.control.set_port(node.port, access(5)).unwrap();
        // The tag has to fit, too.
        node.host.set_mtu("ovl0", 1446).unwrap();
    }
    let mut wire = Sniffer::incoming(&hosts[1], "eth0").unwrap();
    for payload in [56, 1418, 4000] {
        assert!(ping_ok(&hosts[0], ip("10.8.0.2"), payload), "{payload} out");
        assert!(ping_ok(&hosts[1], ip("10.8.0.1"), payload), "{payload} back");
    }
    // Behind the outer Ethernet, IPv4, UDP and VXLAN headers, and the inner addresses.
    let tag_at = 14 + 20 + 8 + 8 + 12;
    let tagged = |seen: &[u8]| seen.get(tag_at..tag_at + 4) == Some(&[0x81, 0, 0, 5]);
    assert!(wire.find(Duration::from_secs(3), tagged).is_some());
    drop(wire);
    for (from, to, server) in [(0, 1, "10.8.0.2"), (1, 0, "10.8.0.1"), (0, 1, "fd08::2")] {
        let server = SocketAddr::new(ip(server), 0);
        let transfer = Transfer::of_bytes(4 << 20);
        let report = tcp_transfer(&hosts[from], &hosts[to], server, transfer).unwrap();
        assert_eq!(report.bytes, 4 << 20, "to {server}");
    }
    right.control.set_port(right.port, access(6)).unwrap();
    assert!(!ping_ok(&hosts[0], ip("10.8.0.2"), 56), "of another VLAN from {}", V4[0]);
    [left, right].into_iter().for_each(Node::finish);
}
