//! Socket options that have no safe wrapper.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// Sets an integer option of a socket.
pub(crate) fn set(fd: impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as it is borrowed, and the pointer and length are those
    // of `value`, which outlives the call.
    let done = unsafe {
        libc::setsockopt(fd.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), length)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads an option of a socket whose value is plain integers.
pub(crate) fn get<T: Default + Copy>(fd: impl AsFd, level: c_int, name: c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as it is borrowed; the kernel writes at most `length` bytes, which is the
    // size of `value`, and any bytes are valid integers.
    let done = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Datagrams that a socket dropped, for want of room or for a wrong checksum (`SO_MEMINFO`, kernel
/// `include/uapi/linux/sock_diag.h`, `SK_MEMINFO_DROPS`).
pub(crate) fn drops(fd: impl AsFd) -> io::Result<u32> {
    const DROPS: usize = 8;
    get::<[u32; DROPS + 1]>(fd, libc::SOL_SOCKET, libc::SO_MEMINFO).map(|info| info[DROPS])
}

/// Asks for a receive buffer of `bytes`, past the system's limit where that is allowed.
pub(crate) fn receive_buffer(fd: impl AsFd, bytes: c_int) -> io::Result<()> {
    set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
        .or_else(|_| set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}

/// Has the kernel cut what a UDP socket sends into datagrams of `payload` bytes (`UDP_SEGMENT`,
/// `include/uapi/linux/udp.h`).
pub(crate) fn udp_segment(fd: impl AsFd, payload: u16) -> io::Result<()> {
    set(fd, libc::SOL_UDP, libc::UDP_SEGMENT, c_int::from(payload))
}

/// Has the kernel hand datagrams of one length that arrive together over as one (`UDP_GRO`, `include/uapi/linux/udp.h`).
pub(crate) fn udp_gro(fd: impl AsFd) -> io::Result<()> {
    set(fd, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Sets whether packets of a socket may be fragmented: `true` forbids it on the way and here.
pub(crate) fn dont_fragment(fd: impl AsFd, ipv6: bool, forbid: bool) -> io::Result<()> {
    if ipv6 {
        let discover = if forbid { libc::IPV6_PMTUDISC_DO } else { libc::IPV6_PMTUDISC_DONT };
        set(&fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, discover)?;
        set(&fd, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, c_int::from(forbid))
    } else {
        let discover = if forbid { libc::IP_PMTUDISC_DO } else { libc::IP_PMTUDISC_DONT };
        set(&fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discover)
    }
}

/// The number of segments a TCP connection has sent again.
pub(crate) fn tcp_retransmits(fd: impl AsFd) -> io::Result<u32> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as it is borrowed; the kernel writes at most `length`
    // bytes, which is the size of `info`.
    let done = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `tcp_info` is plain integers, for which zeroes are valid, and was zeroed before the
    // kernel filled it in.
    Ok(unsafe { info.assume_init() }.tcpi_total_retrans)
}
