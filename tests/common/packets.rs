//! Frames and packets as real hosts send them, and the names that tests give to things.
#![allow(dead_code, reason = "each test uses some of them")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::PacketBuilder;
use overplane::wire::vnet::{GSO_TCPV4, GSO_UDP_L4, NEEDS_CSUM};
use overplane::wire::{FrameInfo, VnetHeader, l4, vxlan};
use overplane::{MacAddr, PortOptions, Segment, SegmentId, Vni};

/// A host on an overlay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    pub(crate) mac: MacAddr,
    pub(crate) ip: Ipv4Addr,
}

/// Host number `n`.
pub(crate) const fn host(n: u8) -> Host {
    Host { mac: MacAddr([2, 0, 0, 0, 0, n]), ip: Ipv4Addr::new(10, 0, 0, n) }
}

/// Everybody on the segment.
pub(crate) const EVERYBODY: Host =
    Host { mac: MacAddr::BROADCAST, ip: Ipv4Addr::new(255, 255, 255, 255) };

/// Underlay address of node number `n`.
pub(crate) fn underlay(n: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, n).into()
}

/// The VTEP of node number `n` for bridge segments.
pub(crate) fn vtep(n: u8) -> SocketAddr {
    SocketAddr::new(underlay(n), vxlan::PORT)
}

pub(crate) fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}

pub(crate) fn bridge(n: u32) -> Segment {
    Segment::bridge(vni(n))
}

/// Bridge segment `n` with something changed.
pub(crate) fn bridge_with(n: u32, change: impl FnOnce(&mut Segment)) -> Segment {
    let mut segment = bridge(n);
    change(&mut segment);
    segment
}

/// Options of a port with something changed.
pub(crate) fn port_options(change: impl FnOnce(&mut PortOptions)) -> PortOptions {
    let mut options = PortOptions::default();
    change(&mut options);
    options
}

pub(crate) fn bridge_id(n: u32) -> SegmentId {
    bridge(n).id()
}

/// An Ethernet frame with UDP over IPv4.
pub(crate) fn udp(from: Host, to: Host, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.mac.0, to.mac.0)
        .ipv4(from.ip.octets(), to.ip.octets(), 64)
        .udp(5000, 6000)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// An Ethernet frame with TCP over IPv4.
pub(crate) fn tcp(from: Host, to: Host, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.mac.0, to.mac.0)
        .ipv4(from.ip.octets(), to.ip.octets(), 64)
        .tcp(5000, 6000, 1000, 4096)
        .ack(1)
        .psh()
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// A bare IP packet with UDP, of whichever family the addresses are.
pub(crate) fn ip_udp(from: &str, to: &str, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), ttl),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), ttl),
        mixed => panic!("two families: {mixed:?}"),
    };
    builder.udp(5000, 6000).write(&mut packet, payload).unwrap();
    packet
}

/// The frame with its L4 checksum left for somebody else to finish, and the vnet header that says so.
pub(crate) fn unfinished(mut frame: Vec<u8>) -> (Vec<u8>, VnetHeader) {
    let info = FrameInfo::parse(&frame).unwrap();
    assert!(l4::set_partial(&mut frame, &info));
    let offset = l4::checksum_offset(info.l4).unwrap();
    (frame, VnetHeader::partial(info.l4_offset, offset))
}

/// A TCP super-frame as a device hands it over, to be cut into chunks of `size` bytes.
pub(crate) fn tcp_super_frame(
    from: Host,
    to: Host,
    payload: &[u8],
    size: u16,
) -> (Vec<u8>, VnetHeader) {
    super_frame(tcp(from, to, payload), GSO_TCPV4, size)
}

/// A UDP super-frame: datagrams of `size` bytes each.
pub(crate) fn udp_super_frame(
    from: Host,
    to: Host,
    payload: &[u8],
    size: u16,
) -> (Vec<u8>, VnetHeader) {
    super_frame(udp(from, to, payload), GSO_UDP_L4, size)
}

fn super_frame(frame: Vec<u8>, gso_type: u8, gso_size: u16) -> (Vec<u8>, VnetHeader) {
    let hdr_len = FrameInfo::parse(&frame).unwrap().payload_offset;
    let (frame, partial) = unfinished(frame);
    (frame, VnetHeader { flags: NEEDS_CSUM, gso_type, hdr_len, gso_size, ..partial })
}

/// A datagram of a bridge segment.
pub(crate) fn vxlan(vni: Vni, frame: &[u8]) -> Vec<u8> {
    [&vxlan::encode(vni)[..], frame].concat()
}

/// An ARP request for everybody: `from` asks who has `target`.
pub(crate) fn arp_request(from: Host, target: Ipv4Addr) -> Vec<u8> {
    arp((MacAddr::BROADCAST, from.mac), 1, from.ip, (MacAddr::ZERO, target))
}

/// An ARP reply: `ip` is at `mac`.
pub(crate) fn arp_reply(mac: MacAddr, ip: Ipv4Addr, to: MacAddr, asker: Ipv4Addr) -> Vec<u8> {
    arp((to, mac), 2, ip, (to, asker))
}

fn arp(
    (to, from): (MacAddr, MacAddr),
    operation: u8,
    sender: Ipv4Addr,
    (mac, target): (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    let parts: [&[u8]; 8] = [
        &to.0,
        &from.0,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation],
        &from.0,
        &sender.octets(),
        &mac.0,
        &target.octets(),
        &[],
    ];
    parts.concat()
}

/// A neighbour solicitation for the group of `target`; a probe, if `from` is unspecified.
pub(crate) fn solicitation(mac: MacAddr, from: IpAddr, target: IpAddr) -> Vec<u8> {
    let (IpAddr::V6(source), IpAddr::V6(target)) = (from, target) else { panic!("IPv4") };
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let option = [&[1, 1][..], &mac.0].concat();
    let option = if source.is_unspecified() { &[] } else { &option[..] };
    let message = [&[0; 4], &target.octets()[..], option].concat();
    nd((MacAddr([0x33, 0x33, 0xff, a, b, c]), mac), 135, (source, group), &message)
}

/// A neighbour advertisement for everybody: `ip` is at `mac`.
pub(crate) fn advertisement(mac: MacAddr, ip: IpAddr, router: bool) -> Vec<u8> {
    let IpAddr::V6(ip) = ip else { panic!("IPv4") };
    let flags = if router { 0xa0 } else { 0x20 };
    let message = [&[flags, 0, 0, 0], &ip.octets()[..], &[2, 1], &mac.0].concat();
    let all = (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), MacAddr([0x33, 0x33, 0, 0, 0, 1]));
    nd((all.1, mac), 136, (ip, all.0), &message)
}

fn nd(
    (to, from): (MacAddr, MacAddr),
    kind: u8,
    (source, destination): (Ipv6Addr, Ipv6Addr),
    message: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::new();
    let rest = [message[0], message[1], message[2], message[3]];
    PacketBuilder::ethernet2(from.0, to.0)
        .ipv6(source.octets(), destination.octets(), 255)
        .icmpv6_raw(kind, 0, rest)
        .write(&mut frame, &message[4..])
        .unwrap();
    frame
}
