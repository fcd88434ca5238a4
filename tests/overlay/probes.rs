//! Probes of the paths between VTEPs: what is found out by them, and what nobody can do with them.

use std::time::Duration;

use overplane::wire::probe::{self, Kind, Probe};
use overplane::{
    Change, DropReason, Error, Event, MacAddr, MssClamp, PathSource, PortId, ProbeState, Prober,
    Probing, Segment, Tables,
};

use crate::network::{Faults, Network};
use crate::packets::*;

fn probing(n: u32) -> Segment {
    bridge_with(n, |segment| segment.mtu_options.probe = true)
}

/// Nodes 1 and 2, of which the first probes, with host `n` behind node `n`.
fn two_nodes() -> (Network, Vec<PortId>) {
    nodes_with(probing(1), bridge(1))
}

fn nodes_with(first: Segment, second: Segment) -> (Network, Vec<PortId>) {
    let mut network = Network::new(2);
    let id = first.id();
    let ports = vec![network.add_segment(1, first, false), network.add_segment(2, second, false)];
    for (n, other) in [(1, 2), (2, 1)] {
        network.change(n, Change::AddFlood { segment: id, vtep: vtep(other) });
        let (mac, destination) = (host(other).mac, vtep(other).into());
        network.change(n, Change::InsertFdb { segment: id, mac, destination });
    }
    (network, ports)
}

fn swallowing(mtu: usize) -> Faults {
    Faults { mtu, ..Faults::default() }
}

/// State, verified path MTU and black holes of the path from node 1 to node 2.
fn found(network: &mut Network) -> (ProbeState, Option<u32>, u64) {
    let (path, probe) = network.path(1, vtep(2));
    let probe = probe.unwrap();
    assert!(path.verified.is_none_or(|limit| Some(limit) == probe.verified), "{path:?}");
    (probe.state, probe.verified, probe.black_holes)
}

/// A frame from host 1 to host 2 with an IPv4 packet of `len` bytes that must not be fragmented.
fn packet_of(len: usize) -> Vec<u8> {
    let mut frame = udp(host(1), host(2), &vec![7; len - 28]);
    frame[20] = 0x40;
    let sum = etherparse::Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap().to_header();
    frame[24..26].copy_from_slice(&sum.calc_header_checksum().to_be_bytes());
    frame
}

#[test]
fn row_19_a_path_that_carries_everything_is_verified_by_two_probes() {
    let (mut network, ports) = two_nodes();
    network.probe(1, 1);
    assert_eq!(found(&mut network), (ProbeState::Complete, Some(1500), 0));
    let sizes: Vec<usize> = network.sent.iter().map(|datagram| datagram.bytes.len() + 28).collect();
    assert_eq!(sizes, [1200, 28 + 8 + 60, 1500, 28 + 8 + 60], "and answers are small");
    assert!(network.sent.iter().all(|datagram| !datagram.outer.may_fragment));
    let (_, probe) = network.path(1, vtep(2));
    let probe = probe.unwrap();
    assert_eq!((probe.sent, probe.answered), (2, 2));
    assert!(probe.last_answer.unwrap() <= Duration::from_secs(2));
    assert_eq!(probe.round_trip, Some(Duration::from_millis(1)));
    for (n, probes, answered) in [(1, 2, 0), (2, 0, 2)] {
        let totals = network.stats(n).totals;
        assert_eq!((totals.probes, totals.probes_answered), (probes, answered));
        // What this node was asked, or what it was told.
        assert_eq!((totals.answered, totals.generated, totals.dropped_at_all()), (2, 2, 0));
    }
    assert_eq!(network.events(1), [], "nothing has changed");
    assert_eq!(network.path(1, vtep(2)).0.limit(), None, "and nothing is limited");
    // Hosts see nothing of it, and nothing is learned from it.
    for (n, port) in [(1, ports[0]), (2, ports[1])] {
        assert_eq!(network.frames(n, port).len(), 0);
        let now = network.now;
        let fdb = network.node(n).tables.fdb(bridge_id(1), now).unwrap();
        assert_eq!(fdb.len(), 1, "the static one");
    }
    // Time and again, from one source port after the other.
    network.sent.clear();
    network.probe(1, 100);
    let asked = network.sent.iter().filter(|datagram| datagram.bytes.len() == 1472);
    let ports: std::collections::HashSet<u16> =
        asked.map(|datagram| datagram.from.port()).collect();
    assert_eq!(ports.len(), 10);
}

trait DroppedAtAll {
    fn dropped_at_all(&self) -> u64;
}

impl DroppedAtAll for overplane::Totals {
    fn dropped_at_all(&self) -> u64 {
        self.drop_reasons().map(|(_, n)| n).sum()
    }
}

#[test]
fn row_19_a_path_that_swallows_large_packets_is_found_out_and_told() {
    let segment = bridge_with(1, |segment| {
        segment.mtu_options.probe = true;
        segment.mtu_options.clamp_mss = MssClamp::ToMtu;
    });
    let (mut network, ports) = nodes_with(segment, bridge(1));
    network.probe(1, 1);
    network.faults = swallowing(1400);
    // Hosts have no chance to find out.
    network.send(1, ports[0], &packet_of(1450));
    network.events(1);
    assert_eq!(network.frames(2, ports[1]).len(), 0);
    assert_eq!(network.frames(1, ports[0]).len(), 0);
    network.probe(1, 13);
    let black_hole = Event::BlackHole { vtep: vtep(2), size: 1500, verified: 1200 };
    assert_eq!(network.events(1), [black_hole], "known at once, and what is safe holds at once");
    network.probe(1, 30);
    assert_eq!(found(&mut network), (ProbeState::Complete, Some(1400), 1));
    assert_eq!(network.events(1), [Event::PathMtu { vtep: vtep(2), mtu: Some(1400) }]);
    // Now they are told.
    for (len, told, arrives) in [(1450, 1, 0), (1351, 1, 0), (1350, 0, 1)] {
        network.send(1, ports[0], &packet_of(len));
        assert_eq!(network.frames(1, ports[0]).len(), told, "{len}");
        assert_eq!(network.frames(2, ports[1]).len(), arrives, "{len}");
    }
    assert_eq!(network.drops(1, DropReason::TooBig), 2);
    // What becomes wider is found to be when its time has come.
    network.faults = Faults::default();
    network.probe(1, 650);
    assert_eq!(found(&mut network), (ProbeState::Complete, Some(1500), 1));
    assert_eq!(network.events(1), [Event::PathMtu { vtep: vtep(2), mtu: None }]);
    network.send(1, ports[0], &packet_of(1450));
    assert_eq!(network.frames(2, ports[1]).len(), 1);
}

#[test]
fn row_19_one_who_does_not_answer_is_none_the_worse() {
    let silent = bridge_with(1, |segment| segment.mtu_options.answer_probes = false);
    let (mut network, ports) = nodes_with(probing(1), silent);
    network.probe(1, 3600);
    let (path, probe) = network.path(1, vtep(2));
    let probe = probe.unwrap();
    assert_eq!((path.verified, path.limit()), (None, None));
    assert_eq!((probe.state, probe.answered, probe.last_answer), (ProbeState::Error, 0, None));
    assert!(probe.sent < 20, "{probe:?}");
    assert_eq!(network.drops(2, DropReason::LinkLocal), probe.sent);
    assert_eq!(network.events(1), []);
    network.send(1, ports[0], &packet_of(1450));
    assert_eq!(network.frames(2, ports[1]).len(), 1);
}

#[test]
fn row_19_one_who_falls_silent_is_as_one_who_was_never_asked() {
    let (mut network, ports) = two_nodes();
    network.faults = swallowing(1400);
    network.probe(1, 60);
    assert_eq!(found(&mut network), (ProbeState::Complete, Some(1400), 1));
    network.events(1);
    network.faults = swallowing(1);
    network.probe(1, 30);
    assert_eq!(found(&mut network), (ProbeState::Error, None, 1));
    assert_eq!(network.events(1), [Event::PathMtu { vtep: vtep(2), mtu: None }]);
    network.faults = Faults::default();
    network.send(1, ports[0], &packet_of(1450));
    assert_eq!(network.frames(2, ports[1]).len(), 1);
    network.probe(1, 60);
    assert_eq!(found(&mut network), (ProbeState::Complete, Some(1500), 1));
}

#[test]
fn what_the_control_plane_and_the_underlay_say_bounds_the_search() {
    let (mut network, _) = two_nodes();
    let set = |source, mtu| Change::SetPathMtu { vtep: vtep(2), source, mtu, until: Duration::MAX };
    network.change(1, set(PathSource::Configured, Some(1450)));
    network.probe(1, 1);
    assert_eq!(found(&mut network), (ProbeState::Complete, Some(1450), 0));
    network.change(1, set(PathSource::Learned, Some(1300)));
    network.probe(1, 12);
    assert_eq!(found(&mut network), (ProbeState::Complete, Some(1300), 0));
    assert!(network.sent.iter().all(|datagram| datagram.bytes.len() + 28 <= 1450));
    assert_eq!(network.events(1), [], "whoever said so has reported it");
    // What is forgotten is tried by probes and not by what hosts send.
    network.change(1, set(PathSource::Learned, None));
    network.faults = swallowing(1300);
    assert_eq!(network.path(1, vtep(2)).0.limit(), Some(1300));
    network.probe(1, 30);
    assert_eq!(found(&mut network), (ProbeState::Complete, Some(1300), 0));
    network.faults = swallowing(1450);
    assert_eq!(network.events(1), []);
    network.probe(1, 650);
    assert_eq!(found(&mut network), (ProbeState::Complete, Some(1450), 0));
    assert_eq!(network.events(1), [Event::PathMtu { vtep: vtep(2), mtu: Some(1450) }]);
}

/// As without probes: an operator who makes the underlay wider knows why.
#[test]
fn packets_may_grow_where_nothing_was_lost() {
    let (mut network, ports) = two_nodes();
    network.probe(1, 1);
    network.change(1, Change::SetUnderlayMtu(9000));
    network.send(1, ports[0], &packet_of(8950));
    assert_eq!(network.sent.last().unwrap().bytes.len(), 8950 + 22);
    network.probe(1, 11);
    assert_eq!(found(&mut network), (ProbeState::Complete, Some(9000), 0));
}

/// A message from node 2 to node 1 as it comes in, but for what is changed.
fn message(kind: Kind, size: u16, len: usize) -> Vec<u8> {
    let probe = Probe { kind, size, sequence: 1, token: 7 };
    let mut frame = probe.encode(MacAddr([2, 9, 9, 9, 9, 9])).to_vec();
    frame.resize(len, 0);
    vxlan(vni(1), &frame)
}

/// Length of the frame of a probe of `size` bytes over IPv4.
const fn len_of(size: u16) -> usize {
    size as usize - 36
}

#[test]
fn answers_that_nobody_asked_for_are_refused() {
    let (mut network, _) = two_nodes();
    network.probe(1, 1);
    let answer = network.sent[1].bytes.clone();
    let before = network.path(1, vtep(2));
    // Forged: with another token, size or sequence.
    for at in [8 + 20, 8 + 24, 8 + 27, 8 + 28, 8 + 35] {
        let mut forged = answer.clone();
        forged[at] ^= 1;
        network.arrive(1, underlay(2), 4789, &forged);
    }
    assert_eq!(network.drops(1, DropReason::BadProbe), 5);
    // A second time: what it says is true, and not asked any more.
    network.arrive(1, underlay(2), 4789, &answer);
    assert_eq!(network.drops(1, DropReason::BadProbe), 5);
    // From anybody else, who would have to be a VTEP to begin with.
    network.arrive(1, underlay(9), 4789, &answer);
    assert_eq!(network.drops(1, DropReason::UnknownVtep), 1);
    network.change(1, Change::AddPeer { segment: bridge_id(1), vtep: vtep(9) });
    network.arrive(1, underlay(9), 4789, &answer);
    assert_eq!(network.drops(1, DropReason::BadProbe), 6);
    // To a node that is no part of it.
    network.arrive(2, underlay(1), 4789, &answer);
    assert_eq!(network.drops(2, DropReason::BadProbe), 1);
    network.node(1);
    let after = network.path(1, vtep(2));
    assert_eq!((after.0, after.1.unwrap().answered), (before.0, before.1.unwrap().answered));
}

#[test]
fn a_reflector_reflects_less_than_it_gets_and_only_to_those_it_knows() {
    let (mut network, _) = nodes_with(bridge_with(1, |segment| segment.open = true), bridge(1));
    let request = message(Kind::Request, 1000, len_of(1000));
    network.arrive(1, underlay(2), 4789, &request);
    assert_eq!(network.sent.len(), 1);
    let answer = &network.sent[0];
    assert!(answer.bytes.len() == 68 && answer.to == vtep(2), "{answer:?}");
    assert_eq!(answer.from.ip(), underlay(1));
    // What comes back is what was sent, but for the kind and the sender.
    assert_eq!(answer.bytes[8 + 20..8 + 36], request[8 + 20..8 + 36]);
    network.sent.clear();
    // One whom an open segment has not heard of before; the next one would be from a VTEP.
    network.arrive(1, underlay(9), 4789, &request);
    assert_eq!((network.sent.len(), network.drops(1, DropReason::LinkLocal)), (0, 1));
    // Cut or grown on the way, of another version, without any sense.
    for (size, len) in [(1000, 963), (1000, 965), (1000, 60), (0, 60), (95, 60), (65_535, 1400)] {
        network.arrive(1, underlay(2), 4789, &message(Kind::Request, size, len));
    }
    for at in [14, 18, 19] {
        let mut other = request.clone();
        other[8 + at] ^= 4;
        network.arrive(1, underlay(2), 4789, &other);
    }
    network.arrive(1, underlay(2), 4789, &request[..8 + 59]);
    assert_eq!((network.sent.len(), network.drops(1, DropReason::BadProbe)), (0, 10));
    // The least there is gets as much back.
    network.arrive(1, underlay(2), 4789, &message(Kind::Request, 96, 60));
    assert_eq!(network.sent.len(), 1);
    assert_eq!(network.sent[0].bytes.len(), 68);
    // What else is for that address ends here, as before.
    let mut pause = request.clone();
    pause[8 + 12..8 + 14].copy_from_slice(&[0x88, 0x08]);
    network.arrive(1, underlay(2), 4789, &pause);
    assert_eq!(network.drops(1, DropReason::LinkLocal), 2);
}

#[test]
fn answers_are_limited_in_rate() {
    let (mut network, _) = two_nodes();
    let request = message(Kind::Request, 1000, len_of(1000));
    for _ in 0..300 {
        network.arrive(1, underlay(2), 4789, &request);
    }
    assert_eq!(network.sent.len(), 250);
    assert_eq!(network.drops(1, DropReason::ProbeLimit), 50);
    network.now += Duration::from_millis(100);
    for _ in 0..300 {
        network.arrive(1, underlay(2), 4789, &request);
    }
    assert_eq!(network.sent.len(), 350);
}

#[test]
fn a_host_cannot_probe() {
    let (mut network, ports) = two_nodes();
    let request = message(Kind::Request, 1000, len_of(1000))[8..].to_vec();
    network.send(1, ports[0], &request);
    assert_eq!(network.drops(1, DropReason::LinkLocal), 1);
    assert_eq!((network.sent.len(), network.frames(1, ports[0]).len()), (0, 0));
}

/// In a routed segment, under another VNI, where every VNI is taken, and within a train.
#[test]
fn probes_travel_as_data_does() {
    let routed = |n: u8| {
        let mut segment = Segment::routed_vxlan(vni(1), MacAddr([0x0e, 0, 0, 0, 0, n]));
        segment.mtu_options.probe = true;
        segment
    };
    let mut network = Network::new(2);
    for n in [1, 2] {
        network.add_segment(n, routed(n), false);
        let segment = routed(n).id();
        network.change(n, Change::AddPeer { segment, vtep: vtep(3 - n) });
    }
    network.probe(1, 1);
    assert_eq!(found(&mut network), (ProbeState::Complete, Some(1500), 0));

    let mut network = Network::new(2);
    for (n, segment) in [(1, probing(1)), (2, bridge(2))] {
        network.add_segment(n, segment, false);
        let vtep = vtep(3 - n);
        network.change(n, Change::AddPeer { segment: bridge_id(n.into()), vtep });
    }
    network.probe(1, 5);
    assert_eq!(found(&mut network).0, ProbeState::Error);
    for n in [1, 2_u8] {
        let (vtep, vni) = (vtep(3 - n), Some(vni((3 - n).into())));
        network.change(n, Change::SetVtepVni { segment: bridge_id(n.into()), vtep, vni });
    }
    network.probe(1, 20);
    assert_eq!(found(&mut network), (ProbeState::Complete, Some(1500), 0));

    let any = bridge_with(9, |segment| segment.header.any_vni = true);
    let mut network = Network::new(2);
    network.add_segment(1, probing(1), false);
    network.add_segment(2, any, false);
    network.change(1, Change::AddPeer { segment: bridge_id(1), vtep: vtep(2) });
    network.change(2, Change::AddPeer { segment: bridge_id(9), vtep: vtep(1) });
    network.probe(1, 1);
    assert_eq!(found(&mut network), (ProbeState::Complete, Some(1500), 0));
}

#[test]
fn a_vtep_is_probed_in_whichever_segment_it_answers() {
    let mut network = Network::new(2);
    for n in 1..=3 {
        network.add_segment(1, probing(n), false);
        network.change(1, Change::AddPeer { segment: bridge_id(n), vtep: vtep(2) });
    }
    network.add_segment(2, bridge(2), false);
    network.change(2, Change::AddPeer { segment: bridge_id(2), vtep: vtep(1) });
    network.probe(1, 60);
    assert_eq!(found(&mut network), (ProbeState::Complete, Some(1500), 0));
    // When that one goes, so does the answer, and when all go, the probing.
    network.change(1, Change::RemoveSegment(bridge_id(2)));
    network.probe(1, 60);
    assert_eq!(found(&mut network).0, ProbeState::Error);
    for n in [1, 3] {
        network.change(1, Change::RemovePeer { segment: bridge_id(n), vtep: vtep(2) });
    }
    network.probe(1, 1);
    assert_eq!(network.path(1, vtep(2)).1, None);
}

#[test]
fn what_was_verified_goes_with_the_probing() {
    let (mut network, _) = two_nodes();
    // The VTEP stays, for another segment.
    network.add_segment(1, bridge(2), false);
    network.change(1, Change::AddPeer { segment: bridge_id(2), vtep: vtep(2) });
    network.faults = swallowing(1400);
    network.probe(1, 60);
    assert_eq!(network.path(1, vtep(2)).0.limit(), Some(1400));
    network.change(1, Change::RemoveSegment(bridge_id(1)));
    network.probe(1, 1);
    assert_eq!(network.path(1, vtep(2)).0.limit(), None);
}

#[test]
fn what_cannot_be_probed_is_refused() {
    let mut routed = Segment::routed(8285);
    routed.mtu_options.probe = true;
    let mut tables = Tables::new(underlay(1), 1).unwrap();
    let add = |tables: &mut Tables, segment| {
        tables.apply(Duration::ZERO, [Change::AddSegment(segment)]).map(|_| ())
    };
    assert!(matches!(add(&mut tables, routed), Err(Error::Conflict { .. })));
    tables.allow_fragments();
    assert!(matches!(add(&mut tables, probing(1)), Err(Error::Conflict { .. })));
    add(&mut tables, bridge(1)).unwrap();
    let with = |change: fn(&mut Probing)| {
        let mut probing = Probing::default();
        change(&mut probing);
        Prober::new(probing).is_ok()
    };
    assert!(with(|_| {}));
    assert!(!with(|probing| probing.timeout = Duration::from_millis(999)));
    assert!(!with(|probing| probing.interval = Duration::ZERO));
    assert!(!with(|probing| probing.raise = Duration::from_secs(86_401)));
    assert!(!with(|probing| probing.max_probes = 0));
    assert!(!with(|probing| probing.base = 551));
}

/// An underlay that loses, repeats and mixes up everything now and then, with traffic under way: all of it is accounted for, and
/// the path is what it is in the end.
#[test]
fn chance_does_not_mislead_for_long() {
    for seed in 0..10 {
        let (mut network, ports) = two_nodes();
        network.rng = crate::network::Rng::new(seed);
        let mtu = 1300 + 20 * seed as usize;
        network.faults = Faults { lost: 60, repeated: 40, overtaken: 40, refused: 20, mtu };
        for _ in 0..10 {
            network.probe(1, 10);
            network.send(1, ports[0], &packet_of(1000));
            network.send(2, ports[1], &udp(host(2), host(1), &[7; 100]));
        }
        network.faults = swallowing(mtu);
        network.probe(1, 1300);
        let (state, verified, _) = found(&mut network);
        assert_eq!(state, ProbeState::Complete);
        let verified = verified.unwrap() as usize;
        assert!((mtu - 7..=mtu).contains(&verified), "{verified} of {mtu}");
    }
}

/// A thousand VTEPs are not asked all at once.
#[test]
fn many_vteps_are_probed_one_after_the_other() {
    let mut network = Network::new(1);
    network.add_segment(1, probing(1), false);
    for n in 0..1000_u16 {
        let address = std::net::Ipv4Addr::new(10, 0, (n >> 8) as u8, n as u8);
        let vtep = std::net::SocketAddr::from((address, 4789));
        network.change(1, Change::AddPeer { segment: bridge_id(1), vtep });
    }
    network.probe(1, 0);
    assert!(network.sent.len() <= 16);
    network.sent.clear();
    network.probe(1, 1);
    assert!((700..=820).contains(&network.sent.len()), "{}", network.sent.len());
    assert!(network.sent.iter().all(|datagram| datagram.bytes.len() == 1172));
    assert!(probe::is_for_probes(&network.sent[0].bytes[8..]));
}
