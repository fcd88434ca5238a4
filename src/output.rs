//! What forwarding a batch decided: datagrams to send and frames to deliver, as runs inside the batch.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::batch::{Batch, Span};
use crate::event::Event;
use crate::segment::{PortId, SegmentId, VtepId};
use crate::wire::VnetHeader;

/// Largest number of datagrams, and of deliveries, that one output holds; what exceeds it is dropped as
/// [`DropReason::OutputFull`](crate::DropReason::OutputFull).
pub const MAX_OUTPUT: usize = 65_536;

/// Events kept per batch; a table that changes faster than that reports a sample.
const MAX_EVENTS: usize = 64;

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

/// One datagram to send: the bytes of `head`, then those of `body`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Receiver; see [`Tables::vtep_address`](crate::Tables::vtep_address).
    pub vtep: VtepId,
    /// UDP source port.
    pub source: SourcePort,
    /// First bytes, inside [`Output::headers`]; mostly empty.
    pub head: Span,
    /// Further bytes, inside the batch.
    pub body: Span,
}

/// One frame to write to a port: the bytes of `head`, then those of `body`.
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
}

/// The decisions about one batch, in the order of its frames; valid until the batch changes.
#[derive(Debug, Default)]
pub struct Output {
    pub(crate) transmits: Vec<Transmit>,
    pub(crate) delivers: Vec<Deliver>,
    pub(crate) headers: Vec<u8>,
    pub(crate) discovered: SmallVec<[(SegmentId, IpAddr); MAX_DISCOVERIES]>,
    pub(crate) events: Vec<Event>,
    pub(crate) events_lost: u64,
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

    /// The arena that [`Transmit::head`] and [`Deliver::head`] point into.
    #[must_use]
    #[inline]
    pub fn headers(&self) -> &[u8] {
        &self.headers
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

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.transmits.clear();
        self.delivers.clear();
        self.headers.clear();
        self.discovered.clear();
        self.events.clear();
        self.events_lost = 0;
    }

    /// The two runs of a descriptor as bytes.
    #[must_use]
    #[inline]
    pub fn parts<'a>(&'a self, batch: &'a Batch, head: Span, body: Span) -> [&'a [u8]; 2] {
        [&self.headers[head.range()], batch.bytes(body)]
    }

    pub(crate) fn event(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push(event);
        } else {
            self.events_lost += 1;
        }
    }

    pub(crate) fn discover(&mut self, segment: SegmentId, address: IpAddr) {
        if self.discovered.len() < MAX_DISCOVERIES && !self.discovered.contains(&(segment, address))
        {
            self.discovered.push((segment, address));
        }
    }
}
