//! ICMP echo, with the content of every answer checked.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Attempt, corrupt, timed_out};
use crate::{Namespace, Pattern, sockopt};

/// The size of an echo message's header.
const HEADER: usize = 8;
/// More than the largest packet there can be.
const BUFFER: usize = 1 << 17;

/// How to ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// The size of the content of each request, in bytes, without any header.
    pub payload: usize,
    /// How many requests are sent.
    pub count: u32,
    /// The time from one request to the next; the next waits for the answer in any case.
    pub interval: Duration,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// Whether requests may not be fragmented; those too large for the way are lost then.
    pub dont_fragment: bool,
}

impl Default for Ping {
    /// Three requests of 56 bytes, 10 ms apart, with a second to answer each.
    fn default() -> Self {
        Self {
            payload: 56,
            count: 3,
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(1),
            dont_fragment: false,
        }
    }
}

/// What came of pinging.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PingReport {
    /// Requests sent, those counted that were too large to be.
    pub sent: u32,
    /// Requests answered in time.
    pub received: u32,
    /// Answers to requests that were answered already, or came too late.
    pub surplus: u32,
    /// The time each answer took, in the order of the requests.
    pub rtts: Vec<Duration>,
}

impl PingReport {
    /// The median time that an answer took; zero if there was none.
    #[must_use]
    pub fn median(&self) -> Duration {
        let mut rtts = self.rtts.clone();
        rtts.sort_unstable();
        rtts.get(rtts.len() / 2).copied().unwrap_or_default()
    }
}

/// Pings an address from a namespace, one request at a time.
///
/// # Errors
///
/// When requests can not be sent at all, or an answer's content is not that of its request. Loss is
/// none, and a request too large to be sent is lost.
pub fn ping(namespace: &Namespace, to: IpAddr, how: Ping) -> io::Result<PingReport> {
    run(namespace, to, how).attempt(|| format!("pinging {to} with {} bytes", how.payload))
}

/// Whether an address answers a ping with `payload` bytes from a namespace, in one of three tries
/// within 2 seconds in all.
#[must_use]
pub fn ping_ok(namespace: &Namespace, to: IpAddr, payload: usize) -> bool {
    let timeout = Duration::from_millis(660);
    let how = Ping { payload, count: 1, timeout, ..Ping::default() };
    (0..3).any(|_| {
        let start = Instant::now();
        if ping(namespace, to, how).is_ok_and(|report| report.received > 0) {
            return true;
        }
        thread::sleep(timeout.saturating_sub(start.elapsed()));
        false
    })
}

fn run(namespace: &Namespace, to: IpAddr, how: Ping) -> io::Result<PingReport> {
    let echo = Echo::open(namespace, to, how)?;
    let mut report = PingReport::default();
    let mut buffer = vec![0; BUFFER];
    for sequence in 0..how.count {
        let start = Instant::now();
        report.sent += 1;
        if echo.send(sequence)? {
            let answered = echo.receive(sequence, start + how.timeout, &mut buffer, &mut report)?;
            if answered {
                report.received += 1;
                report.rtts.push(start.elapsed());
            }
        }
        if sequence + 1 < how.count {
            thread::sleep(how.interval.saturating_sub(start.elapsed()));
        }
    }
    Ok(report)
}

/// One conversation of echo requests and answers.
struct Echo {
    socket: Socket,
    to: IpAddr,
    id: u16,
    payload: usize,
}

impl Echo {
    fn open(namespace: &Namespace, to: IpAddr, how: Ping) -> io::Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let (domain, protocol) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = namespace.run(|| Socket::new(domain, Type::RAW, Some(protocol)))?;
        sockopt::receive_buffer(&socket, 1 << 20)?;
        sockopt::dont_fragment(&socket, to.is_ipv6(), how.dont_fragment)?;
        let id = (std::process::id() as u16).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Self { socket, to, id, payload: how.payload })
    }

    /// Sends a request; false if it is lost right here.
    fn send(&self, sequence: u32) -> io::Result<bool> {
        let mut message = vec![0; HEADER];
        message[0] = if self.to.is_ipv4() { 8 } else { 128 };
        message[4..6].copy_from_slice(&self.id.to_be_bytes());
        message[6..8].copy_from_slice(&(sequence as u16).to_be_bytes());
        message.extend(self.content(sequence).bytes(self.payload));
        if self.to.is_ipv4() {
            // The kernel does it for IPv6.
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        match self.socket.send_to(&message, &SocketAddr::new(self.to, 0).into()) {
            Ok(_) => Ok(true),
            Err(e) => match e.raw_os_error() {
                Some(libc::EMSGSIZE | libc::ENOBUFS | libc::EHOSTUNREACH) => Ok(false),
                _ => Err(e),
            },
        }
    }

    /// Waits for the answer to a request; false if there is none in time.
    fn receive(
        &self,
        sequence: u32,
        deadline: Instant,
        buffer: &mut [u8],
        report: &mut PingReport,
    ) -> io::Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.socket.set_read_timeout(Some(left.max(Duration::from_micros(1))))?;
            let (length, from) = match self.receive_from(buffer) {
                Ok(received) => received,
                Err(e) if timed_out(&e) => return Ok(false),
                Err(e) if e.raw_os_error() == Some(libc::EHOSTUNREACH) => continue,
                Err(e) => return Err(e),
            };
            let packet = &buffer[..length];
            let message = if self.to.is_ipv4() { after_ipv4(packet) } else { Some(packet) };
            let Some(message) = message.filter(|m| self.is_answer(m)) else { continue };
            if from != Some(self.to) && !self.to.is_multicast() {
                continue;
            }
            let answered = u16::from_be_bytes([message[6], message[7]]);
            if answered != sequence as u16 {
                report.surplus += 1;
                continue;
            }
            self.check(sequence, message)?;
            return Ok(true);
        }
    }

    fn receive_from(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<IpAddr>)> {
        // SAFETY: `MaybeUninit<u8>` has the layout of `u8`, and `recv_from` writes nothing to the
        // buffer but received, and so initialized, bytes.
        let buffer = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) };
        let (length, from) = self.socket.recv_from(buffer)?;
        Ok((length, from.as_socket().map(|from| from.ip())))
    }

    fn is_answer(&self, message: &[u8]) -> bool {
        let kind = if self.to.is_ipv4() { 0 } else { 129 };
        message.len() >= HEADER && message[0] == kind && message[4..6] == self.id.to_be_bytes()
    }

    fn check(&self, sequence: u32, message: &[u8]) -> io::Result<()> {
        let content = &message[HEADER..];
        if self.to.is_ipv4() && checksum(message) != 0 {
            return Err(corrupt(format!("the answer to request {sequence} has a wrong checksum")));
        }
        if let Some(offset) = self.content(sequence).mismatch(0, content) {
            return Err(corrupt(format!(
                "the answer to request {sequence} differs from it at byte {offset}"
            )));
        }
        if content.len() != self.payload {
            let length = content.len();
            return Err(corrupt(format!("the answer to request {sequence} has {length} bytes")));
        }
        Ok(())
    }

    fn content(&self, sequence: u32) -> Pattern {
        Pattern::new(u64::from(self.id) << 32 | u64::from(sequence))
    }
}

/// What follows the header of an IPv4 packet.
fn after_ipv4(packet: &[u8]) -> Option<&[u8]> {
    packet.get(usize::from(packet.first()? & 0xf) * 4..)
}

/// The Internet checksum; zero over what includes a right one.
fn checksum(bytes: &[u8]) -> u16 {
    let mut pairs = bytes.chunks_exact(2);
    let mut sum: u64 = pairs.by_ref().map(|p| u64::from(u16::from_be_bytes([p[0], p[1]]))).sum();
    if let [last] = pairs.remainder() {
        sum += u64::from(*last) << 8;
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{PingReport, checksum};

    #[test]
    fn a_checksum_closes() {
        let mut message = vec![8, 0, 0, 0, 1, 2, 3, 4, 0xff, 0xfe, 0xab];
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&message), 0);
    }

    #[test]
    fn the_median_is_the_middle() {
        let rtts = [9, 1, 5].map(Duration::from_millis).to_vec();
        assert_eq!(PingReport { rtts, ..PingReport::default() }.median(), Duration::from_millis(5));
        assert_eq!(PingReport::default().median(), Duration::ZERO);
    }
}
