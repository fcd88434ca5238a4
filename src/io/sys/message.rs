//! Message headers of `recvmmsg(2)` and `sendmmsg(2)`.

/// Most messages that one call takes (kernel `include/uapi/linux/uio.h`, `UIO_MAXIOV`).
pub(super) const MAX_MESSAGES: usize = 1024;

/// Most runs of bytes that one message consists of (the same).
pub(super) const MAX_VECTORS: usize = 1024;

pub(super) const NO_BYTES: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// `count` messages without address and bytes.
pub(super) fn no_messages(count: usize) -> Box<[libc::mmsghdr]> {
    // SAFETY: zero is a valid value of every field: null pointers and lengths of 0.
    let empty: libc::mmsghdr = unsafe { std::mem::zeroed() };
    vec![empty; count].into_boxed_slice()
}
