//! Joining frames of one flow that arrived together into one super-frame: the reverse of [`gso`](crate::gso).
//!
//! Payload is never copied: a super-frame is one header of its own, written into the output's arena, and the runs of
//! payload where they lie in the batch.
//!
//! Only frames that a receiver could not tell apart are joined: what [`gso::split`](crate::gso::split) makes of the
//! super-frame again is, apart from the checksum's state, what came in. Order within a flow never changes: a frame that
//! cannot join ends the super-frame of its flow, and one whose flow is not known ends all of them.

mod growing;

use crate::batch::{Batch, Span};
use crate::offload::{Offload, Offloads};
use crate::output::{MAX_OUTPUT, Output};
use crate::segment::PortId;
use crate::wire::{Fragment, FrameInfo, L3, L4, array_at};
use growing::{Candidate, Growing};

/// Flows of which a super-frame can grow at one time; with more, one of them has to end.
const MAX_FLOWS: usize = 32;

/// The most frames of one super-frame: with what goes in front of them 128 runs of one gathering write, which are kept on
/// the stack. Enough for 64 KiB of segments above 520 bytes.
pub(crate) const MAX_JOINED: usize = 126;

/// Joins the frames of one batch.
#[derive(Debug)]
pub(crate) struct Coalescer {
    tcp: bool,
    udp: bool,
    /// Tells flows apart, most of the time; by place in `flows`.
    tags: [u32; MAX_FLOWS],
    flows: Box<[Option<Growing>; MAX_FLOWS]>,
    /// The payload runs of each growing super-frame.
    pieces: Box<[[Span; MAX_JOINED]; MAX_FLOWS]>,
    /// Places in use, one bit each.
    open: u32,
    /// The place used last.
    last: usize,
    /// The frame that comes after the one that was taken into that place; 0, which no frame is, if that one was not.
    next: usize,
    /// The place that has to make room next.
    victim: usize,
}

impl Coalescer {
    /// Joins nothing until told what to join.
    pub(crate) fn new() -> Self {
        Self {
            tcp: false,
            udp: false,
            tags: [0; MAX_FLOWS],
            flows: Box::new([const { None }; MAX_FLOWS]),
            pieces: Box::new([[Span::default(); MAX_JOINED]; MAX_FLOWS]),
            open: 0,
            last: 0,
            next: 0,
            victim: 0,
        }
    }

    pub(crate) fn set_offloads(&mut self, offloads: Offloads) {
        self.tcp = offloads.contains(Offload::CoalesceTcp);
        self.udp = offloads.contains(Offload::CoalesceUdp);
    }

    /// Joins frame `index` of the batch, which is for `port` alone, to the super-frame of its flow. If there is none
    /// it can join, returns `false`: it is to be delivered by itself, as the next descriptor of `output`.
    ///
    /// `partial` says that the checksum is left to the kernel. The device has to take super-frames.
    #[inline]
    pub(crate) fn join(
        &mut self,
        batch: &Batch,
        index: usize,
        info: &FrameInfo,
        partial: bool,
        port: PortId,
        output: &mut Output,
    ) -> bool {
        if !self.tcp && !self.udp {
            return false;
        }
        self.next = 0;
        let frame = batch.frame(index);
        let Some(tag) = flow_tag(frame, info) else {
            self.end_all(batch, output);
            return false;
        };
        let enabled = if info.l4 == L4::Tcp { self.tcp } else { self.udp };
        // A lone frame has nothing to join.
        if !enabled || batch.len() == 1 {
            return false;
        }
        let payload = (info.ip_end as usize).saturating_sub(usize::from(info.payload_offset));
        let candidate = Candidate { frame, span: batch.span(index), info, payload, partial };
        let suitable = candidate.is_suitable();
        if let Some(at) = self.find(tag, port, &candidate, batch) {
            self.last = at;
            if let Some(flow) = &mut self.flows[at]
                && suitable
                && flow.admits(&candidate, batch)
            {
                self.take(at, index, candidate.body(), candidate.has_psh(), output);
                return true;
            }
            self.end(at, batch, output);
        }
        if suitable && output.delivers.len() < MAX_OUTPUT {
            let at = self.make_room(batch, output);
            self.tags[at] = tag;
            self.pieces[at][0] = candidate.body();
            self.flows[at] = Some(Growing::new(&candidate, port, output.delivers.len()));
            self.open |= 1 << at;
            self.last = at;
            self.next = index + 1;
        }
        false
    }

    /// Joins frame `index` of the batch, still behind `outer` bytes of encapsulation, to the super-frame that the frame
    /// before it has become part of; `false` if that takes a closer look.
    ///
    /// The rest of a train is recognised by its headers being those of its first frame, byte for byte but for what
    /// tells chunks apart. All decisions about it are the same then.
    #[inline]
    pub(crate) fn follow(
        &mut self,
        batch: &mut Batch,
        index: usize,
        outer: usize,
        output: &mut Output,
    ) -> bool {
        if self.next != index || index == 0 {
            return false;
        }
        let Some(flow) = &mut self.flows[self.last] else { return false };
        let first = Span { start: flow.first.start - outer as u32, len: outer as u32 };
        let datagram = batch.frame(index);
        // Merged with the same outer ECN field, headers that are alike were alike before.
        let same_origin = batch.source_key(index) == batch.source_key(index - 1)
            && batch.ecn(index) == batch.ecn(index - 1)
            && datagram.get(..outer) == Some(batch.bytes(first));
        let span = batch.span(index);
        let (Some(frame), true) = (datagram.get(outer..), same_origin) else { return false };
        let Some(info) = flow.info_of_next(frame) else { return false };
        let span = Span { start: span.start + outer as u32, len: span.len - outer as u32 };
        let payload = frame.len() - usize::from(info.payload_offset);
        let candidate = Candidate { frame, span, info: &info, payload, partial: false };
        let fits = candidate.is_suitable() && flow.is_flow_of(&candidate, batch);
        if !fits || !flow.admits(&candidate, batch) {
            return false;
        }
        let (body, pushed) = (candidate.body(), candidate.has_psh());
        batch.strip(index, outer);
        self.take(self.last, index, body, pushed, output);
        true
    }

    /// Makes a frame part of a super-frame.
    #[inline]
    fn take(&mut self, at: usize, index: usize, body: Span, pushed: bool, output: &mut Output) {
        let Some(flow) = &mut self.flows[at] else { return };
        self.pieces[at][flow.pieces] = body;
        flow.append(body.len as usize, pushed);
        output.delivers[flow.deliver].frames += 1;
        self.next = index + 1;
    }

    /// Where the super-frame of the candidate's flow grows, if it does.
    #[inline]
    fn find(
        &self,
        tag: u32,
        port: PortId,
        candidate: &Candidate<'_>,
        batch: &Batch,
    ) -> Option<usize> {
        let is_here = |at: usize| {
            self.flows[at]
                .as_ref()
                .is_some_and(|flow| flow.port == port && flow.is_flow_of(candidate, batch))
        };
        // Neighbours are mostly of one flow.
        if self.tags[self.last] == tag && is_here(self.last) {
            return Some(self.last);
        }
        let mut alike = 0;
        for (at, other) in self.tags.iter().enumerate() {
            alike |= u32::from(*other == tag) << at;
        }
        alike &= self.open;
        while alike != 0 {
            let at = alike.trailing_zeros() as usize;
            if is_here(at) {
                return Some(at);
            }
            alike &= alike - 1;
        }
        None
    }

    /// A free place.
    fn make_room(&mut self, batch: &Batch, output: &mut Output) -> usize {
        let free = self.open.trailing_ones() as usize;
        if free < MAX_FLOWS {
            return free;
        }
        let at = self.victim;
        self.victim = (at + 1) % MAX_FLOWS;
        self.end(at, batch, output);
        at
    }

    /// Ends all super-frames: what comes next must not be overtaken by what follows it.
    #[inline]
    pub(crate) fn end_all(&mut self, batch: &Batch, output: &mut Output) {
        while self.open != 0 {
            self.end(self.open.trailing_zeros() as usize, batch, output);
        }
    }

    /// Writes what has become of a growing super-frame into its descriptor.
    fn end(&mut self, at: usize, batch: &Batch, output: &mut Output) {
        self.open &= !(1 << at);
        if let Some(flow) = self.flows[at].take().filter(|flow| flow.pieces > 1) {
            flow.finish(batch, &self.pieces[at], output);
        }
    }
}

/// A number that differs for most pairs of flows; `None` for frames whose flow cannot be told.
#[inline]
fn flow_tag(frame: &[u8], info: &FrameInfo) -> Option<u32> {
    if info.fragment != Fragment::Whole || !matches!(info.l4, L4::Tcp | L4::Udp) {
        return None;
    }
    let l3 = usize::from(info.l3_offset);
    let word = |at: usize| array_at(frame, at).map(|bytes| u64::from_be_bytes(*bytes));
    let addresses = match info.l3 {
        L3::Ipv4 => word(l3 + 12)?,
        L3::Ipv6 => {
            let far = word(l3 + 24)?.rotate_left(17) ^ word(l3 + 32)?.rotate_left(29);
            word(l3 + 8)? ^ word(l3 + 16)?.rotate_left(7) ^ far
        }
        L3::Other => return None,
    };
    let ports = array_at(frame, usize::from(info.l4_offset)).map(|p| u32::from_be_bytes(*p))?;
    Some((addresses >> 32) as u32 ^ (addresses as u32).rotate_left(11) ^ ports)
}
