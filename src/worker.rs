//! A worker: the loop that reads, forwards and writes.
//!
//! mio reports edges, so the worker keeps a ready set of its own: a source is in it from its edge until it would
//! block. Each turn takes one bounded batch from each ready source, forwards it and writes it out before the next
//! is read. With nothing ready the worker sleeps, and wakes once a second for ageing.

mod deliver;
mod flush;
mod groups;
mod outlets;
mod paths;
mod probes;
mod record;
mod sources;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod underlay;
mod wait;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};

use crate::Error;
use crate::batch::Batch;
use crate::change::Change;
use crate::drop_reason::DropReason;
use crate::forward::Forwarder;
use crate::hash::Seeded;
use crate::io::{
    PortQueue, Received, Receiver, SendQueue, UdpSocket, port_reason, underlay_reason,
};
use crate::offload::{Offload, Offloads};
use crate::output::Output;
use crate::segment::PortId;
use crate::shared::Shared;
use crate::snapshot::Reader;
use crate::tables::Tables;
use crate::trouble::{Place, Troubles};
pub(crate) use outlets::{open_entropy_sockets, sending_options};
use probes::Probes;
use record::{Recorder, Whence};
use underlay::Follower;
use wait::Spinner;

/// Time between ticks: a second look at sources that failed, and other chores.
const TICK: Duration = Duration::from_secs(1);

/// Events taken from the kernel at a time; those left over come with the next poll.
const POLL_EVENTS: usize = 256;

const WAKER: Token = Token(usize::MAX);

/// What a worker opens before the state it shares exists.
#[derive(Debug)]
pub(crate) struct WorkerParts {
    poll: Poll,
    entropy: Arc<[UdpSocket]>,
    /// Of the first worker, if the host is followed.
    follower: Option<Box<Follower>>,
}

impl WorkerParts {
    pub(crate) fn open(entropy: Arc<[UdpSocket]>, follow: bool) -> Result<Self, Error> {
        let poll =
            Poll::new().map_err(|error| Error::io("creating an epoll instance", error, ""))?;
        // A host that does not let itself be followed is taken as it is.
        let follower = if follow { Follower::open().ok().map(Box::new) } else { None };
        if let Some(follower) = &follower {
            follower.register(poll.registry());
        }
        Ok(Self { poll, entropy, follower })
    }

    /// The MTU of the interface with an address, if that is followed and says anything.
    pub(crate) fn interface_mtu(&mut self, local: IpAddr) -> Option<u32> {
        self.follower.as_mut()?.interface_mtu(local)
    }

    pub(crate) fn waker(&self) -> Result<Waker, Error> {
        Waker::new(self.poll.registry(), WAKER)
            .map_err(|error| Error::io("creating a waker", error, ""))
    }
}

#[derive(Debug)]
enum Kind {
    Port { id: PortId, name: String, queue: PortQueue, lost: bool },
    Socket { udp_port: u16, socket: Arc<UdpSocket>, drops: u32, gro: bool },
}

impl Kind {
    /// Makes what frames come from give super-frames and trains as far as they are wanted.
    fn set_offloads(&mut self, active: Offloads, worker: usize) {
        match self {
            // For all queues of the device at once, and so by one worker.
            Self::Port { queue, .. } if worker == 0 => queue.set_offloads(active),
            Self::Port { .. } => {}
            Self::Socket { .. } => self.set_gro(active),
        }
    }

    /// Makes an underlay socket receive trains if that is wanted, or not; to be called again whenever it is drained,
    /// because trains cannot be given up before.
    fn set_gro(&mut self, active: Offloads) {
        let Self::Socket { socket, gro, .. } = self else { return };
        let wanted = active.contains(Offload::UdpGro);
        // Where the kernel has no such thing, datagrams arrive by themselves, and there is nothing to switch off.
        if *gro != wanted && socket.set_gro(wanted).unwrap_or(true) {
            *gro = wanted;
        }
    }
}

/// The socket that a datagram leaves from if it is a worker's own: by UDP port, whether it is at the IPv6 address, and
/// whether the datagram may be fragmented.
type Listening = (u16, bool, bool);

/// Something frames come from.
#[derive(Debug)]
struct Source {
    kind: Kind,
    /// Whether it may have more to read.
    ready: bool,
    /// Whether the last read failed: worth another look at the next tick, should its edge be lost.
    failed: bool,
}

impl Source {
    /// Datagrams the kernel has dropped here since it was asked last.
    fn new_drops(&mut self) -> u64 {
        let Kind::Socket { socket, drops, .. } = &mut self.kind else { return 0 };
        let Some(now) = socket.drops() else { return 0 };
        // The kernel's counter wraps.
        u64::from(now.wrapping_sub(std::mem::replace(drops, now)))
    }

    fn fd(&self) -> Option<RawFd> {
        match &self.kind {
            Kind::Port { queue, .. } => queue.reads().then(|| queue.fd().as_raw_fd()),
            Kind::Socket { socket, .. } => Some(socket.as_fd().as_raw_fd()),
        }
    }
}

/// What a turn leaves to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing: the next turn may wait for the worker's file descriptor to become readable, but for no more than a second.
    Idle,
    /// More frames are waiting: the next turn should follow at once.
    More,
    /// The dataplane is stopped.
    Stopped,
}

/// One worker of a dataplane: a share of every device's queues and of every UDP port's datagrams.
///
/// [`Dataplane::build`](crate::Dataplane::build) hands workers out; run each on a thread of its own with
/// [`Worker::run`], or call [`Worker::turn`] from a loop of your own: at once after [`Turn::More`], otherwise when the
/// worker's [file descriptor](AsRawFd) is readable and at least once a second.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    shared: Arc<Shared>,
    reader: Reader<Tables>,
    /// [`Tables::attachments`] of the snapshot that the sources were brought in step with last; none yet at first.
    attachments: Option<u64>,
    poll: Poll,
    polled: Events,
    spinner: Spinner,
    /// By token; gaps are reused.
    sources: Vec<Option<Source>>,
    port_source: HashMap<PortId, usize, Seeded>,
    /// By UDP port and whether it is at the IPv6 address.
    listener_source: HashMap<(u16, bool), usize, Seeded>,
    entropy: Arc<[UdpSocket]>,
    /// Indices of the transmits for each entropy socket, and for the listening sockets by port and whether they may be
    /// fragmented.
    by_entropy: Vec<Vec<u32>>,
    by_listener: Vec<(Listening, Vec<u32>)>,
    batch: Batch,
    output: Output,
    forwarder: Forwarder,
    receiver: Receiver,
    send_queue: SendQueue,
    recorder: Recorder,
    troubles: Troubles,
    /// The offloads that the sources are set to.
    offloads: Offloads,
    /// First source of the next turn, so that none is always last.
    rotation: usize,
    next_tick: Duration,
    /// Of the first worker.
    next_sweep: Duration,
    next_discovery: Duration,
    /// Changes of multicast databases that wait to be published, and when that may be.
    heard: Vec<Change>,
    next_heard: Duration,
    next_expiry: Duration,
    next_lesson: Duration,
    probes: Probes,
    follower: Option<Box<Follower>>,
    /// Datagrams the kernel has dropped at this worker's sockets.
    overflows: u64,
}

impl Worker {
    pub(crate) fn new(index: usize, parts: WorkerParts, shared: Arc<Shared>) -> Self {
        let config = &shared.config;
        let reader = Reader::new(shared.tables.clone());
        let seed = Seeded(reader.value().seed);
        Self {
            index,
            poll: parts.poll,
            polled: Events::with_capacity(POLL_EVENTS),
            spinner: Spinner::new(config.spin),
            sources: Vec::new(),
            port_source: HashMap::with_hasher(seed),
            listener_source: HashMap::with_hasher(seed),
            by_entropy: parts.entropy.iter().map(|_| Vec::new()).collect(),
            by_listener: Vec::new(),
            entropy: parts.entropy,
            batch: Batch::new(config.batch),
            output: Output::new(),
            forwarder: Forwarder::new(index),
            receiver: Receiver::new(config.batch),
            send_queue: SendQueue::new(shared.max_train),
            recorder: Recorder::new(index),
            troubles: Troubles::default(),
            offloads: Offloads::NONE,
            rotation: 0,
            next_tick: TICK,
            next_sweep: if index == 0 { TICK } else { Duration::MAX },
            next_discovery: Duration::ZERO,
            heard: Vec::new(),
            next_heard: Duration::ZERO,
            next_expiry: Duration::ZERO,
            next_lesson: Duration::ZERO,
            probes: Probes::new(),
            follower: parts.follower,
            overflows: 0,
            attachments: None,
            reader,
            shared,
        }
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn belongs_to(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// Runs until the dataplane is stopped.
    ///
    /// # Errors
    /// [`Error::Io`] when waiting for events fails, which it does not on a working kernel.
    pub fn run(mut self) -> Result<(), Error> {
        while self.turn(None)? != Turn::Stopped {}
        Ok(())
    }

    /// Does one turn: waits for something to do, at most `timeout` (`None`: until the next tick), then forwards one
    /// batch from each ready source.
    ///
    /// # Errors
    /// [`Error::Io`] when waiting for events fails, which it does not on a working kernel.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<Turn, Error> {
        if self.shared.stopping() {
            return Ok(Turn::Stopped);
        }
        self.wait(timeout)?;
        // After waiting, so that what was changed meanwhile holds for the frames that ended the wait.
        self.follow_switches();
        self.catch_up();
        self.recorder.follow(&self.shared.captures);
        let now = self.shared.now();
        let sources = self.sources.len();
        self.rotation = self.rotation.wrapping_add(1);
        for offset in 0..sources {
            let index = (self.rotation + offset) % sources;
            if self.sources[index].as_ref().is_some_and(|source| source.ready) {
                self.serve(index, now);
                self.catch_up();
            }
        }
        self.follow_host(now);
        if self.index == 0 {
            self.probe_paths(now);
        }
        self.publish_heard(now);
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(now);
        }
        if now >= self.next_sweep {
            self.sweep(now);
        }
        Ok(match () {
            () if self.shared.stopping() => Turn::Stopped,
            () if self.is_busy() => Turn::More,
            () => Turn::Idle,
        })
    }

    fn is_busy(&self) -> bool {
        self.sources.iter().flatten().any(|source| source.ready) || self.reader.is_behind()
    }

    /// Takes over new tables, if there are any, with their devices and sockets.
    fn catch_up(&mut self) {
        if self.reader.refresh() {
            self.reconcile();
            self.shared.in_step(self.index, self.reader.version());
        }
    }

    /// Sets the sources to the offloads that are in use now, if these have changed.
    fn follow_switches(&mut self) {
        let active = self.shared.switches.active();
        if active != self.offloads {
            self.offloads = active;
            self.forwarder.set_offloads(active);
            for source in self.sources.iter_mut().flatten() {
                source.kind.set_offloads(active, self.index);
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        let timeout = if self.is_busy() {
            Duration::ZERO
        } else {
            let host = self.follower.as_ref().and_then(|follower| follower.next());
            let next = self.next_tick.min(self.next_sweep).min(self.probes.next);
            let asked = [host, self.next_heard()].into_iter().flatten();
            let next = asked.fold(next, Duration::min);
            let tick = next.saturating_sub(self.shared.now());
            timeout.map_or(tick, |timeout| timeout.min(tick))
        };
        self.spinner
            .poll(&mut self.poll, &mut self.polled, timeout, &self.shared)
            .map_err(|error| Error::io("waiting for events", error, ""))?;
        for event in &self.polled {
            if let Some(Some(source)) = self.sources.get_mut(event.token().0) {
                source.ready = true;
            } else if let Some(follower) = &mut self.follower {
                follower.heard(event.token());
            }
        }
        Ok(())
    }

    /// Takes one batch from a source, forwards it and writes it out.
    fn serve(&mut self, index: usize, now: Duration) {
        let Some(source) = self.sources[index].as_mut() else { return };
        self.batch.clear();
        let received = match &mut source.kind {
            Kind::Port { queue, .. } => queue.receive(&mut self.batch),
            Kind::Socket { socket, .. } => socket.receive(&mut self.receiver, &mut self.batch),
        };
        let Received { drained, truncated, failure } = received;
        // A failure that reading on would only repeat has drained the source, too.
        source.ready = !drained;
        if drained {
            source.kind.set_gro(self.offloads);
        }
        source.failed = failure.is_some();
        let tables = self.reader.value();
        if truncated > 0 {
            self.forwarder.truncated(tables, truncated as u64);
        }
        if !self.batch.is_empty() {
            if self.recorder.follow(&self.shared.captures) {
                let whence = match &source.kind {
                    Kind::Port { id, .. } => Whence::Port(*id),
                    Kind::Socket { udp_port, .. } => Whence::Socket(*udp_port),
                };
                let read = self.shared.now();
                if self.recorder.stage(tables, whence, &self.batch, read) {
                    self.output.want_fates(self.batch.len());
                }
            }
            match &source.kind {
                Kind::Port { id, .. } => {
                    self.forwarder.from_port(tables, now, *id, &mut self.batch, &mut self.output);
                }
                Kind::Socket { udp_port, .. } => {
                    self.forwarder.from_underlay(
                        tables,
                        now,
                        *udp_port,
                        &mut self.batch,
                        &mut self.output,
                    );
                }
            }
            self.flush(now);
        }
        if let Some(error) = failure {
            self.receive_failed(index, &error, now);
        }
    }

    fn receive_failed(&mut self, index: usize, error: &io::Error, now: Duration) {
        let Some(source) = self.sources[index].as_mut() else { return };
        match &mut source.kind {
            Kind::Port { id, name, lost, .. } => match port_reason(error) {
                DropReason::PortLost if *lost => source.failed = false,
                DropReason::PortLost => {
                    *lost = true;
                    source.failed = false;
                    self.shared.device_lost(*id, name);
                }
                reason => {
                    let place = Place::Port(*id);
                    let news = self.troubles.report(place, reason, error, now, || name.clone());
                    self.shared.report(news);
                }
            },
            // An error about something that was sent from here is none of receiving.
            Kind::Socket { socket, .. } if self.send_queue.news().hear_router(socket) => {
                source.failed = false;
                self.learn_paths(now);
            }
            Kind::Socket { udp_port, socket, .. } => {
                let (place, reason) = (Place::UdpPort(*udp_port), underlay_reason(error));
                let name = || format!("underlay socket {}", socket.local_addr());
                let news = self.troubles.report(place, reason, error, now, name);
                self.shared.report(news);
            }
        }
    }

    /// Goes on with the sweep through the FDB, by one worker for all.
    fn sweep(&mut self, now: Duration) {
        let tables = self.reader.value();
        let pause = self.forwarder.tick(tables, now, |event| self.shared.event(event));
        self.next_sweep = now + pause;
    }

    fn tick(&mut self, now: Duration) {
        for source in self.sources.iter_mut().flatten() {
            source.ready |= source.failed;
            self.overflows += source.new_drops();
        }
        self.shared.seats[self.index].overflows.store(self.overflows, Ordering::Relaxed);
        self.shared.hear(self.index, now);
        if self.index == 0 {
            self.tick_paths(now);
            self.tick_groups(now);
            let stale = self.reader.value().stale_discoveries();
            if !stale.is_empty() {
                self.apply(stale);
            }
        }
    }
}

impl AsRawFd for Worker {
    /// The epoll instance: becomes readable when there is something new to do. What the last turn left undone does not
    /// show here; see [`Turn::More`].
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}
