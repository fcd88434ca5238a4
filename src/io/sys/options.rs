//! Socket options that socket2 does not have.

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;
use super::cmsg::UDP_GRO;

/// Index of `SK_MEMINFO_DROPS` (kernel `include/uapi/linux/sock_diag.h`).
const DROPS: usize = 8;

fn set(fd: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    let value = std::ptr::from_ref(&value).cast();
    // SAFETY: `value` points to `len` readable bytes.
    checked(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value, len) })?;
    Ok(())
}

/// Sets the receive buffer in bytes beyond the limit for everybody; needs `CAP_NET_ADMIN`.
pub(crate) fn force_receive_buffer(fd: BorrowedFd<'_>, bytes: i32) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
}

/// Sets the send buffer in bytes beyond the limit for everybody; needs `CAP_NET_ADMIN`.
pub(crate) fn force_send_buffer(fd: BorrowedFd<'_>, bytes: i32) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes)
}

/// `UDP_NO_CHECK6_TX` and `UDP_NO_CHECK6_RX` (kernel `include/uapi/linux/udp.h`).
const UDP_NO_CHECK6_TX: i32 = 101;
const UDP_NO_CHECK6_RX: i32 = 102;

/// Says whether IPv6 datagrams without UDP checksum are accepted (RFC 6935 §5).
pub(crate) fn set_accept_unchecked(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set(fd, libc::SOL_UDP, UDP_NO_CHECK6_RX, i32::from(on))
}

/// Sends datagrams without UDP checksum.
pub(crate) fn send_unchecked(fd: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    if v6 {
        set(fd, libc::SOL_UDP, UDP_NO_CHECK6_TX, 1)
    } else {
        set(fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)
    }
}

/// Says whether datagrams may be fragmented, or carry DF and are refused above the path MTU.
pub(crate) fn set_may_fragment(fd: BorrowedFd<'_>, v6: bool, may: bool) -> io::Result<()> {
    if v6 {
        let value = if may { libc::IPV6_PMTUDISC_DONT } else { libc::IPV6_PMTUDISC_DO };
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, value)
    } else {
        let value = if may { libc::IP_PMTUDISC_DONT } else { libc::IP_PMTUDISC_DO };
        set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value)
    }
}

/// `IPV6_MULTICAST_ALL` (kernel `include/uapi/linux/in6.h`).
const IPV6_MULTICAST_ALL: i32 = 29;

/// Receives what is for groups only on the interfaces on which the socket itself is a member; IPv6 needs Linux 4.20.
pub(crate) fn only_own_groups(fd: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    match v6 {
        true => set(fd, libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0),
        false => set(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, 0),
    }
}

/// Has each received datagram come with the TOS byte or traffic class of its IP header.
pub(crate) fn receive_tos(fd: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    if v6 {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)
    } else {
        set(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)
    }
}

/// Has the kernel keep what it and routers say of datagrams that came to grief; see
/// [`error_queue`](super::error_queue).
///
/// The socket then also has pending errors: a call fails that is not at fault, once for each.
pub(crate) fn report_errors(fd: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    if v6 {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
    } else {
        set(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
    }
}

/// Says whether the kernel may join datagrams of one length on reception; needs Linux 5.0.
pub(crate) fn set_gro(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set(fd, libc::SOL_UDP, UDP_GRO, i32::from(on))
}

/// Has a netlink socket hear the news of a group (kernel `include/uapi/linux/netlink.h`, `NETLINK_ADD_MEMBERSHIP`).
pub(crate) fn join_netlink_group(fd: BorrowedFd<'_>, group: i32) -> io::Result<()> {
    set(fd, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)
}

/// Has a read that finds nothing look into the queue of the network device for so many microseconds, and lets such reads
/// take the place of the device's interrupts; needs `CAP_NET_ADMIN` above `net.core.busy_read`, and Linux 5.11 for the
/// second half.
pub(crate) fn set_busy_poll(fd: BorrowedFd<'_>, microseconds: i32) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, microseconds)?;
    set(fd, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, i32::from(microseconds > 0))
}

/// The path MTU, in bytes, to where a socket is connected: that of the route, or what the kernel has learned of the path
/// and still believes.
pub(crate) fn path_mtu(fd: BorrowedFd<'_>, v6: bool) -> io::Result<u32> {
    let (level, option) = match v6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        false => (libc::IPPROTO_IP, libc::IP_MTU),
    };
    let mut mtu = 0_u32;
    let mut len = size_of_val(&mtu) as libc::socklen_t;
    let memory = (&raw mut mtu).cast();
    // SAFETY: `memory` points to `len` writable bytes.
    checked(unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, memory, &raw mut len) })?;
    Ok(mtu)
}

/// Datagrams that a socket dropped so far, mostly because its receive buffer was full; wraps at 2³².
pub(crate) fn drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = [0_u32; 16];
    let mut len = size_of_val(&info) as libc::socklen_t;
    let memory = info.as_mut_ptr().cast();
    let (level, option) = (libc::SOL_SOCKET, libc::SO_MEMINFO);
    // SAFETY: `memory` points to `len` writable bytes.
    checked(unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, memory, &raw mut len) })?;
    if (len as usize) < (DROPS + 1) * size_of::<u32>() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(info[DROPS])
}
