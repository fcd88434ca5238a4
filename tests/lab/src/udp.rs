//! UDP between two hosts: floods, and single datagrams of chosen sizes.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Attempt, corrupt, timed_out};
use crate::receive_batch::ReceiveBatch;
use crate::{Namespace, Pattern, sockopt};

/// How long nothing arrives until a flood has drained.
const QUIET: Duration = Duration::from_millis(100);
/// How long after its end a flood is still received, at most.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a single datagram may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The receive buffer asked for, in bytes: enough for some 10,000 small datagrams.
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
    let far = receiver(server, server_addr)?;
    let near = sender(client, far.local_addr()?)?;
    Ok((near, far))
}

/// A socket that receives at an address, with a large buffer.
pub(crate) fn receiver(namespace: &Namespace, addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = namespace.run(|| UdpSocket::bind(addr)).attempt(|| "binding")?;
    sockopt::receive_buffer(&socket, RECEIVE_BUFFER)?;
    Ok(socket)
}

/// A socket of a port of its own, connected to an address.
pub(crate) fn sender(namespace: &Namespace, to: SocketAddr) -> io::Result<UdpSocket> {
    let any = match to.ip() {
        IpAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        IpAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
    };
    let socket = namespace.run(|| {
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        io::Result::Ok(socket)
    });
    socket.attempt(|| "connecting")
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
    let mut batch = ReceiveBatch::new(payload);
    let mut received = 0;
    let mut end = None;
    loop {
        if over.load(Ordering::Acquire) {
            let end = *end.get_or_insert_with(|| Instant::now() + DRAIN);
            if Instant::now() > end {
                return Ok(received);
            }
        }
        match batch.receive(socket) {
            Ok(lengths) => {
                received += lengths.filter(|length| *length == payload).count() as u64;
            }
            Err(e) if timed_out(&e) && end.is_some() => return Ok(received),
            Err(e) if timed_out(&e) || e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
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
pub(crate) fn lost(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EMSGSIZE | libc::ENOBUFS | libc::ECONNREFUSED | libc::EHOSTUNREACH)
    )
}
