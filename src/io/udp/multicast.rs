//! Groups of the underlay: sending to them, and being a member.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;

use socket2::Socket;

use super::options;

/// Addresses of the interfaces of the calling thread's network namespace (kernel `net/ipv6/addrconf.c`,
/// `if6_seq_show`): address, number of the interface in hexadecimal, and more.
const ADDRESSES: &str = "/proc/thread-self/net/if_inet6";

/// Makes what a socket sends to groups leave by the interface with an address, and not come back. Returns what to bind the
/// socket to for `local`, which may be a group.
///
/// What IPv4 sends to groups leaves by the interface with its source address anyway (kernel `net/ipv4/route.c`,
/// `ip_route_output_key_hash_rcu`).
pub(super) fn prepare(
    socket: &Socket,
    local: SocketAddr,
    interface: IpAddr,
) -> io::Result<SocketAddr> {
    if local.ip().is_multicast() {
        // Others may be members, too.
        socket.set_reuse_address(true)?;
        options::only_own_groups(socket.as_fd(), local.is_ipv6())?;
    }
    let (SocketAddr::V6(address), IpAddr::V6(interface)) = (local, interface) else {
        socket.set_multicast_loop_v4(false)?;
        return Ok(local);
    };
    socket.set_multicast_loop_v6(false)?;
    let index = index_of(interface);
    socket.set_multicast_if_v6(index)?;
    // Addresses of a link alone (RFC 4291 section 2.7) need the link.
    let scope = if address.ip().octets()[..2] == [0xff, 0x02] { index } else { 0 };
    Ok(SocketAddrV6::new(*address.ip(), address.port(), 0, scope).into())
}

/// Makes a socket a member of a group, on the interface with an address, until it is closed.
pub(super) fn join(socket: &Socket, group: IpAddr, interface: IpAddr) -> io::Result<()> {
    match (group, interface) {
        (IpAddr::V4(group), IpAddr::V4(interface)) => socket.join_multicast_v4(&group, &interface),
        (IpAddr::V6(group), IpAddr::V6(interface)) => {
            socket.join_multicast_v6(&group, index_of(interface))
        }
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    }
}

/// The number of the interface that has an address; 0, which leaves the choice to the kernel, if that cannot be found.
fn index_of(address: Ipv6Addr) -> u32 {
    let list = fs::read_to_string(ADDRESSES).unwrap_or_default();
    let digits = format!("{:032x}", address.to_bits());
    let line = list.lines().find_map(|line| line.strip_prefix(&digits));
    let index = line.and_then(|line| line.split_whitespace().next());
    index.and_then(|index| u32::from_str_radix(index, 16).ok()).unwrap_or(0)
}
