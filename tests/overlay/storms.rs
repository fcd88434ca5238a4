//! What keeps a segment alive when frames loop or somebody floods it: rate limits, and addresses that move too fast.

use std::time::Duration;

use overplane::rate::RateLimit;
use overplane::wire::VnetHeader;
use overplane::{Change, DropReason, Event, MacAddr, PortId, Segment, StormLimits};

use crate::network::Network;
use crate::packets::*;

fn limit(per_second: u32, burst: u32) -> Option<RateLimit> {
    Some(RateLimit { per_second, burst })
}

fn storms(network: &mut Network, n: u8) -> Vec<(Option<PortId>, DropReason)> {
    let events = network.events(n).into_iter();
    let storm = |event| match event {
        Event::Storm { port, reason, .. } => Some((port, reason)),
        _ => None,
    };
    events.filter_map(storm).collect()
}

#[test]
fn row_14_a_port_floods_no_more_than_its_limit() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    let group = Host { mac: MacAddr([1, 0, 0x5e, 0, 0, 5]), ..EVERYBODY };
    for (to, reason, set) in [
        (
            EVERYBODY,
            DropReason::StormBroadcast,
            (|s| s.broadcast = limit(2, 5)) as fn(&mut StormLimits),
        ),
        (group, DropReason::StormMulticast, |s| s.multicast = limit(2, 5)),
        (host(9), DropReason::StormUnknownUnicast, |s| s.unknown_unicast = limit(2, 5)),
    ] {
        let options = port_options(|options| set(&mut options.storm));
        network.change(1, Change::SetPort { port: ports[0], options });
        let frame = udp(host(1), to, b"much");
        (0..20).for_each(|_| network.send(1, ports[0], &frame));
        assert_eq!((network.frames(2, ports[1]).len(), network.drops(1, reason)), (5, 15));
        assert_eq!(storms(&mut network, 1), [(Some(ports[0]), reason)], "once");
        network.now += Duration::from_secs(1);
        (0..20).for_each(|_| network.send(1, ports[0], &frame));
        assert_eq!(network.frames(2, ports[1]).len(), 2);
        assert_eq!(storms(&mut network, 1), []);
        // The other kinds have no limit, nor has what is known.
        for other in [EVERYBODY, group, host(9)].into_iter().filter(|other| other.mac != to.mac) {
            (0..20).for_each(|_| network.send(1, ports[0], &udp(host(1), other, b"")));
            assert_eq!(network.frames(2, ports[1]).len(), 20);
        }
        network.now += Duration::from_secs(20);
        (0..20).for_each(|_| network.send(1, ports[0], &frame));
        assert_eq!(storms(&mut network, 1), [(Some(ports[0]), reason)], "again after a pause");
        network.frames(2, ports[1]);
    }
}

#[test]
fn row_14_a_segment_floods_no_more_than_its_limit_from_wherever_it_comes() {
    let limited = bridge_with(1, |segment| segment.storm.broadcast = limit(1, 10));
    let (mut network, ports) = Network::mesh(2, &limited, false);
    let second = network.add_port(1, bridge_id(1), false);
    let from = |n| udp(host(n), EVERYBODY, b"much");
    for _ in 0..6 {
        network.send(1, ports[0], &from(1));
        network.send(1, second, &from(2));
        network.arrive(1, underlay(2), 4789, &vxlan(vni(1), &from(3)));
    }
    assert_eq!(network.drops(1, DropReason::StormBroadcast), 8);
    assert_eq!(storms(&mut network, 1), [(None, DropReason::StormBroadcast)]);
    let learned = network.stats(1).segments[0].learned;
    assert_eq!(learned, 3, "who is there is learned all the same");
    assert_eq!(network.node(1).tables.segments()[0].storm.broadcast, limit(1, 10));
}

#[test]
fn row_14_a_super_frame_counts_as_what_it_stands_for() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), true);
    let options = port_options(|options| options.storm.broadcast = limit(1, 10));
    network.change(1, Change::SetPort { port: ports[0], options });
    let (frame, vnet) = udp_super_frame(host(1), EVERYBODY, &[0; 4000], 1000);
    for _ in 0..5 {
        network.give(
            1,
            ports[0],
            &[(&frame, vnet), (&udp(host(1), host(8), b""), VnetHeader::default())],
        );
    }
    network.run();
    assert_eq!(network.drops(1, DropReason::StormBroadcast), 3);
}

#[test]
fn row_14_limits_that_cannot_be_are_refused() {
    let mut network = Network::new(1);
    for (storm, text) in [
        (limit(0, 1), "rate limit: 0 is not allowed; allowed: 1 to 10000000 frames a second"),
        (limit(1, 0), "burst of a rate limit: 0 is not allowed; allowed: 1 to 1000000 frames"),
    ] {
        let segment = bridge_with(1, |segment| segment.storm.multicast = storm);
        let error = network.try_change(1, [Change::AddSegment(segment)]).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    for (change, text) in [
        (
            (|segment| segment.loops.moves = 251) as fn(&mut Segment),
            "moves of a loop guard: 251 is not allowed; allowed: 0 (no guard) to 250",
        ),
        (
            |segment| segment.loops.hold = Duration::ZERO,
            "hold time of a loop guard: 0ns is not allowed; allowed: 1 to 3600 seconds",
        ),
    ] {
        let change = Change::AddSegment(bridge_with(1, change));
        assert_eq!(network.try_change(1, [change]).unwrap_err().to_string(), text);
    }
}

/// Two stations with one address, or a loop, a second after the other: six moves.
fn fight(network: &mut Network, ports: [PortId; 2]) {
    for second in 0..6 {
        network.send(1, ports[second % 2], &udp(host(1), EVERYBODY, b"it is me"));
        network.now += Duration::from_secs(1);
    }
}

#[test]
fn an_address_that_moves_too_fast_is_held_and_reported_once() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    let here = [ports[0], network.add_port(1, bridge_id(1), false)];
    fight(&mut network, here);
    let is_damped = |event: &Event| matches!(event, Event::Damped { .. });
    assert!(!network.events(1).iter().any(is_damped), "five moves are followed");
    assert_eq!(network.drops(1, DropReason::Damped), 0);
    network.frames(2, ports[1]);

    // It is behind the second port now, and would go back to the first.
    for _ in 0..3 {
        network.send(1, here[0], &udp(host(1), host(2), b"it is me"));
    }
    let damped = Event::Damped {
        segment: bridge_id(1),
        mac: host(1).mac,
        at: here[1].into(),
        elsewhere: here[0].into(),
    };
    let events: Vec<Event> = network.events(1).into_iter().filter(is_damped).collect();
    assert_eq!(events, [damped]);
    assert_eq!(network.drops(1, DropReason::Damped), 3);
    // What goes round is what is flooded.
    network.send(1, here[1], &udp(host(1), EVERYBODY, b"round and round"));
    assert_eq!(network.drops(1, DropReason::Damped), 4);
    network.frames(1, here[1]);
    network.send(2, ports[1], &udp(host(2), host(1), b"for it"));
    assert_eq!(network.frames(1, here[1]).len(), 1, "it is reached where it is held");
    network.send(1, here[1], &udp(host(1), host(2), b"from it"));
    assert_eq!(network.frames(2, ports[1]).len(), 1);
    network.send(1, here[0], &udp(host(3), EVERYBODY, b"others do as they like"));
    assert_eq!(network.frames(2, ports[1]).len(), 1);

    network.now += Duration::from_secs(30);
    network.send(1, here[0], &udp(host(1), EVERYBODY, b"it is me"));
    assert_eq!(network.frames(2, ports[1]).len(), 1, "it may move again");
}

#[test]
fn an_address_is_held_behind_a_vtep_and_by_the_segments_own_limits() {
    let strict = bridge_with(1, |segment| segment.loops.moves = 1);
    let (mut network, ports) = Network::mesh(3, &strict, false);
    let twin = vxlan(vni(1), &udp(host(1), EVERYBODY, b"it is me"));
    for n in [2, 3, 2, 2] {
        network.arrive(1, underlay(n), 4789, &twin);
        network.now += Duration::from_secs(1);
    }
    assert_eq!((network.frames(1, ports[0]).len(), network.drops(1, DropReason::Damped)), (2, 2));

    let lax = bridge_with(1, |segment| segment.loops.moves = 0);
    let (mut network, ports) = Network::mesh(2, &lax, false);
    let here = [ports[0], network.add_port(1, bridge_id(1), false)];
    (0..5).for_each(|_| fight(&mut network, here));
    assert_eq!(network.drops(1, DropReason::Damped), 0);
}
