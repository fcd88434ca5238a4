//! Which drop reason an error of the operating system stands for.

use std::io;

use crate::drop_reason::DropReason;

/// Why a device did not take a frame.
pub(crate) fn port_reason(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropReason::PortFull,
        Some(libc::EIO) => DropReason::PortDown,
        // The last is how a channel says that the embedder has dropped its side.
        Some(libc::EBADFD | libc::EBADF | libc::ENODEV | libc::ENXIO | libc::EPIPE) => {
            DropReason::PortLost
        }
        _ => DropReason::PortFailed,
    }
}

/// Why an underlay socket did not take a datagram.
pub(crate) fn underlay_reason(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropReason::UnderlayFull,
        Some(libc::EMSGSIZE) => DropReason::UnderlayTooBig,
        Some(
            libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ECONNREFUSED
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EADDRNOTAVAIL,
        ) => DropReason::UnderlayUnreachable,
        Some(libc::EPERM | libc::EACCES) => DropReason::UnderlayDenied,
        _ => DropReason::UnderlayFailed,
    }
}
