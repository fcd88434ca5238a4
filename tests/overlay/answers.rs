//! Reading ICMP errors, and counting them.

use std::net::IpAddr;
use std::time::Duration;

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
use overplane::PortId;

use crate::network::Network;

/// Checks how often a port of node 1 is told of what is wrong with this frame or packet.
pub(crate) fn assert_limited_in_rate(network: &mut Network, port: PortId, sent: &[u8]) {
    let burst = |network: &mut Network| {
        for _ in 0..200 {
            network.send(1, port, sent);
        }
        network.frames(1, port).len()
    };
    assert_eq!(burst(network), 50);
    assert_eq!(network.stats(1).totals.answers_withheld, 150);
    network.now += Duration::from_millis(100);
    assert_eq!(burst(network), 10, "a hundred a second");
}

/// The answer to a packet, checked to be an IP packet from `from` to `to` with correct checksums.
pub(crate) fn answer(packet: &[u8], from: &str, to: &str) -> TransportOf {
    let parsed = SlicedPacket::from_ip(packet).unwrap();
    let (source, destination): (IpAddr, IpAddr) = match parsed.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            (header.source.into(), header.destination.into())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!((source, destination), (from.parse().unwrap(), to.parse().unwrap()));
    match parsed.transport.unwrap() {
        TransportSlice::Icmpv4(icmp) => {
            let header = icmp.header();
            assert_eq!(header.checksum, header.icmp_type.calc_checksum(icmp.payload()));
            TransportOf::V4(icmp.icmp_type(), icmp.payload().to_vec())
        }
        TransportSlice::Icmpv6(icmp) => {
            let (IpAddr::V6(source), IpAddr::V6(destination)) = (source, destination) else {
                panic!("ICMPv6 over IPv4")
            };
            let checksum = icmp
                .icmp_type()
                .calc_checksum(source.octets(), destination.octets(), icmp.payload())
                .unwrap();
            assert_eq!(icmp.checksum(), checksum);
            TransportOf::V6(icmp.icmp_type(), icmp.payload().to_vec())
        }
        other => panic!("{other:?}"),
    }
}

/// An ICMP error and what it quotes.
#[derive(Debug, PartialEq)]
pub(crate) enum TransportOf {
    V4(Icmpv4Type, Vec<u8>),
    V6(Icmpv6Type, Vec<u8>),
}
