//! Emitting a frame to many, or to one that does not take it as it is.

use smallvec::SmallVec;

use crate::batch::{Batch, Span};
use crate::drop_reason::DropReason;
use crate::gso;
use crate::output::{Deliver, MAX_OUTPUT, SourcePort, Transmit};
use crate::segment::{Location, OuterHeader, VtepId};
use crate::tables::{PortEntry, SegmentEntry};
use crate::wire::eth::{self, Cast};
use crate::wire::{FrameInfo, L3, L4, VnetHeader, l4, vnet, vxlan};

use super::emit::{Emitter, limit_of_paths};
use super::headers::vxlan_header;
use super::targets::{Audience, Targets};

/// Largest header arena of one output, in bytes: enough for a batch of super-frames in chunks.
const MAX_HEADERS: usize = 1 << 20;

impl Emitter<'_> {
    /// Emits frame `index` to many, of whom there must be one.
    #[inline(always)]
    pub(super) fn flood(
        &mut self,
        batch: &mut Batch,
        index: usize,
        vnet: VnetHeader,
        info: Option<FrameInfo>,
        audience: &Audience<'_>,
    ) -> Result<(), DropReason> {
        let targets = Targets::Many(audience);
        let frame = batch.frame(index);
        // Mostly there is nothing to finish about it, and nobody for whom it is too large.
        if vnet.is_zero() && !audience.vteps.is_empty() {
            let parsed;
            let known = match &info {
                Some(info) => Some(info),
                None => {
                    parsed = FrameInfo::parse(frame);
                    parsed.as_ref()
                }
            };
            if let Some(info) = known
                && (frame.len() - usize::from(info.l3_offset)) as u32 <= self.segment.narrowest
            {
                let cast = Cast::of(frame);
                let copies = self.emit_finished(batch, index, (info, cast), &targets);
                self.tally.flooded(copies);
                return Ok(());
            }
        }
        self.flood_any(batch, index, vnet, info, targets)
    }

    #[inline(never)]
    fn flood_any(
        &mut self,
        batch: &mut Batch,
        index: usize,
        vnet: VnetHeader,
        info: Option<FrameInfo>,
        targets: Targets<'_>,
    ) -> Result<(), DropReason> {
        if targets.is_empty() {
            return Err(DropReason::NoDestination);
        }
        let copies = self.emit_any(batch, index, vnet, info, targets)?;
        self.tally.flooded(copies);
        Ok(())
    }

    /// Emits frame `index` to all targets and returns the number of copies, or pieces of them, that were made.
    #[inline(never)]
    pub(super) fn emit_any(
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
        Ok(self.emit_finished(batch, index, (info, cast), targets))
    }

    /// Emits frame `index`, about which nothing is unfinished, to all targets and returns how many they are.
    #[inline(always)]
    fn emit_finished(
        &mut self,
        batch: &mut Batch,
        index: usize,
        (info, cast): (&FrameInfo, Cast),
        targets: &Targets<'_>,
    ) -> u64 {
        let vteps = targets.vteps();
        let delivered = self.deliver_to_all(batch, index, VnetHeader::default(), cast, targets);
        if let Some(first) = vteps.first() {
            let frame = batch.frame(index);
            let (bytes, (source, outer)) = (frame.len(), self.outer_headers(frame, info));
            let headers = (source, OuterHeader { cast, ..outer });
            let transmitted = if self.segment.vnis.is_empty() {
                let body = self.encapsulate(batch, index, *first);
                let whole = Transmit::whole(*first, headers, body);
                self.transmit_to_all(whole, vteps)
            } else {
                self.transmit_each(batch, index, headers, vteps)
            };
            if transmitted {
                self.tally.encapsulated(bytes, cast);
            }
        }
        delivered + vteps.len() as u64
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
            self.not_made(DropReason::UnderlayTooBig, Some(Location::Vtep(*vtep)), 1);
        }
        Ok(copies + refused.len() as u64)
    }

    /// Largest IP packet, in bytes, that all of some VTEPs can be sent.
    #[inline]
    fn limit(&self, frame: &[u8], info: &FrameInfo, vteps: &[VtepId]) -> u32 {
        let SegmentEntry { mtu, narrowest, .. } = *self.segment;
        // Mostly no path is narrower than another.
        if narrowest == mtu {
            mtu
        } else {
            limit_of_paths(self.context, self.segment, (frame, *info), vteps)
        }
    }

    /// Transmits frame `index` to VTEPs of which some have a VNI of their own, and returns whether there was room for one.
    #[cold]
    fn transmit_each(
        &mut self,
        batch: &Batch,
        index: usize,
        headers: (SourcePort, OuterHeader),
        vteps: &[VtepId],
    ) -> bool {
        let Some(vni) = self.segment.id.vni else { return false };
        let mut any = false;
        for vtep in vteps {
            let header = vxlan_header(self.segment, vni, batch, index, Some(*vtep));
            if self.output.headers.len() + header.len() > MAX_HEADERS {
                self.not_made(DropReason::OutputFull, Some(Location::Vtep(*vtep)), 1);
                continue;
            }
            let head = self.output.put(&header);
            let whole = Transmit::whole(*vtep, headers, batch.span(index));
            any |= self.transmit(Transmit { head, ..whole });
        }
        any
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

    /// Delivers to all target ports and returns how many there are.
    #[inline(always)]
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
                header = vxlan_header(self.segment, vni, batch, index, None);
                &header
            }
            None => &[],
        };
        let (source, outer) = self.outer_headers(frame, info);
        let outer = OuterHeader { cast, ..outer };
        // Extension headers can make each chunk's headers as long as a frame.
        let payload = info.ip_end.saturating_sub(info.payload_offset.into()) as usize;
        let count = payload.div_ceil(size.max(1)).min(gso::MAX_CHUNKS);
        let headers = count * (prefix.len() + usize::from(info.payload_offset));
        if self.output.headers.len() + headers > MAX_HEADERS {
            // Decided, but there is no room to carry it out: one copy, dropped.
            self.not_made(DropReason::OutputFull, None, 1);
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
            };
            let mut encapsulated = false;
            for vtep in vteps {
                let mut train = train(*vtep);
                copies += u64::from(count);
                if let (Some(vni), true) =
                    (self.segment.id.vni, self.segment.vnis.contains_key(vtep))
                {
                    let header = vxlan_header(self.segment, vni, batch, index, Some(*vtep));
                    match self.headers_for(&train, header) {
                        Some(head) => train.head = head,
                        None => {
                            let of = Some(Location::Vtep(*vtep));
                            self.not_made(DropReason::OutputFull, of, count.into());
                            continue;
                        }
                    }
                }
                if self.transmit(train) && !encapsulated {
                    encapsulated = true;
                    self.tally.encapsulated(frame.len(), cast);
                }
            }
        }
        *self.chunks = chunks;
        Ok(copies)
    }

    /// Transmits the same to each of some VTEPs, and returns whether there was room for one.
    #[inline(always)]
    pub(super) fn transmit_to_all(&mut self, transmit: Transmit, vteps: &[VtepId]) -> bool {
        let room = MAX_OUTPUT - self.output.transmits.len();
        let (to, refused) = vteps.split_at(vteps.len().min(room));
        for vtep in to {
            self.output.transmits.push(Transmit { vtep: *vtep, ..transmit });
        }
        for vtep in refused {
            let copies = transmit.datagrams.into();
            self.not_made(DropReason::OutputFull, Some(Location::Vtep(*vtep)), copies);
        }
        !to.is_empty()
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
