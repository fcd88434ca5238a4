//! Splitting a super-frame into the chunks that a wire can carry.
//!
//! Payload is never copied: each chunk is a header of its own, written into an arena, and a run of the
//! super-frame's payload.

use std::fmt;

use crate::batch::Span;
use crate::wire::checksum;
use crate::wire::ip::V6_HEADER_LEN;
use crate::wire::l4::pseudo_sum;
use crate::wire::{Fragment, FrameInfo, L3, L4, put_u16, u16_at};

/// Largest number of chunks of one super-frame: 64 KiB at the smallest TCP segment that Linux sends (kernel
/// `include/net/tcp.h`, `TCP_MIN_SND_MSS` less options), rounded up generously.
pub const MAX_CHUNKS: usize = 2048;

/// TCP flags (RFC 9293 §3.1, CWR: RFC 3168 §6.1) that not every chunk carries.
const FIN: u16 = 0x01;
const PSH: u16 = 0x08;
const CWR: u16 = 0x80;

/// One chunk: the bytes of `head`, then those of `body`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Headers, inside the arena.
    pub head: Span,
    /// Payload, counted from the start of the super-frame.
    pub body: Span,
}

/// Why a frame cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitError {
    /// Not a whole TCP segment or UDP datagram, or one whose pseudo-header cannot be told.
    Unsuitable,
    /// No payload, or chunks of no payload.
    Empty,
    /// More than [`MAX_CHUNKS`] chunks.
    TooMany,
}

impl fmt::Display for SplitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsuitable => "not a whole TCP segment or UDP datagram",
            Self::Empty => "nothing to split",
            Self::TooMany => "too many chunks",
        })
    }
}

impl std::error::Error for SplitError {}

/// Splits the frame or packet described by `info` into chunks of `size` payload bytes, the last one shorter if need
/// be, each with complete lengths and checksums.
///
/// The header of each chunk, behind a copy of `prefix`, is appended to `headers`, and the chunk to `chunks`.
/// Whether the L4 checksum of the super-frame itself is complete, partial or wrong does not matter.
///
/// Sequence numbers and IPv4 identifications count up; FIN and PSH stay on the last chunk and CWR on the first
/// (kernel `net/ipv4/tcp_offload.c`, `tcp_gso_segment`).
///
/// # Errors
/// [`SplitError`]; nothing is appended then.
pub fn split(
    frame: &[u8],
    info: &FrameInfo,
    size: usize,
    prefix: &[u8],
    headers: &mut Vec<u8>,
    chunks: &mut Vec<Chunk>,
) -> Result<(), SplitError> {
    let start = usize::from(info.payload_offset);
    let end = info.ip_end as usize;
    let transport = matches!(info.l4, L4::Tcp | L4::Udp);
    let ordered = info.l3_offset <= info.l4_offset && info.l4_offset <= info.payload_offset;
    if !transport
        || !ordered
        || info.fragment != Fragment::Whole
        || end > frame.len()
        || info.l3 == L3::Other
    {
        return Err(SplitError::Unsuitable);
    }
    let payload = end.saturating_sub(start);
    if payload == 0 || size == 0 {
        return Err(SplitError::Empty);
    }
    let count = payload.div_ceil(size);
    if count > MAX_CHUNKS {
        return Err(SplitError::TooMany);
    }
    let header = prefix.len() + start;
    let first = headers.len();
    headers.extend_from_slice(prefix);
    headers.extend_from_slice(&frame[..start]);
    let Some(template) = Template::prepare(&mut headers[first + prefix.len()..], info) else {
        headers.truncate(first);
        return Err(SplitError::Unsuitable);
    };
    headers.resize(first + count * header, 0);
    let (original, copies) = headers[first..].split_at_mut(header);
    for copy in copies.chunks_exact_mut(header) {
        copy.copy_from_slice(original);
    }
    chunks.reserve(count);
    let bodies = frame[start..end].chunks(size);
    for (index, (head, body)) in headers[first..].chunks_exact_mut(header).zip(bodies).enumerate() {
        let place = Place { index, offset: index * size, last: index + 1 == count };
        template.write(&mut head[prefix.len()..], place, body);
        chunks.push(Chunk {
            head: Span { start: (first + index * header) as u32, len: header as u32 },
            body: Span { start: (start + place.offset) as u32, len: body.len() as u32 },
        });
    }
    Ok(())
}

/// Where a chunk stands in its super-frame.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    /// Of its payload in the super-frame's, in bytes.
    offset: usize,
    last: bool,
}

/// What the headers of all chunks share, summed up once.
///
/// Sums are of 16-bit words, not folded; they are far from overflowing.
struct Template {
    l3: usize,
    l4: usize,
    v4: bool,
    tcp: bool,
    /// Of the IPv4 header without length, identification and checksum.
    network: u32,
    identification: u16,
    /// Of the pseudo-header and the L4 header without lengths, sequence number, flags and checksum.
    transport: u32,
    sequence: u32,
    /// TCP header length and flags, one word.
    flags: u16,
}

impl Template {
    /// Takes out of the headers what differs from chunk to chunk. `None` when a header is not where `info` says.
    fn prepare(head: &mut [u8], info: &FrameInfo) -> Option<Self> {
        let (l3, l4) = (usize::from(info.l3_offset), usize::from(info.l4_offset));
        let (v4, tcp) = (info.l3 == L3::Ipv4, info.l4 == L4::Tcp);
        // All that is written is there.
        let (network_len, transport_len) = (if v4 { 12 } else { 6 }, if tcp { 18 } else { 8 });
        if l4 < l3 + network_len || head.len() < l4 + transport_len {
            return None;
        }
        // The sum without the length of which it is part: that of no bytes.
        let pseudo = pseudo_sum(head, &FrameInfo { ip_end: info.l4_offset.into(), ..*info })?;
        let mut template = Self {
            l3,
            l4,
            v4,
            tcp,
            network: 0,
            identification: 0,
            transport: 0,
            sequence: 0,
            flags: 0,
        };
        let mut take = |at| take(head, at);
        if v4 {
            take(l3 + 2)?;
            template.identification = take(l3 + 4)?;
            take(l3 + 10)?;
        } else {
            take(l3 + 4)?;
        }
        if tcp {
            template.sequence = u32::from(take(l4 + 4)?) << 16 | u32::from(take(l4 + 6)?);
            template.flags = take(l4 + 12)?;
            take(l4 + 16)?;
        } else {
            take(l4 + 4)?;
            take(l4 + 6)?;
        }
        template.network = u32::from(checksum::sum(head.get(l3..l4)?));
        template.transport = u32::from(pseudo) + u32::from(checksum::sum(head.get(l4..)?));
        Some(template)
    }

    /// Completes a copy of the prepared headers for one chunk.
    #[inline]
    fn write(&self, head: &mut [u8], place: Place, body: &[u8]) {
        let end = head.len() + body.len();
        let l4_len = (end - self.l4) as u16;
        // The parts that are written, each of a length known beforehand: one check instead of one a field.
        let Some((before, transport)) = head.split_at_mut_checked(self.l4) else { return };
        let Some(network) = before.get_mut(self.l3..) else { return };
        if self.v4 {
            let Some(ip) = network.first_chunk_mut::<12>() else { return };
            let len = (end - self.l3) as u16;
            let id = self.identification.wrapping_add(place.index as u16);
            let sum = self.network + u32::from(len) + u32::from(id);
            ip[2..4].copy_from_slice(&len.to_be_bytes());
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[10..12].copy_from_slice(&check(sum).to_be_bytes());
        } else {
            let Some(ip) = network.first_chunk_mut::<6>() else { return };
            let len = (end - self.l3 - V6_HEADER_LEN) as u16;
            ip[4..6].copy_from_slice(&len.to_be_bytes());
        }
        let sum = self.transport + u32::from(l4_len) + u32::from(checksum::sum(body));
        // A sum of zero goes out as all ones: zero would mean "no checksum" in UDP (RFC 768) and means the same number
        // in TCP.
        let finish = |sum| match check(sum) {
            0 => 0xffff,
            check => check,
        };
        if self.tcp {
            let Some(tcp) = transport.first_chunk_mut::<18>() else { return };
            let sequence = self.sequence.wrapping_add(place.offset as u32);
            let mut flags = self.flags;
            if !place.last {
                flags &= !(FIN | PSH);
            }
            if place.index > 0 {
                flags &= !CWR;
            }
            let sum = sum + (sequence >> 16) + (sequence & 0xffff) + u32::from(flags);
            tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
            tcp[12..14].copy_from_slice(&flags.to_be_bytes());
            tcp[16..18].copy_from_slice(&finish(sum).to_be_bytes());
        } else {
            let Some(udp) = transport.first_chunk_mut::<8>() else { return };
            udp[4..6].copy_from_slice(&l4_len.to_be_bytes());
            udp[6..8].copy_from_slice(&finish(sum + u32::from(l4_len)).to_be_bytes());
        }
    }
}

/// The checksum field for a sum that is not folded.
#[inline]
fn check(sum: u32) -> u16 {
    checksum::finish(checksum::fold(sum.into()))
}

/// Takes a 16-bit field out and leaves zero.
fn take(head: &mut [u8], at: usize) -> Option<u16> {
    let value = u16_at(head, at)?;
    put_u16(head, at, 0);
    Some(value)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::l4::{L4Checksum, checksum_state};

    fn tcp(v6: bool, vlan: bool, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let mut frame = Vec::new();
        macro_rules! finish {
            ($ip:expr) => {
                $ip.tcp(1000, 2000, 0xffff_ff00, 4096)
                    .ack(77)
                    .psh()
                    .fin()
                    .options_raw(options)
                    .unwrap()
                    .write(&mut frame, payload)
                    .unwrap()
            };
        }
        match (vlan, v6) {
            (false, false) => finish!(builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)),
            (false, true) => finish!(builder.ipv6([1; 16], [2; 16], 64)),
            (true, false) => {
                finish!(builder.single_vlan(7.try_into().unwrap()).ipv4(
                    [10, 0, 0, 1],
                    [10, 0, 0, 2],
                    64
                ))
            }
            (true, true) => {
                finish!(builder.single_vlan(7.try_into().unwrap()).ipv6([1; 16], [2; 16], 64))
            }
        }
        frame
    }

    fn chunks(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
        let info = FrameInfo::parse(frame).unwrap();
        let (mut headers, mut chunks) = (Vec::new(), Vec::new());
        split(frame, &info, size, b"prefix", &mut headers, &mut chunks).unwrap();
        let whole = |chunk: &Chunk| {
            let head = headers[chunk.head.range()].strip_prefix(b"prefix").unwrap();
            [head, &frame[chunk.body.range()]].concat()
        };
        chunks.iter().map(whole).collect()
    }

    proptest! {
        /// Whatever the headers, the chunks are valid TCP that carries the same bytes at the same places.
        #[test]
        fn chunks_are_valid_and_add_up(
            v6: bool, vlan: bool, words in 0_usize..=10,
            payload in prop::collection::vec(any::<u8>(), 1..5000),
            size in 1_usize..1500,
        ) {
            prop_assume!(payload.len().div_ceil(size) <= MAX_CHUNKS);
            let frame = tcp(v6, vlan, &vec![1; words * 4], &payload);
            let chunks = chunks(&frame, size);
            let mut joined = Vec::new();
            for (index, chunk) in chunks.iter().enumerate() {
                let info = FrameInfo::parse(chunk).unwrap();
                prop_assert_eq!(info.ip_end as usize, chunk.len());
                prop_assert_eq!(checksum_state(chunk, &info), L4Checksum::Correct);
                let l3 = usize::from(info.l3_offset);
                prop_assert!(FrameInfo::parse_ip(&chunk[l3..]).is_ok(), "IPv4 header checksum");
                let parsed = etherparse::SlicedPacket::from_ethernet(chunk).unwrap();
                let Some(etherparse::TransportSlice::Tcp(tcp)) = parsed.transport else { panic!("no TCP") };
                prop_assert_eq!(tcp.sequence_number(), 0xffff_ff00_u32.wrapping_add(joined.len() as u32));
                let last = index + 1 == chunks.len();
                prop_assert_eq!((tcp.fin(), tcp.psh()), (last, last));
                joined.extend_from_slice(tcp.payload());
            }
            prop_assert_eq!(joined, payload);
        }

        /// No bytes make it panic, and what it refuses leaves no trace.
        #[test]
        fn survives_anything(frame in prop::collection::vec(any::<u8>(), 0..200), size in 0_usize..300, ethernet: bool) {
            let info = if ethernet { FrameInfo::parse(&frame) } else { FrameInfo::parse_ip(&frame).ok() };
            if let Some(info) = info {
                let (mut headers, mut chunks) = (Vec::new(), Vec::new());
                if split(&frame, &info, size, &[], &mut headers, &mut chunks).is_err() {
                    prop_assert!(headers.is_empty() && chunks.is_empty());
                }
            }
        }
    }

    #[test]
    fn udp_chunks_are_datagrams_of_their_own() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(5, 6)
            .write(&mut frame, &[9; 250])
            .unwrap();
        let chunks = chunks(&frame, 100);
        let lengths: Vec<usize> = chunks
            .iter()
            .map(|chunk| {
                let info = FrameInfo::parse(chunk).unwrap();
                assert_eq!(checksum_state(chunk, &info), L4Checksum::Correct);
                let parsed = etherparse::SlicedPacket::from_ethernet(chunk).unwrap();
                let Some(etherparse::TransportSlice::Udp(udp)) = parsed.transport else {
                    panic!("no UDP")
                };
                usize::from(udp.length()) - 8
            })
            .collect();
        assert_eq!(lengths, [100, 100, 50]);
    }

    #[test]
    fn cwr_is_only_on_the_first_chunk() {
        let mut frame = tcp(false, false, &[], &[0; 300]);
        frame[14 + 20 + 13] |= CWR as u8;
        let cwr: Vec<bool> =
            chunks(&frame, 100).iter().map(|chunk| chunk[14 + 20 + 13] & CWR as u8 != 0).collect();
        assert_eq!(cwr, [true, false, false]);
    }

    #[test]
    fn fragments_and_empty_segments_are_refused() {
        let frame = tcp(false, false, &[], &[]);
        let info = FrameInfo::parse(&frame).unwrap();
        let mut none = (Vec::new(), Vec::new());
        assert_eq!(
            split(&frame, &info, 100, &[], &mut none.0, &mut none.1),
            Err(SplitError::Empty)
        );
        let fragment = FrameInfo { fragment: Fragment::First, ..info };
        assert_eq!(
            split(&frame, &fragment, 100, &[], &mut none.0, &mut none.1),
            Err(SplitError::Unsuitable)
        );
    }
}
