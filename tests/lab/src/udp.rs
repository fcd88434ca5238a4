//! UDP between two hosts: floods, and single datagrams of chosen sizes.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::panic;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Attempt, corrupt, timed_out};
use crate::{Namespace, Pattern, sockopt};

/// How many datagrams are received at once.
const BATCH: usize = 64;
/// How long nothing arrives until a flood has drained.
const QUIET: Duration = Duration::from_millis(100);
/// How long after its end a flood is still received, at most.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a single datagram may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The receive buffer asked for, in bytes.
const RECEIVE_BUFFER: libc::c_int = 8 << 20;

/// What came of a flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpReport {
    /// Datagrams that the sender's kernel took.
    pub sent: u64,
    /// Datagrams that arrived.
    pub received: u64,
    /// For how long datagrams were sent.
    pub elapsed: Duration,
}

impl UdpReport {
    /// Datagrams that arrived per second of sending.
    #[must_use]
    pub fn packets_per_second(&self) -> f64 {
        self.received as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The part of what was sent that did not arrive, from 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        1.0 - self.received as f64 / self.sent.max(1) as f64
    }
}

/// Sends datagrams of `payload` bytes in one flow, as fast as one thread can, and counts arrivals.
///
/// # Errors
///
/// When sockets can not be made or used; a datagram that is refused for want of room is not sent.
pub fn udp_flood(
    client: &Namespace,
    server: &Namespace,
    server_addr: SocketAddr,
    payload: usize,
    duration: Duration,
) -> io::Result<UdpReport> {
    let flood = || {
        let (near, far) = sockets(client, server, server_addr)?;
        far.set_read_timeout(Some(QUIET))?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let receiver = scope.spawn(|| count(&far, payload, &over));
            let sent = send_for(&near, payload, duration);
            over.store(true, Ordering::Release);
            let received = receiver.join().unwrap_or_else(|p| panic::resume_unwind(p))?;
            let (sent, elapsed) = sent?;
            Ok(UdpReport { sent, received, elapsed })
        })
    };
    flood().attempt(|| format!("flooding {server_addr} with datagrams of {payload} bytes"))
}

/// Sends datagrams of the given content sizes one after the other, and returns the sizes of those
/// that arrived within a second each.
///
/// One that is too large for the way or for the link is lost.
///
/// # Errors
///
/// When sockets can not be made or used, or a datagram arrives that is none of those sent.
pub fn udp_send_recv(
    client: &Namespace,
    server: &Namespace,
    server_addr: SocketAddr,
    sizes: &[usize],
) -> io::Result<Vec<usize>> {
    let send_all = || {
        let (near, far) = sockets(client, server, server_addr)?;
        let mut buffer = vec![0; 1 << 16];
        let mut arrived = Vec::new();
        for (number, &size) in sizes.iter().enumerate() {
            match near.send(&content(number).bytes(size)) {
                Err(e) if lost(&e) => continue,
                sent => sent?,
            };
            if arrives(&far, &mut buffer, &sizes[..=number])? {
                arrived.push(size);
            }
        }
        Ok(arrived)
    };
    send_all().attempt(|| format!("sending datagrams to {server_addr}"))
}

/// A socket in each namespace, the client's connected to the server's.
fn sockets(
    client: &Namespace,
    server: &Namespace,
    server_addr: SocketAddr,
) -> io::Result<(UdpSocket, UdpSocket)> {
    let far = server.run(|| UdpSocket::bind(server_addr)).attempt(|| "binding")?;
    sockopt::receive_buffer(&far, RECEIVE_BUFFER)?;
    let mut server_addr = server_addr;
    server_addr.set_port(far.local_addr()?.port());
    let any = match server_addr.ip() {
        IpAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        IpAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
    };
    let near = client.run(|| {
        let socket = UdpSocket::bind(any)?;
        socket.connect(server_addr)?;
        io::Result::Ok(socket)
    });
    Ok((near.attempt(|| "connecting")?, far))
}

/// Sends for a time; returns the number of datagrams taken and the time it took.
fn send_for(socket: &UdpSocket, payload: usize, duration: Duration) -> io::Result<(u64, Duration)> {
    let content = content(0).bytes(payload);
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < duration {
        for _ in 0..16 {
            match socket.send(&content) {
                Ok(_) => sent += 1,
                Err(e) if lost(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok((sent, start.elapsed()))
}

/// Counts the datagrams of `payload` bytes until it is over and none are left.
fn count(socket: &UdpSocket, payload: usize, over: &AtomicBool) -> io::Result<u64> {
    // A byte more than expected tells a longer datagram apart.
    let mut buffers = vec![vec![0_u8; payload + 1]; BATCH];
    let mut vectors: Vec<libc::iovec> = buffers
        .iter_mut()
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = vectors
        .iter_mut()
        .map(|vector| {
            // SAFETY: a message header is plain integers and pointers, for which zeroes are valid.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = ptr::from_mut(vector);
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let mut received = 0;
    let mut end = None;
    loop {
        if over.load(Ordering::Acquire) {
            let end = *end.get_or_insert_with(|| Instant::now() + DRAIN);
            if Instant::now() > end {
                return Ok(received);
            }
        }
        // SAFETY: the headers point to `vectors`, those to `buffers` with their true lengths; none
        // of them moves, and nothing else touches them before the loop ends.
        let taken = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE as _,
                ptr::null_mut(),
            )
        };
        if taken < 0 {
            let e = io::Error::last_os_error();
            if timed_out(&e) {
                if end.is_some() {
                    return Ok(received);
                }
            } else if e.kind() != io::ErrorKind::Interrupted {
                return Err(e);
            }
            continue;
        }
        let taken = messages.iter().take(taken as usize);
        received += taken.filter(|message| message.msg_len as usize == payload).count() as u64;
    }
}

/// Waits for the datagram of the last of `sizes`; false if it does not come.
fn arrives(socket: &UdpSocket, buffer: &mut [u8], sizes: &[usize]) -> io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left.max(Duration::from_micros(1))))?;
        let length = match socket.recv(buffer) {
            Ok(length) => length,
            Err(e) if timed_out(&e) => return Ok(false),
            Err(e) => return Err(e),
        };
        let data = &buffer[..length];
        let matches =
            |number: usize| sizes[number] == length && content(number).mismatch(0, data).is_none();
        let last = sizes.len() - 1;
        if matches(last) {
            return Ok(true);
        }
        // Those before may still come late.
        if !(0..last).any(matches) {
            let first = content(last).mismatch(0, data);
            return Err(corrupt(format!(
                "a datagram of {length} bytes arrived that is none of those sent: the last one had \
                 {}, and the first byte that differs is {first:?}",
                sizes[last]
            )));
        }
    }
}

fn content(number: usize) -> Pattern {
    Pattern::new(number as u64)
}

/// Whether a refusal to send means no more than a lost datagram.
fn lost(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EMSGSIZE | libc::ENOBUFS | libc::ECONNREFUSED | libc::EHOSTUNREACH)
    )
}
