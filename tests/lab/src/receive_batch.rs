//! Receiving many datagrams with one call.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::ptr;

/// How many datagrams are received at once.
const BATCH: usize = 64;

/// Buffers for a batch of datagrams, and what the kernel is told of them.
pub(crate) struct ReceiveBatch {
    messages: Vec<libc::mmsghdr>,
    /// What the messages point to.
    _vectors: Vec<libc::iovec>,
    /// What the vectors point to.
    _buffers: Vec<Vec<u8>>,
}

impl ReceiveBatch {
    /// Buffers for datagrams of `payload` bytes; of a longer one a byte more is kept, so that it can
    /// be told apart.
    pub(crate) fn new(payload: usize) -> Self {
        let mut buffers = vec![vec![0_u8; payload + 1]; BATCH];
        let vector = |buffer: &mut Vec<u8>| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        let mut vectors: Vec<_> = buffers.iter_mut().map(vector).collect();
        let message = |vector| {
            // SAFETY: a message header is plain integers and pointers, for which zeroes are valid.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = ptr::from_mut(vector);
            message.msg_hdr.msg_iovlen = 1;
            message
        };
        let messages = vectors.iter_mut().map(message).collect();
        Self { messages, _vectors: vectors, _buffers: buffers }
    }

    /// Waits for a datagram, takes what else is there, and returns the lengths.
    pub(crate) fn receive(
        &mut self,
        socket: &UdpSocket,
    ) -> io::Result<impl Iterator<Item = usize>> {
        // SAFETY: the headers point to the vectors, those to the buffers with their true lengths;
        // all of them are on the heap, live as long as `self`, and are touched by nothing else.
        let taken = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE as _,
                ptr::null_mut(),
            )
        };
        if taken < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(self.messages.iter().take(taken as usize).map(|message| message.msg_len as usize))
    }
}
