//! Splitting a super-frame into the chunks that a wire can carry.
//!
//! Payload is never copied: each chunk is a header of its own, written into an arena, and a run of the
//! super-frame's payload.

use std::fmt;

use crate::batch::Span;
use crate::wire::checksum;
use crate::wire::ip::{V6_HEADER_LEN, v4_header_checksum};
use crate::wire::l4::pseudo_sum;
use crate::wire::{Fragment, FrameInfo, L3, L4};

/// Largest number of chunks of one super-frame: 64 KiB at the smallest TCP segment that Linux sends (kernel
/// `include/net/tcp.h`, `TCP_MIN_SND_MSS` less options), rounded up generously.
pub const MAX_CHUNKS: usize = 2048;

/// TCP flags (RFC 9293 §3.1, CWR: RFC 3168 §6.1) that not every chunk carries.
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

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
        || pseudo_sum(frame, info).is_none()
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
    let (first_head, first_chunk) = (headers.len(), chunks.len());
    for index in 0..count {
        let at = start + index * size;
        let len = size.min(end - at);
        let base = headers.len();
        headers.extend_from_slice(prefix);
        headers.extend_from_slice(&frame[..start]);
        let body = &frame[at..at + len];
        let head = &mut headers[base + prefix.len()..];
        if write_header(head, info, index, index * size, index + 1 == count, body).is_none() {
            headers.truncate(first_head);
            chunks.truncate(first_chunk);
            return Err(SplitError::Unsuitable);
        }
        chunks.push(Chunk {
            head: Span { start: base as u32, len: (prefix.len() + start) as u32 },
            body: Span { start: at as u32, len: len as u32 },
        });
    }
    Ok(())
}

/// Turns a copy of the super-frame's headers into those of chunk `index`, whose payload starts `offset` bytes into
/// the super-frame's. `None` when a header is not where `info` says.
fn write_header(
    head: &mut [u8],
    info: &FrameInfo,
    index: usize,
    offset: usize,
    last: bool,
    body: &[u8],
) -> Option<()> {
    let (l3, l4) = (usize::from(info.l3_offset), usize::from(info.l4_offset));
    let ip_len = head.len() - l3 + body.len();
    match info.l3 {
        L3::Ipv4 => {
            put(head, l3 + 2, ip_len as u16)?;
            let id = get(head, l3 + 4)?;
            put(head, l3 + 4, id.wrapping_add(index as u16))?;
            let check = v4_header_checksum(head.get(l3..l4)?);
            put(head, l3 + 10, check)?;
        }
        L3::Ipv6 => put(head, l3 + 4, (ip_len - V6_HEADER_LEN) as u16)?,
        L3::Other => return None,
    }
    let field = match info.l4 {
        L4::Tcp => {
            let sequence = head.get(l4 + 4..l4 + 8)?.try_into().map(u32::from_be_bytes).ok()?;
            let sequence = sequence.wrapping_add(offset as u32).to_be_bytes();
            head.get_mut(l4 + 4..l4 + 8)?.copy_from_slice(&sequence);
            let flags = head.get_mut(l4 + 13)?;
            if !last {
                *flags &= !(FIN | PSH);
            }
            if index > 0 {
                *flags &= !CWR;
            }
            l4 + 16
        }
        _ => {
            put(head, l4 + 4, (head.len() - l4 + body.len()) as u16)?;
            l4 + 6
        }
    };
    put(head, field, 0)?;
    let chunk = FrameInfo { ip_end: (head.len() + body.len()) as u32, ..*info };
    let pseudo = pseudo_sum(head, &chunk)?;
    // TCP and UDP headers are of even length, so the sums of header and payload add up without a swap.
    let sum =
        checksum::add(pseudo, checksum::add(checksum::sum(head.get(l4..)?), checksum::sum(body)));
    // A sum of zero goes out as all ones: zero would mean "no checksum" in UDP (RFC 768) and means the same number
    // in TCP.
    let check = match checksum::finish(sum) {
        0 => 0xffff,
        check => check,
    };
    put(head, field, check)
}

fn get(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().map(u16::from_be_bytes).ok()
}

fn put(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    bytes.get_mut(at..at + 2)?.copy_from_slice(&value.to_be_bytes());
    Some(())
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
        frame[14 + 20 + 13] |= CWR;
        let cwr: Vec<bool> =
            chunks(&frame, 100).iter().map(|chunk| chunk[14 + 20 + 13] & CWR != 0).collect();
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
