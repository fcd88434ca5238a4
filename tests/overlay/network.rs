//! Nodes, each with tables and a forwarder, joined by an underlay that can lose, repeat and reorder datagrams.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem::take;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overplane::wire::{GroupPolicy, VnetHeader};
use overplane::{
    Arrival, Batch, Change, DropReason, Echo, Error, Event, Fate, Forwarder, Metadata, OuterHeader,
    Output, PathMtu, PortId, PortOptions, ProbeStats, Prober, Probing, Segment, SegmentId,
    SourcePort, Stage, Stats, Tables, Totals,
};

use crate::packets::underlay;

/// How many frames a device holds before it refuses more.
const INBOX: usize = 4096;

/// How long a datagram is under way when paths are probed.
const TICK: Duration = Duration::from_millis(1);

/// What the underlay does to datagrams, each in so many of 256 cases.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) lost: u8,
    pub(crate) repeated: u8,
    pub(crate) overtaken: u8,
    /// Refused by the sender's own socket.
    pub(crate) refused: u8,
    /// Largest outer IP packet that is not lost, over IPv4; 0 for any.
    pub(crate) mtu: usize,
}

/// Random numbers that are the same in every run (xorshift64*).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % n
    }

    fn happens(&mut self, of_256: u8) -> bool {
        self.below(256) < u64::from(of_256)
    }
}

/// A frame as a device got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) vnet: VnetHeader,
    pub(crate) bytes: Vec<u8>,
    pub(crate) metadata: Metadata,
}

/// A datagram under way.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// What its IP header says.
    pub(crate) outer: OuterHeader,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Node {
    pub(crate) address: IpAddr,
    pub(crate) tables: Tables,
    forwarder: Forwarder,
    inboxes: BTreeMap<PortId, VecDeque<Received>>,
    events: Vec<Event>,
    prober: Prober,
    echoes: Vec<Echo>,
    /// How often each fate was a frame's.
    fates: HashMap<Fate, u64>,
}

impl Node {
    fn note(&mut self, fates: &[Fate], frames: usize) {
        assert_eq!(fates.len(), frames);
        fates.iter().for_each(|fate| *self.fates.entry(*fate).or_default() += 1);
    }
}

/// Checks, when it goes out of scope, that every node accounted for every frame.
pub(crate) struct Network {
    nodes: Vec<Node>,
    under_way: VecDeque<Datagram>,
    /// Everything that was ever put on the underlay.
    pub(crate) sent: Vec<Datagram>,
    pub(crate) now: Duration,
    pub(crate) faults: Faults,
    pub(crate) rng: Rng,
    batch: Batch,
    output: Output,
}

impl Network {
    /// `nodes` nodes, numbered from 1, that know nothing of each other.
    pub(crate) fn new(nodes: u8) -> Self {
        let node = |n| {
            let address = underlay(n);
            let mut tables = Tables::new(address, 1).unwrap();
            // It is listed after every step.
            tables.set_fdb_capacity(1024).unwrap();
            Node {
                address,
                tables,
                forwarder: Forwarder::new(0),
                inboxes: BTreeMap::new(),
                events: Vec::new(),
                prober: Prober::new(Probing::default()).unwrap(),
                echoes: Vec::new(),
                fates: HashMap::new(),
            }
        };
        Self {
            nodes: (1..=nodes).map(node).collect(),
            under_way: VecDeque::new(),
            sent: Vec::new(),
            now: Duration::from_secs(1000),
            faults: Faults::default(),
            rng: Rng::new(1),
            batch: Batch::new(16),
            output: Output::new(),
        }
    }

    /// `nodes` nodes with the same segment and one port each, which takes offloads if `offload`; each floods to all
    /// others. Returns the ports by node.
    pub(crate) fn mesh(nodes: u8, segment: &Segment, offload: bool) -> (Self, Vec<PortId>) {
        let mut network = Self::new(nodes);
        let ports = (1..=nodes)
            .map(|n| {
                let port = network.add_segment(n, segment.clone(), offload);
                for other in (1..=nodes).filter(|other| *other != n) {
                    let vtep = SocketAddr::new(underlay(other), segment.udp_port);
                    network.change(n, Change::AddFlood { segment: segment.id(), vtep });
                }
                port
            })
            .collect();
        (network, ports)
    }

    pub(crate) fn node(&mut self, n: u8) -> &mut Node {
        &mut self.nodes[usize::from(n) - 1]
    }

    /// The counters of node `n`, which agree with the fates of its frames.
    pub(crate) fn stats(&mut self, n: u8) -> Stats {
        let Node { tables, fates, .. } = self.node(n);
        let stats = tables.stats();
        let of = |fate| fates.get(&fate).copied().unwrap_or(0);
        let Totals { forwarded, flooded, answered, .. } = stats.totals;
        let others = [Fate::Forwarded, Fate::Flooded, Fate::Answered].map(of);
        assert_eq!(others, [forwarded, flooded, answered]);
        for reason in DropReason::ALL.iter().filter(|reason| reason.stage() == Stage::Decision) {
            assert_eq!(of(Fate::Dropped(*reason)), stats.totals.drops(*reason), "{reason}");
        }
        stats
    }

    /// How often node `n` dropped for `reason`.
    pub(crate) fn drops(&mut self, n: u8, reason: DropReason) -> u64 {
        self.stats(n).totals.drops(reason)
    }

    pub(crate) fn try_change(
        &mut self,
        n: u8,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<Vec<PortId>, Error> {
        let now = self.now;
        self.node(n).tables.apply(now, changes)
    }

    pub(crate) fn change(&mut self, n: u8, change: Change) {
        self.try_change(n, [change]).unwrap();
    }

    pub(crate) fn add_segment(&mut self, n: u8, segment: Segment, offload: bool) -> PortId {
        let id = segment.id();
        self.change(n, Change::AddSegment(segment));
        self.add_port(n, id, offload)
    }

    pub(crate) fn add_port(&mut self, n: u8, segment: SegmentId, offload: bool) -> PortId {
        self.add_port_with(n, segment, offload, PortOptions::default())
    }

    pub(crate) fn add_port_with(
        &mut self,
        n: u8,
        segment: SegmentId,
        offload: bool,
        options: PortOptions,
    ) -> PortId {
        let name = format!("node{n}");
        self.try_change(n, [Change::AddPort { segment, name, offload, options }]).unwrap()[0]
    }

    /// What a device got since the last time it was asked.
    pub(crate) fn received(&mut self, n: u8, port: PortId) -> Vec<Received> {
        self.node(n).inboxes.remove(&port).unwrap_or_default().into()
    }

    /// What a device got, with the group policies that came with it.
    pub(crate) fn frames_and_policies(
        &mut self,
        n: u8,
        port: PortId,
    ) -> Vec<(Vec<u8>, Option<GroupPolicy>)> {
        let received = self.received(n, port).into_iter();
        received.map(|frame| (frame.bytes, frame.metadata.policy)).collect()
    }

    /// The bytes of what a device got, none of which may need finishing.
    pub(crate) fn frames(&mut self, n: u8, port: PortId) -> Vec<Vec<u8>> {
        let plain = |frame: Received| {
            assert_eq!(frame.vnet, VnetHeader::default(), "a frame with nothing left to do");
            frame.bytes
        };
        self.received(n, port).into_iter().map(plain).collect()
    }

    pub(crate) fn events(&mut self, n: u8) -> Vec<Event> {
        take(&mut self.node(n).events)
    }

    /// A device of node `n` gives a frame, and the underlay carries what comes of it.
    pub(crate) fn send(&mut self, n: u8, port: PortId, frame: &[u8]) {
        self.send_unfinished(n, port, frame, VnetHeader::default());
    }

    pub(crate) fn send_unfinished(&mut self, n: u8, port: PortId, frame: &[u8], vnet: VnetHeader) {
        self.give(n, port, &[(frame, vnet)]);
        self.run();
    }

    /// A device of node `n` gives a batch of frames; the underlay is not run.
    pub(crate) fn give(&mut self, n: u8, port: PortId, frames: &[(&[u8], VnetHeader)]) {
        let (mut batch, mut output) = (take_batch(&mut self.batch), take(&mut self.output));
        for (frame, vnet) in frames {
            assert!(batch.push(frame, *vnet));
        }
        let now = self.now;
        let node = self.node(n);
        output.want_fates(batch.len());
        node.forwarder.from_port(&node.tables, now, port, &mut batch, &mut output);
        node.note(output.fates(), batch.len());
        self.carry_out(n, batch, output);
    }

    /// A device of node `n` gives a frame and says how it is to leave, and the underlay carries what comes of it.
    pub(crate) fn send_with(&mut self, n: u8, port: PortId, frame: &[u8], metadata: Metadata) {
        let (mut batch, mut output) = (take_batch(&mut self.batch), take(&mut self.output));
        assert!(batch.push(frame, VnetHeader::default()));
        batch.set_metadata(0, metadata);
        let now = self.now;
        let node = self.node(n);
        output.want_fates(batch.len());
        node.forwarder.from_port(&node.tables, now, port, &mut batch, &mut output);
        node.note(output.fates(), batch.len());
        self.carry_out(n, batch, output);
        self.run();
    }

    /// A datagram reaches node `n` from anywhere.
    pub(crate) fn arrive(&mut self, n: u8, from: IpAddr, udp_port: u16, datagram: &[u8]) {
        // Source ports are entropy.
        let from = SocketAddr::new(from, 49_152 + self.rng.below(1000) as u16);
        self.arrive_from(n, from, udp_port, datagram);
    }

    /// The same from a port of the sender's choice.
    pub(crate) fn arrive_from(&mut self, n: u8, from: SocketAddr, udp_port: u16, datagram: &[u8]) {
        self.arrive_together(n, from, udp_port, &[(datagram, 0)]);
    }

    /// Datagrams reach node `n` together, each with a TOS byte.
    pub(crate) fn arrive_together(
        &mut self,
        n: u8,
        from: SocketAddr,
        udp_port: u16,
        datagrams: &[(&[u8], u8)],
    ) {
        let to = SocketAddr::new(underlay(n), udp_port);
        let marked = |&(bytes, tos): &(&[u8], u8)| {
            let mut outer = OuterHeader::default();
            outer.tos = tos;
            Datagram { from, to, outer, bytes: bytes.to_vec() }
        };
        self.take_in(n, udp_port, datagrams.iter().map(marked).collect());
        self.run();
    }

    /// Lets the underlay work until nothing is under way any more.
    pub(crate) fn run(&mut self) {
        while let Some(first) = self.under_way.pop_front() {
            let mut batch = vec![first];
            // What is for the same socket is read at once, as a worker does.
            while batch.len() < self.batch.capacity()
                && self.under_way.front().is_some_and(|next| next.to == batch[0].to)
            {
                batch.extend(self.under_way.pop_front());
            }
            let to = batch[0].to;
            if let Some(at) = self.nodes.iter().position(|node| node.address == to.ip()) {
                self.take_in(at as u8 + 1, to.port(), batch);
            }
        }
    }

    fn take_in(&mut self, n: u8, udp_port: u16, datagrams: Vec<Datagram>) {
        let (mut batch, mut output) = (take_batch(&mut self.batch), take(&mut self.output));
        for datagram in datagrams {
            let mut arrival = Arrival::from(datagram.from);
            arrival.tos = datagram.outer.tos;
            assert!(batch.push_datagram(&datagram.bytes, arrival));
        }
        let now = self.now;
        let node = self.node(n);
        output.want_fates(batch.len());
        node.forwarder.from_underlay(&node.tables, now, udp_port, &mut batch, &mut output);
        node.note(output.fates(), batch.len());
        self.carry_out(n, batch, output);
    }

    /// What a worker does with an output: send, deliver, report, and pass on what was found out.
    fn carry_out(&mut self, n: u8, mut batch: Batch, mut output: Output) {
        let Self { nodes, under_way, sent, now, faults, rng, .. } = self;
        let node = &mut nodes[usize::from(n) - 1];
        for transmit in output.transmits() {
            let Some(to) = node.tables.vtep_address(transmit.vtep) else {
                let datagrams = transmit.datagrams.into();
                node.forwarder.unsent(&node.tables, transmit, datagrams, DropReason::VtepGone);
                continue;
            };
            let port = match transmit.source {
                SourcePort::Listener(port) => port,
                SourcePort::Entropy { flow, .. } => 49_152 + (flow % 16_384) as u16,
            };
            for parts in output.datagrams(&batch, transmit) {
                let bytes = parts.concat();
                if rng.happens(faults.refused) {
                    node.forwarder.unsent(&node.tables, transmit, 1, DropReason::UnderlayFull);
                    continue;
                }
                node.forwarder.sent(&node.tables, transmit, 1, bytes.len() as u64);
                let from = SocketAddr::new(node.address, port);
                let datagram = Datagram { from, to, outer: transmit.outer, bytes };
                sent.push(datagram.clone());
                // IP and UDP headers.
                let vanishes = faults.mtu > 0 && datagram.bytes.len() + 28 > faults.mtu;
                if vanishes || rng.happens(faults.lost) {
                    continue;
                }
                if rng.happens(faults.repeated) {
                    under_way.push_back(datagram.clone());
                }
                if rng.happens(faults.overtaken) {
                    under_way.push_front(datagram);
                } else {
                    under_way.push_back(datagram);
                }
            }
        }
        for (index, deliver) in output.delivers().iter().enumerate() {
            let bytes = output.frame(&batch, deliver).collect::<Vec<_>>().concat();
            let inbox = node.inboxes.entry(deliver.port).or_default();
            if inbox.len() == INBOX {
                node.forwarder.undelivered(&node.tables, deliver, DropReason::PortFull);
                continue;
            }
            node.forwarder.delivered(&node.tables, deliver, bytes.len());
            let metadata = output.metadata(index);
            inbox.push_back(Received { vnet: deliver.vnet, bytes, metadata });
        }
        for &(segment, address) in output.discovered() {
            node.tables.apply(*now, [Change::Discover { segment, address }]).unwrap();
        }
        node.tables.apply(*now, output.heard().iter().cloned()).unwrap();
        node.events.extend(output.events().iter().cloned());
        node.echoes.extend(output.echoes());
        batch.clear();
        output.clear();
        let totals = node.tables.stats().totals;
        assert!(totals.is_conserved(), "{}: {totals:?}", node.address);
        (self.batch, self.output) = (batch, output);
    }

    /// Probes the paths from node `n` as its worker would for so many seconds, and lets the underlay work.
    pub(crate) fn probe(&mut self, n: u8, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now <= end {
            let now = self.now;
            let node = self.node(n);
            for echo in take(&mut node.echoes) {
                node.prober.heard(now, &echo);
            }
            let round = node.prober.round(&node.tables, now);
            node.tables.apply(now, round.changes).unwrap();
            node.events.extend(round.events);
            if round.probes.is_empty() {
                let next = node.prober.next().unwrap_or(Duration::MAX);
                // New VTEPs are seen at the next look.
                self.now = next.clamp(now, now + Duration::from_millis(100)).max(now + TICK);
                continue;
            }
            let (batch, mut output) = (take_batch(&mut self.batch), take(&mut self.output));
            let node = self.node(n);
            for probe in &round.probes {
                node.forwarder.probe(&node.tables, now, probe, &mut output);
            }
            self.carry_out(n, batch, output);
            self.run();
            self.now += TICK;
        }
    }

    /// What is known of the path from node `n` to a VTEP, and by which probes.
    pub(crate) fn path(&mut self, n: u8, vtep: SocketAddr) -> (PathMtu, Option<ProbeStats>) {
        let now = self.now;
        let node = self.node(n);
        let path = node.tables.path_mtu(vtep).unwrap_or_default();
        (path, node.prober.stats(&node.tables, vtep, now))
    }

    /// Moves the clock and does what is due every second.
    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        for node in &mut self.nodes {
            let events = &mut node.events;
            // A tick sweeps a part of each table.
            for _ in 0..60 {
                node.forwarder.tick(&node.tables, self.now, |event| events.push(event));
            }
            node.tables.apply(self.now, node.tables.expired_mdb(self.now)).unwrap();
        }
        for n in 1..=self.nodes.len() as u8 {
            let (mut batch, mut output) = (take_batch(&mut self.batch), take(&mut self.output));
            let now = self.now;
            let node = self.node(n);
            node.forwarder.query_groups(&node.tables, now, &mut batch, &mut output);
            self.carry_out(n, batch, output);
        }
        self.run();
    }

    fn assert_conserved(&self) {
        for node in &self.nodes {
            let totals = node.tables.stats().totals;
            assert!(totals.is_conserved(), "{}: {totals:?}", node.address);
        }
    }
}

fn take_batch(batch: &mut Batch) -> Batch {
    std::mem::replace(batch, Batch::new(1))
}

impl Drop for Network {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_conserved();
        }
    }
}
