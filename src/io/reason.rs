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

/// Whether the kernel may have refused an offload rather than the frame or datagram itself: what it says to a header
/// or option that it does not understand, or that the interface cannot carry out.
pub(crate) fn refuses_offload(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO))
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
