//! Super-frames: whatever can be split makes valid chunks that add up.

use overplane::gso::{self, MAX_CHUNKS};
use overplane::wire::l4::{L4Checksum, checksum_state};
use overplane::wire::{FrameInfo, L3, L4, VnetHeader};

use crate::cursor::Cursor;

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
    for chunk in &chunks {
        let at = |span: overplane::Span| span.start as usize..(span.start + span.len) as usize;
        let head = headers[at(chunk.head)].strip_prefix(&prefix[..]).expect("the prefix in front");
        let body = &frame[at(chunk.body)];
        let whole = [head, body].concat();
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
    }
    assert_eq!(joined, payload);
}
