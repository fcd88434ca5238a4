//! One port, one peer: what comes out, taken apart again, is what went in, in order.

use std::collections::HashMap;
use std::time::Duration;

use etherparse::{PacketBuilder, TcpHeader, UdpHeader};
use overplane::wire::l4::complete;
use overplane::wire::vnet::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};
use overplane::wire::{FrameInfo, L4, VnetHeader, vxlan};
use overplane::{Batch, Change, Forwarder, Offload, Offloads, Output, PortId, PortOptions, Tables};
use proptest::prelude::*;

use crate::packets::*;
use crate::twins::Link;

/// Frames of one batch as a port got them.
#[derive(Debug)]
struct Delivered {
    vnet: VnetHeader,
    bytes: Vec<u8>,
    frames: u32,
}

/// A node with one port that takes super-frames, and host 1 behind it.
pub(crate) fn node() -> (Tables, PortId) {
    let mut tables = Tables::new(underlay(1), 1).unwrap();
    let segment = bridge_id(1);
    let port = Change::AddPort {
        segment,
        name: "ovl0".into(),
        offload: true,
        options: PortOptions::default(),
    };
    let ports = tables.apply(Duration::ZERO, [Change::AddSegment(bridge(1)), port]).unwrap();
    let changes = [
        Change::AddPeer { segment, vtep: vtep(2) },
        Change::InsertFdb { segment, mac: host(1).mac, destination: ports[0].into() },
    ];
    tables.apply(Duration::ZERO, changes).unwrap();
    (tables, ports[0])
}

/// What a port gets of frames that arrive together.
fn deliver(frames: &[Vec<u8>], offloads: Offloads) -> Vec<Delivered> {
    let (tables, _) = node();
    let (mut batch, mut output) = (Batch::new(frames.len().max(1)), Output::new());
    for frame in frames {
        assert!(batch.push_datagram(&vxlan(vni(1), frame), vtep(2)));
    }
    let mut forwarder = Forwarder::new(0);
    forwarder.set_offloads(offloads);
    let now = Duration::from_secs(1);
    forwarder.from_underlay(&tables, now, vxlan::PORT, &mut batch, &mut output);
    for deliver in output.delivers() {
        forwarder.delivered(&tables, deliver, 0);
    }
    let stats = tables.stats();
    assert!(stats.totals.is_conserved(), "{stats}");
    let delivered = output.delivers().iter().map(|deliver| Delivered {
        vnet: deliver.vnet,
        bytes: output.frame(&batch, deliver).collect::<Vec<_>>().concat(),
        frames: deliver.frames,
    });
    delivered.collect()
}

/// The frames that a device with this vnet header would put on a wire.
fn on_the_wire(delivered: &Delivered) -> Vec<Vec<u8>> {
    Link::Ethernet.on_the_wire(delivered.vnet, &delivered.bytes)
}

/// All that a property needs to make a frame.
#[derive(Clone, Debug)]
struct Spec {
    flow: u8,
    v6: bool,
    udp: bool,
    len: usize,
    /// What is unusual about it; see [`Spec::build`].
    quirk: u8,
}

/// Sequence number, datagram count and IPv4 identification of each flow.
#[derive(Default)]
struct Flows(HashMap<(u8, bool, bool), (u32, u16)>);

impl Spec {
    fn build(&self, flows: &mut Flows) -> Vec<u8> {
        let Self { flow, v6, udp, len, quirk } = *self;
        let (sequence, id) = flows.0.entry((flow, v6, udp)).or_insert((u32::MAX - 3000, 7));
        let payload: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(31) ^ flow).collect();
        let port = 1000 + u16::from(flow);
        let (mut frame, to, from) = (Vec::new(), host(1), host(2));
        let mut transport = Vec::new();
        if udp {
            let header = UdpHeader {
                source_port: port,
                destination_port: 9,
                length: (8 + len) as u16,
                checksum: 0,
            };
            transport.extend_from_slice(&header.to_bytes());
        } else {
            let mut header = TcpHeader::new(port, 9, *sequence, 512);
            header.ack = quirk != 1;
            header.acknowledgment_number = if quirk == 2 { 78 } else { 77 };
            header.psh = quirk == 3;
            header.fin = quirk == 4;
            header.window_size = if quirk == 5 { 513 } else { 512 };
            if quirk == 6 {
                header.set_options_raw(&[1, 1, 1, 0]).unwrap();
            }
            transport.extend_from_slice(&header.to_bytes());
        }
        transport.extend_from_slice(&payload);
        let ttl = if quirk == 7 { 63 } else { 64 };
        let builder = PacketBuilder::ethernet2(from.mac.0, to.mac.0);
        let protocol = if udp { 17 } else { 6 };
        if v6 {
            builder
                .ipv6([1; 16], [2; 16], ttl)
                .write(&mut frame, etherparse::IpNumber(protocol), &transport)
                .unwrap();
        } else {
            builder
                .ipv4(from.ip.octets(), to.ip.octets(), ttl)
                .write(&mut frame, etherparse::IpNumber(protocol), &transport)
                .unwrap();
            let id = if quirk == 8 { 9999 } else { *id };
            frame[18..20].copy_from_slice(&id.to_be_bytes());
            if quirk == 9 {
                frame[20] = 0x20; // more fragments follow
            } else if flow % 2 == 0 {
                frame[20] = 0; // may be fragmented, so that identifications matter
            }
            match quirk {
                17 => frame[20] ^= 0x40, // DF
                18 => frame[15] = 3,     // congestion experienced
                19 => {
                    frame[14] += 1;
                    frame[17] += 4;
                    frame.splice(34..34, [1, 1, 1, 0]); // IP options that say nothing
                }
                _ => {}
            }
            let end = 14 + usize::from(frame[14] & 15) * 4;
            let check = overplane::wire::ip::v4_header_checksum(&frame[14..end]);
            frame[24..26].copy_from_slice(&check.to_be_bytes());
        }
        let info = FrameInfo::parse(&frame).unwrap();
        if let Some(offset) = overplane::wire::l4::checksum_offset(info.l4) {
            let at = usize::from(info.l4_offset + offset);
            if !(udp && quirk == 10)
                && overplane::wire::l4::set_partial(&mut frame, &info)
                && quirk != 11
            {
                assert!(complete(&mut frame, info.l4_offset.into(), offset.into()));
            }
            if quirk == 12 {
                frame[at] ^= 0x55;
            }
        }
        if quirk == 13 {
            frame.extend_from_slice(&[0xee; 5]);
        }
        if quirk == 14 {
            frame[11] ^= 0xf0; // another sender's MAC address
        }
        if quirk == 20 {
            frame.splice(12..12, [0x81, 0, 0x20, 0]); // a tag that only gives a priority
        }
        // Quirk 15 is a segment that was lost, quirk 16 one that comes twice.
        if quirk != 16 {
            *sequence = sequence.wrapping_add(len as u32 * if quirk == 15 { 2 } else { 1 });
            *id = id.wrapping_add(1);
        }
        frame
    }
}

fn spec() -> impl Strategy<Value = Spec> {
    let len =
        prop_oneof![4 => Just(100_usize), 1 => Just(60_usize), 1 => 0_usize..120, 1 => Just(1300)];
    let quirk = prop_oneof![12 => Just(0_u8), 1 => 1_u8..=20];
    (0_u8..3, any::<bool>(), any::<bool>(), len, quirk).prop_map(|(flow, v6, udp, len, quirk)| {
        Spec { flow, v6: v6 && flow > 0, udp: udp && flow > 1, len, quirk }
    })
}

/// What all frames of a flow share, as an observer on the wire tells flows apart; `None` for what has no ports.
fn flow_of(frame: &[u8]) -> Option<Vec<u8>> {
    let info = FrameInfo::parse(frame).unwrap();
    let whole = info.fragment == overplane::wire::Fragment::Whole;
    let (l3, l4) = (usize::from(info.l3_offset), usize::from(info.l4_offset));
    let addresses = if info.l4_offset - info.l3_offset == 40 { 8..40 } else { 12..20 };
    (whole && matches!(info.l4, L4::Tcp | L4::Udp))
        .then(|| [&frame[l3..][addresses], &frame[l4..l4 + 4], &[info.protocol]].concat())
}

fn by_flow(frames: impl IntoIterator<Item = Vec<u8>>) -> HashMap<Option<Vec<u8>>, Vec<Vec<u8>>> {
    let mut flows: HashMap<_, Vec<Vec<u8>>> = HashMap::new();
    for frame in frames {
        flows.entry(flow_of(&frame)).or_default().push(Link::Ethernet.normal(&frame));
    }
    flows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_flow_comes_out_as_it_went_in(specs in prop::collection::vec(spec(), 1..80)) {
        let mut flows = Flows::default();
        let frames: Vec<Vec<u8>> = specs.iter().map(|spec| spec.build(&mut flows)).collect();
        let delivered = deliver(&frames, Offloads::ALL);
        prop_assert_eq!(delivered.iter().map(|d| d.frames as usize).sum::<usize>(), frames.len());
        let out = by_flow(delivered.iter().flat_map(on_the_wire));
        prop_assert_eq!(out, by_flow(frames));
    }

    /// What has no ports (fragments here) is overtaken by nothing that came after it, and overtakes nothing.
    #[test]
    fn what_has_no_flow_keeps_its_place(specs in prop::collection::vec(spec(), 1..40), at in 0_usize..40) {
        let mut flows = Flows::default();
        let mut frames: Vec<Vec<u8>> = specs.iter().map(|spec| spec.build(&mut flows)).collect();
        let at = at.min(frames.len());
        let marker = Spec { flow: 99, v6: false, udp: false, len: 50, quirk: 9 }.build(&mut flows);
        frames.insert(at, marker.clone());
        let out: Vec<Vec<u8>> =
            deliver(&frames, Offloads::ALL).iter().flat_map(on_the_wire).collect();
        let normal = |frame: &Vec<u8>| Link::Ethernet.normal(frame);
        let place = out.iter().position(|frame| normal(frame) == normal(&marker)).unwrap();
        prop_assert_eq!(place, at);
        prop_assert_eq!(by_flow(out[..place].to_vec()), by_flow(frames[..at].to_vec()));
    }
}

fn train(spec: &Spec, count: usize) -> Vec<Vec<u8>> {
    let mut flows = Flows::default();
    (0..count).map(|_| spec.build(&mut flows)).collect()
}

const TCP: Spec = Spec { flow: 1, v6: false, udp: false, len: 1300, quirk: 0 };

fn joined(frames: &[Vec<u8>]) -> Vec<u32> {
    deliver(frames, Offloads::ALL).iter().map(|delivered| delivered.frames).collect()
}

#[test]
fn a_train_becomes_one_super_frame_of_its_kind() {
    for (v6, udp, gso_type) in [
        (false, false, GSO_TCPV4),
        (true, false, GSO_TCPV6),
        (false, true, GSO_UDP_L4),
        (true, true, GSO_UDP_L4),
    ] {
        let frames = train(&Spec { v6, udp, ..TCP }, 40);
        let delivered = deliver(&frames, Offloads::ALL);
        assert_eq!(delivered.len(), 1);
        let vnet = delivered[0].vnet;
        assert_eq!((vnet.gso_type, vnet.gso_size, delivered[0].frames), (gso_type, 1300, 40));
    }
}

#[test]
fn a_super_frame_holds_what_the_kernel_takes_and_the_next_one_follows() {
    assert_eq!(joined(&train(&TCP, 60)), [50, 10], "65,535 bytes of IP");
    assert_eq!(joined(&train(&Spec { len: 10, ..TCP }, 140)), [126, 14], "parts of one write");
    assert_eq!(
        joined(&train(&Spec { len: 10, udp: true, ..TCP }, 70)),
        [64, 6],
        "UDP_MAX_SEGMENTS"
    );
}

#[test]
fn each_difference_ends_a_super_frame() {
    // Quirk of the third of five frames, and how they are joined.
    let cases: [(&str, u8, &[u32]); 16] = [
        ("no ACK", 1, &[2, 1, 2]),
        ("another acknowledgement", 2, &[2, 1, 2]),
        ("PSH belongs to the super-frame and ends it", 3, &[3, 2]),
        ("FIN", 4, &[2, 1, 2]),
        ("another window", 5, &[2, 1, 2]),
        ("other options", 6, &[2, 1, 2]),
        ("another TTL", 7, &[2, 1, 2]),
        ("a fragment", 9, &[2, 1, 2]),
        ("a partial checksum is as good as one that is right", 11, &[5]),
        ("a wrong checksum", 12, &[2, 1, 2]),
        ("padding is left behind", 13, &[5]),
        ("a gap", 15, &[3, 2]),
        ("may be fragmented, or not", 17, &[2, 1, 2]),
        ("congestion", 18, &[2, 1, 2]),
        ("IP options", 19, &[2, 1, 2]),
        ("a VLAN tag", 20, &[2, 1, 2]),
    ];
    for (what, quirk, expected) in cases {
        let mut flows = Flows::default();
        let frames: Vec<Vec<u8>> = (0..5)
            .map(|n| Spec { quirk: if n == 2 { quirk } else { 0 }, ..TCP }.build(&mut flows))
            .collect();
        assert_eq!(joined(&frames), expected, "{what}");
    }
}

#[test]
fn identifications_matter_where_packets_may_be_fragmented() {
    for (flow, expected) in [(1, &[5][..]), (2, &[2, 1, 2])] {
        let mut flows = Flows::default();
        let frames: Vec<Vec<u8>> = (0..5)
            .map(|n| Spec { flow, quirk: if n == 2 { 8 } else { 0 }, ..TCP }.build(&mut flows))
            .collect();
        assert_eq!(joined(&frames), expected, "flow {flow}");
    }
}

#[test]
fn a_datagram_without_checksum_stays_as_it_is() {
    let mut flows = Flows::default();
    let frames: Vec<Vec<u8>> =
        (0..3).map(|_| Spec { udp: true, quirk: 10, ..TCP }.build(&mut flows)).collect();
    assert_eq!(joined(&frames), [1, 1, 1]);
}

#[test]
fn a_damaged_ip_header_is_not_repaired() {
    let mut frames = train(&TCP, 4);
    frames[1][24] ^= 1;
    let delivered = deliver(&frames, Offloads::ALL);
    assert_eq!(delivered[1].bytes, frames[1]);
    assert_eq!(delivered.iter().map(|d| d.frames).collect::<Vec<_>>(), [1, 1, 2]);
}

#[test]
fn flows_that_take_turns_are_joined_apart() {
    let mut flows = Flows::default();
    let frames: Vec<Vec<u8>> =
        (0..64).map(|n| Spec { flow: n % 16, len: 60, ..TCP }.build(&mut flows)).collect();
    assert_eq!(joined(&frames), [4; 16]);
    // More flows than can be kept apart are still in order, joined or not.
    let mut flows = Flows::default();
    let frames: Vec<Vec<u8>> =
        (0..200).map(|n| Spec { flow: n % 100, len: 60, ..TCP }.build(&mut flows)).collect();
    let out = deliver(&frames, Offloads::ALL);
    assert_eq!(by_flow(out.iter().flat_map(on_the_wire)), by_flow(frames));
}

#[test]
fn each_kind_can_be_switched() {
    let frames: Vec<Vec<u8>> =
        [train(&TCP, 3), train(&Spec { udp: true, ..TCP }, 3)].into_iter().flatten().collect();
    let count = |offloads| deliver(&frames, offloads).len();
    assert_eq!(count(Offloads::NONE), 6);
    assert_eq!(count(Offloads::ALL), 2);
    assert_eq!(count(Offloads::NONE.with(Offload::CoalesceTcp)), 4);
    assert_eq!(count(Offloads::NONE.with(Offload::CoalesceUdp)), 4);
}

#[test]
fn frames_above_the_segments_mtu_are_not_joined() {
    let frames = train(&Spec { udp: true, len: 1500, ..TCP }, 3);
    assert_eq!(joined(&frames), [1, 1, 1]);
}

/// A kernel peer's UDP super-frame, which its socket hands over with the size of the inner datagrams.
#[test]
fn a_kernel_peers_udp_super_frame_stays_one() {
    for payload in [640, 6400] {
        let (frame, vnet) = udp_super_frame(host(2), host(1), &vec![7; payload], 64);
        let datagram = vxlan(vni(1), &frame);
        assert!(vxlan::holds_super_frame(&datagram, 64));
        let (tables, _) = node();
        let (mut batch, mut output) = (Batch::new(2), Output::new());
        batch.next_slot(0).unwrap()[..datagram.len()].copy_from_slice(&datagram);
        assert!(batch.commit_super_frame(datagram.len(), 64, vtep(2)));
        assert!(batch.push_datagram(&vxlan(vni(1), &udp(host(2), host(1), b"next")), vtep(2)));
        let mut forwarder = Forwarder::new(0);
        forwarder.set_offloads(Offloads::ALL);
        let now = Duration::from_secs(1);
        forwarder.from_underlay(&tables, now, vxlan::PORT, &mut batch, &mut output);
        let [first, next] = output.delivers() else { panic!("{output:?}") };
        assert_eq!((first.vnet, next.vnet), (vnet, VnetHeader::default()));
        assert_eq!(output.frame(&batch, first).collect::<Vec<_>>().concat(), frame);
        vnet.validate(frame.len()).unwrap();
    }
}

#[test]
fn only_a_udp_super_frame_is_taken_for_one() {
    let (super_frame, _) = udp_super_frame(host(2), host(1), &[7; 640], 64);
    let whole = vxlan(vni(1), &super_frame);
    assert!(!vxlan::holds_super_frame(&whole, 640), "one datagram is none");
    let (one, _) = unfinished(udp(host(2), host(1), &[7; 64]));
    let datagram = vxlan(vni(1), &one);
    let train = datagram.repeat(10);
    assert!(!vxlan::holds_super_frame(&train, datagram.len() as u16), "a train");
    assert!(!vxlan::holds_super_frame(&train, 64), "a train with another size");
    let complete = vxlan(vni(1), &udp(host(2), host(1), &[7; 640]));
    assert!(!vxlan::holds_super_frame(&complete, 64), "nothing is unfinished about it");
    let (stream, _) = tcp_super_frame(host(2), host(1), &[7; 640], 64);
    assert!(!vxlan::holds_super_frame(&vxlan(vni(1), &stream), 64), "TCP is told by its length");
    assert!(!vxlan::holds_super_frame(&super_frame[14..], 64), "a bare packet");
    for len in 0..whole.len() {
        assert!(!vxlan::holds_super_frame(&whole[..len], 64), "cut to {len}");
    }
}
