//! Joining frames to super-frames: what comes out, taken apart again, is what went in, in order, whatever it was.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "common/packets.rs"]
mod packets;
#[path = "common/twins.rs"]
mod twins;

use std::collections::HashMap;
use std::time::Duration;

use etherparse::{PacketBuilder, TcpHeader, UdpHeader};
use overplane::wire::l4::{L4Checksum, checksum_state, complete, is_partial};
use overplane::wire::vnet::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};
use overplane::wire::{FrameInfo, L4, VnetHeader, vxlan};
use overplane::{Batch, Change, Forwarder, Offload, Offloads, Output, PortId, Tables, gso};
use packets::*;
use proptest::prelude::*;
use twins::{Arrival, QUIRKS, ROUTED, Recipe, Senders, Twins, encapsulated, spoil};

/// Frames of one batch as a port got them.
#[derive(Debug)]
struct Delivered {
    vnet: VnetHeader,
    bytes: Vec<u8>,
    frames: u32,
}

/// A node with one port that takes super-frames, and host 1 behind it.
fn node() -> (Tables, PortId) {
    let mut tables = Tables::new(underlay(1), 1).unwrap();
    let segment = bridge_id(1);
    let port = Change::AddPort { segment, name: "ovl0".into(), offload: true };
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
    let Delivered { vnet, bytes, .. } = delivered;
    vnet.validate(bytes.len()).unwrap();
    if !vnet.is_gso() {
        let mut frame = bytes.clone();
        if vnet.needs_checksum() {
            let (start, offset) = (vnet.csum_start.into(), vnet.csum_offset.into());
            assert!(complete(&mut frame, start, offset));
        }
        return vec![frame];
    }
    let info = FrameInfo::parse(bytes).unwrap();
    assert_eq!(info.ip_end as usize, bytes.len(), "no padding");
    assert!(is_partial(bytes, &info));
    assert_eq!((vnet.hdr_len, vnet.csum_start), (info.payload_offset, info.l4_offset));
    let (mut headers, mut chunks) = (Vec::new(), Vec::new());
    gso::split(bytes, &info, vnet.gso_size.into(), &[], &mut headers, &mut chunks).unwrap();
    let whole = |chunk: &gso::Chunk| {
        let (head, body) = (chunk.head, chunk.body);
        let head = &headers[head.start as usize..][..head.len as usize];
        [head, &bytes[body.start as usize..][..body.len as usize]].concat()
    };
    chunks.iter().map(whole).collect()
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
            let check = overplane::wire::ip::v4_header_checksum(&frame[14..34]);
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
    let quirk = prop_oneof![12 => Just(0_u8), 1 => 1_u8..=16];
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

/// The frame as it may come out: without padding, with a finished checksum, and without what means nothing.
fn normal(mut frame: Vec<u8>) -> Vec<u8> {
    let info = FrameInfo::parse(&frame).unwrap();
    frame.truncate(info.ip_end as usize);
    if is_partial(&frame, &info) && checksum_state(&frame, &info) == L4Checksum::Partial {
        let offset = overplane::wire::l4::checksum_offset(info.l4).unwrap();
        assert!(complete(&mut frame, info.l4_offset.into(), offset.into()));
    }
    if frame[14] >> 4 == 4 && frame[20] & 0x40 != 0 {
        // With DF the identification means nothing (RFC 6864 section 4.1), nor does its share of the checksum.
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    frame
}

fn by_flow(frames: impl IntoIterator<Item = Vec<u8>>) -> HashMap<Option<Vec<u8>>, Vec<Vec<u8>>> {
    let mut flows: HashMap<_, Vec<Vec<u8>>> = HashMap::new();
    for frame in frames {
        flows.entry(flow_of(&frame)).or_default().push(normal(frame));
    }
    flows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

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
            deliver(&frames, Offloads::ALL).iter().flat_map(on_the_wire).map(normal).collect();
        let place = out.iter().position(|frame| *frame == normal(marker.clone())).unwrap();
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
    let cases: [(&str, u8, &[u32]); 12] = [
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

/// Several frames of a flow that arrive as one train or one by one, all but the last of them as usual.
#[derive(Clone, Debug)]
struct Burst {
    from: u8,
    vni: u32,
    recipe: Recipe,
    count: usize,
    train: bool,
    /// What is taken from the stride, which is that of the first datagram.
    shorter: usize,
}

fn burst() -> impl Strategy<Value = Burst> {
    let len = prop_oneof![4 => Just(100_u16), 1 => Just(60), 1 => 0_u16..120, 1 => Just(1300), 1 => 0_u16..9000];
    let quirk = prop_oneof![2 => Just(0), 3 => 1..=QUIRKS];
    let spoil = prop::option::weighted(0.2, any::<(u16, u8)>());
    let to = prop_oneof![4 => Just(1_u8), 1 => Just(2), 2 => Just(3)];
    let recipe = (0_u8..12, to, len, quirk, spoil)
        .prop_map(|(flow, to, len, quirk, spoil)| Recipe { flow, to, len, quirk, spoil });
    let from = prop_oneof![4 => Just(2_u8), 2 => Just(3), 1 => Just(5), 1 => Just(1)];
    let vni = prop_oneof![4 => Just(1_u32), 2 => Just(2), 1 => Just(3)];
    let shorter = prop_oneof![9 => Just(0_usize), 1 => 1_usize..100];
    (from, vni, recipe, 1_usize..8, any::<bool>(), shorter).prop_map(
        |(from, vni, recipe, count, train, shorter)| Burst {
            from,
            vni,
            recipe,
            count,
            train,
            shorter,
        },
    )
}

impl Burst {
    fn arrive(&self, routed: bool, senders: &mut Senders) -> Vec<Arrival> {
        let segment = match routed {
            true => overplane::SegmentId { udp_port: ROUTED, vni: None },
            false => bridge_id(self.vni),
        };
        let usual = Recipe { quirk: 0, spoil: None, ..self.recipe.clone() };
        let datagrams: Vec<Vec<u8>> = (1..=self.count)
            .map(|n| if n == self.count { &self.recipe } else { &usual }.build(senders))
            .map(|frame| encapsulated(segment, &frame))
            .collect();
        let from = self.from;
        match self.train && datagrams.concat().len() < 65_000 {
            true => {
                let stride = datagrams[0].len().saturating_sub(self.shorter);
                vec![Arrival { from, bytes: datagrams.concat(), stride }]
            }
            false => {
                datagrams.into_iter().map(|bytes| Arrival { from, bytes, stride: 0 }).collect()
            }
        }
    }
}

fn switches() -> impl Strategy<Value = Offloads> {
    let only = |offload| Just(Offloads::NONE.with(offload));
    prop_oneof![
        4 => Just(Offloads::ALL),
        1 => only(Offload::CoalesceTcp),
        1 => only(Offload::CoalesceUdp),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whoever sends what to which segment: a node that joins delivers and counts what one that does not would.
    #[test]
    fn joining_changes_nothing_else(
        batches in prop::collection::vec((prop::collection::vec(burst(), 1..16), prop::bool::weighted(0.3)), 1..3),
        offloads in switches(), small: bool,
    ) {
        let mut twins = Twins::new(offloads, small.then_some(300));
        let mut senders = Senders::default();
        for (bursts, routed) in batches {
            let arrivals: Vec<Arrival> =
                bursts.iter().flat_map(|burst| burst.arrive(routed, &mut senders)).collect();
            twins.receive(&arrivals, if routed { ROUTED } else { vxlan::PORT });
        }
    }
}

/// How many of these frames are joined to another, once it is certain that nothing else changes.
fn joined_of(recipes: &[Recipe], udp_port: u16) -> u64 {
    let segment = match udp_port {
        ROUTED => overplane::SegmentId { udp_port, vni: None },
        _ => bridge_id(1),
    };
    let mut senders = Senders::default();
    let arrival = |recipe: &Recipe| {
        let bytes = encapsulated(segment, &recipe.build(&mut senders));
        Arrival { from: 2, bytes, stride: 0 }
    };
    let arrivals: Vec<Arrival> = recipes.iter().map(arrival).collect();
    Twins::new(Offloads::ALL, None).receive(&arrivals, udp_port)
}

/// UDP over IPv4 and IPv6, TCP over IPv4 and IPv6.
const KINDS: [u8; 4] = [2, 3, 0, 1];

fn recipe(flow: u8, quirk: u8) -> Recipe {
    Recipe { flow, to: 1, len: 100, quirk, spoil: None }
}

#[test]
fn routed_packets_and_bridged_frames_are_joined_alike() {
    for udp_port in [vxlan::PORT, ROUTED] {
        for flow in KINDS {
            assert_eq!(joined_of(&vec![recipe(flow, 0); 10], udp_port), 9, "flow {flow}");
        }
    }
}

#[test]
fn what_comes_before_the_ports_does_not_change_a_flows_order() {
    // Two VLAN tags, a VLAN tag, IPv4 options or an extension header.
    for quirk in [8, 7, 21] {
        for flow in KINDS {
            let recipes = [0, quirk, 0].map(|quirk| recipe(flow, quirk));
            assert_eq!(joined_of(&recipes, vxlan::PORT), 0, "flow {flow}, quirk {quirk}");
            let between = [0, 0, quirk, 0, 0].map(|quirk| recipe(flow, quirk));
            assert_eq!(joined_of(&between, vxlan::PORT), 2, "flow {flow}, quirk {quirk}");
        }
    }
    // With tags all of them are as good as without.
    assert_eq!(joined_of(&vec![recipe(0, 7); 5], vxlan::PORT), 4);
    assert_eq!(joined_of(&vec![recipe(3, 8); 5], vxlan::PORT), 4);
}

#[test]
fn a_tag_is_no_option_of_the_same_length() {
    // Both put the payload into the same place.
    let recipes = [0, 7, 10, 7, 10, 0].map(|quirk| recipe(0, quirk));
    assert_eq!(joined_of(&recipes, vxlan::PORT), 0);
}

#[test]
fn a_partial_checksum_hides_no_damage_of_the_ip_header() {
    for flow in [0, 2] {
        assert_eq!(joined_of(&vec![recipe(flow, 25); 4], vxlan::PORT), 3, "intact");
        for damaged in 0..4 {
            let mut recipes = vec![recipe(flow, 25); 4];
            recipes[damaged].quirk = 26;
            let expected = if matches!(damaged, 0 | 3) { 2 } else { 1 };
            assert_eq!(joined_of(&recipes, vxlan::PORT), expected, "{damaged}");
        }
    }
}

#[test]
fn datagrams_above_the_mtu_are_not_joined_whoever_makes_their_checksum() {
    for quirk in [0, 25] {
        let recipes = vec![Recipe { len: 1500, ..recipe(2, quirk) }; 4];
        assert_eq!(joined_of(&recipes, vxlan::PORT), 0, "quirk {quirk}");
    }
}

#[test]
fn one_flow_from_two_peers_is_one_flow_and_counted_apart() {
    let mut senders = Senders::default();
    let arrivals: Vec<Arrival> = (0..12)
        .map(|n| {
            let frame = recipe(0, 0).build(&mut senders);
            let bytes = encapsulated(bridge_id(1), &frame);
            // Three of one, three of the other.
            Arrival { from: 2 + n / 3 % 2, bytes, stride: 0 }
        })
        .collect();
    assert_eq!(Twins::new(Offloads::ALL, None).receive(&arrivals, vxlan::PORT), 11);
}

#[test]
fn one_flow_of_two_segments_is_two_flows() {
    let mut senders = Senders::default();
    let arrivals: Vec<Arrival> = (0..8)
        .map(|n| {
            let frame = recipe(2, 0).build(&mut senders);
            Arrival { from: 2, bytes: encapsulated(bridge_id(1 + n % 2), &frame), stride: 0 }
        })
        .collect();
    assert_eq!(Twins::new(Offloads::ALL, None).receive(&arrivals, vxlan::PORT), 6);
}

#[test]
fn the_rest_of_a_train_is_not_taken_for_its_beginning() {
    // The last datagram differs in one bit, each in turn, behind a front that was recognised.
    for flow in KINDS.into_iter().chain([4]) {
        let recipe = Recipe { len: 4, ..recipe(flow, 0) };
        let mut senders = Senders::default();
        let datagram = |_| encapsulated(bridge_id(1), &recipe.build(&mut senders));
        let train: Vec<Vec<u8>> = (0..4).map(datagram).collect();
        let stride = train[0].len();
        let mut twins = Twins::new(Offloads::ALL, None);
        for bit in 0..stride * 8 {
            let mut bytes = train.concat();
            bytes[3 * stride + bit / 8] ^= 1 << (bit % 8);
            let joined = twins.receive(&[Arrival { from: 2, bytes, stride }], vxlan::PORT);
            assert_eq!(joined, 2, "flow {flow}, bit {bit}");
        }
        // The same behind right checksums: what is no damage may be joined, as what it is.
        for (bit, udp_port) in
            (0..(stride - 8) * 8).flat_map(|bit| [(bit, vxlan::PORT), (bit, ROUTED)])
        {
            let segment = match udp_port {
                ROUTED => overplane::SegmentId { udp_port, vni: None },
                _ => bridge_id(1),
            };
            let mut senders = Senders::default();
            let mut frames: Vec<Vec<u8>> = (0..4).map(|_| recipe.build(&mut senders)).collect();
            spoil(&mut frames[3], bit / 8, 1 << (bit % 8), true);
            let arrivals: Vec<Arrival> = frames
                .iter()
                .map(|frame| Arrival { from: 2, bytes: encapsulated(segment, frame), stride: 0 })
                .collect();
            assert!(twins.receive(&arrivals, udp_port) >= 2, "flow {flow}, bit {bit}");
        }
    }
}

#[test]
fn a_sequence_number_and_an_identification_wrap_within_a_super_frame() {
    let frames = |count| vec![Recipe { len: 1000, ..recipe(4, 0) }; count];
    // The senders begin 3000 bytes before the end of sequence numbers.
    assert_eq!(joined_of(&frames(6), vxlan::PORT), 5);
}

#[test]
fn what_is_for_everybody_or_nobody_keeps_its_place_in_a_flow() {
    for flow in KINDS {
        // Broadcast, an unknown receiver, one behind another node, and a source that is none.
        for (quirk, expected) in [(1, 2), (2, 2), (3, if flow > 1 { 3 } else { 2 })] {
            let recipes = [0, 0, quirk, 0, 0].map(|quirk| recipe(flow, quirk));
            assert_eq!(joined_of(&recipes, vxlan::PORT), expected, "flow {flow}, quirk {quirk}");
        }
    }
    assert_eq!(joined_of(&[recipe(0, 0)], vxlan::PORT), 0, "a lone frame");
}

#[test]
fn a_full_output_drops_what_can_not_be_joined_and_nothing_else() {
    let (tables, _) = node();
    let mut batch = Batch::new(1024);
    let mut senders = Senders::default();
    let mut push = |batch: &mut Batch, recipe: Recipe, count: usize| {
        let datagram = |_| encapsulated(bridge_id(1), &recipe.build(&mut senders));
        let train: Vec<Vec<u8>> = (0..count).map(datagram).collect();
        let bytes = train.concat();
        batch.next_slot(0).unwrap()[..bytes.len()].copy_from_slice(&bytes);
        assert!(batch.commit_train(bytes.len(), train[0].len(), vtep(2)));
    };
    push(&mut batch, recipe(0, 0), 3);
    // Empty datagrams of another flow take up the room, one each.
    for _ in 0..513 {
        push(&mut batch, Recipe { len: 0, ..recipe(2, 0) }, 128);
    }
    push(&mut batch, recipe(0, 0), 2);
    push(&mut batch, recipe(0, 13), 1);
    push(&mut batch, recipe(0, 0), 2);
    let (mut forwarder, mut output) = (Forwarder::new(0), Output::new());
    forwarder.set_offloads(Offloads::ALL);
    let now = Duration::from_secs(1);
    forwarder.from_underlay(&tables, now, vxlan::PORT, &mut batch, &mut output);
    for deliver in output.delivers() {
        forwarder.delivered(&tables, deliver, 0);
    }
    assert_eq!(output.delivers().len(), overplane::limits::MAX_OUTPUT);
    assert_eq!(output.delivers()[0].frames, 6, "up to the one with PSH");
    let totals = tables.stats().totals;
    assert!(totals.is_conserved());
    let dropped = 513 * 128 + 1 - overplane::limits::MAX_OUTPUT as u64 + 2;
    assert_eq!(totals.drops(overplane::DropReason::OutputFull), dropped);
}
