//! What underlay sockets send from and accept: source ports, checksums, fragments.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use etherparse::PacketBuilder;
use overplane::wire::{FrameInfo, L3, L4, ip as header};
use overplane::{Config, DontFragment, DropReason, Offload, Offloads, Segment, Vni};
use overplane_lab::{Namespace, Sniffer, Transfer, Vxlan, ping_ok, privileged, tcp_transfer};

use crate::hosts::{
    INNER_V4, INNER_V6, Node, V4, V6, configure, eventually, inner_addresses, ip, underlay,
};

/// How long a frame may be under way.
const PATIENCE: Duration = Duration::from_secs(3);

/// Hosts inside, of which there is nobody.
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0x77, 0], [2, 0, 0, 0, 0x77, 1]];

fn segment() -> Segment {
    Segment::bridge(Vni::new(42).unwrap())
}

/// A node in `host` that floods to `peer`, each datagram by itself.
fn node(host: &Namespace, config: Config, segment: Segment, peer: &str) -> Node {
    let node = Node::new(host, config, segment, &[]);
    node.control.set_offloads(Offloads::ALL.without(Offload::UdpGso));
    node.control.add_flood(node.segment, SocketAddr::new(ip(peer), 4789)).unwrap();
    node
}

/// An Ethernet frame with UDP over IPv4 between nobodies.
fn udp(ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(MACS[0], MACS[1])
        .ipv4([10, 77, 0, 1], [10, 77, 0, 2], 64)
        .udp(ports[0], ports[1])
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// A frame with other flags and fragment offset (RFC 791 §3.1).
fn flagged(mut frame: Vec<u8>, flags: u16) -> Vec<u8> {
    frame[20..22].copy_from_slice(&flags.to_be_bytes());
    let check = header::v4_header_checksum(&frame[14..]);
    frame[24..26].copy_from_slice(&check.to_be_bytes());
    frame
}

/// A frame without IP, from a host of its own.
fn opaque(host: u8) -> Vec<u8> {
    let from = [2, 0, 0, 0, 0x78, host];
    [&MACS[1][..], &from, &[0x88, 0xb5], &[0; 46]].concat()
}

/// The outer source port and the frame inside of a VXLAN datagram.
fn unwrap(frame: &[u8]) -> Option<(u16, &[u8])> {
    let info = FrameInfo::parse(frame).filter(|info| info.l4 == L4::Udp)?;
    let (l4, payload) = (usize::from(info.l4_offset), usize::from(info.payload_offset));
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    (port(l4 + 2) == 4789).then(|| (port(l4), &frame[payload + 8..]))
}

#[test]
fn row_06_source_ports_are_of_the_range_and_follow_the_flow() {
    if !privileged("row_06_source_ports_are_of_the_range_and_follow_the_flow") {
        return;
    }
    for [a, b] in [V4, V6] {
        // A range of its own, and the host's.
        for own in [Some(50_100..=50_104), None] {
            let hosts = underlay();
            hosts[0].sysctl("net/ipv4/ip_local_port_range", "41000 41020").unwrap();
            // Taken ports are passed over.
            let taken = SocketAddr::new(ip(a), 50_102);
            let _taken = hosts[0].run(|| std::net::UdpSocket::bind(taken)).unwrap();
            let mut config = Config::new(ip(a));
            config.source_port_range = own.clone();
            let node = node(&hosts[0], config, segment(), b);
            let mut wire = Sniffer::incoming(&hosts[1], "eth0").unwrap();
            let device = Sniffer::open(&hosts[0], "ovl0").unwrap();
            // By flow: the frames of one have to leave from one port.
            let mut flows: Vec<Vec<Vec<u8>>> = Vec::new();
            for port in 1..40 {
                flows.push((1..4).map(|len| udp([port, 7], &vec![1; len * 20])).collect());
            }
            for host in 0..20 {
                flows.push(vec![opaque(host), opaque(host)]);
            }
            // Only the first fragment has ports: none may count.
            let fragments = (1..20).map(|port| {
                let flags = if port % 2 == 0 { 0x2000 } else { 8 };
                flagged(udp([port, 7], &[0; 32]), flags)
            });
            flows.push(fragments.collect());
            let mut ports: BTreeMap<usize, BTreeSet<u16>> = BTreeMap::new();
            for (number, flow) in flows.iter().enumerate() {
                // One flow at a time: a burst of all of them is more than a neighbour that is
                // not resolved yet, or the sniffer's socket, has to hold.
                let mut expected: BTreeSet<&[u8]> = flow.iter().map(Vec::as_slice).collect();
                for frame in flow {
                    device.inject(frame).unwrap();
                }
                let done = wire.find(PATIENCE, |datagram| {
                    let Some((port, inner)) = unwrap(datagram) else { return false };
                    if expected.remove(inner) {
                        ports.entry(number).or_default().insert(port);
                    }
                    expected.is_empty()
                });
                assert!(done.is_some(), "{} frames of flow {number} do not arrive", expected.len());
            }
            assert!(ports.values().all(|ports| ports.len() == 1), "one port a flow: {ports:?}");
            for (what, range) in [("ports", 0..39), ("hosts", 39..59)] {
                let used: BTreeSet<u16> =
                    ports.range(range).flat_map(|(_, p)| p).copied().collect();
                assert!(used.len() > 1, "flows spread by {what}: {used:?}");
                let allowed = own.clone().unwrap_or(41_000..=41_020);
                assert!(used.iter().all(|port| allowed.contains(port) && *port != 50_102));
            }
            node.finish();
        }
    }
}

#[test]
fn row_06_a_range_without_free_ports_is_refused() {
    if !privileged("row_06_a_range_without_free_ports_is_refused") {
        return;
    }
    let hosts = underlay();
    let mut config = Config::new(ip(V4[0]));
    config.source_port_range = Some(50_100..=50_103);
    let start = || hosts[0].run(|| overplane::Dataplane::start(config.clone()));
    let first = start().unwrap();
    let error = start().unwrap_err();
    assert!(error.to_string().contains("50"), "{error}");
    first.stop().unwrap();
}

/// The outer UDP checksum fields of the VXLAN datagrams that a sniffer saw, by sender.
fn checksums(wire: &mut Sniffer, from: &str) -> BTreeSet<bool> {
    let frames = wire.drain();
    let seen = frames.iter().filter_map(|frame| {
        let (_, _) = unwrap(frame)?;
        let info = FrameInfo::parse(frame)?;
        let check = usize::from(info.l4_offset) + 6;
        (info.addresses(frame)?.0 == ip(from)).then(|| frame[check..check + 2] != [0, 0])
    });
    seen.collect()
}

/// All four combinations of who sends checksums, over both families, with everything else as ever.
#[test]
fn row_07_outer_checksums_are_as_asked_beside_the_kernel() {
    if !privileged("row_07_outer_checksums_are_as_asked_beside_the_kernel") {
        return;
    }
    for [a, b] in [V4, V6] {
        for (ours, kernels) in [(true, true), (false, true), (true, false), (false, false)] {
            let hosts = underlay();
            let mut config = Config::new(ip(a));
            (config.zero_checksums.send_v4, config.zero_checksums.send_v6) = (!ours, !ours);
            config.zero_checksums.accept_v6 = true;
            let node = Node::new(&hosts[0], config, segment(), &inner_addresses(0));
            node.control.add_flood(node.segment, SocketAddr::new(ip(b), 4789)).unwrap();
            let vxlan = Vxlan {
                remotes: &[ip(a)],
                send_checksums: kernels,
                accept_unchecked: true,
                ..Vxlan::new("vx0", 42, ip(b))
            };
            hosts[1].add_vxlan(&vxlan).unwrap();
            configure(&hosts[1], "vx0", 1430, &inner_addresses(1));
            let mut wire = Sniffer::open(&hosts[1], "eth0").unwrap();
            for inner in [INNER_V4, INNER_V6] {
                for payload in [10, 3000] {
                    assert!(ping_ok(&hosts[0], ip(inner[1]), payload), "{ours} {kernels} over {a}");
                }
                for (from, to) in [(0, 1), (1, 0)] {
                    let server = SocketAddr::new(ip(inner[to]), 0);
                    let size = Transfer::of_bytes(1 << 20);
                    tcp_transfer(&hosts[from], &hosts[to], server, size).unwrap();
                }
            }
            assert_eq!(checksums(&mut wire, a), BTreeSet::from([ours]), "ours over {a}");
            drop(wire);
            // Nobody is blamed for trains that are not there.
            let gso = &node.control.offloads()[Offload::UdpGso as usize];
            assert_eq!(gso.failures, 0, "{gso:?}");
            node.finish();
        }
    }
}

/// As Linux's device without `udp6zerocsumrx`: the kernel drops such datagrams before they get here.
#[test]
fn row_07_ipv6_datagrams_without_checksum_are_not_heard_unless_asked_for() {
    if !privileged("row_07_ipv6_datagrams_without_checksum_are_not_heard_unless_asked_for") {
        return;
    }
    for accept in [false, true] {
        let hosts = underlay();
        let mut config = Config::new(ip(V6[0]));
        config.zero_checksums.accept_v6 = accept;
        let node = node(&hosts[0], config, segment(), V6[1]);
        let vxlan = Vxlan {
            remotes: &[ip(V6[0])],
            send_checksums: false,
            ..Vxlan::new("vx0", 42, ip(V6[1]))
        };
        hosts[1].add_vxlan(&vxlan).unwrap();
        configure(&hosts[1], "vx0", 1430, &[]);
        let before = hosts[0].checksum_errors().unwrap();
        let device = Sniffer::open(&hosts[1], "vx0").unwrap();
        device.inject(&opaque(1)).unwrap();
        eventually(3, "the datagram is taken or refused", || {
            let received = node.control.stats().vteps[0].traffic.received_packets > 0;
            let refused = hosts[0].checksum_errors().unwrap() > before;
            assert!(if accept { !refused } else { !received });
            received || refused
        });
        node.finish();
    }
}

/// Frames that say different things of fragmentation, and whether `df inherit` sets DF for them, as Linux does (kernel
/// `drivers/net/vxlan/vxlan_core.c`, `vxlan_xmit_one`).
fn frames_by_df() -> [(Vec<u8>, bool); 4] {
    let may = flagged(udp([1, 7], &[1; 40]), 0);
    let must_not = flagged(udp([2, 7], &[2; 40]), 0x4000);
    let mut v6 = Vec::new();
    PacketBuilder::ethernet2(MACS[0], MACS[1])
        .ipv6([0xfd; 16], [0xfe; 16], 64)
        .udp(3, 7)
        .write(&mut v6, &[3; 40])
        .unwrap();
    [(may, false), (must_not, true), (v6, true), (opaque(1), false)]
}

#[test]
fn row_18_df_is_set_unset_or_inherited() {
    if !privileged("row_18_df_is_set_unset_or_inherited") {
        return;
    }
    for mode in [DontFragment::Set, DontFragment::Unset, DontFragment::Inherit] {
        // With source ports of their own, and from the segment's, where one socket does both.
        for source_ports in [4, 0] {
            let hosts = underlay();
            let mut config = Config::new(ip(V4[0]));
            (config.dont_fragment, config.source_ports) = (mode, source_ports);
            let node = node(&hosts[0], config, segment(), V4[1]);
            let mut wire = Sniffer::incoming(&hosts[1], "eth0").unwrap();
            let device = Sniffer::open(&hosts[0], "ovl0").unwrap();
            let mut expected = BTreeMap::new();
            for (frame, inherits) in frames_by_df() {
                device.inject(&frame).unwrap();
                device.inject(&frame).unwrap();
                let df = match mode {
                    DontFragment::Set => true,
                    DontFragment::Unset => false,
                    DontFragment::Inherit => inherits,
                };
                expected.insert(frame, df);
            }
            let done = wire.find(PATIENCE, |datagram| {
                let Some((_, inner)) = unwrap(datagram) else { return false };
                if let Some(df) = expected.remove(inner) {
                    assert_eq!(datagram[20] & 0x40 != 0, df, "{mode:?}, {inner:?}");
                }
                expected.is_empty()
            });
            assert!(done.is_some(), "{mode:?}: {} frames do not arrive", expected.len());
            node.finish();
        }
    }
}

/// Whether a frame is a fragment of IP.
fn is_fragment(frame: &[u8]) -> bool {
    FrameInfo::parse(frame).is_some_and(|info| match info.l3 {
        L3::Ipv4 => frame[20] & 0x3f != 0 || frame[21] != 0,
        L3::Ipv6 => frame[20] == header::PROTO_FRAGMENT,
        L3::Other => false,
    })
}

/// A node whose segment is wider than the underlay allows.
fn wide_node(host: &Namespace, mode: DontFragment, [local, peer]: [&str; 2]) -> Node {
    let mut config = Config::new(ip(local));
    config.dont_fragment = mode;
    let mut wide = segment();
    wide.mtu = Some(1500);
    node(host, config, wide, peer)
}

#[test]
fn row_28_datagrams_are_not_fragmented_and_fragments_are_heard() {
    if !privileged("row_28_datagrams_are_not_fragmented_and_fragments_are_heard") {
        return;
    }
    for [a, b] in [V4, V6] {
        for mode in [DontFragment::Set, DontFragment::Unset] {
            let hosts = underlay();
            let node = wide_node(&hosts[0], mode, [a, b]);
            // The kernel's device fragments over IPv4 alone.
            let (other, link) = if ip(b).is_ipv4() {
                let vxlan = Vxlan { remotes: &[ip(a)], ..Vxlan::new("vx0", 42, ip(b)) };
                hosts[1].add_vxlan(&vxlan).unwrap();
                configure(&hosts[1], "vx0", 1500, &[]);
                (None, "vx0")
            } else {
                (Some(wide_node(&hosts[1], DontFragment::Unset, [b, a])), "ovl0")
            };
            let mut here = Sniffer::open(&hosts[0], "ovl0").unwrap();
            let mut there = Sniffer::open(&hosts[1], link).unwrap();
            let mut wire = Sniffer::open(&hosts[1], "eth0").unwrap();
            let mut fragments = || wire.drain().iter().any(|frame| is_fragment(frame));
            // The kernel tells senders that set DF instead of fragmenting.
            let large = flagged(udp([9, 9], &[9; 1472]), 0);
            assert_eq!(large.len(), 1514);

            there.inject(&large).unwrap();
            assert!(here.find(PATIENCE, |frame| frame == large).is_some(), "over {a}");
            assert!(fragments(), "it came in fragments");

            // From here. A small one shows that the large one is through, or will never be.
            let small = udp([9, 9], &[8; 40]);
            here.inject(&large).unwrap();
            here.inject(&small).unwrap();
            let mut whole = false;
            let done = there.find(PATIENCE, |frame| {
                whole |= frame == large;
                frame == small
            });
            assert!(done.is_some());
            // By the kernel, or for what it says of the route.
            let totals = node.control.stats().totals;
            let refused = [DropReason::UnderlayTooBig, DropReason::TooBig];
            let refused: u64 = refused.iter().map(|reason| totals.drops(*reason)).sum();
            match mode {
                DontFragment::Set => assert_eq!((whole, fragments(), refused), (false, false, 1)),
                _ => assert_eq!((whole, fragments(), refused), (true, true, 0)),
            }
            node.finish();
            if let Some(other) = other {
                other.finish();
            }
        }
    }
}
