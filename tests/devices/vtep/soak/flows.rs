//! Traffic of all kinds between those who are on the overlay.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use overplane_lab::{Namespace, Ping, Random, Transfer, UdpFlow, ping, tcp_transfer, udp_flow};
use socket2::{Domain, Protocol, Socket, Type};

use super::{STATIONS, inner, link};

/// Between two beats.
const BEAT: Duration = Duration::from_millis(50);

/// Looks at what came of traffic: it may be lost while links and devices come and go, but never damaged.
fn assert_undamaged<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(report) => Some(report),
        Err(error) if error.kind() == ErrorKind::InvalidData => panic!("{error}"),
        Err(_) => None,
    }
}

/// One flow after the other, of all kinds, between any two stations.
pub(super) fn traffic(stations: &[Namespace; STATIONS], until: Instant, mut random: Random) {
    while Instant::now() < until {
        let from = random.of(0..=4) as usize;
        let to = (from + random.of(1..=4) as usize) % STATIONS;
        let (client, server) = (&stations[from], &stations[to]);
        let v6 = random.of(0..=1) == 1;
        let address = inner(to, v6);
        match random.of(0..=3) {
            0 => {
                let what = Transfer::of_bytes(random.of_any_size(1, 2 << 20));
                let report = tcp_transfer(client, server, SocketAddr::new(address, 0), what);
                assert_undamaged(report);
            }
            1 => {
                let packet = 1450 - if v6 { 48 } else { 28 };
                let duration = Duration::from_millis(random.of(20..=300));
                let what = UdpFlow { seed: random.number(), packet, duration, ordered: false };
                assert_undamaged(udp_flow(client, server, SocketAddr::new(address, 0), what));
            }
            2 => {
                let payload = random.of_any_size(1, 4000) as usize;
                let timeout = Duration::from_millis(100);
                assert_undamaged(ping(
                    client,
                    address,
                    Ping { payload, timeout, ..Ping::default() },
                ));
            }
            _ => {
                multicast_arrives(stations, from, v6);
            }
        }
    }
}

/// Whether a stream of so many bytes arrives.
pub(super) fn stream_arrives(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    bytes: u64,
) -> bool {
    let report = tcp_transfer(from, to, SocketAddr::new(address, 0), Transfer::of_bytes(bytes));
    assert_undamaged(report).is_some_and(|report| report.bytes == bytes)
}

/// Whether one of a few datagrams to a group that all others have joined reaches each of them.
pub(super) fn multicast_arrives(stations: &[Namespace; STATIONS], from: usize, v6: bool) -> bool {
    let group: IpAddr = match v6 {
        // "Organization-local" and administratively scoped: routed nowhere (RFC 7346, RFC 2365).
        true => Ipv6Addr::new(0xff08, 0, 0, 0, 0, 0, 0, 0x4242).into(),
        false => Ipv4Addr::new(239, 42, 42, 42).into(),
    };
    let attempt = || -> io::Result<bool> {
        let mut members = Vec::new();
        for to in (0..STATIONS).filter(|to| *to != from) {
            members.push(member(&stations[to], to, group)?);
        }
        // Each member has a port of its own; several tests of this may run at once.
        let sender = open(&stations[from], v6)?;
        let index = stations[from].index(link(from))?;
        match v6 {
            true => sender.set_multicast_if_v6(index)?,
            false => sender.set_multicast_if_v4(&inner_v4(from))?,
        }
        sender.bind(&SocketAddr::new(inner(from, v6), 0).into())?;
        for _ in 0..3 {
            for member in &members {
                let port = member.local_addr()?.as_socket().map_or(0, |address| address.port());
                let to = match group {
                    IpAddr::V6(group) => SocketAddrV6::new(group, port, 0, index).into(),
                    group => SocketAddr::new(group, port),
                };
                sender.send_to(b"to whom it may concern", &to.into())?;
            }
        }
        Ok(members.iter().all(|mut member| member.read(&mut [0; 64]).is_ok_and(|len| len == 22)))
    };
    attempt().unwrap_or(false)
}

fn inner_v4(station: usize) -> Ipv4Addr {
    match inner(station, false) {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

fn open(host: &Namespace, v6: bool) -> io::Result<Socket> {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    host.run(|| Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)))
}

/// A socket that has joined a group where the overlay is.
fn member(host: &Namespace, number: usize, group: IpAddr) -> io::Result<Socket> {
    let socket = open(host, group.is_ipv6())?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    match group {
        IpAddr::V4(group) => {
            socket.bind(&SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0).into())?;
            socket.join_multicast_v4(&group, &inner_v4(number))?;
        }
        IpAddr::V6(group) => {
            socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0).into())?;
            socket.join_multicast_v6(&group, host.index(link(number))?)?;
        }
    }
    Ok(socket)
}

/// A TCP connection that lasts as long as the test: a byte there and back again and again.
pub(super) struct Heartbeat {
    name: String,
    beats: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    ends: Vec<JoinHandle<()>>,
}

impl Heartbeat {
    pub(super) fn start(from: &Namespace, to: &Namespace, address: IpAddr) -> Self {
        let address = SocketAddr::new(address, 0);
        let listener = to.run(|| TcpListener::bind(address)).unwrap();
        let server = listener.local_addr().unwrap();
        let near = from.run(|| TcpStream::connect(server)).unwrap();
        let (far, client) = listener.accept().unwrap();
        let (beats, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(BEAT)).unwrap();
        }
        let echo = echo(far, over.clone());
        let beat = beat(near, beats.clone(), over.clone());
        let ends = vec![thread::spawn(echo), thread::spawn(beat)];
        Self { name: format!("the connection from {client} to {server}"), beats, over, ends }
    }

    /// How many bytes have come back.
    pub(super) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for end in self.ends.drain(..) {
            let _ = end.join();
        }
    }
}

/// Reads a byte; none if it is over, or the connection with it.
fn read(stream: &mut TcpStream, over: &AtomicBool) -> Option<u8> {
    let mut byte = [0];
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut byte) {
            Ok(1..) => return Some(byte[0]),
            Ok(0) => return None,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return None,
        }
    }
    None
}

fn echo(mut stream: TcpStream, over: Arc<AtomicBool>) -> impl FnOnce() + Send {
    move || {
        while let Some(byte) = read(&mut stream, &over) {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
        }
    }
}

fn beat(
    mut stream: TcpStream,
    beats: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
) -> impl FnOnce() + Send {
    move || {
        for number in (0..=u8::MAX).cycle() {
            if stream.write_all(&[number]).is_err() {
                return;
            }
            match read(&mut stream, &over) {
                Some(back) => assert_eq!(back, number, "a byte of a stream is another one"),
                None => return,
            }
            beats.fetch_add(1, Ordering::Relaxed);
            thread::sleep(BEAT);
        }
    }
}
