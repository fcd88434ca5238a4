//! One flow of UDP datagrams of all sizes, each checked for its content and its place.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Attempt, corrupt, timed_out};
use crate::pattern::mix;
use crate::udp::{lost, receiver, sender};
use crate::{Namespace, Pattern, Random, sockopt};

/// Datagrams that may be on their way at a time: few enough for every queue on the way.
const WINDOW: u64 = 128;
/// How long the sender waits for the window to move before it takes what is on its way for lost.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long the last datagrams are waited for, which may be long on a busy machine.
const DRAIN: Duration = Duration::from_secs(3);
/// How often the receiver looks whether it is over.
const TICK: Duration = Duration::from_millis(20);
/// The most datagrams in a row of one size.
const RUN: u64 = 16;
/// Bytes of the number that every datagram which has room for it begins with.
const NUMBER: usize = 8;

/// A flow to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpFlow {
    /// What sizes and contents follow from.
    pub seed: u64,
    /// The largest content of a packet on the way, in bytes: sizes around it and a few times it are among those sent.
    pub packet: usize,
    /// For how long to send.
    pub duration: Duration,
    /// Whether what arrives is to be in order and nothing twice; not on a way that changes, where what waits for its next
    /// step is overtaken.
    pub ordered: bool,
}

/// What came of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowReport {
    /// Datagrams that the sender's kernel took.
    pub sent: u64,
    /// Datagrams that arrived, unharmed, and each once and in order where they were to be.
    pub received: u64,
    /// Datagrams that the receiver's socket had no room for.
    pub overflowed: u64,
}

impl UdpFlow {
    /// The size of datagram `number`. Runs of one size are what trains and super-frames are made of.
    fn size(&self, number: u64) -> usize {
        let packet = self.packet as u64;
        let mut run = Random::new(mix(self.seed).wrapping_add(number / RUN));
        let alike = run.of(0..=1) == 0;
        let mut random = if alike { run } else { Random::new(mix(self.seed ^ number)) };
        let size = match random.of(0..=7) {
            0 => random.of(0..=16),
            1 => random.of(0..=packet),
            2 => random.of(packet - 3..=packet + 3),
            3 => random.of(packet..=4 * packet),
            4 | 5 => packet,
            _ => random.of_any_size(0, packet),
        };
        size.min(u64::from(u16::MAX) - 100) as usize
    }

    fn fill(&self, number: u64, datagram: &mut Vec<u8>) {
        datagram.resize(self.size(number), 0);
        Pattern::new(self.seed.wrapping_add(number)).fill(0, datagram);
        if let Some(head) = datagram.get_mut(..NUMBER) {
            head.copy_from_slice(&number.to_be_bytes());
        }
    }

    /// Which of the datagrams from `next` on a received one is.
    ///
    /// One without room for its number is the first that it can be, so that those after it always can be what they are.
    fn identify(
        &self,
        next: u64,
        sent: u64,
        received: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Option<u64> {
        let mut matches = |number: &u64| {
            self.size(*number) == received.len() && {
                self.fill(*number, scratch);
                scratch == received
            }
        };
        match received.first_chunk::<NUMBER>() {
            Some(head) => Some(u64::from_be_bytes(*head))
                .filter(|number| (next..sent).contains(number))
                .filter(|number| matches(number)),
            None => (next..sent).find(matches),
        }
    }

    /// Which of two sequences a datagram belongs to: fragments have no ports, so that whatever spreads flows over
    /// queues takes them for another flow.
    fn sequence(&self, size: usize) -> usize {
        usize::from(size > self.packet)
    }
}

/// Sends one flow of numbered datagrams of changing sizes, also such as have to be fragmented, and checks that what
/// arrives is what was sent and, where that is asked for, nothing twice and in order (those in fragments, and the
/// others).
///
/// Neighbours should know each other: what waits for an address is overtaken and may be dropped. No more are on their way than queues have room for, so that losses have a reason.
///
/// # Errors
///
/// When sockets can not be made or used, or a datagram arrives that is none of those due.
pub fn udp_flow(
    client: &Namespace,
    server: &Namespace,
    server_addr: SocketAddr,
    what: UdpFlow,
) -> io::Result<FlowReport> {
    let run = || {
        let far = receiver(server, server_addr)?;
        let near = sender(client, far.local_addr()?)?;
        far.set_read_timeout(Some(TICK))?;
        let progress = Progress::default();
        thread::scope(|scope| {
            let receiving = scope.spawn(|| {
                let received = receive(&far, &what, &progress);
                progress.failed.store(received.is_err(), Ordering::Release);
                received
            });
            let sent = send(&near, &what, &progress);
            progress.taken.store(*sent.as_ref().unwrap_or(&0), Ordering::Release);
            progress.over.store(true, Ordering::Release);
            let received = receiving.join().unwrap_or_else(|p| panic::resume_unwind(p))?;
            Ok(FlowReport { sent: sent?, received, overflowed: sockopt::drops(&far)?.into() })
        })
    };
    run().attempt(|| format!("a flow of datagrams to {server_addr}"))
}

/// How far both ends are.
#[derive(Default)]
struct Progress {
    /// Numbers in use so far, and the one that is due next at the receiver.
    sent: AtomicU64,
    next: AtomicU64,
    /// How many datagrams were sent in all, once it is over.
    taken: AtomicU64,
    over: AtomicBool,
    failed: AtomicBool,
}

fn send(socket: &UdpSocket, what: &UdpFlow, progress: &Progress) -> io::Result<u64> {
    let (start, mut sent, mut datagram) = (Instant::now(), 0, Vec::new());
    for number in 0.. {
        if start.elapsed() >= what.duration || progress.failed.load(Ordering::Acquire) {
            break;
        }
        let waiting = Instant::now();
        while number >= progress.next.load(Ordering::Acquire) + WINDOW
            && waiting.elapsed() < PATIENCE
        {
            thread::sleep(Duration::from_micros(50));
        }
        what.fill(number, &mut datagram);
        // It may arrive before the call returns.
        progress.sent.store(number + 1, Ordering::Release);
        match socket.send(&datagram) {
            Ok(_) => sent += 1,
            Err(e) if lost(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(sent)
}

fn receive(socket: &UdpSocket, what: &UdpFlow, progress: &Progress) -> io::Result<u64> {
    let (mut buffer, mut scratch) = (vec![0; 1 << 16], Vec::new());
    let (mut due, mut received, mut end) = ([0; 2], 0, None);
    loop {
        if progress.over.load(Ordering::Acquire) {
            let late = Instant::now() > *end.get_or_insert_with(|| Instant::now() + DRAIN);
            if late || received >= progress.taken.load(Ordering::Acquire) {
                return Ok(received);
            }
        }
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(e) if timed_out(&e) || e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let datagram = &buffer[..length];
        let sent = progress.sent.load(Ordering::Acquire);
        let next = &mut due[what.sequence(length)];
        let first = if what.ordered { *next } else { 0 };
        let Some(number) = what.identify(first, sent, datagram, &mut scratch) else {
            let head = datagram.first_chunk().map(|head| u64::from_be_bytes(*head));
            return Err(corrupt(format!(
                "a datagram of {length} bytes, numbered {head:?}, is none of those from {first} to {sent}"
            )));
        };
        *next = number + 1;
        received += 1;
        progress.next.fetch_max(number + 1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: UdpFlow =
        UdpFlow { seed: 3, packet: 1400, duration: Duration::ZERO, ordered: true };

    #[test]
    fn datagrams_are_known_by_number_and_content() {
        let (mut datagram, mut scratch) = (Vec::new(), Vec::new());
        let mut sizes = Vec::new();
        for number in 0..500 {
            FLOW.fill(number, &mut datagram);
            sizes.push(datagram.len());
            let mut identify = |next, bytes: &[u8]| FLOW.identify(next, 500, bytes, &mut scratch);
            let found = identify(number, &datagram);
            assert_eq!(found, Some(number));
            if datagram.len() >= NUMBER {
                assert_eq!(identify(number + 1, &datagram), None, "a second time");
                assert_eq!(identify(0, &datagram), Some(number), "after a loss");
                let last = datagram.len() - 1;
                datagram[last] ^= 1;
                assert_eq!(identify(number, &datagram), None, "damaged");
                assert_eq!(identify(number, &datagram[..last]), None, "cut");
            }
        }
        assert!(sizes.contains(&0) && sizes.iter().any(|size| *size > 1400));
        let runs = sizes.chunks(RUN as usize).filter(|run| run.iter().all(|size| *size == run[0]));
        assert!(runs.count() > 5);
    }
}
