//! Underlay sockets.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::Received;
use super::sys::{
    mmsg::{ReceiveGroup, SendGroup},
    options,
};
use crate::batch::Batch;
use crate::error::Error;

/// Datagrams of one send call: enough to make the call itself cheap, few enough to stay in the cache.
const SEND_GROUP: usize = 64;

/// Errors that one receive passes over.
const MAX_ERRORS: usize = 8;

/// How to open an underlay socket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketOptions {
    /// Whether several sockets share the address, and the kernel spreads the datagrams over them.
    pub(crate) reuse_port: bool,
    /// Receive buffer in bytes; 0 leaves the kernel's default.
    pub(crate) receive_buffer: usize,
    /// Send buffer in bytes; 0 leaves the kernel's default.
    pub(crate) send_buffer: usize,
    /// Whether datagrams carry DF and are refused above the path MTU; otherwise they are fragmented.
    pub(crate) dont_fragment: bool,
}

/// Sizes of the buffers that the kernel gave, in bytes of which about half is taken by its own bookkeeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffers {
    /// Of the receive buffer.
    pub(crate) receive: usize,
    /// Of the send buffer.
    pub(crate) send: usize,
}

/// A bound underlay socket.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
}

impl UdpSocket {
    /// Opens a socket on `local`; port 0 lets the kernel choose.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with advice, for example when the port is taken.
    pub(crate) fn open(
        local: SocketAddr,
        options: &SocketOptions,
    ) -> Result<(Self, Buffers), Error> {
        Self::try_open(local, options).map_err(|error| {
            let advice = advice(&error, local);
            Error::io(format!("opening underlay socket {local}"), error, advice)
        })
    }

    fn try_open(local: SocketAddr, options: &SocketOptions) -> io::Result<(Self, Buffers)> {
        let kind = Type::DGRAM.nonblocking();
        let socket = Socket::new(Domain::for_address(local), kind, Some(Protocol::UDP))?;
        if local.is_ipv6() {
            socket.set_only_v6(true)?;
            options::accept_zero_checksums(socket.as_fd())?;
        }
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        options::set_dont_fragment(socket.as_fd(), local.is_ipv6(), options.dont_fragment)?;
        if options.receive_buffer > 0 {
            let wanted = bytes(options.receive_buffer);
            options::force_receive_buffer(socket.as_fd(), wanted)
                .or_else(|_| socket.set_recv_buffer_size(wanted as usize))?;
        }
        if options.send_buffer > 0 {
            let wanted = bytes(options.send_buffer);
            options::force_send_buffer(socket.as_fd(), wanted)
                .or_else(|_| socket.set_send_buffer_size(wanted as usize))?;
        }
        // The kernel reports twice what was asked for, the other half being for bookkeeping.
        let buffers = Buffers {
            receive: socket.recv_buffer_size()? / 2,
            send: socket.send_buffer_size()? / 2,
        };
        socket.bind(&local.into())?;
        let local = socket.local_addr()?.as_socket().unwrap_or(local);
        Ok((Self { socket, local }, buffers))
    }

    /// The address that the socket is bound to.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Datagrams that the socket dropped so far, mostly because its receive buffer was full; wraps at 2³².
    pub(crate) fn drops(&self) -> Option<u32> {
        options::drops(self.socket.as_fd()).ok()
    }

    /// Receives datagrams with one call, as many as the batch and the receiver have room for.
    ///
    /// The socket counts as drained when there were fewer. That is right with edge-triggered polling: a datagram
    /// that arrives later is a new event, and so is an error that ended the call early.
    pub(crate) fn receive(&self, receiver: &mut Receiver, batch: &mut Batch) -> Received {
        let mut received = Received::default();
        let wanted = receiver.group.capacity().min(batch.free());
        if wanted == 0 {
            return received;
        }
        for _ in 0..MAX_ERRORS {
            match receiver.group.receive(self.socket.as_fd(), batch.free_slots()) {
                Ok(count) => {
                    received.truncated = receiver.commit(count, batch);
                    received.drained = count < wanted;
                    return received;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    received.drained = true;
                    return received;
                }
                // Asking has taken the error from the socket; there may be datagrams behind it.
                Err(error) => received.failure = Some(error),
            }
        }
        received.drained = received.failure.is_some();
        received
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What to do about a socket that could not be opened on `local`.
fn advice(error: &io::Error, local: SocketAddr) -> Cow<'static, str> {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            "perhaps a kernel VXLAN device or another process holds the port; `ss -lunp` shows who, and no process \
             for a kernel device"
                .into()
        }
        Some(libc::EADDRNOTAVAIL) => {
            "the address is not on any interface of this network namespace".into()
        }
        Some(libc::EACCES) => "ports below 1024 need CAP_NET_BIND_SERVICE".into(),
        Some(libc::EAFNOSUPPORT) if local.is_ipv6() => "IPv6 is not available here".into(),
        Some(libc::EINVAL) if local.is_ipv6() => {
            "link-local underlay addresses are not supported".into()
        }
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files".into(),
        _ => "".into(),
    }
}

/// A buffer size as the kernel takes it, which doubles it without looking.
fn bytes(size: usize) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX).min(i32::MAX / 2)
}

/// What a worker needs to receive datagrams; reused for all its sockets.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(super) group: ReceiveGroup,
}

impl Receiver {
    /// Makes a receiver of up to `slots` datagrams a call, which should be the slots of the batch.
    pub(crate) fn new(slots: usize) -> Self {
        Self { group: ReceiveGroup::new(slots) }
    }

    /// Takes the datagrams that were received into the free slots, without those that were cut short; returns the
    /// number of these.
    pub(super) fn commit(&self, count: usize, batch: &mut Batch) -> usize {
        let mut truncated = 0;
        for index in 0..count {
            let message = self.group.message(index);
            let Some(source) = message.source.filter(|_| !message.truncated) else {
                truncated += 1;
                continue;
            };
            if truncated > 0 {
                close_gap(batch, truncated, message.len);
            }
            let committed = batch.commit_datagram(message.len, source);
            debug_assert!(committed);
        }
        truncated
    }
}

/// Copies `len` bytes into the next free slot from the one that is `gap` slots further on.
///
/// No slot is so small that a UDP datagram would be cut, so this never has to be fast.
#[cold]
fn close_gap(batch: &mut Batch, gap: usize, len: usize) {
    let mut slots = batch.free_slots();
    if let (Some(to), Some(from)) = (slots.next(), slots.nth(gap - 1)) {
        to[..len].copy_from_slice(&from[..len]);
    }
}

/// What a worker needs to send datagrams; reused for all its sockets.
#[derive(Debug)]
pub(crate) struct SendQueue {
    group: SendGroup,
}

impl SendQueue {
    pub(crate) fn new() -> Self {
        Self { group: SendGroup::new(SEND_GROUP) }
    }

    /// Sends datagrams from one socket in order, each consisting of the bytes of both parts.
    ///
    /// Calls `outcome` once for each, in order, with its position and its length or why it was not sent. After an
    /// error the next ones are tried, except that all others fail as well once the socket is full (`EAGAIN`). Makes at
    /// most one system call a datagram, and one for 64 if none fails.
    pub(crate) fn send<'a>(
        &mut self,
        socket: &UdpSocket,
        messages: impl IntoIterator<Item = (SocketAddr, [&'a [u8]; 2])>,
        mut outcome: impl FnMut(usize, io::Result<usize>),
    ) {
        let mut messages = messages.into_iter();
        let mut index = 0;
        let mut report = |result| {
            outcome(index, result);
            index += 1;
        };
        loop {
            let mut loaded = self.group.load(&mut messages);
            if loaded.len() == 0 {
                return;
            }
            while loaded.len() > 0 {
                let error = match loaded.send(socket.as_fd()) {
                    Ok(lengths) => {
                        lengths.for_each(|len| report(Ok(len)));
                        continue;
                    }
                    Err(error) => error,
                };
                match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => {
                        let unsent = loaded.len() + messages.count();
                        (0..unsent)
                            .for_each(|_| report(Err(io::Error::from_raw_os_error(libc::EAGAIN))));
                        return;
                    }
                    _ => {
                        loaded.skip();
                        report(Err(error));
                    }
                }
            }
        }
    }
}
