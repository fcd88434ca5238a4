//! Several ports, peers and segments: a node that joins delivers, counts and learns what one that does not would.

use std::time::Duration;

use overplane::wire::vxlan;
use overplane::{Batch, Forwarder, Offload, Offloads, Output};
use proptest::prelude::*;

use crate::flows::node;
use crate::packets::*;
use crate::twins::{
    Arrival, QUIRKS, ROUTED, ROUTED_VXLAN, Recipe, Senders, Twins, encapsulated, spoil,
};

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

/// The first segment on a UDP port.
fn of_port(udp_port: u16) -> overplane::SegmentId {
    let vni = (udp_port != ROUTED).then(|| vni(1));
    overplane::SegmentId { udp_port, vni }
}

fn udp_port() -> impl Strategy<Value = u16> {
    prop_oneof![3 => Just(vxlan::PORT), 1 => Just(ROUTED), 1 => Just(ROUTED_VXLAN)]
}

impl Burst {
    fn arrive(&self, udp_port: u16, senders: &mut Senders) -> Vec<Arrival> {
        let segment = match udp_port {
            vxlan::PORT => bridge_id(self.vni),
            _ => of_port(udp_port),
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
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    /// Whoever sends what to which segment: a node that joins delivers and counts what one that does not would.
    #[test]
    fn joining_changes_nothing_else(
        batches in prop::collection::vec((prop::collection::vec(burst(), 1..16), udp_port()), 1..3),
        offloads in switches(), small: bool,
    ) {
        let mut twins = Twins::new(offloads, small.then_some(300));
        let mut senders = Senders::default();
        for (bursts, udp_port) in batches {
            let arrivals: Vec<Arrival> =
                bursts.iter().flat_map(|burst| burst.arrive(udp_port, &mut senders)).collect();
            twins.receive(&arrivals, udp_port);
        }
    }
}

/// How many of these frames are joined to another, once it is certain that nothing else changes.
fn joined_of(recipes: &[Recipe], udp_port: u16) -> u64 {
    let segment = of_port(udp_port);
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
    for udp_port in [vxlan::PORT, ROUTED, ROUTED_VXLAN] {
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
            // What reserved bits say is ignored; the I flag, GPE's, that of RCO and the VNI are none.
            let ignored = match (bit / 8, 1 << (bit % 8)) {
                (0, mask) => mask & 0x0c == 0,
                (1, mask) => mask & 0x20 == 0,
                (byte, _) => matches!(byte, 2 | 3 | 7),
            };
            assert_eq!(joined, 2 + u64::from(ignored), "flow {flow}, bit {bit}");
        }
        // The same behind right checksums: what is no damage may be joined, as what it is.
        for (bit, udp_port) in
            (0..(stride - 8) * 8).flat_map(|bit| [(bit, vxlan::PORT), (bit, ROUTED)])
        {
            let segment = of_port(udp_port);
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
