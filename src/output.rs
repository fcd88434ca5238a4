//! What forwarding a batch decided: datagrams to send and frames to deliver, as runs inside the batch.

use std::net::IpAddr;
use std::ops::Range;

use smallvec::SmallVec;

use crate::batch::{Batch, Span};
use crate::capture::Fate;
use crate::change::Change;
use crate::drop_reason::DropReason;
use crate::event::Event;
use crate::metadata::Metadata;
use crate::segment::{OuterHeader, PortId, SegmentId, VtepId};
use crate::wire::VnetHeader;
use crate::wire::eth::Cast;

/// Largest number of datagrams, and of deliveries, that one output holds; what exceeds it is dropped as
/// [`DropReason::OutputFull`](crate::DropReason::OutputFull).
pub const MAX_OUTPUT: usize = 65_536;

/// Events kept per batch; a table that changes faster than that reports a sample.
const MAX_EVENTS: usize = 64;

/// Answers to probes kept per batch; a probe whose answer is lost is repeated.
const MAX_ECHOES: usize = 64;
/// Changes of multicast databases kept per batch; those beyond are refused, and their groups flooded.
const MAX_HEARD: usize = 256;

/// Discovered VTEPs kept per batch; others will be heard from again.
const MAX_DISCOVERIES: usize = 8;

/// From which UDP port a datagram is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePort {
    /// Any of the node's ports, the same one for the same flow (RFC 7348 §5).
    Entropy {
        /// Hash of the inner flow.
        flow: u32,
        /// The port the segment receives on, for a node that has no others.
        listener: u16,
    },
    /// The port the segment receives on.
    Listener(u16),
}

/// One datagram to send, the bytes of `head`, then those of `body`; or a train of several.
///
/// A train is a super-frame in chunks: `head` is the headers of all its datagrams, of equal length, one after the
/// other, and `body` the payload of all. Each datagram consists of a header and `size` bytes of payload, the last one
/// of what is left. See [`Output::datagrams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Receiver; see [`Tables::vtep_address`](crate::Tables::vtep_address).
    pub vtep: VtepId,
    /// UDP source port.
    pub source: SourcePort,
    /// TOS byte and TTL, of all datagrams, and what is counted of them.
    pub outer: OuterHeader,
    /// First bytes, inside [`Output::headers`]; mostly empty.
    pub head: Span,
    /// Further bytes, inside the batch.
    pub body: Span,
    /// Number of datagrams.
    pub datagrams: u32,
    /// Bytes of `body` in each datagram but the last.
    pub size: u32,
}

impl Transmit {
    /// One datagram that lies in the batch as it is to be sent.
    #[inline]
    pub(crate) fn whole(
        vtep: VtepId,
        (source, outer): (SourcePort, OuterHeader),
        body: Span,
    ) -> Self {
        let head = Span::default();
        Self { vtep, source, outer, head, body, datagrams: 1, size: body.len }
    }
}

/// The datagrams of a [`Transmit`], each in two runs of bytes.
#[derive(Clone, Debug)]
pub struct Datagrams<'a> {
    heads: &'a [u8],
    bodies: &'a [u8],
    header: usize,
    size: usize,
    left: u32,
}

impl<'a> Iterator for Datagrams<'a> {
    type Item = [&'a [u8]; 2];

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (head, heads) = self.heads.split_at(self.header.min(self.heads.len()));
        let (body, bodies) = self.bodies.split_at(self.size.min(self.bodies.len()));
        (self.heads, self.bodies) = (heads, bodies);
        Some([head, body])
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Datagrams<'_> {}

/// A run of [`Output::pieces`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// First piece.
    pub start: u32,
    /// Number of pieces.
    pub len: u32,
}

impl Pieces {
    #[inline]
    fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// One frame to write to a port: the bytes of `head`, then those of `body`, then those of `more`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deliver {
    /// Receiver.
    pub port: PortId,
    /// What a device that takes vnet headers is to be told of the frame; all zero for every other device.
    pub vnet: VnetHeader,
    /// First bytes, inside [`Output::headers`]; mostly empty.
    pub head: Span,
    /// Further bytes, inside the batch.
    pub body: Span,
    /// The payload of the other frames that were joined with the first one; mostly none.
    pub more: Pieces,
    /// Number of received frames, or chunks of them, that this is.
    pub frames: u32,
    /// For how many stations the frame is, for the counters.
    pub cast: Cast,
}

impl Deliver {
    /// One frame that lies in the batch as it is to be written.
    #[inline]
    pub(crate) fn whole(port: PortId, vnet: VnetHeader, body: Span) -> Self {
        let (head, more, cast) = (Span::default(), Pieces::default(), Cast::Unicast);
        Self { port, vnet, head, body, more, frames: 1, cast }
    }
}

/// A VTEP's answer to a probe of this node; for [`Prober::heard`](crate::Prober::heard).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    pub(crate) vtep: VtepId,
    pub(crate) sequence: u32,
    /// Size of the outer IP packet that arrived, in bytes.
    pub(crate) size: u32,
}

/// The decisions about one batch, in the order of its frames; valid until the batch changes.
#[derive(Debug, Default)]
pub struct Output {
    pub(crate) transmits: Vec<Transmit>,
    pub(crate) delivers: Vec<Deliver>,
    /// Of the deliveries that have any, by number; mostly none.
    pub(crate) metadata: Vec<(u32, Metadata)>,
    pub(crate) headers: Vec<u8>,
    pub(crate) pieces: Vec<Span>,
    pub(crate) discovered: SmallVec<[(SegmentId, IpAddr); MAX_DISCOVERIES]>,
    pub(crate) echoes: Vec<Echo>,
    pub(crate) heard: Vec<Change>,
    pub(crate) events: Vec<Event>,
    pub(crate) events_lost: u64,
    /// Of each frame of the batch, if somebody wants to know.
    fates: Vec<Fate>,
}

impl Output {
    /// Makes an empty output.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Datagrams to send.
    #[must_use]
    #[inline]
    pub fn transmits(&self) -> &[Transmit] {
        &self.transmits
    }

    /// Frames to write to ports.
    #[must_use]
    #[inline]
    pub fn delivers(&self) -> &[Deliver] {
        &self.delivers
    }

    /// What the outer header said of the frame that delivery `index` of [`Output::delivers`] is; mostly nothing.
    #[must_use]
    #[inline]
    pub fn metadata(&self, index: usize) -> Metadata {
        if self.metadata.is_empty() { Metadata::default() } else { self.find_metadata(index) }
    }

    #[cold]
    fn find_metadata(&self, index: usize) -> Metadata {
        let found = self.metadata.binary_search_by_key(&(index as u32), |(of, _)| *of);
        found.map_or_else(|_| Metadata::default(), |at| self.metadata[at].1)
    }

    /// Adds what is known of the frames that the deliveries from number `first` on are of, once for the whole batch.
    #[cold]
    pub(crate) fn describe(&mut self, first: usize, batch: &Batch) {
        for (index, deliver) in self.delivers.iter().enumerate().skip(first) {
            if let Some(frame) = batch.frame_of(deliver.body) {
                self.metadata.push((index as u32, batch.metadata(frame)));
            }
        }
    }

    /// The arena that [`Transmit::head`] and [`Deliver::head`] point into.
    #[must_use]
    #[inline]
    pub fn headers(&self) -> &[u8] {
        &self.headers
    }

    /// Puts bytes into that arena, and says where they are.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Span {
        let start = self.headers.len() as u32;
        self.headers.extend_from_slice(bytes);
        Span { start, len: bytes.len() as u32 }
    }

    /// The runs of bytes, inside the batch, that [`Deliver::more`] points to.
    #[must_use]
    pub fn pieces(&self) -> &[Span] {
        &self.pieces
    }

    /// What happened while forwarding.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Underlay addresses that open segments heard from for the first time; to be answered with
    /// [`Change::Discover`](crate::Change::Discover).
    #[must_use]
    pub fn discovered(&self) -> &[(SegmentId, IpAddr)] {
        &self.discovered
    }

    /// Answers that VTEPs gave to probes.
    #[must_use]
    pub fn echoes(&self) -> &[Echo] {
        &self.echoes
    }

    /// What segments that snoop have heard of members of multicast groups: to be applied, before the output is cleared or soon
    /// after.
    #[must_use]
    pub fn heard(&self) -> &[Change] {
        &self.heard
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.transmits.clear();
        self.delivers.clear();
        self.metadata.clear();
        self.headers.clear();
        self.pieces.clear();
        self.discovered.clear();
        self.echoes.clear();
        self.heard.clear();
        self.events.clear();
        self.events_lost = 0;
        self.fates.clear();
    }

    /// Asks for the fate of each frame of a batch of `frames` frames that is about to be forwarded; see [`Output::fates`].
    pub fn want_fates(&mut self, frames: usize) {
        self.fates.clear();
        self.fates.resize(frames, Fate::Forwarded);
    }

    /// What became of each frame of the batch, in their order; empty unless [`Output::want_fates`] has asked for it.
    ///
    /// It is that of received frames: one that was forwarded or flooded may still be lost with a [`Transmit`] or a
    /// [`Deliver`] that is not carried out.
    #[must_use]
    pub fn fates(&self) -> &[Fate] {
        &self.fates
    }

    /// Notes what becomes of frame `index`, if that was asked for; what is noted last holds.
    #[inline]
    pub(crate) fn note(&mut self, index: usize, fate: Fate) {
        // Mostly empty: then this is one comparison.
        if let Some(place) = self.fates.get_mut(index) {
            *place = fate;
        }
    }

    /// The same for a frame that is dropped.
    #[inline]
    pub(crate) fn note_drop(&mut self, index: usize, reason: DropReason) {
        self.note(index, Fate::Dropped(reason));
    }

    /// The datagrams of a descriptor, of which there is mostly one.
    #[must_use]
    #[inline]
    pub fn datagrams<'a>(&'a self, batch: &'a Batch, transmit: &Transmit) -> Datagrams<'a> {
        Datagrams {
            heads: &self.headers[transmit.head.range()],
            bodies: batch.bytes(transmit.body),
            header: transmit.head.len.checked_div(transmit.datagrams).unwrap_or(0) as usize,
            size: transmit.size as usize,
            left: transmit.datagrams,
        }
    }

    /// The runs of a frame for a port.
    #[inline]
    pub fn frame<'a>(
        &'a self,
        batch: &'a Batch,
        deliver: &Deliver,
    ) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let first = [&self.headers[deliver.head.range()], batch.bytes(deliver.body)];
        let more = self.pieces[deliver.more.range()].iter().map(|piece| batch.bytes(*piece));
        first.into_iter().chain(more)
    }

    /// The frames that were joined to one, as they were received but for padding behind them: for a device that refuses
    /// the whole. Of use only where [`Deliver::frames`] is above one.
    ///
    /// An unfinished checksum of theirs is unfinished still; see [`l4::is_partial`](crate::wire::l4::is_partial).
    pub fn joined(&self, deliver: &Deliver) -> impl Iterator<Item = Span> + use<'_> {
        let more = self.pieces[deliver.more.range()].iter().copied();
        let header = deliver.head.len;
        // The header of each frame is still in front of its payload.
        let whole = move |body: Span| Span { start: body.start - header, len: body.len + header };
        std::iter::once(deliver.body).chain(more).map(whole)
    }

    pub(crate) fn event(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push(event);
        } else {
            self.events_lost += 1;
        }
    }

    pub(crate) fn echo(&mut self, echo: Echo) {
        if self.echoes.len() < MAX_ECHOES {
            self.echoes.push(echo);
        }
    }

    /// Takes a change of a multicast database, and says whether there was room for it.
    pub(crate) fn hear(&mut self, change: Change) -> bool {
        let room = self.heard.len() < MAX_HEARD;
        if room && !self.heard.contains(&change) {
            self.heard.push(change);
        }
        room
    }

    pub(crate) fn discover(&mut self, segment: SegmentId, address: IpAddr) {
        if self.discovered.len() < MAX_DISCOVERIES && !self.discovered.contains(&(segment, address))
        {
            self.discovered.push((segment, address));
        }
    }
}
