//! Tests with real devices and sockets, mostly in a network namespace of their own.

mod adopt;
mod channel;
mod devices;
mod faults;
mod namespaces;
mod udp;

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use super::netlink;
use super::sys::{ioctl, testing};
use super::{Device, DeviceKind, PortQueue};
use crate::batch::Batch;
use crate::metadata::Metadata;
use crate::wire::{VnetHeader, checksum, l4};

/// The host's own address, and that of somebody behind the device.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const EVERYBODY: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 255);

const NO_PI: u16 = libc::IFF_NO_PI as u16;
const VNET_HDR: u16 = libc::IFF_VNET_HDR as u16;
const MULTI_QUEUE: u16 = libc::IFF_MULTI_QUEUE as u16;

/// Runs `test` on a thread in a new network namespace; skips it where that is not allowed, except in CI.
fn in_new_netns(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| match testing::new_netns() {
        Ok(()) => {
            testing::set_up("lo", true).unwrap();
            test();
        }
        Err(error) if std::env::var_os("CI").is_some() => {
            panic!("a new network namespace: {error}")
        }
        Err(error) => eprintln!("SKIPPED, needs root: a new network namespace: {error}"),
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Opens a device as other programs do.
fn raw_open(name: &str, flags: u16) -> io::Result<File> {
    let node = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    ioctl::attach(node.as_fd(), name, flags)?;
    Ok(node)
}

fn kind_flag(kind: DeviceKind) -> u16 {
    match kind {
        DeviceKind::Tap => libc::IFF_TAP as u16,
        DeviceKind::Tun => libc::IFF_TUN as u16,
    }
}

fn raise(name: &str) {
    testing::set_address(name, HOST).unwrap();
    testing::set_up(name, true).unwrap();
}

fn open(kind: DeviceKind, name: &str) -> Device {
    let device = match kind {
        DeviceKind::Tap => Device::tap(name),
        DeviceKind::Tun => Device::tun(name),
    };
    device.unwrap()
}

/// The only queue of a device.
fn single(device: Device) -> PortQueue {
    let mut queues = device.into_queues(1).unwrap();
    assert_eq!(queues.len(), 1);
    queues.remove(0)
}

/// Sends a datagram that leaves through the device that [`raise`] configured.
fn send_from_host(payload: &[u8]) {
    let socket = UdpSocket::bind((HOST, 0)).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.send_to(payload, (EVERYBODY, 7)).unwrap();
}

/// Reads frames until one is the UDP datagram with this payload; returns it and its vnet header.
///
/// Completes the checksum if that is left to do, and checks it.
fn receive_from_host(
    queue: &mut PortQueue,
    kind: DeviceKind,
    payload: &[u8],
) -> (Vec<u8>, VnetHeader) {
    let l3 = if kind == DeviceKind::Tap { 14 } else { 0 };
    let mut batch = Batch::new(8);
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        batch.clear();
        let received = queue.receive(&mut batch);
        assert!(received.failure.is_none(), "{received:?}");
        assert_eq!(received.truncated, 0);
        for index in 0..batch.len() {
            let mut frame = batch.frame(index).to_vec();
            if frame.len() != l3 + 28 + payload.len() || !frame.ends_with(payload) {
                continue;
            }
            let vnet = batch.vnet(index);
            vnet.validate(frame.len()).unwrap();
            if vnet.needs_checksum() {
                assert_eq!((usize::from(vnet.csum_start), vnet.csum_offset), (l3 + 20, 6));
                assert!(l4::complete(&mut frame, l3 + 20, 6));
            }
            let len = (8 + payload.len()) as u16;
            let pseudo = checksum::pseudo_v4(HOST.octets(), EVERYBODY.octets(), 17, len);
            let sum = checksum::add(pseudo, checksum::sum(&frame[l3 + 20..]));
            assert_eq!(checksum::finish(sum), 0, "checksum of {frame:02x?}");
            return (frame, vnet);
        }
        if received.drained {
            thread::sleep(Duration::from_millis(1));
        }
    }
    panic!("the frame did not come");
}

/// A datagram from [`PEER`] to [`HOST`] with an unfinished or a complete checksum, and its vnet header.
fn datagram(kind: DeviceKind, port: u16, payload: &[u8], partial: bool) -> (Vec<u8>, VnetHeader) {
    let mut frame = Vec::new();
    if kind == DeviceKind::Tap {
        frame.extend_from_slice(&[0xff; 6]);
        frame.extend_from_slice(&[2, 0, 0, 0, 0, 9, 8, 0]);
    }
    let l3 = frame.len();
    let total = (28 + payload.len()) as u16;
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&total.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend_from_slice(&PEER.octets());
    frame.extend_from_slice(&HOST.octets());
    let header = checksum::finish(checksum::sum(&frame[l3..]));
    frame[l3 + 10..l3 + 12].copy_from_slice(&header.to_be_bytes());
    let pseudo = checksum::pseudo_v4(PEER.octets(), HOST.octets(), 17, total - 20);
    for word in [9, port, total - 20, pseudo] {
        frame.extend_from_slice(&word.to_be_bytes());
    }
    frame.extend_from_slice(payload);
    let vnet = VnetHeader::partial(l3 as u16 + 20, 6);
    if partial {
        return (frame, vnet);
    }
    assert!(l4::complete(&mut frame, l3 + 20, 6));
    (frame, VnetHeader::default())
}

/// Delivers a datagram, with its bytes in two parts, and waits until the host's socket has it.
fn deliver_to_host(queue: &mut PortQueue, kind: DeviceKind, partial: bool) {
    let socket = UdpSocket::bind((HOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let port = socket.local_addr().unwrap().port();
    for (cut, payload) in [(0, &b"in one part"[..]), (9, b"in two"), (40, b"well")] {
        let (frame, vnet) = datagram(kind, port, payload, partial);
        let (head, body) = frame.split_at(cut.min(frame.len()));
        queue.deliver(vnet, Metadata::default(), [head, body]).unwrap();
        let mut memory = [0; 64];
        let (len, source) = socket.recv_from(&mut memory).unwrap();
        assert_eq!((&memory[..len], source), (payload, (PEER, 9).into()));
    }
}

fn delete_link(name: &str) {
    netlink::change(name, libc::RTM_DELLINK, None).unwrap();
}

/// An open network namespace other than that of the calling thread.
fn other_netns() -> OwnedFd {
    thread::spawn(|| {
        testing::new_netns().unwrap();
        File::open("/proc/thread-self/ns/net").unwrap().into()
    })
    .join()
    .unwrap()
}
