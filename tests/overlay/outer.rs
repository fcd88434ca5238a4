//! Outer headers: what they say of inner packets, and what becomes of what they say on arrival.

use std::net::SocketAddr;
use std::time::Duration;

use etherparse::Ipv4Header;
use overplane::wire::{FrameInfo, l4, vxlan};
use overplane::{
    Arrival, Batch, Change, DropReason, Dscp, Ecn, Error, Forwarder, Offload, Offloads,
    OuterOptions, Output, Segment, Ttl,
};

use crate::network::Network;
use crate::packets::*;

/// UDP port of the routed segment.
const ROUTED: u16 = 8285;

/// Length of an Ethernet header.
const ETHERNET: usize = 14;

/// Gives an IP packet a TOS byte or traffic class.
fn set_tos(packet: &mut [u8], tos: u8) {
    if packet[0] >> 4 == 4 {
        packet[1] = tos;
        let (mut header, _) = Ipv4Header::from_slice(packet).unwrap();
        header.header_checksum = header.calc_header_checksum();
        packet[10..12].copy_from_slice(&header.header_checksum.to_be_bytes());
    } else {
        packet[0] = 0x60 | tos >> 4;
        packet[1] = packet[1] & 0x0f | tos << 4;
    }
}

fn packet(v6: bool, tos: u8, ttl: u8) -> Vec<u8> {
    let (from, to) = if v6 { ("fd00::1", "fd00:2::1") } else { ("10.0.0.1", "10.7.2.1") };
    let mut packet = ip_udp(from, to, ttl, b"payload");
    set_tos(&mut packet, tos);
    packet
}

/// A packet in a frame from host 1 to host 2, behind so many VLAN tags.
fn frame(packet: &[u8], tags: usize) -> Vec<u8> {
    let mut frame = [host(2).mac.0, host(1).mac.0].concat();
    frame.extend([0x81, 0x00, 0, 7].repeat(tags));
    frame.extend(if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame.extend(packet);
    frame
}

/// All combinations of options, of which DSCP and TTL have three each.
fn all_options() -> Vec<OuterOptions> {
    let mut all = Vec::new();
    for ecn in [Ecn::Normal, Ecn::Compatibility, Ecn::Off] {
        for dscp in [Dscp::Fixed(0), Dscp::Fixed(46), Dscp::Inherit] {
            for ttl in [Ttl::System, Ttl::Fixed(9), Ttl::Inherit] {
                let mut options = OuterOptions::default();
                (options.ecn, options.dscp, options.ttl) = (ecn, dscp, ttl);
                all.push(options);
            }
        }
    }
    all
}

/// What the outer header should say, by the words of the documentation.
fn expected(options: OuterOptions, tos: u8, ttl: u8) -> (u8, u8) {
    let dscp = match options.dscp {
        Dscp::Fixed(dscp) => dscp,
        Dscp::Inherit => tos >> 2,
    };
    let ecn = if options.ecn == Ecn::Normal { tos % 4 } else { 0 };
    let ttl = match options.ttl {
        Ttl::System => 0,
        Ttl::Fixed(ttl) => ttl,
        Ttl::Inherit => ttl,
    };
    (dscp * 4 + ecn, ttl)
}

#[test]
fn row_17_outer_headers_say_of_inner_ones_what_the_segment_asks_for() {
    for options in all_options() {
        let segment = bridge_with(1, |segment| segment.outer = options);
        let (mut network, ports) = Network::mesh(2, &segment, false);
        for tos in (0..=255).step_by(5).chain([1, 2, 3]) {
            for (v6, tags) in [(false, 0), (true, 0), (false, 1), (true, 2)] {
                let inner = frame(&packet(v6, tos, 33), tags);
                network.send(1, ports[0], &inner);
                let outer = network.sent.last().unwrap().outer;
                assert_eq!((outer.tos, outer.ttl), expected(options, tos, 33), "{options:?}");
                assert_eq!(network.frames(2, ports[1]), [inner], "the inner one is as it was");
            }
        }
        // Neither IP nor behind three tags: nothing to go by.
        let arp = [&[0xff; 6][..], &host(1).mac.0, &[0x08, 0x06], &[0xff; 46]].concat();
        for opaque in [arp, frame(&packet(false, 0xff, 33), 3)] {
            network.send(1, ports[0], &opaque);
            let outer = network.sent.last().unwrap().outer;
            assert_eq!((outer.tos, outer.ttl), expected(options, 0, 0), "{options:?}");
        }
    }
}

#[test]
fn row_17_a_routed_packet_is_inherited_from_as_it_leaves() {
    let mut segment = Segment::routed(ROUTED);
    (segment.outer.dscp, segment.outer.ttl) = (Dscp::Inherit, Ttl::Inherit);
    let id = segment.id();
    let mut network = Network::new(1);
    let port = network.add_segment(1, segment, false);
    for prefix in ["10.7.2.0/24", "fd00:2::/64"] {
        let next_hop = SocketAddr::new(underlay(2), ROUTED).into();
        let prefix = prefix.parse().unwrap();
        network.change(1, Change::InsertRoute { segment: id, prefix, next_hop });
    }
    for v6 in [false, true] {
        network.send(1, port, &packet(v6, 0xb9, 33));
        let outer = network.sent.last().unwrap().outer;
        assert_eq!((outer.tos, outer.ttl), (0xb9, 32));
    }
}

/// A super-frame has one header, and all datagrams of its train get what that says; so do all copies of a flooded frame.
#[test]
fn row_17_trains_and_copies_have_the_header_of_their_frame() {
    let segment = bridge_with(1, |segment| segment.outer.dscp = Dscp::Inherit);
    let (mut network, ports) = Network::mesh(4, &segment, false);
    let (mut frame, vnet) = tcp_super_frame(host(1), EVERYBODY, &[7; 5000], 1000);
    set_tos(&mut frame[ETHERNET..], 0xb9);
    network.send_unfinished(1, ports[0], &frame, vnet);
    assert_eq!(network.sent.len(), 3 * 5);
    assert!(network.sent.iter().all(|datagram| datagram.outer.tos == 0xb9));
}

/// RFC 6040 §4.2, figure 4: outer fields across, inner ones down; -1 is a drop. 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE.
const FIGURE_4: [(u8, [(u8, i8); 4]); 4] = [
    (0, [(0, 0), (2, 0), (1, 0), (3, -1)]),
    (2, [(0, 2), (2, 2), (1, 1), (3, 3)]),
    (1, [(0, 1), (2, 1), (1, 1), (3, 3)]),
    (3, [(0, 3), (2, 3), (1, 3), (3, 3)]),
];

/// Every inner and outer field, with what comes out.
fn figure_4() -> impl Iterator<Item = (u8, u8, Option<u8>)> {
    FIGURE_4.into_iter().flat_map(|(inner, row)| {
        row.into_iter().map(move |(outer, out)| (inner, outer, u8::try_from(out).ok()))
    })
}

#[test]
fn row_17_marks_that_arrive_are_merged_in_all_16_combinations() {
    for ecn in [Ecn::Normal, Ecn::Compatibility, Ecn::Off] {
        let segment = bridge_with(1, |segment| segment.outer.ecn = ecn);
        let (mut network, ports) = Network::mesh(2, &segment, false);
        let (mut drops, mut combinations) = (0, 0);
        for (inner, outer, out) in figure_4() {
            combinations += 1;
            for (v6, tags) in [(false, 0), (true, 0), (false, 1), (true, 1), (false, 2), (true, 2)]
            {
                // The DSCP inside stays, whatever the one outside.
                let packed = frame(&packet(v6, 0x88 | inner, 64), tags);
                let out = if ecn == Ecn::Off { Some(inner) } else { out };
                let datagram = vxlan(vni(1), &packed);
                let arriving = [(&datagram[..], 0x28 | outer)];
                network.arrive_together(2, vtep(1), vxlan::PORT, &arriving);
                let expected = out.map(|out| frame(&packet(v6, 0x88 | out, 64), tags));
                drops += u64::from(expected.is_none());
                assert_eq!(
                    network.frames(2, ports[1]),
                    Vec::from_iter(expected),
                    "{inner} {outer}"
                );
            }
        }
        assert_eq!((combinations, drops), (16, if ecn == Ecn::Off { 0 } else { 6 }));
        assert_eq!(network.drops(2, DropReason::CeOnNotEct), drops);
        // What has no such field is delivered whatever the outer one says, also to everybody.
        let arp = [&[0xff; 6][..], &host(1).mac.0, &[0x08, 0x06], &[0xff; 46]].concat();
        let datagram = vxlan(vni(1), &arp);
        network.arrive_together(2, vtep(1), vxlan::PORT, &[(&datagram, 3)]);
        assert_eq!(network.frames(2, ports[1]), [arp]);
    }
}

#[test]
fn row_17_routed_segments_merge_marks_alike() {
    let mut network = Network::new(1);
    let port = network.add_segment(1, Segment::routed(ROUTED), false);
    let (segment, vtep) = (Segment::routed(ROUTED).id(), SocketAddr::new(underlay(2), ROUTED));
    network.change(1, Change::AddPeer { segment, vtep });
    for (inner, outer, out) in figure_4() {
        for v6 in [false, true] {
            network.arrive_together(1, vtep, ROUTED, &[(&packet(v6, inner, 64), outer)]);
            let expected = out.map(|out| packet(v6, out, 64));
            assert_eq!(network.frames(1, port), Vec::from_iter(expected), "{inner} {outer}");
        }
    }
    assert_eq!(network.drops(1, DropReason::CeOnNotEct), 2);
}

/// The datagrams of a TCP stream from host 2 to host 1 with this ECN field.
fn stream(inner: u8) -> [Vec<u8>; 4] {
    [0_u16, 1, 2, 3].map(|n| {
        let mut frame = tcp(host(2), host(1), &[n as u8; 100]);
        frame[ETHERNET + 4..][..2].copy_from_slice(&n.to_be_bytes());
        set_tos(&mut frame[ETHERNET..], inner);
        let l4 = ETHERNET + 20;
        frame[l4 + 4..][..4].copy_from_slice(&(1000 + u32::from(n) * 100).to_be_bytes());
        frame[l4 + 13] = 0x10; // ACK alone
        let (mut frame, vnet) = unfinished(frame);
        assert!(l4::complete(&mut frame, vnet.csum_start.into(), vnet.csum_offset.into()));
        vxlan(vni(1), &frame)
    })
}

/// Frames of a flow that arrive with different marks are different frames, however alike they are inside.
#[test]
fn row_17_joining_keeps_marks_apart() {
    let now = Duration::from_secs(1);
    let (mut network, ports) = Network::mesh(2, &bridge(1), true);
    let (segment, destination) = (bridge_id(1), ports[1].into());
    network.change(2, Change::InsertFdb { segment, mac: host(1).mac, destination });
    let tables = &network.node(2).tables;
    let mut forwarder = Forwarder::new(0);
    forwarder.set_offloads([Offload::CoalesceTcp].into_iter().collect::<Offloads>());
    let (mut batch, mut output) = (Batch::new(8), Output::new());
    for inner in 0..4 {
        let datagrams = stream(inner);
        for (trains, (first, second, _)) in figure_4().flat_map(|c| [(false, c), (true, c)]) {
            // Two datagrams with the first mark, and two with the second.
            for (pair, tos) in datagrams.chunks(2).zip([first, second]) {
                let mut arrival = Arrival::from(vtep(1));
                arrival.tos = tos;
                if trains {
                    let bytes = pair.concat();
                    batch.next_slot(0).unwrap()[..bytes.len()].copy_from_slice(&bytes);
                    assert!(batch.commit_train(bytes.len(), pair[0].len(), arrival));
                } else {
                    assert!(pair.iter().all(|one| batch.push_datagram(one, arrival)));
                }
            }
            forwarder.from_underlay(tables, now, vxlan::PORT, &mut batch, &mut output);
            let mut delivered = Vec::new();
            for deliver in output.delivers() {
                let bytes = output.frame(&batch, deliver).collect::<Vec<_>>().concat();
                let tos = FrameInfo::parse(&bytes).unwrap().tos(&bytes);
                delivered.push((tos, deliver.frames));
                forwarder.delivered(tables, deliver, bytes.len());
            }
            let out = |mark| figure_4().find(|(i, o, _)| (*i, *o) == (inner, mark)).unwrap().2;
            let expected = match (out(first), out(second)) {
                (Some(a), Some(b)) if a == b => vec![(a, 4)],
                (a, b) => [a, b].into_iter().flatten().map(|mark| (mark, 2)).collect(),
            };
            assert_eq!(delivered, expected, "{inner} in {first}, then {second}");
            batch.clear();
            output.clear();
        }
    }
}

#[test]
fn outer_options_out_of_range_are_refused() {
    for (dscp, ttl, allowed) in
        [(Dscp::Fixed(64), Ttl::System, "0 to 63"), (Dscp::Fixed(0), Ttl::Fixed(0), "1 to 255")]
    {
        let segment = bridge_with(1, |segment| {
            (segment.outer.dscp, segment.outer.ttl) = (dscp, ttl);
        });
        let error = Network::new(1).try_change(1, [Change::AddSegment(segment)]).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(allowed));
    }
}

/// Frames for a VTEP go to the port that it was given, by default the segment's, whatever port it sends from.
#[test]
fn row_05_destination_ports_are_those_of_segments_and_vteps() {
    let mut network = Network::new(1);
    let mut ports = Vec::new();
    for (n, udp_port) in [(1, 4789), (2, 8472)] {
        let segment = bridge_with(n, |segment| segment.udp_port = udp_port);
        let id = segment.id();
        ports.push((network.add_segment(1, segment, false), id));
        // One VTEP on the segment's port, and one on its own.
        for vtep in [SocketAddr::new(underlay(2), udp_port), SocketAddr::new(underlay(3), 4790)] {
            network.change(1, Change::AddFlood { segment: id, vtep });
        }
    }
    for (n, (port, id)) in (1..).zip(ports) {
        // Both are heard from, and their hosts learned, from ports of their choice.
        for (node, source) in [(2, 50_000), (3, 50_001)] {
            let hello = vxlan(vni(n), &udp(host(node), EVERYBODY, b"hello"));
            network.arrive_from(1, SocketAddr::new(underlay(node), source), id.udp_port, &hello);
        }
        for (node, expected) in [(2, id.udp_port), (3, 4790)] {
            network.sent.clear();
            network.send(1, port, &udp(host(1), host(node), b"answer"));
            let to: Vec<SocketAddr> = network.sent.iter().map(|datagram| datagram.to).collect();
            assert_eq!(to, [SocketAddr::new(underlay(node), expected)]);
        }
    }
}

/// What the underlay may fragment of a frame is asked for by whoever makes the tables.
#[test]
fn row_18_datagrams_say_whether_their_packet_may_be_fragmented() {
    for asked in [false, true] {
        let mut network = Network::new(1);
        if asked {
            network.node(1).tables.inherit_dont_fragment();
        }
        let port = network.add_segment(1, bridge(1), false);
        network.change(1, Change::AddFlood { segment: bridge_id(1), vtep: vtep(2) });
        let flagged = |flags: u8| {
            let mut packet = packet(false, 0, 64);
            packet[6] = flags;
            set_tos(&mut packet, 0);
            packet
        };
        let arp = [&[0xff; 6][..], &host(1).mac.0, &[0x08, 0x06], &[0xff; 46]].concat();
        for (sent, may) in [
            (frame(&flagged(0), 0), true),
            (frame(&flagged(0), 2), true),
            (frame(&flagged(0x40), 0), false),
            (frame(&flagged(0x40), 1), false),
            (frame(&packet(true, 0, 64), 0), false),
            (arp, true),
        ] {
            network.send(1, port, &sent);
            assert_eq!(network.sent.last().unwrap().outer.may_fragment, asked && may);
        }
    }
}

/// A node with an address of each family has VTEPs of both, and is a VTEP of its own at neither.
#[test]
fn tables_know_both_addresses_of_a_node() {
    let mut network = Network::new(1);
    let second = "2001:db8::1".parse().unwrap();
    let segment = bridge_id(1);
    let flood = |address: &str| Change::AddFlood {
        segment,
        vtep: SocketAddr::new(address.parse().unwrap(), segment.udp_port),
    };
    network.change(1, Change::AddSegment(bridge(1)));
    assert!(network.try_change(1, [flood("2001:db8::2")]).is_err(), "without one of its family");
    network.change(1, Change::RemoveSegment(segment));
    let tables = &mut network.node(1).tables;
    assert!(
        tables.add_local(underlay(7)).is_err()
            && tables.add_local("ff02::1".parse().unwrap()).is_err()
    );
    tables.add_local(second).unwrap();
    let port = network.add_segment(1, bridge_with(1, |segment| segment.open = true), false);
    assert_eq!(network.node(1).tables.segments()[0].mtu, 1430, "what fits over IPv6");
    network.try_change(1, [flood("2001:db8::2"), flood("192.0.2.2")]).unwrap();
    for own in ["2001:db8::1", "192.0.2.1"] {
        assert!(network.try_change(1, [flood(own)]).is_err(), "{own}");
        // Nor is it discovered.
        let hello = vxlan(vni(1), &udp(host(2), EVERYBODY, b"hello"));
        network.arrive(1, own.parse().unwrap(), segment.udp_port, &hello);
    }
    assert_eq!(network.drops(1, DropReason::UnknownVtep), 2);
    network.send(1, port, &udp(host(1), EVERYBODY, b"hello"));
    assert_eq!(network.sent.len(), 2);
}
