//! Frames and packets as real hosts send them, and the names that tests give to things.
#![allow(dead_code, reason = "each test uses some of them")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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
