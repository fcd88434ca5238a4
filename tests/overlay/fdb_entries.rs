//! FDB entries as `bridge fdb` has them: several destinations of a group address, VNIs of VTEPs, kinds of entries.

use overplane::{Change, Destination, DropReason, Error, FdbEntry, MacAddr, Metadata, Origin};

use crate::network::Network;
use crate::packets::*;

/// The address of a group that is no broadcast.
const GROUP: Host =
    Host { mac: MacAddr([0x01, 0x00, 0x5e, 1, 1, 1]), ip: std::net::Ipv4Addr::new(239, 1, 1, 1) };

fn append(mac: MacAddr, destination: impl Into<Destination>) -> Change {
    Change::AppendFdb { segment: bridge_id(1), mac, destination: destination.into() }
}

fn remove(mac: MacAddr, destination: impl Into<Destination>) -> Change {
    Change::RemoveFdbDestination { segment: bridge_id(1), mac, destination: destination.into() }
}

fn with_vni(n: u32) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.vni = Some(vni(n));
    metadata
}

fn entries(network: &mut Network) -> Vec<FdbEntry> {
    let now = network.now;
    network.node(1).tables.fdb(bridge_id(1), now).unwrap()
}

/// To whom node 1 has sent since the last time, in order.
fn sent_to(network: &mut Network) -> Vec<u8> {
    let sent = std::mem::take(&mut network.sent);
    let last = |ip: std::net::IpAddr| match ip {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => unreachable!(),
    };
    let mut to: Vec<u8> = sent
        .iter()
        .filter(|datagram| datagram.from.ip() == underlay(1))
        .map(|datagram| last(datagram.to.ip()))
        .collect();
    to.sort_unstable();
    to
}

#[test]
fn row_03_any_vni_is_taken_by_the_segment_for_it() {
    let mut network = Network::new(2);
    let any = bridge_with(1, |segment| segment.header.any_vni = true);
    let ports = [any, bridge(2)].map(|segment| network.add_segment(1, segment, false));
    for n in [1, 2] {
        network.change(1, Change::AddPeer { segment: bridge_id(n), vtep: vtep(2) });
    }
    for n in [1, 2, 7, 0xff_ffff] {
        network.arrive(1, underlay(2), 4789, &vxlan(vni(n), &udp(host(9), EVERYBODY, b"who?")));
    }
    let seen = network.received(1, ports[0]);
    let seen: Vec<_> = seen.iter().map(|frame| frame.metadata.vni.unwrap().get()).collect();
    assert_eq!(seen, [1, 7, 0xff_ffff], "each with its VNI");
    assert_eq!(network.frames(1, ports[1]).len(), 1, "but for those of other segments");
    // The answer leaves under the VNI that the frame is given, or the segment's.
    let answer = udp(host(1), host(9), b"me");
    network.send_with(1, ports[0], &answer, with_vni(7));
    network.send(1, ports[0], &answer);
    network
        .change(1, Change::SetVtepVni { segment: bridge_id(1), vtep: vtep(2), vni: Some(vni(8)) });
    network.send(1, ports[0], &answer);
    network.send_with(1, ports[0], &answer, with_vni(9));
    let vnis: Vec<u8> = network.sent.iter().map(|datagram| datagram.bytes[6]).collect();
    assert_eq!(vnis, [7, 1, 8, 9]);
    // One such segment on a UDP port; without one, unknown VNIs are dropped.
    let other = bridge_with(3, |segment| segment.header.any_vni = true);
    let error = network.try_change(1, [Change::AddSegment(other.clone())]).unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error}");
    network.change(1, Change::RemoveSegment(bridge_id(1)));
    network.arrive(1, underlay(2), 4789, &vxlan(vni(7), &udp(host(9), EVERYBODY, b"who?")));
    assert_eq!(network.drops(1, DropReason::UnknownVni), 1);
    network.change(1, Change::AddSegment(other));
}

#[test]
fn row_03_a_frame_has_no_say_in_the_vni_elsewhere() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    network.send_with(1, ports[0], &udp(host(1), EVERYBODY, b""), with_vni(7));
    assert_eq!(network.sent[0].bytes[4..8], [0, 0, 1, 0]);
}

#[test]
fn row_10_a_group_address_has_destinations_of_its_own() {
    let (mut network, ports) = Network::mesh(5, &bridge(1), false);
    let group = GROUP.mac;
    for change in [append(group, vtep(3)), append(group, vtep(4)), append(group, vtep(3))] {
        network.change(1, change);
    }
    network.send(1, ports[0], &udp(host(1), GROUP, b"to two"));
    assert_eq!(sent_to(&mut network), [3, 4]);
    network.send(1, ports[0], &udp(host(1), EVERYBODY, b"to all"));
    assert_eq!(sent_to(&mut network), [2, 3, 4, 5]);
    let listed: Vec<_> = entries(&mut network).iter().map(|e| (e.mac, e.destination)).collect();
    assert_eq!(listed[..2], [(group, vtep(3).into()), (group, vtep(4).into())]);
    network.change(1, remove(group, vtep(3)));
    network.send(1, ports[0], &udp(host(1), GROUP, b"to one"));
    assert_eq!(sent_to(&mut network), [4]);
    // With the last destination the entry is gone.
    network.change(1, remove(group, vtep(4)));
    network.send(1, ports[0], &udp(host(1), GROUP, b"to all"));
    assert_eq!(sent_to(&mut network), [2, 3, 4, 5]);
}

#[test]
fn row_10_ports_of_a_group_address_are_all_that_get_it() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    let [second, third] = [0, 1].map(|_| network.add_port(1, bridge_id(1), false));
    network.change(1, append(GROUP.mac, second));
    network.send(1, ports[0], &udp(host(1), GROUP, b"here only"));
    assert_eq!(network.frames(1, second).len(), 1);
    assert_eq!(network.frames(1, third).len(), 0);
    assert_eq!(sent_to(&mut network), [0_u8; 0]);
    network.send(2, ports[1], &udp(host(2), GROUP, b"from elsewhere"));
    assert_eq!(network.frames(1, second).len(), 1);
    assert_eq!(network.frames(1, third).len() + network.frames(1, ports[0]).len(), 0);
    network.change(1, Change::RemovePort(second));
    network.send(1, ports[0], &udp(host(1), GROUP, b"to all again"));
    assert_eq!((network.frames(1, third).len(), sent_to(&mut network)), (1, vec![2]));
}

#[test]
fn row_10_the_zero_address_is_the_flood_list() {
    let (mut network, ports) = Network::mesh(4, &bridge(1), false);
    network.change(1, remove(MacAddr::ZERO, vtep(2)));
    network.change(1, append(MacAddr::ZERO, vtep(4)));
    let flood = network.node(1).tables.segments()[0].flood.clone();
    assert_eq!(flood, [vtep(3), vtep(4)]);
    network.change(1, Change::RemoveFdb { segment: bridge_id(1), mac: MacAddr::ZERO });
    network.send(1, ports[0], &udp(host(1), EVERYBODY, b""));
    assert_eq!(network.drops(1, DropReason::NoDestination), 1);
    network.change(1, append(MacAddr::ZERO, vtep(4)));
    network.send(1, ports[0], &udp(host(1), EVERYBODY, b""));
    assert_eq!(sent_to(&mut network), [4]);
}

#[test]
fn row_10_what_the_kernel_refuses_is_refused() {
    let (mut network, ports) = Network::mesh(3, &bridge(1), false);
    let (segment, mac) = (bridge_id(1), host(7).mac);
    let insert = |mac, n| Change::InsertFdb { segment, mac, destination: vtep(n).into() };
    let invalid = [
        // "Cannot replace non-unicast fdb entries" (kernel `vxlan_core.c`, `vxlan_fdb_update_existing`).
        insert(GROUP.mac, 2),
        insert(MacAddr::ZERO, 2),
        append(mac, vtep(2)),
        append(MacAddr::ZERO, ports[0]),
    ];
    for change in invalid {
        let error = network.try_change(1, [change.clone()]).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{change:?}: {error}");
    }
    network.change(1, insert(mac, 2));
    network.change(1, insert(mac, 3));
    let missing = [
        remove(mac, vtep(2)),
        remove(GROUP.mac, vtep(2)),
        Change::RemoveFdb { segment, mac: GROUP.mac },
        Change::SetVtepVni { segment, vtep: vtep(2), vni: None },
    ];
    for change in missing {
        let error = network.try_change(1, [change.clone()]).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{change:?}: {error}");
    }
    network.change(1, remove(mac, vtep(3)));
    assert_eq!(entries(&mut network), []);
}

#[test]
fn row_10_entries_that_a_control_plane_learned_are_listed_so_and_stay() {
    let (mut network, ports) = Network::mesh(3, &bridge(1), false);
    let segment = bridge_id(1);
    let (a, b) = (host(7).mac, host(8).mac);
    let insert = |mac, n| Change::InsertExternFdb { segment, mac, destination: vtep(n).into() };
    network.change(1, insert(a, 2));
    network.change(1, insert(b, 3));
    network.change(1, Change::InsertFdb { segment, mac: b, destination: vtep(3).into() });
    network.send(1, ports[0], &udp(host(1), EVERYBODY, b""));
    let origins = |network: &mut Network| -> Vec<Origin> {
        entries(network).iter().map(|entry| entry.origin).collect()
    };
    assert_eq!(origins(&mut network), [Origin::Learned, Origin::Extern, Origin::Static]);
    // Neither time nor a flush nor another sender changes them.
    network.wait(1000);
    network.change(1, Change::FlushFdb { segment, which: overplane::Flush::All });
    network.send(3, ports[2], &udp(host(7), EVERYBODY, b"I am elsewhere"));
    assert_eq!(network.drops(1, DropReason::PinnedSource), 1);
    assert_eq!(origins(&mut network), [Origin::Extern, Origin::Static]);
    network.change(1, Change::RemoveFdb { segment, mac: a });
    assert_eq!(origins(&mut network), [Origin::Static]);
}

#[test]
fn row_10_a_vtep_can_be_sent_to_under_its_own_vni() {
    for offload in [false, true] {
        let (mut network, ports) = Network::mesh(3, &bridge(1), offload);
        let segment = bridge_id(1);
        let b = host(2).mac;
        network.change(1, Change::InsertFdb { segment, mac: b, destination: vtep(2).into() });
        network.change(1, Change::SetVtepVni { segment, vtep: vtep(2), vni: Some(vni(0x77)) });
        let vni_to = |network: &mut Network, n: u8| -> Vec<u8> {
            let to = network.sent.iter().filter(|datagram| datagram.to == vtep(n));
            to.map(|datagram| datagram.bytes[6]).collect()
        };
        network.send(1, ports[0], &udp(host(1), EVERYBODY, b"flooded"));
        assert_eq!((vni_to(&mut network, 2), vni_to(&mut network, 3)), (vec![0x77], vec![1]));
        network.send(1, ports[0], &udp(host(1), host(2), b"to it"));
        let (super_frame, vnet) = tcp_super_frame(host(1), EVERYBODY, &[7; 2500], 1000);
        network.send_unfinished(1, ports[0], &super_frame, vnet);
        assert_eq!(vni_to(&mut network, 2), [0x77; 5]);
        assert_eq!(vni_to(&mut network, 3), [1; 4]);
        let whole = |n: u8, network: &Network| -> Vec<Vec<u8>> {
            let to = network.sent.iter().filter(|datagram| datagram.to == vtep(n)).rev().take(3);
            to.map(|datagram| datagram.bytes[8..].to_vec()).collect()
        };
        assert_eq!(whole(2, &network), whole(3, &network), "and nothing else differs");
        assert_eq!(entries(&mut network)[1].vni, Some(vni(0x77)));
        network.change(1, Change::SetVtepVni { segment, vtep: vtep(2), vni: None });
        network.send(1, ports[0], &udp(host(1), host(2), b"to it"));
        assert_eq!(vni_to(&mut network, 2).last(), Some(&1));
    }
}
