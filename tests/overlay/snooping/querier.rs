//! A node that asks who listens where nobody else does.

use overplane::Querier;
use overplane::wire::eth;
use overplane::wire::multicast::{self, Message, Query};

use super::*;

/// Bridge segment 1 that snoops, with a querier at the addresses of host `n`.
fn querier(n: u8) -> Segment {
    bridge_with(1, |segment| {
        segment.snooping.enabled = true;
        let own = host(n);
        let querier = Querier::new(Some(own.ip), Some(crate::groups::link_local(own)));
        segment.snooping.querier = Some(querier);
    })
}

/// The queries among some frames.
fn queries(frames: Vec<Vec<u8>>) -> Vec<Query> {
    let query = |frame: &Vec<u8>| match multicast::parse(frame) {
        Some(Message::Query(query)) => Some(query),
        _ => None,
    };
    frames.iter().filter_map(query).collect()
}

#[test]
fn a_querier_asks_ports_and_vteps_from_time_to_time() {
    let mut network = Network::new(2);
    let ports =
        [network.add_segment(1, querier(250), false), network.add_segment(2, snooping(), false)];
    network.change(1, Change::AddFlood { segment: bridge_id(1), vtep: vtep(2) });
    network.change(2, Change::AddFlood { segment: bridge_id(1), vtep: vtep(1) });
    let mut asked = Vec::new();
    for second in 0..400 {
        network.wait(1);
        for frames in [network.frames(1, ports[0]), network.frames(2, ports[1])] {
            for frame in &frames {
                let (_, from) = eth::addresses(frame).unwrap();
                assert!(
                    [[6, 0x51, 10, 0, 0, 250], [6, 0x51, 0, 0, 0, 250]].contains(&from.0),
                    "{from}"
                );
            }
            let queries = queries(frames);
            let sources = [ip("10.0.0.250"), ip("fe80::fa")];
            let query = |source| Query { source, group: None, response: 10_000, decides: true };
            if !queries.is_empty() {
                assert_eq!(queries, sources.map(query));
                asked.push(second);
            }
        }
    }
    assert_eq!(asked, [0, 0, 31, 31, 156, 156, 281, 281]);
    assert_eq!(network.stats(1).totals.generated, 16);
    for n in [1, 2] {
        let now = network.now;
        let mdb = network.node(n).tables.mdb(bridge_id(1), now).unwrap();
        assert!(mdb.active_v4 && mdb.active_v6, "{mdb:?}");
        let routers: Vec<_> = mdb.entries.iter().map(|entry| entry.destination).collect();
        let expected: &[Destination] = if n == 1 { &[] } else { &[Destination::Vtep(vtep(1))] };
        assert_eq!(routers, expected, "a node is no router of its own, and one to others");
    }
}

#[test]
fn of_two_queriers_the_lower_address_goes_on() {
    let mut network = Network::new(2);
    let ports =
        [network.add_segment(1, querier(250), false), network.add_segment(2, querier(249), false)];
    network.change(1, Change::AddFlood { segment: bridge_id(1), vtep: vtep(2) });
    network.change(2, Change::AddFlood { segment: bridge_id(1), vtep: vtep(1) });
    (0..40).for_each(|_| network.wait(1));
    ports.iter().zip(1..).for_each(|(port, n)| drop(network.frames(n, *port)));
    (0..250).for_each(|_| network.wait(1));
    let heard = queries(network.frames(1, ports[0]));
    assert_eq!(heard.len(), 4, "two times, in both families");
    assert!(heard.iter().all(|query| [ip("10.0.0.249"), ip("fe80::f9")].contains(&query.source)));
    // When it has been gone for the querier interval, the other one takes over.
    network.change(2, Change::RemoveSegment(bridge_id(1)));
    (0..300).for_each(|_| network.wait(1));
    let heard = queries(network.frames(1, ports[0]));
    assert!(heard.len() >= 2 && heard.iter().all(|query| query.source != ip("10.0.0.249")));
    // A bridge that asks without an address of its own silences nobody.
    for _ in 0..13 {
        network.wait(10);
        let mut nobody = host(0);
        nobody.ip = [0, 0, 0, 0].into();
        network.send(1, ports[0], &say(nobody, Say::Query(2), all(false)));
    }
    assert!(
        queries(network.frames(1, ports[0])).iter().any(|query| query.source == ip("10.0.0.250"))
    );
}

#[test]
fn who_is_left_behind_is_asked_before_a_group_is_given_up() {
    for (group, version) in [("239.1.2.3", 2), ("239.1.2.3", 3), ("ff05::7", 1), ("ff05::7", 2)] {
        let group = ip(group);
        let (mut network, ports) = Network::mesh(3, &snooping(), false);
        network.change(1, Change::RemoveSegment(bridge_id(1)));
        let first = network.add_segment(1, querier(250), false);
        let second = network.add_port(1, bridge_id(1), false);
        for n in [2, 3] {
            network.change(1, Change::AddFlood { segment: bridge_id(1), vtep: vtep(n) });
        }
        let mine = [first, second];
        network.wait(1);
        network.send(1, second, &say(host(2), Say::Join(version), group));
        network.send(2, ports[1], &say(host(3), Say::Join(version), group));
        network.wait(12);
        forget(&mut network, &mine, &ports);
        network.send(1, first, &to_group(host(1), group, b""));
        assert_eq!(who(&mut network, 1, &mine), (vec![1], vec![2]), "{group} {version}");

        // Both leave; behind one of them somebody stays, as elsewhere, and says so when asked.
        network.send(3, ports[2], &say(host(4), Say::Join(version), group));
        network.send(1, second, &say(host(2), Say::Leave(version), group));
        network.send(2, ports[1], &say(host(3), Say::Leave(version), group));
        forget(&mut network, &mine, &ports);
        let mut asked = [0; 4];
        for _ in 0..4 {
            network.wait(1);
            let places = [
                (1, first, None),
                (1, second, None),
                (2, ports[1], Some(host(8))),
                (3, ports[2], Some(host(4))),
            ];
            for (asked, (node, port, stays)) in asked.iter_mut().zip(places) {
                let queries = queries(network.frames(node, port));
                *asked += queries.len();
                for query in queries {
                    assert_eq!((query.group, query.response), (Some(group), 1000));
                    if let Some(stays) = stays {
                        network.send(node, port, &say(stays, Say::Join(version), group));
                    }
                }
            }
        }
        // Everybody hears the questions, for everybody gives up who does not answer them.
        assert_eq!(asked, [2; 4], "{group} {version}");
        who(&mut network, 1, &mine);
        network.send(1, first, &to_group(host(1), group, b""));
        assert_eq!(who(&mut network, 1, &mine), (vec![], vec![2, 3]), "{group} {version}");
        for (n, other) in [(2, 3), (3, 2)] {
            let now = network.now;
            let mdb = network.node(n).tables.mdb(bridge_id(1), now).unwrap();
            let entries = mdb.entries.iter().filter(|entry| entry.group == Some(group));
            let known: Vec<_> = entries.map(|entry| entry.destination).collect();
            let expected = [Destination::Vtep(vtep(other)), ports[usize::from(n) - 1].into()];
            assert!(known.len() == 2 && expected.iter().all(|at| known.contains(at)), "{known:?}");
        }
    }
}
