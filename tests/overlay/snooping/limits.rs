//! What happens where there is no room for who listens.

use overplane::limits::{DEFAULT_MEMBERSHIPS, MAX_MEMBERSHIPS};
use overplane::{Event, Querier};

use super::*;
use crate::groups::igmp_message;

fn limited(limit: usize) -> Segment {
    bridge_with(1, |segment| {
        segment.snooping.enabled = true;
        segment.snooping.limit = limit;
    })
}

fn full(network: &mut Network) -> Vec<IpAddr> {
    let events = network.events(1).into_iter();
    let full = |event| match event {
        Event::MdbFull { group, .. } => Some(group),
        _ => None,
    };
    events.filter_map(full).collect()
}

#[test]
fn a_group_of_which_somebody_found_no_room_is_flooded() {
    let (mut network, mine, ports) = router_mesh(&limited(2));
    let (first, second, third) = (ip("239.1.1.1"), ip("239.1.1.2"), ip("239.1.1.3"));
    let flooded = (vec![1, 2], vec![2, 3]);
    let to = |network: &mut Network, group| {
        who(network, 1, &mine);
        network.send(1, mine[0], &to_group(host(1), group, b""));
        who(network, 1, &mine)
    };
    network.send(1, mine[1], &say(host(2), Say::Join(2), first));
    network.send(2, ports[1], &say(host(3), Say::Join(2), second));
    assert_eq!(to(&mut network, first), (vec![1, 2], vec![]));
    assert_eq!(to(&mut network, second), (vec![2], vec![2]));
    assert_eq!(to(&mut network, third), (vec![2], vec![]));
    assert_eq!(full(&mut network), [] as [IpAddr; 0]);

    // One more member of a group that is known: that group alone is flooded.
    network.send(3, ports[2], &say(host(4), Say::Join(2), first));
    assert_eq!(network.stats(1).totals.memberships_refused, 1);
    assert_eq!(to(&mut network, first), flooded);
    assert_eq!(to(&mut network, second), (vec![2], vec![2]));
    // One more group: all of which nothing is known are.
    network.send(3, ports[2], &say(host(4), Say::Join(2), third));
    assert_eq!(to(&mut network, third), flooded);
    assert_eq!(to(&mut network, ip("239.1.1.4")), flooded);
    assert_eq!(to(&mut network, second), (vec![2], vec![2]));
    assert_eq!(full(&mut network), [first], "once");

    // For a membership interval, in which those who are known report again and the others do not.
    network.wait(200);
    network.send(1, mine[2], &say(host(99), Say::Query(2), all(false)));
    network.send(1, mine[1], &say(host(2), Say::Join(2), first));
    network.wait(70);
    assert_eq!(to(&mut network, first), (vec![1, 2], vec![]));
    assert_eq!(to(&mut network, third), (vec![2], vec![]));
    // What is over has made room.
    network.send(3, ports[2], &say(host(4), Say::Join(2), third));
    assert_eq!(to(&mut network, third), (vec![2], vec![3]));
    assert_eq!(network.stats(1).totals.memberships_refused, 2);
}

#[test]
fn so_is_what_comes_all_at_once() {
    let (mut network, mine, _) = router_mesh(&snooping());
    let mut message = vec![0x22, 0, 0, 0, 0, 0, 1, 44];
    for n in 0..300u16 {
        let [high, low] = n.to_be_bytes();
        message.extend([4, 0, 0, 0, 239, 5, high, low]);
    }
    network.send(1, mine[1], &igmp_message(host(2), [224, 0, 0, 22].into(), &message));
    assert_eq!(network.stats(1).totals.memberships_refused, 300 - 256);
    assert_eq!(full(&mut network), [ip("239.5.1.0")]);
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &to_group(host(1), ip("239.5.0.255"), b"learned"));
    assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![]));
    network.send(1, mine[0], &to_group(host(1), ip("239.5.1.0"), b"refused"));
    assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![2, 3]));
    // They are reported again.
    network.send(1, mine[1], &igmp_message(host(2), [224, 0, 0, 22].into(), &message));
    who(&mut network, 1, &mine);
    network.send(1, mine[0], &to_group(host(1), ip("239.5.1.43"), b"learned"));
    assert_eq!(who(&mut network, 1, &mine), (vec![1, 2], vec![]));
}

#[test]
fn options_have_their_bounds() {
    type Flip = fn(&mut Segment);
    let cases: [(Flip, &str); 10] = [
        (|s| s.snooping.limit = MAX_MEMBERSHIPS + 1, "limit of learned memberships"),
        (|s| s.snooping.membership_interval = Duration::ZERO, "membership interval"),
        (|s| s.snooping.querier_interval = Duration::from_secs(1 << 20), "querier interval"),
        (|s| s.snooping.querier = Some(Querier::new(None, None)), "querier"),
        (
            |s| s.snooping.querier = Some(Querier::new(Some([224, 0, 0, 1].into()), None)),
            "IPv4 address of a querier",
        ),
        (
            |s| s.snooping.querier = Some(Querier::new(None, "fd00::1".parse().ok())),
            "IPv6 address of a querier",
        ),
        (
            |s| s.snooping.querier = querier(|querier| querier.interval = Duration::from_secs(1)),
            "query interval",
        ),
        (
            |s| {
                s.snooping.querier =
                    querier(|querier| querier.response_interval = Duration::from_secs(13))
            },
            "query response interval",
        ),
        (
            |s| s.snooping.querier = querier(|querier| querier.interval = Duration::from_secs(255)),
            "query interval",
        ),
        (
            |s| {
                s.snooping.querier =
                    querier(|querier| querier.mac = Some(overplane::MacAddr::BROADCAST))
            },
            "MAC address of a querier",
        ),
    ];
    assert_eq!(snooping().snooping.limit, DEFAULT_MEMBERSHIPS);
    for (flip, what) in cases {
        let mut network = Network::new(1);
        let segment = bridge_with(1, flip);
        let error = network.try_change(1, [Change::AddSegment(segment)]).unwrap_err().to_string();
        assert!(error.starts_with(what), "{error}");
    }
}

fn querier(change: fn(&mut Querier)) -> Option<Querier> {
    let mut querier = Querier::new(Some([10, 0, 0, 250].into()), None);
    change(&mut querier);
    Some(querier)
}
