//! Requests to TUN/TAP files and about network devices.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::checked;

/// Bytes of a device name with its terminating zero (kernel `include/uapi/linux/if.h`).
pub(crate) const NAME_SIZE: usize = libc::IFNAMSIZ;

/// `struct ifreq` (kernel `include/uapi/linux/if.h`): the name of a device, and what is asked or answered.
///
/// The kernel copies 40 bytes on 64-bit machines and 32 on others, so this is large enough for both.
#[repr(C, align(8))]
pub(super) struct Request {
    name: [u8; NAME_SIZE],
    pub(super) value: [u8; 24],
}

impl Request {
    /// A request about the device `name`, of which at most 15 bytes are taken.
    pub(super) fn new(name: &str) -> Self {
        let mut request = Self { name: [0; NAME_SIZE], value: [0; 24] };
        for (to, from) in request.name[..NAME_SIZE - 1].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        request
    }

    fn name(&self) -> String {
        let len = self.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_SIZE);
        String::from_utf8_lossy(&self.name[..len]).into_owned()
    }

    pub(super) fn set_flags(&mut self, flags: u16) {
        self.value[..2].copy_from_slice(&flags.to_ne_bytes());
    }

    pub(super) fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.value[0], self.value[1]])
    }

    fn number(&self) -> i32 {
        let [a, b, c, d, ..] = self.value;
        i32::from_ne_bytes([a, b, c, d])
    }

    /// Issues `code`, which has to be one that takes a pointer to a `struct ifreq`.
    pub(super) fn issue(&mut self, fd: BorrowedFd<'_>, code: libc::Ioctl) -> io::Result<()> {
        // SAFETY: all callers in `sys` pass codes that read and write one `struct ifreq`, which `self` is.
        checked(unsafe { libc::ioctl(fd.as_raw_fd(), code, std::ptr::from_mut(self)) })?;
        Ok(())
    }
}

/// Issues `code`, which has to be one that takes a pointer to an `int`.
fn with_int(fd: BorrowedFd<'_>, code: libc::Ioctl, mut value: i32) -> io::Result<i32> {
    // SAFETY: all callers in this file pass codes that read or write one `int`.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), code, std::ptr::from_mut(&mut value)) })?;
    Ok(value)
}

/// Issues `code`, which has to be one that takes its argument by value.
pub(super) fn with_value(fd: BorrowedFd<'_>, code: libc::Ioctl, value: u32) -> io::Result<i32> {
    // SAFETY: all callers in `sys` pass codes whose argument is no pointer.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), code, libc::c_ulong::from(value)) })
}

/// Attaches an open `/dev/net/tun` to the device `name`, making the device if there is none; returns its name.
pub(crate) fn attach(fd: BorrowedFd<'_>, name: &str, flags: u16) -> io::Result<String> {
    let mut request = Request::new(name);
    request.set_flags(flags);
    request.issue(fd, libc::TUNSETIFF)?;
    Ok(request.name())
}

/// Name and flags of the device that a file is attached to.
///
/// `IFF_NO_PI` is always among the flags, because its bit doubles as "no socket filter" in this answer; see
/// [`has_packet_information`](super::has_packet_information).
pub(crate) fn attached(fd: BorrowedFd<'_>) -> io::Result<(String, u16)> {
    let mut request = Request::new("");
    request.issue(fd, libc::TUNGETIFF)?;
    Ok((request.name(), request.flags()))
}

/// The MAC address of the TAP that a file is attached to (kernel `drivers/net/tun.c`, `__tun_chr_ioctl`).
pub(crate) fn hardware_address(fd: BorrowedFd<'_>) -> io::Result<[u8; 6]> {
    let mut request = Request::new("");
    request.issue(fd, libc::SIOCGIFHWADDR as libc::Ioctl)?;
    // A `struct sockaddr`: the address is behind two bytes of family.
    let [_, _, a, b, c, d, e, f, ..] = request.value;
    Ok([a, b, c, d, e, f])
}

/// Takes a queue out of the set over which the kernel spreads frames.
pub(crate) fn detach_queue(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut request = Request::new("");
    request.set_flags(libc::IFF_DETACH_QUEUE as u16);
    request.issue(fd, libc::TUNSETQUEUE)
}

/// Says which offloads the reader of a device understands (`TUN_F_*`); kept by the device.
pub(crate) fn set_offload(fd: BorrowedFd<'_>, mask: u32) -> io::Result<()> {
    with_value(fd, libc::TUNSETOFFLOAD, mask)?;
    Ok(())
}

/// Sets the bytes of the vnet header; kept by the device.
pub(crate) fn set_vnet_header_len(fd: BorrowedFd<'_>, len: i32) -> io::Result<()> {
    with_int(fd, libc::TUNSETVNETHDRSZ, len)?;
    Ok(())
}

/// Bytes of the vnet header.
pub(crate) fn vnet_header_len(fd: BorrowedFd<'_>) -> io::Result<i32> {
    with_int(fd, libc::TUNGETVNETHDRSZ, 0)
}

/// Makes reads and writes return at once, for everybody who shares the open file.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    with_int(fd, libc::FIONBIO as libc::Ioctl, 1)?;
    Ok(())
}

/// Keeps a descriptor from programs that the process starts.
pub(crate) fn set_close_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    with_value(fd, libc::FIOCLEX as libc::Ioctl, 0)?;
    Ok(())
}

/// The network namespace in which the device of a file is now; needs `CAP_NET_ADMIN` there.
pub(crate) fn device_netns(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let netns = with_value(fd, libc::TUNGETDEVNETNS, 0)?;
    // SAFETY: the call has just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(netns) })
}

/// Whether the network namespace of `socket` has a device `name`.
pub(crate) fn device_exists(socket: BorrowedFd<'_>, name: &str) -> bool {
    Request::new(name).issue(socket, libc::SIOCGIFINDEX as libc::Ioctl).is_ok()
}

/// The number of the device `name` in the network namespace of `socket`, and whether it is up.
pub(crate) fn device_link(socket: BorrowedFd<'_>, name: &str) -> io::Result<(u32, bool)> {
    let mut request = Request::new(name);
    request.issue(socket, libc::SIOCGIFINDEX as libc::Ioctl)?;
    let index = request.number().unsigned_abs();
    let mut request = Request::new(name);
    request.issue(socket, libc::SIOCGIFFLAGS as libc::Ioctl)?;
    Ok((index, request.flags() & libc::IFF_UP as u16 != 0))
}

/// The MTU in bytes of the device `name` in the network namespace of `socket`.
pub(crate) fn device_mtu(socket: BorrowedFd<'_>, name: &str) -> io::Result<u32> {
    let mut request = Request::new(name);
    request.issue(socket, libc::SIOCGIFMTU as libc::Ioctl)?;
    Ok(request.number().unsigned_abs())
}
