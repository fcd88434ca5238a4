//! A multicast group of the underlay as a destination of floods.

use std::net::SocketAddr;

use overplane::{Change, Destination, DropReason, Error, MacAddr, Tables};

use crate::network::Network;
use crate::packets::*;

fn group() -> SocketAddr {
    "239.1.1.1:4789".parse().unwrap()
}

fn flood(n: u32, vtep: SocketAddr) -> Change {
    Change::AddFlood { segment: bridge_id(n), vtep }
}

#[test]
fn row_14_what_is_for_everybody_goes_to_the_group_once() {
    let mut network = Network::new(2);
    let port = network.add_segment(1, bridge(1), false);
    network.change(1, flood(1, group()));
    network.change(1, Change::AddPeer { segment: bridge_id(1), vtep: vtep(2) });
    network.send(1, port, &udp(host(1), EVERYBODY, b"to all"));
    network.send(1, port, &udp(host(1), host(9), b"to nobody known"));
    let to: Vec<SocketAddr> = network.sent.iter().map(|datagram| datagram.to).collect();
    assert_eq!(to, [group(), group()]);
    // Who answers is known by its own address.
    network.arrive(1, underlay(2), 4789, &vxlan(vni(1), &udp(host(9), host(1), b"me")));
    network.send(1, port, &udp(host(1), host(9), b"to one"));
    assert_eq!(network.sent.last().unwrap().to, vtep(2));
    // The list of who is heard holds for what the group brings, too.
    network.arrive(1, underlay(3), 4789, &vxlan(vni(1), &udp(host(8), EVERYBODY, b"stranger")));
    assert_eq!(network.drops(1, DropReason::UnknownVtep), 1);
}

#[test]
fn row_14_groups_are_for_flood_lists_only() {
    let mut network = Network::new(1);
    network.add_segment(1, bridge(1), false);
    let segment = bridge_id(1);
    let destination = Destination::Vtep(group());
    network.change(1, flood(1, group()));
    for change in [
        Change::AddPeer { segment, vtep: group() },
        Change::InsertFdb { segment, mac: host(2).mac, destination },
        Change::InsertExternFdb { segment, mac: host(2).mac, destination },
    ] {
        let error = network.try_change(1, [change.clone()]).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{change:?}: {error}");
    }
    let group_mac = MacAddr([1, 0, 0x5e, 1, 1, 1]);
    network.change(1, Change::AppendFdb { segment, mac: group_mac, destination });
    let error = Tables::new(group().ip(), 1).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }));
}

#[test]
fn row_14_a_dataplane_is_a_member_of_so_many_groups() {
    let mut network = Network::new(1);
    network.add_segment(1, bridge(1), false);
    let nth = |n: usize| SocketAddr::from(([239, 1, (n / 256) as u8, n as u8], 4789));
    let most = overplane::limits::MAX_UNDERLAY_GROUPS;
    network.try_change(1, (0..most).map(|n| flood(1, nth(n)))).unwrap();
    let error = network.try_change(1, [flood(1, nth(most))]).unwrap_err();
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    let swap = [Change::RemoveFlood { segment: bridge_id(1), vtep: nth(0) }, flood(1, nth(most))];
    network.try_change(1, swap).unwrap();
    network.change(1, Change::RemoveSegment(bridge_id(1)));
    network.add_segment(1, bridge(1), false);
    network.change(1, flood(1, nth(0)));
}
