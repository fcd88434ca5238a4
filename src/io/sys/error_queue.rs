//! The error queue of a socket: which datagrams came to grief, and what a router or this node had to say of it.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::address::RawAddress;
use super::cmsg;

/// Bytes of `struct sock_extended_err` (kernel `include/uapi/linux/errqueue.h`): `ee_errno`, `ee_origin`, `ee_type`,
/// `ee_code`, a byte of padding, `ee_info`, `ee_data`.
const EXTENDED_ERROR: usize = 16;

/// `ee_origin` of what this node refused itself; other origins are ICMP of both families (same file).
const SO_EE_ORIGIN_LOCAL: u8 = 1;

/// Room for an extended error with the address of who reported it, and for what else the socket may be asked to say.
const CONTROL: usize = 256;

/// One entry of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketError {
    /// Where the datagram was going; the kernel does not always say to which port.
    pub(crate) to: IpAddr,
    pub(crate) errno: i32,
    /// Whether this node refused the datagram itself, and so the call that was to send it.
    pub(crate) local: bool,
    /// The MTU in bytes, when the datagram was too large (`EMSGSIZE`).
    pub(crate) info: u32,
}

#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Takes the next entry from the queue, without waiting; `None` when there is none.
///
/// Sockets have entries once [`report_errors`](super::options::report_errors) has asked for them.
pub(crate) fn next(socket: BorrowedFd<'_>) -> Option<SocketError> {
    let mut address = RawAddress::EMPTY;
    let mut control = Control([0; CONTROL]);
    // What is left of the datagram itself is not asked for.
    // SAFETY: all bytes zero are a `msghdr` without address, vectors and control messages.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = std::ptr::from_mut(&mut address).cast();
    header.msg_namelen = RawAddress::LEN;
    header.msg_control = std::ptr::from_mut(&mut control).cast();
    header.msg_controllen = CONTROL as _;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the header points to an address and a control buffer of the lengths it says, both on this stack.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    if received < 0 {
        return None;
    }
    let to = address.get(header.msg_namelen)?.ip();
    let len = (header.msg_controllen as usize).min(CONTROL);
    let error = parse(&control.0[..len])?;
    let word = |at: usize| [error[at], error[at + 1], error[at + 2], error[at + 3]];
    Some(SocketError {
        to,
        errno: i32::from_ne_bytes(word(0)),
        local: error[4] == SO_EE_ORIGIN_LOCAL,
        info: u32::from_ne_bytes(word(8)),
    })
}

/// The extended error among control messages.
fn parse(mut control: &[u8]) -> Option<&[u8; EXTENDED_ERROR]> {
    while let Some((message, rest)) = cmsg::split(control) {
        control = rest;
        let (level, kind, data) = cmsg::parts(message)?;
        let wanted = [(libc::SOL_IP, libc::IP_RECVERR), (libc::SOL_IPV6, libc::IPV6_RECVERR)];
        if wanted.contains(&(level, kind))
            && let Some(error) = data.first_chunk()
        {
            return Some(error);
        }
    }
    None
}
