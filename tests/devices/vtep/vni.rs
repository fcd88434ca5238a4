//! Several VNIs on one segment, as to peers for whom the VNI is no segment.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use etherparse::PacketBuilder;
use overplane::{ChannelPort, Config, Dataplane, Device, DeviceKind, Metadata, Segment, Vni};
use overplane_lab::{Namespace, Vxlan, privileged};

use crate::hosts::{V4, configure, ip, settle, underlay};

const PATIENCE: Duration = Duration::from_secs(5);

/// The Ethernet address of the embedder, whatever the VNI.
const HERE: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A dataplane with a segment of any VNI, whose own is 4, on a UDP port, and the channel that is its port.
fn any_vni(host: &Namespace, udp_port: u16) -> (Dataplane, ChannelPort) {
    let dataplane = host.run(|| Dataplane::start(Config::new(ip(V4[0])))).unwrap();
    let control = dataplane.control();
    let mut segment = Segment::bridge(Vni::new(4).unwrap());
    segment.udp_port = udp_port;
    segment.header.any_vni = true;
    let id = control.add_segment(segment).unwrap();
    let (device, port) = Device::channel(DeviceKind::Tap, 256).unwrap();
    control.attach(id, device).unwrap();
    control.add_flood(id, SocketAddr::new(ip(V4[1]), udp_port)).unwrap();
    (dataplane, port)
}

/// A VXLAN device of the kernel with a VNI, in a network 10.8.`net`.0/24 in which the embedder has the first address.
fn kernel_device(host: &Namespace, net: u8, vni: u32, udp_port: u16) -> (UdpSocket, [u8; 6]) {
    let name = format!("vx{net}");
    let remotes = [ip(V4[0])];
    let device = Vxlan { remotes: &remotes, port: udp_port, ..Vxlan::new(&name, vni, ip(V4[1])) };
    host.add_vxlan(&device).unwrap();
    configure(host, &name, 1450, &[format!("10.8.{net}.2/24")]);
    host.add_neighbour(&name, [10, 8, net, 1].into(), HERE).unwrap();
    let socket = host.run(|| UdpSocket::bind(SocketAddr::from(([10, 8, net, 2], 7000)))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (socket, host.mac(&name).unwrap())
}

fn frame(net: u8, to: [u8; 6], payload: &[u8]) -> Bytes {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(HERE, to);
    let builder = builder.ipv4([10, 8, net, 1], [10, 8, net, 2], 64).udp(7000, 7000);
    builder.write(&mut frame, payload).unwrap();
    frame.into()
}

/// The VNI of the next frame that ends with `payload`.
fn vni_of(port: &ChannelPort, payload: &[u8]) -> u32 {
    for _ in 0..200 {
        let (frame, metadata) = port.receive_timeout_with(PATIENCE).expect("a frame");
        if frame.ends_with(payload) {
            return metadata.vni.expect("a VNI").get();
        }
    }
    panic!("two hundred other frames");
}

fn check(udp_port: u16, vnis: [u32; 3]) {
    let hosts = underlay();
    let (dataplane, port) = any_vni(&hosts[0], udp_port);
    let devices =
        [1, 2, 3].map(|n| kernel_device(&hosts[1], n, vnis[usize::from(n) - 1], udp_port));
    for (n, ((socket, _), vni)) in (1..).zip(devices.iter().zip(vnis)) {
        let payload = format!("from {vni}");
        socket.send_to(payload.as_bytes(), SocketAddr::from(([10, 8, n, 1], 7000))).unwrap();
        assert_eq!(vni_of(&port, payload.as_bytes()), vni);
    }
    // To each under its VNI; the other devices of that host would not take it.
    for (n, ((socket, mac), vni)) in (1..).zip(devices.iter().zip(vnis)) {
        let payload = format!("to {vni}");
        let mut metadata = Metadata::default();
        metadata.vni = Some(Vni::new(vni).unwrap());
        port.send_with(frame(n, *mac, payload.as_bytes()), metadata).unwrap();
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], payload.as_bytes());
    }
    let control = dataplane.control();
    settle(&control);
    dataplane.stop().unwrap();
    assert!(control.stats().totals.is_conserved(), "{}", control.stats());
}

#[test]
fn row_03_many_devices_of_the_kernel_share_a_segment_of_any_vni() {
    if privileged("row_03_many_devices_of_the_kernel_share_a_segment_of_any_vni") {
        check(4789, [100, 4, 0xff_ffff]);
    }
}

/// To Cilium the VNI is the security identity of the sender, on UDP port 8472: reserved identities, and one of a pod.
#[test]
fn row_23_cilium_has_the_senders_identity_in_the_vni() {
    if privileged("row_23_cilium_has_the_senders_identity_in_the_vni") {
        check(8472, [1, 6, 0x1_8d3f]);
    }
}
