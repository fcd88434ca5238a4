//! Outer headers, against the kernel's VXLAN device and as they are on the wire.

use std::net::IpAddr;
use std::time::Duration;

use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, PacketBuilder};
use overplane::wire::{FrameInfo, L4, ecn, vxlan};
use overplane::{Config, DropReason, Dscp, Offload, Offloads, Segment, Ttl, Vni};
use overplane_lab::{Namespace, Sniffer, privileged};

use crate::hosts::{Node, V4, V6, ip, underlay};
use crate::kernel_peer::kernel_end;

/// How long a frame may be under way.
const PATIENCE: Duration = Duration::from_secs(3);

/// An Ethernet frame with UDP.
fn frame(
    macs: [[u8; 6]; 2],
    ips: [IpAddr; 2],
    (tos, ttl): (u8, u8),
    ports: [u16; 2],
    payload: &[u8],
) -> Vec<u8> {
    let udp = etherparse::IpNumber::UDP;
    let headers = match ips {
        [IpAddr::V4(from), IpAddr::V4(to)] => {
            let (from, to) = (from.octets(), to.octets());
            let mut header = Ipv4Header::new(0, ttl, udp, from, to).unwrap();
            header.dscp = (tos >> 2).try_into().unwrap();
            header.ecn = (tos & 3).try_into().unwrap();
            IpHeaders::Ipv4(header, Default::default())
        }
        [IpAddr::V6(from), IpAddr::V6(to)] => {
            let header = Ipv6Header {
                traffic_class: tos,
                hop_limit: ttl,
                source: from.octets(),
                destination: to.octets(),
                ..Default::default()
            };
            IpHeaders::Ipv6(header, Default::default())
        }
        mixed => panic!("two families: {mixed:?}"),
    };
    let builder = PacketBuilder::ethernet2(macs[0], macs[1]).ip(headers).udp(ports[0], ports[1]);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// Length of a VXLAN datagram with 42 bytes in UDP over IPv4 inside.
const DATAGRAM: usize = 8 + 14 + 20 + 8 + 42;

/// Addresses inside that are nobody's: frames are looked at on devices, and no host answers.
fn inner_ips(v6: bool) -> [IpAddr; 2] {
    if v6 { ["fd77::1", "fd77::2"].map(ip) } else { ["10.77.0.1", "10.77.0.2"].map(ip) }
}

/// The TOS byte, the TTL, and the UDP payload of a frame.
fn read(frame: &[u8]) -> Option<(u8, u8, &[u8])> {
    let info = FrameInfo::parse(frame).filter(|info| info.l4 == L4::Udp)?;
    Some((info.tos(frame), info.ttl(frame), frame.get(usize::from(info.payload_offset)..)?))
}

/// What arrives on a device of the frames of a test, numbered in their payload, up to the last one.
fn collect(sniffer: &mut Sniffer, last: u8) -> Vec<(u8, u8)> {
    let mut found = Vec::new();
    let done = sniffer.find(PATIENCE, |frame| {
        let Some((tos, _, &[b'#', number, ..])) = read(frame) else { return false };
        found.push((number, tos & ecn::MASK));
        number == last
    });
    assert!(done.is_some(), "the last frame arrives: {found:?}");
    found
}

/// RFC 6040 §4.2: what is delivered of inner field `inner`, by outer field; the kernel has to agree.
fn delivered(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (0, 3) => None,
        (0, _) => Some(0),
        (_, 3) | (3, _) => Some(3),
        (2, 1) => Some(1),
        (inner, _) => Some(inner),
    }
}

/// Datagrams with all combinations of marks, the same ones to us and to the kernel.
#[test]
fn row_17_marks_are_merged_as_the_kernel_does() {
    if !privileged("row_17_marks_are_merged_as_the_kernel_does") {
        return;
    }
    for [a, b] in [V4, V6] {
        let hosts = underlay();
        let node = Node::vxlan(&hosts[0], a, b, &[]);
        // Joined frames would be seen as one.
        node.control.set_offloads(Offloads::ALL.without(Offload::CoalesceUdp));
        kernel_end(&hosts[1], b, a, 1400, true);
        let ends = [("ovl0", ip(a)), ("vx0", ip(b))];
        let mac = |host: &Namespace, link: &str| host.mac(link).unwrap();
        let underlay_macs = [mac(&hosts[0], "eth0"), mac(&hosts[1], "eth0")];
        for v6 in [false, true] {
            let mut seen = Vec::new();
            for to in [0, 1] {
                let from = 1 - to;
                let (link, address) = ends[to];
                let mut inside = Sniffer::incoming(&hosts[to], link).unwrap();
                let outside = Sniffer::open(&hosts[from], "eth0").unwrap();
                let inner_macs = [[2, 0, 0, 0, 0x77, from as u8], mac(&hosts[to], link)];
                for number in 0..=16 {
                    // The last one shows that all others are through.
                    let (inner, outer) =
                        if number < 16 { (number / 4, number % 4) } else { (0, 0) };
                    let payload = [&[b'#', number][..], &[0; 40]].concat();
                    let inner = frame(inner_macs, inner_ips(v6), (inner, 64), [7, 7], &payload);
                    let datagram = [&vxlan::encode(Vni::new(42).unwrap())[..], &inner].concat();
                    let macs = [underlay_macs[from], underlay_macs[to]];
                    let ips = [ends[from].1, address];
                    let marked = frame(macs, ips, (outer, 64), [50_000, 4789], &datagram);
                    outside.inject(&marked).unwrap();
                }
                seen.push(collect(&mut inside, 16));
            }
            let table = (0..16).filter_map(|n| Some((n, delivered(n / 4, n % 4)?)));
            let expected: Vec<(u8, u8)> = table.chain([(16, 0)]).collect();
            assert_eq!(seen[0], expected, "ours, over {a}, IPv6 inside: {v6}");
            assert_eq!(seen[1], expected, "the kernel's, over {a}, IPv6 inside: {v6}");
        }
        assert_eq!(node.control.stats().totals.drops(DropReason::CeOnNotEct), 2);
        node.finish();
    }
}

/// Datagrams of one length to one VTEP leave as a train, in which all have one outer header: bursts in which inner
/// headers differ have to be taken apart.
#[test]
fn row_17_each_datagram_of_a_burst_says_what_is_inside() {
    if !privileged("row_17_each_datagram_of_a_burst_says_what_is_inside") {
        return;
    }
    for [a, b] in [V4, V6] {
        let hosts = underlay();
        let mut segment = Segment::bridge(Vni::new(42).unwrap());
        (segment.outer.dscp, segment.outer.ttl) = (Dscp::Inherit, Ttl::Inherit);
        let node = Node::new(&hosts[0], Config::new(ip(a)), segment, &[]);
        node.control.add_flood(node.segment, std::net::SocketAddr::new(ip(b), 4789)).unwrap();
        let mut wire = Sniffer::incoming(&hosts[1], "eth0").unwrap();
        let device = Sniffer::open(&hosts[0], "ovl0").unwrap();
        // Runs of one header of all lengths from 1 on, of one flow, so that order holds.
        let headers = (0..20_u8).flat_map(|run| {
            let header = (run.wrapping_mul(37), 20 + run);
            std::iter::repeat_n(header, usize::from(run) + 1)
        });
        let headers: Vec<(u8, u8)> = headers.collect();
        let macs = [[2, 0, 0, 0, 0x77, 0], [2, 0, 0, 0, 0x77, 1]];
        for (number, header) in headers.iter().enumerate() {
            let payload = [&[b'#', number as u8][..], &[0; 40]].concat();
            device.inject(&frame(macs, inner_ips(false), *header, [7, 7], &payload)).unwrap();
        }
        let mut seen = Vec::new();
        let done = wire.find(PATIENCE, |datagram| {
            let Some((tos, ttl, payload)) = read(datagram) else { return false };
            // The kernel hands trains on whole over a virtual link.
            for one in payload.chunks(DATAGRAM) {
                if let Some((inner_tos, inner_ttl, &[b'#', ..])) = one.get(8..).and_then(read) {
                    assert_eq!((tos, ttl), (inner_tos, inner_ttl));
                    seen.push((tos, ttl));
                }
            }
            seen.len() == headers.len()
        });
        assert!(done.is_some(), "{} of {} arrive", seen.len(), headers.len());
        assert_eq!(seen, headers);
        node.finish();
    }
}
