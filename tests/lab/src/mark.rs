//! Datagrams with the kernel's packet mark.

use std::ffi::c_int;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::error::{Attempt, corrupt};
use crate::{Namespace, sockopt};

/// A UDP socket that gives what it sends a mark and is told that of what it receives.
#[derive(Debug)]
pub struct MarkedSocket(UdpSocket);

impl MarkedSocket {
    /// A socket at an address, which waits for up to `patience` to receive something.
    ///
    /// # Errors
    ///
    /// When the address is taken or unknown, or for want of `CAP_NET_ADMIN`.
    pub fn bind(
        namespace: &Namespace,
        addr: SocketAddr,
        mark: u32,
        patience: Duration,
    ) -> io::Result<Self> {
        let bind = || {
            let socket = namespace.run(|| UdpSocket::bind(addr))?;
            sockopt::set(&socket, libc::SOL_SOCKET, libc::SO_MARK, mark as c_int)?;
            sockopt::set(&socket, libc::SOL_SOCKET, libc::SO_RCVMARK, 1)?;
            socket.set_read_timeout(Some(patience))?;
            Ok(Self(socket))
        };
        bind().attempt(|| format!("making a socket of mark {mark:#x} at {addr}"))
    }

    /// Sends a datagram.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn send_to(&self, content: &[u8], to: SocketAddr) -> io::Result<()> {
        self.0.send_to(content, to).attempt(|| format!("sending to {to}")).map(drop)
    }

    /// The content and the mark of the next datagram.
    ///
    /// # Errors
    ///
    /// When none comes in time.
    pub fn receive(&self) -> io::Result<(Vec<u8>, u32)> {
        let mut content = vec![0_u8; 1 << 16];
        // Room for one integer, aligned for its header.
        let mut control = [0_u64; 4];
        let mut piece =
            libc::iovec { iov_base: content.as_mut_ptr().cast(), iov_len: content.len() };
        // SAFETY: a `msghdr` is plain integers and pointers, for which zeroes are valid.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: the descriptor is open, and all pointers in the message are those of buffers of the lengths given,
        // which outlive the call.
        let length = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, 0) };
        if length < 0 {
            return Err(io::Error::last_os_error());
        }
        content.truncate(length as usize);
        // SAFETY: the kernel has filled the message in, so its first control message is inside the buffer if there is one.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
        let header =
            header.filter(|h| (h.cmsg_level, h.cmsg_type) == (libc::SOL_SOCKET, libc::SO_MARK));
        let header = header.ok_or_else(|| corrupt("a datagram without its mark"))?;
        // SAFETY: a control message of this kind has an integer behind its header (kernel `net/socket.c`).
        let mark = unsafe { libc::CMSG_DATA(header).cast::<u32>().read_unaligned() };
        Ok((content, mark))
    }
}
