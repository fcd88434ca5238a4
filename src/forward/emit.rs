//! Turning a decision into descriptors: whole where the receiver can take it, finished or in chunks where not.

use crate::batch::{Batch, Span};
use crate::coalesce::Coalescer;
use crate::drop_reason::DropReason;
use crate::gso::Chunk;
use crate::output::{Deliver, MAX_OUTPUT, Output, SourcePort, Transmit};
use crate::segment::{Location, OuterHeader, Traits, VtepId};
use crate::tables::{PortEntry, SegmentEntry};
use crate::wire::eth::Cast;
use crate::wire::{FrameInfo, VnetHeader, vxlan};

use super::Context;
use super::gateway::{self, LinkHeader};
use super::headers::encapsulate_specially;
use super::tally::Tally;
use super::targets::Targets;

/// Turns decisions about frames of one segment into descriptors.
pub(super) struct Emitter<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) segment: &'a SegmentEntry,
    pub(super) output: &'a mut Output,
    pub(super) chunks: &'a mut Vec<Chunk>,
    pub(super) coalescer: &'a mut Coalescer,
    pub(super) tally: &'a mut Tally,
    /// Goes in front of whatever is delivered.
    pub(super) link: Option<LinkHeader>,
}

impl Emitter<'_> {
    // Rare cases are functions of their own that take what they need by value, the emitter included: what something
    // points to has to be put into memory for every frame.

    /// Emits frame `index` of a batch to a port.
    ///
    /// `vnet` says what is unfinished about the frame. `info` is the parsed frame if the caller has it.
    #[inline(always)]
    pub(super) fn emit_to_port(
        mut self,
        batch: &mut Batch,
        index: usize,
        vnet: VnetHeader,
        info: Option<&FrameInfo>,
        port: &PortEntry,
    ) -> Result<(), DropReason> {
        // Nothing to do to the frame: not even what it is needs to be known.
        if port.offload || vnet.is_zero() {
            self.deliver_whole(batch.span(index), vnet, port);
            return Ok(());
        }
        self.emit_to_one(batch, index, vnet, info.copied(), Targets::Port(port))
    }

    /// Emits frame `index` of a batch to a VTEP; see [`Self::emit_to_port`].
    #[inline(always)]
    pub(super) fn emit_to_vtep(
        mut self,
        batch: &mut Batch,
        index: usize,
        vnet: VnetHeader,
        info: Option<&FrameInfo>,
        vtep: VtepId,
    ) -> Result<(), DropReason> {
        if !vnet.is_zero() {
            return self.emit_to_one(batch, index, vnet, info.copied(), Targets::Vtep(vtep));
        }
        let frame = batch.frame(index);
        let bytes = frame.len();
        let headers = match info {
            Some(info) => {
                self.admit(frame, info, vtep)?;
                self.outer_headers(frame, info)
            }
            // Parsed and used in one place: a copy would wait for the stores that have just made it.
            None => match &FrameInfo::parse(frame) {
                Some(info) => {
                    self.admit(frame, info, vtep)?;
                    self.outer_headers(frame, info)
                }
                None => return Err(DropReason::Truncated),
            },
        };
        let body = self.encapsulate(batch, index, vtep);
        if self.transmit(Transmit::whole(vtep, headers, body)) {
            self.tally.encapsulated(bytes, Cast::Unicast);
        }
        Ok(())
    }

    /// Emits frame `index` to one place that does not take it as it is.
    #[inline(never)]
    fn emit_to_one(
        mut self,
        batch: &mut Batch,
        index: usize,
        vnet: VnetHeader,
        info: Option<FrameInfo>,
        target: Targets<'_>,
    ) -> Result<(), DropReason> {
        let pieces = self.emit_any(batch, index, vnet, info, target)?;
        self.tally.pieces(pieces);
        Ok(())
    }

    /// Refuses a frame that the underlay cannot carry to the VTEP.
    #[inline(always)]
    fn admit(&self, frame: &[u8], info: &FrameInfo, vtep: VtepId) -> Result<(), DropReason> {
        let packet = (frame.len() - usize::from(info.l3_offset)) as u32;
        if packet > self.segment.narrowest
            && packet > limit_of_paths(self.context, self.segment, (frame, *info), &[vtep])
        {
            return Err(DropReason::TooBig);
        }
        Ok(())
    }

    /// What the outer UDP and IP headers for a frame are to say.
    #[inline(always)]
    pub(super) fn outer_headers(
        &self,
        frame: &[u8],
        info: &FrameInfo,
    ) -> (SourcePort, OuterHeader) {
        (self.source_port(frame, info), self.segment.outer.header(frame, info))
    }

    /// Puts in front of frame `index` what goes between it and the outer UDP header.
    #[inline(always)]
    pub(super) fn encapsulate(&self, batch: &mut Batch, index: usize, vtep: VtepId) -> Span {
        match self.segment.id.vni {
            Some(vni) if self.segment.has_many_headers => {
                encapsulate_specially(self.segment, vni, batch, index, vtep)
            }
            Some(vni) => batch.prepend(index, &vxlan::encode(vni), usize::MAX),
            None => batch.span(index),
        }
    }

    /// A VXLAN peer expects entropy; flannel's expects its own port.
    #[inline(always)]
    fn source_port(&self, frame: &[u8], info: &FrameInfo) -> SourcePort {
        match self.segment.id.vni {
            Some(_) => {
                let flow = info.flow_hash(frame, self.context.entropy);
                SourcePort::Entropy { flow, listener: self.segment.id.udp_port }
            }
            None => SourcePort::Listener(self.segment.id.udp_port),
        }
    }

    /// Emits frame `index`, which is for one port, with what [`recognise`](super::recognise::recognise) found out.
    #[inline]
    pub(super) fn deliver_recognised(
        mut self,
        batch: &mut Batch,
        index: usize,
        unfinished: Option<VnetHeader>,
        info: &FrameInfo,
        port: &PortEntry,
    ) -> Result<(), DropReason> {
        let partial = unfinished.is_some();
        // What a tag was taken out of does not look like the rest of its train any more.
        if port.offload && !port.traits.meets(Traits::VLAN) {
            // Neither a super-frame of the peer's nor what is too large for the overlay.
            let fits = batch.span(index).len <= self.segment.mtu + u32::from(info.l3_offset);
            let one = fits && !unfinished.as_ref().is_some_and(VnetHeader::is_gso);
            if !one {
                self.coalescer.end_all(batch, self.output);
            } else if self.coalescer.join(batch, index, info, partial, port.id, self.output) {
                return Ok(());
            }
        }
        match unfinished {
            // The usual case on its own: a vnet header that is sometimes something would be copied every time.
            None => {
                self.deliver_whole(batch.span(index), VnetHeader::default(), port);
                Ok(())
            }
            Some(vnet) => self.emit_to_port(batch, index, vnet, Some(info), port),
        }
    }

    #[inline]
    pub(super) fn deliver_whole(&mut self, body: Span, vnet: VnetHeader, port: &PortEntry) {
        self.deliver(Deliver::whole(port.id, vnet, body));
    }

    /// Delivers a frame that nobody sent: an answer or a question of this node.
    pub(super) fn generate(&mut self, deliver: Deliver) {
        self.context.counters.generated.add(1);
        self.deliver(deliver);
    }

    /// The same for a datagram.
    pub(super) fn generate_datagram(&mut self, transmit: Transmit) {
        self.context.counters.generated.add(1);
        self.transmit(transmit);
    }

    #[inline]
    pub(super) fn deliver(&mut self, deliver: Deliver) {
        if self.output.delivers.len() == MAX_OUTPUT {
            self.not_made(DropReason::OutputFull, Some(Location::Port(deliver.port)), 1);
            return;
        }
        self.output.delivers.push(deliver);
        // Changed where it lies: one that is sometimes changed on its way there would be copied every time.
        if let Some(link) = &self.link {
            gateway::frame_last(link, self.output);
        }
    }

    /// Counts copies that are not made, and whose they would have been.
    // Inlined, so that the emitter itself is not pointed to.
    #[inline(always)]
    pub(super) fn not_made(&self, reason: DropReason, of: Option<Location>, copies: u64) {
        count_not_made(self.context, self.segment, reason, of, copies);
    }

    /// Transmits a datagram or a train, and returns whether there was room for it.
    #[inline(always)]
    pub(super) fn transmit(&mut self, transmit: Transmit) -> bool {
        let room = self.output.transmits.len() < MAX_OUTPUT;
        if room {
            self.output.transmits.push(transmit);
        } else {
            let vtep = Location::Vtep(transmit.vtep);
            self.not_made(DropReason::OutputFull, Some(vtep), transmit.datagrams.into());
        }
        room
    }
}

/// See [`Emitter::not_made`].
#[cold]
fn count_not_made(
    context: &Context<'_>,
    segment: &SegmentEntry,
    reason: DropReason,
    of: Option<Location>,
    copies: u64,
) {
    let Context { tables, counters, worker, .. } = *context;
    counters.dropped(reason, copies);
    segment.drops.of(worker).dropped(reason, copies);
    match of {
        Some(Location::Port(port)) => {
            let port = tables.port(port);
            port.iter().for_each(|port| port.counters.of(worker).sent_dropped(copies));
        }
        Some(Location::Vtep(vtep)) => {
            segment.counters.of(worker).sent_dropped(copies);
            let vtep = tables.vtep(vtep);
            vtep.iter().for_each(|vtep| vtep.counters.of(worker).sent_dropped(copies));
        }
        None => {}
    }
}

/// Largest IP packet, in bytes, that all of some VTEPs can be sent in what a frame is sent in.
#[cold]
pub(super) fn limit_of_paths(
    context: &Context<'_>,
    segment: &SegmentEntry,
    (frame, info): (&[u8], FrameInfo),
    vteps: &[VtepId],
) -> u32 {
    if segment.outer.header(frame, &info).may_fragment {
        return segment.mtu;
    }
    let limits = vteps.iter().map(|vtep| context.tables.limit_to(segment, *vtep));
    limits.min().unwrap_or(segment.mtu)
}
