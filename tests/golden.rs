//! Frames as the Linux kernel (6.18) put them on a wire: VXLAN devices of VNI 0x123456 on 192.0.2.1 and 192.0.2.2,
//! joined by a veth pair, which leaves TCP checksums unfinished.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use overplane::wire::l4::{L4Checksum, checksum_state};
use overplane::wire::{FrameInfo, VnetHeader, vxlan};
use overplane::{
    Batch, Change, Destination, Forwarder, Output, PortId, PortOptions, Segment, Tables, Vni,
};

const NOW: Duration = Duration::ZERO;

/// Ethernet, IPv4 and UDP headers of the underlay.
const OUTER: usize = 14 + 20 + 8;

/// From host 1 to everybody: who has 10.8.0.2?
const ARP_REQUEST: &str = "864bb90c445842061cd14bde08004500004ea663000040115038c0000201c000020296ad12b5003a844f\
    0800000012345600ffffffffffff020000000001080600010800060400010200000000010a0800010000000000000a080002";

/// From host 2 to host 1: 02:00:00:00:00:02 has.
const ARP_REPLY: &str = "42061cd14bde864bb90c445808004500004eff7200004011f728c0000202c000020196ad12b5003a844f\
    0800000012345600020000000001020000000002080600010800060400020200000000020a0800020200000000010a080001";

/// From host 1 to host 2: a ping.
const ECHO_REQUEST: &str = "864bb90c445842061cd14bde080045000056a66400004011502fc0000201c0000202811412b500428457\
    080000001234560002000000000202000000000108004500\
    00242d0b0000400139bc0a0800010a08000208000e0c73740000fac6bd730f53aef1";

/// From host 2 to host 1: the second step of a TCP handshake, its checksum (1441) the sum of the pseudo-header alone.
const TCP_SYN_ACK: &str = "42061cd14bde864bb90c445808004500006eff7400004011f706c0000202c000020197aa12b5005a68e0\
    080000001234560002000000000102000000000208004500\
    003c00004000400626aa0a0800020a0800011e61d2b62fa95ea5c778914fa012fb3414410000020405820402080a046b32aa32c4f0880103030a";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Node 1 with a port of host 1 and the kernel at 192.0.2.2 as its peer.
fn node(offload: bool) -> (Tables, PortId) {
    let mut tables = Tables::new("192.0.2.1".parse().unwrap(), 1).unwrap();
    let segment = Segment::bridge(Vni::new(0x12_3456).unwrap());
    let id = segment.id();
    let vtep: SocketAddr = "192.0.2.2:4789".parse().unwrap();
    let changes = [
        Change::AddSegment(segment),
        Change::AddPort {
            segment: id,
            name: "host 1".into(),
            offload,
            options: PortOptions::default(),
        },
        Change::AddFlood { segment: id, vtep },
        Change::InsertFdb {
            segment: id,
            mac: "02:00:00:00:00:02".parse().unwrap(),
            destination: Destination::Vtep(vtep),
        },
    ];
    let ports = tables.apply(NOW, changes).unwrap();
    (tables, ports[0])
}

/// Takes a datagram in, as it came from the kernel, and returns the frame delivered.
fn decapsulated(datagram: &str, offload: bool) -> (VnetHeader, Vec<u8>) {
    let (tables, port) = node(offload);
    let (mut batch, mut output) = (Batch::new(1), Output::new());
    let from: SocketAddr = "192.0.2.2:38829".parse().unwrap();
    assert!(batch.push_datagram(&bytes(datagram)[OUTER..], from));
    Forwarder::new(0).from_underlay(&tables, NOW, vxlan::PORT, &mut batch, &mut output);
    let [deliver] = output.delivers() else { panic!("{output:?} {}", tables.stats()) };
    assert_eq!(deliver.port, port);
    (deliver.vnet, output.frame(&batch, deliver).collect::<Vec<_>>().concat())
}

#[test]
fn datagrams_are_those_of_the_kernel_byte_for_byte() {
    for datagram in [ARP_REQUEST, ECHO_REQUEST] {
        let wanted = bytes(datagram)[OUTER..].to_vec();
        let (tables, port) = node(true);
        let (mut batch, mut output) = (Batch::new(1), Output::new());
        assert!(batch.push(&wanted[vxlan::HEADER_LEN..], VnetHeader::default()));
        Forwarder::new(0).from_port(&tables, NOW, port, &mut batch, &mut output);
        let [transmit] = output.transmits() else { panic!("{output:?}") };
        let datagrams: Vec<_> = output.datagrams(&batch, transmit).map(|p| p.concat()).collect();
        assert_eq!(datagrams, [wanted]);
        assert_eq!(tables.vtep_address(transmit.vtep), Some("192.0.2.2:4789".parse().unwrap()));
    }
}

#[test]
fn datagrams_of_the_kernel_are_understood() {
    for offload in [true, false] {
        let (vnet, frame) = decapsulated(ARP_REPLY, offload);
        assert_eq!(vnet, VnetHeader::default());
        assert_eq!(frame, bytes(ARP_REPLY)[OUTER + vxlan::HEADER_LEN..]);
    }
}

#[test]
fn the_kernels_unfinished_checksum_is_passed_on_or_finished() {
    let inner = bytes(TCP_SYN_ACK)[OUTER + vxlan::HEADER_LEN..].to_vec();
    let state = |frame: &[u8]| checksum_state(frame, &FrameInfo::parse(frame).unwrap());
    assert_eq!(state(&inner), L4Checksum::Partial);

    let (vnet, frame) = decapsulated(TCP_SYN_ACK, true);
    assert_eq!((vnet, &frame), (VnetHeader::partial(14 + 20, 16), &inner));

    let (vnet, frame) = decapsulated(TCP_SYN_ACK, false);
    assert_eq!((vnet, state(&frame)), (VnetHeader::default(), L4Checksum::Correct));
    let parsed = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
    let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Tcp(tcp))) =
        (parsed.net, parsed.transport)
    else {
        panic!("no TCP over IPv4")
    };
    let checksum = tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination());
    assert_eq!(tcp.checksum(), checksum.unwrap(), "as etherparse has it, too");
}
