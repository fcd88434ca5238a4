//! TCP between two hosts: bulk, checked to the byte, and request and answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Attempt, corrupt, invalid, timed_out};
use crate::{Namespace, Pattern, sockopt};

/// How much is handed to the kernel at a time, in bytes.
pub(crate) const CHUNK: usize = 1 << 18;
/// How long a transfer of so many bytes may take in all.
const BYTES_LIMIT: Duration = Duration::from_secs(60);
/// How much longer than its duration a transfer may take to finish.
const DURATION_SLACK: Duration = Duration::from_secs(20);
/// How long a socket operation blocks before the deadline is looked at.
const TICK: Duration = Duration::from_millis(200);

/// What to transfer; at least one of `bytes` and `duration` is needed, and the first reached ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// How many bytes, over all streams.
    pub bytes: Option<u64>,
    /// For how long.
    pub duration: Option<Duration>,
    /// Whether every byte is checked on arrival, which costs time on both sides.
    pub check: bool,
    /// Over how many connections at once.
    pub streams: usize,
}

impl Transfer {
    /// So many bytes over one stream, each checked.
    #[must_use]
    pub fn of_bytes(bytes: u64) -> Self {
        Self { bytes: Some(bytes), duration: None, check: true, streams: 1 }
    }

    /// As much as goes in a time over one stream, unchecked: for measuring.
    #[must_use]
    pub fn of_duration(duration: Duration) -> Self {
        Self { bytes: None, duration: Some(duration), check: false, streams: 1 }
    }
}

/// What came of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferReport {
    /// Bytes that arrived, over all streams.
    pub bytes: u64,
    /// The time from the first byte sent to the last one's arrival.
    pub elapsed: Duration,
    /// Segments sent again, over all streams.
    pub retransmits: u32,
}

impl TransferReport {
    /// The rate in 10⁹ bits of content per second.
    #[must_use]
    pub fn gbps(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.elapsed.as_secs_f64().max(1e-9) / 1e9
    }
}

/// Sends a pseudo-random stream from one host to another, which listens at `server_addr`.
///
/// Ends by itself: within 60 seconds for bytes, within 20 more than the duration otherwise.
///
/// # Errors
///
/// When a connection can not be made or breaks, its deadline passes, or a byte that arrived is not
/// the one sent; the message has its offset.
pub fn tcp_transfer(
    client: &Namespace,
    server: &Namespace,
    server_addr: SocketAddr,
    what: Transfer,
) -> io::Result<TransferReport> {
    transfer(client, server, server_addr, what)
        .attempt(|| format!("transferring over TCP to {server_addr}"))
}

/// Sends a byte back and forth `count` times and returns how long each took.
///
/// # Errors
///
/// When the connection can not be made or breaks, or it takes over 60 seconds.
pub fn tcp_echo_latency(
    client: &Namespace,
    server: &Namespace,
    server_addr: SocketAddr,
    count: usize,
) -> io::Result<Vec<Duration>> {
    echo(client, server, server_addr, count)
        .attempt(|| format!("echoing over TCP with {server_addr}"))
}

fn transfer(
    client: &Namespace,
    server: &Namespace,
    server_addr: SocketAddr,
    what: Transfer,
) -> io::Result<TransferReport> {
    let limit = match (what.bytes, what.duration) {
        (None, None) => return Err(invalid("neither a number of bytes nor a duration is given")),
        (_, Some(duration)) => duration + DURATION_SLACK,
        (Some(_), None) => BYTES_LIMIT,
    };
    if what.streams == 0 {
        return Err(invalid("no stream to transfer over"));
    }
    let deadline = Deadline(Instant::now() + limit);
    let pairs = connect(client, server, server_addr, what.streams, deadline)?;
    let start = Instant::now();
    let end = what.duration.map(|duration| start + duration);
    thread::scope(|scope| {
        let streams = pairs.into_iter().enumerate().map(|(number, (from, to))| {
            let share = what.bytes.map(|bytes| share(bytes, what.streams, number));
            let job = Job { number, share, end, check: what.check, deadline };
            (scope.spawn(move || job.send(from)), scope.spawn(move || job.receive(to)))
        });
        let streams: Vec<_> = streams.collect();
        let mut report = TransferReport { bytes: 0, elapsed: Duration::ZERO, retransmits: 0 };
        for (sender, receiver) in streams {
            let (sent, received) = (join(sender), join(receiver));
            // Where both failed the receiver knows why: the sender saw its end go away.
            let (arrived, at) = received?;
            let (sent, retransmits) = sent?;
            if arrived != sent {
                return Err(corrupt(format!("{arrived} bytes arrived of {sent} sent")));
            }
            report.bytes += arrived;
            report.elapsed = report.elapsed.max(at.saturating_duration_since(start));
            report.retransmits += retransmits;
        }
        Ok(report)
    })
}

/// The part of `bytes` that stream `number` of `streams` has.
fn share(bytes: u64, streams: usize, number: usize) -> u64 {
    bytes / streams as u64 + u64::from((number as u64) < bytes % streams as u64)
}

/// The work of one stream.
#[derive(Clone, Copy)]
struct Job {
    number: usize,
    share: Option<u64>,
    end: Option<Instant>,
    check: bool,
    deadline: Deadline,
}

impl Job {
    fn pattern(&self) -> Pattern {
        Pattern::new(self.number as u64)
    }

    /// Sends until the share or the time is used up; returns the bytes sent and retransmissions.
    fn send(&self, mut stream: TcpStream) -> io::Result<(u64, u32)> {
        let mut chunk = self.pattern().bytes(CHUNK);
        let mut sent = 0;
        while self.end.is_none_or(|end| Instant::now() < end) {
            let left = self.share.map_or(CHUNK as u64, |share| share - sent);
            let length = left.min(CHUNK as u64) as usize;
            if length == 0 {
                break;
            }
            if self.check {
                self.pattern().fill(sent, &mut chunk[..length]);
            }
            self.deadline.write_all(&mut stream, &chunk[..length])?;
            sent += length as u64;
        }
        stream.shutdown(Shutdown::Write)?;
        // The other end closes when it has everything, and then nothing is sent again any more.
        self.deadline.read(&mut stream, &mut [0])?;
        Ok((sent, sockopt::tcp_retransmits(&stream)?))
    }

    /// Receives to the end; returns the bytes that arrived and when the last did.
    fn receive(&self, mut stream: TcpStream) -> io::Result<(u64, Instant)> {
        let mut chunk = vec![0; CHUNK];
        let mut arrived = 0;
        loop {
            let length = self.deadline.read(&mut stream, &mut chunk)?;
            if length == 0 {
                return Ok((arrived, Instant::now()));
            }
            let wrong = || self.pattern().mismatch(arrived, &chunk[..length]);
            if let Some(offset) = self.check.then(wrong).flatten() {
                return Err(corrupt(format!(
                    "stream {} differs from what was sent at byte {offset}",
                    self.number
                )));
            }
            arrived += length as u64;
        }
    }
}

fn echo(
    client: &Namespace,
    server: &Namespace,
    server_addr: SocketAddr,
    count: usize,
) -> io::Result<Vec<Duration>> {
    let deadline = Deadline(Instant::now() + BYTES_LIMIT);
    let mut pairs = connect(client, server, server_addr, 1, deadline)?;
    let Some((mut near, mut far)) = pairs.pop() else { return Ok(Vec::new()) };
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    thread::scope(|scope| {
        let answering = scope.spawn(move || {
            let mut byte = [0];
            while deadline.read(&mut far, &mut byte)? != 0 {
                deadline.write_all(&mut far, &byte)?;
            }
            io::Result::Ok(())
        });
        let asking = scope.spawn(move || {
            let mut times = Vec::with_capacity(count);
            for number in 0..count {
                let (sent, mut byte) = ([number as u8], [0]);
                let start = Instant::now();
                deadline.write_all(&mut near, &sent)?;
                if deadline.read(&mut near, &mut byte)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                times.push(start.elapsed());
                if byte != sent {
                    return Err(corrupt(format!("echo {number} is another byte")));
                }
            }
            Ok(times)
        });
        let times = join(asking)?;
        join(answering)?;
        Ok(times)
    })
}

/// Makes connections, each as its client's and its server's end.
pub(crate) fn connect(
    client: &Namespace,
    server: &Namespace,
    server_addr: SocketAddr,
    count: usize,
    deadline: Deadline,
) -> io::Result<Vec<(TcpStream, TcpStream)>> {
    let listener = server.run(|| listen(server_addr, deadline)).attempt(|| "listening")?;
    let mut server_addr = server_addr;
    server_addr.set_port(listener.local_addr()?.port());
    let one = || {
        let near = client.run(|| TcpStream::connect_timeout(&server_addr, deadline.left()?));
        let near = near.attempt(|| "connecting")?;
        let (far, _) = listener.accept().attempt(|| "accepting")?;
        for end in [&near, &far] {
            end.set_read_timeout(Some(TICK))?;
            end.set_write_timeout(Some(TICK))?;
        }
        Ok((near, far))
    };
    (0..count).map(|_| one()).collect()
}

/// Listens in the calling thread's namespace; accepting ends at the deadline.
fn listen(addr: SocketAddr, deadline: Deadline) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.set_read_timeout(Some(deadline.left()?))?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// When everything has to be over.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(pub(crate) Instant);

impl Deadline {
    fn left(self) -> io::Result<Duration> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long"));
        }
        Ok(left)
    }

    /// Reads what there is; nothing at the end of the stream.
    fn read(self, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match stream.read(buffer) {
                Err(e) if timed_out(&e) || e.kind() == io::ErrorKind::Interrupted => self.left()?,
                done => return done,
            };
        }
    }

    fn write_all(self, stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(e) if timed_out(&e) || e.kind() == io::ErrorKind::Interrupted => {
                    self.left()?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn join<T>(worker: ScopedJoinHandle<'_, T>) -> T {
    worker.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::{Deadline, Job, share};

    #[test]
    fn shares_add_up() {
        for (bytes, streams) in [(0, 1), (10, 3), (11, 3), (12, 3), (2, 5)] {
            assert_eq!((0..streams).map(|n| share(bytes, streams, n)).sum::<u64>(), bytes);
        }
    }

    #[test]
    fn a_wrong_byte_is_reported_with_its_offset() -> io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let mut near = TcpStream::connect(listener.local_addr()?)?;
        let far = listener.accept()?.0;
        let deadline = Deadline(Instant::now() + Duration::from_secs(5));
        let job = Job { number: 1, share: None, end: None, check: true, deadline };
        let mut bytes = job.pattern().bytes(10_000);
        bytes[7_777] ^= 0x80;
        near.write_all(&bytes)?;
        drop(near);
        let error = job.receive(far).expect_err("a wrong byte");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().ends_with("byte 7777"), "{error}");
        Ok(())
    }

    #[test]
    fn what_does_not_come_times_out() -> io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let _near = TcpStream::connect(listener.local_addr()?)?;
        let far = listener.accept()?.0;
        far.set_read_timeout(Some(Duration::from_millis(5)))?;
        let deadline = Deadline(Instant::now() + Duration::from_millis(30));
        let job = Job { number: 0, share: None, end: None, check: false, deadline };
        let error = job.receive(far).expect_err("nothing comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        Ok(())
    }
}
