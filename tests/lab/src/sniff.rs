//! Raw frames, in and out of a link.

use std::ffi::c_int;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::error::{Attempt, timed_out};
use crate::{Namespace, sockopt};

/// More than the largest frame that a link hands over.
const BUFFER: usize = 1 << 18;
/// The receive buffer asked for, in bytes.
const RECEIVE_BUFFER: c_int = 8 << 20;

/// An eye on a link: whole frames that go over it, from its opening on, and a way to send them.
///
/// Frames are seen as the host sees them: on a virtual link they may be larger than its MTU, with
/// checksums not filled in, where the host leaves cutting and summing to the link.
#[derive(Debug)]
pub struct Sniffer {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Sniffer {
    /// Sees the frames that a host receives and sends on a link, but not those it injects itself.
    ///
    /// # Errors
    ///
    /// When there is no such link, or for want of `CAP_NET_RAW`.
    pub fn open(namespace: &Namespace, link: &str) -> io::Result<Self> {
        Self::bound(namespace, link, false).attempt(|| format!("sniffing on {link}"))
    }

    /// Sees only the frames that a host receives on a link.
    ///
    /// # Errors
    ///
    /// When there is no such link, or for want of `CAP_NET_RAW`.
    pub fn incoming(namespace: &Namespace, link: &str) -> io::Result<Self> {
        Self::bound(namespace, link, true).attempt(|| format!("sniffing on {link}"))
    }

    /// The next frame, waited for up to `timeout`; none too if the link went down.
    pub fn next(&mut self, timeout: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_micros(1));
            self.socket.set_read_timeout(Some(left)).ok()?;
            match (&self.socket).read(&mut self.buffer) {
                Ok(length) => return Some(self.buffer[..length].to_vec()),
                Err(e) if timed_out(&e) => return None,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // A link that goes down says so once, and may come up again.
                Err(_) if Instant::now() < deadline => {}
                Err(_) => return None,
            }
        }
    }

    /// The next frame that `wanted` is true for, waited for up to `timeout`; others are discarded.
    pub fn find(
        &mut self,
        timeout: Duration,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let frame = self.next(left)?;
            if wanted(&frame) {
                return Some(frame);
            }
            if left.is_zero() {
                return None;
            }
        }
    }

    /// All the frames that come within a time.
    pub fn collect(&mut self, time: Duration) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        self.find(time, |frame| {
            frames.push(frame.to_vec());
            false
        });
        frames
    }

    /// The frames that came so far.
    pub fn drain(&mut self) -> Vec<Vec<u8>> {
        let late = Instant::now() + Duration::from_secs(1);
        let mut frames = Vec::new();
        while let Some(frame) = self.next(Duration::ZERO) {
            frames.push(frame);
            // More may be coming all the time.
            if Instant::now() > late {
                break;
            }
        }
        frames
    }

    /// Sends a whole frame, Ethernet header first, out of the link.
    ///
    /// # Errors
    ///
    /// When the link is down or the frame too long for it.
    pub fn inject(&self, frame: &[u8]) -> io::Result<()> {
        self.socket
            .send(frame)
            .attempt(|| format!("sending a frame of {} bytes", frame.len()))
            .map(drop)
    }

    fn bound(namespace: &Namespace, link: &str, only_incoming: bool) -> io::Result<Self> {
        let index = namespace.find(link)?;
        // Without a protocol it sees nothing before it is bound to its link.
        let socket =
            namespace.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))))?;
        sockopt::receive_buffer(&socket, RECEIVE_BUFFER)?;
        if only_incoming {
            sockopt::set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        }
        socket.bind(&address(index)?)?;
        Ok(Self { socket, buffer: vec![0; BUFFER] })
    }
}

impl AsFd for Sniffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The address of all protocols on a link.
fn address(index: u32) -> io::Result<SockAddr> {
    // SAFETY: the storage is zeroed and large enough for any address, and the length set is that
    // of the address written to it.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage: *mut SockAddrStorage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            ptr::addr_of_mut!((*link).sll_family).write(libc::AF_PACKET as libc::sa_family_t);
            ptr::addr_of_mut!((*link).sll_protocol).write((libc::ETH_P_ALL as u16).to_be());
            ptr::addr_of_mut!((*link).sll_ifindex).write(index as c_int);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    Ok(address)
}
