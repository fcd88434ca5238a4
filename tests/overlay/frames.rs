//! Which frames pass: from the shortest to those above the MTU, tagged or not, joined or not, and whatever bytes come.

use overplane::wire::{VnetHeader, vxlan};
use overplane::{Change, DropReason};
use proptest::prelude::*;

use crate::network::Network;
use crate::packets::*;

const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

fn frame(to: Host, from: Host, ether_type: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&to.mac.0[..], &from.mac.0, &ether_type, payload].concat()
}

#[test]
fn row_04_a_frame_of_fourteen_bytes_passes_and_a_shorter_one_is_counted() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    let shortest = frame(EVERYBODY, host(1), EXPERIMENT, &[]);
    assert_eq!(shortest.len(), 14);
    network.send(1, ports[0], &shortest);
    assert_eq!(network.frames(2, ports[1]), [shortest.as_slice()]);
    for length in 0..14 {
        network.send(1, ports[0], &shortest[..length]);
        assert_eq!(network.drops(1, DropReason::Truncated), length as u64 + 1, "from a port");
        network.arrive(2, underlay(1), vxlan::PORT, &vxlan(vni(1), &shortest[..length]));
        assert_eq!(network.drops(2, DropReason::Truncated), length as u64 + 1, "from a VTEP");
    }
    assert_eq!(network.frames(2, ports[1]).len(), 0);
}

#[test]
fn row_04_a_frame_above_the_mtu_is_not_sent_and_is_counted() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    let of = |packet: usize| frame(EVERYBODY, host(1), EXPERIMENT, &vec![0; packet]);
    network.send(1, ports[0], &of(1450));
    assert_eq!((network.sent.len(), network.drops(1, DropReason::TooBig)), (1, 0));
    network.send(1, ports[0], &of(1451));
    assert_eq!((network.sent.len(), network.drops(1, DropReason::TooBig)), (1, 1));
}

/// A peer may have a larger MTU, and what has arrived is worth delivering.
#[test]
fn row_08_frames_as_large_as_the_peer_sends_them_are_delivered() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    for packet in [1450, 1451, 8950, 65_000] {
        let large = frame(EVERYBODY, host(1), EXPERIMENT, &vec![7; packet]);
        network.arrive(2, underlay(1), vxlan::PORT, &vxlan(vni(1), &large));
        assert_eq!(network.frames(2, ports[1]), [large], "{packet} bytes");
    }
}

/// One tag (802.1Q), two (802.1ad) and a priority tag: they are the hosts' business, and the MTU is what is behind them.
#[test]
fn row_08_vlan_tags_pass_as_they_are() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), true);
    for tags in [&[0x81, 0, 0x20, 5][..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5], &[0x81, 0, 0xe0, 0]] {
        let plain = udp(host(1), host(2), &[1; 1422]);
        let tagged = [&plain[..12], tags, &plain[12..]].concat();
        network.send(1, ports[0], &tagged);
        assert_eq!(network.frames(2, ports[1]), [tagged]);
        // The answer: unicast, to what was learned from the first.
        let back = udp(host(2), host(1), &[1; 1422]);
        let tagged = [&back[..12], tags, &back[12..]].concat();
        network.send(2, ports[1], &tagged);
        assert_eq!(network.frames(1, ports[0]), [tagged]);
    }
}

/// The check of a VTEP that compares the header's first word whole, as Open vSwitch does.
#[test]
fn row_23_the_header_passes_the_strictest_check() {
    let (mut network, ports) = Network::mesh(3, &bridge(0xab_cdef), true);
    let (whole, _) = unfinished(tcp(host(1), host(2), b"one"));
    network.send(1, ports[0], &udp(host(1), EVERYBODY, b"flooded"));
    network.send(1, ports[0], &whole);
    network.send(2, ports[1], &udp(host(2), EVERYBODY, b"here"));
    for (frame, vnet) in [
        tcp_super_frame(host(1), host(2), &[0; 20_000], 1400),
        udp_super_frame(host(1), EVERYBODY, &[0; 20_000], 1000),
    ] {
        network.send_unfinished(1, ports[0], &frame, vnet);
    }
    assert!(network.sent.len() > 40, "single datagrams and trains");
    for datagram in &network.sent {
        assert_eq!(datagram.bytes[..8], [0x08, 0, 0, 0, 0xab, 0xcd, 0xef, 0]);
    }
}

/// VPP sends from the port that it receives on, others from any: who sent it is the address, and answers go where the
/// peer receives.
#[test]
fn row_23_a_peers_source_port_means_nothing() {
    let (mut network, ports) = Network::mesh(2, &bridge(1), false);
    for (n, source) in (10..).zip([vxlan::PORT, 1, 32_768, 60_999, 65_535]) {
        let hello = udp(host(n), EVERYBODY, b"hello");
        network.arrive_from(1, (underlay(2), source).into(), vxlan::PORT, &vxlan(vni(1), &hello));
        assert_eq!(network.frames(1, ports[0]), [hello], "from port {source}");
        network.sent.clear();
        network.send(1, ports[0], &udp(host(1), host(n), b"answer"));
        assert_eq!(network.sent.iter().map(|sent| sent.to).collect::<Vec<_>>(), [vtep(2)]);
    }
    assert_eq!(network.stats(1).vteps.len(), 1);
}

/// Bytes that begin like a frame or a datagram more often than chance would have it.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let header = prop_oneof![
        Just(Vec::new()),
        Just(vxlan::encode(vni(1)).to_vec()),
        Just([&vxlan::encode(vni(1))[..], &udp(host(1), host(2), b"payload")].concat()),
        Just(udp(host(1), host(2), b"payload")),
        Just(tcp(host(3), EVERYBODY, b"payload")),
    ];
    let tail = prop::collection::vec(any::<u8>(), 0..200);
    (header, tail, any::<prop::sample::Index>(), any::<u8>()).prop_map(
        |(mut bytes, tail, at, to)| {
            bytes.extend(tail);
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = to;
                bytes.truncate(if to % 2 == 0 { bytes.len() } else { at + 1 });
            }
            bytes
        },
    )
}

fn any_vnet() -> impl Strategy<Value = VnetHeader> {
    let field = prop_oneof![Just(0), 0_u16..80, any::<u16>()];
    let types = prop_oneof![Just(0), 0_u8..8, any::<u8>()];
    (types.clone(), types, field.clone(), field.clone(), field.clone(), field).prop_map(
        |(flags, gso_type, hdr_len, gso_size, csum_start, csum_offset)| VnetHeader {
            flags,
            gso_type,
            hdr_len,
            gso_size,
            csum_start,
            csum_offset,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The network checks after every batch that each frame was forwarded, flooded or dropped for one reason.
    #[test]
    fn row_04_whatever_comes_has_one_fate(
        frames in prop::collection::vec((any_bytes(), any_vnet()), 1..20),
        offload in any::<bool>(),
    ) {
        let (mut network, ports) = Network::mesh(2, &bridge(1), offload);
        let segment = bridge_id(1);
        network.change(1, Change::InsertFdb { segment, mac: host(2).mac, destination: vtep(2).into() });
        for (bytes, vnet) in &frames {
            network.send_unfinished(1, ports[0], bytes, *vnet);
            network.arrive(1, underlay(2), vxlan::PORT, bytes);
        }
        prop_assert!(network.stats(1).totals.received >= 2 * frames.len() as u64);
    }

    /// A device that contradicts itself loses its frame and nothing else.
    #[test]
    fn row_21_a_bad_vnet_header_does_no_harm(
        headers in prop::collection::vec(any_vnet(), 1..20),
        large in any::<bool>(),
    ) {
        let (mut network, ports) = Network::mesh(2, &bridge(1), true);
        let payload = vec![0; if large { 9000 } else { 100 }];
        for vnet in headers {
            network.send_unfinished(1, ports[0], &tcp(host(1), host(2), &payload), vnet);
        }
        network.frames(2, ports[1]);
        network.send(1, ports[0], &udp(host(1), host(2), b"fine"));
        prop_assert_eq!(network.frames(2, ports[1]), [udp(host(1), host(2), b"fine")]);
    }
}
