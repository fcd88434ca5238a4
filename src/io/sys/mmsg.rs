//! Receiving and sending many datagrams with one call.
//!
//! The arrays are allocated once. Every pointer in them is written anew before each call that lets the kernel follow
//! it, and nothing follows one after the call.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::address::RawAddress;
use super::checked;

/// Most messages that one call takes (kernel `include/uapi/linux/uio.h`, `UIO_MAXIOV`).
const MAX_MESSAGES: usize = 1024;

const NO_BYTES: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// `count` messages without address and bytes.
fn no_messages(count: usize) -> Box<[libc::mmsghdr]> {
    // SAFETY: zero is a valid value of every field: null pointers and lengths of 0.
    let empty: libc::mmsghdr = unsafe { std::mem::zeroed() };
    vec![empty; count].into_boxed_slice()
}

/// The arrays of `recvmmsg(2)`.
pub(crate) struct ReceiveGroup {
    messages: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    addresses: Box<[RawAddress]>,
}

// SAFETY: the pointers inside are not followed between calls, so no other thread's memory is reached through them.
unsafe impl Send for ReceiveGroup {}

/// One received datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    /// Bytes in its slot.
    pub(crate) len: usize,
    /// Whether it was longer than its slot.
    pub(crate) truncated: bool,
    /// Who sent it.
    pub(crate) source: Option<SocketAddr>,
}

impl ReceiveGroup {
    /// Makes room for up to `count` datagrams a call (1 to 1024; other values are brought into that range).
    pub(crate) fn new(count: usize) -> Self {
        let count = count.clamp(1, MAX_MESSAGES);
        Self {
            messages: no_messages(count),
            vectors: vec![NO_BYTES; count].into_boxed_slice(),
            addresses: vec![RawAddress::EMPTY; count].into_boxed_slice(),
        }
    }

    /// Most datagrams of one call.
    pub(crate) fn capacity(&self) -> usize {
        self.messages.len()
    }

    /// Receives one datagram into each of `slots`, in order, as long as there are any of both; does not wait.
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
        for (index, message) in self.messages[..count].iter_mut().enumerate() {
            let header = &mut message.msg_hdr;
            header.msg_name = addresses.wrapping_add(index).cast();
            header.msg_namelen = RawAddress::LEN;
            header.msg_iov = vectors.wrapping_add(index);
            header.msg_iovlen = 1;
        }
        let received = {
            let (fd, messages) = (socket.as_raw_fd(), self.messages.as_mut_ptr());
            let (count, wait) = (count as libc::c_uint, std::ptr::null_mut());
            // SAFETY: the first `count` messages point to one vector and one address of this group each, and the
            // vectors to memory that the slots borrow mutably until this function returns.
            unsafe { libc::recvmmsg(fd, messages, count, libc::MSG_DONTWAIT as _, wait) }
        };
        Ok(checked(received)?.unsigned_abs() as usize)
    }

    /// The datagram in slot `index` of the last call.
    pub(crate) fn message(&self, index: usize) -> Message {
        let message = &self.messages[index];
        Message {
            len: message.msg_len as usize,
            truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            source: self.addresses[index].get(message.msg_hdr.msg_namelen),
        }
    }
}

impl fmt::Debug for ReceiveGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveGroup").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

/// The arrays of `sendmmsg(2)`.
pub(crate) struct SendGroup {
    messages: Box<[libc::mmsghdr]>,
    vectors: Box<[[libc::iovec; 2]]>,
    addresses: Box<[RawAddress]>,
}

// SAFETY: the pointers inside are not followed between calls, so no other thread's memory is reached through them.
unsafe impl Send for SendGroup {}

impl SendGroup {
    /// Makes room for up to `count` datagrams a call (1 to 1024; other values are brought into that range).
    pub(crate) fn new(count: usize) -> Self {
        let count = count.clamp(1, MAX_MESSAGES);
        Self {
            messages: no_messages(count),
            vectors: vec![[NO_BYTES; 2]; count].into_boxed_slice(),
            addresses: vec![RawAddress::EMPTY; count].into_boxed_slice(),
        }
    }

    /// Takes as many datagrams from `datagrams` as there is room for.
    ///
    /// Each consists of the bytes of both parts, and goes to the address.
    pub(crate) fn load<'q, 'a>(
        &'q mut self,
        datagrams: &mut impl Iterator<Item = (SocketAddr, [&'a [u8]; 2])>,
    ) -> Loaded<'q, 'a> {
        let mut count = 0;
        let room = self.vectors.iter_mut().zip(&mut self.addresses).zip(&mut self.messages);
        // The datagrams come last, so that none is taken when the room is used up.
        for (((vectors, address), message), (receiver, parts)) in room.zip(datagrams) {
            message.msg_hdr.msg_namelen = address.set(receiver);
            *vectors = parts.map(|part| libc::iovec {
                iov_base: part.as_ptr().cast_mut().cast(),
                iov_len: part.len(),
            });
            count += 1;
        }
        let vectors: *mut [libc::iovec; 2] = self.vectors.as_mut_ptr();
        let addresses = self.addresses.as_mut_ptr();
        for (index, message) in self.messages[..count].iter_mut().enumerate() {
            let header = &mut message.msg_hdr;
            header.msg_name = addresses.wrapping_add(index).cast();
            header.msg_iov = vectors.wrapping_add(index).cast();
            header.msg_iovlen = 2;
        }
        Loaded { group: self, waiting: 0..count, parts: PhantomData }
    }
}

impl fmt::Debug for SendGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendGroup").field("capacity", &self.messages.len()).finish_non_exhaustive()
    }
}

/// Datagrams ready to be sent; borrows their bytes.
#[derive(Debug)]
pub(crate) struct Loaded<'q, 'a> {
    group: &'q mut SendGroup,
    waiting: Range<usize>,
    parts: PhantomData<&'a [u8]>,
}

impl Loaded<'_, '_> {
    /// Number of datagrams neither sent nor skipped.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Sends waiting datagrams in order up to the first that fails, without waiting, and returns the length of
    /// each of those sent.
    ///
    /// # Errors
    ///
    /// That of the first waiting datagram; it stays waiting.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
    ) -> io::Result<impl Iterator<Item = usize>> {
        let Range { start, end } = self.waiting;
        let sent = {
            let messages = self.group.messages[start..end].as_mut_ptr();
            let (fd, count) = (socket.as_raw_fd(), (end - start) as libc::c_uint);
            // SAFETY: `load` made these messages point to vectors and addresses of the group, which this value
            // borrows mutably since then, and the vectors to bytes that it borrows.
            unsafe { libc::sendmmsg(fd, messages, count, libc::MSG_DONTWAIT as _) }
        };
        let sent = checked(sent)?.unsigned_abs() as usize;
        self.waiting.start = end.min(start + sent);
        let messages = &self.group.messages[start..self.waiting.start];
        Ok(messages.iter().map(|message| message.msg_len as usize))
    }

    /// Gives up the first waiting datagram.
    pub(crate) fn skip(&mut self) {
        self.waiting.next();
    }
}
