//! The VXLAN header: what is sent, what is accepted, and what it carries beside the VNI.

use overplane::wire::{GroupPolicy, vxlan};
use overplane::{Change, DropReason, HeaderOptions, Metadata, Segment};

use crate::network::Network;
use crate::packets::*;

/// A bridge segment that speaks the group policy extension.
fn gbp(n: u32) -> Segment {
    bridge_with(n, |segment| segment.header = speaking_gbp())
}

fn speaking_gbp() -> HeaderOptions {
    let mut options = HeaderOptions::default();
    options.gbp = true;
    options
}

fn with_policy(policy: GroupPolicy) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.policy = Some(policy);
    metadata
}

/// A datagram whose header has `bits` beside those of VNI 1.
fn with_bits(bits: u64, frame: &[u8]) -> Vec<u8> {
    let header = u64::from_be_bytes(vxlan::encode(vni(1))) | bits;
    [&header.to_be_bytes()[..], frame].concat()
}

#[test]
fn row_01_only_the_flag_of_the_vni_is_ever_sent() {
    let (mut network, ports) = Network::mesh(2, &bridge(0x12_3456), false);
    let (a, b) = (host(1), host(2));
    network.send(1, ports[0], &udp(a, EVERYBODY, b"flooded"));
    network.send(2, ports[1], &udp(b, a, b"to one"));
    let (super_frame, vnet) = tcp_super_frame(a, b, &[7; 5000], 1000);
    network.send_unfinished(1, ports[0], &super_frame, vnet);
    // A policy is for segments that speak the extension.
    network.send_with(1, ports[0], &udp(a, b, b""), with_policy(GroupPolicy::new(9)));
    assert_eq!(network.sent.len(), 2 + 5 + 1);
    for datagram in &network.sent {
        assert_eq!(datagram.bytes[..8], [8, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
    }
}

#[test]
fn row_02_reserved_bits_are_ignored_or_refused_as_configured() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    let frame = udp(host(2), EVERYBODY, b"hello");
    let extensions = [0x04 << 56, 0x20 << 48];
    let reserved = (0..8).chain(32..64).map(|bit| 1_u64 << bit);
    let reserved = reserved.filter(|bit| !extensions.contains(bit) && *bit != 0x08 << 56);
    let reserved: Vec<u64> = reserved.collect();
    for bit in &reserved {
        network.arrive(1, underlay(2), vxlan::PORT, &with_bits(*bit, &frame));
        let received = network.frames(1, ports[0]);
        assert_eq!(received, std::slice::from_ref(&frame), "bit {bit:#x} is ignored");
    }
    network.node(1).tables.set_reserved_bits(vxlan::ReservedBits::Strict);
    for bit in &reserved {
        network.arrive(1, underlay(2), vxlan::PORT, &with_bits(*bit, &frame));
    }
    assert_eq!(network.drops(1, DropReason::ReservedBits), reserved.len() as u64);
    assert_eq!(network.frames(1, ports[0]).len(), 0);
    let unflagged = [&[0], &with_bits(0, &frame)[1..]].concat();
    network.arrive(1, underlay(2), vxlan::PORT, &unflagged);
    assert_eq!(network.drops(1, DropReason::NoVniFlag), 1, "without the I flag");
    network.arrive(1, underlay(2), vxlan::PORT, &with_bits(0, &frame));
    assert_eq!(network.frames(1, ports[0]), [frame]);
}

#[test]
fn row_24_gpe_and_remote_checksum_offload_are_refused_by_name() {
    let frame = udp(host(2), EVERYBODY, b"hello");
    for segment in [bridge(1), gbp(1)] {
        let (mut network, ports) = Network::mesh(2, &segment, false);
        let mut expected = 0;
        for reserved in [vxlan::ReservedBits::Ignore, vxlan::ReservedBits::Strict] {
            network.node(1).tables.set_reserved_bits(reserved);
            // The P flag with no, IPv4, Ethernet and NSH as next protocol; the C flag.
            for bits in
                [0x04 << 56, 0x0400_0001 << 32, 0x0400_0003 << 32, 0x04 << 56 | 4 << 32, 0x20 << 48]
            {
                network.arrive(1, underlay(2), vxlan::PORT, &with_bits(bits, &frame));
                expected += 1;
                assert_eq!(network.drops(1, DropReason::VxlanExtension), expected);
            }
        }
        assert_eq!(network.frames(1, ports[0]).len(), 0);
        assert_eq!(network.stats(1).segments[0].learned, 0);
    }
}

#[test]
fn row_24_a_group_policy_comes_with_the_frame_and_leaves_with_it() {
    let (mut network, ports) = Network::mesh(3, &gbp(1), false);
    let (a, b) = (host(1), host(2));
    let policy = GroupPolicy { applied: true, ..GroupPolicy::new(0x1234) };
    network.send_with(1, ports[0], &udp(a, EVERYBODY, b"flooded"), with_policy(policy));
    for (n, port) in [(2, ports[1]), (3, ports[2])] {
        let received = network.received(n, port);
        assert_eq!(received[0].metadata.policy, Some(policy));
        assert_eq!(received[0].metadata.vni, Some(vni(1)));
    }
    // In chunks, and to one VTEP.
    let (super_frame, vnet) = tcp_super_frame(b, a, &[7; 3000], 1000);
    network.send_unfinished(2, ports[1], &super_frame, vnet);
    assert!(network.received(1, ports[0]).iter().all(|frame| frame.metadata.policy.is_none()));
    network.send_with(2, ports[1], &udp(b, a, b"answer"), with_policy(GroupPolicy::new(7)));
    assert_eq!(network.sent.last().unwrap().bytes[..8], [0x88, 0, 0, 7, 0, 0, 1, 0]);
    assert_eq!(network.received(1, ports[0])[0].metadata.policy, Some(GroupPolicy::new(7)));
}

#[test]
fn row_24_what_must_not_be_learned_is_not() {
    let (mut network, ports) = Network::mesh(2, &gbp(1), false);
    let (a, b) = (host(1), host(2));
    let quiet = GroupPolicy { dont_learn: true, ..GroupPolicy::new(1) };
    network.send_with(2, ports[1], &udp(b, EVERYBODY, b"once"), with_policy(quiet));
    assert_eq!(
        network.frames_and_policies(1, ports[0]),
        [(udp(b, EVERYBODY, b"once"), Some(quiet))]
    );
    assert_eq!(network.stats(1).segments[0].learned, 0);
    // The same host without the bit, in one batch with it: learned.
    network.send_with(2, ports[1], &udp(b, a, b"learn me"), with_policy(GroupPolicy::new(1)));
    assert_eq!(network.stats(1).segments[0].learned, 1);
    // A node that does not speak the extension takes its bits for reserved ones.
    let mut other = Network::new(1);
    let port = other.add_segment(1, bridge(1), false);
    other.change(1, Change::AddPeer { segment: bridge_id(1), vtep: vtep(2) });
    let datagram = network.sent.iter().find(|sent| sent.bytes[1] & 0x40 != 0).unwrap();
    other.arrive(1, underlay(2), vxlan::PORT, &datagram.bytes);
    assert_eq!(other.frames_and_policies(1, port)[0].1, None);
    assert_eq!(other.stats(1).segments[0].learned, 1);
}
