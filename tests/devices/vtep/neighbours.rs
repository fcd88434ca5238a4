//! ARP and ND suppression between kernel stacks, with the kernel's VXLAN device on the other side.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overplane::{Config, MacAddr, Origin, Segment, Vni};
use overplane_lab::{Namespace, Sniffer, ping_ok, privileged};

use crate::hosts::{INNER_V4, INNER_V6, Node, V4, eventually, inner_addresses, ip, underlay};
use crate::kernel_peer::kernel_end;
use crate::packets::{Host, advertisement, arp_request, solicitation};

/// A host behind a dataplane that answers for its neighbours or not, and one behind the kernel's device.
fn pair(suppress: bool) -> ([Namespace; 2], Node) {
    let hosts = underlay();
    let mut segment = Segment::bridge(Vni::new(42).unwrap());
    segment.neighbours.suppress = suppress;
    let node = Node::new(&hosts[0], Config::new(ip(V4[0])), segment, &inner_addresses(0));
    node.control.add_flood(node.segment, SocketAddr::new(ip(V4[1]), 4789)).unwrap();
    kernel_end(&hosts[1], V4[1], V4[0], 1450, true);
    (hosts, node)
}

/// Whether a frame asks everybody for a neighbour, without being a probe.
fn asks(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([8, 6]) => frame[0] == 0xff && frame[21] == 1 && frame[28..32] != [0; 4],
        Some([0x86, 0xdd]) => {
            frame[..2] == [0x33, 0x33] && frame.get(54) == Some(&135) && frame[22..38] != [0; 16]
        }
        _ => false,
    }
}

/// Lets the first host forget the second one and ask anew, over both families; returns how many of its requests reached
/// the other side.
fn requests_that_cross(hosts: &[Namespace; 2]) -> usize {
    for inner in [INNER_V4[1], INNER_V6[1]] {
        assert!(ping_ok(&hosts[0], ip(inner), 56), "{inner}");
    }
    let mut sniffer = Sniffer::incoming(&hosts[1], "vx0").unwrap();
    for _ in 0..3 {
        for inner in [INNER_V4[1], INNER_V6[1]] {
            hosts[0].delete_neighbour("ovl0", ip(inner)).unwrap();
            assert!(ping_ok(&hosts[0], ip(inner), 56), "{inner}");
        }
    }
    let here = hosts[0].mac("ovl0").unwrap();
    sniffer.drain().iter().filter(|frame| frame[6..12] == here && asks(frame)).count()
}

#[test]
fn row_20_requests_are_answered_here_and_do_not_cross_the_underlay() {
    if !privileged("row_20_requests_are_answered_here_and_do_not_cross_the_underlay") {
        return;
    }
    let (hosts, node) = pair(true);
    assert_eq!(requests_that_cross(&hosts), 0);
    let stats = node.control.stats();
    assert!(stats.totals.answered >= 6, "{stats}");
    let there = MacAddr(hosts[1].mac("vx0").unwrap());
    let known = node.control.neighbours(node.segment).unwrap();
    for inner in [INNER_V4[1], INNER_V6[1]] {
        let known = known.iter().find(|known| known.address == ip(inner)).unwrap();
        assert_eq!((known.mac, known.origin, known.router), (there, Origin::Learned, false));
    }
    node.finish();
}

#[test]
fn row_20_without_suppression_every_request_crosses() {
    if !privileged("row_20_without_suppression_every_request_crosses") {
        return;
    }
    let (hosts, node) = pair(false);
    assert!(requests_that_cross(&hosts) >= 6);
    assert_eq!(node.control.stats().totals.answered, 0);
    node.finish();
}

/// Bindings that are given are all that is needed where nothing is flooded at all.
#[test]
fn row_20_static_bindings_work_where_nothing_is_flooded() {
    if !privileged("row_20_static_bindings_work_where_nothing_is_flooded") {
        return;
    }
    let (hosts, node) = pair(true);
    let vtep = SocketAddr::new(ip(V4[1]), 4789);
    node.control.remove_flood(node.segment, vtep).unwrap();
    let there = MacAddr(hosts[1].mac("vx0").unwrap());
    node.control.insert_fdb(node.segment, there, vtep).unwrap();
    for inner in [INNER_V4, INNER_V6] {
        node.control.set_neighbour(node.segment, ip(inner[1]), there, false).unwrap();
        // The kernel's end asks as it always does; its requests are flooded to the port here.
        assert!(ping_ok(&hosts[0], ip(inner[1]), 56), "{}", inner[1]);
    }
    node.finish();
}

/// Host 1 announces itself and probes for addresses that are bound: everybody hears of it.
#[test]
fn row_20_announcements_and_probes_reach_the_other_side() {
    if !privileged("row_20_announcements_and_probes_reach_the_other_side") {
        return;
    }
    let (hosts, node) = pair(true);
    let _ = requests_that_cross(&hosts);
    let mac = MacAddr(hosts[0].mac("ovl0").unwrap());
    let (IpAddr::V4(own), IpAddr::V4(other)) = (ip(INNER_V4[0]), ip(INNER_V4[1])) else { panic!() };
    let here = Host { mac, ip: own };
    let nobody = Host { mac, ip: std::net::Ipv4Addr::UNSPECIFIED };
    let frames = [
        arp_request(here, own),
        arp_request(nobody, other),
        advertisement(mac, ip(INNER_V6[0]), false),
        solicitation(mac, "::".parse().unwrap(), ip(INNER_V6[1])),
        arp_request(here, "10.8.0.99".parse().unwrap()),
        solicitation(mac, ip(INNER_V6[0]), "fd08::99".parse().unwrap()),
    ];
    let port = Sniffer::open(&hosts[0], "ovl0").unwrap();
    let mut there = Sniffer::incoming(&hosts[1], "vx0").unwrap();
    let answered = node.control.stats().totals.answered;
    for frame in frames {
        port.inject(&frame).unwrap();
        let heard = there.find(Duration::from_secs(2), |heard| heard == frame);
        assert!(heard.is_some(), "{frame:02x?}");
    }
    assert_eq!(node.control.stats().totals.answered, answered);
    node.finish();
}

/// The kernel's duplicate address detection finds the address that is taken, and no other, whatever is bound.
#[test]
fn row_20_duplicate_addresses_are_found() {
    if !privileged("row_20_duplicate_addresses_are_found") {
        return;
    }
    let (hosts, node) = pair(true);
    let there = MacAddr(hosts[1].mac("vx0").unwrap());
    hosts[0].sysctl("net/ipv6/conf/ovl0/accept_dad", "1").unwrap();
    let free = "fd08::99";
    for address in [INNER_V6[1], free] {
        node.control.set_neighbour(node.segment, ip(address), there, false).unwrap();
    }
    std::thread::scope(|scope| {
        let claim =
            |address: &str| hosts[0].claim_address("ovl0", format!("{address}/64")).unwrap();
        let taken = scope.spawn(move || claim(INNER_V6[1]));
        assert!(claim(free), "nobody has it, though it is bound");
        assert!(!taken.join().unwrap(), "the other side has it");
    });
    eventually(1, "the counters stand still", || node.control.stats().totals.is_conserved());
    node.finish();
}
