//! A worker: the loop that reads, forwards and writes.
//!
//! mio reports edges, so the worker keeps a ready set of its own: a source is in it from its edge until it would
//! block. Each turn takes one bounded batch from each ready source, forwards it and writes it out before the next
//! is read. With nothing ready the worker sleeps, and wakes once a second for ageing.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::Error;
use crate::batch::Batch;
use crate::config::Config;
use crate::control::Control;
use crate::drop_reason::DropReason;
use crate::event::Event;
use crate::forward::Forwarder;
use crate::hash::Seeded;
use crate::io::{
    PortQueue, Received, Receiver, SendQueue, SocketOptions, UdpSocket, port_reason,
    underlay_reason,
};
use crate::output::{Output, SourcePort};
use crate::segment::PortId;
use crate::shared::{Shared, lock};
use crate::snapshot::Reader;
use crate::tables::Tables;
use crate::trouble::Troubles;

/// Time between ticks: ageing, and a second look at sources that failed.
const TICK: Duration = Duration::from_secs(1);

/// Shortest time between two rounds of discovery by one worker, for each costs a publication.
const DISCOVERY_INTERVAL: Duration = Duration::from_millis(100);

/// Events taken from the kernel at a time; those left over come with the next poll.
const POLL_EVENTS: usize = 256;

const WAKER: Token = Token(usize::MAX);

/// What a worker opens before the state it shares exists.
#[derive(Debug)]
pub(crate) struct WorkerParts {
    poll: Poll,
    entropy: Vec<UdpSocket>,
}

impl WorkerParts {
    pub(crate) fn open(config: &Config) -> Result<Self, Error> {
        let poll =
            Poll::new().map_err(|error| Error::io("creating an epoll instance", error, ""))?;
        let options = SocketOptions {
            reuse_port: false,
            // Nobody is asked to send to these ports; peers answer to the segment's.
            receive_buffer: 1,
            send_buffer: config.send_buffer,
            dont_fragment: config.dont_fragment,
        };
        let local = SocketAddr::new(config.local, 0);
        let open = |_| UdpSocket::open(local, &options).map(|(socket, _)| socket);
        let entropy = (0..config.source_ports).map(open).collect::<Result<Vec<_>, Error>>()?;
        Ok(Self { poll, entropy })
    }

    pub(crate) fn waker(&self) -> Result<Waker, Error> {
        Waker::new(self.poll.registry(), WAKER)
            .map_err(|error| Error::io("creating a waker", error, ""))
    }
}

#[derive(Debug)]
enum Kind {
    Port { id: PortId, name: String, queue: PortQueue, lost: bool },
    Socket { udp_port: u16, socket: Arc<UdpSocket>, overflows: u64 },
}

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
    fn fd(&self) -> Option<RawFd> {
        match &self.kind {
            Kind::Port { queue, .. } => queue.reads().then(|| queue.fd().as_raw_fd()),
            Kind::Socket { socket, .. } => Some(socket.as_fd().as_raw_fd()),
        }
    }
}

/// One worker of a dataplane: a share of every device's queues and of every UDP port's datagrams.
///
/// [`Dataplane::build`](crate::Dataplane::build) hands workers out; run each on a thread of its own, either with
/// [`Worker::run`] or by calling [`Worker::turn`] whenever its [file descriptor](AsRawFd) is readable and at least once a second.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    shared: Arc<Shared>,
    reader: Reader<Tables>,
    poll: Poll,
    polled: Events,
    /// By token; gaps are reused.
    sources: Vec<Option<Source>>,
    port_source: HashMap<PortId, usize, Seeded>,
    listener_source: HashMap<u16, usize, Seeded>,
    entropy: Vec<UdpSocket>,
    /// Indices of the transmits for each entropy socket, and for the listening sockets.
    by_entropy: Vec<Vec<u32>>,
    by_listener: Vec<(u16, Vec<u32>)>,
    batch: Batch,
    output: Output,
    forwarder: Forwarder,
    receiver: Receiver,
    send_queue: SendQueue,
    troubles: Troubles,
    /// First source of the next turn, so that none is always last.
    rotation: usize,
    next_tick: Duration,
    next_discovery: Duration,
    /// Overflows of sockets that are closed.
    past_overflows: u64,
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
            send_queue: SendQueue::new(),
            troubles: Troubles::default(),
            rotation: 0,
            next_tick: TICK,
            next_discovery: Duration::ZERO,
            past_overflows: 0,
            reader,
            shared,
        }
    }

    /// Runs until the dataplane is stopped.
    ///
    /// # Errors
    /// [`Error::Io`] when waiting for events fails, which it does not on a working kernel.
    pub fn run(mut self) -> Result<(), Error> {
        while self.turn(None)? {}
        Ok(())
    }

    /// Does one turn: waits for something to do, at most `timeout` (`None`: until the next tick), then forwards one
    /// batch from each ready source. Returns `false` once the dataplane is stopped.
    ///
    /// # Errors
    /// [`Error::Io`] when waiting for events fails, which it does not on a working kernel.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<bool, Error> {
        if self.shared.stopping() {
            return Ok(false);
        }
        self.wait(timeout)?;
        // After waiting, so that what was changed meanwhile holds for the frames that ended the wait.
        if self.reader.refresh() {
            self.reconcile();
        }
        let now = self.shared.now();
        let sources = self.sources.len();
        self.rotation = self.rotation.wrapping_add(1);
        for offset in 0..sources {
            let index = (self.rotation + offset) % sources;
            if self.sources[index].as_ref().is_some_and(|source| source.ready) {
                self.serve(index, now);
            }
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(now);
        }
        Ok(!self.shared.stopping())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        let busy = self.sources.iter().flatten().any(|source| source.ready);
        let timeout = if busy {
            Duration::ZERO
        } else {
            let tick = self.next_tick.saturating_sub(self.shared.now());
            timeout.map_or(tick, |timeout| timeout.min(tick))
        };
        match self.poll.poll(&mut self.polled, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(Error::io("waiting for events", error, ""));
            }
            _ => {}
        }
        for event in &self.polled {
            if let Some(Some(source)) = self.sources.get_mut(event.token().0) {
                source.ready = true;
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
        source.ready = !drained && failure.is_none();
        source.failed = failure.is_some();
        let tables = self.reader.value();
        if truncated > 0 {
            self.forwarder.truncated(tables, truncated as u64);
        }
        if !self.batch.is_empty() {
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

    /// Carries the output out and empties it.
    fn flush(&mut self, now: Duration) {
        self.flush_delivers(now);
        self.flush_transmits(now);
        self.flush_news(now);
        self.output.clear();
    }

    fn flush_delivers(&mut self, now: Duration) {
        let tables = self.reader.value();
        for deliver in &self.output.delivers {
            let source =
                self.port_source.get(&deliver.port).and_then(|index| self.sources[*index].as_mut());
            let Some(Source { kind: Kind::Port { id, name, queue, lost }, .. }) = source else {
                self.forwarder.undelivered(tables, DropReason::PortLost);
                continue;
            };
            if *lost {
                self.forwarder.undelivered(tables, DropReason::PortLost);
                continue;
            }
            let parts = self.output.parts(&self.batch, deliver.head, deliver.body);
            match queue.deliver(deliver.vnet, parts) {
                Ok(()) => {
                    self.forwarder.delivered(tables, deliver, parts[0].len() + parts[1].len())
                }
                Err(error) => {
                    let reason = port_reason(&error);
                    self.forwarder.undelivered(tables, reason);
                    if reason == DropReason::PortLost {
                        *lost = true;
                        self.shared.event(Event::DeviceLost { port: *id, name: name.clone() });
                    } else if let Some(event) = self.troubles.report(name, reason, &error, now) {
                        self.shared.event(event);
                    }
                }
            }
        }
    }

    fn flush_transmits(&mut self, now: Duration) {
        if self.output.transmits.is_empty() {
            return;
        }
        self.sort_transmits();
        let Self { by_entropy, by_listener, entropy, sources, listener_source, .. } = self;
        let listener = |udp_port: &u16| match sources.get(*listener_source.get(udp_port)?)? {
            Some(Source { kind: Kind::Socket { socket, .. }, .. }) => Some(&**socket),
            _ => None,
        };
        let by_entropy = by_entropy.iter().zip(entropy.iter().map(Some));
        let by_listener = by_listener.iter().map(|(udp_port, list)| (list, listener(udp_port)));
        let mut outlet = Outlet {
            tables: self.reader.value(),
            forwarder: &self.forwarder,
            output: &self.output,
            batch: &self.batch,
            queue: &mut self.send_queue,
            troubles: &mut self.troubles,
            shared: &self.shared,
            now,
        };
        for (list, socket) in by_entropy.chain(by_listener).filter(|(list, _)| !list.is_empty()) {
            outlet.send(socket, list);
        }
    }

    /// Sorts transmits by the socket they leave from; the order of each flow stays.
    fn sort_transmits(&mut self) {
        self.by_entropy.iter_mut().for_each(Vec::clear);
        self.by_listener.iter_mut().for_each(|(_, list)| list.clear());
        let spread = self.by_entropy.len() as u64;
        let tables = self.reader.value();
        for (index, transmit) in self.output.transmits.iter().enumerate() {
            let Some(vtep) = tables.vtep_address(transmit.vtep) else {
                self.forwarder.undelivered(tables, DropReason::VtepGone);
                continue;
            };
            let udp_port = match transmit.source {
                // The upper bits of the product spread hashes evenly over any number of ports.
                SourcePort::Entropy(flow) if spread > 0 => {
                    self.by_entropy[(u64::from(flow) * spread >> 32) as usize].push(index as u32);
                    continue;
                }
                // Without ports of its own, the flow leaves from where the VTEP would send to.
                SourcePort::Entropy(_) => vtep.port(),
                SourcePort::Listener(udp_port) => udp_port,
            };
            match self.by_listener.iter_mut().find(|(port, _)| *port == udp_port) {
                Some((_, list)) => list.push(index as u32),
                None => self.by_listener.push((udp_port, vec![index as u32])),
            }
        }
    }

    /// Hands on what forwarding found out.
    fn flush_news(&mut self, now: Duration) {
        for event in self.output.events.drain(..) {
            self.shared.event(event);
        }
        if self.output.events_lost > 0 {
            self.shared.events_lost(self.output.events_lost);
        }
        if !self.output.discovered.is_empty() && now >= self.next_discovery {
            self.next_discovery = now + DISCOVERY_INTERVAL;
            let discover = |(segment, address)| crate::Change::Discover { segment, address };
            let changes = self.output.discovered.drain(..).map(discover).collect();
            self.apply(changes);
        }
    }

    /// Changes the tables on behalf of the data path; what cannot be done now will come up again.
    fn apply(&self, changes: Vec<crate::Change>) {
        let _ = Control::new(self.shared.clone()).try_apply(changes);
    }

    fn receive_failed(&mut self, index: usize, error: &io::Error, now: Duration) {
        let Some(source) = self.sources[index].as_mut() else { return };
        match &mut source.kind {
            Kind::Port { id, name, lost, .. } => match port_reason(error) {
                DropReason::PortLost if *lost => source.failed = false,
                DropReason::PortLost => {
                    *lost = true;
                    source.failed = false;
                    self.shared.event(Event::DeviceLost { port: *id, name: name.clone() });
                }
                reason => {
                    if let Some(event) = self.troubles.report(name, reason, error, now) {
                        self.shared.event(event);
                    }
                }
            },
            Kind::Socket { udp_port, .. } => {
                let place = format!("UDP port {udp_port}");
                if let Some(event) =
                    self.troubles.report(&place, underlay_reason(error), error, now)
                {
                    self.shared.event(event);
                }
            }
        }
    }

    fn tick(&mut self, now: Duration) {
        let mut overflows = self.past_overflows;
        for source in self.sources.iter_mut().flatten() {
            source.ready |= source.failed;
            if let Kind::Socket { socket, overflows: seen, .. } = &mut source.kind {
                *seen = socket.drops().unwrap_or(*seen);
                overflows += *seen;
            }
        }
        self.shared.seats[self.index].overflows.store(overflows, Ordering::Relaxed);
        if self.index == 0 {
            self.forwarder.tick(self.reader.value(), now, &mut self.output);
            self.flush_news(now);
            self.output.clear();
            let stale = self.reader.value().stale_discoveries(now);
            if !stale.is_empty() {
                self.apply(stale);
            }
        }
    }

    /// Takes up what the new snapshot names and closes what it does not name any more.
    fn reconcile(&mut self) {
        let tables = self.reader.value().clone();
        let udp_ports: Vec<u16> = tables.udp_ports().collect();
        for index in 0..self.sources.len() {
            let gone = self.sources[index].as_ref().is_some_and(|source| match &source.kind {
                Kind::Port { id, .. } => tables.port(*id).is_none(),
                Kind::Socket { udp_port, .. } => !udp_ports.contains(udp_port),
            });
            if gone {
                self.close(index);
            }
        }
        let (queues, sockets) = {
            let mut inbox = lock(&self.shared.seats[self.index].inbox);
            // What this snapshot does not name belongs to the next one.
            let queues: Vec<_> =
                inbox.queues.extract_if(.., |(port, _)| tables.port(*port).is_some()).collect();
            let sockets: Vec<_> = inbox
                .sockets
                .extract_if(.., |(udp_port, _)| udp_ports.contains(udp_port))
                .collect();
            (queues, sockets)
        };
        for (id, queue) in queues {
            let name = tables.port(id).map_or_else(String::new, |port| port.name.clone());
            if let Some(index) = self.open(Kind::Port { id, name, queue, lost: false }) {
                self.port_source.insert(id, index);
            }
        }
        for (udp_port, socket) in sockets {
            // Given up and taken up again before this worker noticed: it is the same socket.
            if self.listener_source.contains_key(&udp_port) {
                continue;
            }
            if let Some(index) = self.open(Kind::Socket { udp_port, socket, overflows: 0 }) {
                self.listener_source.insert(udp_port, index);
            }
        }
    }

    fn open(&mut self, kind: Kind) -> Option<usize> {
        // Ready at first: what arrived before the registration makes no edge.
        let mut source = Source { kind, ready: true, failed: false };
        let index = self.sources.iter().position(Option::is_none).unwrap_or(self.sources.len());
        match source.fd() {
            Some(fd) => {
                if let Err(error) = self.poll.registry().register(
                    &mut SourceFd(&fd),
                    Token(index),
                    Interest::READABLE,
                ) {
                    let place = match &source.kind {
                        Kind::Port { name, .. } => name.clone(),
                        Kind::Socket { udp_port, .. } => format!("UDP port {udp_port}"),
                    };
                    let error = error.to_string();
                    self.shared.event(Event::Trouble {
                        place,
                        reason: DropReason::Detached,
                        error,
                    });
                    return None;
                }
            }
            None => source.ready = false,
        }
        if index == self.sources.len() {
            self.sources.push(Some(source));
        } else {
            self.sources[index] = Some(source);
        }
        Some(index)
    }

    fn close(&mut self, index: usize) {
        let Some(source) = self.sources[index].take() else { return };
        if let Some(fd) = source.fd() {
            // Closing alone would not do where another queue shares the open file.
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        }
        match source.kind {
            Kind::Port { id, .. } => {
                self.port_source.remove(&id);
            }
            Kind::Socket { udp_port, socket, overflows } => {
                self.past_overflows += socket.drops().unwrap_or(overflows);
                self.listener_source.remove(&udp_port);
            }
        }
    }
}

impl AsRawFd for Worker {
    /// The epoll instance: readable when [`Worker::turn`] has something to do.
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

/// What sending needs of a worker, apart from the sockets.
struct Outlet<'a> {
    tables: &'a Tables,
    forwarder: &'a Forwarder,
    output: &'a Output,
    batch: &'a Batch,
    queue: &'a mut SendQueue,
    troubles: &'a mut Troubles,
    shared: &'a Shared,
    now: Duration,
}

impl Outlet<'_> {
    /// Sends the listed transmits from one socket.
    fn send(&mut self, socket: Option<&UdpSocket>, list: &[u32]) {
        let (tables, output, batch) = (self.tables, self.output, self.batch);
        let Some(socket) = socket else {
            for _ in list {
                self.forwarder.undelivered(tables, DropReason::UnderlayFailed);
            }
            return;
        };
        let messages = list.iter().filter_map(|index| {
            let transmit = &output.transmits[*index as usize];
            // Sorting has left out those whose VTEP is gone.
            let address = tables.vtep_address(transmit.vtep)?;
            Some((address, output.parts(batch, transmit.head, transmit.body)))
        });
        let (forwarder, troubles, shared, now) =
            (self.forwarder, &mut *self.troubles, self.shared, self.now);
        self.queue.send(socket, messages, |index, outcome| {
            let transmit = &output.transmits[list[index] as usize];
            match outcome {
                Ok(bytes) => forwarder.sent(tables, transmit, bytes),
                Err(error) => {
                    let reason = underlay_reason(&error);
                    forwarder.undelivered(tables, reason);
                    let place = tables
                        .vtep_address(transmit.vtep)
                        .map_or_else(String::new, |at| format!("VTEP {at}"));
                    if let Some(event) = troubles.report(&place, reason, &error, now) {
                        shared.event(event);
                    }
                }
            }
        });
    }
}
