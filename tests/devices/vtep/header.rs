//! The VXLAN header, to and from the kernel's device.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use etherparse::PacketBuilder;
use overplane::wire::{FrameInfo, GroupPolicy};
use overplane::{
    ChannelPort, Config, Dataplane, Device, DeviceKind, DropReason, MacAddr, Metadata, Segment, Vni,
};
use overplane_lab::{MarkedSocket, Namespace, Sniffer, Vxlan, privileged};

use crate::hosts::{V4, configure, ip, settle, underlay};

const PATIENCE: Duration = Duration::from_secs(5);

/// The host that the test is itself, and the kernel's.
const HERE: ([u8; 6], [u8; 4]) = ([2, 0, 0, 0, 0, 1], [10, 8, 0, 1]);
const THERE: [u8; 4] = [10, 8, 0, 2];

/// Bytes of the underlay's headers in front of a VXLAN header.
const OUTER: usize = 14 + 20 + 8;

fn udp_to(mac: [u8; 6], port: u16, payload: &[u8]) -> Bytes {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(HERE.0, mac).ipv4(HERE.1, THERE, 64).udp(6000, port);
    builder.write(&mut frame, payload).unwrap();
    frame.into()
}

/// Whether a frame of the underlay is a VXLAN datagram that ends with `payload`.
fn carries(frame: &[u8], payload: &[u8]) -> bool {
    FrameInfo::parse(frame).is_some_and(|info| info.l4 == overplane::wire::L4::Udp)
        && frame.len() > OUTER + 8
        && frame.ends_with(payload)
}

/// The next frame for this host that ends with `payload`.
fn receive(port: &ChannelPort, payload: &[u8]) -> Metadata {
    for _ in 0..100 {
        let (frame, metadata) = port.receive_timeout_with(PATIENCE).expect("a frame");
        if frame.ends_with(payload) {
            return metadata;
        }
    }
    panic!("a hundred other frames");
}

/// A dataplane with a channel in the first host, and a kernel device with or without `gbp` in the second.
fn set_up(gbp: bool) -> ([Namespace; 2], Dataplane, ChannelPort) {
    let hosts = underlay();
    let dataplane = hosts[0].run(|| Dataplane::start(Config::new(ip(V4[0])))).unwrap();
    let control = dataplane.control();
    let mut segment = Segment::bridge(Vni::new(42).unwrap());
    segment.header.gbp = gbp;
    let id = control.add_segment(segment).unwrap();
    let (device, port) = Device::channel(DeviceKind::Tap, 256).unwrap();
    control.attach(id, device).unwrap();
    control.add_flood(id, SocketAddr::new(ip(V4[1]), 4789)).unwrap();
    let remotes = [ip(V4[0])];
    let kernel = Vxlan { remotes: &remotes, gbp, ..Vxlan::new("vx0", 42, ip(V4[1])) };
    hosts[1].add_vxlan(&kernel).unwrap();
    configure(&hosts[1], "vx0", 1450, &["10.8.0.2/24".into()]);
    hosts[1].add_neighbour("vx0", HERE.1.into(), HERE.0).unwrap();
    (hosts, dataplane, port)
}

fn finish(dataplane: Dataplane) {
    let control = dataplane.control();
    settle(&control);
    dataplane.stop().unwrap();
    assert!(control.stats().totals.is_conserved(), "{}", control.stats());
}

#[test]
fn row_01_the_header_on_the_wire_is_the_kernels_own() {
    if !privileged("row_01_the_header_on_the_wire_is_the_kernels_own") {
        return;
    }
    let (hosts, dataplane, port) = set_up(false);
    let mut wire = Sniffer::open(&hosts[1], "eth0").unwrap();
    let mac = hosts[1].mac("vx0").unwrap();
    let there =
        MarkedSocket::bind(&hosts[1], "10.8.0.2:7000".parse().unwrap(), 0, PATIENCE).unwrap();
    port.send(udp_to(mac, 7000, b"from here")).unwrap();
    assert_eq!(there.receive().unwrap().0, b"from here");
    there.send_to(b"from there", "10.8.0.1:7000".parse().unwrap()).unwrap();
    receive(&port, b"from there");
    let mut header = |payload: &[u8]| {
        let frame = wire.find(PATIENCE, |frame| carries(frame, payload)).expect(" a datagram");
        frame[OUTER..OUTER + 8].to_vec()
    };
    assert_eq!(header(b"from here"), [8, 0, 0, 0, 0, 0, 42, 0]);
    assert_eq!(header(b"from there"), [8, 0, 0, 0, 0, 0, 42, 0]);
    finish(dataplane);
}

/// The kernel shows the group policy as the mark of its packets.
#[test]
fn row_24_a_group_policy_is_the_kernels_mark_and_back() {
    if !privileged("row_24_a_group_policy_is_the_kernels_mark_and_back") {
        return;
    }
    let (hosts, dataplane, port) = set_up(true);
    let mac = hosts[1].mac("vx0").unwrap();
    let marked = |port: u16, mark| {
        let address = SocketAddr::from((THERE, port));
        MarkedSocket::bind(&hosts[1], address, mark, PATIENCE).unwrap()
    };
    // Identifier, D and A as they are in a mark (kernel `include/net/vxlan.h`).
    let policies = [
        (GroupPolicy::new(0x1234), 0x1234),
        (GroupPolicy { applied: true, ..GroupPolicy::new(0xffff) }, 0x8_ffff),
        (GroupPolicy { dont_learn: true, ..GroupPolicy::new(1) }, 0x40_0001),
    ];
    for (n, (policy, mark)) in policies.into_iter().enumerate() {
        let there = marked(7000 + n as u16, mark);
        let mut metadata = Metadata::default();
        metadata.policy = Some(policy);
        port.send_with(udp_to(mac, 7000 + n as u16, b"policy"), metadata).unwrap();
        assert_eq!(there.receive().unwrap(), (b"policy".to_vec(), mark));
        let content = format!("marked {mark:#x}");
        there.send_to(content.as_bytes(), SocketAddr::from((HERE.1, 7000))).unwrap();
        assert_eq!(receive(&port, content.as_bytes()).policy, Some(policy));
    }
    // Without a mark there is no policy, and a frame without one has no mark.
    let there = marked(7100, 0);
    port.send(udp_to(mac, 7100, b"plain")).unwrap();
    assert_eq!(there.receive().unwrap(), (b"plain".to_vec(), 0));
    there.send_to(b"unmarked", SocketAddr::from((HERE.1, 7000))).unwrap();
    assert_eq!(receive(&port, b"unmarked").policy, None);
    finish(dataplane);
}

/// What the kernel is told with D is not learned: an address that sends nothing else stays unknown.
#[test]
fn row_24_the_kernels_d_bit_is_obeyed() {
    if !privileged("row_24_the_kernels_d_bit_is_obeyed") {
        return;
    }
    let (hosts, dataplane, port) = set_up(true);
    let control = dataplane.control();
    let segment = control.segments()[0].id;
    let mac = hosts[1].mac("vx0").unwrap();
    // From now on, every frame of that host is one of these.
    let known =
        |mac: [u8; 6]| control.fdb(segment).unwrap().iter().any(|entry| entry.mac == MacAddr(mac));
    let quiet = MarkedSocket::bind(&hosts[1], SocketAddr::from((THERE, 7000)), 0x40_0007, PATIENCE)
        .unwrap();
    control.flush_fdb(segment, overplane::Flush::All).unwrap();
    let mut learned_otherwise = 0;
    for _ in 0..20 {
        quiet.send_to(b"do not learn", SocketAddr::from((HERE.1, 7000))).unwrap();
        assert!(receive(&port, b"do not learn").policy.unwrap().dont_learn);
        learned_otherwise += u32::from(known(mac));
        control.flush_fdb(segment, overplane::Flush::All).unwrap();
    }
    // The host's own protocols, such as IPv6, speak without the mark now and then.
    assert!(learned_otherwise < 10, "learned in {learned_otherwise} of 20 cases");
    let loud = MarkedSocket::bind(&hosts[1], SocketAddr::from((THERE, 7001)), 7, PATIENCE).unwrap();
    loud.send_to(b"learn", SocketAddr::from((HERE.1, 7000))).unwrap();
    receive(&port, b"learn");
    assert!(known(mac));
    finish(dataplane);
}

#[test]
fn row_24_a_gpe_peer_is_refused_by_name() {
    if !privileged("row_24_a_gpe_peer_is_refused_by_name") {
        return;
    }
    let (hosts, dataplane, port) = set_up(false);
    let control = dataplane.control();
    // As a `gpe` device sends IPv4 packets and Ethernet frames.
    let frame = udp_to([2, 0, 0, 0, 0, 9], 1, b"gpe");
    let peer = hosts[1].run(|| std::net::UdpSocket::bind((V4[1], 0))).unwrap();
    for (protocol, body) in [(1, &frame[14..]), (3, &frame[..])] {
        let datagram = [&[0x0c, 0, 0, protocol, 0, 0, 42, 0], body].concat();
        peer.send_to(&datagram, (V4[0], 4789)).unwrap();
    }
    crate::hosts::eventually(5, "both are counted", || {
        control.stats().totals.drops(DropReason::VxlanExtension) == 2
    });
    while let Some(frame) = port.try_receive() {
        assert!(!frame.ends_with(b"gpe"));
    }
    finish(dataplane);
}
