//! Every filter on every kind of frame, against what the documentation says of it, word by word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::fib::Prefix;
use crate::wire::MacAddr;

/// What a frame is made of.
#[derive(Clone, Debug)]
struct Made {
    captured: Captured,
    macs: Vec<MacAddr>,
    ips: Vec<IpAddr>,
}

fn mac() -> impl Strategy<Value = MacAddr> {
    (0..3_u8).prop_map(|n| MacAddr([2, 0, 0, 0, 0, n]))
}

fn v4() -> impl Strategy<Value = Ipv4Addr> {
    (0..3_u8, 0..3_u8).prop_map(|(a, b)| Ipv4Addr::new(10, 8, a, b))
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    (0..3_u16, 0..3_u16).prop_map(|(a, b)| Ipv6Addr::new(0xfd08, 0, 0, 0, 0, 0, a, b))
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![v4().prop_map(IpAddr::V4), v6().prop_map(IpAddr::V6)]
}

fn vni() -> impl Strategy<Value = Vni> {
    (0..3_u32).prop_map(|n| Vni::new(n).unwrap())
}

fn fate() -> impl Strategy<Value = Fate> {
    let drops = [DropReason::NoRoute, DropReason::PortDown, DropReason::TooBig];
    let all: Vec<_> = Fate::OTHERS.into_iter().chain(drops.map(Fate::Dropped)).collect();
    select(all)
}

fn point() -> impl Strategy<Value = CapturePoint> {
    let name = |n| CapturePoint::Port { id: PortId(n), name: format!("p{n}").into() };
    prop_oneof![(0..3_u32).prop_map(name), ip().prop_map(CapturePoint::Vtep)]
}

fn segment() -> impl Strategy<Value = SegmentId> {
    (4789..4791_u16, of(vni())).prop_map(|(udp_port, vni)| SegmentId { udp_port, vni })
}

/// An IP or ARP packet with its EtherType and addresses, or neither.
fn packet() -> impl Strategy<Value = ([u8; 2], Vec<u8>, Vec<IpAddr>)> {
    prop_oneof![
        (v4(), v4()).prop_map(|(from, to)| {
            let packet = [&[0x45; 12][..], &from.octets(), &to.octets()].concat();
            ([8, 0], packet, vec![from.into(), to.into()])
        }),
        (v6(), v6()).prop_map(|(from, to)| {
            let packet = [&[0x60; 8][..], &from.octets(), &to.octets()].concat();
            ([0x86, 0xdd], packet, vec![from.into(), to.into()])
        }),
        (v4(), v4()).prop_map(|(from, to)| {
            let packet = [&[0; 14][..], &from.octets(), &[0; 6], &to.octets()].concat();
            ([8, 6], packet, vec![from.into(), to.into()])
        }),
        vec(any::<u8>(), 0..60).prop_map(|bytes| ([0x88, 0xb5], bytes, Vec::new())),
    ]
}

fn frame() -> impl Strategy<Value = Made> {
    let layer = select(vec![Layer::Ethernet, Layer::Ip, Layer::Datagram]);
    let place = (point(), of(segment()), of(vni()), fate());
    (place, layer, (mac(), mac()), 0..3_usize, packet()).prop_map(
        |((at, segment, vni, fate), layer, (to, from), tags, (ethertype, packet, ips))| {
            let tag = [0x81, 0, 0, 7].repeat(tags);
            let framed = [&to.0[..], &from.0, &tag, &ethertype, &packet].concat();
            let (bytes, macs, ips) = match layer {
                Layer::Ethernet => (framed, vec![to, from], ips),
                // A TUN has neither ARP nor what is no packet.
                Layer::Ip if matches!(ethertype, [8, 0] | [0x86, 0xdd]) => (packet, vec![], ips),
                Layer::Ip => (Vec::new(), Vec::new(), Vec::new()),
                Layer::Datagram => (framed, Vec::new(), Vec::new()),
            };
            let (time, worker) = (Duration::ZERO, 0);
            let (len, bytes) = (bytes.len(), bytes.into());
            let captured = Captured { time, worker, at, segment, vni, fate, layer, len, bytes };
            Made { captured, macs, ips }
        },
    )
}

fn filter() -> impl Strategy<Value = CaptureFilter> {
    let net = (ip(), 0..=128_u8).prop_map(|(ip, len)| {
        Prefix::new(ip, if ip.is_ipv4() { len.min(32) } else { len }).unwrap()
    });
    let port = (0..3_u32).prop_map(|n| format!("p{n}"));
    let fate = prop_oneof![fate().prop_map(FateFilter::Is), Just(FateFilter::Dropped)];
    // Mostly little is set, so that something passes.
    let rarely = || proptest::bool::weighted(0.25);
    let which = (rarely(), rarely(), rarely(), rarely(), rarely(), rarely(), rarely());
    let all = (mac(), net, vni(), 4789..4791_u16, port, ip(), fate);
    (which, all).prop_map(|(which, (mac, net, vni, udp_port, port, vtep, fate))| CaptureFilter {
        mac: which.0.then_some(mac),
        net: which.1.then_some(net),
        vni: which.2.then_some(vni),
        udp_port: which.3.then_some(udp_port),
        port: which.4.then_some(port),
        vtep: which.5.then_some(vtep),
        fate: which.6.then_some(fate),
    })
}

/// The table of [`CaptureFilter`], by the text of the filter and what the frame was made of.
fn says(filter: &CaptureFilter, made: &Made) -> bool {
    let Made { captured, macs, ips } = made;
    filter.to_string().split(',').filter(|word| !word.is_empty()).all(|word| {
        let (key, value) = word.split_once('=').unwrap();
        match key {
            "mac" => macs.iter().any(|mac| mac.to_string() == value),
            "net" => ips.iter().any(|ip| {
                let net: Prefix = value.parse().unwrap();
                Prefix::new(*ip, net.len()).is_some_and(|own| own.to_string() == value)
            }),
            "vni" => {
                let of_segment = captured.segment.and_then(|segment| segment.vni);
                [of_segment, captured.vni].iter().flatten().any(|vni| vni.to_string() == value)
            }
            "udp_port" => {
                captured.segment.is_some_and(|segment| segment.udp_port.to_string() == value)
            }
            "port" => matches!(&captured.at, CapturePoint::Port { name, .. } if **name == *value),
            "vtep" => matches!(&captured.at, CapturePoint::Vtep(ip) if ip.to_string() == value),
            "fate" if value == "dropped" => matches!(captured.fate, Fate::Dropped(_)),
            "fate" => captured.fate.name() == value,
            _ => unreachable!("{word}"),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_filter_lets_through_what_its_text_says(filter in filter(), frame in frame()) {
        prop_assert_eq!(filter.matches(&frame.captured), says(&filter, &frame));
    }

    #[test]
    fn no_bytes_make_a_filter_fail(filter in filter(), mut frame in frame(), bytes in vec(any::<u8>(), 0..80)) {
        frame.captured.bytes = bytes.into();
        let _ = filter.matches(&frame.captured);
    }
}
