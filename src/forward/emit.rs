//! Turning a decision into descriptors: whole where the receiver can take it, finished or in chunks where not.

use smallvec::SmallVec;

use crate::batch::{Batch, Span};
use crate::coalesce::Coalescer;
use crate::drop_reason::DropReason;
use crate::gso::{self, Chunk};
use crate::metadata::Metadata;
use crate::output::{Deliver, MAX_OUTPUT, Output, SourcePort, Transmit};
use crate::segment::{Egress, Location, OuterHeader, PortId, Traits, VtepId};
use crate::tables::{PortEntry, SegmentEntry, Tables};
use crate::wire::eth::{self, Cast};
use crate::wire::l4::{self, L4Checksum};
use crate::wire::{FrameInfo, L3, L4, VnetHeader, Vni, vnet, vxlan};

use super::gateway::{self, LinkHeader};
use super::{Context, vlan};

/// Largest header arena of one output, in bytes: enough for a batch of super-frames in chunks.
const MAX_HEADERS: usize = 1 << 20;

/// Who gets a frame.
#[derive(Clone, Copy)]
pub(super) enum Targets<'a> {
    Port(&'a PortEntry),
    Vtep(VtepId),
    Many(&'a Audience<'a>),
}

/// Ports of a segment and VTEPs.
#[derive(Clone)]
pub(super) struct Audience<'a> {
    pub(super) tables: &'a Tables,
    pub(super) ports: &'a [PortId],
    /// Among the ports, the one the frame came from.
    pub(super) except: Option<PortId>,
    /// Ports with any of these do not get the frame.
    pub(super) without: Traits,
    /// The VLAN of the frame, which ports may not take; 0: none.
    pub(super) vid: u16,
    pub(super) vteps: &'a [VtepId],
}

impl<'a> Audience<'a> {
    /// One of the ports, if it gets the frame.
    #[inline]
    fn port(&self, id: PortId) -> Option<&'a PortEntry> {
        if Some(id) == self.except {
            return None;
        }
        let port = self.tables.port(id)?;
        let gets = !port.traits.meets(self.without) && vlan::flooded(port, self.vid).is_some();
        gets.then_some(port)
    }
}

impl<'a> Targets<'a> {
    fn vteps(&self) -> &[VtepId] {
        match self {
            Self::Port(_) => &[],
            Self::Vtep(vtep) => std::slice::from_ref(vtep),
            Self::Many(audience) => audience.vteps,
        }
    }

    #[inline]
    fn ports(&self) -> impl Iterator<Item = &'a PortEntry> + use<'a> {
        let (one, many) = match *self {
            Self::Port(port) => (Some(port), None),
            Self::Vtep(_) => (None, None),
            Self::Many(audience) => (None, Some(audience)),
        };
        let ports = many.map_or(&[][..], |audience| audience.ports);
        one.into_iter().chain(ports.iter().filter_map(move |id| many?.port(*id)))
    }

    /// Whether one of the ports gets the frame without its tag. A frame for one port has lost it by now.
    fn untags(&self, port: &PortEntry) -> bool {
        match *self {
            Self::Many(audience) => vlan::flooded(port, audience.vid) == Some(Egress::Untag),
            _ => false,
        }
    }

    fn is_empty(&self) -> bool {
        self.vteps().is_empty() && self.ports().next().is_none()
    }
}

/// Turns decisions about frames of one segment into descriptors.
pub(super) struct Emitter<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) segment: &'a SegmentEntry,
    pub(super) output: &'a mut Output,
    pub(super) chunks: &'a mut Vec<Chunk>,
    pub(super) coalescer: &'a mut Coalescer,
    /// Goes in front of whatever is delivered.
    pub(super) link: Option<LinkHeader>,
}

impl Emitter<'_> {
    /// Emits frame `index` of the batch to all targets and returns the number of copies made.
    ///
    /// `vnet` says what is unfinished about the frame. `info` is the parsed frame if the caller has it.
    // What is handed on to functions of its own goes there by value: what something points to has to lie in memory for
    // all frames.
    #[inline(always)]
    pub(super) fn emit(
        &mut self,
        batch: &mut Batch,
        index: usize,
        vnet: VnetHeader,
        info: Option<&FrameInfo>,
        targets: Targets<'_>,
    ) -> Result<u64, DropReason> {
        match targets {
            // Nothing to do to the frame: not even what it is needs to be known.
            Targets::Port(port) if port.offload || vnet.is_zero() => {
                self.deliver_whole(batch.span(index), vnet, port);
                Ok(1)
            }
            Targets::Vtep(vtep) if vnet.is_zero() => {
                let frame = batch.frame(index);
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
                self.transmit(Transmit::whole(vtep, headers, body));
                Ok(1)
            }
            _ => self.emit_any(batch, index, vnet, info.copied(), targets),
        }
    }

    /// Emits frame `index` to many, of whom there must be one.
    pub(super) fn flood(
        &mut self,
        batch: &mut Batch,
        index: usize,
        vnet: VnetHeader,
        info: Option<FrameInfo>,
        audience: &Audience<'_>,
    ) -> Result<u64, DropReason> {
        let targets = Targets::Many(audience);
        if targets.is_empty() {
            return Err(DropReason::NoDestination);
        }
        self.emit_any(batch, index, vnet, info, targets)
    }

    #[inline(never)]
    fn emit_any(
        &mut self,
        batch: &mut Batch,
        index: usize,
        vnet: VnetHeader,
        info: Option<FrameInfo>,
        targets: Targets<'_>,
    ) -> Result<u64, DropReason> {
        let targets = &targets;
        let vteps = targets.vteps();
        let cast = self.cast(batch, index);
        if vteps.is_empty() && targets.ports().all(|port| port.offload) {
            return Ok(self.deliver_to_all(batch, index, vnet, cast, targets));
        }
        let parsed = info.or_else(|| FrameInfo::parse(batch.frame(index)));
        let info = parsed.as_ref().ok_or(DropReason::Truncated)?;
        let limit = self.limit(batch.frame(index), info, vteps);
        if !vteps.is_empty() && exceeds(limit, batch.span(index).len, vnet, info) {
            return self.emit_where_it_fits(batch, index, vnet, info, targets);
        }
        if vnet.is_gso() {
            return self.emit_split(batch, index, vnet, info, (targets, limit));
        }
        if vnet.needs_checksum() {
            let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
            // Up to the end of the packet only: padding behind it is not part of the sum.
            let end = if info.l3 == L3::Other { usize::MAX } else { info.ip_end as usize };
            let frame = batch.frame_mut(index);
            let end = end.min(frame.len());
            if !l4::complete(&mut frame[..end], start, offset) {
                return Err(DropReason::BadOffload);
            }
        }
        let delivered = self.deliver_to_all(batch, index, VnetHeader::default(), cast, targets);
        if !vteps.is_empty() {
            let headers = self.outer_headers(batch.frame(index), info);
            if !self.segment.has_many_headers || self.segment.vnis.is_empty() {
                let body = self.encapsulate(batch, index, vteps[0]);
                let whole = Transmit::whole(vteps[0], headers, body);
                self.transmit_to_all(Transmit { cast, ..whole }, vteps);
            } else {
                self.transmit_each(batch, index, (headers, cast), vteps);
            }
        }
        Ok(delivered + vteps.len() as u64)
    }

    /// For how many stations frame `index` is.
    fn cast(&self, batch: &Batch, index: usize) -> Cast {
        if self.segment.kind.is_ethernet() { Cast::of(batch.frame(index)) } else { Cast::Unicast }
    }

    /// Emits a frame that is too large for some of its targets to the others.
    ///
    /// The underlay's limit is none for the ports of this node.
    #[cold]
    fn emit_where_it_fits(
        &mut self,
        batch: &mut Batch,
        index: usize,
        vnet: VnetHeader,
        info: &FrameInfo,
        targets: &Targets<'_>,
    ) -> Result<u64, DropReason> {
        let Targets::Many(audience) = *targets else {
            return Err(DropReason::TooBig);
        };
        let len = batch.span(index).len;
        let limit = |vtep| audience.tables.limit_to(self.segment, vtep);
        let fits = |vtep: &VtepId| !exceeds(limit(*vtep), len, vnet, info);
        let (fitting, refused): (SmallVec<[VtepId; 8]>, SmallVec<[VtepId; 8]>) =
            audience.vteps.iter().copied().partition(fits);
        let rest = Audience { vteps: &fitting, ..audience.clone() };
        let rest = Targets::Many(&rest);
        if rest.is_empty() {
            return Err(DropReason::TooBig);
        }
        let copies = self.emit_any(batch, index, vnet, Some(*info), rest)?;
        for vtep in &refused {
            self.dropped(DropReason::UnderlayTooBig, Some(Location::Vtep(*vtep)), 1);
        }
        Ok(copies + refused.len() as u64)
    }

    /// Largest IP packet, in bytes, that all of some VTEPs can be sent.
    #[inline]
    fn limit(&self, frame: &[u8], info: &FrameInfo, vteps: &[VtepId]) -> u32 {
        let SegmentEntry { mtu, narrowest, .. } = *self.segment;
        // Mostly no path is narrower than another.
        if narrowest == mtu { mtu } else { self.limit_of_paths(frame, *info, vteps) }
    }

    #[cold]
    fn limit_of_paths(&self, frame: &[u8], info: FrameInfo, vteps: &[VtepId]) -> u32 {
        if self.segment.outer.header(frame, &info).may_fragment {
            return self.segment.mtu;
        }
        let limits = vteps.iter().map(|vtep| self.context.tables.limit_to(self.segment, *vtep));
        limits.min().unwrap_or(self.segment.mtu)
    }

    /// Refuses a frame that the underlay cannot carry to the VTEP.
    #[inline(always)]
    fn admit(&self, frame: &[u8], info: &FrameInfo, vtep: VtepId) -> Result<(), DropReason> {
        let packet = (frame.len() - usize::from(info.l3_offset)) as u32;
        if packet > self.segment.narrowest && packet > self.limit_of_paths(frame, *info, &[vtep]) {
            return Err(DropReason::TooBig);
        }
        Ok(())
    }

    /// What the outer UDP and IP headers for a frame are to say.
    #[inline(always)]
    fn outer_headers(&self, frame: &[u8], info: &FrameInfo) -> (SourcePort, OuterHeader) {
        (self.source_port(frame, info), self.segment.outer.header(frame, info))
    }

    /// Puts in front of frame `index` what goes between it and the outer UDP header.
    #[inline(always)]
    fn encapsulate(&self, batch: &mut Batch, index: usize, vtep: VtepId) -> Span {
        match self.segment.id.vni {
            Some(vni) if self.segment.has_many_headers => {
                self.encapsulate_specially(vni, batch, index, vtep)
            }
            Some(vni) => batch.prepend(index, &vxlan::encode(vni), usize::MAX),
            None => batch.span(index),
        }
    }

    /// The same where headers are not all alike.
    #[cold]
    #[inline(never)]
    fn encapsulate_specially(
        &self,
        vni: Vni,
        batch: &mut Batch,
        index: usize,
        vtep: VtepId,
    ) -> Span {
        let header = self.header(vni, batch, index, Some(vtep));
        batch.prepend(index, &header, usize::MAX)
    }

    /// The VXLAN header of frame `index`, where headers are not all alike, for a VTEP or for those that have no VNI of
    /// their own.
    #[inline(never)]
    fn header(
        &self,
        vni: Vni,
        batch: &Batch,
        index: usize,
        vtep: Option<VtepId>,
    ) -> [u8; vxlan::HEADER_LEN] {
        let Metadata { vni: of_frame, policy } = batch.metadata(index);
        let of_vtep = || self.segment.vnis.get(&vtep?).copied();
        let of_frame = of_frame.filter(|_| self.segment.header.any_vni);
        let vni = of_frame.or_else(of_vtep).unwrap_or(vni);
        match policy.filter(|_| self.segment.header.gbp) {
            Some(policy) => vxlan::encode_with_policy(vni, policy),
            None => vxlan::encode(vni),
        }
    }

    /// Transmits frame `index` to VTEPs of which some have a VNI of their own.
    #[cold]
    fn transmit_each(
        &mut self,
        batch: &Batch,
        index: usize,
        (headers, cast): ((SourcePort, OuterHeader), Cast),
        vteps: &[VtepId],
    ) {
        let Some(vni) = self.segment.id.vni else { return };
        for vtep in vteps {
            let header = self.header(vni, batch, index, Some(*vtep));
            if self.output.headers.len() + header.len() > MAX_HEADERS {
                self.context.counters.dropped(DropReason::OutputFull, 1);
                continue;
            }
            let head = self.output.put(&header);
            let whole = Transmit::whole(*vtep, headers, batch.span(index));
            self.transmit(Transmit { head, cast, ..whole });
        }
    }

    /// The headers of a train again, under the VNI of the VTEP it goes to, if that has one of its own; `None` if there is
    /// no room for them.
    #[cold]
    fn headers_for(&mut self, train: &Transmit, header: [u8; vxlan::HEADER_LEN]) -> Option<Span> {
        let headers = &mut self.output.headers;
        if headers.len() + train.head.len as usize > MAX_HEADERS {
            return None;
        }
        let head = Span { start: headers.len() as u32, len: train.head.len };
        headers.extend_from_within(train.head.range());
        let each = (train.head.len / train.datagrams) as usize;
        for chunk in headers[head.range()].chunks_exact_mut(each) {
            chunk[..header.len()].copy_from_slice(&header);
        }
        Some(head)
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

    /// Emits frame `index`, which is for one port, with what [`recognise`] found out.
    #[inline]
    pub(super) fn deliver_recognised(
        &mut self,
        batch: &mut Batch,
        index: usize,
        unfinished: Option<VnetHeader>,
        info: &FrameInfo,
        port: &PortEntry,
    ) -> Result<u64, DropReason> {
        let partial = unfinished.is_some();
        // What a tag was taken out of does not look like the rest of its train any more.
        if port.offload && !port.traits.meets(Traits::VLAN) {
            // Neither a super-frame of the peer's nor what is too large for the overlay.
            let fits = batch.span(index).len <= self.segment.mtu + u32::from(info.l3_offset);
            let one = fits && !unfinished.as_ref().is_some_and(VnetHeader::is_gso);
            if !one {
                self.coalescer.end_all(batch, self.output);
            } else if self.coalescer.join(batch, index, info, partial, port.id, self.output) {
                return Ok(1);
            }
        }
        match unfinished {
            // The usual case on its own: a vnet header that is sometimes something would be copied every time.
            None => {
                self.deliver_whole(batch.span(index), VnetHeader::default(), port);
                Ok(1)
            }
            Some(vnet) => self.emit(batch, index, vnet, Some(info), Targets::Port(port)),
        }
    }

    #[inline]
    fn deliver_whole(&mut self, body: Span, vnet: VnetHeader, port: &PortEntry) {
        self.deliver(Deliver::whole(port.id, vnet, body));
    }

    /// Delivers to all target ports and returns how many there are.
    fn deliver_to_all(
        &mut self,
        batch: &Batch,
        index: usize,
        vnet: VnetHeader,
        cast: Cast,
        targets: &Targets<'_>,
    ) -> u64 {
        let mut copies = 0;
        for port in targets.ports() {
            self.deliver_copy(batch, index, vnet, (cast, targets.untags(port)), port);
            copies += 1;
        }
        copies
    }

    /// Delivers frame `index` to one of many ports, with its VLAN tag or without.
    #[inline]
    fn deliver_copy(
        &mut self,
        batch: &Batch,
        index: usize,
        vnet: VnetHeader,
        (cast, untag): (Cast, bool),
        port: &PortEntry,
    ) {
        let whole = match untag {
            true => self.untagged(batch, index, vnet, port),
            false => Deliver::whole(port.id, vnet, batch.span(index)),
        };
        self.deliver(Deliver { cast, ..whole });
    }

    /// Frame `index` without its VLAN tag, while others get it with it: its addresses are copied, and nothing else.
    #[cold]
    fn untagged(
        &mut self,
        batch: &Batch,
        index: usize,
        vnet: VnetHeader,
        port: &PortEntry,
    ) -> Deliver {
        let head = self.output.put(&batch.frame(index)[..eth::TAG_OFFSET]);
        let body = skip(batch.span(index), (eth::TAG_OFFSET + eth::VLAN_TAG_LEN) as u32);
        let vnet = vnet.without(eth::VLAN_TAG_LEN as u16);
        Deliver { head, ..Deliver::whole(port.id, vnet, body) }
    }

    /// The same for headers in the arena.
    #[cold]
    fn untagged_head(&mut self, head: Span) -> Span {
        let (start, headers) = (self.output.headers.len() as u32, &mut self.output.headers);
        let (at, end) = (head.start as usize, (head.start + head.len) as usize);
        headers.extend_from_within(at..at + eth::TAG_OFFSET);
        headers.extend_from_within(at + eth::TAG_OFFSET + eth::VLAN_TAG_LEN..end);
        Span { start, len: head.len - eth::VLAN_TAG_LEN as u32 }
    }

    /// Emits a super-frame: whole to ports that take it, in chunks to everybody else.
    fn emit_split(
        &mut self,
        batch: &Batch,
        index: usize,
        vnet: VnetHeader,
        info: &FrameInfo,
        (targets, limit): (&Targets<'_>, u32),
    ) -> Result<u64, DropReason> {
        let frame = batch.frame(index);
        let cast = self.cast(batch, index);
        let expected = match vnet.gso_type & !vnet::GSO_ECN {
            vnet::GSO_TCPV4 | vnet::GSO_TCPV6 => L4::Tcp,
            vnet::GSO_UDP_L4 => L4::Udp,
            _ => return Err(DropReason::BadOffload),
        };
        if info.l4 != expected {
            return Err(DropReason::BadOffload);
        }
        let mut size = usize::from(vnet.gso_size);
        let vteps = targets.vteps();
        if !vteps.is_empty() {
            size = size.min(room(limit, info));
        }
        let header;
        let prefix: &[u8] = match self.segment.id.vni {
            Some(vni) => {
                header = self.header(vni, batch, index, None);
                &header
            }
            None => &[],
        };
        let (source, outer) = self.outer_headers(frame, info);
        // Extension headers can make each chunk's headers as long as a frame.
        let payload = info.ip_end.saturating_sub(info.payload_offset.into()) as usize;
        let count = payload.div_ceil(size.max(1)).min(gso::MAX_CHUNKS);
        let headers = count * (prefix.len() + usize::from(info.payload_offset));
        if self.output.headers.len() + headers > MAX_HEADERS {
            // Decided, but there is no room to carry it out: one copy, dropped.
            self.dropped(DropReason::OutputFull, None, 1);
            return Ok(1);
        }
        self.chunks.clear();
        gso::split(frame, info, size, prefix, &mut self.output.headers, self.chunks)
            .map_err(|_| DropReason::BadOffload)?;
        let base = batch.span(index).start;
        let mut copies = 0;
        let chunks = std::mem::take(self.chunks);
        for port in targets.ports() {
            if port.offload {
                self.deliver_copy(batch, index, vnet, (cast, targets.untags(port)), port);
                copies += 1;
                continue;
            }
            for chunk in &chunks {
                let mut head = skip(chunk.head, prefix.len() as u32);
                if targets.untags(port) {
                    head = self.untagged_head(head);
                }
                let body = Span { start: chunk.body.start + base, ..chunk.body };
                self.deliver(Deliver {
                    head,
                    cast,
                    ..Deliver::whole(port.id, VnetHeader::default(), body)
                });
            }
            copies += chunks.len() as u64;
        }
        let count = chunks.len() as u32;
        // Splitting makes at least one, and puts headers and payloads one after the other.
        if let (Some(first), Some(last)) = (chunks.first(), chunks.last()) {
            let end = last.body.start + last.body.len;
            let train = |vtep| Transmit {
                vtep,
                source,
                outer,
                head: Span { start: first.head.start, len: first.head.len * count },
                body: Span { start: first.body.start + base, len: end - first.body.start },
                datagrams: count,
                size: size as u32,
                cast,
            };
            for vtep in vteps {
                let mut train = train(*vtep);
                copies += u64::from(count);
                if let (Some(vni), true) =
                    (self.segment.id.vni, self.segment.vnis.contains_key(vtep))
                {
                    let header = self.header(vni, batch, index, Some(*vtep));
                    match self.headers_for(&train, header) {
                        Some(head) => train.head = head,
                        None => {
                            self.context.counters.dropped(DropReason::OutputFull, count.into());
                            continue;
                        }
                    }
                }
                self.transmit(train);
            }
        }
        *self.chunks = chunks;
        Ok(copies)
    }

    /// Delivers a frame that nobody sent: an answer or a question of this node.
    pub(super) fn generate(&mut self, deliver: Deliver) {
        self.context.counters.generated.add(1);
        self.deliver(deliver);
    }

    #[inline]
    pub(super) fn deliver(&mut self, deliver: Deliver) {
        if self.output.delivers.len() == MAX_OUTPUT {
            self.dropped(DropReason::OutputFull, Some(Location::Port(deliver.port)), 1);
            return;
        }
        self.output.delivers.push(deliver);
        // Changed where it lies: one that is sometimes changed on its way there would be copied every time.
        if let Some(link) = &self.link {
            gateway::frame_last(link, self.output);
        }
    }

    #[inline(always)]
    fn transmit(&mut self, transmit: Transmit) {
        if self.output.transmits.len() < MAX_OUTPUT {
            self.output.transmits.push(transmit);
        } else {
            let vtep = Location::Vtep(transmit.vtep);
            self.dropped(DropReason::OutputFull, Some(vtep), transmit.datagrams.into());
        }
    }

    /// Transmits the same to each of some VTEPs.
    fn transmit_to_all(&mut self, transmit: Transmit, vteps: &[VtepId]) {
        let room = MAX_OUTPUT - self.output.transmits.len();
        let (to, refused) = vteps.split_at(vteps.len().min(room));
        let transmits = &mut self.output.transmits;
        let first = transmits.len();
        // Copies as they are, then whose they are: cheaper than each of them field by field.
        transmits.resize(first + to.len(), transmit);
        for (transmit, vtep) in transmits[first..].iter_mut().zip(to) {
            transmit.vtep = *vtep;
        }
        for vtep in refused {
            let copies = transmit.datagrams.into();
            self.dropped(DropReason::OutputFull, Some(Location::Vtep(*vtep)), copies);
        }
    }

    /// Counts copies that are not made, and whose they would have been.
    #[cold]
    fn dropped(&self, reason: DropReason, of: Option<Location>, copies: u64) {
        let Context { tables, counters, worker, .. } = *self.context;
        counters.dropped(reason, copies);
        self.segment.drops.of(worker).dropped(reason, copies);
        match of {
            Some(Location::Port(port)) => {
                let port = tables.port(port);
                port.iter().for_each(|port| port.counters.of(worker).sent_dropped(copies));
            }
            Some(Location::Vtep(vtep)) => {
                self.segment.counters.of(worker).sent_dropped(copies);
                let vtep = tables.vtep(vtep);
                vtep.iter().for_each(|vtep| vtep.counters.of(worker).sent_dropped(copies));
            }
            None => {}
        }
    }
}

/// Whether a frame of `len` bytes, or a chunk of it, holds more than an IP packet of `limit` bytes.
fn exceeds(limit: u32, len: u32, vnet: VnetHeader, info: &FrameInfo) -> bool {
    if !vnet.is_gso() {
        return len - u32::from(info.l3_offset) > limit;
    }
    let room = room(limit, info);
    match info.l4 {
        // A TCP stream can be cut anywhere; the bounds of UDP datagrams are the sender's.
        L4::Tcp => room == 0,
        _ => usize::from(vnet.gso_size) > room,
    }
}

/// Payload that fits behind these headers in a packet of `limit` bytes, in bytes.
fn room(limit: u32, info: &FrameInfo) -> usize {
    let headers = usize::from(info.payload_offset - info.l3_offset);
    (limit as usize).saturating_sub(headers)
}

fn skip(span: Span, bytes: u32) -> Span {
    Span { start: span.start + bytes, len: span.len - bytes }
}

/// What is unfinished about a frame from the underlay; `None` where nothing is.
///
/// A kernel VXLAN peer whose underlay keeps offloads (a veth pair, most often) leaves inner checksums partial, and
/// sends TCP super-frames as one datagram. A TCP segment above the segment's MTU is such a super-frame: cut to the MTU
/// it is what the peer would have sent on another wire. Whatever else is that large, from a peer with a larger MTU, is
/// left as it is. Of UDP super-frames the kernel tells the `size` of each datagram's payload, otherwise 0.
#[inline(always)]
pub(super) fn recognise(
    frame: &mut [u8],
    info: &FrameInfo,
    mtu: u32,
    size: u16,
) -> Option<VnetHeader> {
    let packet = frame.len() - usize::from(info.l3_offset);
    match l4::is_partial(frame, info) {
        false if packet <= mtu as usize => None,
        true if size > 0 => Some(udp_super_frame(frame, info, size)),
        partial => unfinished(frame, info, mtu, partial),
    }
}

/// What is unfinished about UDP datagrams of `size` bytes of payload in one: checksums, and lengths as well if there are
/// several. The kernel says their size, and so that there is no padding.
#[cold]
fn udp_super_frame(frame: &[u8], info: &FrameInfo, size: u16) -> VnetHeader {
    let partial = l4::checksum_offset(info.l4).unwrap_or(0);
    let whole = VnetHeader::partial(info.l4_offset, partial);
    let payload = frame.len() - usize::from(info.payload_offset);
    if info.l4 != L4::Udp || info.ip_end as usize != frame.len() || payload <= size.into() {
        return whole;
    }
    VnetHeader { gso_type: vnet::GSO_UDP_L4, gso_size: size, hdr_len: info.payload_offset, ..whole }
}

/// The rare side of [`recognise`].
#[inline(never)]
fn unfinished(frame: &mut [u8], info: &FrameInfo, mtu: u32, partial: bool) -> Option<VnetHeader> {
    let field = l4::checksum_offset(info.l4).filter(|_| partial);
    let whole = field.map(|offset| VnetHeader::partial(info.l4_offset, offset));
    let headers = u32::from(info.payload_offset - info.l3_offset);
    let gso_type = match (info.l3, info.l4) {
        // Whoever cuts it takes everything behind the headers for payload: there may be no padding.
        _ if info.ip_end as usize != frame.len() => return whole,
        _ if frame.len() - usize::from(info.l3_offset) <= mtu as usize || mtu <= headers => {
            return whole;
        }
        (L3::Ipv4, L4::Tcp) => vnet::GSO_TCPV4,
        (L3::Ipv6, L4::Tcp) => vnet::GSO_TCPV6,
        _ => return whole,
    };
    // A damaged one must not look right after it was cut.
    if !partial
        && (l4::checksum_state(frame, info) != L4Checksum::Correct || !l4::set_partial(frame, info))
    {
        return whole;
    }
    // A super-frame whose first chunk carries CWR is marked so (kernel `include/linux/virtio_net.h`).
    let cwr = frame.get(usize::from(info.l4_offset) + 13).is_some_and(|flags| flags & 0x80 != 0);
    Some(VnetHeader {
        gso_type: gso_type | if cwr { vnet::GSO_ECN } else { 0 },
        hdr_len: info.payload_offset,
        gso_size: (mtu - headers).min(u32::from(u16::MAX)) as u16,
        ..VnetHeader::partial(info.l4_offset, 16)
    })
}
