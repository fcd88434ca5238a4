//! Snooping beside what else decides who gets a frame.

use std::net::SocketAddr;

use overplane::Querier;
use overplane::rate::RateLimit;

use super::*;

const GROUP: &str = "239.1.2.3";

#[test]
fn ports_that_are_kept_apart_stay_so() {
    let (mut network, mine, _) = router_mesh(&snooping());
    for port in &mine[..2] {
        let options = port_options(|options| options.isolated = true);
        network.change(1, Change::SetPort { port: *port, options });
    }
    network.send(1, mine[1], &say(host(2), Say::Join(3), ip(GROUP)));
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &to_group(host(1), ip(GROUP), b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![2], vec![]));
    network.arrive(1, underlay(2), 4789, &vxlan(vni(1), &to_group(host(9), ip(GROUP), b"")));
    assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![]));
}

#[test]
fn nothing_comes_back_unless_by_hairpin() {
    let (mut network, mine, _) = router_mesh(&snooping());
    network.send(1, mine[0], &say(host(1), Say::Join(3), ip(GROUP)));
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &to_group(host(1), ip(GROUP), b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![2], vec![]));
    let options = port_options(|options| options.hairpin = true);
    network.change(1, Change::SetPort { port: mine[0], options });
    network.send(1, mine[0], &to_group(host(1), ip(GROUP), b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![0, 2], vec![]));
}

#[test]
fn who_has_joined_gets_a_group_whatever_the_port_is_flooded_with() {
    let (mut network, mine, _) = router_mesh(&snooping());
    let options = port_options(|options| options.flood_multicast = false);
    network.change(1, Change::SetPort { port: mine[1], options });
    network.send(1, mine[0], &to_group(host(1), ip("224.0.0.5"), b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![2], vec![2, 3]));
    network.send(1, mine[1], &say(host(2), Say::Join(3), ip(GROUP)));
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &to_group(host(1), ip(GROUP), b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![]));
}

#[test]
fn hosts_cannot_claim_to_be_routers_where_there_are_none() {
    let (mut network, mine, _) = router_mesh(&snooping());
    let options = port_options(|options| options.multicast_routers = false);
    network.change(1, Change::SetPort { port: mine[1], options });
    network.send(1, mine[0], &say(host(1), Say::Join(3), ip(GROUP)));
    network.send(1, mine[1], &say(host(2), Say::Query(3), all(false)));
    network.send(1, mine[1], &say(host(2), Say::Query(3), ip(GROUP)));
    network.now += Duration::from_secs(5);
    who(&mut network, 1, &mine);
    network.arrive(1, underlay(2), 4789, &vxlan(vni(1), &to_group(host(9), ip(GROUP), b"")));
    assert_eq!(who(&mut network, 1, &mine), (vec![0, 2], vec![]), "not given up, nor tapped");
    // A host may still join.
    network.send(1, mine[1], &say(host(2), Say::Join(3), ip(GROUP)));
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &to_group(host(1), ip(GROUP), b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![]));
}

#[test]
fn a_node_relays_groups_to_vteps_that_joined_them() {
    // Node 1 is the hub of nodes 2 and 3, which know but it.
    let hub = bridge_with(1, |segment| {
        segment.snooping.enabled = true;
        segment.scope.vtep_group = 0;
    });
    let mut network = Network::new(4);
    let mut ports = vec![network.add_segment(1, hub, false)];
    for n in 2..=4 {
        ports.push(network.add_segment(n, snooping(), false));
        network.change(1, Change::AddFlood { segment: bridge_id(1), vtep: vtep(n) });
        network.change(n, Change::AddFlood { segment: bridge_id(1), vtep: vtep(1) });
    }
    network.send(1, ports[0], &say(host(99), Say::Query(3), all(false)));
    network.send(2, ports[1], &say(host(2), Say::Join(3), ip(GROUP)));
    network.now += Duration::from_secs(12);
    forget(&mut network, &ports[..1], &ports);
    network.send(3, ports[2], &to_group(host(3), ip(GROUP), b"by way of the hub"));
    let got = [1, 2, 3, 4].map(|n| network.frames(n, ports[usize::from(n) - 1]).len());
    assert_eq!(got, [1, 1, 0, 0]);
}

#[test]
fn an_underlay_group_stands_for_whoever_joined() {
    let all_vteps: SocketAddr = "239.255.0.1:4789".parse().unwrap();
    let segment = bridge_with(1, |segment| {
        segment.snooping.enabled = true;
        segment.open = true;
    });
    let mut network = Network::new(1);
    let port = network.add_segment(1, segment, false);
    network.change(1, Change::AddFlood { segment: bridge_id(1), vtep: all_vteps });
    network.send(1, port, &say(host(99), Say::Query(3), all(false)));
    network.now += Duration::from_secs(12);
    let sends = |network: &mut Network| {
        network.sent.clear();
        network.send(1, port, &to_group(host(1), ip(GROUP), b""));
        network.sent.iter().map(|sent| sent.to).collect::<Vec<_>>()
    };
    assert_eq!(sends(&mut network), []);
    // Of a VTEP that was not heard from before, too.
    let report = vxlan(vni(1), &say(host(7), Say::Join(3), ip(GROUP)));
    network.arrive(1, underlay(7), 4789, &report);
    assert_eq!(sends(&mut network), [all_vteps]);
    let now = network.now;
    let mdb = network.node(1).tables.mdb(bridge_id(1), now).unwrap();
    assert!(mdb.entries.iter().any(|entry| entry.destination == vtep(7).into()), "{mdb:?}");
}

#[test]
fn a_list_of_the_control_plane_holds_and_the_flood_list_is_never_exceeded() {
    let (mut network, mine, _) = router_mesh(&snooping());
    let mac = group_mac(ip(GROUP));
    // A VTEP that is a peer only.
    network.change(1, Change::AddPeer { segment: bridge_id(1), vtep: vtep(7) });
    let report = vxlan(vni(1), &say(host(7), Say::Join(3), ip(GROUP)));
    network.arrive(1, underlay(7), 4789, &report);
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &to_group(host(1), ip(GROUP), b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![2], vec![]));
    let destination = vtep(3).into();
    network.change(1, Change::AppendFdb { segment: bridge_id(1), mac, destination });
    network.send(1, mine[0], &to_group(host(1), ip(GROUP), b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![3]));
}

#[test]
fn reports_are_heard_however_much_is_flooded() {
    let segment = bridge_with(1, |segment| {
        segment.snooping.enabled = true;
        segment.storm.multicast = Some(RateLimit { per_second: 1, burst: 3 });
    });
    let (mut network, mine, _) = router_mesh(&segment);
    (0..9).for_each(|_| network.send(1, mine[0], &to_group(host(1), ip("239.9.9.9"), b"much")));
    assert_eq!(network.drops(1, DropReason::StormMulticast), 6);
    network.send(1, mine[1], &say(host(2), Say::Join(3), ip(GROUP)));
    assert_eq!(network.drops(1, DropReason::StormMulticast), 7);
    network.now += Duration::from_secs(5);
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &to_group(host(1), ip(GROUP), b""));
    assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![]));
}

#[test]
fn who_is_new_gets_everything_until_it_was_asked() {
    // The querier is elsewhere: until it must have asked.
    let (mut network, mut mine, _) = router_mesh(&snooping());
    network.change(1, Change::AddFlood { segment: bridge_id(1), vtep: vtep(7) });
    mine.push(network.add_port(1, bridge_id(1), false));
    let frame = to_group(host(1), ip(GROUP), b"");
    network.send(1, mine[0], &frame);
    assert_eq!(who(&mut network, 1, &mine), (vec![2, 3], vec![7]));
    network.now += Duration::from_secs(200);
    network.send(1, mine[2], &say(host(99), Say::Query(2), all(false)));
    network.wait(60);
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &frame);
    assert_eq!(who(&mut network, 1, &mine), (vec![2], vec![]));

    // This node asks itself: at once.
    let segment = bridge_with(1, |segment| {
        segment.snooping.enabled = true;
        segment.snooping.querier = Some(Querier::new(Some([10, 0, 0, 250].into()), None));
    });
    let mut network = Network::new(1);
    let mut mine = vec![network.add_segment(1, segment, false)];
    (0..60).for_each(|_| network.wait(1));
    mine.push(network.add_port(1, bridge_id(1), false));
    network.change(1, Change::AddFlood { segment: bridge_id(1), vtep: vtep(7) });
    who(&mut network, 1, &mine);
    network.wait(1);
    assert_eq!(who(&mut network, 1, &mine), (vec![0, 1], vec![7]), "the question");
    network.send(1, mine[0], &frame);
    assert_eq!(who(&mut network, 1, &mine), (vec![1], vec![7]));
    network.send(1, mine[1], &say(host(2), Say::Join(3), ip(GROUP)));
    network.wait(11);
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &frame);
    assert_eq!(who(&mut network, 1, &mine), (vec![1], vec![]));
}
