//! Who may send what to whom: VNIs, known and unknown VTEPs, pinned addresses.

use overplane::wire::vxlan;
use overplane::{Change, DropReason, Event};

use crate::network::Network;
use crate::packets::*;

#[test]
fn two_vnis_on_one_udp_port_never_leak() {
    let (mut network, red) = Network::mesh(2, &bridge(1), false);
    let blue = [1, 2].map(|n| network.add_segment(n, bridge(2), false));
    for (n, other) in [(1, 2), (2, 1)] {
        network.change(n, Change::AddFlood { segment: bridge_id(2), vtep: vtep(other) });
    }
    // The same addresses on both, as tenants choose them.
    let (a, b) = (host(1), host(2));
    network.send(1, red[0], &udp(a, b, b"red"));
    network.send(2, blue[1], &udp(a, b, b"blue"));
    assert_eq!(network.frames(2, red[1]), [udp(a, b, b"red")]);
    assert_eq!(network.frames(1, blue[0]), [udp(a, b, b"blue")]);
    assert_eq!(network.frames(2, blue[1]).len() + network.frames(1, red[0]).len(), 0);
    // Each learned its own: the answer in red goes to node 1, in blue to node 2.
    network.send(2, red[1], &udp(b, a, b"red answer"));
    network.send(1, blue[0], &udp(b, a, b"blue answer"));
    assert_eq!(network.frames(1, red[0]), [udp(b, a, b"red answer")]);
    assert_eq!(network.frames(2, blue[1]), [udp(b, a, b"blue answer")]);
}

#[test]
fn datagrams_that_are_not_ours_are_refused_by_name() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    let frame = udp(host(1), EVERYBODY, b"let me in");
    let good = vxlan(vni(1), &frame);
    let unflagged = [&[0], &good[1..]].concat();
    for (from, datagram, reason) in [
        (underlay(99), good.clone(), DropReason::UnknownVtep),
        (underlay(1), good.clone(), DropReason::UnknownVtep),
        (underlay(2), vxlan(vni(7), &frame), DropReason::UnknownVni),
        (underlay(2), unflagged, DropReason::NoVniFlag),
        (underlay(2), good[..7].to_vec(), DropReason::NoVniFlag),
        (underlay(2), good[..20].to_vec(), DropReason::Truncated),
    ] {
        let before = network.drops(1, reason);
        network.arrive(1, from, vxlan::PORT, &datagram);
        assert_eq!(network.drops(1, reason), before + 1, "{reason}");
    }
    assert_eq!(network.frames(1, ports[0]).len(), 0);
}

#[test]
fn row_26_a_segment_hears_the_vteps_that_it_names_and_no_others() {
    let mut network = Network::new(1);
    let port = network.add_segment(1, bridge(1), false);
    let segment = bridge_id(1);
    network.add_segment(1, bridge(2), false);
    network.change(1, Change::AddPeer { segment: bridge_id(2), vtep: vtep(2) });
    let hello = vxlan(vni(1), &udp(host(7), EVERYBODY, b"hello"));
    let heard = |network: &mut Network, from: u8| {
        network.arrive(1, underlay(from), vxlan::PORT, &hello);
        network.frames(1, port).len()
    };
    assert_eq!(heard(&mut network, 2), 0, "what another segment names is no peer of this one");
    // Each way of naming a VTEP is enough, and taking it back as well.
    let mac = host(9).mac;
    for (name, take_back) in [
        (Change::AddPeer { segment, vtep: vtep(2) }, Change::RemovePeer { segment, vtep: vtep(2) }),
        (
            Change::AddFlood { segment, vtep: vtep(2) },
            Change::RemoveFlood { segment, vtep: vtep(2) },
        ),
        (
            Change::InsertFdb { segment, mac, destination: vtep(2).into() },
            Change::RemoveFdb { segment, mac },
        ),
    ] {
        network.change(1, name.clone());
        assert_eq!((heard(&mut network, 2), heard(&mut network, 3)), (1, 0), "{name:?}");
        network.change(1, take_back);
        assert_eq!(heard(&mut network, 2), 0, "{name:?} taken back");
    }
    let learned = network.stats(1).segments.iter().map(|segment| segment.learned).sum::<usize>();
    assert_eq!((learned, network.drops(1, DropReason::UnknownVtep)), (0, 7));
}

#[test]
fn row_26_an_open_segment_accepts_strangers_and_learns_behind_them() {
    let open = bridge_with(1, |segment| segment.open = true);
    let mut network = Network::new(1);
    let port = network.add_segment(1, open, false);
    let stranger = underlay(77);
    let hello = vxlan(vni(1), &udp(host(7), EVERYBODY, b"hello"));
    network.arrive(1, stranger, vxlan::PORT, &hello);
    assert_eq!(network.frames(1, port).len(), 1, "accepted at once");
    let peers = network.node(1).tables.segments()[0].peers.clone();
    assert_eq!(peers, [vtep(77)], "and known from now on");
    network.arrive(1, stranger, vxlan::PORT, &hello);
    network.send(1, port, &udp(host(1), host(7), b"answer"));
    assert_eq!(network.sent.last().unwrap().to, vtep(77));
    // What pretends to come from this very node is no stranger.
    network.arrive(1, underlay(1), vxlan::PORT, &hello);
    assert_eq!(network.drops(1, DropReason::UnknownVtep), 1);
}

#[test]
fn row_11_a_static_entry_drops_frames_from_elsewhere() {
    let (mut network, ports) = Network::mesh(3, &bridge(1), false);
    let (a, b) = (host(1), host(2));
    let pin = Change::InsertFdb { segment: bridge_id(1), mac: b.mac, destination: vtep(2).into() };
    network.change(1, pin);
    network.send(3, ports[2], &udp(b, EVERYBODY, b"I am host 2, believe me"));
    assert_eq!(network.drops(1, DropReason::PinnedSource), 1);
    assert_eq!(network.frames(1, ports[0]).len(), 0);
    network.send(1, ports[0], &udp(b, EVERYBODY, b"or am I here?"));
    assert_eq!(network.drops(1, DropReason::PinnedSource), 2);
    network.sent.clear();
    network.send(1, ports[0], &udp(a, b, b"to the real one"));
    assert_eq!(network.sent[0].to, vtep(2));
    network.send(2, ports[1], &udp(b, a, b"the real one may speak"));
    assert_eq!(network.frames(1, ports[0]), [udp(b, a, b"the real one may speak")]);
}

#[test]
fn row_11_a_stranger_cannot_speak_for_a_pinned_host() {
    let mut network = Network::new(1);
    let port = network.add_segment(1, bridge_with(1, |segment| segment.open = true), false);
    let pin =
        Change::InsertFdb { segment: bridge_id(1), mac: host(2).mac, destination: vtep(2).into() };
    network.change(1, pin);
    let forged = vxlan(vni(1), &udp(host(2), EVERYBODY, b"forged"));
    network.arrive(1, underlay(66), vxlan::PORT, &forged);
    assert_eq!(network.frames(1, port).len(), 0);
    assert_eq!(network.drops(1, DropReason::PinnedSource), 1);
}

#[test]
fn a_peer_that_is_none_any_more_gets_nothing_even_if_another_segment_keeps_it() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    network.add_segment(1, bridge(2), false);
    network.change(1, Change::AddPeer { segment: bridge_id(2), vtep: vtep(2) });
    network.send(2, ports[1], &udp(host(2), EVERYBODY, b"hello"));
    network.change(1, Change::RemoveFlood { segment: bridge_id(1), vtep: vtep(2) });
    network.sent.clear();
    network.send(1, ports[0], &udp(host(1), host(2), b"secret"));
    assert_eq!(network.sent.len(), 0, "what was learned behind it is forgotten with it");
    assert_eq!(network.drops(1, DropReason::NoDestination), 1);
}

#[test]
fn a_storm_of_forged_addresses_is_learned_a_few_at_a_time() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    let frames: Vec<Vec<u8>> = (1..=100).map(|n| udp(host(n), EVERYBODY, b"")).collect();
    for batch in frames.chunks(16) {
        let batch: Vec<_> = batch.iter().map(|frame| (&frame[..], Default::default())).collect();
        network.give(1, ports[0], &batch);
    }
    network.run();
    assert_eq!(network.frames(2, ports[1]).len(), 100, "whether learned or not, all go out");
    let learned = network.events(1).iter().filter(|e| matches!(e, Event::Learned { .. })).count();
    assert_eq!(learned, 100, "seven batches of sixteen are within the bound");
}
