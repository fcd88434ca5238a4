//! Receiving many datagrams with one call.
//!
//! The arrays are allocated once. Every pointer in them is written anew before each call that lets the kernel follow
//! it, and nothing follows one after the call.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::address::RawAddress;
use super::checked;
use super::cmsg::ControlBuffer;
use super::message::{MAX_MESSAGES, NO_BYTES, no_messages};

/// The arrays of `recvmmsg(2)`.
pub(crate) struct ReceiveGroup {
    messages: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    addresses: Box<[RawAddress]>,
    controls: Box<[ControlBuffer]>,
}

// SAFETY: the pointers inside are not followed between calls, so no other thread's memory is reached through them.
unsafe impl Send for ReceiveGroup {}

/// What one slot received: a datagram, or several of one length that the kernel has joined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    /// Bytes in its slot.
    pub(crate) len: usize,
    /// Length of each datagram but the last, which may be shorter; `None` if it is one datagram.
    pub(crate) stride: Option<usize>,
    /// Whether it was longer than its slot, or what the kernel had to say about it longer than the room for that.
    pub(crate) truncated: bool,
    /// TOS byte or traffic class of its IP header, if the socket is asked for it.
    pub(crate) tos: u8,
    /// Who sent it.
    pub(crate) source: Option<SocketAddr>,
}

impl Message {
    /// The number of datagrams, as far as they can be told apart.
    pub(crate) fn datagrams(&self) -> usize {
        self.stride.map_or(1, |stride| self.len.div_ceil(stride).max(1))
    }
}

impl ReceiveGroup {
    /// Makes room for up to `count` messages a call (1 to 1024; other values are brought into that range).
    pub(crate) fn new(count: usize) -> Self {
        let count = count.clamp(1, MAX_MESSAGES);
        Self {
            messages: no_messages(count),
            vectors: vec![NO_BYTES; count].into_boxed_slice(),
            addresses: vec![RawAddress::EMPTY; count].into_boxed_slice(),
            controls: vec![ControlBuffer::EMPTY; count].into_boxed_slice(),
        }
    }

    /// Most messages of one call.
    pub(crate) fn capacity(&self) -> usize {
        self.messages.len()
    }

    /// Receives one message into each of `slots`, in order, as long as there are any of both; does not wait.
    ///
    /// Returns how many were received; [`ReceiveGroup::message`] describes them.
    pub(crate) fn receive<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        slots: impl Iterator<Item = &'a mut [u8]>,
    ) -> io::Result<usize> {
        let mut count = 0;
        for (vector, slot) in self.vectors.iter_mut().zip(slots) {
            *vector = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            count += 1;
        }
        let vectors = self.vectors.as_mut_ptr();
        let addresses = self.addresses.as_mut_ptr();
        let controls = self.controls.as_mut_ptr();
        for (index, message) in self.messages[..count].iter_mut().enumerate() {
            let header = &mut message.msg_hdr;
            header.msg_name = addresses.wrapping_add(index).cast();
            header.msg_namelen = RawAddress::LEN;
            header.msg_iov = vectors.wrapping_add(index);
            header.msg_iovlen = 1;
            header.msg_control = controls.wrapping_add(index).cast();
            header.msg_controllen = ControlBuffer::LEN as _;
        }
        let received = {
            let (fd, messages) = (socket.as_raw_fd(), self.messages.as_mut_ptr());
            let (count, wait) = (count as libc::c_uint, std::ptr::null_mut());
            // SAFETY: the first `count` messages point to one vector, one address and one control buffer of this group
            // each, and the vectors to memory that the slots borrow mutably until this function returns.
            unsafe { libc::recvmmsg(fd, messages, count, libc::MSG_DONTWAIT as _, wait) }
        };
        Ok(checked(received)?.unsigned_abs() as usize)
    }

    /// What slot `index` of the last call received.
    pub(crate) fn message(&self, index: usize) -> Message {
        let message = &self.messages[index];
        let header = &message.msg_hdr;
        let notes = self.controls[index].notes(header.msg_controllen as _);
        Message {
            len: message.msg_len as usize,
            stride: notes.stride,
            tos: notes.tos,
            truncated: header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
            source: self.addresses[index].get(header.msg_namelen),
        }
    }
}

impl fmt::Debug for ReceiveGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveGroup").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}
