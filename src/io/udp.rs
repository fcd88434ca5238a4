//! Underlay sockets.

mod errors;
mod multicast;
mod receiver;
mod send_queue;

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::Received;
use super::sys::options;
use crate::batch::Batch;
use crate::error::Error;

pub(crate) use errors::{PathLesson, PathNews};
pub(crate) use receiver::Receiver;
pub(crate) use send_queue::SendQueue;

/// Passes nothing (`BPF_RET | BPF_K`, kernel `include/uapi/linux/bpf_common.h`).
const NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);

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
    /// Whether datagrams that arrive are dropped, so that nobody can take the room of the error queue.
    pub(crate) sends_only: bool,
    /// Whether datagrams may be fragmented; otherwise they carry DF and are refused above the path MTU.
    pub(crate) may_fragment: bool,
    /// Whether datagrams are sent without UDP checksum, and over IPv6 accepted without.
    pub(crate) send_unchecked: bool,
    pub(crate) accept_unchecked: bool,
    /// Whether received datagrams come with their TOS byte or traffic class.
    pub(crate) receive_tos: bool,
    /// The address on whose interface the socket becomes a member of the group that it is opened on.
    pub(crate) member: Option<IpAddr>,
    /// Microseconds for which a read that finds nothing looks into the network device's queue, if the kernel lets it.
    pub(crate) busy_poll: Option<u32>,
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
    /// Whether its datagrams have a checksum, without which the kernel refuses trains.
    checked: bool,
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
            options::set_accept_unchecked(socket.as_fd(), options.accept_unchecked)?;
        }
        if options.send_unchecked {
            options::send_unchecked(socket.as_fd(), local.is_ipv6())?;
        }
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        let interface = options.member.unwrap_or(local.ip());
        let address = multicast::prepare(&socket, local, interface)?;
        options::set_may_fragment(socket.as_fd(), local.is_ipv6(), options.may_fragment)?;
        if options.receive_tos {
            options::receive_tos(socket.as_fd(), local.is_ipv6())?;
        }
        // Without them everything works as well, but that nobody is told of narrow paths.
        let _ = options::report_errors(socket.as_fd(), local.is_ipv6());
        if options.sends_only {
            socket.attach_filter(&[NOTHING])?;
        }
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
        // Only saves time: without it everything arrives as well.
        if let Some(microseconds) = options.busy_poll {
            let microseconds = i32::try_from(microseconds).unwrap_or(i32::MAX);
            let _ = options::set_busy_poll(socket.as_fd(), microseconds);
        }
        // The kernel reports twice what was asked for, the other half being for bookkeeping.
        let buffers = Buffers {
            receive: socket.recv_buffer_size()? / 2,
            send: socket.send_buffer_size()? / 2,
        };
        socket.bind(&address.into())?;
        if options.member.is_some() {
            multicast::join(&socket, local.ip(), interface)?;
        }
        let local = socket.local_addr()?.as_socket().unwrap_or(local);
        Ok((Self { socket, local, checked: !options.send_unchecked }, buffers))
    }

    /// Whether trains can be sent at all: not without checksum.
    pub(crate) fn sends_trains(&self) -> bool {
        self.checked
    }

    /// Says whether datagrams sent from now on may be fragmented.
    ///
    /// # Errors
    ///
    /// None on a working kernel.
    pub(crate) fn set_may_fragment(&self, may: bool) -> io::Result<()> {
        options::set_may_fragment(self.socket.as_fd(), self.local.is_ipv6(), may)
    }

    /// The address that the socket is bound to.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The group of the underlay that the socket is a member of, if it is there for one.
    pub(crate) fn group(&self) -> Option<IpAddr> {
        Some(self.local.ip()).filter(IpAddr::is_multicast)
    }

    /// Datagrams that the socket dropped so far, mostly because its receive buffer was full; wraps at 2³².
    pub(crate) fn drops(&self) -> Option<u32> {
        options::drops(self.socket.as_fd()).ok()
    }

    /// Says whether the kernel may join datagrams on reception (`UDP_GRO`); returns whether that holds from now on.
    ///
    /// `false` comes of switching off alone, and means: receive until drained, then ask again. For the kernel says
    /// where the datagrams of a train end only as long as the option is on, so that trains which are in the socket
    /// already would be taken for one datagram. Switching off is therefore taken back at once if anything is in the
    /// socket. Only a train that another CPU is just putting there while the socket looks empty can slip through.
    ///
    /// # Errors
    ///
    /// `ENOPROTOOPT` before Linux 5.0.
    pub(crate) fn set_gro(&self, on: bool) -> io::Result<bool> {
        options::set_gro(self.socket.as_fd(), on)?;
        if on {
            return Ok(true);
        }
        match self.socket.peek(&mut []) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
            _ => {
                options::set_gro(self.socket.as_fd(), true)?;
                Ok(false)
            }
        }
    }

    /// Receives with one call: as many messages, each a datagram or several of one length, as the batch has room for
    /// and as the receiver holds good.
    ///
    /// The socket counts as drained when there were fewer. That is right with edge-triggered polling: a datagram
    /// that arrives later is a new event, and so is an error that ended the call early.
    pub(crate) fn receive(&self, receiver: &mut Receiver, batch: &mut Batch) -> Received {
        let mut received = Received::default();
        let offer = receiver.offer().min(batch.free());
        if offer == 0 {
            return received;
        }
        for _ in 0..MAX_ERRORS {
            let slots = batch.free_slots().take(offer);
            match receiver.group.receive(self.socket.as_fd(), slots) {
                Ok(count) => {
                    received.truncated = receiver.commit(count, batch);
                    received.drained = count < offer;
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
        Some(libc::ENODEV | libc::EADDRNOTAVAIL) if local.ip().is_multicast() => {
            "the interface that has the dataplane's address cannot be a member of the group".into()
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
