//! Finding out what the kernel does not tell.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;

/// The release of the running kernel, such as `6.12.4-generic` (`uname(2)`).
///
/// # Errors
///
/// That of `uname`, which has none on Linux.
pub(crate) fn kernel_release() -> io::Result<String> {
    // SAFETY: zero is a valid value of every byte of it.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `utsname`.
    checked(unsafe { libc::uname(&raw mut names) })?;
    let release = names.release.map(|byte| byte as u8);
    let release = CStr::from_bytes_until_nul(&release).unwrap_or_default();
    Ok(release.to_string_lossy().into_owned())
}

/// Waits until there is something to read or an error, but at most so many milliseconds (`poll(2)`).
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, milliseconds: u8) {
    let mut wanted = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: points to one entry.
    let _ = unsafe { libc::poll(&raw mut wanted, 1, i32::from(milliseconds)) };
}

/// Whether a TUN/TAP file puts four bytes of packet information before each frame (`IFF_NO_PI` is not set).
///
/// `TUNGETIFF` cannot tell: the bit that stands for `IFF_NO_PI` also stands for "no socket filter" in its answer. So
/// this writes a few bytes that are too short to be a frame, from an address that cannot be read, and looks at which
/// of both the kernel notices first (kernel `drivers/net/tun.c`, `tun_get_user`). No frame comes of it:
///
/// * A TUN without vnet header copies a frame of any length (`EFAULT`) unless the packet information does not fit
///   into three bytes (`EINVAL`).
/// * All others first copy the packet information out of five bytes (`EFAULT`); without it, five bytes are
///   too short for a vnet header or an Ethernet header (`EINVAL`).
///
/// # Errors
///
/// Those of `write`, such as `EBADFD` when the device is gone.
pub(crate) fn has_packet_information(
    fd: BorrowedFd<'_>,
    is_tun: bool,
    has_vnet_header: bool,
) -> io::Result<bool> {
    let bare_tun = is_tun && !has_vnet_header;
    let len = if bare_tun { 3 } else { 5 };
    // SAFETY: the kernel checks every access through the pointer and answers EFAULT when it cannot be read.
    let written = unsafe { libc::write(fd.as_raw_fd(), std::ptr::null(), len) };
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EFAULT) if written < 0 => Ok(!bare_tun),
        Some(libc::EINVAL) if written < 0 => Ok(bare_tun),
        _ if written < 0 => Err(error),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}
