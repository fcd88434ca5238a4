//! Super-frames: whatever can be split makes valid chunks that add up, are what their definition says, and can be joined
//! again.

use overplane::gso::{self, MAX_CHUNKS};
use overplane::wire::l4::{L4Checksum, checksum_offset, checksum_state, complete, set_partial};
use overplane::wire::{FrameInfo, L3, L4, VnetHeader, ip, vxlan};
use overplane::{Offloads, limits};

use crate::cursor::Cursor;
use crate::packets::{bridge_id, host};
use crate::twins::{Arrival, ROUTED, Twins, encapsulated};

pub fn run(bytes: &[u8]) {
    let mut input = Cursor(bytes);
    let ethernet = input.u8() & 1 == 0;
    let prefix = vec![0xa5; usize::from(input.u8() % 16)];
    let vnet = VnetHeader::parse(&input.array::<10>()).expect("ten bytes");
    let frame = input.padded();
    if vnet.validate(frame.len()).is_ok() && vnet.is_gso() {
        assert!(vnet.gso_size > 0);
        assert!(usize::from(vnet.csum_start) + usize::from(vnet.csum_offset) + 2 <= frame.len());
    }
    let info = match ethernet {
        true => FrameInfo::parse(&frame),
        false => FrameInfo::parse_ip(&frame).ok(),
    };
    let Some(info) = info else { return };
    let (mut headers, mut chunks) = (vec![7; 3], Vec::new());
    let size = usize::from(vnet.gso_size);
    if gso::split(&frame, &info, size, &prefix, &mut headers, &mut chunks).is_err() {
        assert_eq!((headers, chunks), (vec![7; 3], Vec::new()), "refused without a trace");
        return;
    }
    assert!((1..=MAX_CHUNKS).contains(&chunks.len()));
    assert!(matches!(info.l4, L4::Tcp | L4::Udp));
    let payload = &frame[usize::from(info.payload_offset)..info.ip_end as usize];
    let mut joined = Vec::new();
    let mut parts = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        let at = |span: overplane::Span| span.start as usize..(span.start + span.len) as usize;
        let head = headers[at(chunk.head)].strip_prefix(&prefix[..]).expect("the prefix in front");
        let body = &frame[at(chunk.body)];
        let whole = [head, body].concat();
        assert_eq!(whole, by_definition(&frame, &info, size, index));
        let parsed = match ethernet {
            true => FrameInfo::parse(&whole).expect("a frame"),
            false => FrameInfo::parse_ip(&whole).expect("a packet with a correct header checksum"),
        };
        assert_eq!((parsed.l3, parsed.l4, parsed.l4_offset), (info.l3, info.l4, info.l4_offset));
        assert_eq!(parsed.ip_end as usize, whole.len());
        assert_eq!(checksum_state(&whole, &parsed), L4Checksum::Correct);
        if info.l3 == L3::Ipv4 {
            let packet = &whole[usize::from(info.l3_offset)..];
            assert!(overplane::wire::ip::verify_v4_header(packet));
        }
        assert!(!body.is_empty() && body.len() <= size);
        joined.extend_from_slice(body);
        parts.push(whole);
    }
    assert_eq!(joined, payload);
    join_again(parts, ethernet);
}

/// The chunk made field by field, with every sum computed anew.
fn by_definition(frame: &[u8], info: &FrameInfo, size: usize, index: usize) -> Vec<u8> {
    let (l3, l4) = (usize::from(info.l3_offset), usize::from(info.l4_offset));
    let payload = &frame[..info.ip_end as usize][usize::from(info.payload_offset)..];
    let body = payload.chunks(size).nth(index).expect("as many chunks as that");
    let mut chunk = [&frame[..info.payload_offset.into()], body].concat();
    let end = chunk.len();
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let mut put = |at: usize, value: u16| chunk[at..at + 2].copy_from_slice(&value.to_be_bytes());
    match info.l3 {
        L3::Ipv4 => {
            put(l3 + 2, (end - l3) as u16);
            put(l3 + 4, word(l3 + 4).wrapping_add(index as u16));
        }
        _ => put(l3 + 4, (end - l3 - 40) as u16),
    }
    match info.l4 {
        L4::Udp => put(l4 + 4, (end - l4) as u16),
        _ => {
            let sequence = u32::from(word(l4 + 4)) << 16 | u32::from(word(l4 + 6));
            let sequence = sequence.wrapping_add((index * size) as u32);
            put(l4 + 4, (sequence >> 16) as u16);
            put(l4 + 6, sequence as u16);
            let last = (index + 1) * size >= payload.len();
            let gone = if last { 0 } else { 0x09 } | if index == 0 { 0 } else { 0x80 };
            put(l4 + 12, word(l4 + 12) & !gone);
        }
    }
    if info.l3 == L3::Ipv4 {
        let check = ip::v4_header_checksum(&chunk[l3..l4]);
        chunk[l3 + 10..l3 + 12].copy_from_slice(&check.to_be_bytes());
    }
    let info = FrameInfo { ip_end: end as u32, ..*info };
    assert!(set_partial(&mut chunk, &info));
    assert!(complete(&mut chunk, l4, checksum_offset(info.l4).expect("it has one").into()));
    chunk
}

/// The chunks, received as one train, are delivered in whatever form they may be.
fn join_again(mut parts: Vec<Vec<u8>>, ethernet: bool) {
    let mut udp_port = ROUTED;
    if ethernet {
        udp_port = vxlan::PORT;
        for part in &mut parts {
            part[..6].copy_from_slice(&host(1).mac.0);
            part[6..12].copy_from_slice(&host(20).mac.0);
        }
    }
    let datagram = |part: &Vec<u8>| match ethernet {
        true => encapsulated(bridge_id(1), part),
        false => part.clone(),
    };
    let stride = datagram(&parts[0]).len();
    let train = limits::MAX_TRAIN.min(limits::MAX_FRAME / stride);
    let arrivals: Vec<Arrival> = parts
        .chunks(train.max(1))
        .take(4)
        .map(|parts| Arrival { from: 2, bytes: parts.iter().flat_map(datagram).collect(), stride })
        .collect();
    Twins::new(Offloads::ALL, None).receive(&arrivals, udp_port);
}
