//! Unfinished checksums and super-frames: handed on whole where the receiver takes them, finished or cut where not.

use overplane::wire::l4::{L4Checksum, checksum_state};
use overplane::wire::vnet::{GSO_ECN, GSO_NONE, GSO_TCPV4};
use overplane::wire::{FrameInfo, VnetHeader, vxlan};
use overplane::{Change, DropReason, PortId};

use crate::network::Network;
use crate::packets::*;

const MTU: usize = 1450;

/// Node 1 with a port that takes offloads and one that does not, and host 1 known behind the first or the second.
fn node(offload: bool) -> (Network, PortId) {
    let mut network = Network::new(1);
    let port = network.add_segment(1, bridge(1), offload);
    let segment = bridge_id(1);
    network.change(1, Change::AddFlood { segment, vtep: vtep(2) });
    network.change(1, Change::InsertFdb { segment, mac: host(1).mac, destination: port.into() });
    (network, port)
}

fn checksum(frame: &[u8]) -> L4Checksum {
    checksum_state(frame, &FrameInfo::parse(frame).unwrap())
}

/// The TCP payload of chunks that must be complete frames within the MTU, put together.
fn reassembled(chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut next = None;
    let mut payload = Vec::new();
    for chunk in chunks {
        assert!(chunk.len() <= MTU + 14);
        assert_eq!(checksum(chunk), L4Checksum::Correct);
        let parsed = etherparse::SlicedPacket::from_ethernet(chunk).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = parsed.transport else { panic!("no TCP") };
        assert_eq!(tcp.sequence_number(), next.unwrap_or(tcp.sequence_number()), "in order");
        next = Some(tcp.sequence_number() + tcp.payload().len() as u32);
        payload.extend_from_slice(tcp.payload());
    }
    payload
}

#[test]
fn a_kernel_peers_unfinished_checksum_is_left_to_a_device_that_takes_it() {
    let (mut network, port) = node(true);
    let (frame, vnet) = unfinished(tcp(host(2), host(1), b"partial"));
    network.arrive(1, underlay(2), vxlan::PORT, &vxlan(vni(1), &frame));
    let received = network.received(1, port);
    assert_eq!(received[0].vnet, vnet);
    assert_eq!(received[0].bytes, frame);
}

#[test]
fn a_kernel_peers_unfinished_checksum_is_finished_for_a_plain_device() {
    let (mut network, port) = node(false);
    for whole in [tcp(host(2), host(1), b"partial"), udp(host(2), host(1), b"odd")] {
        let (frame, _) = unfinished(whole.clone());
        network.arrive(1, underlay(2), vxlan::PORT, &vxlan(vni(1), &frame));
        assert_eq!(network.frames(1, port), [whole]);
    }
}

#[test]
fn row_21_a_devices_unfinished_checksum_is_finished_before_it_is_sent() {
    let (mut network, port) = node(true);
    let whole = tcp(host(1), host(2), b"finish me");
    let (frame, vnet) = unfinished(whole.clone());
    network.send_unfinished(1, port, &frame, vnet);
    assert_eq!(network.sent[0].bytes, vxlan(vni(1), &whole));
}

#[test]
fn chunks_with_long_headers_do_not_fill_the_memory() {
    // Seven extension headers of 2 KiB in front of 3000 bytes of TCP, to be cut into single bytes.
    let (mut frame, _) = unfinished(tcp(host(2), host(1), &[7; 2000]));
    let l4 = frame.split_off(34);
    frame.truncate(12);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(((7 * 2048 + l4.len()) as u16).to_be_bytes());
    frame.extend([60, 64]);
    frame.extend([0xfd; 32]);
    for next in [60, 60, 60, 60, 60, 60, 6] {
        let start = frame.len();
        frame.resize(start + 2048, 1);
        frame[start..start + 2].copy_from_slice(&[next, 255]);
    }
    frame.extend(l4);
    let info = FrameInfo::parse(&frame).unwrap();
    let vnet = VnetHeader {
        gso_type: overplane::wire::vnet::GSO_TCPV6,
        hdr_len: info.payload_offset,
        gso_size: 1,
        ..VnetHeader::partial(info.l4_offset, 16)
    };
    let (mut network, port) = node(false);
    let from = network.add_port(1, bridge_id(1), true);
    network.send_unfinished(1, from, &frame, vnet);
    assert_eq!(network.frames(1, port), [] as [Vec<u8>; 0]);
    assert_eq!(network.stats(1).totals.drops(DropReason::OutputFull), 1);
    // In pieces of a usual size it is a frame like any other.
    network.send_unfinished(1, from, &frame, VnetHeader { gso_size: 100, ..vnet });
    assert_eq!(network.frames(1, port).len(), 20);
}

#[test]
fn padding_is_no_part_of_a_checksum() {
    let (mut network, port) = node(true);
    let (mut frame, vnet) = unfinished(udp(host(1), host(2), b"x"));
    frame.resize(60, 0xee);
    network.send_unfinished(1, port, &frame, vnet);
    assert_eq!(checksum(&network.sent[0].bytes[8..]), L4Checksum::Correct);
}

#[test]
fn a_super_frame_from_the_underlay_goes_whole_to_a_device_that_takes_it() {
    let (mut network, port) = node(true);
    let payload = vec![0x17; 60_000];
    let frame = tcp(host(2), host(1), &payload);
    let (partial, vnet) = unfinished(frame.clone());
    for (case, frame) in [("finished", &frame), ("partial", &partial)] {
        network.arrive(1, underlay(2), vxlan::PORT, &vxlan(vni(1), frame));
        let received = network.received(1, port);
        assert_eq!(received.len(), 1, "{case}");
        let expected =
            VnetHeader { gso_type: GSO_TCPV4, gso_size: (MTU - 40) as u16, hdr_len: 54, ..vnet };
        assert_eq!(received[0].vnet, expected, "{case}");
        assert_eq!(received[0].bytes, partial, "{case}");
        assert_eq!(received[0].vnet.validate(received[0].bytes.len()), Ok(()));
    }
}

#[test]
fn a_super_frame_from_the_underlay_is_cut_for_a_plain_device() {
    let (mut network, port) = node(false);
    let payload: Vec<u8> = (0..60_000_u32).map(|n| (n * 7) as u8).collect();
    network.arrive(1, underlay(2), vxlan::PORT, &vxlan(vni(1), &tcp(host(2), host(1), &payload)));
    let chunks = network.frames(1, port);
    assert_eq!(chunks.len(), payload.len().div_ceil(MTU - 40));
    assert_eq!(reassembled(&chunks), payload);
    assert_eq!(network.stats(1).totals.chunks, chunks.len() as u64 - 1);
}

#[test]
fn row_21_a_devices_super_frame_is_cut_before_it_is_sent() {
    let (mut network, port) = node(true);
    let payload = vec![9; 30_000];
    // The device thinks of a larger MTU than the segment has.
    let (frame, vnet) = tcp_super_frame(host(1), host(2), &payload, 8000);
    network.send_unfinished(1, port, &frame, vnet);
    let frames: Vec<Vec<u8>> =
        network.sent.iter().map(|datagram| datagram.bytes[8..].to_vec()).collect();
    assert_eq!(reassembled(&frames), payload);
    assert!(network.sent.iter().all(|datagram| datagram.bytes[..8] == vxlan::encode(vni(1))));
}

#[test]
fn a_super_frame_between_neighbours_stays_whole_for_one_and_is_cut_for_the_other() {
    let mut network = Network::new(1);
    let offload = network.add_segment(1, bridge(1), true);
    let [same, plain] = [true, false].map(|o| network.add_port(1, bridge_id(1), o));
    let payload = vec![3; 10_000];
    let (frame, vnet) = tcp_super_frame(host(1), EVERYBODY, &payload, 1410);
    network.send_unfinished(1, offload, &frame, vnet);
    let whole = network.received(1, same);
    assert_eq!((whole.len(), whole[0].vnet, &whole[0].bytes), (1, vnet, &frame));
    assert_eq!(reassembled(&network.frames(1, plain)), payload);
}

#[test]
fn datagrams_of_a_udp_super_frame_keep_their_bounds() {
    let (mut network, port) = node(true);
    let (frame, vnet) = udp_super_frame(host(1), host(2), &[5; 3000], 1000);
    network.send_unfinished(1, port, &frame, vnet);
    assert_eq!(network.sent.len(), 3);
    for datagram in &network.sent {
        assert_eq!(checksum(&datagram.bytes[8..]), L4Checksum::Correct);
    }
    // Larger than the segment: nobody but the sender may change that.
    let (frame, vnet) = udp_super_frame(host(1), host(2), &[5; 3000], 1500);
    network.send_unfinished(1, port, &frame, vnet);
    assert_eq!(network.drops(1, DropReason::TooBig), 1);
}

/// All else may come from a peer with a larger MTU, and a bridge delivers it as it is.
#[test]
fn only_tcp_above_the_mtu_is_a_super_frame() {
    let (mut network, port) = node(true);
    let mut damaged = tcp(host(2), host(1), &[0; 3000]);
    damaged[2000] ^= 1;
    let mut fragment = tcp(host(2), host(1), &[0; 3000]);
    fragment[14 + 6] |= 0x20;
    let mut padded = tcp(host(2), host(1), &[0; 100]);
    padded.resize(3000, 0);
    for frame in [udp(host(2), host(1), &[0; 3000]), damaged, fragment, padded] {
        network.arrive(1, underlay(2), vxlan::PORT, &vxlan(vni(1), &frame));
        let received = network.received(1, port);
        assert_eq!((received[0].vnet, &received[0].bytes), (VnetHeader::default(), &frame));
    }
}

#[test]
fn row_21_a_vnet_header_that_contradicts_its_frame_is_refused() {
    let (mut network, port) = node(true);
    let (frame, vnet) = tcp_super_frame(host(1), host(2), &[0; 3000], 1000);
    let (datagrams, udp) = udp_super_frame(host(1), host(2), &[0; 3000], 1000);
    for (frame, vnet) in [
        (&frame, VnetHeader { csum_start: 60_000, ..vnet }),
        (&frame, VnetHeader { gso_size: 0, ..vnet }),
        (&frame, VnetHeader { flags: 0, ..vnet }),
        (&frame, udp),
        (&datagrams, vnet),
        (&frame, VnetHeader { gso_type: GSO_NONE, csum_start: 2999, csum_offset: 300, ..vnet }),
    ] {
        let before = network.drops(1, DropReason::BadOffload);
        network.send_unfinished(1, port, frame, vnet);
        assert_eq!(network.drops(1, DropReason::BadOffload), before + 1, "{vnet:?}");
    }
    assert_eq!(network.sent.len(), 0);
}

#[test]
fn a_batch_of_tiny_chunks_ends_at_the_bound_of_the_output() {
    let (mut network, port) = node(true);
    let (frame, vnet) = tcp_super_frame(host(1), host(2), &vec![0; 60_000], 32);
    let batch = vec![(&frame[..], vnet); 16];
    network.give(1, port, &batch);
    let totals = network.stats(1).totals;
    assert!(totals.drops(DropReason::OutputFull) > 0, "{totals:?}");
    assert_eq!(totals.drops(DropReason::BadOffload), 0, "the device did nothing wrong");
}

#[test]
fn an_ipv6_super_frame_is_recognised_too() {
    let (mut network, port) = node(true);
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(host(2).mac.0, host(1).mac.0)
        .ipv6([1; 16], [2; 16], 64)
        .tcp(1, 2, 3, 4)
        .write(&mut frame, &[8; 20_000])
        .unwrap();
    network.arrive(1, underlay(2), vxlan::PORT, &vxlan(vni(1), &frame));
    let received = network.received(1, port);
    assert_eq!(received[0].vnet.gso_type, overplane::wire::vnet::GSO_TCPV6);
    assert_eq!(usize::from(received[0].vnet.gso_size), MTU - 60);
}

#[test]
fn an_mtu_of_the_operators_choice_is_the_one_that_counts() {
    let mut network = Network::new(1);
    let port = network.add_segment(1, bridge_with(1, |segment| segment.mtu = Some(9000)), false);
    network.change(1, Change::AddFlood { segment: bridge_id(1), vtep: vtep(2) });
    network.send(1, port, &udp(host(1), host(2), &[0; 9000 - 28]));
    assert_eq!(network.sent.len(), 1);
    network.send(1, port, &udp(host(1), host(2), &[0; 9000 - 27]));
    assert_eq!(network.drops(1, DropReason::TooBig), 1);
}

/// The frame with an 802.1Q tag, and what its vnet header says then.
fn tagged(mut frame: Vec<u8>, vnet: VnetHeader) -> (Vec<u8>, VnetHeader) {
    frame.splice(12..12, [0x81, 0x00, 0x60, 0x07]);
    let (csum_start, hdr_len) = (vnet.csum_start + 4, vnet.hdr_len + 4);
    (frame, VnetHeader { csum_start, hdr_len, ..vnet })
}

/// A VLAN device on top of the TAP hands its super-frames over with their tag.
#[test]
fn every_chunk_of_a_tagged_super_frame_has_the_tag() {
    let payload: Vec<u8> = (0..30_000_u32).map(|n| (n * 7) as u8).collect();
    let super_frames = [
        tcp_super_frame(host(1), host(2), &payload, 1400),
        udp_super_frame(host(1), host(2), &payload, 1000),
    ];
    for (plain, vnet) in super_frames {
        let (mut network, port) = node(true);
        network.send_unfinished(1, port, &plain, vnet);
        let untagged: Vec<Vec<u8>> = network.sent.drain(..).map(|sent| sent.bytes).collect();
        assert_eq!(untagged.len(), payload.len().div_ceil(vnet.gso_size.into()));
        let (frame, vnet) = tagged(plain, vnet);
        assert_eq!(vnet.validate(frame.len()), Ok(()));
        network.send_unfinished(1, port, &frame, vnet);
        assert_eq!(network.sent.len(), untagged.len());
        for (tagged, mut plain) in network.sent.iter().zip(untagged) {
            plain.splice(8 + 12..8 + 12, [0x81, 0x00, 0x60, 0x07]);
            assert_eq!(tagged.bytes, plain);
            assert_eq!(checksum(&plain[8..]), L4Checksum::Correct);
        }
    }
}

/// A sender that answers an ECN echo says so in one chunk (RFC 3168 §6.1.2), for a kernel with `TUN_F_TSO_ECN` hands
/// the whole over.
#[test]
fn a_super_frame_with_cwr_says_so_once() {
    const CWR: u8 = 0x80;
    const FLAGS: usize = 14 + 20 + 13;
    let (mut network, port) = node(true);
    let payload = vec![4; 10_000];
    let (mut frame, vnet) = tcp_super_frame(host(1), host(2), &payload, 1400);
    frame[FLAGS] |= CWR;
    let vnet = VnetHeader { gso_type: vnet.gso_type | GSO_ECN, ..vnet };
    network.send_unfinished(1, port, &frame, vnet);
    let frames: Vec<Vec<u8>> = network.sent.iter().map(|sent| sent.bytes[8..].to_vec()).collect();
    assert_eq!(reassembled(&frames), payload);
    let with_cwr: Vec<bool> = frames.iter().map(|frame| frame[FLAGS] & CWR != 0).collect();
    assert!(with_cwr[0] && with_cwr[1..].iter().all(|cwr| !cwr), "{with_cwr:?}");

    // To a neighbour it goes as it is.
    let neighbour = network.add_port(1, bridge_id(1), true);
    let segment = bridge_id(1);
    let destination = neighbour.into();
    network.change(1, Change::InsertFdb { segment, mac: host(2).mac, destination });
    network.send_unfinished(1, port, &frame, vnet);
    let whole = network.received(1, neighbour);
    assert_eq!((whole.len(), whole[0].vnet, &whole[0].bytes), (1, vnet, &frame));
}
