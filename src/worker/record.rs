//! Recording frames with their fates for open captures.
//!
//! A batch is recorded in two steps. Before it is forwarded, what filters say of each received frame is noted, with the
//! bytes that forwarding may change: those at its beginning. After it was carried out the fates are known, those of received
//! frames from the output, those of copies from what failed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::{Batch, Span};
use crate::capture::{CapturePoint, Captured, Direction, Fate, LOOKED_AT, Layer};
use crate::captures::{Captures, MAX_CAPTURES, Open};
use crate::drop_reason::DropReason;
use crate::output::{Deliver, Output, SourcePort, Transmit};
use crate::segment::{PortId, SegmentId};
use crate::source_key::SourceKey;
use crate::tables::{SegmentTable, Tables};
use crate::wire::{Vni, vxlan};

/// Bytes at the beginning of a received frame that are kept as they were. Beyond them forwarding changes nothing but a checksum
/// that a device has left unfinished behind longer headers.
const HEAD: usize = 256;

/// All datagrams of a transmit together.
const ALL: u32 = u32::MAX;

/// A set of the open captures, by their places.
type Set = u16;
const _: () = assert!(MAX_CAPTURES <= Set::BITS as usize);

/// Where a batch comes from.
#[derive(Clone, Copy)]
pub(super) enum Whence {
    Port(PortId),
    Socket(u16),
}

/// A received frame that some captures may want.
#[derive(Debug)]
struct Staged {
    /// Its number in the batch.
    index: usize,
    wanted: Set,
    at: Option<IpAddr>,
    about: About,
    /// Where it lies, and where its first bytes are kept.
    body: Span,
    head: Span,
}

/// What filters judge beside bytes and place.
#[derive(Clone, Copy, Debug)]
struct About {
    segment: Option<SegmentId>,
    vni: Option<Vni>,
    layer: Layer,
}

/// Which copy failed: its number among the transmits or the deliveries, and the datagram of it or [`ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Departure {
    Deliver(u32),
    Transmit(u32, u32),
}

/// What one worker records.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    worker: usize,
    generation: u64,
    open: Vec<Arc<Open>>,
    /// The port that the batch is from, if it is from one.
    port: Option<PortId>,
    read: Duration,
    staged: Vec<Staged>,
    heads: Vec<u8>,
    /// Copies that were not carried out, and those without reason that are recorded already.
    failed: Vec<(Departure, Option<DropReason>)>,
    /// The last port that was named, and in this batch the last one that was asked about.
    name: Option<(PortId, Arc<str>)>,
    asked: Option<(PortId, About)>,
}

impl Recorder {
    pub(super) fn new(worker: usize) -> Self {
        Self { worker, ..Self::default() }
    }

    /// Whether there is anything to record for, after a look at which captures are open.
    #[inline]
    pub(super) fn follow(&mut self, captures: &Captures) -> bool {
        if captures.generation() != self.generation {
            self.take_over(captures);
        }
        self.is_open()
    }

    #[cold]
    fn take_over(&mut self, captures: &Captures) {
        (self.generation, self.open) = captures.list();
        if self.open.is_empty() {
            *self = Self { generation: self.generation, ..Self::new(self.worker) };
        }
    }

    /// Whether there is anything to record for.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The captures for which something holds.
    fn those(&self, among: Set, holds: impl Fn(&Open) -> bool) -> Set {
        let bit = |(place, open): (usize, &Arc<Open>)| {
            Set::from(among >> place & 1 != 0 && holds(open)) << place
        };
        self.open.iter().enumerate().map(bit).sum()
    }

    /// Notes what may be wanted of a batch that is about to be forwarded, and says whether anything is.
    #[inline(never)]
    pub(super) fn stage(
        &mut self,
        tables: &Tables,
        whence: Whence,
        batch: &Batch,
        now: Duration,
    ) -> bool {
        self.staged.clear();
        self.heads.clear();
        self.failed.clear();
        self.read = now;
        self.port = None;
        let all = self.those(Set::MAX, |open| open.wants(Direction::Received));
        match whence {
            Whence::Port(port) => self.stage_from_port(tables, port, batch, all),
            Whence::Socket(udp_port) => self.stage_from_underlay(tables, udp_port, batch, all),
        }
        !self.staged.is_empty()
    }

    fn stage_from_port(&mut self, tables: &Tables, port: PortId, batch: &Batch, all: Set) {
        self.port = Some(port);
        let about = about_port(tables, port);
        let name = self.name_of(tables, port);
        let wanted = self.those(all, |open| {
            open.filter.admits_port(&name) && open.filter.admits_segment(about.segment, None)
        });
        for index in 0..if wanted == 0 { 0 } else { batch.len() } {
            self.stage_frame(batch, index, batch.span(index), (wanted, about, None));
        }
    }

    fn stage_from_underlay(&mut self, tables: &Tables, udp_port: u16, batch: &Batch, all: Set) {
        let bare = tables.segment(SegmentId { udp_port, vni: None });
        let bare = bare.filter(|segment| matches!(segment.table, SegmentTable::Routed(_)));
        let bare =
            bare.map(|segment| About { segment: Some(segment.id), vni: None, layer: Layer::Ip });
        // Neighbours in a batch mostly share their sender and their VNI.
        let mut last = (SourceKey::NONE, None);
        let (mut about, mut wanted, mut address) = (UNKNOWN, 0, None);
        for index in 0..if all == 0 { 0 } else { batch.len() } {
            let header = vxlan::decode(batch.frame(index)).ok().filter(|_| bare.is_none());
            let key = (batch.source_key(index), header.map(vxlan::Header::vni));
            if index == 0 || key != last {
                last = key;
                about = bare.unwrap_or_else(|| about_vxlan(tables, udp_port, key.1));
                let from = batch.source(index);
                address = Some(from);
                wanted = self.those(all, |open| {
                    open.filter.admits_vtep(from)
                        && open.filter.admits_segment(about.segment, about.vni)
                });
            }
            if wanted != 0 {
                let span = batch.span(index);
                let skip = if header.is_some() { vxlan::HEADER_LEN as u32 } else { 0 };
                let body = Span { start: span.start + skip, len: span.len - skip };
                self.stage_frame(batch, index, body, (wanted, about, address));
            }
        }
    }

    #[inline]
    fn stage_frame(
        &mut self,
        batch: &Batch,
        index: usize,
        body: Span,
        (wanted, about, at): (Set, About, Option<IpAddr>),
    ) {
        let frame = batch.bytes(body);
        let wanted = self.those(wanted, |open| open.filter.admits_bytes(about.layer, frame));
        if wanted == 0 {
            return;
        }
        let kept = &frame[..frame.len().min(HEAD)];
        let head = Span { start: self.heads.len() as u32, len: kept.len() as u32 };
        self.heads.extend_from_slice(kept);
        self.staged.push(Staged { index, wanted, at, about, body, head });
    }

    /// Notes that copies were not carried out.
    #[cold]
    pub(super) fn undelivered(&mut self, deliver: usize, reason: DropReason) {
        if self.is_open() {
            self.failed.push((Departure::Deliver(deliver as u32), Some(reason)));
        }
    }

    /// The same for one datagram of a transmit.
    #[cold]
    pub(super) fn unsent(&mut self, transmit: usize, datagram: u32, reason: DropReason) {
        if self.is_open() {
            self.failed.push((Departure::Transmit(transmit as u32, datagram), Some(reason)));
        }
    }

    /// The same for all datagrams of a transmit.
    #[cold]
    pub(super) fn all_unsent(&mut self, transmit: usize, reason: DropReason) {
        self.unsent(transmit, ALL, reason);
    }

    /// Notes that the pieces of a delivery are recorded one by one, with [`Self::piece`].
    #[cold]
    pub(super) fn in_pieces(&mut self, deliver: usize) {
        if self.is_open() {
            self.failed.push((Departure::Deliver(deliver as u32), None));
        }
    }

    /// Records one piece of a delivery.
    #[cold]
    pub(super) fn piece(
        &mut self,
        (tables, now): (&Tables, Duration),
        port: PortId,
        parts: [&[u8]; 2],
        fate: Fate,
    ) {
        let wanted = self.those(Set::MAX, |open| open.wants(Direction::Sent));
        self.record_delivered((tables, now), port, parts.into_iter(), (wanted, fate));
    }

    /// Records a batch that was carried out.
    #[inline(never)]
    pub(super) fn record(
        &mut self,
        tables: &Tables,
        batch: &Batch,
        output: &Output,
        now: Duration,
    ) {
        self.record_received(tables, batch, output);
        self.failed.sort_unstable_by_key(|(copy, _)| *copy);
        let failed = std::mem::take(&mut self.failed);
        // What rules out all copies at once is looked at once.
        let all = self.those(Set::MAX, |open| {
            open.wants(Direction::Sent) && !(failed.is_empty() && open.wants_drops_only())
        });
        let of_port = self.port.and_then(|port| tables.segment(tables.port(port)?.segment));
        let one_vni = of_port.filter(|segment| !segment.has_many_headers).map(|segment| segment.id);
        let to_ports = self.those(all, |open| {
            let segment = one_vni.is_none_or(|id| open.filter.admits_segment(Some(id), None));
            segment && open.filter.vtep.is_none()
        });
        let to_vteps = self.those(all, |open| {
            let segment = one_vni.is_none_or(|id| open.filter.admits_segment(Some(id), id.vni));
            segment && open.filter.port.is_none()
        });
        let at = (tables, now);
        if to_ports != 0 {
            for (index, deliver) in output.delivers().iter().enumerate() {
                self.record_deliver(at, batch, output, (index, deliver), (to_ports, &failed));
            }
        }
        if to_vteps != 0 {
            for (index, transmit) in output.transmits().iter().enumerate() {
                self.record_transmit(at, batch, output, (index, transmit), (to_vteps, &failed));
            }
        }
        self.failed = failed;
        self.failed.clear();
        self.staged.clear();
        // What comes next may be of this node's own making, and by other tables.
        (self.port, self.asked) = (None, None);
    }

    fn record_received(&mut self, tables: &Tables, batch: &Batch, output: &Output) {
        let staged = std::mem::take(&mut self.staged);
        for it in &staged {
            let Some(fate) = output.fates().get(it.index).copied() else { continue };
            let wanted = self.those(it.wanted, |open| open.filter.admits_fate(fate));
            if wanted == 0 {
                continue;
            }
            let at = match (it.at, self.port) {
                (Some(address), _) => CapturePoint::Vtep(address),
                (None, Some(id)) => CapturePoint::Port { id, name: self.name_of(tables, id) },
                (None, None) => continue,
            };
            let rest = Span { start: it.body.start + it.head.len, len: it.body.len - it.head.len };
            let parts = [&self.heads[it.head.range()], batch.bytes(rest)];
            self.push((self.read, at, it.about), parts.into_iter(), (wanted, fate));
        }
        self.staged = staged;
    }

    fn record_deliver(
        &mut self,
        at: (&Tables, Duration),
        batch: &Batch,
        output: &Output,
        (index, deliver): (usize, &Deliver),
        (all, failed): (Set, &[(Departure, Option<DropReason>)]),
    ) {
        let fate = match outcome(failed, Departure::Deliver(index as u32)) {
            None => Fate::Delivered,
            Some(Some(reason)) => Fate::Dropped(reason),
            Some(None) => return,
        };
        self.record_delivered(at, deliver.port, output.frame(batch, deliver), (all, fate));
    }

    fn record_delivered<'a>(
        &mut self,
        (tables, now): (&Tables, Duration),
        port: PortId,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
        (all, fate): (Set, Fate),
    ) {
        let about = self.about_port(tables, port);
        let mut room = [0; LOOKED_AT];
        let beginning = beginning_of(parts.clone(), &mut room);
        let wanted = self.those(all, |open| open.filter.admits_bytes(about.layer, beginning));
        if wanted == 0 {
            return;
        }
        let name = self.name_of(tables, port);
        let wanted = self.those(wanted, |open| {
            let filter = &open.filter;
            filter.admits_fate(fate)
                && filter.admits_port(&name)
                && filter.admits_segment(about.segment, None)
        });
        if wanted != 0 {
            self.push((now, CapturePoint::Port { id: port, name }, about), parts, (wanted, fate));
        }
    }

    fn record_transmit(
        &mut self,
        (tables, now): (&Tables, Duration),
        batch: &Batch,
        output: &Output,
        (index, transmit): (usize, &Transmit),
        (all, failed): (Set, &[(Departure, Option<DropReason>)]),
    ) {
        let framed = matches!(transmit.source, SourcePort::Entropy { .. });
        let layer = if framed { Layer::Ethernet } else { Layer::Ip };
        let unwrap = |datagram| if framed { split_header(datagram) } else { (&[][..], datagram) };
        // Addresses are the same in all datagrams of a train.
        let Some(first) = output.datagrams(batch, transmit).next() else { return };
        let (header, parts) = unwrap(first);
        let mut room = [0; LOOKED_AT];
        let beginning = beginning_of(parts.into_iter(), &mut room);
        let wanted = self.those(all, |open| open.filter.admits_bytes(layer, beginning));
        if wanted == 0 {
            return;
        }
        // Without its VTEP nobody knows where it was to go.
        let Some(to) = tables.vtep_address(transmit.vtep).map(|address| address.ip()) else {
            return;
        };
        let (segment, vni) = match transmit.source {
            SourcePort::Listener(udp_port) => (Some(SegmentId { udp_port, vni: None }), None),
            SourcePort::Entropy { listener, .. } => {
                let vni = vxlan::decode(header).ok().map(vxlan::Header::vni);
                let of_port = self.port.and_then(|port| Some(tables.port(port)?.segment));
                (of_port.or_else(|| segment_towards(tables, (listener, vni?), to)), vni)
            }
        };
        let wanted = self.those(wanted, |open| {
            open.filter.admits_vtep(to) && open.filter.admits_segment(segment, vni)
        });
        if wanted == 0 {
            return;
        }
        let every = outcome(failed, Departure::Transmit(index as u32, ALL));
        for (number, datagram) in output.datagrams(batch, transmit).enumerate() {
            let failure =
                every.or_else(|| outcome(failed, Departure::Transmit(index as u32, number as u32)));
            let fate = failure.flatten().map_or(Fate::Sent, Fate::Dropped);
            let wanted = self.those(wanted, |open| open.filter.admits_fate(fate));
            if wanted != 0 {
                let (at, about) = (CapturePoint::Vtep(to), About { segment, vni, layer });
                self.push((now, at, about), unwrap(datagram).1.into_iter(), (wanted, fate));
            }
        }
    }

    /// Copies a frame for each capture that wants it.
    fn push<'a>(
        &self,
        (time, at, About { segment, vni, layer }): (Duration, CapturePoint, About),
        parts: impl Iterator<Item = &'a [u8]> + Clone,
        (wanted, fate): (Set, Fate),
    ) {
        let len = parts.clone().map(<[u8]>::len).sum::<usize>();
        for (place, open) in self.open.iter().enumerate() {
            let kept = len.min(open.snap);
            if wanted >> place & 1 == 0 || !open.reserve(kept) {
                continue;
            }
            let mut bytes = Vec::with_capacity(kept);
            for part in parts.clone() {
                bytes.extend_from_slice(&part[..part.len().min(kept - bytes.len())]);
            }
            let (worker, at, bytes) = (self.worker, at.clone(), bytes.into());
            open.push(Captured { time, worker, at, segment, vni, fate, layer, len, bytes });
        }
    }

    fn about_port(&mut self, tables: &Tables, port: PortId) -> About {
        match self.asked {
            Some((last, about)) if last == port => about,
            _ => self.asked.insert((port, about_port(tables, port))).1,
        }
    }

    fn name_of(&mut self, tables: &Tables, port: PortId) -> Arc<str> {
        if let Some((last, name)) = &self.name
            && *last == port
        {
            return name.clone();
        }
        let name: Arc<str> = tables.port(port).map_or("", |port| &*port.name).into();
        self.name = Some((port, name.clone()));
        name
    }
}

/// A datagram of which nothing is known.
const UNKNOWN: About = About { segment: None, vni: None, layer: Layer::Datagram };

fn about_port(tables: &Tables, port: PortId) -> About {
    let Some(port) = tables.port(port) else { return UNKNOWN };
    let bridge = tables.segment(port.segment).is_some_and(|segment| segment.kind.is_ethernet());
    let layer = if bridge || port.gateway.is_some() { Layer::Ethernet } else { Layer::Ip };
    About { segment: Some(port.segment), vni: None, layer }
}

fn about_vxlan(tables: &Tables, udp_port: u16, vni: Option<Vni>) -> About {
    let Some(vni) = vni else { return UNKNOWN };
    let segment = tables.bridge_of(udp_port, vni).map(|segment| segment.id);
    About { segment, vni: Some(vni), layer: Layer::Ethernet }
}

/// The segment of a VNI that a datagram for an address leaves with: it may be that of the VTEP alone, and so of no segment.
fn segment_towards(tables: &Tables, (udp_port, vni): (u16, Vni), to: IpAddr) -> Option<SegmentId> {
    let segment = tables.bridge_of(udp_port, vni);
    let segment = segment.filter(|segment| segment.peers.contains_key(&SourceKey::from(to)));
    segment.map(|segment| segment.id)
}

/// What is known of a copy that did not go the usual way.
fn outcome(
    failed: &[(Departure, Option<DropReason>)],
    copy: Departure,
) -> Option<Option<DropReason>> {
    let at = failed.binary_search_by_key(&copy, |(copy, _)| *copy).ok()?;
    Some(failed[at].1)
}

/// The VXLAN header of a datagram in two runs of bytes, which is in one of them, and the rest.
fn split_header([head, body]: [&[u8]; 2]) -> (&[u8], [&[u8]; 2]) {
    match head.split_at_checked(vxlan::HEADER_LEN) {
        Some((header, head)) => (header, [head, body]),
        None => {
            let (header, body) = body.split_at(vxlan::HEADER_LEN.min(body.len()));
            (header, [head, body])
        }
    }
}

/// The first bytes of a frame in one run: those of its first part, if that is long enough, or a copy.
#[inline]
fn beginning_of<'a, 'b: 'a>(
    parts: impl Iterator<Item = &'b [u8]>,
    room: &'a mut [u8; LOOKED_AT],
) -> &'a [u8] {
    // Mostly nothing is in front of what lies in the batch.
    let mut parts = parts.skip_while(|part| part.is_empty());
    match parts.next() {
        Some(first) if first.len() >= LOOKED_AT => first,
        Some(first) => join(first, parts, room),
        None => &[],
    }
}

#[cold]
fn join<'a, 'b>(
    first: &'b [u8],
    others: impl Iterator<Item = &'b [u8]>,
    room: &'a mut [u8; LOOKED_AT],
) -> &'a [u8] {
    let mut filled = 0;
    for part in std::iter::once(first).chain(others) {
        let len = part.len().min(LOOKED_AT - filled);
        room[filled..filled + len].copy_from_slice(&part[..len]);
        filled += len;
    }
    &room[..filled]
}
