//! A forwarder as simple as can be: IP in UDP, one packet at a time.
//!
//! It stands in for flannel's udp backend and follows its loop (`pkg/backend/udp/proxy_amd64.c`): one thread polls the
//! device, the socket and what ends it; as long as either has something it takes one packet from each in turn, with
//! one read and one write a packet.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

use tun_tap::Iface;

/// Forwards between a device and a peer, both non-blocking, until the other end of `until` is closed.
pub fn forward(
    device: &Iface,
    socket: &UdpSocket,
    peer: SocketAddr,
    until: &impl AsRawFd,
) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let watched = [device.as_raw_fd(), socket.as_raw_fd(), until.as_raw_fd()];
    loop {
        let [_, _, over] = poll(watched)?;
        if over {
            return Ok(());
        }
        while to_socket(device, socket, peer, &mut buffer)?
            | to_device(socket, device, &mut buffer)?
        {}
    }
}

/// Takes a packet from the device; whether there was one.
fn to_socket(
    device: &Iface,
    socket: &UdpSocket,
    peer: SocketAddr,
    buffer: &mut [u8],
) -> io::Result<bool> {
    let Some(length) = taken(device.recv(buffer))? else { return Ok(false) };
    let packet = &mut buffer[..length];
    if decrement_ttl(packet) {
        let _lost_if_refused = socket.send_to(packet, peer);
    }
    Ok(true)
}

/// Takes a datagram from the socket; whether there was one.
fn to_device(socket: &UdpSocket, device: &Iface, buffer: &mut [u8]) -> io::Result<bool> {
    let Some((length, _)) = taken(socket.recv_from(buffer))? else { return Ok(false) };
    let packet = &mut buffer[..length];
    if decrement_ttl(packet) {
        let _lost_if_refused = device.send(packet);
    }
    Ok(true)
}

fn taken<T>(received: io::Result<T>) -> io::Result<Option<T>> {
    match received {
        Ok(it) => Ok(Some(it)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether a packet is IPv4 and may go on; its header checksum is adapted (RFC 1624 §3).
fn decrement_ttl(packet: &mut [u8]) -> bool {
    let [0x40..=0x4f, _, _, _, _, _, _, _, ttl @ 2..=255, _, high, low, ..] = packet else {
        return false;
    };
    *ttl -= 1;
    let (sum, carry) = u16::from_be_bytes([*high, *low]).overflowing_add(0x0100);
    [*high, *low] = (sum + u16::from(carry)).to_be_bytes();
    true
}

/// Waits until there is something to read; where there is.
fn poll(fds: [RawFd; 3]) -> io::Result<[bool; 3]> {
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    loop {
        // SAFETY: the pointer and the count are those of `polled`, which outlives the call.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
        if ready >= 0 {
            return Ok(polled.map(|fd| fd.revents != 0));
        }
        let e = io::Error::last_os_error();
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e);
        }
    }
}
