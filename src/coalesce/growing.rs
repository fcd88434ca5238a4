//! A super-frame that grows, and what may become part of it.

use super::MAX_JOINED;
use crate::batch::{Batch, Span};
use crate::output::{Output, Pieces};
use crate::segment::PortId;
use crate::wire::ip::{V4_HEADER_LEN, V6_HEADER_LEN, v4_header_checksum, verify_v4_header};
use crate::wire::l4::{self, L4Checksum, TCP_MIN_HEADER_LEN};
use crate::wire::{Fragment, FrameInfo, L3, L4, VnetHeader, array_at, eth, put_u16, u16_at, vnet};

/// Largest IPv4 total length; that of IPv6 payload is larger by the header, which is not made use of.
const MAX_PACKET: usize = 65_535;

/// TCP flags (RFC 9293 §3.1).
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// What joining needs to know of a frame that could be part of a super-frame.
pub(super) struct Candidate<'a> {
    pub(super) frame: &'a [u8],
    pub(super) span: Span,
    pub(super) info: &'a FrameInfo,
    pub(super) payload: usize,
    /// The checksum is left to the kernel.
    pub(super) partial: bool,
}

/// A super-frame that may grow.
#[derive(Debug)]
pub(super) struct Growing {
    pub(super) port: PortId,
    /// Position of its descriptor in the output.
    pub(super) deliver: usize,
    /// The first frame: where it lies and what is in it.
    pub(super) first: Span,
    info: FrameInfo,
    /// Whether the first frame's checksum is left to the kernel, and whether it was found [`is_sound`].
    partial: bool,
    sound: bool,
    /// Payload of each chunk but the last, in bytes.
    size: usize,
    /// Payload so far, in bytes.
    len: usize,
    /// The TCP sequence number that has to follow.
    sequence: u32,
    /// The IPv4 identification that has to follow, unless fragmentation is forbidden.
    identification: u16,
    /// A chunk that is shorter or has PSH set was the last one.
    ended: bool,
    pushed: bool,
    pub(super) pieces: usize,
}

impl Candidate<'_> {
    /// Whether the frame can be part of any super-frame: whole, with payload, and with nothing in its headers that
    /// could not stand for the others' too.
    #[inline]
    pub(super) fn is_suitable(&self) -> bool {
        let Self { frame, info, .. } = self;
        let (l3, l4) = (usize::from(info.l3_offset), usize::from(info.l4_offset));
        let plain = match info.l3 {
            L3::Ipv4 => l4 == l3 + V4_HEADER_LEN,
            L3::Ipv6 => l4 == l3 + V6_HEADER_LEN,
            L3::Other => false,
        };
        let l4_fits = match info.l4 {
            L4::Tcp => frame.get(l4 + 13).is_some_and(|flags| flags & !PSH == ACK),
            // A datagram without checksum would get one.
            L4::Udp => {
                let length = u16_at(frame, l4 + 4).map(usize::from);
                length == Some(info.ip_end as usize - l4) && u16_at(frame, l4 + 6) != Some(0)
            }
            _ => false,
        };
        self.payload > 0 && plain && info.fragment == Fragment::Whole && l4_fits
    }

    #[inline]
    pub(super) fn body(&self) -> Span {
        let start = self.span.start + u32::from(self.info.payload_offset);
        Span { start, len: self.payload as u32 }
    }

    #[inline]
    pub(super) fn has_psh(&self) -> bool {
        let flags = self.frame.get(usize::from(self.info.l4_offset) + 13);
        self.info.l4 == L4::Tcp && flags.is_some_and(|flags| flags & PSH != 0)
    }

    fn sequence(&self) -> u32 {
        let at = usize::from(self.info.l4_offset) + 4;
        array_at(self.frame, at).map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    fn identification(&self) -> u16 {
        u16_at(self.frame, usize::from(self.info.l3_offset) + 4).unwrap_or(0)
    }
}

impl Growing {
    pub(super) fn new(first: &Candidate<'_>, port: PortId, deliver: usize) -> Self {
        let mut flow = Self {
            port,
            deliver,
            first: first.span,
            info: *first.info,
            partial: first.partial,
            sound: false,
            size: first.payload,
            len: 0,
            sequence: first.sequence(),
            identification: first.identification(),
            ended: false,
            pushed: false,
            pieces: 0,
        };
        flow.append(first.payload, first.has_psh());
        flow
    }

    #[inline]
    pub(super) fn append(&mut self, payload: usize, pushed: bool) {
        self.len += payload;
        self.pieces += 1;
        self.sequence = self.sequence.wrapping_add(payload as u32);
        self.identification = self.identification.wrapping_add(1);
        self.pushed = pushed;
        self.ended = pushed || payload < self.size;
    }

    /// What `frame` is if its headers are those of this flow, by its length alone: all of it must be the IP packet.
    #[inline]
    pub(super) fn info_of_next(&self, frame: &[u8]) -> Option<FrameInfo> {
        let (l3, l4) = (usize::from(self.info.l3_offset), usize::from(self.info.l4_offset));
        let ends = match self.info.l3 {
            L3::Ipv4 => u16_at(frame, l3 + 2).map(|len| l3 + usize::from(len)),
            _ => u16_at(frame, l3 + 4).map(|len| l4 + usize::from(len)),
        };
        let whole = ends == Some(frame.len()) && frame.len() >= self.info.payload_offset.into();
        whole.then_some(FrameInfo { ip_end: frame.len() as u32, ..self.info })
    }

    fn first<'a>(&self, batch: &'a Batch) -> &'a [u8] {
        batch.bytes(self.first)
    }

    /// Whether a frame with the same tag is of the same flow: addresses, protocol and ports, whatever stands in front of
    /// them. Tags, options and extension headers keep a frame from being joined, but not from its place among the others.
    #[inline]
    pub(super) fn is_flow_of(&self, candidate: &Candidate<'_>, batch: &Batch) -> bool {
        let (info, other) = (&self.info, candidate.info);
        let (first, frame) = (self.first(batch), candidate.frame);
        let (l3, other_l3) = (usize::from(info.l3_offset), usize::from(other.l3_offset));
        let (l4, other_l4) = (usize::from(info.l4_offset), usize::from(other.l4_offset));
        info.l3 == other.l3
            && info.l4 == other.l4
            && match info.l3 {
                L3::Ipv4 => equal::<8>((first, l3 + 12), (frame, other_l3 + 12)),
                _ => equal::<32>((first, l3 + 8), (frame, other_l3 + 8)),
            }
            && equal::<4>((first, l4), (frame, other_l4))
    }

    /// Whether a suitable frame of this flow is the next chunk, in every respect.
    #[inline]
    pub(super) fn admits(&mut self, candidate: &Candidate<'_>, batch: &Batch) -> bool {
        let (first, frame) = (self.first(batch), candidate.frame);
        let most = if self.info.l4 == L4::Udp { vnet::UDP_SAFE_CHUNKS } else { MAX_JOINED };
        let headers = usize::from(self.info.payload_offset - self.info.l3_offset);
        if self.ended
            || self.pieces == most
            || candidate.payload > self.size
            || headers + self.len + candidate.payload > MAX_PACKET
            || candidate.info.l3_offset != self.info.l3_offset
            || candidate.info.payload_offset != self.info.payload_offset
            || !self.headers_agree(first, candidate)
        {
            return false;
        }
        if !self.sound {
            self.sound = is_sound(first, &self.info, self.partial);
        }
        self.sound && is_sound(frame, candidate.info, candidate.partial)
    }

    /// Whether the headers differ only in what tells one chunk from the next.
    fn headers_agree(&self, first: &[u8], candidate: &Candidate<'_>) -> bool {
        let (info, frame) = (&self.info, candidate.frame);
        let (l3, l4) = (usize::from(info.l3_offset), usize::from(info.l4_offset));
        let network = match info.l3 {
            // All but length, identification and checksum. With DF identifications mean nothing (RFC 6864 §4.1).
            L3::Ipv4 => {
                let unfragmentable = !info.may_be_fragmented(first);
                same::<2>(first, frame, l3)
                    && same::<4>(first, frame, l3 + 6)
                    && (unfragmentable || candidate.identification() == self.identification)
            }
            // All but the length; the flow label is part of the first word.
            _ => same::<4>(first, frame, l3) && same::<2>(first, frame, l3 + 6),
        };
        let transport = match info.l4 {
            // All but sequence, flags and checksum: acknowledgement, length, window, urgent pointer, options.
            L4::Tcp => {
                let options = l4 + TCP_MIN_HEADER_LEN..usize::from(info.payload_offset);
                candidate.sequence() == self.sequence
                    && same::<5>(first, frame, l4 + 8)
                    && same::<2>(first, frame, l4 + 14)
                    && same::<2>(first, frame, l4 + 18)
                    && match options.len() {
                        0 => true,
                        // Timestamps, padded: what Linux sends (RFC 7323 appendix A).
                        12 => same::<12>(first, frame, options.start),
                        _ => first.get(options.clone()) == frame.get(options),
                    }
            }
            _ => true,
        };
        let link = match l3 {
            eth::HEADER_LEN => same::<{ eth::HEADER_LEN }>(first, frame, 0),
            _ => first.get(..l3) == frame.get(..l3),
        };
        network && transport && link
    }

    /// Writes the super-frame into its descriptor.
    pub(super) fn finish(&self, batch: &Batch, pieces: &[Span; MAX_JOINED], output: &mut Output) {
        let end = usize::from(self.info.payload_offset);
        let Some(headers) = self.first(batch).get(..end) else { return };
        let start = output.headers.len();
        // What goes in front of the first frame goes in front of the super-frame.
        let link = output.delivers[self.deliver].head;
        output.headers.extend_from_within(link.range());
        output.headers.extend_from_slice(headers);
        self.write_header(&mut output.headers[start + link.len as usize..]);
        let more = output.pieces.len() as u32;
        output.pieces.extend_from_slice(&pieces[1..self.pieces]);
        let offset = if self.info.l4 == L4::Udp { 6 } else { 16 };
        let deliver = &mut output.delivers[self.deliver];
        deliver.vnet = VnetHeader {
            gso_type: match (self.info.l4, self.info.l3) {
                (L4::Udp, _) => vnet::GSO_UDP_L4,
                (_, L3::Ipv6) => vnet::GSO_TCPV6,
                _ => vnet::GSO_TCPV4,
            },
            hdr_len: self.info.payload_offset,
            gso_size: self.size as u16,
            ..VnetHeader::partial(self.info.l4_offset, offset)
        }
        .behind(link.len as u16);
        deliver.head = Span { start: start as u32, len: link.len + end as u32 };
        deliver.body = pieces[0];
        deliver.more = Pieces { start: more, len: self.pieces as u32 - 1 };
    }

    /// Makes the first frame's headers those of the super-frame, with the checksum left to the kernel.
    fn write_header(&self, head: &mut [u8]) {
        let (l3, l4) = (usize::from(self.info.l3_offset), usize::from(self.info.l4_offset));
        let end = head.len() + self.len;
        match self.info.l3 {
            L3::Ipv4 => {
                put_u16(head, l3 + 2, (end - l3) as u16);
                let check = head.get(l3..l4).map_or(0, v4_header_checksum);
                put_u16(head, l3 + 10, check);
            }
            _ => {
                put_u16(head, l3 + 4, (end - l4) as u16);
            }
        }
        match self.info.l4 {
            // A chunk that has it set was the last.
            L4::Tcp => {
                if let Some(flags) = head.get_mut(l4 + 13) {
                    *flags |= if self.pushed { PSH } else { 0 };
                }
            }
            _ => {
                put_u16(head, l4 + 4, (end - l4) as u16);
            }
        }
        let info = FrameInfo { ip_end: end as u32, ..self.info };
        l4::set_partial(head, &info);
    }
}

/// Whether IP header and L4 checksum are right, so that new ones hide no damage; of a `partial` one the kernel makes a
/// new one anyway.
fn is_sound(frame: &[u8], info: &FrameInfo, partial: bool) -> bool {
    let network = match info.l3 {
        L3::Ipv4 => frame.get(usize::from(info.l3_offset)..).is_some_and(verify_v4_header),
        _ => true,
    };
    network && (partial || l4::checksum_state(frame, info) == L4Checksum::Correct)
}

/// Whether `N` bytes at the same place are the same; of a length known beforehand, so that it is a few instructions.
#[inline]
fn same<const N: usize>(one: &[u8], other: &[u8], at: usize) -> bool {
    equal::<N>((one, at), (other, at))
}

/// Whether `N` bytes here and there are the same.
#[inline]
fn equal<const N: usize>((one, at): (&[u8], usize), (other, other_at): (&[u8], usize)) -> bool {
    match (array_at::<N>(one, at), array_at::<N>(other, other_at)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}
