//! A batch of received frames in fixed slots with headroom.
//!
//! A worker owns one [`Batch`] and reuses it for every read: frames are received into the slots, forwarded where
//! they lie, sent from where they lie, and the slots are reused. Nothing in a batch is counted, pooled or copied.
//!
//! A slot mostly holds one frame. Datagrams that the kernel has joined on reception (`UDP_GRO`) share one.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::metadata::Metadata;
use crate::source_key::SourceKey;
use crate::wire::{VnetHeader, ecn, eth, vnet, vxlan};

/// Bytes kept free in front of every received frame, for headers that are written in place.
///
/// The largest use is a VXLAN header (8) with an Ethernet header (14), or an ICMPv6 error in front of the packet it quotes
/// (48).
pub const HEADROOM: usize = 128;

/// Largest frame or datagram a slot can hold, in bytes.
///
/// A UDP datagram is at most 65,527 bytes; a super-frame from a device at most 65,535 bytes of IP behind an Ethernet
/// header with two VLAN tags.
pub const MAX_FRAME: usize = 65_600;

/// Distance between slots: an odd number of cache lines, so that the headers of neighbouring slots, which are
/// touched together, do not compete for the same cache sets.
const STRIDE: usize = HEADROOM + MAX_FRAME;
const _: () = assert!(STRIDE.is_multiple_of(64) && !STRIDE.is_multiple_of(128));

/// Bytes of a VLAN tag.
const TAG: u32 = eth::VLAN_TAG_LEN as u32;

/// Default number of slots of a batch.
pub const DEFAULT_SLOTS: usize = 64;

/// Largest number of slots of a batch.
pub const MAX_SLOTS: usize = 1024;

/// The most datagrams that one slot holds: as many as one send can have joined.
pub const MAX_TRAIN: usize = vnet::UDP_MAX_CHUNKS;

/// The source of frames that did not come from the underlay.
const NOWHERE: SourceKey = SourceKey::NONE;

/// A run of bytes inside a [`Batch`] or inside the header arena of an [`Output`](crate::Output).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Span {
    /// Whether the run holds no byte.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// What the outer headers of a received datagram say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arrival {
    /// Who sent it.
    pub source: SocketAddr,
    /// The TOS byte or traffic class of the outer IP header; 0 where it is not known.
    pub tos: u8,
}

impl From<SocketAddr> for Arrival {
    fn from(source: SocketAddr) -> Self {
        Self { source, tos: 0 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    span: Span,
    vnet: VnetHeader,
    source: SourceKey,
    /// ECN field of the outer IP header.
    ecn: u8,
}

/// Received frames in slots with [`HEADROOM`] bytes in front; within a train there are none between the datagrams.
#[derive(Debug)]
pub struct Batch {
    memory: Box<[u8]>,
    slots: usize,
    /// Slots in use.
    used: usize,
    frames: Vec<Frame>,
    /// Of the frames that have any, by number; mostly none.
    metadata: Vec<(u32, Metadata)>,
}

impl Batch {
    /// Makes an empty batch of `slots` slots (1 to [`MAX_SLOTS`]; other values are brought into that range).
    ///
    /// The memory, about 64 KiB a slot, is asked for at once but only becomes resident as far as frames touch it.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        let slots = slots.clamp(1, MAX_SLOTS);
        Self {
            memory: vec![0; slots * STRIDE].into_boxed_slice(),
            slots,
            used: 0,
            // Resident, too, only as far as it is used.
            frames: Vec::with_capacity(slots * MAX_TRAIN),
            metadata: Vec::new(),
        }
    }

    /// Number of slots.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots
    }

    /// Number of slots that are free.
    #[must_use]
    #[inline]
    pub fn free(&self) -> usize {
        self.slots - self.used
    }

    /// Number of frames held.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether several frames share a slot, so that not each has headroom.
    #[inline]
    pub(crate) fn has_trains(&self) -> bool {
        self.frames.len() > self.used
    }

    /// Whether no frame is held.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Forgets all frames; their memory is reused by the next ones.
    #[inline]
    pub fn clear(&mut self) {
        self.used = 0;
        self.frames.clear();
        self.metadata.clear();
    }

    /// Copies a frame in, as if it had been read from a port with this vnet header.
    ///
    /// For embedders and tests that have the frame elsewhere; devices read into [`Batch::next_slot`] instead.
    /// Returns `false`, and takes nothing, when the batch is full or the frame is larger than [`MAX_FRAME`].
    #[must_use]
    pub fn push(&mut self, frame: &[u8], vnet: VnetHeader) -> bool {
        self.fill(frame) && self.commit(frame.len(), vnet)
    }

    /// Copies a datagram in, as if it had been received on the underlay.
    ///
    /// Returns `false`, and takes nothing, when the batch is full or the datagram is larger than [`MAX_FRAME`].
    #[must_use]
    pub fn push_datagram(&mut self, datagram: &[u8], arrival: impl Into<Arrival>) -> bool {
        self.fill(datagram) && self.commit_datagram(datagram.len(), arrival)
    }

    fn fill(&mut self, bytes: &[u8]) -> bool {
        match self.next_slot(0).and_then(|slot| slot.get_mut(..bytes.len())) {
            Some(room) => {
                room.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }

    /// The memory of the next free slot, beginning `reserve` bytes before where the frame will begin, or `None`
    /// when the batch is full or `reserve` exceeds [`HEADROOM`].
    ///
    /// A device that puts a vnet header in front of each frame reads both with one call into
    /// `next_slot(VnetHeader::LEN)`: the header lands in the headroom.
    #[inline]
    pub fn next_slot(&mut self, reserve: usize) -> Option<&mut [u8]> {
        if self.used == self.slots || reserve > HEADROOM {
            return None;
        }
        let start = self.used * STRIDE;
        self.memory.get_mut(start + HEADROOM - reserve..start + STRIDE)
    }

    /// The memory of all free slots in order, for a vectored receive.
    pub fn free_slots(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let free = self.used * STRIDE;
        self.memory[free..].chunks_exact_mut(STRIDE).map(|slot| &mut slot[HEADROOM..])
    }

    /// Takes the next free slot as holding a frame of `len` bytes that a port gave with `vnet`.
    ///
    /// Returns `false`, and takes nothing, when the batch is full or `len` exceeds [`MAX_FRAME`].
    #[inline]
    pub fn commit(&mut self, len: usize, vnet: VnetHeader) -> bool {
        self.take(len, vnet, (NOWHERE, 0))
    }

    /// Takes the next free slot as holding a datagram of `len` bytes.
    ///
    /// Returns `false`, and takes nothing, when the batch is full or `len` exceeds [`MAX_FRAME`].
    #[inline]
    pub fn commit_datagram(&mut self, len: usize, arrival: impl Into<Arrival>) -> bool {
        self.take(len, VnetHeader::default(), origin(arrival.into()))
    }

    /// Takes the next free slot as holding `len` bytes of datagrams that arrived alike, each of `stride` bytes but for
    /// the last, which may be shorter.
    ///
    /// They count as received in that order, and are for [`Forwarder::from_underlay`](crate::Forwarder::from_underlay)
    /// only: within a train there is no headroom. Returns `false`, and takes nothing, when the batch is full, `len` exceeds
    /// [`MAX_FRAME`], or there would be more than [`MAX_TRAIN`] datagrams.
    pub fn commit_train(&mut self, len: usize, stride: usize, arrival: impl Into<Arrival>) -> bool {
        let arrival = arrival.into();
        if stride == 0 || len <= stride {
            return self.commit_datagram(len, arrival);
        }
        let fits = self.used < self.slots && len <= MAX_FRAME;
        if !fits || len.div_ceil(stride) > MAX_TRAIN {
            return false;
        }
        let (source, ecn) = origin(arrival);
        let start = self.used * STRIDE + HEADROOM;
        self.used += 1;
        for at in (0..len).step_by(stride) {
            let span = Span { start: (start + at) as u32, len: stride.min(len - at) as u32 };
            self.frames.push(Frame { span, vnet: VnetHeader::default(), source, ecn });
        }
        true
    }

    /// Takes the next free slot as holding one datagram of `len` bytes, in which is a super-frame of UDP
    /// datagrams of `size` bytes of payload each; see [`vxlan::holds_super_frame`](crate::wire::vxlan::holds_super_frame).
    ///
    /// Returns `false`, and takes nothing, when the batch is full or `len` exceeds [`MAX_FRAME`].
    pub fn commit_super_frame(
        &mut self,
        len: usize,
        size: u16,
        arrival: impl Into<Arrival>,
    ) -> bool {
        let vnet = VnetHeader { gso_size: size, ..VnetHeader::default() };
        self.take(len, vnet, origin(arrival.into()))
    }

    #[inline]
    fn take(&mut self, len: usize, vnet: VnetHeader, (source, ecn): (SourceKey, u8)) -> bool {
        if self.used == self.slots || len > MAX_FRAME {
            return false;
        }
        let start = self.used * STRIDE + HEADROOM;
        // Both fit: at most MAX_SLOTS slots of STRIDE bytes.
        let span = Span { start: start as u32, len: len as u32 };
        self.used += 1;
        self.frames.push(Frame { span, vnet, source, ecn });
        true
    }

    /// Where frame `index` lies.
    ///
    /// # Panics
    /// When `index` is not below [`Batch::len`].
    #[must_use]
    #[inline]
    pub fn span(&self, index: usize) -> Span {
        self.frames[index].span
    }

    /// The bytes of frame `index`.
    ///
    /// # Panics
    /// When `index` is not below [`Batch::len`].
    #[must_use]
    #[inline]
    pub fn frame(&self, index: usize) -> &[u8] {
        &self.memory[self.span(index).range()]
    }

    #[inline]
    pub(crate) fn frame_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.memory[self.frames[index].span.range()]
    }

    /// The vnet header that came with frame `index`.
    #[inline]
    pub(crate) fn vnet(&self, index: usize) -> VnetHeader {
        self.frames[index].vnet
    }

    /// The underlay address that sent datagram `index`.
    #[inline]
    pub(crate) fn source_key(&self, index: usize) -> SourceKey {
        self.frames[index].source
    }

    /// The ECN field of the outer header that datagram `index` came with.
    #[inline]
    pub(crate) fn ecn(&self, index: usize) -> u8 {
        self.frames[index].ecn
    }

    /// The underlay address that sent datagram `index`.
    pub(crate) fn source(&self, index: usize) -> IpAddr {
        self.frames[index].source.address()
    }

    /// What is known of frame `index` beside its bytes, mostly nothing.
    #[must_use]
    pub fn metadata(&self, index: usize) -> Metadata {
        let found = self.metadata.binary_search_by_key(&(index as u32), |(of, _)| *of);
        found.map_or_else(|_| Metadata::default(), |at| self.metadata[at].1)
    }

    /// Says how frame `index` is to leave, where the segment leaves that to the frame.
    ///
    /// # Panics
    /// When `index` is not below [`Batch::len`].
    pub fn set_metadata(&mut self, index: usize, metadata: Metadata) {
        assert!(index < self.len(), "there is no frame {index}");
        let index = index as u32;
        match self.metadata.binary_search_by_key(&index, |(of, _)| *of) {
            Ok(at) => self.metadata[at].1 = metadata,
            Err(at) => self.metadata.insert(at, (index, metadata)),
        }
    }

    /// Whether there is any frame of which more is known than its bytes.
    #[inline]
    pub(crate) fn has_metadata(&self) -> bool {
        !self.metadata.is_empty()
    }

    /// The frame that a run is a part of, if it is of one.
    pub(crate) fn frame_of(&self, run: Span) -> Option<usize> {
        let after = self.frames.partition_point(|frame| frame.span.start <= run.start);
        let index = after.checked_sub(1)?;
        let span = self.span(index);
        (run.start - span.start <= span.len).then_some(index)
    }

    /// The bytes of a run inside this batch.
    ///
    /// # Panics
    /// When the run reaches beyond the batch, which no run that the forwarder gave out for this batch does.
    #[must_use]
    #[inline]
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.memory[span.range()]
    }

    /// Takes the first `bytes` bytes off frame `index`, all of it if it is shorter.
    #[inline]
    pub(crate) fn strip(&mut self, index: usize, bytes: usize) {
        let span = &mut self.frames[index].span;
        let bytes = (bytes as u32).min(span.len);
        *span = Span { start: span.start + bytes, len: span.len - bytes };
    }

    /// Takes the first `bytes` bytes off frame `index` from a port, and makes its vnet header that of what is left.
    #[inline]
    pub(crate) fn take_off(&mut self, index: usize, bytes: usize) {
        self.strip(index, bytes);
        let vnet = &mut self.frames[index].vnet;
        *vnet = vnet.without(bytes as u16);
    }

    /// Makes `header` the first bytes of frame `index`, which grows into its headroom by them.
    #[inline]
    pub(crate) fn grow(&mut self, index: usize, header: &[u8]) {
        self.frames[index].span = self.prepend(index, header, usize::MAX);
    }

    /// Puts a VLAN tag behind the addresses of frame `index`, which has 12 bytes and headroom; they move, and nothing else.
    pub(crate) fn tag(&mut self, index: usize, tag: u16) {
        let Frame { span, vnet, .. } = &mut self.frames[index];
        let start = span.start as usize;
        *span = Span { start: span.start - TAG, len: span.len + TAG };
        *vnet = vnet.behind(TAG as u16);
        self.memory.copy_within(start..start + eth::TAG_OFFSET, span.start as usize);
        let header = &mut self.memory[span.range()];
        header[eth::TAG_OFFSET..][..2].copy_from_slice(&eth::TYPE_VLAN.to_be_bytes());
        self.set_tag(index, tag);
    }

    /// Changes the VLAN tag of frame `index`.
    pub(crate) fn set_tag(&mut self, index: usize, tag: u16) {
        self.frame_mut(index)[eth::TAG_OFFSET + 2..][..2].copy_from_slice(&tag.to_be_bytes());
    }

    /// Takes the VLAN tag out of frame `index`.
    pub(crate) fn untag(&mut self, index: usize) {
        let Frame { span, vnet, .. } = &mut self.frames[index];
        let start = span.start as usize;
        *span = Span { start: span.start + TAG, len: span.len - TAG };
        *vnet = vnet.without(TAG as u16);
        self.memory.copy_within(start..start + eth::TAG_OFFSET, span.start as usize);
    }

    /// Writes `header` directly in front of frame `index`, into its headroom, and returns the run of the header
    /// and at most `keep` bytes of the frame.
    ///
    /// The frame itself keeps its place, so the same frame can go out with and without the header.
    #[inline(always)]
    pub(crate) fn prepend(&mut self, index: usize, header: &[u8], keep: usize) -> Span {
        debug_assert!(header.len() <= HEADROOM);
        // Within a train the room in front is the datagram's own header, which was stripped, and then the frame before.
        debug_assert!(!self.has_trains() || header.len() <= vxlan::HEADER_LEN);
        let span = self.frames[index].span;
        let end = span.start as usize;
        let start = end - header.len();
        self.memory[start..end].copy_from_slice(header);
        let kept = (span.len as usize).min(keep);
        Span { start: start as u32, len: (header.len() + kept) as u32 }
    }
}

/// What is kept of the outer headers of a datagram.
#[inline]
fn origin(arrival: Arrival) -> (SourceKey, u8) {
    (arrival.source.ip().into(), arrival.tos & ecn::MASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_keep_their_place_and_order() {
        let mut batch = Batch::new(2);
        assert!(batch.push(b"one", VnetHeader::default()));
        assert!(batch.push(b"three", VnetHeader::default()));
        assert!(!batch.push(b"full", VnetHeader::default()));
        assert_eq!((batch.frame(0), batch.frame(1)), (&b"one"[..], &b"three"[..]));
        batch.clear();
        assert!(batch.is_empty());
    }

    #[test]
    fn a_frame_above_the_maximum_is_refused() {
        let mut batch = Batch::new(1);
        assert!(!batch.push(&vec![0; MAX_FRAME + 1], VnetHeader::default()));
        assert!(batch.push(&vec![7; MAX_FRAME], VnetHeader::default()));
    }

    #[test]
    fn a_header_goes_into_the_headroom() {
        let mut batch = Batch::new(3);
        assert!(batch.push(b"frame", VnetHeader::default()));
        let whole = batch.prepend(0, b"head-", usize::MAX);
        assert_eq!(batch.bytes(whole), b"head-frame");
        let cut = batch.prepend(0, b"cut-", 2);
        assert_eq!(batch.bytes(cut), b"cut-fr");
        assert_eq!(batch.frame(0), b"frame");
    }

    #[test]
    fn a_vnet_header_read_with_the_frame_lands_in_the_headroom() {
        let mut batch = Batch::new(1);
        let slot = batch.next_slot(4).unwrap();
        slot[..9].copy_from_slice(b"vnetframe");
        assert!(batch.commit(5, VnetHeader::default()));
        assert_eq!(batch.frame(0), b"frame");
        assert!(batch.next_slot(0).is_none());
    }

    #[test]
    fn a_train_is_as_many_frames_as_it_has_strides() {
        let source = SocketAddr::from(([192, 0, 2, 1], 4789));
        let mut batch = Batch::new(2);
        batch.next_slot(0).unwrap()[..7].copy_from_slice(b"aabbccd");
        assert!(batch.commit_train(7, 2, source));
        assert!(batch.push_datagram(b"e", source));
        let frames: Vec<&[u8]> = (0..batch.len()).map(|index| batch.frame(index)).collect();
        assert_eq!(frames, [&b"aa"[..], b"bb", b"cc", b"d", b"e"]);
        assert_eq!(batch.source(3), source.ip());
        assert_eq!(batch.free(), 0);
        assert!(!batch.commit_train(1, 1, source), "full");
        batch.clear();
        assert!(!batch.commit_train(MAX_TRAIN + 1, 1, source), "too many");
        assert!(!batch.commit_train(MAX_FRAME + 1, 0, source), "too long");
        assert!(batch.commit_train(0, 0, source) && batch.commit_train(3, 3, source));
        assert_eq!((batch.len(), batch.free()), (2, 0));
    }

    #[test]
    fn free_slots_are_those_after_the_held_frames() {
        let mut batch = Batch::new(4);
        assert!(batch.push(b"x", VnetHeader::default()));
        assert_eq!(batch.free_slots().count(), 3);
        assert!(batch.free_slots().all(|slot| slot.len() == MAX_FRAME));
    }
}
