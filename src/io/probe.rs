//! Trying the offloads of underlay sockets out before they are relied on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use super::sys;
use super::{Receiver, SendQueue, SocketOptions, UdpSocket};
use crate::batch::{Batch, MAX_TRAIN};
use crate::wire::vnet;

/// What trying an offload out came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every byte arrived as sent.
    Works,
    /// It does harm or does not exist here; do without it.
    Broken(String),
    /// It could not be tried; use it, for it gives way when it fails.
    Untested(String),
}

/// What the self-test of underlay sockets found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UdpProbe {
    /// Sending trains (`UDP_SEGMENT`).
    pub(crate) gso: Verdict,
    /// Most datagrams of one train.
    pub(crate) max_train: usize,
    /// Receiving trains (`UDP_GRO`).
    pub(crate) gro: Verdict,
}

/// Times that the test as a whole waits for a datagram, and for how many milliseconds each. Local delivery is part of
/// the send call, so that waiting is for what is lost, and for kernels that defer.
const WAITS: usize = 10;
const WAIT: u8 = 5;

/// Length of a datagram that fits every MTU (IPv6 allows none below 1280).
const STRIDE: usize = 1111;

/// Sends trains from and to `local` and compares what arrives; takes a few milliseconds, and 50 if nothing arrives.
///
/// Finds what shows between two sockets of this host; of what a network device does to trains it knows nothing.
pub(crate) fn probe(local: IpAddr) -> UdpProbe {
    let bench = match Bench::open(local) {
        Ok(bench) => bench,
        Err(why) => return UdpProbe::untested(&why),
    };
    bench.run()
}

impl UdpProbe {
    fn untested(why: &str) -> Self {
        let verdict = Verdict::Untested(why.to_owned());
        Self { gso: verdict.clone(), max_train: vnet::UDP_SAFE_CHUNKS, gro: verdict }
    }
}

/// Two sockets, and what it takes to use them.
struct Bench {
    sender: UdpSocket,
    receiver: UdpSocket,
    to: SocketAddr,
    batch: Batch,
    waits: usize,
}

impl Bench {
    fn open(local: IpAddr) -> Result<Self, String> {
        let local = match local {
            IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            local => local,
        };
        let open = || {
            let opened = UdpSocket::open(SocketAddr::new(local, 0), &SocketOptions::default());
            opened.map(|(socket, _)| socket).map_err(|error| error.to_string())
        };
        let (sender, receiver) = (open()?, open()?);
        let to = receiver.local_addr();
        Ok(Self { sender, receiver, to, batch: Batch::new(MAX_TRAIN), waits: WAITS })
    }

    fn run(mut self) -> UdpProbe {
        // If this does not arrive, it is not for an offload.
        if let Err(failure) = self.carry(&payload(&[STRIDE; 2]), 1) {
            return UdpProbe::untested(&format!("datagrams to {} {failure}", self.to.ip()));
        }
        let mut max_train = vnet::UDP_SAFE_CHUNKS;
        let gso = self.trains();
        if gso == Verdict::Works && self.carry(&payload(&[1; MAX_TRAIN]), MAX_TRAIN).is_ok() {
            max_train = MAX_TRAIN;
        }
        self.empty();
        let gro = match self.receiver.set_gro(true) {
            Err(error) => Verdict::Broken(format!("the kernel refuses UDP_GRO: {error}")),
            Ok(_) if gso == Verdict::Works => self.trains(),
            Ok(_) => Verdict::Untested("there are no trains to receive, as udp-gso fails".into()),
        };
        UdpProbe { gso, max_train, gro }
    }

    /// Sends trains, of which the last datagram is shorter, or as long as the others: Linux 7.0 takes care of only one.
    fn trains(&mut self) -> Verdict {
        for sizes in [&[STRIDE, STRIDE, STRIDE, STRIDE, 77][..], &[STRIDE; 3]] {
            if let Err(failure) = self.carry(&payload(sizes), vnet::UDP_SAFE_CHUNKS) {
                return Verdict::Broken(format!("trains to {} {failure}", self.to.ip()));
            }
        }
        Verdict::Works
    }

    /// Sends datagrams in trains of at most `most`, and looks whether they arrive as they were.
    fn carry(&mut self, datagrams: &[Vec<u8>], most: usize) -> Result<(), String> {
        let messages = datagrams.iter().map(|bytes| (self.to, [&bytes[..], &[]]));
        let mut failure = None;
        let outcome = |_: usize, result: io::Result<usize>| {
            failure = failure.take().or(result.err());
        };
        let refusal = SendQueue::new(most).send(&self.sender, messages, most > 1, outcome);
        if let Some(error) = refusal {
            self.empty();
            return Err(format!("are refused: {error}"));
        }
        if let Some(error) = failure {
            return Err(format!("cannot be sent: {error}"));
        }
        self.receive(datagrams)
    }

    fn receive(&mut self, datagrams: &[Vec<u8>]) -> Result<(), String> {
        self.batch.clear();
        let mut receiver = Receiver::new(self.batch.capacity());
        loop {
            let received = self.receiver.receive(&mut receiver, &mut self.batch);
            if let Some(error) = received.failure {
                return Err(format!("cannot be received: {error}"));
            }
            if received.truncated > 0 || self.batch.len() > datagrams.len() {
                return Err("do not arrive as they were sent".to_owned());
            }
            if self.batch.len() == datagrams.len() {
                break;
            }
            if self.waits == 0 {
                return Err(format!("get lost: {} of {} came", self.batch.len(), datagrams.len()));
            }
            self.waits -= 1;
            sys::wait_readable(self.receiver.as_fd(), WAIT);
        }
        let same = |(index, bytes): (usize, &Vec<u8>)| self.batch.frame(index) == bytes;
        if !datagrams.iter().enumerate().all(same) {
            return Err("arrive with other bytes".to_owned());
        }
        Ok(())
    }

    /// Takes what is left over out of the receiving socket.
    fn empty(&mut self) {
        let mut receiver = Receiver::new(self.batch.capacity());
        for _ in 0..WAITS {
            self.batch.clear();
            if self.receiver.receive(&mut receiver, &mut self.batch).drained {
                return;
            }
        }
    }
}

/// Datagrams of the given lengths, of bytes without a pattern.
fn payload(sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut state = 0x2545_f491_u32;
    let mut byte = || {
        // xorshift32
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    sizes.iter().map(|size| (0..*size).map(|_| byte()).collect()).collect()
}
