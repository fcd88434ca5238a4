//! Multicast that goes to those alone who listen: what is learned from IGMP and MLD, and what is forwarded by it.

mod limits;
mod oracle;
mod querier;
mod relations;

use std::net::IpAddr;
use std::time::Duration;

use overplane::{Change, Destination, DropReason, Origin, PortId, Segment};

use crate::groups::{Say, group_mac, say, to_group};
use crate::network::Network;
use crate::packets::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Bridge segment 1 that snoops.
fn snooping() -> Segment {
    bridge_with(1, |segment| segment.snooping.enabled = true)
}

/// All groups of a family.
fn all(ipv6: bool) -> IpAddr {
    if ipv6 { ip("::") } else { ip("0.0.0.0") }
}

/// Which ports of node `n` got anything, and whether the other nodes of a mesh of three were sent anything, since the last time.
fn who(network: &mut Network, n: u8, ports: &[PortId]) -> (Vec<usize>, Vec<u8>) {
    let got = |port: &PortId| !network.frames(n, *port).is_empty();
    let ports = ports.iter().map(got).collect::<Vec<_>>();
    let ports = ports.iter().enumerate().filter(|(_, got)| **got).map(|(index, _)| index).collect();
    let mut nodes: Vec<u8> =
        (1..=9).filter(|other| network.sent.iter().any(|sent| sent.to == vtep(*other))).collect();
    nodes.dedup();
    network.sent.clear();
    (ports, nodes)
}

/// Three nodes; on the first one three ports, of which the last has a multicast router that has asked, long enough ago.
fn router_mesh(segment: &Segment) -> (Network, Vec<PortId>, Vec<PortId>) {
    let (mut network, ports) = Network::mesh(3, segment, false);
    let second = network.add_port(1, segment.id(), false);
    let third = network.add_port(1, segment.id(), false);
    let mine = vec![ports[0], second, third];
    for ipv6 in [false, true] {
        network.send(1, third, &say(host(99), Say::Query(2), all(ipv6)));
    }
    network.now += Duration::from_secs(12);
    forget(&mut network, &mine, &ports);
    (network, mine, ports)
}

/// Forgets what was received and sent.
fn forget(network: &mut Network, mine: &[PortId], ports: &[PortId]) {
    mine.iter().for_each(|port| drop(network.frames(1, *port)));
    (1..).zip(ports).for_each(|(n, port)| drop(network.frames(n, *port)));
    network.sent.clear();
}

#[test]
fn row_14_frames_for_a_group_go_to_those_who_joined_it_and_to_routers() {
    for (group, other, versions) in
        [("239.1.2.3", "239.1.2.4", 1..=3), ("ff05::7", "ff05::8", 1..=2)]
    {
        for version in versions {
            let (group, other) = (ip(group), ip(other));
            let (mut network, mine, ports) = router_mesh(&snooping());
            network.send(1, mine[1], &say(host(2), Say::Join(version), group));
            network.send(2, ports[1], &say(host(3), Say::Join(version), group));
            forget(&mut network, &mine, &ports);

            network.send(1, mine[0], &to_group(host(1), group, b"for two and a router"));
            assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![2]), "{group} {version}");
            assert_eq!(
                (network.frames(2, ports[1]).len(), network.frames(3, ports[2]).len()),
                (1, 0)
            );
            // From the underlay: to the ports that joined, and the router.
            network.send(3, ports[2], &to_group(host(4), group, b"from elsewhere"));
            assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![1, 2]));
            network.frames(2, ports[1]);
            // Nobody has joined this one; the router gets it, and of its node that does not have it nobody.
            network.send(1, mine[0], &to_group(host(1), other, b"for the router"));
            assert_eq!(who(&mut network, 1, &mine), (vec![2], vec![]));
            network.send(1, mine[2], &to_group(host(99), other, b"for nobody"));
            assert_eq!(who(&mut network, 1, &mine), (vec![], vec![]));
            assert_eq!(network.drops(1, DropReason::NoMember), 1);

            // Until it is told otherwise, or its time is over.
            network.now += Duration::from_secs(200);
            for ipv6 in [false, true] {
                network.send(1, mine[2], &say(host(99), Say::Query(2), all(ipv6)));
            }
            network.send(1, mine[1], &say(host(2), Say::Join(version), group));
            network.now += Duration::from_secs(59);
            forget(&mut network, &mine, &ports);
            network.send(1, mine[0], &to_group(host(1), group, b"for two and a router"));
            assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![2]));
            network.now += Duration::from_secs(1);
            network.send(
                1,
                mine[0],
                &to_group(host(1), group, b"the other one was silent for 260 s"),
            );
            assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![]));
        }
    }
}

#[test]
fn what_everybody_needs_goes_to_everybody() {
    let (mut network, mine, _) = router_mesh(&snooping());
    let everybody = (vec![1, 2], vec![2, 3]);
    let frames = [
        to_group(host(1), ip("224.0.0.5"), b"on this link"),
        to_group(host(1), ip("ff02::1"), b"all nodes"),
        [&[1, 0, 0xc, 0xcc, 0xcc, 0xcc][..], &host(1).mac.0, &[0x88, 0xb5], &[0; 46]].concat(),
        udp(host(1), EVERYBODY, b"broadcast"),
        udp(host(1), host(77), b"unknown"),
    ];
    for frame in &frames {
        network.send(1, mine[0], frame);
        assert_eq!(who(&mut network, 1, &mine), everybody);
    }
    // With a tag it is another network.
    let frame = to_group(host(1), ip("239.1.2.3"), b"tagged");
    let tagged = [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
    network.send(1, mine[0], &tagged);
    assert_eq!(who(&mut network, 1, &mine), everybody);
    // The group of an individual address goes by who has joined it.
    network.send(1, mine[0], &to_group(host(1), ip("ff02::1:ff00:9"), b"solicited"));
    assert_eq!(who(&mut network, 1, &mine), (vec![2], vec![]));
}

#[test]
fn row_14_without_a_querier_everything_is_flooded() {
    let group = ip("239.1.2.3");
    let (mut network, ports) = Network::mesh(3, &snooping(), false);
    let second = network.add_port(1, bridge_id(1), false);
    let third = network.add_port(1, bridge_id(1), false);
    let mine = [ports[0], second, third];
    let frame = to_group(host(1), group, b"");
    let flooded = (vec![1, 2], vec![2, 3]);
    network.send(1, second, &say(host(2), Say::Join(3), group));
    forget(&mut network, &mine, &ports);
    network.send(1, mine[0], &frame);
    assert_eq!(who(&mut network, 1, &mine), flooded);
    assert!(!network.node(1).tables.mdb(bridge_id(1), Duration::ZERO).unwrap().active_v4);

    // The first answers come within ten seconds.
    network.send(1, third, &say(host(99), Say::Query(3), all(false)));
    let asked = network.now;
    forget(&mut network, &mine, &ports);
    for (second, expected) in
        [(10, &flooded), (11, &(vec![1, 2], vec![])), (254, &(vec![1, 2], vec![])), (255, &flooded)]
    {
        network.now = asked + Duration::from_secs(second);
        network.send(1, mine[0], &frame);
        assert_eq!(who(&mut network, 1, &mine), *expected, "after {second} s");
        let (now, id) = (network.now, bridge_id(1));
        let mdb = network.node(1).tables.mdb(id, now).unwrap();
        assert_eq!((mdb.active_v4, mdb.active_v6), (*expected != flooded, false));
    }
    // Each family has its own.
    network.send(1, third, &say(host(99), Say::Query(2), all(true)));
    network.now += Duration::from_secs(20);
    forget(&mut network, &mine, &ports);
    network.send(1, mine[0], &frame);
    assert_eq!(who(&mut network, 1, &mine), flooded);
    network.send(1, mine[0], &to_group(host(1), ip("ff05::7"), b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![2], vec![]));
}

#[test]
fn who_leaves_is_given_up_when_nobody_answers_the_querier() {
    for (group, version) in [("239.1.2.3", 2), ("239.1.2.3", 3), ("ff05::7", 1), ("ff05::7", 2)] {
        let group = ip(group);
        let (mut network, mine, ports) = router_mesh(&snooping());
        network.send(1, mine[1], &say(host(2), Say::Join(version), group));
        network.send(2, ports[1], &say(host(3), Say::Join(version), group));
        network.send(1, mine[1], &say(host(2), Say::Leave(version), group));
        network.send(2, ports[1], &say(host(3), Say::Leave(version), group));
        forget(&mut network, &mine, &ports);
        // Others may still be there.
        network.now += Duration::from_secs(9);
        network.send(1, mine[0], &to_group(host(1), group, b""));
        assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![2]), "{group} {version}");
        // The querier asks; one answers.
        network.send(1, mine[2], &say(host(99), Say::Query(version), group));
        network.send(2, ports[1], &say(host(8), Say::Join(version), group));
        network.now += Duration::from_secs(3);
        forget(&mut network, &mine, &ports);
        network.send(1, mine[0], &to_group(host(1), group, b""));
        assert_eq!(who(&mut network, 1, &mine), (vec![2], vec![2]), "{group} {version}");
    }
}

#[test]
fn who_is_alone_behind_a_port_may_leave_at_once() {
    let group = ip("239.1.2.3");
    let (mut network, mine, _) = router_mesh(&snooping());
    let options = port_options(|options| options.fast_leave = true);
    network.change(1, Change::SetPort { port: mine[1], options });
    network.send(1, mine[1], &say(host(2), Say::Join(2), group));
    network.send(1, mine[1], &say(host(2), Say::Leave(2), group));
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &to_group(host(1), group, b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![2], vec![]));
    network.send(1, mine[1], &say(host(2), Say::Join(2), group));
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &to_group(host(1), group, b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![]), "and join again");
}

#[test]
fn reports_go_to_vteps_and_routers_and_not_to_other_hosts() {
    for (what, group) in [
        (Say::Join(1), "239.1.2.3"),
        (Say::Join(2), "239.1.2.3"),
        (Say::Join(3), "239.1.2.3"),
        (Say::Leave(2), "239.1.2.3"),
        (Say::Join(1), "ff05::7"),
        (Say::Leave(1), "ff05::7"),
        (Say::Join(2), "ff05::7"),
    ] {
        let (mut network, mine, ports) = router_mesh(&snooping());
        network.send(1, mine[0], &say(host(1), what, ip(group)));
        assert_eq!(who(&mut network, 1, &mine), (vec![2], vec![2, 3]), "{what:?}");
        let others = (network.frames(2, ports[1]).len(), network.frames(3, ports[2]).len());
        assert_eq!(others, (0, 0), "{what:?}: the querier is elsewhere, and hosts hear nothing");
        network.send(3, ports[2], &say(host(3), what, ip(group)));
        assert_eq!(who(&mut network, 1, &mine), (vec![2], vec![1, 2]), "{what:?}");
    }
    // As long as nobody asks, they are flooded like anything.
    let (mut network, ports) = Network::mesh(2, &snooping(), false);
    network.send(1, ports[0], &say(host(1), Say::Join(2), ip("239.1.2.3")));
    assert_eq!(network.frames(2, ports[1]).len(), 1);
}

#[test]
fn routers_are_found_by_what_they_say() {
    let pim = |group: &str| {
        let mut frame = to_group(host(50), ip(group), b"");
        let (protocol, ttl, start) = if ip(group).is_ipv6() { (20, 21, 54) } else { (23, 22, 34) };
        (frame[protocol], frame[ttl], frame[start]) = (103, 1, 0x20);
        if !ip(group).is_ipv6() {
            frame[24..26].fill(0);
            let sum = overplane::wire::checksum::sum(&frame[14..34]);
            frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
        }
        frame
    };
    let hello = [
        pim("224.0.0.13"),
        pim("ff02::d"),
        crate::groups::igmp_message(
            host(50),
            [224, 0, 0, 106].into(),
            &[0x30, 20, 0, 0, 0, 0, 0, 0],
        ),
    ];
    for frame in hello {
        let (mut network, mine, ports) = router_mesh(&snooping());
        network.send(1, mine[1], &frame);
        network.send(3, ports[2], &frame);
        forget(&mut network, &mine, &ports);
        for group in ["239.9.9.9", "ff05::9"] {
            network.send(1, mine[0], &to_group(host(1), ip(group), b""));
            assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![3]));
        }
        // Their time is over, too.
        network.now += Duration::from_secs(240);
        network.send(1, mine[2], &say(host(99), Say::Query(2), all(false)));
        network.now += Duration::from_secs(15);
        forget(&mut network, &mine, &ports);
        network.send(1, mine[0], &to_group(host(1), ip("239.9.9.9"), b""));
        assert_eq!(who(&mut network, 1, &mine), (vec![2], vec![]));
    }
}

#[test]
fn groups_that_nobody_joined_are_flooded_if_asked_to() {
    let segment = bridge_with(1, |segment| {
        segment.snooping.enabled = true;
        segment.snooping.flood_unregistered = true;
    });
    let (mut network, mine, _) = router_mesh(&segment);
    network.send(1, mine[1], &say(host(2), Say::Join(2), ip("239.1.2.3")));
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &to_group(host(1), ip("239.1.2.3"), b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![]));
    network.send(1, mine[0], &to_group(host(1), ip("239.1.2.4"), b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![2, 3]));
}

#[test]
fn the_control_plane_can_say_who_listens() {
    let (group, id) = (ip("239.1.2.3"), bridge_id(1));
    let (mut network, mine, _) = router_mesh(&snooping());
    let insert =
        |group, destination: Destination| Change::InsertMdb { segment: id, group, destination };
    let remove =
        |group, destination: Destination| Change::RemoveMdb { segment: id, group, destination };
    network.change(1, insert(Some(group), mine[1].into()));
    network.change(1, insert(Some(group), vtep(3).into()));
    network.change(1, insert(None, vtep(2).into()));
    network.change(1, insert(None, vtep(2).into()));
    let frame = to_group(host(1), group, b"");
    network.send(1, mine[0], &frame);
    assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![2, 3]));
    // It does not age, nor does it leave.
    network.send(1, mine[1], &say(host(2), Say::Leave(2), group));
    network.now += Duration::from_secs(1000);
    network.send(1, mine[2], &say(host(99), Say::Query(2), all(false)));
    network.wait(12);
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &frame);
    assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![2, 3]));
    let now = network.now;
    let mdb = network.node(1).tables.mdb(id, now).unwrap();
    let listed: Vec<_> =
        mdb.entries.iter().map(|e| (e.group, e.destination, e.origin, e.expires)).collect();
    let expected = [
        (None, vtep(2).into(), Origin::Static, None),
        (None, mine[2].into(), Origin::Learned, Some(Duration::from_secs(243))),
        (Some(group), vtep(3).into(), Origin::Static, None),
        (Some(group), mine[1].into(), Origin::Static, None),
    ];
    assert!(expected.iter().all(|entry| listed.contains(entry)) && listed.len() == 4, "{listed:?}");

    network.change(1, remove(Some(group), vtep(3).into()));
    network.change(1, remove(None, vtep(2).into()));
    assert!(network.try_change(1, [remove(None, vtep(2).into())]).is_err());
    network.send(1, mine[0], &frame);
    assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![]));
    // With the port its entries go.
    network.change(1, Change::RemovePort(mine[1]));
    let now = network.now;
    assert_eq!(network.node(1).tables.mdb(id, now).unwrap().entries.len(), 1);
    for wrong in ["224.0.0.9", "10.0.0.1", "ff02::1"] {
        assert!(
            network.try_change(1, [insert(Some(ip(wrong)), vtep(2).into())]).is_err(),
            "{wrong}"
        );
    }
    // Naming a VTEP makes it a peer, and taking that back ends it.
    let new = "192.0.2.77:4789".parse().unwrap();
    network.change(1, insert(Some(group), Destination::Vtep(new)));
    assert!(network.node(1).tables.segments()[0].peers.contains(&new));
    network.change(1, remove(Some(group), Destination::Vtep(new)));
    assert!(!network.node(1).tables.segments()[0].peers.contains(&new));
    network.change(1, Change::AddSegment(bridge(2)));
    let wrong =
        Change::InsertMdb { segment: bridge_id(2), group: None, destination: vtep(2).into() };
    assert!(network.try_change(1, [wrong]).unwrap_err().to_string().contains("does not snoop"));
}

#[test]
fn what_is_malformed_says_nothing() {
    let group = ip("239.1.2.3");
    let (mut network, mine, _) = router_mesh(&snooping());
    let good = say(host(2), Say::Join(2), group);
    // TTL, header checksum, message checksum, and a message that is cut short.
    for (at, bit) in [(22, 2), (24, 1), (40, 1)] {
        let mut frame = good.clone();
        frame[at] ^= bit;
        network.send(1, mine[1], &frame);
    }
    network.send(1, mine[1], &good[..good.len() - 1]);
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &to_group(host(1), group, b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![2], vec![]));
    assert_eq!(group_mac(group).0, [1, 0, 0x5e, 1, 2, 3]);
}
