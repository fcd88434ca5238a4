//! System calls that no safe interface of the dependencies offers: the only `unsafe` code of the crate.
//!
//! Every function here is safe to call with any argument; each `unsafe` block does one thing.
#![allow(unsafe_code)]

mod address;
mod cmsg;
pub(crate) mod error_queue;
pub(crate) mod ioctl;
mod message;
mod namespace;
pub(crate) mod options;
mod probe;
pub(crate) mod receive;
pub(crate) mod send;
#[cfg(test)]
pub(crate) mod testing;

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
#[cfg(feature = "tun-tap")]
use std::os::fd::{IntoRawFd, OwnedFd};

pub(crate) use namespace::enter_netns;
pub(crate) use probe::{has_packet_information, kernel_release, wait_readable};

/// What a system call returned, or the error it left in `errno`.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A new event counter (`eventfd(2)`): non-blocking, closed on exec.
pub(crate) fn event_counter() -> io::Result<File> {
    // SAFETY: takes no pointers.
    let fd = checked(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
    // SAFETY: the call has just made this descriptor and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// The descriptor that an `Iface` owned.
#[cfg(feature = "tun-tap")]
pub(crate) fn owned(iface: tun_tap::Iface) -> OwnedFd {
    // SAFETY: `Iface` owns its descriptor and `into_raw_fd` gives it away.
    unsafe { OwnedFd::from_raw_fd(iface.into_raw_fd()) }
}
